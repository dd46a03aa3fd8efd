//! Time in a job: calls by the wall clock at full load, idle inputs that wake up, event time after a restart, and a driver that breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use arrow::array::{AsArray, Int64Array, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use coulee_model::{CheckpointId, Clock, ErrorKind, ManualClock, SubtaskIndex, Timestamp};
use coulee_runtime::connector::{
    Bytes, Enumeration, KnownSplits, Prepared, Sink, SinkContext, SinkWriter, Source, SourceContext, SourceEvent,
    SourceReader, SplitId, SplitStart, async_trait,
};
use coulee_runtime::flow::{Flow, GraphBuilder, col, lit};
use coulee_runtime::graph::{Alignment, OperatorFactory};
use coulee_runtime::job::{Environment, JobHandle, JobOutcome, launch};
use coulee_runtime::memory::{MemorySink, MemorySource};
use coulee_runtime::metrics::SubtaskMetrics;
use coulee_runtime::operator::{InputIndex, OpenContext, Operator, Output};
use coulee_runtime::{Batch, Result};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{environment, finish, spec};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("time", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        Field::new("value", DataType::Int64, false),
    ]))
}

/// One row for each `(time, value)`.
fn rows(rows: &[(Option<i64>, i64)]) -> RecordBatch {
    let times = TimestampMillisecondArray::from_iter(rows.iter().map(|(time, _)| *time));
    let values = Int64Array::from_iter_values(rows.iter().map(|(_, value)| *value));
    RecordBatch::try_new(schema(), vec![Arc::new(times), Arc::new(values)]).unwrap()
}

/// How late, by the clock, calls came; each batch takes a millisecond, and a call is wanted every ten.
#[derive(Debug, Clone)]
struct Ticks {
    clock: Arc<ManualClock>,
    due: Arc<AtomicI64>,
    late: Arc<Mutex<Vec<i64>>>,
}

impl Ticks {
    fn new(clock: &Arc<ManualClock>) -> Self {
        Ticks { clock: clock.clone(), due: Arc::new(AtomicI64::new(10)), late: Arc::default() }
    }

    fn work(&self) {
        self.clock.advance(1);
    }

    fn next(&self) -> Option<Timestamp> {
        Some(Timestamp(self.due.load(Ordering::SeqCst)))
    }

    fn called(&self, now: Timestamp) {
        let due = self.due.swap(now.0 + 10, Ordering::SeqCst);
        self.late.lock().push(now.0 - due);
    }
}

impl OperatorFactory for Ticks {
    fn describe(&self) -> String {
        "Ticks".to_owned()
    }

    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn state(&self, _: &[coulee_runtime::graph::Lineage]) -> Option<coulee_runtime::state::OperatorState> {
        None
    }

    fn create(&self, _: SubtaskIndex) -> Result<Box<dyn Operator>> {
        Ok(Box::new(self.clone()))
    }
}

impl Operator for Ticks {
    fn process(&mut self, _: InputIndex, batch: Batch, out: &mut Output) -> Result<()> {
        self.work();
        out.emit(batch);
        Ok(())
    }

    fn next_time(&self) -> Option<Timestamp> {
        self.next()
    }

    fn time(&mut self, now: Timestamp, _: &mut Output) -> Result<()> {
        self.called(now);
        Ok(())
    }
}

#[async_trait]
impl Sink for Ticks {
    fn describe(&self) -> String {
        "Ticks".to_owned()
    }

    async fn recover(&self, _: &SinkContext, _: &[Bytes], _: &[Bytes]) -> Result<()> {
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
impl SinkWriter for Ticks {
    async fn write(&mut self, _: Batch) -> Result<()> {
        self.work();
        Ok(())
    }

    fn next_flush(&self) -> Option<Timestamp> {
        self.next()
    }

    async fn flush(&mut self, now: Timestamp) -> Result<()> {
        self.called(now);
        Ok(())
    }

    async fn prepare(&mut self, _: CheckpointId) -> Result<Prepared> {
        Ok(Prepared::default())
    }
}

/// A source that always has the next batch ready, of more rows than are gathered into one.
fn busy_source(batches: usize) -> Arc<MemorySource> {
    let large: Vec<(Option<i64>, i64)> = (0..5_000).map(|i| (Some(i), i)).collect();
    Arc::new(MemorySource::new(schema(), vec![vec![rows(&large); batches]]))
}

#[tokio::test]
async fn calls_by_the_clock_come_in_time_while_the_input_never_pauses() {
    const BATCHES: usize = 200;
    for (is_sink, is_chained) in [(false, true), (false, false), (true, true), (true, false)] {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        let ticks = Ticks::new(&clock);
        let builder = GraphBuilder::new(1);
        let mut flow = builder.source("in", busy_source(BATCHES)).unwrap();
        if !is_chained {
            // A union goes through channels.
            flow = flow.union(builder.source("empty", busy_source(0)).unwrap()).unwrap();
        }
        if is_sink {
            flow.sink("ticks", Arc::new(ticks.clone())).unwrap();
        } else {
            flow.then(Arc::new(ticks.clone())).unwrap().sink("out", Arc::new(MemorySink::default())).unwrap();
        }
        let environment = Environment { clock, ..environment(folder.path()) };
        let job = launch(spec(builder.finish().unwrap()), environment).unwrap();
        let outcome = job.outcome().await;
        assert!(matches!(outcome, JobOutcome::Finished), "{outcome:?}");
        let late = ticks.late.lock().clone();
        assert_eq!(late, vec![0; BATCHES / 10], "sink: {is_sink}, chained: {is_chained}");
    }
}

/// What an operator saw.
#[derive(Debug, Clone, PartialEq)]
enum Seen {
    Value(i64),
    Watermark(i64),
}

/// Notes what comes.
#[derive(Debug, Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Seen>>>);

impl Recorder {
    fn watermarks(&self) -> Vec<i64> {
        let seen = self.0.lock();
        seen.iter().filter_map(|seen| if let Seen::Watermark(at) = seen { Some(*at) } else { None }).collect()
    }

    /// Waits until it has seen this.
    async fn until(&self, job: &JobHandle, wanted: Seen) {
        while !self.0.lock().contains(&wanted) {
            tokio::select! {
                outcome = job.outcome() => panic!("{outcome:?} before {wanted:?}, after {:?}", self.0.lock()),
                () = tokio::task::yield_now() => {}
            }
        }
    }
}

impl OperatorFactory for Recorder {
    fn describe(&self) -> String {
        "Recorder".to_owned()
    }

    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn state(&self, _: &[coulee_runtime::graph::Lineage]) -> Option<coulee_runtime::state::OperatorState> {
        None
    }

    fn create(&self, _: SubtaskIndex) -> Result<Box<dyn Operator>> {
        Ok(Box::new(self.clone()))
    }
}

impl Operator for Recorder {
    fn open(&mut self, _: &OpenContext<'_>) -> Result<()> {
        self.0.lock().clear();
        Ok(())
    }

    fn process(&mut self, _: InputIndex, batch: Batch, out: &mut Output) -> Result<()> {
        let values = batch.rows().column(1).as_primitive::<Int64Type>().values().to_vec();
        self.0.lock().extend(values.into_iter().map(Seen::Value));
        out.emit(batch);
        Ok(())
    }

    fn watermark(&mut self, watermark: Timestamp, out: &mut Output) -> Result<()> {
        self.0.lock().push(Seen::Watermark(watermark.0));
        out.watermark(watermark);
        Ok(())
    }
}

/// A source whose events are said by the test; one line of events for each of its subtasks, in which splits are dealt out in turn.
#[derive(Debug)]
struct Scripted {
    splits: usize,
    lines: Mutex<Vec<mpsc::UnboundedReceiver<SourceEvent>>>,
}

/// Says what a subtask of a scripted source reads.
#[derive(Debug, Clone)]
struct Line(mpsc::UnboundedSender<SourceEvent>);

impl Line {
    fn rows(&self, split: usize, of: &[(Option<i64>, i64)]) {
        self.0.send(SourceEvent::Rows { split, rows: rows(of), rejected: None }).unwrap();
    }

    /// The split has nothing more; with no idle timeout it is idle at once.
    fn caught_up(&self, split: usize) {
        self.0.send(SourceEvent::CaughtUp { split }).unwrap();
    }

    fn ended(&self, split: usize) {
        self.0.send(SourceEvent::Ended { split }).unwrap();
    }
}

impl Scripted {
    fn new(splits: usize, subtasks: usize) -> (Arc<Self>, Vec<Line>) {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..subtasks).map(|_| mpsc::unbounded_channel()).unzip();
        let source = Scripted { splits, lines: Mutex::new(receivers.into_iter().rev().collect()) };
        (Arc::new(source), senders.into_iter().map(Line).collect())
    }
}

#[async_trait]
impl Source for Scripted {
    fn describe(&self) -> String {
        "Scripted".to_owned()
    }

    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn is_bounded(&self) -> bool {
        false
    }

    async fn enumerate(&self, known: KnownSplits) -> Result<Enumeration> {
        Ok(known.of((0..self.splits).map(|split| SplitId(format!("{split}"))), "scripted")?.into())
    }

    async fn open(&self, _: Vec<SplitStart>, _: SourceContext) -> Result<Box<dyn SourceReader>> {
        let events = self.lines.lock().pop().expect("a line for each subtask");
        Ok(Box::new(ScriptedReader { events }))
    }
}

struct ScriptedReader {
    events: mpsc::UnboundedReceiver<SourceEvent>,
}

#[async_trait]
impl SourceReader for ScriptedReader {
    async fn next(&mut self) -> Result<SourceEvent> {
        match self.events.recv().await {
            Some(event) => Ok(event),
            None => std::future::pending().await,
        }
    }

    fn position(&self, _: usize) -> Bytes {
        Bytes::new()
    }
}

/// A source with event time, whose splits are idle as soon as they are caught up.
fn timed<'a>(builder: &'a GraphBuilder, name: &str, source: Arc<Scripted>, group: Option<&str>) -> Flow<'a> {
    let flow = builder.source(name, source).unwrap().event_time("time", Duration::ZERO).unwrap();
    let alignment = group.map(|group| Alignment { group: group.into(), max_drift: Duration::from_millis(100) });
    flow.adjust_event_time(|time| (time.idle_timeout, time.alignment) = (Some(Duration::ZERO), alignment)).unwrap()
}

fn record(flow: Flow<'_>) -> Recorder {
    let recorder = Recorder::default();
    flow.then(Arc::new(recorder.clone())).unwrap().sink("out", Arc::new(MemorySink::default())).unwrap();
    recorder
}

#[tokio::test]
async fn an_idle_input_that_brings_rows_holds_event_time_back_again() {
    for passes in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (a, a_says) = Scripted::new(1, 1);
        let (b, b_says) = Scripted::new(1, 1);
        let (a_says, b_says) = (&a_says[0], &b_says[0]);
        let builder = GraphBuilder::new(1);
        // Where no row passes, only the mark says that the input is active.
        let a = timed(&builder, "a", a, None).filter(col("value").lt(lit(if passes { 100i64 } else { 0 }))).unwrap();
        let recorder = record(a.union(timed(&builder, "b", b, None)).unwrap());
        let job = launch(spec(builder.finish().unwrap()), environment(folder.path())).unwrap();

        a_says.rows(0, &[(Some(10), 1)]);
        b_says.rows(0, &[(Some(20), 2)]);
        recorder.until(&job, Seen::Watermark(10)).await;
        a_says.caught_up(0);
        recorder.until(&job, Seen::Watermark(20)).await;
        // Not later than what came before: no watermark follows these rows.
        a_says.rows(0, &[(Some(5), 3)]);
        if passes {
            recorder.until(&job, Seen::Value(3)).await;
        } else {
            let read =
                || job.status().subtasks.iter().filter(|of| of.operator.0 == 0).any(|of| of.figures.rows_in() == 2);
            while !read() {
                tokio::task::yield_now().await;
            }
        }
        b_says.rows(0, &[(Some(40), 4)]);
        b_says.rows(0, &[(Some(40), 5)]);
        recorder.until(&job, Seen::Value(5)).await;
        assert_eq!(recorder.watermarks(), [10, 20], "rows pass: {passes}");
        a_says.rows(0, &[(Some(30), 6)]);
        recorder.until(&job, Seen::Watermark(30)).await;
        // The other way round: `b` holds the watermark back until it is idle.
        a_says.rows(0, &[(Some(60), 7)]);
        recorder.until(&job, Seen::Watermark(40)).await;
        b_says.caught_up(0);
        recorder.until(&job, Seen::Watermark(60)).await;
        assert_eq!(recorder.watermarks(), [10, 20, 30, 40, 60]);
    }
}

#[tokio::test]
async fn an_input_that_has_ended_does_not_let_event_time_run_while_the_other_is_idle() {
    let folder = tempfile::tempdir().unwrap();
    let (a, a_says) = Scripted::new(1, 1);
    let (b, b_says) = Scripted::new(1, 1);
    let builder = GraphBuilder::new(1);
    let recorder = record(timed(&builder, "a", a, None).union(timed(&builder, "b", b, None)).unwrap());
    let job = launch(spec(builder.finish().unwrap()), environment(folder.path())).unwrap();
    a_says[0].rows(0, &[(Some(10), 1)]);
    b_says[0].rows(0, &[(Some(20), 2)]);
    a_says[0].caught_up(0);
    recorder.until(&job, Seen::Watermark(20)).await;
    b_says[0].ended(0);
    // The end of an input is known to have come once the job has nothing left to do for it.
    let ended =
        || job.status().subtasks.iter().any(|of| of.operator.0 == 1 && of.figures.watermark() == Some(Timestamp::MAX));
    while !ended() {
        tokio::task::yield_now().await;
    }
    a_says[0].rows(0, &[(Some(30), 3)]);
    recorder.until(&job, Seen::Watermark(30)).await;
    assert_eq!(recorder.watermarks(), [10, 20, 30]);
    a_says[0].ended(0);
    assert!(matches!(job.outcome().await, JobOutcome::Finished));
    assert_eq!(recorder.watermarks(), [10, 20, 30, i64::MAX]);
}

#[tokio::test]
async fn an_idle_split_that_brings_rows_holds_its_source_back_again() {
    let folder = tempfile::tempdir().unwrap();
    let (source, says) = Scripted::new(2, 1);
    let builder = GraphBuilder::new(1);
    let recorder = record(timed(&builder, "in", source, None));
    let job = launch(spec(builder.finish().unwrap()), environment(folder.path())).unwrap();
    let says = &says[0];
    says.rows(0, &[(Some(10), 1)]);
    says.rows(1, &[(Some(20), 2)]);
    says.caught_up(0);
    recorder.until(&job, Seen::Watermark(20)).await;
    // Rows without a time wake it as well.
    says.rows(0, &[(None, 3)]);
    says.rows(1, &[(Some(40), 4)]);
    recorder.until(&job, Seen::Value(4)).await;
    says.rows(0, &[(Some(30), 5)]);
    recorder.until(&job, Seen::Watermark(30)).await;
    // A split becomes idle also while another one always has the next rows ready.
    says.caught_up(0);
    (50..60).for_each(|at| says.rows(1, &[(Some(at), at)]));
    recorder.until(&job, Seen::Watermark(59)).await;
    let watermarks = recorder.watermarks();
    assert_eq!(watermarks[..4], [10, 20, 30, 40]);
    assert!(watermarks.contains(&50), "idle before all was read: {watermarks:?}");
}

#[tokio::test]
async fn an_idle_split_that_brings_rows_holds_its_alignment_group_back_again() {
    let folder = tempfile::tempdir().unwrap();
    let (a, a_says) = Scripted::new(1, 1);
    let (b, b_says) = Scripted::new(1, 1);
    let builder = GraphBuilder::new(1);
    let (a, b) = (timed(&builder, "a", a, Some("g")), timed(&builder, "b", b, Some("g")));
    let recorder = record(a.union(b).unwrap());
    let job = launch(spec(builder.finish().unwrap()), environment(folder.path())).unwrap();
    let is_paused = |operator: u32| {
        let subtasks = job.status().subtasks;
        subtasks.iter().any(|of| of.operator.0 == operator && of.splits.iter().any(|split| split.is_paused))
    };
    let (a_says, b_says) = (&a_says[0], &b_says[0]);
    a_says.rows(0, &[(Some(10), 1)]);
    b_says.rows(0, &[(Some(20), 2)]);
    recorder.until(&job, Seen::Watermark(10)).await;
    a_says.caught_up(0);
    b_says.rows(0, &[(Some(500), 3)]);
    b_says.rows(0, &[(Some(510), 4)]);
    recorder.until(&job, Seen::Value(4)).await;
    // It stands at 10 again, though its row has no time: what is at 510 is too far ahead.
    a_says.rows(0, &[(None, 5)]);
    while !is_paused(1) {
        tokio::task::yield_now().await;
    }
    a_says.rows(0, &[(Some(505), 6)]);
    b_says.rows(0, &[(Some(520), 7)]);
    recorder.until(&job, Seen::Value(7)).await;
}

#[tokio::test]
async fn event_time_goes_on_after_a_restart_though_a_split_never_brought_a_row() {
    let folder = tempfile::tempdir().unwrap();
    let start = |subtasks: usize| {
        let (source, says) = Scripted::new(2, subtasks);
        let builder = GraphBuilder::new(subtasks as u32);
        let recorder = record(timed(&builder, "in", source, None).parallelism(1));
        let job = launch(spec(builder.finish().unwrap()), environment(folder.path())).unwrap();
        (job, recorder, says)
    };
    let stop = async |job: JobHandle| {
        job.stop();
        assert!(matches!(job.outcome().await, JobOutcome::Stopped(_)));
    };
    let (job, recorder, says) = start(1);
    says[0].rows(0, &[(Some(50), 1)]);
    says[0].caught_up(1);
    recorder.until(&job, Seen::Watermark(50)).await;
    stop(job).await;

    // At another parallelism, with a split for each subtask.
    let (job, recorder, says) = start(2);
    recorder.until(&job, Seen::Watermark(50)).await;
    let sources = job.status().subtasks.into_iter().filter(|of| of.operator.0 == 0);
    assert!(
        sources.into_iter().all(|of| of.figures.watermark() == Some(Timestamp(50))),
        "before its first row it is known, too"
    );
    // The split that has brought nothing holds event time, where it is: nothing goes back.
    says[0].rows(0, &[(Some(60), 2)]);
    recorder.until(&job, Seen::Value(2)).await;
    says[1].rows(0, &[(Some(40), 3)]);
    recorder.until(&job, Seen::Value(3)).await;
    says[1].rows(0, &[(Some(55), 4)]);
    recorder.until(&job, Seen::Watermark(55)).await;
    assert_eq!(recorder.watermarks(), [50, 55]);
    stop(job).await;

    let (job, recorder, _says) = start(1);
    recorder.until(&job, Seen::Watermark(55)).await;
    assert_eq!(recorder.watermarks(), [55]);
    stop(job).await;
}

/// The machine's clock, which breaks once.
#[derive(Debug, Default)]
struct BreakingClock {
    is_broken: AtomicBool,
}

impl Clock for BreakingClock {
    fn now(&self) -> Timestamp {
        assert!(!self.is_broken.swap(false, Ordering::SeqCst), "the clock broke");
        coulee_model::SystemClock.now()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_the_driver_is_a_failure_with_its_cause_and_the_next_attempt_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (source, says) = Scripted::new(1, 1);
    let builder = GraphBuilder::new(1);
    let recorder = record(builder.source("in", source).unwrap());
    let clock = Arc::new(BreakingClock::default());
    let environment_of = || Environment { clock: clock.clone(), ..environment(folder.path()) };
    let job = launch(spec(builder.finish().unwrap()), environment_of()).unwrap();
    recorder.0.lock().clear();
    says[0].rows(0, &[(None, 1)]);
    recorder.until(&job, Seen::Value(1)).await;
    // The driver asks it when it writes the next checkpoint.
    clock.is_broken.store(true, Ordering::SeqCst);
    says[0].rows(0, &[(None, 2)]);
    let JobOutcome::Failed(error) = job.outcome().await else { panic!("{:?}", job.outcome().await) };
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.to_string().contains("the clock broke"), "{error}");
    drop(job);
    // The same job, as a checkpoint may have been taken before.
    let (source, says) = Scripted::new(1, 1);
    let builder = GraphBuilder::new(1);
    record(builder.source("in", source).unwrap());
    says[0].ended(0);
    finish(builder.finish().unwrap(), folder.path()).await;
}
