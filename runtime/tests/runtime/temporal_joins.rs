//! Joins with the versions of a table in the harness: random rows and versions, beside the definition.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::Int8Array;
use coulee_model::{SubtaskIndex, Timestamp};
use coulee_runtime::graph::{OperatorFactory, Port};
use coulee_runtime::harness::{Harness, Input, agrees, sorted_lines};
use coulee_runtime::join::{TemporalJoinSpec, temporal_join};
use coulee_runtime::operator::InputIndex;
use coulee_runtime::{Batch, RowKind};
use datafusion_common::ScalarValue;
use datafusion_expr::Operator;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{BinaryExpr, Column, Literal};

use crate::random::Random;
use crate::timed_rows::{LEFT, RIGHT, Row, columns, fields, schema, side};

/// Joins each `(k, t, v)` with the version of `j = k` at `t`, where `w <> 3` if asked.
fn joined(is_outer: bool, has_condition: bool) -> Arc<dyn OperatorFactory> {
    let three = Arc::new(Literal::new(ScalarValue::Int64(Some(3))));
    let differs = BinaryExpr::new(Arc::new(Column::new("w", 5)), Operator::NotEq, three);
    temporal_join(TemporalJoinSpec {
        left: side(LEFT, 0),
        right: side(RIGHT, 0),
        condition: has_condition.then(|| Arc::new(differs) as Arc<dyn PhysicalExpr>),
        is_outer,
        schema: schema([fields(LEFT), fields(RIGHT)].concat()),
    })
}

fn batch(of: usize, rows: &[(RowKind, Row)]) -> Input {
    let columns = columns([LEFT, RIGHT][of], rows.iter().map(|(_, row)| *row));
    let batch = match of {
        0 => Batch::inserts(columns),
        _ => Batch::changes(columns, Int8Array::from_iter_values(rows.iter().map(|(kind, _)| *kind as i8))),
    };
    Input::RowsOf(InputIndex(of as u8), batch)
}

/// Rows, versions and watermarks, none of whose rows is behind a watermark; all rows, and all versions.
fn history(seed: u64) -> (Vec<Input>, [Vec<(RowKind, Row)>; 2]) {
    let mut random = Random(seed);
    let (mut inputs, mut all, mut watermark) = (Vec::new(), [Vec::new(), Vec::new()], -1);
    for _ in 0..20 {
        let of = random.below(2) as usize;
        let mut rows = Vec::new();
        for _ in 0..1 + random.below(4) {
            let key = (random.below(6) > 0).then(|| random.below(3) as i64);
            let time = (random.below(9) > 0).then(|| watermark + 1 + random.below(20) as i64);
            let kind = match random.below(6) {
                0 if of == 1 && time.is_some() => RowKind::Delete,
                1 if of == 1 => RowKind::UpdateBefore,
                2 if of == 1 => RowKind::UpdateAfter,
                _ => RowKind::Insert,
            };
            rows.push((kind, (key, time, random.below(5) as i64)));
        }
        all[of].extend(rows.clone());
        inputs.push(batch(of, &rows));
        if random.below(3) == 0 {
            watermark += random.below(15) as i64;
            inputs.push(Input::Watermark(Timestamp(watermark)));
        }
    }
    (inputs, all)
}

/// Rows as the harness shows them.
fn line(left: Row, right: Option<Row>) -> String {
    let text = |value: Option<i64>| value.map(|value| value.to_string()).unwrap_or_default();
    let shown = |row: Row| vec![text(row.0), row.1.map(super::windows::shown).unwrap_or_default(), text(Some(row.2))];
    [shown(left), right.map_or(vec![String::new(); 3], shown)].concat().join(" | ")
}

/// Each row with the newest version that is not after it: the last one said of a time counts.
fn expected(is_outer: bool, has_condition: bool, [left, right]: &[Vec<(RowKind, Row)>; 2]) -> Vec<String> {
    let mut versions: BTreeMap<(i64, i64), Option<Row>> = BTreeMap::new();
    for (kind, row) in right {
        if let (Some(key), Some(time)) = (row.0, row.1)
            && *kind != RowKind::UpdateBefore
        {
            versions.insert((key, time), (*kind != RowKind::Delete).then_some(*row));
        }
    }
    let mut lines = Vec::new();
    for (_, row) in left {
        let version = match *row {
            (Some(key), Some(time), _) => versions.range((key, i64::MIN)..=(key, time)).next_back(),
            _ => None,
        };
        let version = version.and_then(|(_, row)| *row).filter(|row| !has_condition || row.2 != 3);
        if is_outer || version.is_some() {
            lines.push(line(*row, version));
        }
    }
    lines.sort();
    lines
}

#[test]
fn each_row_meets_the_version_of_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut count = 0;
    for (is_outer, has_condition) in [(false, false), (true, false), (true, true)] {
        for seed in 0..20 {
            let (inputs, all) = history(seed);
            let found = agrees(&joined(is_outer, has_condition), &inputs, || {
                count += 1;
                folder.path().join(count.to_string())
            });
            assert_eq!(
                found.unwrap(),
                expected(is_outer, has_condition, &all),
                "{is_outer} {has_condition}, seed {seed}"
            );
        }
    }
}

fn insert(time: i64, value: i64) -> (RowKind, Row) {
    (RowKind::Insert, (Some(1), Some(time), value))
}

fn lines(harness: &mut Harness) -> Vec<String> {
    sorted_lines(&harness.take(Port::MAIN)).unwrap()
}

#[test]
fn old_versions_are_forgotten_and_the_newest_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::new(joined(true, false), folder.path()).unwrap();
    let versions: Vec<_> = (0..1_000).map(|time| insert(time, time)).collect();
    harness.push(batch(1, &versions)).unwrap();
    let full = harness.state_bytes();
    harness.push(Input::Watermark(Timestamp(2_000))).unwrap();
    harness.checkpoint().unwrap();
    harness.restart(SubtaskIndex(0), 1).unwrap();
    harness.push(batch(0, &[insert(5_000, 7)])).unwrap();
    harness.push(Input::Watermark(Timestamp(5_000))).unwrap();
    assert_eq!(lines(&mut harness), [line(insert(5_000, 7).1, Some(insert(999, 999).1))]);
    assert!(harness.state_bytes() < full / 50, "{} of {full} bytes are left", harness.state_bytes());
}

#[test]
fn a_deletion_without_a_time_takes_the_newest_version_away() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::new(joined(true, false), folder.path()).unwrap();
    harness.push(batch(1, &[insert(10, 1), insert(20, 2), (RowKind::Delete, (Some(1), None, 0))])).unwrap();
    harness.push(batch(0, &[insert(15, 0), insert(25, 0)])).unwrap();
    harness.push(Input::Watermark(Timestamp(30))).unwrap();
    assert_eq!(lines(&mut harness), [line(insert(15, 0).1, Some(insert(10, 1).1)), line(insert(25, 0).1, None)]);
    assert_eq!(harness.take_watermarks(), [Timestamp(30)]);
}
