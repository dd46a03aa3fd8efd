//! What a running job counts: plain atomics, updated once per batch, read by whoever shows them.
//!
//! A metric is a [`Definition`]: a name, a unit, and how subtasks are merged. The runtime takes those of [`builtin`] of every operator; an operator, a source or a
//! sink declares its own and [registers](SubtaskMetrics::register) them when it is opened. What is read ([`Figures`]) are values by name: whoever stores, sends or
//! shows them knows no single metric.

pub mod builtin;
mod definition;
mod figures;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

use coulee_model::{OperatorId, Stopwatch, SubtaskIndex, Timestamp};
use parking_lot::Mutex;

use crate::row_errors::Stage;

pub use definition::{Definition, Kind, Merge, Unit};
pub use figures::Figures;

/// The value of a metric that has none.
const NONE: i64 = i64::MIN;

/// Where a metric of one subtask is counted.
#[derive(Debug, Clone)]
pub struct Instrument(Arc<AtomicI64>);

impl Instrument {
    fn new(metric: &Definition, restored: &Figures) -> Self {
        let begin = match metric.kind {
            Kind::Counter => restored.get(metric).unwrap_or(0),
            Kind::CounterOfRun => 0,
            Kind::Gauge => NONE,
        };
        Instrument(Arc::new(AtomicI64::new(begin)))
    }

    /// Counts `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n as i64, Relaxed);
    }

    /// Sets the value of a gauge.
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// Leaves a gauge without a value.
    pub fn clear(&self) {
        self.set(NONE);
    }

    fn get(&self) -> Option<i64> {
        Some(self.0.load(Relaxed)).filter(|value| *value != NONE)
    }
}

/// The metrics of one operator's subtask.
#[derive(Debug)]
pub struct SubtaskMetrics {
    /// Which operator.
    pub operator: OperatorId,
    /// Which of its instances.
    pub subtask: SubtaskIndex,
    /// Whatever may have changed state: rows, watermarks, calls by the clock.
    events: AtomicU64,
    /// Whether a sink holds rows that only a later `prepare` delivers.
    waiting: AtomicBool,
    instruments: Mutex<BTreeMap<&'static str, (&'static Definition, Instrument)>>,
    /// What counters were at the checkpoint that the job resumes from.
    restored: Mutex<Figures>,
    rows_in: Instrument,
    rows_out: Instrument,
    bytes_in: Instrument,
    bytes_out: Instrument,
    late_rows: Instrument,
    timeless_rows: Instrument,
    rejected_rows: Instrument,
    state_bytes: Instrument,
    alignment: Instrument,
    watermark: Instrument,
    next_result: Instrument,
    lag: Instrument,
    /// In nanoseconds: most calls take less than the microseconds that are told.
    busy_nanos: AtomicU64,
    blocked_nanos: AtomicU64,
    /// Since when it waits for room downstream, if it does.
    blocked_since: Mutex<Option<Stopwatch>>,
    /// Since when a sink has been making a checkpoint visible, if it is.
    delivering_since: Mutex<Option<Stopwatch>>,
    last_reject: Mutex<Option<String>>,
    /// Rows that failed on their way, by table and stage; part of `rejected_rows`.
    row_errors: Mutex<Vec<RowErrorFigures>>,
    /// Of a source: its splits.
    splits: Mutex<Vec<SplitFigures>>,
}

macro_rules! counter {
    ($($(#[$doc:meta])* $add:ident => $field:ident;)*) => {
        impl SubtaskMetrics {
            $(
                $(#[$doc])*
                pub fn $add(&self, n: u64) {
                    self.$field.add(n);
                }
            )*
        }
    };
}

counter! {
    /// Counts [`builtin::ROWS_IN`].
    add_rows_in => rows_in;
    /// Counts [`builtin::ROWS_OUT`].
    add_rows_out => rows_out;
    /// Counts [`builtin::BYTES_IN`].
    add_bytes_in => bytes_in;
    /// Counts [`builtin::BYTES_OUT`].
    add_bytes_out => bytes_out;
    /// Counts [`builtin::LATE_ROWS`].
    add_late_rows => late_rows;
    /// Counts [`builtin::TIMELESS_ROWS`].
    add_timeless_rows => timeless_rows;
}

impl SubtaskMetrics {
    /// Zeroes, before anything ran.
    pub fn new(operator: OperatorId, subtask: SubtaskIndex) -> Self {
        Self::restored(operator, subtask, Figures::default())
    }

    /// Counters of data at what they were at a checkpoint, so that a job which was killed reports each row once; all others at zero.
    pub fn restored(operator: OperatorId, subtask: SubtaskIndex, restored: Figures) -> Self {
        let mut instruments = BTreeMap::new();
        let mut of = |metric: &'static Definition| {
            let instrument = Instrument::new(metric, &restored);
            instruments.insert(metric.name, (metric, instrument.clone()));
            instrument
        };
        SubtaskMetrics {
            operator,
            subtask,
            events: AtomicU64::new(0),
            waiting: AtomicBool::new(false),
            rows_in: of(&builtin::ROWS_IN),
            rows_out: of(&builtin::ROWS_OUT),
            bytes_in: of(&builtin::BYTES_IN),
            bytes_out: of(&builtin::BYTES_OUT),
            late_rows: of(&builtin::LATE_ROWS),
            timeless_rows: of(&builtin::TIMELESS_ROWS),
            rejected_rows: of(&builtin::REJECTED_ROWS),
            state_bytes: of(&builtin::STATE_BYTES),
            alignment: of(&builtin::ALIGNMENT),
            watermark: of(&builtin::WATERMARK),
            next_result: of(&builtin::NEXT_RESULT),
            lag: of(&builtin::LAG),
            instruments: Mutex::new(instruments),
            restored: Mutex::new(restored),
            busy_nanos: AtomicU64::new(0),
            blocked_nanos: AtomicU64::new(0),
            blocked_since: Mutex::new(None),
            delivering_since: Mutex::new(None),
            last_reject: Mutex::new(None),
            row_errors: Mutex::new(Vec::new()),
            splits: Mutex::new(Vec::new()),
        }
    }

    /// Where a metric is counted from now on: a handle to be kept. Two calls for one metric give the same.
    ///
    /// # Panics
    /// When two metrics have one name.
    pub fn register(&self, metric: &'static Definition) -> Instrument {
        let mut instruments = self.instruments.lock();
        let fresh = || (metric, Instrument::new(metric, &self.restored.lock()));
        let (known, instrument) = instruments.entry(metric.name).or_insert_with(fresh);
        assert_eq!(*known, metric, "two metrics are called '{}'", metric.name);
        instrument.clone()
    }

    /// Counts [`builtin::DELIVERED_OBJECTS`].
    pub fn add_delivered_objects(&self, n: u64) {
        self.register(&builtin::DELIVERED_OBJECTS).add(n);
    }

    /// Counts [`builtin::DELIVERED_ROWS`].
    pub fn add_delivered_rows(&self, n: u64) {
        self.register(&builtin::DELIVERED_ROWS).add(n);
    }

    /// Counts [`builtin::DELIVERED_BYTES`].
    pub fn add_delivered_bytes(&self, n: u64) {
        self.register(&builtin::DELIVERED_BYTES).add(n);
    }

    /// Time spent working, in nanoseconds.
    pub fn add_busy_nanos(&self, n: u64) {
        self.busy_nanos.fetch_add(n, Relaxed);
    }

    /// Something came that may change state.
    pub fn add_event(&self) {
        self.events.fetch_add(1, Relaxed);
    }

    /// How much has come.
    pub(crate) fn events(&self) -> u64 {
        self.events.load(Relaxed)
    }

    /// Whether a sink holds rows that only a later `prepare` delivers.
    pub(crate) fn set_waiting(&self, waiting: bool) {
        self.waiting.store(waiting, Relaxed);
    }

    /// See `set_waiting`.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.load(Relaxed)
    }

    /// Records that could not become rows, and why the last one could not.
    pub fn add_rejected(&self, n: u64, last_reason: &str) {
        self.rejected_rows.add(n);
        *self.last_reject.lock() = Some(last_reason.to_owned());
    }

    /// Rows of a table that failed at a stage, and why the last one did.
    pub fn add_row_errors(&self, table: &str, stage: Stage, n: u64, last_reason: &str) {
        self.add_rejected(n, last_reason);
        let mut errors = self.row_errors.lock();
        match errors.iter_mut().find(|known| known.table == table && known.stage == stage) {
            Some(known) => {
                known.rows += n;
                last_reason.clone_into(&mut known.last_reason);
            }
            None => {
                errors.push(RowErrorFigures {
                    table: table.to_owned(),
                    stage,
                    rows: n,
                    last_reason: last_reason.to_owned(),
                });
            }
        }
    }

    /// Rows that failed on their way, by table and stage.
    pub fn row_errors(&self) -> Vec<RowErrorFigures> {
        self.row_errors.lock().clone()
    }

    /// Counts on from what a checkpoint holds of them.
    pub(crate) fn restore_row_errors(&self, at_checkpoint: Vec<RowErrorFigures>) {
        *self.row_errors.lock() = at_checkpoint;
    }

    /// It begins to send, and may have to wait for room downstream.
    pub fn begin_blocked(&self) {
        *self.blocked_since.lock() = Some(Stopwatch::start());
    }

    /// It has sent.
    pub fn end_blocked(&self) {
        if let Some(since) = self.blocked_since.lock().take() {
            self.blocked_nanos.fetch_add(since.elapsed().as_nanos() as u64, Relaxed);
        }
    }

    /// Also of a wait that has not ended.
    fn blocked(&self) -> u64 {
        let waiting = self.blocked_since.lock().map_or(0, |since| since.elapsed().as_nanos() as u64);
        self.blocked_nanos.load(Relaxed) + waiting
    }

    /// A sink begins to make a checkpoint visible, or has done so.
    pub(crate) fn set_delivering(&self, delivering: bool) {
        *self.delivering_since.lock() = delivering.then(Stopwatch::start);
    }

    /// Bytes of state held now.
    pub fn set_state_bytes(&self, bytes: u64) {
        self.state_bytes.set(bytes as i64);
    }

    /// The watermark reached; [`Timestamp::MIN`] is none.
    pub fn set_watermark(&self, watermark: Timestamp) {
        self.watermark.set(watermark.0);
    }

    /// How long the last barrier waited from the first input that brought it to the last.
    pub fn set_alignment_nanos(&self, nanos: u64) {
        self.alignment.set((nanos / 1_000) as i64);
    }

    /// The instant that the watermark must pass for the first open window to give its result.
    pub fn set_next_result(&self, at: Option<Timestamp>) {
        self.next_result.set(at.map_or(NONE, |at| at.0));
    }

    /// What the splits of a source have come to.
    pub fn set_splits(&self, splits: Vec<SplitFigures>) {
        *self.splits.lock() = splits;
    }

    /// Records still to read.
    pub fn set_lag(&self, lag: Option<u64>) {
        self.lag.set(lag.map_or(NONE, |lag| lag as i64));
    }

    /// The values now.
    pub fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        for (metric, instrument) in self.instruments.lock().values() {
            if let Some(value) = instrument.get() {
                figures.set(metric, value);
            }
        }
        figures.set(&builtin::BUSY, (self.busy_nanos.load(Relaxed) / 1_000) as i64);
        figures.set(&builtin::BLOCKED, (self.blocked() / 1_000) as i64);
        if let Some(since) = *self.delivering_since.lock() {
            figures.set(&builtin::DELIVERING, since.elapsed().as_millis() as i64);
        }
        figures
    }

    /// Of the values now, what a checkpoint holds.
    pub(crate) fn counted(&self) -> CountedRows {
        let mut figures = self.restored.lock().clone();
        for (metric, instrument) in self.instruments.lock().values().filter(|(metric, _)| metric.kind == Kind::Counter)
        {
            if let Some(value) = instrument.get() {
                figures.set(metric, value);
            }
        }
        (self.operator, self.subtask, figures, self.row_errors())
    }

    /// What is known of the subtask now.
    pub fn read(&self) -> SubtaskFigures {
        SubtaskFigures {
            operator: self.operator,
            subtask: self.subtask,
            figures: self.figures(),
            splits: self.splits.lock().clone(),
            last_reject: self.last_reject.lock().clone(),
            row_errors: self.row_errors(),
        }
    }
}

/// What a subtask has counted of data, for a checkpoint, and its rows that failed.
pub(crate) type CountedRows = (OperatorId, SubtaskIndex, Figures, Vec<RowErrorFigures>);

/// What is known of one subtask at one moment.
#[derive(Debug, Clone)]
pub struct SubtaskFigures {
    /// Which operator.
    pub operator: OperatorId,
    /// Which of its instances.
    pub subtask: SubtaskIndex,
    /// The values of its metrics.
    pub figures: Figures,
    /// Of a source: its splits. Refreshed with every checkpoint, and whenever one becomes idle, is paused, or is read again.
    pub splits: Vec<SplitFigures>,
    /// Why the last rejected record was rejected.
    pub last_reject: Option<String>,
    /// Rows that failed on their way, by table and stage; part of the rejected rows among the counters.
    pub row_errors: Vec<RowErrorFigures>,
}

/// How many rows of a table failed at a stage.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RowErrorFigures {
    /// The table that the rows were read from or, at a sink, should be written to.
    pub table: String,
    /// Where they failed.
    pub stage: Stage,
    /// How many.
    pub rows: u64,
    /// Why the last of them did.
    pub last_reason: String,
}

/// What one split of a source has come to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SplitFigures {
    /// The split's name: `shard 3`, a file.
    pub id: String,
    /// The watermark it has reached; [`Timestamp::MIN`] before its first row, and always without event time.
    pub watermark: Timestamp,
    /// Whether it has been read to its end for so long that it no longer holds back the watermark.
    pub is_idle: bool,
    /// Whether it has ended.
    pub is_ended: bool,
    /// Whether it is not read for now, as it is too far ahead of the others (`max-drift`).
    pub is_paused: bool,
}

/// The metrics of all subtasks of a job.
pub type JobMetrics = Arc<Vec<Arc<SubtaskMetrics>>>;

#[cfg(test)]
mod tests {
    use super::*;

    static FILES: Definition = Definition::counter("files_read", Unit::Count);
    static OPEN: Definition = Definition::gauge("open_files", Unit::Count, Merge::Sum);

    #[test]
    fn a_metric_that_an_operator_declares_is_read_and_kept_by_its_name() {
        let metrics = SubtaskMetrics::new(OperatorId(1), SubtaskIndex(0));
        let (files, open) = (metrics.register(&FILES), metrics.register(&OPEN));
        assert_eq!((metrics.figures().get(&FILES), metrics.figures().get(&OPEN)), (Some(0), None));
        files.add(3);
        open.set(2);
        metrics.add_rows_in(5);
        metrics.register(&FILES).add(1);
        let figures = metrics.figures();
        assert_eq!((figures.count(&FILES), figures.get(&OPEN), figures.rows_in()), (4, Some(2), 5));
        open.clear();
        assert_eq!(metrics.figures().get(&OPEN), None);

        // A checkpoint holds counters of data, also those of an operator that has not been opened again yet.
        let again = SubtaskMetrics::restored(OperatorId(1), SubtaskIndex(0), metrics.counted().2);
        assert_eq!(again.counted(), metrics.counted());
        assert_eq!(again.figures().get(&FILES), None);
        again.register(&FILES).add(1);
        assert_eq!((again.figures().count(&FILES), again.figures().rows_in()), (5, 5));
        assert_eq!(again.counted().2.get(&OPEN), None);
    }

    #[test]
    #[should_panic(expected = "two metrics are called 'files_read'")]
    fn a_name_is_given_once() {
        static OTHER: Definition = Definition::gauge("files_read", Unit::Bytes, Merge::Sum);
        let metrics = SubtaskMetrics::new(OperatorId(1), SubtaskIndex(0));
        metrics.register(&FILES);
        metrics.register(&OTHER);
    }
}
