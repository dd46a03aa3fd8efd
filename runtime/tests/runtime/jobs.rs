//! Whole jobs: graphs of several sources, sinks and inputs; rescaling in mid-stream; failures.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{Int64Type, SchemaRef};
use coulee_checkpoint::{Changes, StateKey, TableId};
use coulee_model::{CheckpointId, KeyGroup, OperatorId, SubtaskIndex};
use coulee_runtime::connector::{Bytes, Prepared, Sink, SinkContext, SinkWriter, async_trait};
use coulee_runtime::flow::{GraphBuilder, col, lit};
use coulee_runtime::graph::{Alignment, Graph, Lineage, OperatorFactory};
use coulee_runtime::harness::sorted_lines;
use coulee_runtime::job::{JobOutcome, JobSettings, JobSpec, JobStatus, launch};
use coulee_runtime::memory::{MemorySink, MemorySource};
use coulee_runtime::metrics::SubtaskMetrics;
use coulee_runtime::operator::{InputIndex, OpenContext, Operator, Output};
use coulee_runtime::state::OperatorState;
use coulee_runtime::{Batch, Error, Result};
use datafusion_functions_aggregate::expr_fn::{count, sum};

use super::windows::{InputRow, naive, random_rows, splits};
use super::{checkpoints, environment, finish, paced, spec, windows};

fn source(input: &[InputRow], count: usize) -> Arc<MemorySource> {
    let splits = splits(input, count);
    Arc::new(MemorySource::new(splits[0][0].schema(), splits))
}

fn total(lines: &MemorySink) -> i64 {
    let rows = lines.rows();
    rows.iter()
        .map(|rows| arrow::compute::sum(rows.column_by_name("value").unwrap().as_primitive::<Int64Type>()).unwrap_or(0))
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_rescaled_in_mid_stream() {
    let input = random_rows(23, 4_000);
    let folder = tempfile::tempdir().unwrap();
    let sink = MemorySink::default();
    for (round, parallelism) in [1, 4, 2, 3].into_iter().enumerate() {
        let rate = if round < 3 { 2_000.0 } else { 1e9 };
        let graph = paced(windows::graph(parallelism, splits(&input, 5), &sink), rate);
        let job = launch(spec(graph), environment(folder.path())).unwrap();
        if round < 3 {
            // A quarter of the rows each; the rest would take the source a second and more.
            let read =
                || job.status().subtasks.iter().filter(|s| s.operator.0 == 0).map(|s| s.figures.rows_in()).sum::<u64>();
            while read() < 1_000 * (round as u64 + 1) {
                assert!(!checkpoints(&job, 1).await, "the job must be in mid-stream when it is rescaled");
            }
            job.stop();
        }
        match job.outcome().await {
            JobOutcome::Stopped(_) if round < 3 => {}
            JobOutcome::Finished if round == 3 => {}
            other => panic!("at parallelism {parallelism}: {other:?}"),
        }
    }
    assert!(sorted_lines(&sink.rows()).unwrap() == naive(&input), "the result differs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_attempt_began_with_is_told_however_late_one_asks() {
    let input = random_rows(29, 3_000);
    let (folder, sink) = (tempfile::tempdir().unwrap(), MemorySink::default());
    let read = |status: &JobStatus| {
        status.subtasks.iter().filter(|s| s.operator.0 == 0).map(|s| s.figures.rows_in()).sum::<u64>()
    };
    let mut before = (CheckpointId(0), 0);
    for _ in 0..2 {
        let graph = paced(windows::graph(2, splits(&input, 4), &sink), 2_000.0);
        let job = launch(spec(graph), environment(folder.path())).unwrap();
        while read(&job.status()) <= before.1 {
            assert!(!checkpoints(&job, 1).await, "it is asked in mid-stream");
        }
        assert_eq!((job.restored().checkpoint, read(job.restored())), before);
        job.stop();
        assert!(matches!(job.outcome().await, JobOutcome::Stopped(_)));
        before = (job.status().checkpoint, read(&job.status()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_sources_and_sinks_share_one_job_and_a_source_is_read_once() {
    let (left, right) = (random_rows(1, 700), random_rows(2, 300));
    let folder = tempfile::tempdir().unwrap();
    let (all, large, sums) = (MemorySink::default(), MemorySink::default(), MemorySink::default());
    let builder = GraphBuilder::new(2);
    let both =
        builder.source("left", source(&left, 3)).unwrap().union(builder.source("right", source(&right, 2)).unwrap());
    let both = both.unwrap();
    both.clone().sink("all", Arc::new(all.clone())).unwrap();
    both.clone()
        .filter(col("value").gt(lit(50i64)))
        .unwrap()
        .parallelism(3)
        .sink("large", Arc::new(large.clone()))
        .unwrap();
    both.select([col("value")]).unwrap().parallelism(1).sink("sums", Arc::new(sums.clone())).unwrap();
    let job = finish(builder.finish().unwrap(), folder.path()).await;

    let values = || left.iter().chain(&right).filter_map(|row| row.2);
    assert_eq!(all.rows().iter().map(|rows| rows.num_rows()).sum::<usize>(), 1_000);
    assert_eq!(total(&all), values().sum::<i64>());
    assert_eq!(total(&sums), values().sum::<i64>());
    assert_eq!(total(&large), values().filter(|value| *value > 50).sum::<i64>());
    let read: u64 = job.status().subtasks.iter().filter(|s| s.operator.0 < 2).map(|s| s.figures.rows_in()).sum();
    assert_eq!(read, 1_000, "each row is read once for the three sinks");
}

/// Keeps rows whose value is at least a limit, which the rows of the second input set for all subtasks.
#[derive(Debug)]
struct Limit(SchemaRef);

#[derive(Debug, Default)]
struct LimitOperator {
    limit: Option<i64>,
    waiting: Vec<Batch>,
    operator: OperatorId,
    subtask: SubtaskIndex,
}

impl OperatorFactory for Limit {
    fn describe(&self) -> String {
        "Limit".to_owned()
    }

    fn schema(&self) -> SchemaRef {
        self.0.clone()
    }

    fn create(&self, _: SubtaskIndex) -> Result<Box<dyn Operator>> {
        Ok(Box::new(LimitOperator::default()))
    }
}

impl LimitOperator {
    fn release(&mut self, out: &mut Output) -> Result<()> {
        let Some(limit) = self.limit else { return Ok(()) };
        for batch in self.waiting.drain(..) {
            let values = batch.rows().column_by_name("value").unwrap().as_primitive::<Int64Type>().clone();
            let keep = arrow::array::BooleanArray::from_iter(values.iter().map(|value| Some(value >= Some(limit))));
            out.emit(batch.select(|column| Ok(arrow::compute::filter(column, &keep)?))?);
        }
        Ok(())
    }
}

impl Operator for LimitOperator {
    fn open(&mut self, context: &OpenContext<'_>) -> Result<()> {
        (self.operator, self.subtask) = (context.operator, context.subtask);
        for entry in context.entries(TableId(1)) {
            let (_, _, value) = entry?;
            self.limit = Some(i64::from_be_bytes(value[..].try_into().map_err(|_| Error::corrupt("a limit"))?));
        }
        Ok(())
    }

    fn process(&mut self, input: InputIndex, batch: Batch, out: &mut Output) -> Result<()> {
        if input == InputIndex::SECOND {
            self.limit = arrow::compute::max(batch.rows().column_by_name("value").unwrap().as_primitive::<Int64Type>());
        } else {
            self.waiting.push(batch);
        }
        self.release(out)
    }

    fn checkpoint(&mut self, _: CheckpointId, _: &mut Output, changes: &mut Changes) -> Result<()> {
        if let Some(limit) = self.limit.filter(|_| self.subtask == SubtaskIndex(0)) {
            let key = StateKey::new(self.operator, TableId(1), KeyGroup(0), b"limit");
            changes.put(key, limit.to_be_bytes().to_vec());
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_with_a_broadcast_input_sees_it_in_every_subtask() {
    let input = random_rows(3, 500);
    let folder = tempfile::tempdir().unwrap();
    let kept = MemorySink::default();
    let builder = GraphBuilder::new(3);
    let rows = builder.source("rows", source(&input, 3)).unwrap();
    let limits = builder.source("limits", source(&[(Some(0), None, Some(60))], 1)).unwrap();
    let factory = Arc::new(Limit(rows.schema().clone()));
    let inputs = [rows.key_by(["key"]).unwrap().shuffled().unwrap(), limits.broadcast()];
    builder.operator("limit", factory, inputs).unwrap().sink("kept", Arc::new(kept.clone())).unwrap();
    finish(builder.finish().unwrap(), folder.path()).await;
    let expected: i64 = input.iter().filter_map(|row| row.2).filter(|value| *value >= 60).sum();
    assert_eq!(total(&kept), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aligned_sources_wait_for_each_other_and_lose_nothing() {
    // Two splits far apart in event time; the early one is slow only because the late one must wait for it.
    let early: Vec<InputRow> = (0..400).map(|i| (Some(i * 10), Some("a"), Some(1))).collect();
    let late: Vec<InputRow> = (0..400).map(|i| (Some(1_000 + i * 10), Some("a"), Some(1))).collect();
    let folder = tempfile::tempdir().unwrap();
    let out = MemorySink::default();
    let builder = GraphBuilder::new(1);
    let flow = |name: &str, rows: &[InputRow]| {
        let flow = builder.source(name, source(rows, 1)).unwrap().event_time("time", Duration::ZERO).unwrap();
        let alignment = Alignment { group: "g".into(), max_drift: Duration::from_millis(200) };
        flow.adjust_event_time(|time| time.alignment = Some(alignment)).unwrap()
    };
    let both = flow("early", &early).union(flow("late", &late)).unwrap();
    let hour = Duration::from_millis(100);
    let window = both.key_by(["key"]).unwrap().tumble("w", "time", hour, [sum(col("value")).alias("value")]).unwrap();
    window.sink("out", Arc::new(out.clone())).unwrap();
    let job = finish(builder.finish().unwrap(), folder.path()).await;
    assert_eq!(total(&out), 800);
    assert_eq!(job.status().subtasks.iter().map(|s| s.figures.late_rows()).sum::<u64>(), 0);
}

/// Panics or fails once its input has come to a row.
#[derive(Debug)]
struct Trip {
    schema: SchemaRef,
    rows_left: Arc<AtomicUsize>,
    panics: bool,
}

impl OperatorFactory for Trip {
    fn describe(&self) -> String {
        "Trip".to_owned()
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn state(&self, _: &[Lineage]) -> Option<OperatorState> {
        None
    }

    fn create(&self, _: SubtaskIndex) -> Result<Box<dyn Operator>> {
        Ok(Box::new(TripOperator { rows_left: self.rows_left.clone(), panics: self.panics }))
    }
}

struct TripOperator {
    rows_left: Arc<AtomicUsize>,
    panics: bool,
}

impl Operator for TripOperator {
    fn process(&mut self, _: InputIndex, batch: Batch, out: &mut Output) -> Result<()> {
        let left = self.rows_left.load(Ordering::SeqCst);
        if left > 0 && left <= batch.len() {
            self.rows_left.store(0, Ordering::SeqCst);
            assert!(!self.panics, "tripped over a row");
            return Err(Error::invalid("tripped over a row"));
        }
        self.rows_left.store(left.saturating_sub(batch.len()), Ordering::SeqCst);
        out.emit(batch);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_or_panic_keeps_its_cause_and_the_next_attempt_goes_on() {
    for panics in [false, true] {
        let input = random_rows(5, 900);
        let folder = tempfile::tempdir().unwrap();
        let out = MemorySink::default();
        let rows_left = Arc::new(AtomicUsize::new(600));
        let graph = || -> Graph {
            let builder = GraphBuilder::new(1);
            let flow = builder.source("in", source(&input, 2)).unwrap();
            let trip = Trip { schema: flow.schema().clone(), rows_left: rows_left.clone(), panics };
            flow.then(Arc::new(trip)).unwrap().sink("out", Arc::new(out.clone())).unwrap();
            paced(builder.finish().unwrap(), 20_000.0)
        };
        let job = launch(spec(graph()), environment(folder.path())).unwrap();
        let JobOutcome::Failed(error) = job.outcome().await else { panic!("the job must fail") };
        assert!(error.to_string().contains("tripped over a row"), "{error}");
        assert!(panics || error.to_string().contains("operator 'op:1'"), "{error}");
        drop(job);
        finish(graph(), folder.path()).await;
        assert_eq!(total(&out), input.iter().filter_map(|row| row.2).sum::<i64>());
    }
}

/// Passes rows on and notes the largest batch that it saw.
#[derive(Debug, Clone)]
struct Largest {
    schema: SchemaRef,
    rows: Arc<AtomicUsize>,
}

impl OperatorFactory for Largest {
    fn describe(&self) -> String {
        "Largest".to_owned()
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn state(&self, _: &[Lineage]) -> Option<OperatorState> {
        None
    }

    fn create(&self, _: SubtaskIndex) -> Result<Box<dyn Operator>> {
        Ok(Box::new(self.clone()))
    }
}

impl Operator for Largest {
    fn process(&mut self, _: InputIndex, batch: Batch, out: &mut Output) -> Result<()> {
        self.rows.fetch_max(batch.len(), Ordering::SeqCst);
        out.emit(batch);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_batch_is_larger_than_the_setting_says() {
    let input = random_rows(31, 700);
    for (batch_rows, sizes) in [(Some(1), 1..=1), (Some(7), 2..=7), (None, 8..=700)] {
        let folder = tempfile::tempdir().unwrap();
        let out = MemorySink::default();
        let [read, emitted] = [0, 1].map(|_| Arc::new(AtomicUsize::new(0)));
        let builder = GraphBuilder::new(2);
        let flow = builder.source("copied", source(&input, 2)).unwrap();
        let schema = flow.schema().clone();
        let copied = flow.then(Arc::new(Largest { schema, rows: read.clone() })).unwrap();
        copied.sink("copies", Arc::new(MemorySink::default())).unwrap();
        let disorder = Duration::from_millis(20);
        let flow = builder.source("in", source(&input, 2)).unwrap().event_time("time", disorder).unwrap();
        // A window emits its keys at once, of which there are hundreds.
        let (hour, value) = (Duration::from_secs(3_600), sum(col("value")).alias("value"));
        let window = flow.key_by(["time"]).unwrap().tumble("w", "time", hour, [value]).unwrap();
        let schema = window.schema().clone();
        let noted = window.then(Arc::new(Largest { schema, rows: emitted.clone() })).unwrap();
        noted.sink("out", Arc::new(out.clone())).unwrap();
        let mut spec = spec(builder.finish().unwrap());
        spec.settings.batch_rows = batch_rows;
        let job = launch(spec, environment(folder.path())).unwrap();
        assert!(matches!(job.outcome().await, JobOutcome::Finished));
        assert_eq!(total(&out), input.iter().filter(|row| row.0.is_some()).filter_map(|row| row.2).sum::<i64>());
        for seen in [read, emitted].map(|rows| rows.load(Ordering::SeqCst)) {
            assert!(sizes.contains(&seen), "{batch_rows:?}: {seen} rows");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_of_an_operator_that_is_gone_is_refused_or_dropped_on_request() {
    let input = random_rows(29, 500);
    let folder = tempfile::tempdir().unwrap();
    let graph = |name: &str, sink: &MemorySink| {
        let builder = GraphBuilder::new(1);
        let flow = builder.source("in", source(&input, 2)).unwrap().event_time("time", Duration::ZERO).unwrap();
        let ten = Duration::from_millis(10);
        let window =
            flow.key_by(["key"]).unwrap().tumble(name, "time", ten, [count(lit(1i64)).alias("value")]).unwrap();
        window.sink("out", Arc::new(sink.clone())).unwrap();
        builder.finish().unwrap()
    };
    finish(graph("before", &MemorySink::default()), folder.path()).await;
    let refused = launch(spec(graph("after", &MemorySink::default())), environment(folder.path())).unwrap_err();
    let text = refused.to_string();
    assert!(
        text.contains("'before'") && text.contains("new in it: 'after'") && text.contains("--allow-non-restored"),
        "{text}"
    );

    let settings = JobSettings { allow_non_restored_state: true, ..JobSettings::default() };
    let allowed = JobSpec { settings, ..spec(graph("after", &MemorySink::default())) };
    let environment = environment(folder.path());
    let store = environment.store.clone();
    let before = coulee_runtime::graph::Node::state_of("before");
    assert!(store.operators().unwrap().contains_key(&before));
    let job = launch(allowed, environment).unwrap();
    assert!(matches!(job.outcome().await, JobOutcome::Finished));
    assert!(!store.operators().unwrap().contains_key(&before), "its state is gone from the disk");
}

/// Counts the rows that are written to it or to its clones. The slow one takes its time to recover, and fails if rows were written meanwhile.
#[derive(Debug, Clone)]
struct Probe {
    written: Arc<AtomicUsize>,
    is_slow: bool,
}

#[async_trait]
impl Sink for Probe {
    fn describe(&self) -> String {
        "Probe".to_owned()
    }

    async fn recover(&self, _: &SinkContext, _: &[Bytes], _: &[Bytes]) -> Result<()> {
        for _ in 0..if self.is_slow { 20_000 } else { 0 } {
            tokio::task::yield_now().await;
            if self.written.load(Ordering::SeqCst) > 0 {
                return Err(Error::internal("rows are written while a sink is recovering"));
            }
        }
        Ok(())
    }

    async fn open(
        &self,
        _: &SinkContext,
        _: SubtaskIndex,
        _: &[Bytes],
        _: Arc<SubtaskMetrics>,
    ) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl SinkWriter for Probe {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        self.written.fetch_add(batch.len(), Ordering::SeqCst);
        Ok(())
    }

    async fn prepare(&mut self, _: CheckpointId) -> Result<Prepared> {
        Ok(Prepared::default())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_runs_before_every_sink_is_recovered() {
    let folder = tempfile::tempdir().unwrap();
    let probe = Probe { written: Arc::default(), is_slow: false };
    let builder = GraphBuilder::new(1);
    let rows = builder.source("in", source(&random_rows(7, 300), 1)).unwrap();
    rows.clone().sink("first", Arc::new(probe.clone())).unwrap();
    rows.sink("second", Arc::new(Probe { is_slow: true, ..probe.clone() })).unwrap();
    finish(builder.finish().unwrap(), folder.path()).await;
    assert_eq!(probe.written.load(Ordering::SeqCst), 600);
}
