//! The figures of an operator, of its subtasks and of a source's splits: plain values, as they are shown, stored and sent. Those that are counted go by the
//! names of their metrics ([`Figures`]).

use std::time::Duration;

use coulee_model::{CheckpointId, Timestamp};
use coulee_runtime::job::SnapshotFigures;
pub use coulee_runtime::metrics::Figures;
use coulee_runtime::metrics::{SplitFigures, SubtaskFigures};
use serde::{Deserialize, Serialize};

/// One parallel instance of an operator.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Subtask {
    /// Its figures. Counts include what was counted before a restart; times do not.
    pub figures: Figures,
    /// Why the last rejected record was rejected.
    pub last_reject: Option<String>,
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
    fn from(counted: &SubtaskFigures) -> Self {
        Subtask {
            figures: counted.figures.clone(),
            last_reject: counted.last_reject.clone(),
            splits: counted.splits.iter().map(Split::from).collect(),
        }
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
