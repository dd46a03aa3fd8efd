//! Joins in the harness: random histories of both sides, beside a nested loop over what is left at the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int8Array, Int64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use coulee_model::{KeyGroup, SubtaskIndex};
use coulee_runtime::graph::{Lineage, OperatorFactory, Port};
use coulee_runtime::harness::{Harness, Input, agrees, changelog_lines};
use coulee_runtime::join::{JoinKind, JoinSide, JoinSpec, join};
use coulee_runtime::keys::hash_keys;
use coulee_runtime::operator::InputIndex;
use coulee_runtime::state::OperatorState;
use coulee_runtime::{Batch, RowKind};
use datafusion_common::ScalarValue;
use datafusion_expr::Operator;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{BinaryExpr, Column, Literal};

use crate::random::Random;

const KINDS: [JoinKind; 7] = [
    JoinKind::Inner,
    JoinKind::Left,
    JoinKind::Right,
    JoinKind::Full,
    JoinKind::LeftSemi,
    JoinKind::LeftAnti,
    JoinKind::LeftMark,
];

/// A key and a value.
type Row = (Option<i64>, i64);
/// A row of the result: `None` is a side that is padded, or not there. The mark of a mark join is the value of a right row without a key, 1 or 0.
type Joined = (Option<Row>, Option<Row>);

fn schema(names: &[&str]) -> SchemaRef {
    Arc::new(Schema::new(names.iter().map(|name| Field::new(*name, DataType::Int64, true)).collect::<Vec<_>>()))
}

fn side(names: [&str; 2], appends: bool) -> JoinSide {
    JoinSide {
        schema: schema(&names),
        appends,
        keys: vec![Arc::new(Column::new(names[0], 0))],
        ttl_millis: None,
        retention: None,
    }
}

/// Joins `(k, v)` and `(j, w)` on `k = j`, where `v < w` if asked; `appends`: rows that are only appended.
fn joined(kind: JoinKind, null_equals_null: bool, has_condition: bool, appends: bool) -> Arc<dyn OperatorFactory> {
    let less = BinaryExpr::new(Arc::new(Column::new("v", 1)), Operator::Lt, Arc::new(Column::new("w", 3)));
    let left_only = matches!(kind, JoinKind::LeftSemi | JoinKind::LeftAnti);
    join(JoinSpec {
        kind,
        left: side(["k", "v"], appends),
        right: side(["j", "w"], appends),
        null_equals_null,
        condition: has_condition.then(|| Arc::new(less) as Arc<dyn PhysicalExpr>),
        schema: match kind {
            JoinKind::LeftMark => {
                let left = schema(&["k", "v"]);
                let mark = Arc::new(Field::new("mark", DataType::Boolean, false));
                Arc::new(Schema::new(left.fields().iter().cloned().chain([mark]).collect::<Vec<_>>()))
            }
            _ if left_only => schema(&["k", "v"]),
            _ => schema(&["k", "v", "j", "w"]),
        },
    })
}

fn batch(names: [&str; 2], rows: &[(RowKind, Row)]) -> Batch {
    let keys: Int64Array = rows.iter().map(|(_, (key, _))| *key).collect();
    let values: Int64Array = rows.iter().map(|(_, (_, value))| Some(*value)).collect();
    let columns = RecordBatch::try_new(schema(&names), vec![Arc::new(keys), Arc::new(values)]).unwrap();
    if rows.iter().all(|(kind, _)| *kind == RowKind::Insert) {
        return Batch::inserts(columns);
    }
    Batch::changes(columns, Int8Array::from_iter_values(rows.iter().map(|(kind, _)| *kind as i8)))
}

/// Batches of both sides, and what is left of each in the end. Only what is there is deleted.
fn history(seed: u64, changes: bool) -> (Vec<Input>, [Vec<Row>; 2]) {
    let mut random = Random(seed);
    let (mut inputs, mut left) = (Vec::new(), [Vec::new(), Vec::new()]);
    for _ in 0..12 {
        let of = random.below(2) as usize;
        let mut rows = Vec::new();
        for _ in 0..1 + random.below(4) {
            let there: &mut Vec<Row> = &mut left[of];
            if changes && !there.is_empty() && random.below(3) == 0 {
                let row = there.swap_remove(random.below(there.len() as u64) as usize);
                rows.push((if random.below(2) == 0 { RowKind::Delete } else { RowKind::UpdateBefore }, row));
                continue;
            }
            let key = (random.below(5) > 0).then(|| random.below(3) as i64);
            let row = (key, random.below(3) as i64);
            there.push(row);
            rows.push((if changes && random.below(4) == 0 { RowKind::UpdateAfter } else { RowKind::Insert }, row));
        }
        let names = [["k", "v"], ["j", "w"]][of];
        inputs.push(Input::RowsOf(InputIndex(of as u8), batch(names, &rows)));
    }
    (inputs, left)
}

/// The join of what is left, by a nested loop.
fn expected(kind: JoinKind, nulls: bool, has_condition: bool, [left, right]: &[Vec<Row>; 2]) -> BTreeMap<Joined, i64> {
    let matches = |(a, b): (&Row, &Row)| {
        let keys = if nulls { a.0 == b.0 } else { a.0.is_some() && a.0 == b.0 };
        keys && (!has_condition || a.1 < b.1)
    };
    let mut out: BTreeMap<Joined, i64> = BTreeMap::new();
    let mut add = |row: Joined| *out.entry(row).or_default() += 1;
    for a in left {
        let found: Vec<&Row> = right.iter().filter(|b| matches((a, b))).collect();
        match kind {
            JoinKind::LeftSemi if !found.is_empty() => add((Some(*a), None)),
            JoinKind::LeftAnti if found.is_empty() => add((Some(*a), None)),
            JoinKind::LeftSemi | JoinKind::LeftAnti => {}
            JoinKind::LeftMark => add((Some(*a), Some((None, i64::from(!found.is_empty()))))),
            _ => {
                found.iter().for_each(|b| add((Some(*a), Some(**b))));
                if found.is_empty() && matches!(kind, JoinKind::Left | JoinKind::Full) {
                    add((Some(*a), None));
                }
            }
        }
    }
    if matches!(kind, JoinKind::Right | JoinKind::Full) {
        right.iter().filter(|b| !left.iter().any(|a| matches((a, b)))).for_each(|b| add((None, Some(*b))));
    }
    out
}

/// What a changelog leaves: each line takes part as its kind says, and nothing is taken back that is not there.
fn materialized(lines: &[String], has_kinds: bool) -> BTreeMap<Joined, i64> {
    let mut out: BTreeMap<Joined, i64> = BTreeMap::new();
    for line in lines {
        let mut cells: Vec<&str> = line.split(" | ").map(str::trim).collect();
        let sign = if has_kinds { i64::from(matches!(cells.remove(0), "+I" | "+U")) * 2 - 1 } else { 1 };
        let number = |at: usize| cells.get(at).and_then(|cell| cell.parse::<i64>().ok());
        let row = |at: usize| number(at + 1).map(|value| (number(at), value));
        let right = match cells.get(2) {
            Some(mark @ (&"true" | &"false")) => Some((None, i64::from(*mark == "true"))),
            _ => row(2),
        };
        let count = out.entry((row(0), right)).or_default();
        *count += sign;
        assert!(*count >= 0, "{line} takes back what is not there");
    }
    out.retain(|_, count| *count != 0);
    out
}

#[test]
fn any_history_of_both_sides_leaves_the_join_of_what_is_left() {
    for seed in 0..3 {
        for changes in [false, true] {
            let (inputs, left) = history(seed * 2 + u64::from(changes), changes);
            for kind in KINDS {
                let (nulls, has_condition) = (seed % 3 == 0, seed % 2 == 0);
                let factory = joined(kind, nulls, has_condition, !changes);
                let dirs = std::cell::RefCell::new(Vec::new());
                let folder = || {
                    dirs.borrow_mut().push(tempfile::tempdir().unwrap());
                    dirs.borrow().last().unwrap().path().to_owned()
                };
                let lines = agrees(&factory, &inputs, folder).unwrap();
                let has_kinds = factory.emits_changelog(Port::MAIN, changes);
                let found = materialized(&lines, has_kinds);
                assert_eq!(found, expected(kind, nulls, has_condition, &left), "seed {seed}, {kind:?}, {changes}");
            }
        }
    }
}

fn lines(harness: &mut Harness) -> Vec<String> {
    changelog_lines(&harness.take_batches(Port::MAIN)).unwrap()
}

#[test]
fn a_match_takes_back_the_padded_row_and_its_loss_brings_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::new(joined(JoinKind::Left, false, false, false), folder.path()).unwrap();
    let mut push = |of: u8, names, kind, row| {
        harness.push(Input::RowsOf(InputIndex(of), batch(names, &[(kind, row)]))).unwrap();
        lines(&mut harness)
    };
    let (a, b) = (["k", "v"], ["j", "w"]);
    assert_eq!(push(0, a, RowKind::Insert, (Some(1), 10)), ["+I | 1 | 10 |  | "]);
    assert_eq!(push(1, b, RowKind::Insert, (Some(1), 20)), ["-D | 1 | 10 |  | ", "+I | 1 | 10 | 1 | 20"]);
    assert_eq!(push(1, b, RowKind::Insert, (Some(1), 21)), ["+I | 1 | 10 | 1 | 21"]);
    assert_eq!(push(1, b, RowKind::Delete, (Some(1), 20)), ["-D | 1 | 10 | 1 | 20"]);
    assert_eq!(push(1, b, RowKind::Delete, (Some(1), 21)), ["-D | 1 | 10 | 1 | 21", "+I | 1 | 10 |  | "]);
    assert_eq!(push(0, a, RowKind::Insert, (None, 11)), ["+I |  | 11 |  | "], "a null key equals nothing");
}

#[test]
fn a_pair_whose_condition_fails_is_rejected_and_does_not_match() {
    let folder = tempfile::tempdir().unwrap();
    let one: Arc<dyn PhysicalExpr> = Arc::new(Literal::new(ScalarValue::Int64(Some(6))));
    let quotient = BinaryExpr::new(one, Operator::Divide, Arc::new(Column::new("w", 3)));
    let condition = BinaryExpr::new(Arc::new(quotient), Operator::Gt, Arc::new(Column::new("v", 1)));
    let spec = JoinSpec {
        kind: JoinKind::Inner,
        left: side(["k", "v"], false),
        right: side(["j", "w"], false),
        null_equals_null: false,
        condition: Some(Arc::new(condition)),
        schema: schema(&["k", "v", "j", "w"]),
    };
    let mut harness = Harness::new(join(spec), folder.path()).unwrap();
    let rows = [0, 3, 2].map(|w| (RowKind::Insert, (Some(1), w)));
    harness.push(Input::RowsOf(InputIndex::SECOND, batch(["j", "w"], &rows))).unwrap();
    harness.push(Input::RowsOf(InputIndex::FIRST, batch(["k", "v"], &[(RowKind::Insert, (Some(1), 2))]))).unwrap();
    assert_eq!(lines(&mut harness), ["+I | 1 | 2 | 1 | 2"]);
    let rejected = harness.take(Port::REJECTED);
    assert_eq!(rejected.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
}

#[test]
fn rows_move_to_another_parallelism_by_their_keys() {
    for appends in [false, true] {
        move_to_another_parallelism(appends);
    }
}

fn move_to_another_parallelism(appends: bool) {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::new(joined(JoinKind::Inner, false, false, appends), folder.path()).unwrap();
    let rows: Vec<_> = (0..40).map(|key| (RowKind::Insert, (Some(key), key * 10))).collect();
    harness.push(Input::RowsOf(InputIndex::FIRST, batch(["k", "v"], &rows))).unwrap();
    harness.checkpoint().unwrap();
    let mut found = Vec::new();
    for subtask in 0..3 {
        harness.restart(SubtaskIndex(subtask), 3).unwrap();
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..40));
        let hashes = hash_keys(&[keys], 40).unwrap();
        let is_own = |at: &usize| KeyGroup::of_hash(hashes[*at]).owner(3) == SubtaskIndex(subtask);
        let own: Vec<_> = (0..40).filter(is_own).map(|at| rows[at]).collect();
        assert!(!own.is_empty() && own.len() < 40, "a part of the keys");
        harness.push(Input::RowsOf(InputIndex::SECOND, batch(["j", "w"], &own))).unwrap();
        found.extend(lines(&mut harness));
    }
    assert_eq!(found.len(), 40, "each row is found by the subtask that owns its key");
}

#[test]
fn a_join_without_keys_pairs_everything() {
    let folder = tempfile::tempdir().unwrap();
    let none =
        |schema: SchemaRef| JoinSide { schema, appends: true, keys: Vec::new(), ttl_millis: None, retention: None };
    let spec = JoinSpec {
        kind: JoinKind::Inner,
        left: none(schema(&["k", "v"])),
        right: none(schema(&["j", "w"])),
        null_equals_null: false,
        condition: None,
        schema: schema(&["k", "v", "j", "w"]),
    };
    let mut harness = Harness::new(join(spec), folder.path()).unwrap();
    let rows = [(RowKind::Insert, (Some(1), 1)), (RowKind::Insert, (None, 2))];
    harness.push(Input::RowsOf(InputIndex::FIRST, batch(["k", "v"], &rows))).unwrap();
    harness.push(Input::RowsOf(InputIndex::SECOND, batch(["j", "w"], &rows))).unwrap();
    assert_eq!(lines(&mut harness).len(), 4);
}

#[test]
fn lists_are_not_taken_for_counted_rows() {
    let inputs = [Lineage::named("a", schema(&["k", "v"])), Lineage::named("b", schema(&["j", "w"]))];
    let state = |kind, appends| joined(kind, false, false, appends).state(&inputs).expect("a join has state");
    let kept = |state: &OperatorState| {
        let sides = state.facets.iter().filter(|facet| facet.name.ends_with("rows kept"));
        sides.map(|facet| facet.text.clone()).collect::<Vec<_>>()
    };
    let (counted, appended) = (state(JoinKind::Inner, false), state(JoinKind::Inner, true));
    assert_ne!(counted.kind, appended.kind, "also of a state that was stored before there were lists");
    assert_eq!(kept(&counted), ["counted", "counted"]);
    assert_eq!(kept(&appended), ["as they come", "as they come"]);
    assert_eq!(kept(&state(JoinKind::Left, true)), ["counted", "as they come"]);
    assert_eq!(kept(&state(JoinKind::LeftAnti, true)), ["counted", "as they come"]);
    assert_eq!(kept(&state(JoinKind::Full, true)), ["counted", "counted"]);
}
