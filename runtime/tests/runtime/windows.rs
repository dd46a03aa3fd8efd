//! The windowed aggregation against a naive recomputation: through the harness, and in jobs of several parallelisms that
//! are stopped and resumed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMillisecondArray};
use arrow::record_batch::RecordBatch;
use coulee_model::{SubtaskIndex, Timestamp};
use coulee_runtime::Batch;
use coulee_runtime::flow::{GraphBuilder, col, lit};
use coulee_runtime::graph::{Graph, NodeKind, OperatorFactory, Port};
use coulee_runtime::harness::{Harness, Input, agrees, sorted_lines};
use coulee_runtime::memory::{MemorySink, MemorySource};
use datafusion_functions_aggregate::expr_fn::{avg, count, max, sum};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{finish, finish_in_attempts, paced};

pub const WINDOW: i64 = 10;

pub type InputRow = (Option<i64>, Option<&'static str>, Option<i64>);

pub fn rows(rows: &[InputRow]) -> RecordBatch {
    let time: ArrayRef = Arc::new(rows.iter().map(|r| r.0).collect::<TimestampMillisecondArray>());
    let key: ArrayRef = Arc::new(rows.iter().map(|r| r.1).collect::<StringArray>());
    let value: ArrayRef = Arc::new(rows.iter().map(|r| r.2).collect::<Int64Array>());
    RecordBatch::try_from_iter_with_nullable([("time", time, true), ("key", key, true), ("value", value, true)])
        .expect("three columns")
}

/// The graph under test; its window operator has the id 1 at parallelism 1.
pub fn graph(parallelism: u32, splits: Vec<Vec<RecordBatch>>, sink: &MemorySink) -> Graph {
    let builder = GraphBuilder::new(parallelism);
    let source = MemorySource::new(rows(&[]).schema(), splits);
    let flow = builder.source("in", Arc::new(source)).unwrap().event_time("time", Duration::from_millis(20)).unwrap();
    let aggregates = [
        count(lit(1i64)).alias("n"),
        sum(col("value")).alias("sum"),
        max(col("value")).alias("max"),
        avg(col("value")).alias("avg"),
    ];
    let window = flow.key_by(["key"]).unwrap().tumble("w", "time", Duration::from_millis(WINDOW as u64), aggregates);
    window.unwrap().sink("out", Arc::new(sink.clone())).unwrap();
    builder.finish().unwrap()
}

fn window_operator() -> Arc<dyn OperatorFactory> {
    match &graph(1, vec![], &MemorySink::default()).nodes[1].kind {
        NodeKind::Operator(factory) => factory.clone(),
        other => panic!("expected the window, found {other:?}"),
    }
}

/// An instant as Arrow shows it.
pub fn shown(ms: i64) -> String {
    let text = Timestamp(ms).to_string().replace(' ', "T");
    text.strip_suffix(".000").map(str::to_owned).unwrap_or(text)
}

/// The same by the definition: group everything, then aggregate.
pub fn naive(input: &[InputRow]) -> Vec<String> {
    let mut groups: BTreeMap<(i64, Option<&str>), Vec<Option<i64>>> = BTreeMap::new();
    for (time, key, value) in input {
        if let Some(time) = time {
            groups.entry((time.div_euclid(WINDOW) * WINDOW, *key)).or_default().push(*value);
        }
    }
    let mut lines = Vec::new();
    for ((start, key), values) in groups {
        let some: Vec<i64> = values.iter().flatten().copied().collect();
        let optional = |value: Option<String>| value.unwrap_or_default();
        let total = (!some.is_empty()).then(|| some.iter().sum::<i64>());
        let average = total.map(|total| total as f64 / some.len() as f64);
        lines.push(format!(
            "{} | {} | {} | {} | {} | {} | {}",
            shown(start),
            shown(start + WINDOW),
            key.unwrap_or_default(),
            values.len(),
            optional(total.map(|t| t.to_string())),
            optional(some.iter().max().map(ToString::to_string)),
            optional(average.map(|a| format!("{a:?}"))),
        ));
    }
    lines.sort();
    lines
}

pub fn random_rows(seed: u64, count: usize) -> Vec<InputRow> {
    let mut random = SmallRng::seed_from_u64(seed);
    let keys = [Some("a"), Some("b"), Some("c"), None];
    (0..count as i64)
        .map(|i| {
            // Up to 20 ms of disorder around a clock that ticks every other row.
            let time = i / 2 - random.random_range(0..20);
            let time = (random.random_range(0..50) > 0).then_some(time);
            let value = (random.random_range(0..10) > 0).then(|| random.random_range(-100..100));
            (time, keys[random.random_range(0..4)], value)
        })
        .collect()
}

#[test]
fn any_batching_and_any_restart_give_the_naive_result() {
    let folder = tempfile::tempdir().unwrap();
    let mut next = 0;
    for seed in 0..5 {
        let input = random_rows(seed, 60);
        let mut inputs = Vec::new();
        for (index, part) in input.chunks(7).enumerate() {
            inputs.push(Input::Rows(Batch::inserts(rows(part))));
            // No row is older than its index / 2 - 20, so this watermark is true.
            inputs.push(Input::Watermark(Timestamp((index as i64 + 1) * 7 / 2 - 21)));
        }
        let lines = agrees(&window_operator(), &inputs, || {
            next += 1;
            folder.path().join(next.to_string())
        });
        assert_eq!(lines.unwrap(), naive(&input), "seed {seed}");
    }
}

#[test]
fn a_window_of_which_only_the_bounds_are_asked_has_one_row() {
    let folder = tempfile::tempdir().unwrap();
    let mut next = 0;
    let builder = GraphBuilder::new(1);
    let source = MemorySource::new(rows(&[]).schema(), vec![]);
    let flow = builder.source("in", Arc::new(source)).unwrap().event_time("time", Duration::ZERO).unwrap();
    let window = flow.key_by([]).unwrap().tumble("w", "time", Duration::from_millis(WINDOW as u64), []).unwrap();
    window.sink("out", Arc::new(MemorySink::default())).unwrap();
    let graph = builder.finish().unwrap();
    let NodeKind::Operator(operator) = &graph.nodes[1].kind else { panic!("a window") };
    let inputs = [
        Input::Rows(Batch::inserts(rows(&[
            (Some(1), Some("a"), Some(1)),
            (Some(3), None, None),
            (Some(25), None, None),
        ]))),
        Input::Watermark(Timestamp(100)),
    ];
    let found = agrees(operator, &inputs, || {
        next += 1;
        folder.path().join(next.to_string())
    });
    let line = |start: i64| format!("{} | {}", shown(start), shown(start + WINDOW));
    assert_eq!(found.unwrap(), [line(0), line(20)]);
}

#[test]
fn late_and_timeless_rows_are_counted_and_emitted_on_their_port() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::new(window_operator(), folder.path()).unwrap();
    harness.push(Input::Rows(Batch::inserts(rows(&[(Some(5), Some("a"), Some(1))])))).unwrap();
    harness.push(Input::Watermark(Timestamp(9))).unwrap();
    assert_eq!(harness.take(Port::MAIN).len(), 1, "the watermark 9 closes the window [0, 10)");
    // A restart must not forget that the window has fired.
    harness.checkpoint().unwrap();
    harness.restart(SubtaskIndex(0), 1).unwrap();
    let late = [(Some(9), Some("a"), Some(2)), (None, Some("a"), Some(3)), (Some(10), Some("a"), Some(4))];
    harness.push(Input::Rows(Batch::inserts(rows(&late)))).unwrap();
    harness.end().unwrap();
    let lost = sorted_lines(&harness.take(Port::LATE)).unwrap();
    assert_eq!(lost, [" | a | 3", "1970-01-01T00:00:00.009 | a | 2"]);
    let emitted = sorted_lines(&harness.take(Port::MAIN)).unwrap();
    assert_eq!(emitted, ["1970-01-01T00:00:00.010 | 1970-01-01T00:00:00.020 | a | 1 | 4 | 4 | 4.0"]);
    assert_eq!((harness.metrics().figures().late_rows(), harness.metrics().figures().timeless_rows()), (1, 1));
}

#[test]
fn state_moves_to_another_parallelism_by_key_groups() {
    let folder = tempfile::tempdir().unwrap();
    let input = random_rows(7, 40);
    let mut harness = Harness::new(window_operator(), folder.path()).unwrap();
    harness.push(Input::Rows(Batch::inserts(rows(&input)))).unwrap();
    harness.checkpoint().unwrap();
    let mut all = Vec::new();
    for subtask in 0..3 {
        harness.restart(SubtaskIndex(subtask), 3).unwrap();
        harness.end().unwrap();
        all.extend(harness.take(Port::MAIN));
    }
    assert_eq!(sorted_lines(&all).unwrap(), naive(&input));
}

pub fn splits(input: &[InputRow], count: usize) -> Vec<Vec<RecordBatch>> {
    (0..count)
        .map(|split| {
            let mine: Vec<InputRow> = input.iter().skip(split).step_by(count).copied().collect();
            mine.chunks(13).map(rows).collect()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_gives_the_naive_result_at_any_parallelism() {
    let input = random_rows(11, 2_000);
    for parallelism in [1, 2, 3] {
        let folder = tempfile::tempdir().unwrap();
        let sink = MemorySink::default();
        let job = finish(graph(parallelism, splits(&input, 4), &sink), folder.path()).await;
        assert_eq!(sorted_lines(&sink.rows()).unwrap(), naive(&input), "parallelism {parallelism}");
        let timeless: u64 = job.status().subtasks.iter().map(|s| s.figures.timeless_rows()).sum();
        assert_eq!(timeless, input.iter().filter(|row| row.0.is_none()).count() as u64);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_stopped_or_cancelled_again_and_again_gives_the_same_result() {
    let input = random_rows(13, 3_000);
    let folder = tempfile::tempdir().unwrap();
    let sink = MemorySink::default();
    finish_in_attempts(folder.path(), |attempt| paced(graph(1 + attempt % 3, splits(&input, 4), &sink), 20_000.0))
        .await;
    assert!(sorted_lines(&sink.rows()).unwrap() == naive(&input), "the result differs");
}

#[test]
fn a_window_that_outgrows_its_memory_is_closed_in_parts() {
    // 400,000 keys in one window, in 1 MiB; checkpoints leave what is there to the disk.
    let dir = tempfile::tempdir().unwrap();
    let mut harness = Harness::with_memory(window_operator(), dir.path(), 1 << 20).unwrap();
    let names: Vec<String> = (0..400_000).map(|key| format!("key {key}")).collect();
    for round in 0..2 {
        for some in names.chunks(50_000) {
            let time: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![3; some.len()]));
            let key: ArrayRef = Arc::new(StringArray::from_iter_values(some));
            let value: ArrayRef = Arc::new(Int64Array::from(vec![1; some.len()]));
            let columns = [("time", time, true), ("key", key, true), ("value", value, true)];
            let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
            harness.push(Input::Rows(Batch::inserts(batch))).unwrap();
            harness.checkpoint().unwrap();
        }
        if round == 0 {
            // The last hand-over is durable now, and a restart reads none of it.
            harness.checkpoint().unwrap();
            assert!(harness.state_bytes() < 8 << 20, "{} bytes", harness.state_bytes());
            harness.restart(SubtaskIndex(0), 1).unwrap();
            assert!(harness.state_bytes() < 1 << 20, "{} bytes", harness.state_bytes());
        }
    }
    harness.end().unwrap();
    let results = harness.take(Port::MAIN);
    assert!(results.len() > 8, "{} parts", results.len());
    let (mut keys, mut total) = (std::collections::HashSet::new(), 0);
    for rows in &results {
        let column = rows.column_by_name("key").unwrap().as_any().downcast_ref::<StringArray>().unwrap();
        keys.extend(column.iter().flatten().map(str::to_owned));
        let sums = rows.column_by_name("sum").unwrap().as_any().downcast_ref::<Int64Array>().unwrap();
        assert!(sums.iter().all(|sum| sum == Some(2)));
        total += rows.num_rows();
    }
    assert_eq!((keys.len(), total), (400_000, 400_000));
}
