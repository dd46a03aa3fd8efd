//! The updating aggregation over rows that are only appended, against a naive recomputation: through the harness, and in jobs of several parallelisms that
//! are stopped and resumed. Over changelogs: see `changelogs/aggregates.rs`.

mod failing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMillisecondArray};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use coulee_model::{KeyGroup, SubtaskIndex, Timestamp};
use coulee_runtime::flow::{Flow, GraphBuilder, col, lit};
use coulee_runtime::graph::{Graph, NodeKind, OperatorFactory, Port};
use coulee_runtime::harness::{Harness, Input, changelog_lines};
use coulee_runtime::keys::hash_keys;
use coulee_runtime::memory::{MemorySink, MemorySource};
use coulee_runtime::{Batch, Result};
use datafusion_expr::{Cast, Expr, ExprFunctionExt};
use datafusion_functions_aggregate::expr_fn::{avg, count, count_distinct, max, min, sum};

use super::windows::{InputRow, random_rows, rows, splits};
use super::{finish, finish_in_attempts, paced};

/// The rows that a changelog leaves, by their first columns, which are a key.
#[derive(Debug, Default)]
pub struct View {
    key_columns: usize,
    rows: BTreeMap<String, String>,
    /// The old result of an update whose new one has not come yet.
    updated: Option<String>,
}

impl View {
    pub fn new(key_columns: usize) -> Self {
        View { key_columns, ..View::default() }
    }

    /// Applies changes, and asserts that each fits what is there.
    pub fn apply(&mut self, batches: &[Batch]) {
        for line in changelog_lines(batches).unwrap() {
            let (kind, row) = line.split_once(" | ").unwrap();
            let key = row.split(" | ").take(self.key_columns).collect::<Vec<_>>().join(" | ");
            if kind != "+U" {
                assert_eq!(self.updated, None, "half an update before {line}");
            }
            match kind {
                "+I" => assert_eq!(self.rows.insert(key, row.to_owned()), None, "{line}: the key has a row"),
                "-U" => {
                    assert_eq!(self.rows.get(&key).map(String::as_str), Some(row), "{line}: what is updated");
                    self.updated = Some(key);
                }
                "+U" => {
                    assert!(self.updated.take().is_none_or(|updated| updated == key), "{line}: another key");
                    assert!(self.rows.insert(key, row.to_owned()).is_some(), "{line}: no row to update");
                }
                _ => assert_eq!(self.rows.remove(&key).as_deref(), Some(row), "{line}: what is deleted"),
            }
        }
        assert_eq!(self.updated, None, "half an update at the end of a batch");
    }

    pub fn lines(&self) -> Vec<String> {
        self.rows.values().cloned().collect()
    }
}

/// The only operator of a graph that a source of such rows and these steps make.
pub fn operator(source: MemorySource, steps: impl Fn(Flow<'_>) -> Result<Flow<'_>>) -> Arc<dyn OperatorFactory> {
    let builder = GraphBuilder::new(1);
    let flow = builder.source("in", Arc::new(source)).unwrap();
    let flow = steps(flow).unwrap();
    flow.sink("out", Arc::new(MemorySink::default())).unwrap();
    match &builder.finish().unwrap().nodes[1].kind {
        NodeKind::Operator(factory) => factory.clone(),
        other => panic!("expected the aggregation, found {other:?}"),
    }
}

fn appended(steps: impl Fn(Flow<'_>) -> Result<Flow<'_>>) -> Arc<dyn OperatorFactory> {
    operator(MemorySource::new(rows(&[]).schema(), vec![]), steps)
}

fn aggregates() -> Vec<Expr> {
    let value = || col("value");
    vec![
        count(lit(1i64)).alias("n"),
        count(value()).filter(value().gt(lit(0i64))).build().unwrap().alias("positive"),
        sum(value()).alias("sum"),
        min(value()).alias("min"),
        max(value()).alias("max"),
        avg(value()).alias("avg"),
        count_distinct(value()).alias("distinct"),
    ]
}

fn by_key(flow: Flow<'_>) -> Result<Flow<'_>> {
    flow.key_by(["key"])?.aggregate("a", aggregates())
}

/// The same by the definition: group everything, then aggregate.
fn naive(input: &[InputRow]) -> Vec<String> {
    let mut groups: BTreeMap<Option<&str>, Vec<Option<i64>>> = BTreeMap::new();
    for (_, key, value) in input {
        groups.entry(*key).or_default().push(*value);
    }
    let line = |(key, values): (Option<&str>, Vec<Option<i64>>)| {
        let some: Vec<i64> = values.iter().flatten().copied().collect();
        let text = |value: Option<i64>| value.map(|value| value.to_string()).unwrap_or_default();
        let total = (!some.is_empty()).then(|| some.iter().sum::<i64>());
        [
            key.unwrap_or_default().to_owned(),
            values.len().to_string(),
            some.iter().filter(|value| **value > 0).count().to_string(),
            text(total),
            text(some.iter().min().copied()),
            text(some.iter().max().copied()),
            total.map(|total| format!("{:?}", total as f64 / some.len() as f64)).unwrap_or_default(),
            some.iter().collect::<BTreeSet<_>>().len().to_string(),
        ]
        .join(" | ")
    };
    let mut lines: Vec<String> = groups.into_iter().map(line).collect();
    lines.sort();
    lines
}

/// Runs batches in several sizes, with and without restarts between every two; calls `check` with what is there after each batch.
pub fn at_every_batching(
    factory: &Arc<dyn OperatorFactory>,
    key_columns: usize,
    batches: &[Batch],
    mut check: impl FnMut(usize, &View),
) {
    for size in [usize::MAX, 3, 1] {
        for restart in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let mut harness = Harness::new(factory.clone(), folder.path()).unwrap();
            let (mut view, mut seen) = (View::new(key_columns), 0);
            for batch in batches {
                for start in (0..batch.len()).step_by(size.min(batch.len())) {
                    let part = batch.slice(start, size.min(batch.len() - start));
                    seen += part.len();
                    harness.push(Input::Rows(part)).unwrap();
                    if restart {
                        harness.checkpoint().unwrap();
                        harness.restart(SubtaskIndex(0), 1).unwrap();
                    }
                    view.apply(&harness.take_batches(Port::MAIN));
                    check(seen, &view);
                }
            }
            harness.end().unwrap();
            assert!(harness.take_batches(Port::MAIN).is_empty(), "the end of the input changes nothing");
        }
    }
}

#[test]
fn any_batching_and_any_restart_give_the_naive_result_at_any_time() {
    let factory = appended(by_key);
    for seed in 0..3 {
        let input = random_rows(seed, 40);
        let batches: Vec<Batch> = input.chunks(7).map(|part| Batch::inserts(rows(part))).collect();
        at_every_batching(&factory, 1, &batches, |seen, view| {
            assert_eq!(view.lines(), naive(&input[..seen]), "seed {seed}, after {seen} rows");
        });
    }
}

fn lines_of(harness: &mut Harness, batch: Batch) -> Vec<String> {
    harness.push(Input::Rows(batch)).unwrap();
    changelog_lines(&harness.take_batches(Port::MAIN)).unwrap()
}

fn values(harness: &mut Harness, values: &[(&'static str, i64)]) -> Vec<String> {
    let input: Vec<InputRow> = values.iter().map(|(key, value)| (None, Some(*key), Some(*value))).collect();
    lines_of(harness, Batch::inserts(rows(&input)))
}

#[test]
fn a_batch_updates_a_key_once_and_an_equal_result_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let factory = appended(|flow| flow.key_by(["key"])?.aggregate("a", [max(col("value")).alias("max")]));
    let mut harness = Harness::new(factory, folder.path()).unwrap();
    assert_eq!(values(&mut harness, &[("b", 1), ("a", 5), ("b", 3), ("b", 2)]), ["+I | b | 3", "+I | a | 5"]);
    let updated = ["-U | a | 5", "+U | a | 7", "+I | c | 0"];
    assert_eq!(values(&mut harness, &[("a", 6), ("b", 3), ("a", 7), ("c", 0)]), updated);
    assert_eq!(values(&mut harness, &[("a", 1), ("b", 1)]), [""; 0]);
}

#[test]
fn a_group_without_keys_is_there_from_the_first_row_on() {
    let folder = tempfile::tempdir().unwrap();
    let factory = appended(|flow| {
        let positive = count(col("value")).filter(col("value").gt(lit(0i64))).build().unwrap();
        flow.key_by([])?.aggregate("a", [positive.alias("n"), sum(col("value")).alias("s")])
    });
    let mut harness = Harness::new(factory.clone(), folder.path()).unwrap();
    harness.push(Input::Watermark(Timestamp(5))).unwrap();
    harness.checkpoint().unwrap();
    harness.restart(SubtaskIndex(0), 1).unwrap();
    assert!(harness.take_batches(Port::MAIN).is_empty());
    assert_eq!(values(&mut harness, &[("a", -1), ("b", 0)]), ["+I | 0 | -1"]);
    harness.checkpoint().unwrap();
    harness.restart(SubtaskIndex(0), 1).unwrap();
    assert_eq!(values(&mut harness, &[("a", 3)]), ["-U | 0 | -1", "+U | 1 | 2"]);
    harness.end().unwrap();
    assert!(harness.take_batches(Port::MAIN).is_empty());
}

#[test]
fn keys_without_aggregates_are_distinct_rows() {
    let factory = appended(|flow| flow.key_by(["key", "value"])?.aggregate("a", []));
    let input =
        [(None, Some("a"), Some(1)), (None, None, None), (None, Some("a"), Some(2)), (None, Some("a"), Some(1))];
    let batches = [Batch::inserts(rows(&input)), Batch::inserts(rows(&input))];
    let mut last = Vec::new();
    at_every_batching(&factory, 2, &batches, |_, view| last = view.lines());
    assert_eq!(last, [" | ", "a | 1", "a | 2"]);
    // They are no changelog, with and without a time to live.
    for ttl in [None, Some(Duration::from_secs(1))] {
        let factory = appended(|flow| {
            let keys = flow.key_by(["key", "value"])?;
            ttl.map_or(keys.clone(), |ttl| keys.ttl(ttl)).aggregate("a", [])
        });
        assert!(!factory.emits_changelog(Port::MAIN, false));
        let folder = tempfile::tempdir().unwrap();
        let mut harness = Harness::new(factory, folder.path()).unwrap();
        batches.iter().for_each(|batch| harness.push(Input::Rows(batch.clone())).unwrap());
        let emitted = harness.take_batches(Port::MAIN);
        assert_eq!(emitted.iter().map(Batch::len).collect::<Vec<_>>(), [3]);
        assert!(emitted[0].kinds().is_none());
    }
}

#[test]
fn state_that_expires_is_forgotten_and_kept_by_rows_that_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let factory = appended(|flow| {
        flow.key_by(["key"])?.ttl(Duration::from_millis(100)).aggregate("a", [max(col("value")).alias("max")])
    });
    let mut harness = Harness::new(factory, folder.path()).unwrap();
    let at = |harness: &mut Harness, millis: i64| {
        harness.push(Input::Time(Timestamp(millis))).unwrap();
        harness.checkpoint().unwrap();
        harness.restart(SubtaskIndex(0), 1).unwrap();
    };
    assert_eq!(values(&mut harness, &[("a", 5), ("b", 5)]), ["+I | a | 5", "+I | b | 5"]);
    at(&mut harness, 60);
    // What is downstream keeps its state by this as well.
    assert_eq!(values(&mut harness, &[("a", 1)]), ["-U | a | 5", "+U | a | 5"]);
    at(&mut harness, 120);
    assert_eq!(values(&mut harness, &[("a", 2), ("b", 2)]), ["-U | a | 5", "+U | a | 5", "+I | b | 2"]);
}

#[test]
fn rows_that_an_argument_fails_on_are_rejected_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let factory = appended(|flow| {
        let number = Expr::Cast(Cast::new(Box::new(col("key")), DataType::Int64));
        let below = count(col("value")).filter(number.clone().lt(lit(9i64))).build().unwrap();
        let aggregates = [sum(number).alias("s"), count(lit(1i64)).alias("n"), below.alias("below")];
        flow.key_by(["value"])?.aggregate("a", aggregates)
    });
    let mut harness = Harness::new(factory, folder.path()).unwrap();
    let input = [("1", 1), ("x", 1), ("2", 1), ("y", 2), ("3", 3)].map(|(key, value)| (None, Some(key), Some(value)));
    let changes = lines_of(&mut harness, Batch::inserts(rows(&input)));
    assert_eq!(changes, ["+I | 1 | 3 | 2 | 2", "+I | 3 | 3 | 1 | 1"], "a key is evaluated once");
    let letters = harness.take(Port::REJECTED);
    let reasons: Vec<String> = letters.iter().flat_map(|letters| texts(letters, "reason")).collect();
    assert_eq!(reasons, ["cannot cast 'x' to BIGINT", "cannot cast 'y' to BIGINT"]);
}

pub fn texts(rows: &RecordBatch, column: &str) -> Vec<String> {
    let column = rows.column_by_name(column).expect("a column of this name");
    let column = column.as_any().downcast_ref::<StringArray>().expect("texts");
    column.iter().map(|text| text.unwrap_or_default().to_owned()).collect()
}

/// A row of the value 1 for each of some keys.
fn of_keys(keys: &[String]) -> RecordBatch {
    let time: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![3; keys.len()]));
    let key: ArrayRef = Arc::new(StringArray::from_iter_values(keys));
    let value: ArrayRef = Arc::new(Int64Array::from(vec![1; keys.len()]));
    RecordBatch::try_new(rows(&[]).schema(), vec![time, key, value]).unwrap()
}

fn counting(flow: Flow<'_>) -> Result<Flow<'_>> {
    flow.key_by(["key"])?.aggregate("a", [count(lit(1i64)).alias("n"), sum(col("value")).alias("sum")])
}

#[test]
fn state_moves_to_another_parallelism_by_key_groups() {
    const SUBTASKS: u32 = 3;
    let folder = tempfile::tempdir().unwrap();
    let keys: Vec<String> = (0..200).map(|key| format!("key {key:03}")).collect();
    let mut harness = Harness::new(appended(counting), folder.path()).unwrap();
    harness.push(Input::Rows(Batch::inserts(of_keys(&keys)))).unwrap();
    harness.checkpoint().unwrap();
    let mut view = View::new(1);
    view.apply(&harness.take_batches(Port::MAIN));
    for subtask in (0..SUBTASKS).map(SubtaskIndex) {
        harness.restart(subtask, SUBTASKS).unwrap();
        let owned = |key: &&String| {
            let column: ArrayRef = Arc::new(StringArray::from(vec![key.as_str()]));
            KeyGroup::of_hash(hash_keys(&[column], 1).unwrap()[0]).owner(SUBTASKS) == subtask
        };
        let mine: Vec<String> = keys.iter().filter(owned).cloned().collect();
        assert!(!mine.is_empty() && mine.len() < keys.len());
        harness.push(Input::Rows(Batch::inserts(of_keys(&mine)))).unwrap();
        view.apply(&harness.take_batches(Port::MAIN));
    }
    let expected: Vec<String> = keys.iter().map(|key| format!("{key} | 2 | 2")).collect();
    assert_eq!(view.lines(), expected);
}

#[test]
fn more_keys_than_fit_in_memory_are_left_to_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::with_memory(appended(counting), folder.path(), 1 << 20).unwrap();
    let keys: Vec<String> = (0..30_000).map(|key| format!("key {key:05}")).collect();
    let mut view = View::new(1);
    for _ in 0..2 {
        for some in keys.chunks(5_000) {
            harness.push(Input::Rows(Batch::inserts(of_keys(some)))).unwrap();
            view.apply(&harness.take_batches(Port::MAIN));
            harness.checkpoint().unwrap();
        }
    }
    // The last hand-over is durable with the next checkpoint.
    harness.checkpoint().unwrap();
    assert!(harness.state_bytes() <= 1 << 20, "{} bytes", harness.state_bytes());
    let expected: Vec<String> = keys.iter().map(|key| format!("{key} | 2 | 2")).collect();
    assert_eq!(view.lines(), expected);
}

#[test]
fn the_state_is_described() {
    let schema = rows(&[]).schema();
    let lineage = coulee_runtime::graph::Lineage::named("in", schema);
    let state = appended(counting).state(&[lineage]).expect("it keeps state");
    let facets: Vec<String> = state.facets.iter().map(|facet| format!("{}: {}", facet.name, facet.text)).collect();
    let expected = [
        "keys: in.key: Utf8",
        "aggregates: count(*): Int64, sum(in.value): Int64",
        "changelog: inserts",
        "expires: no",
        "time to live: none",
        "input: in",
    ];
    assert_eq!(facets, expected);
}

fn graph(parallelism: u32, input: &[InputRow], sink: &MemorySink) -> Graph {
    let builder = GraphBuilder::new(parallelism);
    let source = MemorySource::new(rows(&[]).schema(), splits(input, 4));
    let flow = by_key(builder.source("in", Arc::new(source)).unwrap()).unwrap();
    flow.sink("out", Arc::new(sink.clone())).unwrap();
    builder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_gives_the_naive_result_at_any_parallelism() {
    let input = random_rows(11, 1_000);
    for parallelism in [1, 2, 3] {
        let (folder, sink) = (tempfile::tempdir().unwrap(), MemorySink::default());
        finish(graph(parallelism, &input, &sink), folder.path()).await;
        let mut view = View::new(1);
        view.apply(&sink.batches());
        assert_eq!(view.lines(), naive(&input), "parallelism {parallelism}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_stopped_and_cancelled_at_changing_parallelism_gives_the_naive_result() {
    let input = random_rows(13, 3_000);
    let (folder, sink) = (tempfile::tempdir().unwrap(), MemorySink::default());
    finish_in_attempts(folder.path(), |attempt| paced(graph(1 + attempt % 3, &input, &sink), 5_000.0)).await;
    let mut view = View::new(1);
    view.apply(&sink.batches());
    assert_eq!(view.lines(), naive(&input));
}
