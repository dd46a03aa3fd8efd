//! The rows that are left at the end of a bounded input, in the harness.

use std::sync::Arc;

use arrow::array::{Int8Array, Int64Array, StringArray};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use coulee_model::SubtaskIndex;
use coulee_runtime::final_rows::{FinalRowsSpec, final_rows};
use coulee_runtime::graph::Port;
use coulee_runtime::harness::{Harness, Input, changelog_lines};
use coulee_runtime::{Batch, RowKind};
use datafusion_physical_expr::expressions::Column;

use RowKind::{Delete, Insert, UpdateAfter, UpdateBefore};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("name", DataType::Utf8, true), Field::new("n", DataType::Int64, true)]))
}

fn rows(rows: &[(RowKind, &str, Option<i64>)]) -> Batch {
    let names: StringArray = rows.iter().map(|(_, name, _)| Some(*name)).collect();
    let numbers: Int64Array = rows.iter().map(|(.., number)| *number).collect();
    let batch = RecordBatch::try_new(schema(), vec![Arc::new(names), Arc::new(numbers)]).unwrap();
    match rows.iter().all(|(kind, ..)| *kind == Insert) {
        true => Batch::inserts(batch),
        false => Batch::changes(batch, Int8Array::from_iter_values(rows.iter().map(|(kind, ..)| *kind as i8))),
    }
}

fn spec(changelog: bool) -> FinalRowsSpec {
    FinalRowsSpec { sort: Vec::new(), skip: 0, fetch: None, changelog, schema: schema() }
}

fn by_number(descending: bool) -> Vec<(Arc<dyn datafusion_physical_expr::PhysicalExpr>, SortOptions)> {
    vec![(Arc::new(Column::new("n", 1)), SortOptions { descending, nulls_first: !descending })]
}

/// What is emitted in the end, in its order: whole, row by row, and with a restart after each.
fn ends_with(spec: &FinalRowsSpec, input: &[(RowKind, &str, Option<i64>)], expected: &[&str]) {
    for (size, restart) in [(usize::MAX, false), (1, false), (1, true), (3, true)] {
        let folder = tempfile::tempdir().unwrap();
        let mut harness = Harness::new(final_rows(spec.clone()), folder.path()).unwrap();
        for part in input.chunks(size.min(input.len().max(1))) {
            harness.push(Input::Rows(rows(part))).unwrap();
            if restart {
                harness.checkpoint().unwrap();
                harness.restart(SubtaskIndex(0), 1).unwrap();
            }
        }
        assert!(harness.take(Port::MAIN).is_empty(), "nothing before the end");
        harness.end().unwrap();
        let found = changelog_lines(&harness.take_batches(Port::MAIN)).unwrap_or_default();
        assert_eq!(found, expected, "{size} rows at a time, restarting: {restart}");
    }
}

#[test]
fn a_changelog_leaves_the_rows_that_are_there() {
    let input = [
        (Insert, "ann", Some(1)),
        (Insert, "bob", Some(2)),
        (Insert, "bob", Some(2)),
        (UpdateBefore, "ann", Some(1)),
        (UpdateAfter, "ann", Some(3)),
        (Insert, "cid", None),
        (Delete, "cid", None),
    ];
    ends_with(&spec(true), &input, &["+I | ann | 3", "+I | bob | 2", "+I | bob | 2"]);
}

#[test]
fn rows_are_sorted_with_nulls_where_they_are_wanted() {
    let input = [(Insert, "b", Some(2)), (Insert, "a", None), (Insert, "d", Some(-1)), (Insert, "c", Some(2))];
    let ascending = FinalRowsSpec { sort: by_number(false), ..spec(false) };
    ends_with(&ascending, &input, &["+I | a | ", "+I | d | -1", "+I | b | 2", "+I | c | 2"]);
    let descending = FinalRowsSpec { sort: by_number(true), ..spec(false) };
    ends_with(&descending, &input, &["+I | b | 2", "+I | c | 2", "+I | d | -1", "+I | a | "]);
}

#[test]
fn a_limit_keeps_the_first_rows_also_of_equal_ones() {
    let input = [(Insert, "x", Some(1)), (Insert, "y", Some(0)), (Insert, "x", Some(1)), (Insert, "z", Some(9))];
    let first = |skip, fetch| FinalRowsSpec { sort: by_number(false), skip, fetch: Some(fetch), ..spec(false) };
    ends_with(&first(0, 2), &input, &["+I | y | 0", "+I | x | 1"]);
    ends_with(&first(1, 2), &input, &["+I | x | 1", "+I | x | 1"]);
    ends_with(&first(3, 5), &input, &["+I | z | 9"]);
    ends_with(&first(0, 0), &input, &[]);
    let of_changelog = FinalRowsSpec { changelog: true, ..first(0, 1) };
    let input = [(Insert, "y", Some(0)), (Insert, "x", Some(1)), (Delete, "y", Some(0))];
    ends_with(&of_changelog, &input, &["+I | x | 1"]);
}

#[test]
fn a_limit_on_a_long_input_keeps_few_rows() {
    let folder = tempfile::tempdir().unwrap();
    let spec = FinalRowsSpec { sort: by_number(true), fetch: Some(3), ..spec(false) };
    let mut harness = Harness::new(final_rows(spec), folder.path()).unwrap();
    for start in (0..50_000).step_by(1_000) {
        let part: Vec<_> = (start..start + 1_000).map(|n| (Insert, "a", Some((n * 7_919) % 50_000))).collect();
        harness.push(Input::Rows(rows(&part))).unwrap();
    }
    harness.checkpoint().unwrap();
    assert!(harness.state_bytes() < 100_000, "{}", harness.state_bytes());
    harness.end().unwrap();
    let found = changelog_lines(&harness.take_batches(Port::MAIN)).unwrap();
    assert_eq!(found, ["+I | a | 49999", "+I | a | 49998", "+I | a | 49997"]);
}

#[test]
fn a_result_of_several_batches_comes_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::new(final_rows(spec(false)), folder.path()).unwrap();
    let all: Vec<_> = (0..20_000).map(|n| (Insert, "a", Some(n))).collect();
    harness.push(Input::Rows(rows(&all))).unwrap();
    harness.end().unwrap();
    let found = harness.take(Port::MAIN);
    assert!(found.len() > 1, "in parts");
    assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 20_000);
}

#[test]
fn a_result_that_a_checkpoint_holds_is_not_emitted_again_at_the_next_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::new(final_rows(spec(true)), folder.path()).unwrap();
    harness.push(Input::Rows(rows(&[(Insert, "ann", Some(1))]))).unwrap();
    harness.checkpoint().unwrap();
    harness.end().unwrap();
    assert_eq!(harness.take(Port::MAIN).len(), 1);
    // Dead before the checkpoint: it is emitted again.
    harness.restart(SubtaskIndex(0), 1).unwrap();
    harness.end().unwrap();
    assert_eq!(harness.take(Port::MAIN).len(), 1);
    harness.checkpoint().unwrap();
    harness.restart(SubtaskIndex(0), 1).unwrap();
    harness.end().unwrap();
    assert!(harness.take(Port::MAIN).is_empty(), "the checkpoint holds that it was emitted");
}
