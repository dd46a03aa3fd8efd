//! Session windows against a recomputation of all sessions after every row.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coulee_model::{SubtaskIndex, Timestamp};
use coulee_runtime::Batch;
use coulee_runtime::flow::{GraphBuilder, col, lit};
use coulee_runtime::graph::{Graph, Lineage, NodeKind, OperatorFactory, Port};
use coulee_runtime::harness::{Harness, Input, agrees, sorted_lines};
use coulee_runtime::memory::{MemorySink, MemorySource};
use datafusion_functions_aggregate::expr_fn::{avg, count, count_distinct, max, sum};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::windows::{InputRow, random_rows, rows, shown, splits};
use super::{finish, finish_in_attempts, paced};

const GAP: i64 = 10;
/// How far the rows of jobs are behind others: see `input`.
const DISORDER: i64 = 60;

/// The graph under test; its session operator has the id 1.
fn graph(keyed: bool, parallelism: u32, source: MemorySource, sink: &MemorySink) -> Graph {
    let builder = GraphBuilder::new(parallelism);
    let flow = builder.source("in", Arc::new(source)).unwrap();
    let flow = flow.event_time("time", Duration::from_millis(DISORDER as u64)).unwrap();
    let aggregates = [
        count(lit(1i64)).alias("n"),
        sum(col("value")).alias("sum"),
        max(col("value")).alias("max"),
        avg(col("value")).alias("avg"),
        count_distinct(col("value")).alias("distinct"),
    ];
    let keyed = if keyed { flow.key_by(["key"]) } else { flow.key_by([]) };
    let session = keyed.unwrap().session("s", "time", Duration::from_millis(GAP as u64), aggregates).unwrap();
    session.sink("out", Arc::new(sink.clone())).unwrap();
    builder.finish().unwrap()
}

fn operator(keyed: bool) -> Arc<dyn OperatorFactory> {
    let source = MemorySource::new(rows(&[]).schema(), vec![]);
    match &graph(keyed, 1, source, &MemorySink::default()).nodes[1].kind {
        NodeKind::Operator(factory) => factory.clone(),
        other => panic!("expected the sessions, found {other:?}"),
    }
}

/// The rows of each key that have not fired, as they came.
#[derive(Default)]
struct Oracle {
    keyed: bool,
    open: BTreeMap<Option<&'static str>, Vec<(i64, i64)>>,
    watermark: Option<i64>,
    lines: Vec<String>,
    late: u64,
    timeless: u64,
}

impl Oracle {
    /// The sessions of some rows: sorted, and cut where the next row is more than a gap away.
    fn sessions(rows: &[(i64, i64)]) -> Vec<Vec<(i64, i64)>> {
        let mut sorted = rows.to_vec();
        sorted.sort();
        sorted.chunk_by(|a, b| b.0 - a.0 <= GAP).map(<[_]>::to_vec).collect()
    }

    fn row(&mut self, (time, key, value): InputRow) {
        let Some(time) = time else {
            self.timeless += 1;
            return;
        };
        let rows = self.open.entry(if self.keyed { key } else { None }).or_default();
        let joins = rows.iter().any(|(other, _)| (other - time).abs() <= GAP);
        if !joins && self.watermark.is_some_and(|watermark| time + GAP <= watermark) {
            self.late += 1;
        } else {
            rows.push((time, value.expect("these rows have values")));
        }
    }

    fn watermark(&mut self, watermark: i64) {
        self.watermark = Some(watermark);
        for (key, rows) in &mut self.open {
            for session in Self::sessions(rows) {
                let (start, end) = (session[0].0, session[session.len() - 1].0 + GAP);
                if end > watermark {
                    continue;
                }
                rows.retain(|(time, _)| !(start..end).contains(time));
                let mut values: Vec<i64> = session.iter().map(|(_, value)| *value).collect();
                let (n, sum) = (values.len(), values.iter().sum::<i64>());
                values.sort_unstable();
                let max = values[n - 1];
                values.dedup();
                let key = if self.keyed { format!("{} | ", key.unwrap_or_default()) } else { String::new() };
                let (bounds, average) = (format!("{} | {}", shown(start), shown(end)), sum as f64 / n as f64);
                self.lines.push(format!("{bounds} | {key}{n} | {sum} | {max} | {average:?} | {}", values.len()));
            }
        }
    }

    fn of(keyed: bool, inputs: &[Step]) -> Self {
        let mut oracle = Oracle { keyed, ..Oracle::default() };
        for step in inputs {
            match step {
                Step::Rows(rows) => rows.iter().for_each(|row| oracle.row(*row)),
                Step::Watermark(watermark) => oracle.watermark(*watermark),
            }
        }
        oracle.watermark(i64::MAX);
        oracle.lines.sort();
        oracle
    }
}

#[derive(Debug, Clone)]
enum Step {
    Rows(Vec<InputRow>),
    Watermark(i64),
}

impl Step {
    fn input(&self) -> Input {
        match self {
            Step::Rows(some) => Input::Rows(Batch::inserts(rows(some))),
            Step::Watermark(watermark) => Input::Watermark(Timestamp(*watermark)),
        }
    }
}

/// Rows out of order around a clock that begins before 1970, with watermarks that leave some behind.
fn steps(seed: u64) -> Vec<Step> {
    let mut random = SmallRng::seed_from_u64(seed);
    let (mut steps, mut clock, mut watermark) = (Vec::new(), -80, i64::MIN);
    for _ in 0..10 {
        let row = |random: &mut SmallRng| -> InputRow {
            let time = (random.random_range(0..30) > 0).then(|| clock - random.random_range(0..50));
            (time, [Some("a"), Some("b"), None][random.random_range(0..3)], Some(random.random_range(-3..4)))
        };
        let count = random.random_range(1..7);
        steps.push(Step::Rows((0..count).map(|_| row(&mut random)).collect()));
        clock += [0, 5, 12, 40][random.random_range(0..4)];
        let reached = clock - random.random_range(10..45);
        if reached > watermark {
            watermark = reached;
            steps.push(Step::Watermark(watermark));
        }
    }
    steps
}

#[test]
fn any_batching_and_any_restart_give_the_recomputed_sessions() {
    let mut late = 0;
    for seed in 0..16 {
        let keyed = seed % 4 != 0;
        let steps = steps(seed);
        let inputs: Vec<Input> = steps.iter().map(Step::input).collect();
        let folder = tempfile::tempdir().unwrap();
        let mut next = 0;
        let found = agrees(&operator(keyed), &inputs, || {
            next += 1;
            folder.path().join(next.to_string())
        });
        let oracle = Oracle::of(keyed, &steps);
        assert_eq!(found.unwrap(), oracle.lines, "seed {seed}");
        late += oracle.late;
    }
    assert!(late > 20, "{late} late rows");
}

#[test]
fn late_and_timeless_rows_are_counted_and_emitted_on_their_port() {
    for seed in 100..108 {
        let (steps, folder) = (steps(seed), tempfile::tempdir().unwrap());
        let mut harness = Harness::new(operator(true), folder.path()).unwrap();
        steps.iter().for_each(|step| harness.push(step.input()).unwrap());
        harness.end().unwrap();
        let oracle = Oracle::of(true, &steps);
        let figures = harness.metrics().figures();
        assert_eq!((figures.late_rows(), figures.timeless_rows()), (oracle.late, oracle.timeless), "seed {seed}");
        let aside = harness.take(Port::LATE).iter().map(|rows| rows.num_rows() as u64).sum::<u64>();
        assert_eq!(aside, oracle.late + oracle.timeless);
        assert_eq!(sorted_lines(&harness.take(Port::MAIN)).unwrap(), oracle.lines);
        assert_eq!(figures.next_result(), None);
    }
}

fn at(time: i64, value: i64) -> InputRow {
    (Some(time), Some("a"), Some(value))
}

#[test]
fn a_row_joins_two_sessions_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::new(operator(true), folder.path()).unwrap();
    harness.push(Step::Rows(vec![at(0, 1), at(20, 2), at(100, 3)]).input()).unwrap();
    assert_eq!(harness.metrics().figures().next_result(), Some(Timestamp(9)));
    harness.checkpoint().unwrap();
    harness.restart(SubtaskIndex(0), 1).unwrap();
    // The row at its end may still come.
    harness.push(Step::Watermark(9).input()).unwrap();
    // As far from the one as from the other.
    harness.push(Step::Rows(vec![at(10, 4)]).input()).unwrap();
    harness.checkpoint().unwrap();
    harness.restart(SubtaskIndex(0), 1).unwrap();
    harness.push(Step::Watermark(29).input()).unwrap();
    assert!(harness.take(Port::MAIN).is_empty());
    assert_eq!(harness.metrics().figures().next_result(), Some(Timestamp(29)), "the timer at 9 was moved");
    harness.push(Step::Watermark(30).input()).unwrap();
    let line = format!("{} | {} | a | 3 | 7 | 4 | {:?} | 3", shown(0), shown(30), 7.0 / 3.0);
    assert_eq!(sorted_lines(&harness.take(Port::MAIN)).unwrap(), [line]);
    // It has fired, and does not fire again.
    harness.push(Step::Rows(vec![at(19, 5), at(21, 6)]).input()).unwrap();
    assert_eq!(harness.metrics().figures().late_rows(), 1, "the gap behind 21 is not over");
    harness.end().unwrap();
    let line = |start: i64, value: i64| {
        format!("{} | {} | a | 1 | {value} | {value} | {value}.0 | 1", shown(start), shown(start + GAP))
    };
    assert_eq!(sorted_lines(&harness.take(Port::MAIN)).unwrap(), [line(21, 6), line(100, 3)]);
}

#[test]
fn state_moves_to_another_parallelism_by_key_groups() {
    let (steps, folder) = (steps(7), tempfile::tempdir().unwrap());
    let mut harness = Harness::new(operator(true), folder.path()).unwrap();
    steps.iter().for_each(|step| harness.push(step.input()).unwrap());
    harness.checkpoint().unwrap();
    let mut all = harness.take(Port::MAIN);
    for subtask in 0..3 {
        harness.restart(SubtaskIndex(subtask), 3).unwrap();
        harness.end().unwrap();
        all.extend(harness.take(Port::MAIN));
    }
    assert_eq!(sorted_lines(&all).unwrap(), Oracle::of(true, &steps).lines);
}

#[test]
fn a_key_may_have_many_sessions() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::with_memory(operator(false), folder.path(), 1 << 20).unwrap();
    // All of one key, which is one entry of the state.
    let many: Vec<InputRow> = (0..2_000).map(|n| at(n * 2 * GAP, n)).collect();
    for part in many.chunks(200) {
        harness.push(Step::Rows(part.to_vec()).input()).unwrap();
        harness.checkpoint().unwrap();
    }
    harness.restart(SubtaskIndex(0), 1).unwrap();
    harness.end().unwrap();
    assert_eq!(harness.take(Port::MAIN).iter().map(|rows| rows.num_rows()).sum::<usize>(), 2_000);
}

#[test]
fn state_tells_its_gap_and_changelogs_are_refused() {
    let operator = operator(true);
    assert_eq!(operator.describe(), "WindowAggregate: session 10 ms by key: n, sum, max, avg, distinct");
    let input = Lineage::named("in", rows(&[]).schema());
    let state = operator.state(std::slice::from_ref(&input)).expect("sessions are state");
    assert_eq!(state.facets[0].text, "SESSION(in.time, 10 ms)");
    assert!(operator.refuses_changelog(Default::default()).is_some());
    let builder = GraphBuilder::new(1);
    let source = MemorySource::new(rows(&[]).schema(), vec![]);
    let flow = builder.source("in", Arc::new(source)).unwrap().event_time("time", Duration::ZERO).unwrap();
    let session = flow.key_by(["key"]).unwrap().session("s", "time", Duration::ZERO, [count(lit(1i64))]).unwrap();
    session.sink("out", Arc::new(MemorySink::default())).unwrap();
    let graph = builder.finish().unwrap();
    let NodeKind::Operator(factory) = &graph.nodes[1].kind else { panic!("an operator") };
    let refused = factory.create(SubtaskIndex(0)).err().expect("a gap of nothing").to_string();
    assert!(refused.contains("the gap between sessions is 0 ms"), "{refused}");
}

/// Rows without null values, of which none is late, and their sessions.
fn input(seed: u64, count: usize) -> (Vec<InputRow>, Vec<String>) {
    // Gaps of 40 ms let sessions end. Of times that differ by less than 20, one gap at most is between.
    let spread = |time: i64| time + 40 * time.div_euclid(50);
    let row = |row: InputRow| (row.0.map(spread), row.1, row.2.or(Some(0)));
    let rows: Vec<InputRow> = random_rows(seed, count).into_iter().map(row).collect();
    let lines = Oracle::of(true, &[Step::Rows(rows.clone())]).lines;
    (rows, lines)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_stopped_or_cancelled_and_rescaled_gives_the_same_sessions() {
    let (input, expected) = input(17, 2_000);
    assert!(expected.len() > 50, "{} sessions", expected.len());
    let source = || {
        let parts = splits(&input, 4);
        MemorySource::new(rows(&[]).schema(), parts)
    };
    let (folder, sink) = (tempfile::tempdir().unwrap(), MemorySink::default());
    finish(graph(true, 2, source(), &sink), folder.path()).await;
    assert!(sorted_lines(&sink.rows()).unwrap() == expected, "in one go");
    let (folder, sink) = (tempfile::tempdir().unwrap(), MemorySink::default());
    let attempt = |attempt: u32| paced(graph(true, [1, 3, 2][attempt as usize % 3], source(), &sink), 20_000.0);
    finish_in_attempts(folder.path(), attempt).await;
    assert!(sorted_lines(&sink.rows()).unwrap() == expected, "in attempts");
}
