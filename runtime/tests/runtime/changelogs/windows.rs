//! Windows over a changelog, against aggregates over the rows that are left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, Int8Array, Int64Array, StringArray, TimestampMillisecondArray};
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use coulee_model::{SubtaskIndex, Timestamp};
use coulee_runtime::Batch;
use coulee_runtime::RowKind::{Delete, Insert, UpdateAfter, UpdateBefore};
use coulee_runtime::flow::{GraphBuilder, col, lit};
use coulee_runtime::graph::{Graph, NodeKind, OperatorFactory, Port};
use coulee_runtime::harness::{Harness, Input, agrees, changelog_lines, sorted_lines};
use coulee_runtime::memory::{MemorySink, MemorySource};
use datafusion_expr::{Expr, ExprFunctionExt};
use datafusion_functions_aggregate::expr_fn::{avg, count, count_distinct, max, min, stddev_pop, sum};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::{Change, History, PHASE, WINDOW, batch, histories, source, steps};
use crate::windows::{InputRow, rows, shown};
use crate::{finish, finish_in_attempts, paced};

/// Every way in which an aggregate can take a row that is there several times, with and without a filter.
fn aggregates() -> Vec<Expr> {
    let value = || col("value");
    vec![
        count(lit(1i64)).alias("n"),
        count(value()).filter(value().gt(lit(0i64))).build().unwrap().alias("positive"),
        sum(value()).alias("sum"),
        min(value()).alias("min"),
        max(value()).filter(value().lt(lit(2i64))).build().unwrap().alias("max below 2"),
        count_distinct(value()).alias("distinct"),
        avg(value()).alias("avg"),
        stddev_pop(value() * lit(0i64)).alias("zero"),
    ]
}

/// The graph under test; its window operator has the id 1 at parallelism 1.
fn graph(parallelism: u32, source: Arc<MemorySource>, sink: &MemorySink) -> Graph {
    let builder = GraphBuilder::new(parallelism);
    let disorder = Duration::from_millis(PHASE as u64);
    let flow = builder.source("in", source).unwrap().event_time("time", disorder).unwrap();
    let window =
        flow.key_by(["key"]).unwrap().tumble("w", "time", Duration::from_millis(WINDOW as u64), aggregates()).unwrap();
    assert!(!window.is_changelog(), "a window's results are final");
    window.sink("out", Arc::new(sink.clone())).unwrap();
    builder.finish().unwrap()
}

fn window_operator() -> Arc<dyn OperatorFactory> {
    match &graph(1, source(&[], 1), &MemorySink::default()).nodes[1].kind {
        NodeKind::Operator(factory) => factory.clone(),
        other => panic!("expected the window, found {other:?}"),
    }
}

/// The same by the definition: group the rows that are left, then aggregate.
fn naive(left: &[InputRow]) -> Vec<String> {
    let mut groups: BTreeMap<(i64, Option<&str>), Vec<Option<i64>>> = BTreeMap::new();
    for (time, key, value) in left {
        if let Some(time) = time {
            groups.entry((time.div_euclid(WINDOW) * WINDOW, *key)).or_default().push(*value);
        }
    }
    let text = |value: Option<i64>| value.map(|value| value.to_string()).unwrap_or_default();
    let line = |((start, key), values): ((i64, Option<&str>), Vec<Option<i64>>)| {
        let some: Vec<i64> = values.iter().flatten().copied().collect();
        let total = (!some.is_empty()).then(|| some.iter().sum::<i64>());
        let average = total.map(|total| format!("{:?}", total as f64 / some.len() as f64));
        [
            shown(start),
            shown(start + WINDOW),
            key.unwrap_or_default().to_owned(),
            values.len().to_string(),
            some.iter().filter(|value| **value > 0).count().to_string(),
            text(total),
            text(some.iter().min().copied()),
            text(some.iter().filter(|value| **value < 2).max().copied()),
            some.iter().collect::<BTreeSet<_>>().len().to_string(),
            average.unwrap_or_default(),
            if some.is_empty() { String::new() } else { "0.0".to_owned() },
        ]
        .join(" | ")
    };
    let mut lines: Vec<String> = groups.into_iter().map(line).collect();
    lines.sort();
    lines
}

/// In batches of five, with the watermark that ends each phase.
fn inputs(history: &History) -> Vec<Input> {
    let mut inputs = Vec::new();
    for (phase, changes) in history.phases.iter().enumerate() {
        inputs.extend(changes.chunks(5).map(|part| Input::Rows(batch(part))));
        inputs.push(Input::Watermark(Timestamp((phase as i64 + 1) * PHASE - 1)));
    }
    inputs
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_batching_and_any_restart_give_what_is_left(history in histories(2, 25)) {
        let folder = tempfile::tempdir().unwrap();
        let mut next = 0;
        let lines = agrees(&window_operator(), &inputs(&history), || {
            next += 1;
            folder.path().join(next.to_string())
        });
        prop_assert_eq!(lines.unwrap(), naive(&history.left));
    }
}

/// A long history, from a fixed seed.
fn long_history() -> History {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let phase = proptest::collection::vec(steps(200), 20).prop_map(History::of);
    phase.new_tree(&mut runner).unwrap().current()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_gives_what_is_left_at_any_parallelism() {
    let history = long_history();
    assert!(history.changes().len() > 1_000 && history.left.len() > 100, "{}", history.left.len());
    for parallelism in [1, 2, 3] {
        let folder = tempfile::tempdir().unwrap();
        let sink = MemorySink::default();
        // Slow enough for many checkpoints on the way.
        let graph = paced(graph(parallelism, source(&history.changes(), 3), &sink), 20_000.0);
        let job = finish(graph, folder.path()).await;
        assert_eq!(sorted_lines(&sink.rows()).unwrap(), naive(&history.left), "parallelism {parallelism}");
        let late: u64 = job.status().subtasks.iter().map(|s| s.figures.late_rows()).sum();
        assert_eq!(late, 0, "no row of this history is late");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_stopped_and_cancelled_at_changing_parallelism_gives_what_is_left() {
    let history = long_history();
    let folder = tempfile::tempdir().unwrap();
    let sink = MemorySink::default();
    let attempt = |attempt| paced(graph(1 + attempt % 3, source(&history.changes(), 4), &sink), 20_000.0);
    finish_in_attempts(folder.path(), attempt).await;
    assert!(sorted_lines(&sink.rows()).unwrap() == naive(&history.left), "the result differs");
}

const A: InputRow = (Some(5), Some("a"), Some(1));

fn run(changes: &[Change]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::new(window_operator(), folder.path()).unwrap();
    harness.push(Input::Rows(batch(changes))).unwrap();
    harness.end().unwrap();
    sorted_lines(&harness.take(Port::MAIN)).unwrap()
}

#[test]
fn a_row_that_is_taken_back_before_it_comes_is_not_there() {
    assert_eq!(run(&[(Delete, A), (Insert, A)]), naive(&[]));
    assert_eq!(run(&[(Delete, A), (Insert, A), (UpdateAfter, A)]), naive(&[A]));
}

#[test]
fn a_row_that_is_taken_back_and_never_came_counts_as_nothing() {
    let other = (Some(6), Some("a"), Some(7));
    assert_eq!(run(&[(Delete, A), (Insert, other)]), naive(&[other]));
    assert_eq!(run(&[(Delete, A)]), naive(&[]));
}

#[test]
fn late_changes_leave_with_their_kinds() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::new(window_operator(), folder.path()).unwrap();
    harness.push(Input::Rows(batch(&[(Insert, A)]))).unwrap();
    harness.push(Input::Watermark(Timestamp(WINDOW - 1))).unwrap();
    assert_eq!(sorted_lines(&harness.take(Port::MAIN)).unwrap(), naive(&[A]));
    let moved = (Some(15), Some("a"), Some(2));
    harness.push(Input::Rows(batch(&[(UpdateBefore, A), (UpdateAfter, moved), (Delete, A)]))).unwrap();
    harness.end().unwrap();
    let late = changelog_lines(&harness.take_batches(Port::LATE)).unwrap();
    assert_eq!(late, ["-U | 1970-01-01T00:00:00.005 | a | 1", "-D | 1970-01-01T00:00:00.005 | a | 1"]);
    assert_eq!(sorted_lines(&harness.take(Port::MAIN)).unwrap(), naive(&[moved]), "a window fires once");
    assert_eq!(harness.metrics().figures().late_rows(), 2);
}

/// One row for each of these keys, at 3 ms.
fn of_keys(keys: std::ops::Range<i64>, value: i64, kind: coulee_runtime::RowKind) -> Batch {
    let count = keys.clone().count();
    let time: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![3; count]));
    let key: ArrayRef = Arc::new(StringArray::from_iter_values(keys.map(|key| format!("key {key}"))));
    let values: ArrayRef = Arc::new(Int64Array::from(vec![value; count]));
    let rows = RecordBatch::try_new(rows(&[]).schema(), vec![time, key, values]).unwrap();
    Batch::changes(rows, Int8Array::from(vec![kind as i8; count]))
}

#[test]
fn all_values_of_a_key_meet_when_a_window_is_closed_in_parts() {
    const KEYS: i64 = 60_000;
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::with_memory(window_operator(), folder.path(), 1 << 20).unwrap();
    // The values of a key come in different checkpoints, and the first run has several pieces.
    for (value, kind) in [(1, Insert), (2, Insert), (9, Insert), (9, Delete), (1, Insert)] {
        for start in (0..KEYS).step_by(10_000) {
            harness.push(Input::Rows(of_keys(start..start + 10_000, value, kind))).unwrap();
        }
        if value != 1 {
            harness.checkpoint().unwrap();
        }
    }
    harness.checkpoint().unwrap();
    harness.restart(SubtaskIndex(0), 1).unwrap();
    harness.end().unwrap();
    let results = harness.take(Port::MAIN);
    assert!(results.len() > 4, "{} parts", results.len());
    let mut keys = BTreeSet::new();
    for rows in &results {
        let column = |name: &str| rows.column_by_name(name).unwrap().as_primitive::<Int64Type>().values().to_vec();
        let expected = [("n", 3), ("positive", 3), ("sum", 4), ("min", 1), ("max below 2", 1), ("distinct", 2)];
        for (name, expected) in expected {
            assert!(column(name).iter().all(|value| *value == expected), "{name}: not {expected} everywhere");
        }
        let names = rows.column_by_name("key").unwrap().as_string::<i32>();
        assert_eq!(names.null_count(), 0);
        keys.extend(names.iter().flatten().map(str::to_owned));
    }
    assert_eq!(keys.len(), KEYS as usize);
    assert_eq!(results.iter().map(RecordBatch::num_rows).sum::<usize>(), KEYS as usize, "a key is in one part");
}

#[test]
fn what_came_and_went_takes_no_state() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::new(window_operator(), folder.path()).unwrap();
    for kind in [Insert, Delete, Insert, Delete] {
        harness.push(Input::Rows(of_keys(0..10_000, 1, kind))).unwrap();
        harness.checkpoint().unwrap();
    }
    harness.restart(SubtaskIndex(0), 1).unwrap();
    assert_eq!(harness.metrics().figures().next_result(), None, "nothing is stored, so that no window is open");
    harness.end().unwrap();
    assert!(harness.take(Port::MAIN).is_empty());
}

/// The operator of a window without keys.
fn keyless(aggregates: Vec<Expr>) -> Arc<dyn OperatorFactory> {
    let builder = GraphBuilder::new(1);
    let flow = builder.source("in", source(&[], 1)).unwrap().event_time("time", Duration::ZERO).unwrap();
    let window = flow.key_by([]).unwrap().tumble("w", "time", Duration::from_millis(10), aggregates).unwrap();
    window.sink("out", Arc::new(MemorySink::default())).unwrap();
    let graph = builder.finish().unwrap();
    let NodeKind::Operator(factory) = &graph.nodes[1].kind else { panic!("an operator") };
    factory.clone()
}

#[test]
fn a_window_without_keys_and_with_many_equal_rows() {
    let aggregates = vec![count(lit(1i64)).alias("n"), sum(col("value")).alias("sum")];
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::new(keyless(aggregates), folder.path()).unwrap();
    for _ in 0..4 {
        harness.push(Input::Rows(batch(&[(Insert, A); 5_000]))).unwrap();
    }
    harness.push(Input::Rows(batch(&[(Delete, A); 3]))).unwrap();
    harness.end().unwrap();
    // 4 · 5,000 - 3 rows of the value 1: more than are written out at a time.
    let expected = "1970-01-01T00:00:00 | 1970-01-01T00:00:00.010 | 19997 | 19997";
    assert_eq!(sorted_lines(&harness.take(Port::MAIN)).unwrap(), [expected]);
}

#[test]
fn a_window_without_keys_and_arguments_counts() {
    let mut folders = 0;
    let dir = tempfile::tempdir().unwrap();
    let mut counted = |changes: &[Change]| {
        let inputs = [Input::Rows(batch(changes))];
        agrees(&keyless(vec![count(lit(1i64)).alias("n")]), &inputs, || {
            folders += 1;
            dir.path().join(folders.to_string())
        })
        .unwrap()
    };
    let other = (Some(6), None, Some(2));
    let expected = "1970-01-01T00:00:00 | 1970-01-01T00:00:00.010 | 2";
    assert_eq!(counted(&[(Insert, A), (Insert, A), (Insert, other), (Delete, other)]), [expected]);
    assert_eq!(counted(&[(Insert, A), (Delete, A)]), [""; 0], "no row is left, so there is no group");
}
