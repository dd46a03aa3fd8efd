//! The updating aggregation over a changelog, against aggregates over the rows that are left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int8Array, Int64Array, StringArray, TimestampMillisecondArray};
use arrow::record_batch::RecordBatch;
use coulee_model::{SubtaskIndex, Timestamp};
use coulee_runtime::RowKind::{self, Delete, Insert, UpdateAfter, UpdateBefore};
use coulee_runtime::flow::{Flow, GraphBuilder, col, lit};
use coulee_runtime::graph::{Graph, OperatorFactory, Port};
use coulee_runtime::harness::{Harness, Input, changelog_lines};
use coulee_runtime::memory::{MemorySink, MemorySource};
use coulee_runtime::{Batch, Result};
use datafusion_expr::{Expr, ExprFunctionExt};
use datafusion_functions_aggregate::expr_fn::{
    array_agg, avg, count, count_distinct, max, min, regr_count, stddev_pop, sum, sum_distinct,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::{Change, History, batch, histories, source, steps};
use crate::group_aggregate::{View, at_every_batching, operator};
use crate::windows::{InputRow, rows};
use crate::{finish, finish_in_attempts, paced};

fn aggregates() -> Vec<Expr> {
    let value = || col("value");
    vec![
        count(lit(1i64)).alias("n"),
        count(value()).filter(value().gt(lit(0i64))).build().unwrap().alias("positive"),
        sum(value()).alias("sum"),
        avg(value()).filter(value().lt(lit(2i64))).build().unwrap().alias("avg below 2"),
        min(value()).alias("min"),
        max(value()).filter(value().lt(lit(2i64))).build().unwrap().alias("max below 2"),
        count_distinct(value()).alias("distinct"),
        sum_distinct(value()).alias("sum distinct"),
        array_agg(value()).alias("values"),
        stddev_pop(value() * lit(0i64)).alias("zero"),
        // DataFusion has it for one group only.
        regr_count(value(), value()).alias("pairs"),
    ]
}

fn by_key(flow: Flow<'_>) -> Result<Flow<'_>> {
    flow.key_by(["key"])?.aggregate("a", aggregates())
}

fn changing(steps: impl Fn(Flow<'_>) -> Result<Flow<'_>>) -> Arc<dyn OperatorFactory> {
    operator(MemorySource::changelog(rows(&[]).schema(), vec![]), steps)
}

/// The rows that are left after some changes.
fn left(changes: &[Change]) -> Vec<InputRow> {
    let mut left = Vec::new();
    for (kind, row) in changes {
        match kind.is_retraction() {
            false => left.push(*row),
            true => drop(left.swap_remove(left.iter().position(|other| other == row).expect("it is there"))),
        }
    }
    left
}

/// The same by the definition: group the rows that are left, then aggregate.
fn naive(left: &[InputRow]) -> Vec<String> {
    let mut groups: BTreeMap<Option<&str>, Vec<Option<i64>>> = BTreeMap::new();
    for (_, key, value) in left {
        groups.entry(*key).or_default().push(*value);
    }
    let text = |value: Option<i64>| value.map(|value| value.to_string()).unwrap_or_default();
    let line = |(key, mut values): (Option<&str>, Vec<Option<i64>>)| {
        // The operator keeps no order, so that values are aggregated in theirs.
        values.sort_unstable();
        let some: Vec<i64> = values.iter().flatten().copied().collect();
        let below: Vec<i64> = some.iter().copied().filter(|value| *value < 2).collect();
        let distinct: BTreeSet<i64> = some.iter().copied().collect();
        let average = (!below.is_empty()).then(|| below.iter().sum::<i64>() as f64 / below.len() as f64);
        [
            key.unwrap_or_default().to_owned(),
            values.len().to_string(),
            some.iter().filter(|value| **value > 0).count().to_string(),
            if some.is_empty() { String::new() } else { some.iter().sum::<i64>().to_string() },
            average.map(|average| format!("{average:?}")).unwrap_or_default(),
            text(some.iter().min().copied()),
            text(below.iter().max().copied()),
            distinct.len().to_string(),
            if some.is_empty() { String::new() } else { distinct.iter().sum::<i64>().to_string() },
            format!("[{}]", values.into_iter().map(text).collect::<Vec<_>>().join(", ")),
            if some.is_empty() { String::new() } else { "0.0".to_owned() },
            some.len().to_string(),
        ]
        .join(" | ")
    };
    let mut lines: Vec<String> = groups.into_iter().map(line).collect();
    lines.sort();
    lines
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_batching_and_any_restart_give_what_is_left_at_any_time(history in histories(2, 20)) {
        let changes = history.changes();
        let batches: Vec<_> = changes.chunks(5).map(batch).collect();
        at_every_batching(&changing(by_key), 1, &batches, |seen, view| {
            assert_eq!(view.lines(), naive(&left(&changes[..seen])), "after {seen} of {changes:?}");
        });
    }
}

fn row(key: &'static str, value: i64) -> InputRow {
    (None, Some(key), Some(value))
}

fn lines_of(harness: &mut Harness, changes: &[Change]) -> Vec<String> {
    harness.push(Input::Rows(batch(changes))).unwrap();
    harness.checkpoint().unwrap();
    harness.restart(SubtaskIndex(0), 1).unwrap();
    changelog_lines(&harness.take_batches(Port::MAIN)).unwrap()
}

#[test]
fn a_key_is_deleted_with_its_last_row_also_when_it_has_no_columns() {
    for keys in [&["key"][..], &[]] {
        let folder = tempfile::tempdir().unwrap();
        let factory = changing(|flow| {
            flow.key_by(keys.iter().copied())?
                .aggregate("a", [count(col("value")).alias("n"), sum(col("value")).alias("s")])
        });
        let mut harness = Harness::new(factory, folder.path()).unwrap();
        let key = if keys.is_empty() { "" } else { "a | " };
        let shown = |lines: &[&str]| lines.iter().map(|line| line.replace("@ ", key)).collect::<Vec<_>>();
        assert_eq!(lines_of(&mut harness, &[(Insert, row("a", 1)), (Insert, row("a", 2))]), shown(&["+I | @ 2 | 3"]));
        let moved = [(UpdateBefore, row("a", 1)), (UpdateAfter, row("a", 4))];
        assert_eq!(lines_of(&mut harness, &moved), shown(&["-U | @ 2 | 3", "+U | @ 2 | 6"]));
        // An update that comes in two batches is two updates.
        assert_eq!(lines_of(&mut harness, &[(UpdateBefore, row("a", 4))]), shown(&["-U | @ 2 | 6", "+U | @ 1 | 2"]));
        assert_eq!(lines_of(&mut harness, &[(Delete, row("a", 2))]), shown(&["-D | @ 1 | 2"]));
        // Nothing is there, and nothing is remembered.
        assert_eq!(lines_of(&mut harness, &[(Delete, row("a", 2))]), [""; 0]);
        assert_eq!(lines_of(&mut harness, &[(Insert, row("a", 7)), (Delete, row("a", 7))]), [""; 0]);
        assert_eq!(lines_of(&mut harness, &[(Insert, row("a", 5))]), shown(&["+I | @ 1 | 5"]));
    }
}

#[test]
fn a_row_that_is_taken_back_after_its_state_expired_is_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let factory = changing(|flow| {
        flow.key_by(["key"])?.ttl(Duration::from_millis(100)).aggregate("a", [sum(col("value")).alias("s")])
    });
    let mut harness = Harness::new(factory, folder.path()).unwrap();
    assert_eq!(lines_of(&mut harness, &[(Insert, row("a", 1))]), ["+I | a | 1"]);
    harness.push(Input::Time(Timestamp(100))).unwrap();
    let updated = [(UpdateBefore, row("a", 1)), (Delete, row("b", 9)), (UpdateAfter, row("a", 2))];
    assert_eq!(lines_of(&mut harness, &updated), ["+I | a | 2"]);
    assert_eq!(lines_of(&mut harness, &[(Delete, row("a", 2))]), ["-D | a | 2"]);
}

#[test]
fn rows_that_are_taken_back_go_on_beside_rows_that_fail() {
    let folder = tempfile::tempdir().unwrap();
    let factory = changing(|flow| {
        let quotient = lit(12i64) / col("value");
        flow.key_by(["key"])?.aggregate("a", [sum(quotient.clone()).alias("sum"), max(quotient).alias("max")])
    });
    let mut harness = Harness::new(factory, folder.path()).unwrap();
    let changes = [(Insert, row("a", 3)), (Insert, row("a", 0)), (Insert, row("b", 6)), (Insert, row("a", 2))];
    assert_eq!(lines_of(&mut harness, &changes), ["+I | a | 10 | 6", "+I | b | 2 | 2"]);
    let changes = [(Insert, row("b", 4)), (Delete, row("a", 0)), (Delete, row("a", 2)), (Delete, row("b", 6))];
    assert_eq!(
        lines_of(&mut harness, &changes),
        ["-U | b | 2 | 2", "+U | b | 3 | 3", "-U | a | 10 | 6", "+U | a | 4 | 4"]
    );
    let rejected: usize = harness.take(Port::REJECTED).iter().map(RecordBatch::num_rows).sum();
    assert_eq!(rejected, 2, "a row that is taken back fails as it did when it came");
}

/// A row for each of some keys.
fn of_keys(keys: std::ops::Range<i64>, value: i64, kind: RowKind) -> Batch {
    let count = keys.clone().count();
    let time: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![3; count]));
    let key: ArrayRef = Arc::new(StringArray::from_iter_values(keys.map(|key| format!("key {key:05}"))));
    let values: ArrayRef = Arc::new(Int64Array::from(vec![value; count]));
    let rows = RecordBatch::try_new(rows(&[]).schema(), vec![time, key, values]).unwrap();
    Batch::changes(rows, Int8Array::from(vec![kind as i8; count]))
}

#[test]
fn more_values_than_fit_in_memory_are_left_to_the_store() {
    const KEYS: i64 = 10_000;
    let folder = tempfile::tempdir().unwrap();
    let factory = changing(|flow| {
        let value = || col("value");
        let aggregates = [min(value()).alias("min"), max(value()).alias("max"), count_distinct(value()).alias("n")];
        flow.key_by(["key"])?.aggregate("a", aggregates)
    });
    let mut harness = Harness::with_memory(factory, folder.path(), 1 << 20).unwrap();
    let mut view = View::new(1);
    for (value, kind) in [(5, Insert), (1, Insert), (9, Insert), (5, Insert), (9, Delete), (5, Delete)] {
        for start in (0..KEYS).step_by(2_000) {
            harness.push(Input::Rows(of_keys(start..start + 2_000, value, kind))).unwrap();
            view.apply(&harness.take_batches(Port::MAIN));
            harness.checkpoint().unwrap();
        }
    }
    // The last hand-over is durable with the next checkpoint.
    harness.checkpoint().unwrap();
    assert!(harness.state_bytes() <= 1 << 20, "{} bytes", harness.state_bytes());
    let expected: Vec<String> = (0..KEYS).map(|key| format!("key {key:05} | 1 | 5 | 2")).collect();
    assert_eq!(view.lines(), expected);
}

/// A long history, from a fixed seed.
fn long_history() -> History {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let phase = proptest::collection::vec(steps(200), 20).prop_map(History::of);
    phase.new_tree(&mut runner).unwrap().current()
}

/// One split, so that no row is taken back before it comes.
fn graph(parallelism: u32, history: &History, sink: &MemorySink) -> Graph {
    let builder = GraphBuilder::new(parallelism);
    let flow = builder.source("in", source(&history.changes(), 1)).unwrap();
    by_key(flow).unwrap().sink("out", Arc::new(sink.clone())).unwrap();
    builder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_gives_what_is_left_at_any_parallelism() {
    let history = long_history();
    for parallelism in [1, 3] {
        let (folder, sink) = (tempfile::tempdir().unwrap(), MemorySink::default());
        finish(graph(parallelism, &history, &sink), folder.path()).await;
        let mut view = View::new(1);
        view.apply(&sink.batches());
        assert_eq!(view.lines(), naive(&history.left), "parallelism {parallelism}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_stopped_and_cancelled_at_changing_parallelism_gives_what_is_left() {
    let history = long_history();
    let (folder, sink) = (tempfile::tempdir().unwrap(), MemorySink::default());
    let attempt = |attempt| paced(graph(1 + attempt % 3, &history, &sink), 5_000.0);
    finish_in_attempts(folder.path(), attempt).await;
    let mut view = View::new(1);
    view.apply(&sink.batches());
    assert_eq!(view.lines(), naive(&history.left));
}
