//! What a running job counts: plain atomics, updated once per batch, read by whoever shows them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use coulee_model::{OperatorId, Stopwatch, SubtaskIndex, Timestamp};
use parking_lot::Mutex;

/// Counters of one operator's subtask.
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
    rows_in: AtomicU64,
    rows_out: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    late_rows: AtomicU64,
    timeless_rows: AtomicU64,
    rejected_rows: AtomicU64,
    delivered_objects: AtomicU64,
    delivered_rows: AtomicU64,
    delivered_bytes: AtomicU64,
    state_bytes: AtomicU64,
    busy_nanos: AtomicU64,
    blocked_nanos: AtomicU64,
    alignment_nanos: AtomicU64,
    watermark: AtomicI64,
    /// When the first open window closes; `i64::MAX` without one.
    next_result: AtomicI64,
    /// Records that a source has still to read; `u64::MAX` where that is not known.
    lag: AtomicU64,
    /// Since when it waits for room downstream, if it does.
    blocked_since: Mutex<Option<Stopwatch>>,
    /// Since when a sink has been making a checkpoint visible, if it is.
    delivering_since: Mutex<Option<Stopwatch>>,
    last_reject: Mutex<Option<String>>,
    /// Of a source: its splits.
    splits: Mutex<Vec<SplitFigures>>,
}

macro_rules! counter {
    ($($(#[$doc:meta])* $add:ident => $field:ident;)*) => {
        impl SubtaskMetrics {
            $(
                $(#[$doc])*
                pub fn $add(&self, n: u64) {
                    self.$field.fetch_add(n, Relaxed);
                }
            )*
        }
    };
}

counter! {
    /// Rows taken in.
    add_rows_in => rows_in;
    /// Rows given on.
    add_rows_out => rows_out;
    /// Bytes of rows taken in, as columns in memory.
    add_bytes_in => bytes_in;
    /// Bytes of rows given on.
    add_bytes_out => bytes_out;
    /// Rows whose window had already fired.
    add_late_rows => late_rows;
    /// Rows without an event time, which cannot enter a window.
    add_timeless_rows => timeless_rows;
    /// Objects that a buffered sink made visible.
    add_delivered_objects => delivered_objects;
    /// Rows in those objects, or rows that another sink made visible.
    add_delivered_rows => delivered_rows;
    /// Bytes of those objects.
    add_delivered_bytes => delivered_bytes;
    /// Time spent working, in nanoseconds.
    add_busy_nanos => busy_nanos;
}

impl SubtaskMetrics {
    /// Zeroes, before anything ran.
    pub fn new(operator: OperatorId, subtask: SubtaskIndex) -> Self {
        SubtaskMetrics {
            operator,
            subtask,
            events: AtomicU64::new(0),
            waiting: AtomicBool::new(false),
            rows_in: AtomicU64::new(0),
            rows_out: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            late_rows: AtomicU64::new(0),
            timeless_rows: AtomicU64::new(0),
            rejected_rows: AtomicU64::new(0),
            delivered_objects: AtomicU64::new(0),
            delivered_rows: AtomicU64::new(0),
            delivered_bytes: AtomicU64::new(0),
            state_bytes: AtomicU64::new(0),
            busy_nanos: AtomicU64::new(0),
            blocked_nanos: AtomicU64::new(0),
            alignment_nanos: AtomicU64::new(0),
            watermark: AtomicI64::new(i64::MIN),
            next_result: AtomicI64::new(i64::MAX),
            lag: AtomicU64::new(u64::MAX),
            blocked_since: Mutex::new(None),
            delivering_since: Mutex::new(None),
            last_reject: Mutex::new(None),
            splits: Mutex::new(Vec::new()),
        }
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
        self.rejected_rows.fetch_add(n, Relaxed);
        *self.last_reject.lock() = Some(last_reason.to_owned());
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
        self.state_bytes.store(bytes, Relaxed);
    }

    /// The watermark reached.
    pub fn set_watermark(&self, watermark: Timestamp) {
        self.watermark.store(watermark.0, Relaxed);
    }

    /// How long the last barrier waited from the first input that brought it to the last.
    pub fn set_alignment_nanos(&self, nanos: u64) {
        self.alignment_nanos.store(nanos, Relaxed);
    }

    /// The instant that the watermark must pass for the first open window to give its result.
    pub fn set_next_result(&self, at: Option<Timestamp>) {
        self.next_result.store(at.map_or(i64::MAX, |at| at.0), Relaxed);
    }

    /// What the splits of a source have come to.
    pub fn set_splits(&self, splits: Vec<SplitFigures>) {
        *self.splits.lock() = splits;
    }

    /// Records still to read.
    pub fn set_lag(&self, lag: Option<u64>) {
        self.lag.store(lag.unwrap_or(u64::MAX), Relaxed);
    }

    /// The figures now.
    pub fn read(&self) -> SubtaskFigures {
        SubtaskFigures {
            operator: self.operator,
            subtask: self.subtask,
            totals: self.totals(),
            watermark: Timestamp(self.watermark.load(Relaxed)),
            lag: Some(self.lag.load(Relaxed)).filter(|lag| *lag != u64::MAX),
            alignment: Duration::from_nanos(self.alignment_nanos.load(Relaxed)),
            next_result: Some(self.next_result.load(Relaxed)).filter(|at| *at != i64::MAX).map(Timestamp),
            delivering: self.delivering_since.lock().map(|since| since.elapsed()),
            splits: self.splits.lock().clone(),
            last_reject: self.last_reject.lock().clone(),
        }
    }

    /// What adds up over subtasks and survives restarts.
    pub fn totals(&self) -> Totals {
        Totals {
            rows_in: self.rows_in.load(Relaxed),
            rows_out: self.rows_out.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            late_rows: self.late_rows.load(Relaxed),
            timeless_rows: self.timeless_rows.load(Relaxed),
            rejected_rows: self.rejected_rows.load(Relaxed),
            delivered_objects: self.delivered_objects.load(Relaxed),
            delivered_rows: self.delivered_rows.load(Relaxed),
            delivered_bytes: self.delivered_bytes.load(Relaxed),
            state_bytes: self.state_bytes.load(Relaxed),
            busy_nanos: self.busy_nanos.load(Relaxed),
            blocked_nanos: self.blocked(),
        }
    }

    /// Sets the counters that describe data to what they were at a checkpoint, so that a job which was killed
    /// reports each row once.
    pub fn restore(&self, at_checkpoint: &Totals) {
        self.rows_in.store(at_checkpoint.rows_in, Relaxed);
        self.rows_out.store(at_checkpoint.rows_out, Relaxed);
        self.bytes_in.store(at_checkpoint.bytes_in, Relaxed);
        self.bytes_out.store(at_checkpoint.bytes_out, Relaxed);
        self.late_rows.store(at_checkpoint.late_rows, Relaxed);
        self.timeless_rows.store(at_checkpoint.timeless_rows, Relaxed);
        self.rejected_rows.store(at_checkpoint.rejected_rows, Relaxed);
        self.delivered_objects.store(at_checkpoint.delivered_objects, Relaxed);
        self.delivered_rows.store(at_checkpoint.delivered_rows, Relaxed);
        self.delivered_bytes.store(at_checkpoint.delivered_bytes, Relaxed);
    }
}

/// Counters at one moment; each as in [`SubtaskMetrics`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "each is documented where it is counted")]
pub struct Totals {
    pub rows_in: u64,
    pub rows_out: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub late_rows: u64,
    pub timeless_rows: u64,
    pub rejected_rows: u64,
    pub delivered_objects: u64,
    pub delivered_rows: u64,
    pub delivered_bytes: u64,
    pub state_bytes: u64,
    pub busy_nanos: u64,
    pub blocked_nanos: u64,
}

impl Totals {
    /// Adds another subtask's.
    pub fn add(&mut self, other: &Totals) {
        self.rows_in += other.rows_in;
        self.rows_out += other.rows_out;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.late_rows += other.late_rows;
        self.timeless_rows += other.timeless_rows;
        self.rejected_rows += other.rejected_rows;
        self.delivered_objects += other.delivered_objects;
        self.delivered_rows += other.delivered_rows;
        self.delivered_bytes += other.delivered_bytes;
        self.state_bytes += other.state_bytes;
        self.busy_nanos += other.busy_nanos;
        self.blocked_nanos += other.blocked_nanos;
    }
}

/// The figures of one subtask at one moment.
#[derive(Debug, Clone)]
pub struct SubtaskFigures {
    /// Which operator.
    pub operator: OperatorId,
    /// Which of its instances.
    pub subtask: SubtaskIndex,
    /// The counters.
    pub totals: Totals,
    /// The watermark reached; [`Timestamp::MIN`] before the first.
    pub watermark: Timestamp,
    /// Records that a source has still to read, where that is known.
    pub lag: Option<u64>,
    /// How long the last barrier waited from the first input that brought it to the last.
    pub alignment: Duration,
    /// What the watermark must pass for the first open window to give its result; `None` without an open window.
    pub next_result: Option<Timestamp>,
    /// Of a sink: for how long it has been making a checkpoint visible; `None` when it does nothing of the kind.
    pub delivering: Option<Duration>,
    /// Of a source: its splits. Refreshed with every checkpoint, and whenever one becomes idle, is paused, or is read again.
    pub splits: Vec<SplitFigures>,
    /// Why the last rejected record was rejected.
    pub last_reject: Option<String>,
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
