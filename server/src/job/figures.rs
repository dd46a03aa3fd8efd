//! The figures of an operator, of its subtasks and of a source's splits: plain values, as they are shown, stored and sent.

use std::time::Duration;

use coulee_model::{CheckpointId, Timestamp};
use coulee_runtime::job::SnapshotFigures;
use coulee_runtime::metrics::{SplitFigures, SubtaskFigures};
use serde::{Deserialize, Serialize};

/// What a subtask counts, or an operator over its subtasks. Counts include what was counted before a restart; times do not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Figures {
    /// Rows taken in.
    pub rows_in: u64,
    /// Rows given on.
    pub rows_out: u64,
    /// Bytes of rows taken in, as columns in memory.
    pub bytes_in: u64,
    /// Bytes of rows given on.
    pub bytes_out: u64,
    /// Rows whose window had already fired.
    pub late_rows: u64,
    /// Rows without an event time, which cannot enter a window.
    pub timeless_rows: u64,
    /// Records that could not become rows.
    pub rejected_rows: u64,
    /// Objects that a buffered sink made visible.
    pub delivered_objects: u64,
    /// Rows that a sink made visible.
    pub delivered_rows: u64,
    /// Bytes of those objects.
    pub delivered_bytes: u64,
    /// Bytes of state in memory.
    pub state_bytes: u64,
    /// Time spent working; of an operator, over all subtasks.
    pub busy: Duration,
    /// Time spent waiting for room downstream (backpressured); of an operator, over all subtasks.
    pub blocked: Duration,
    /// Time spent waiting for input; of an operator, over all subtasks.
    pub idle: Duration,
    /// How long the last barrier waited from the first input that brought it to the last; of an operator, the longest.
    pub alignment: Duration,
    /// The event time reached; of an operator, the lowest of its subtasks'. `None` before the first.
    pub watermark: Option<Timestamp>,
    /// What the watermark must pass for the first open window to give its result; `None` without an open window.
    pub next_result: Option<Timestamp>,
    /// Records that a source has still to read, where that is known.
    pub lag: Option<u64>,
    /// Why the last rejected record was rejected.
    pub last_reject: Option<String>,
    /// Of a sink: for how long it has been making a checkpoint visible, and nothing else; of an operator, the longest. `None` when it does not.
    pub delivering: Option<Duration>,
}

/// One parallel instance of an operator.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Subtask {
    /// Its figures.
    pub figures: Figures,
    /// Of a source: what it reads.
    pub splits: Vec<Split>,
}

/// What one split of a source has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Split {
    /// Its name: a shard, a file.
    pub id: String,
    /// The event time it has reached; `None` before its first row, and always without event time.
    pub watermark: Option<Timestamp>,
    /// Read to its end for so long that it no longer holds back the watermark.
    pub is_idle: bool,
    /// It has ended.
    pub is_ended: bool,
    /// Not read for now, as it is too far ahead of the others.
    pub is_paused: bool,
    /// Since when its event time has not moved, as far as this process has seen; `None` without event time.
    pub quiet_since: Option<Timestamp>,
}

/// How fast an operator is, over the last seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rates {
    /// Rows taken in per second.
    pub rows_in: f64,
    /// Rows given on per second.
    pub rows_out: f64,
    /// Bytes taken in per second.
    pub bytes_in: f64,
    /// Bytes given on per second.
    pub bytes_out: f64,
    /// The share of the time that a subtask works, on average: 0 to 1.
    pub busy: f64,
    /// The share of the time that a subtask waits for room downstream, on average: 0 to 1.
    pub blocked: f64,
}

/// The last snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Of which checkpoint.
    pub checkpoint: CheckpointId,
    /// When it was complete.
    pub at: Timestamp,
    /// From the start of its links to its manifest.
    pub took: Duration,
    /// Bytes that it refers to.
    pub bytes: u64,
    /// Of those, bytes that had to be uploaded.
    pub uploaded_bytes: u64,
}

impl Figures {
    /// Adds a subtask's to an operator's.
    pub(super) fn add(&mut self, other: &Figures) {
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
        self.busy += other.busy;
        self.blocked += other.blocked;
        self.delivering = self.delivering.max(other.delivering);
        self.idle += other.idle;
        self.alignment = self.alignment.max(other.alignment);
        // A subtask without splits has neither watermark nor lag: those that have one speak for all.
        self.watermark = lowest(self.watermark, other.watermark);
        self.next_result = lowest(self.next_result, other.next_result);
        if let Some(lag) = other.lag {
            self.lag = Some(self.lag.unwrap_or(0) + lag);
        }
        if other.last_reject.is_some() {
            self.last_reject.clone_from(&other.last_reject);
        }
    }
}

/// The lower of two, where there are two.
pub(super) fn lowest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (some, None) | (None, some) => some,
    }
}

fn reached(watermark: Timestamp) -> Option<Timestamp> {
    (watermark > Timestamp::MIN).then_some(watermark)
}

impl From<&SubtaskFigures> for Subtask {
    /// `idle` is left at zero: it needs the time since the start.
    fn from(counted: &SubtaskFigures) -> Self {
        let totals = &counted.totals;
        let figures = Figures {
            rows_in: totals.rows_in,
            rows_out: totals.rows_out,
            bytes_in: totals.bytes_in,
            bytes_out: totals.bytes_out,
            late_rows: totals.late_rows,
            timeless_rows: totals.timeless_rows,
            rejected_rows: totals.rejected_rows,
            delivered_objects: totals.delivered_objects,
            delivered_rows: totals.delivered_rows,
            delivered_bytes: totals.delivered_bytes,
            state_bytes: totals.state_bytes,
            busy: Duration::from_nanos(totals.busy_nanos),
            blocked: Duration::from_nanos(totals.blocked_nanos),
            idle: Duration::ZERO,
            alignment: counted.alignment,
            watermark: reached(counted.watermark),
            next_result: counted.next_result,
            lag: counted.lag,
            last_reject: counted.last_reject.clone(),
            delivering: counted.delivering,
        };
        Subtask { figures, splits: counted.splits.iter().map(Split::from).collect() }
    }
}

impl From<&SplitFigures> for Split {
    fn from(split: &SplitFigures) -> Self {
        Split {
            id: split.id.clone(),
            watermark: reached(split.watermark),
            is_idle: split.is_idle,
            is_ended: split.is_ended,
            is_paused: split.is_paused,
            quiet_since: None,
        }
    }
}

impl From<&SnapshotFigures> for Snapshot {
    fn from(snapshot: &SnapshotFigures) -> Self {
        Snapshot {
            checkpoint: snapshot.checkpoint,
            at: snapshot.at,
            took: snapshot.took,
            bytes: snapshot.bytes,
            uploaded_bytes: snapshot.uploaded_bytes,
        }
    }
}
