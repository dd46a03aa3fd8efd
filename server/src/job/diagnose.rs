//! Why a running job shows no output: the question that every user of a stream processor asks first.
//!
//! [`diagnose`] is a pure function of the job's figures. It looks along the way of a row (source, event time, windows, operators,
//! sink, checkpoint) for what keeps results back, and says what to do about each thing it finds. Several can hold at once.

mod event_time;
mod flow;
mod stuck;

#[cfg(test)]
mod tests;

use std::time::Duration;

use coulee_model::Timestamp;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as ParseError, StrDeserializer};
use serde::{Deserialize, Serialize};

use super::progress::{Operator, OperatorKind, Progress};

/// A job whose sinks delivered something within this time is not asked why it does not.
pub const QUIET: Duration = Duration::from_secs(10);

/// Something that keeps a job from delivering.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which kind of thing.
    pub code: FindingCode,
    /// The uid of the operator that it is about, if it is about one.
    pub operator: Option<String>,
    /// What is so: one sentence, which names the object and gives figures.
    pub message: String,
    /// What to do: one sentence.
    pub advice: String,
}

/// The kinds of findings. The words are stable: programs may go by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingCode {
    /// The job failed and waits to be started again.
    Restarting,
    /// The job has been starting for a while.
    Opening,
    /// The sources have read nothing, or nothing lately.
    NoData,
    /// Every record was rejected.
    Rejected,
    /// Hardly a row has an event time.
    NoEventTime,
    /// One split is far behind the others, and event time goes by the slowest.
    WatermarkHeld,
    /// A split has been quiet for so long that event time goes on without it, or stands still as all are.
    IdleSplit,
    /// A window is still open.
    WindowOpen,
    /// Every row came after its window had left.
    LateRows,
    /// An operator takes rows and gives none on.
    Filtered,
    /// An operator is too slow for those before it.
    Backpressure,
    /// No checkpoint completes: deliveries wait for it.
    CheckpointStuck,
    /// A sink makes a checkpoint visible, and does not get on with it.
    DeliveryStuck,
    /// Rows wait at a sink for the next checkpoint.
    CheckpointDue,
    /// Rows wait at a sink for the next snapshot.
    SnapshotDue,
    /// A snapshot that sinks wait for has been under way for a while.
    SnapshotStuck,
    /// The last snapshot failed: sinks that commit on snapshots wait for it.
    SnapshotFailed,
    /// A sink collects rows until its policy says otherwise.
    SinkBuffers,
}

impl FindingCode {
    /// The word that programs may go by.
    pub fn word(self) -> &'static str {
        match self {
            FindingCode::Restarting => "restarting",
            FindingCode::Opening => "opening",
            FindingCode::NoData => "no-data",
            FindingCode::Rejected => "rejected",
            FindingCode::NoEventTime => "no-event-time",
            FindingCode::WatermarkHeld => "watermark-held",
            FindingCode::IdleSplit => "idle-split",
            FindingCode::WindowOpen => "window-open",
            FindingCode::LateRows => "late-rows",
            FindingCode::Filtered => "filtered",
            FindingCode::Backpressure => "backpressure",
            FindingCode::CheckpointStuck => "checkpoint-stuck",
            FindingCode::DeliveryStuck => "delivery-stuck",
            FindingCode::CheckpointDue => "checkpoint-due",
            FindingCode::SnapshotDue => "snapshot-due",
            FindingCode::SnapshotStuck => "snapshot-stuck",
            FindingCode::SnapshotFailed => "snapshot-failed",
            FindingCode::SinkBuffers => "sink-buffers",
        }
    }

    /// The code of a word; `None` for one that a newer server made.
    pub fn parse(word: &str) -> Option<Self> {
        let word: StrDeserializer<'_, ParseError> = word.into_deserializer();
        FindingCode::deserialize(word).ok()
    }
}

/// What keeps a running job from delivering: first what holds back rows that have come, in the order of their way, and last that nothing comes, as that
/// alone explains no row that is missing. Empty when its sinks delivered something within [`QUIET`] of `now`, and when nothing is to be seen.
pub fn diagnose(progress: &Progress, now: Timestamp) -> Vec<Finding> {
    if progress.delivered_at.is_some_and(|at| since(at, now) < QUIET) {
        return Vec::new();
    }
    if progress.is_opening {
        // Nothing of the rest can be known yet.
        return stuck::opening(progress, now).into_iter().chain(stuck::snapshot(progress, now)).collect();
    }
    let mut findings = Vec::new();
    findings.extend(flow::rejected(progress));
    findings.extend(event_time::timeless(progress));
    findings.extend(event_time::held_back(progress));
    findings.extend(event_time::open_windows(progress));
    findings.extend(event_time::late(progress));
    findings.extend(flow::filtered(progress));
    findings.extend(flow::backpressure(progress));
    let delivery = stuck::delivery(progress);
    if delivery.is_none() {
        findings.extend(flow::checkpoint(progress, now));
    }
    findings.extend(delivery);
    findings.extend(stuck::snapshot(progress, now));
    findings.extend(flow::snapshot(progress));
    findings.extend(flow::buffering(progress));
    findings.extend(event_time::idle_splits(progress));
    findings.extend(flow::no_data(progress, now));
    findings
}

impl Finding {
    fn new(code: FindingCode, operator: Option<&Operator>, message: String, advice: impl Into<String>) -> Self {
        Finding { code, operator: operator.map(|operator| operator.uid.clone()), message, advice: advice.into() }
    }

    /// What is told of a job that waits to be started again.
    pub(super) fn restarting(cause: &str, at: Timestamp) -> Self {
        let message = format!("the job failed and will be started again at {at} UTC: {cause}");
        let advice = "remove the cause; `coulee job cancel` ends the repetitions";
        Finding::new(FindingCode::Restarting, None, message, advice)
    }
}

/// The time from `at` to `now`; none when a clock went back.
fn since(at: Timestamp, now: Timestamp) -> Duration {
    Duration::from_millis(now.0.saturating_sub(at.0).max(0) as u64)
}

/// `'source:flights'`: a uid says itself what it is of.
fn named(operator: &Operator) -> String {
    format!("'{}'", operator.uid)
}

fn sources(progress: &Progress) -> impl Iterator<Item = &Operator> {
    progress.operators.iter().filter(|operator| operator.kind == OperatorKind::Source)
}

fn sinks(progress: &Progress) -> impl Iterator<Item = &Operator> {
    progress.operators.iter().filter(|operator| operator.kind == OperatorKind::Sink)
}
