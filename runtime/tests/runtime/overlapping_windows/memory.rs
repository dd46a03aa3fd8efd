//! Overlapping windows that outgrow their memory.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMillisecondArray};
use arrow::datatypes::Int64Type;

use super::*;

const KEYS: usize = 120_000;

/// One row for every key, in the slice of `time`; a checkpoint after each part.
fn push(harness: &mut Harness, time: i64, value: i64) {
    let names: Vec<String> = (0..KEYS).map(|key| format!("key {key}")).collect();
    for some in names.chunks(30_000) {
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![time; some.len()]));
        let keys: ArrayRef = Arc::new(StringArray::from_iter_values(some));
        let values: ArrayRef = Arc::new(Int64Array::from(vec![value; some.len()]));
        let columns = RecordBatch::try_new(rows(&[]).schema(), vec![times, keys, values]).unwrap();
        harness.push(Input::Rows(Batch::inserts(columns))).unwrap();
        harness.checkpoint().unwrap();
    }
}

/// Per window's end: how many rows the result has, and their sums, which must be equal.
fn sums(results: &[RecordBatch]) -> BTreeMap<i64, (usize, i64)> {
    let mut found = BTreeMap::new();
    for rows in results {
        let end = instants(rows, "window_end")[0];
        let sums = rows.column_by_name("sum").unwrap().as_primitive::<Int64Type>();
        let entry: &mut (usize, i64) = found.entry(end).or_insert((0, sums.value(0)));
        assert!(sums.values().iter().all(|sum| *sum == entry.1), "of the window that ends at {end}");
        entry.0 += rows.num_rows();
    }
    found
}

#[test]
fn a_window_that_outgrows_its_memory_is_closed_in_parts() {
    for (windows, expected) in [
        (hopping(20, 10, 0), [(10, (KEYS, 1)), (20, (KEYS, 11)), (30, (KEYS, 10))]),
        (cumulating(30, 10, 0), [(10, (KEYS, 1)), (20, (KEYS, 11)), (30, (KEYS, 11))]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut harness = Harness::with_memory(appending(windows).operator(), folder.path(), 1 << 20).unwrap();
        push(&mut harness, 3, 1);
        harness.push(Input::Watermark(Timestamp(10))).unwrap();
        let mut results = harness.take(Port::MAIN);
        harness.checkpoint().unwrap();
        harness.restart(SubtaskIndex(0), 1).unwrap();
        push(&mut harness, 13, 10);
        // What is left in the tables is in no run yet.
        harness.end().unwrap();
        results.extend(harness.take(Port::MAIN));
        assert!(results.len() > 3 * 4, "{} parts", results.len());
        assert_eq!(sums(&results), BTreeMap::from(expected), "{windows:?}");
    }
}
