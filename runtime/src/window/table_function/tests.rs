//! Copies of rows, by hand and against the definition of a window.

use arrow::array::{Int8Array, Int64Array};
use coulee_model::Timestamp;

use super::*;
use crate::RowKind::{Delete, Insert, UpdateAfter, UpdateBefore};
use crate::harness::{Harness, Input, changelog_lines, sorted_lines};
use crate::origin::{Origins, Place, PositionKind, RowNumbers};
use crate::window::WindowKind;
use crate::{RowKind, graph::Port};

const HOPPING: WindowKind = WindowKind::Hopping { size_millis: 20, slide_millis: 10 };

fn rows(rows: &[(Option<i64>, i64)]) -> RecordBatch {
    let time: ArrayRef = Arc::new(rows.iter().map(|row| row.0).collect::<TimestampMillisecondArray>());
    let id: ArrayRef = Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>());
    RecordBatch::try_from_iter_with_nullable([("time", time, true), ("id", id, true)]).unwrap()
}

fn operator(kind: WindowKind, offset: i64) -> Arc<dyn OperatorFactory> {
    let time: Arc<dyn PhysicalExpr> = Arc::new(Column::new("time", 0));
    let schema = WindowRowsSpec::schema_of(&rows(&[]).schema());
    window_rows(WindowRowsSpec { time, windows: Windows::new(kind, offset).unwrap(), schema })
}

fn harness(kind: WindowKind, folder: &tempfile::TempDir) -> Harness {
    Harness::new(operator(kind, 0), folder.path()).unwrap()
}

/// An instant as Arrow shows it.
fn shown(millis: i64) -> String {
    let text = Timestamp(millis).to_string().replace(' ', "T");
    text.strip_suffix(".000").map(str::to_owned).unwrap_or(text)
}

fn line(time: i64, id: i64, start: i64, end: i64) -> String {
    format!("{} | {id} | {} | {} | {}", shown(time), shown(start), shown(end), shown(end - 1))
}

#[test]
fn a_row_leaves_once_for_each_window_that_holds_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = harness(HOPPING, &folder);
    harness.push(Input::Rows(Batch::inserts(rows(&[(Some(5), 1), (None, 2), (Some(-1), 3)])))).unwrap();
    harness.push(Input::Watermark(Timestamp(1_000))).unwrap();
    // No row is late for a table function.
    harness.push(Input::Rows(Batch::inserts(rows(&[(Some(10), 4)])))).unwrap();
    let mut expected =
        vec![line(5, 1, -10, 10), line(5, 1, 0, 20), line(-1, 3, -20, 0), line(-1, 3, -10, 10), line(10, 4, 0, 20)];
    expected.push(line(10, 4, 10, 30));
    expected.sort();
    assert_eq!(sorted_lines(&harness.take(Port::MAIN)).unwrap(), expected);
    assert_eq!((harness.metrics().figures().timeless_rows(), harness.metrics().figures().late_rows()), (1, 0));
}

#[test]
fn copies_keep_their_kind_and_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = harness(WindowKind::Cumulating { max_size_millis: 20, step_millis: 10 }, &folder);
    let kinds = [Insert, UpdateBefore, UpdateAfter, Delete].map(|kind: RowKind| kind as i8);
    let changes = rows(&[(Some(1), 1), (Some(1), 1), (Some(11), 2), (Some(11), 2)]);
    harness.push(Input::Rows(Batch::changes(changes, Int8Array::from(kinds.to_vec())))).unwrap();
    let (early, late) = ([line(1, 1, 0, 10), line(1, 1, 0, 20)], line(11, 2, 0, 20));
    let expected =
        [("+I", &early[0]), ("+I", &early[1]), ("-U", &early[0]), ("-U", &early[1]), ("+U", &late), ("-D", &late)]
            .map(|(kind, line)| format!("{kind} | {line}"));
    assert_eq!(changelog_lines(&harness.take_batches(Port::MAIN)).unwrap(), expected);
}

#[test]
fn copies_leave_in_batches_of_bounded_size_with_their_origins() {
    // 7 rows, each in 5,000 windows: copies of one row are in two batches.
    let folder = tempfile::tempdir().unwrap();
    let mut harness = harness(WindowKind::Hopping { size_millis: 5_000, slide_millis: 1 }, &folder);
    let place = Place { source: coulee_model::OperatorId(0), name: "in/0".to_owned(), counts: PositionKind::Row };
    let origins = Origins::new(Arc::new(place), RowNumbers::From(100));
    let input = rows(&[(Some(0), 0), (None, 1), (Some(2), 2), (Some(3), 3), (Some(4), 4), (Some(5), 5), (Some(6), 6)]);
    harness.push(Input::Rows(Batch::inserts(input).with_origins(origins))).unwrap();
    let batches = harness.take_batches(Port::MAIN);
    let sizes: Vec<usize> = batches.iter().map(Batch::len).collect();
    assert_eq!(sizes, [BATCH_ROWS, BATCH_ROWS, BATCH_ROWS, 6 * 5_000 - 3 * BATCH_ROWS]);
    let mut found = std::collections::BTreeSet::new();
    for batch in &batches {
        let millis = |at: usize| {
            let column = batch.rows().column(at).clone();
            column.as_any().downcast_ref::<TimestampMillisecondArray>().unwrap().values().to_vec()
        };
        let (times, starts, ends) = (millis(0), millis(2), millis(3));
        for row in 0..batch.len() {
            assert!(starts[row] <= times[row] && times[row] < ends[row] && ends[row] - starts[row] == 5_000);
            let origin = batch.origins().expect("origins").show(row);
            assert_eq!(origin, format!("in/0 row {}", 100 + times[row]));
            assert!(found.insert((times[row], starts[row])), "a copy is there once");
        }
    }
    assert_eq!(found.len(), 30_000);
}

#[test]
fn a_time_that_no_window_holds_rejects_its_row() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = harness(HOPPING, &folder);
    harness.push(Input::Rows(Batch::inserts(rows(&[(Some(5), 1), (Some(i64::MAX), 2)])))).unwrap();
    assert_eq!(harness.take(Port::MAIN).iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
    assert_eq!(harness.take(Port::REJECTED).iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
}

#[test]
fn the_columns_and_the_lineage_name_the_windows() {
    let operator = operator(HOPPING, 5);
    assert_eq!(operator.describe(), "WindowTableFunction: hopping 20 ms every 10 ms");
    let input = Lineage::named("in", rows(&[]).schema());
    assert!(operator.state(std::slice::from_ref(&input)).is_none());
    let lineage = operator.lineage(&[input]);
    assert_eq!(lineage.rows(), "[HOP(in.time, 10 ms, 20 ms, offset 5 ms) OF in]");
    let text = |name: &str| {
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(name, operator.schema().index_of(name).unwrap()));
        lineage.text(&column)
    };
    assert_eq!([text("id"), text("window_end")], ["in.id", "window_end"]);
    let spec = WindowRowsSpec {
        time: Arc::new(Column::new("time", 0)),
        windows: Windows::new(HOPPING, 0).unwrap(),
        schema: rows(&[]).schema(),
    };
    assert!(window_rows(spec).create(SubtaskIndex(0)).is_err(), "the schema has no columns for the window");
}
