//! A job's figures, to and from the messages of the protocol.

use std::time::Duration;

use coulee_model::{CheckpointId, Timestamp};

use super::{some_text, some_time, time};
use crate::rpc::proto;
use crate::{Figures, Operator, OperatorKind, Progress, Rates, Rejection, Snapshot, Split, Stage, Subtask};

fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

impl From<Progress> for proto::Progress {
    fn from(progress: Progress) -> Self {
        proto::Progress {
            bounded: progress.bounded,
            started_at_ms: time(progress.started_at),
            elapsed_ms: millis(progress.elapsed),
            rows_read: progress.rows_read,
            rows_restored: progress.rows_restored,
            rows_written: progress.rows_written,
            objects: progress.objects,
            object_bytes: progress.object_bytes,
            late_rows: progress.late_rows,
            timeless_rows: progress.timeless_rows,
            rejected_rows: progress.rejected_rows,
            last_reject: progress.last_reject.unwrap_or_default(),
            rejected_to: progress.rejected_to.unwrap_or_default(),
            late_to: progress.late_to.unwrap_or_default(),
            lag: progress.lag,
            watermark_ms: progress.watermark.map(Timestamp::millis),
            state_bytes: progress.state_bytes,
            stored_bytes: progress.stored_bytes,
            checkpoint: progress.checkpoint.0,
            checkpoint_at_ms: time(progress.checkpoint_at),
            checkpoint_took_ms: millis(progress.checkpoint_took),
            operators: progress.operators.into_iter().map(proto::Operator::from).collect(),
            at_ms: time(progress.at),
            read_at_ms: time(progress.read_at),
            delivered_at_ms: time(progress.delivered_at),
            memory_budget_bytes: progress.memory_budget_bytes,
            checkpoint_alignment_ms: millis(progress.checkpoint_alignment),
            checkpoint_write_ms: millis(progress.checkpoint_write),
            checkpoint_bytes: progress.checkpoint_bytes,
            checkpoints: progress.checkpoints,
            checkpoint_interval_ms: millis(progress.checkpoint_interval),
            snapshot: progress.snapshot.map(proto::Snapshot::from),
            snapshot_failure: progress.snapshot_failure.unwrap_or_default(),
            snapshot_since_ms: time(progress.snapshot_since),
            is_opening: progress.is_opening,
            rejections: progress.rejections.into_iter().map(proto::Rejection::from).collect(),
        }
    }
}

impl From<proto::Progress> for Progress {
    fn from(progress: proto::Progress) -> Self {
        Progress {
            at: some_time(progress.at_ms),
            bounded: progress.bounded,
            started_at: some_time(progress.started_at_ms),
            elapsed: Duration::from_millis(progress.elapsed_ms),
            rows_read: progress.rows_read,
            rows_restored: progress.rows_restored,
            rows_written: progress.rows_written,
            objects: progress.objects,
            object_bytes: progress.object_bytes,
            late_rows: progress.late_rows,
            timeless_rows: progress.timeless_rows,
            rejected_rows: progress.rejected_rows,
            last_reject: some_text(progress.last_reject),
            rejected_to: some_text(progress.rejected_to),
            rejections: progress.rejections.into_iter().map(Rejection::from).collect(),
            late_to: some_text(progress.late_to),
            lag: progress.lag,
            watermark: progress.watermark_ms.map(Timestamp),
            read_at: some_time(progress.read_at_ms),
            delivered_at: some_time(progress.delivered_at_ms),
            state_bytes: progress.state_bytes,
            memory_budget_bytes: progress.memory_budget_bytes,
            stored_bytes: progress.stored_bytes,
            checkpoint: CheckpointId(progress.checkpoint),
            checkpoint_at: some_time(progress.checkpoint_at_ms),
            checkpoint_took: Duration::from_millis(progress.checkpoint_took_ms),
            checkpoint_alignment: Duration::from_millis(progress.checkpoint_alignment_ms),
            checkpoint_write: Duration::from_millis(progress.checkpoint_write_ms),
            checkpoint_bytes: progress.checkpoint_bytes,
            checkpoints: progress.checkpoints,
            checkpoint_interval: Duration::from_millis(progress.checkpoint_interval_ms),
            snapshot: progress.snapshot.map(Snapshot::from),
            snapshot_failure: some_text(progress.snapshot_failure),
            snapshot_since: some_time(progress.snapshot_since_ms),
            is_opening: progress.is_opening,
            operators: progress.operators.into_iter().map(Operator::from).collect(),
        }
    }
}

impl From<Rejection> for proto::Rejection {
    fn from(rejection: Rejection) -> Self {
        proto::Rejection {
            table: rejection.table,
            stage: rejection.stage.name().to_owned(),
            rows: rejection.rows,
            last_reason: rejection.last_reason,
            kept: rejection.kept.unwrap_or_default(),
        }
    }
}

impl From<proto::Rejection> for Rejection {
    fn from(rejection: proto::Rejection) -> Self {
        // A stage that a newer server knows is one of the expressions' for us.
        let stage = Stage::ALL.into_iter().find(|stage| stage.name() == rejection.stage).unwrap_or(Stage::Expression);
        Rejection {
            table: rejection.table,
            stage,
            rows: rejection.rows,
            last_reason: rejection.last_reason,
            kept: some_text(rejection.kept),
        }
    }
}

impl From<Snapshot> for proto::Snapshot {
    fn from(snapshot: Snapshot) -> Self {
        proto::Snapshot {
            checkpoint: snapshot.checkpoint.0,
            at_ms: snapshot.at.millis(),
            took_ms: millis(snapshot.took),
            size_bytes: snapshot.bytes,
            uploaded_bytes: snapshot.uploaded_bytes,
        }
    }
}

impl From<proto::Snapshot> for Snapshot {
    fn from(snapshot: proto::Snapshot) -> Self {
        Snapshot {
            checkpoint: CheckpointId(snapshot.checkpoint),
            at: Timestamp(snapshot.at_ms),
            took: Duration::from_millis(snapshot.took_ms),
            bytes: snapshot.size_bytes,
            uploaded_bytes: snapshot.uploaded_bytes,
        }
    }
}

impl From<Operator> for proto::Operator {
    fn from(operator: Operator) -> Self {
        let kind = match operator.kind {
            OperatorKind::Source => "source",
            OperatorKind::Operator => "operator",
            OperatorKind::Sink => "sink",
            OperatorKind::SideSink => "side_sink",
        };
        proto::Operator {
            uid: operator.uid,
            description: operator.description,
            parallelism: operator.parallelism,
            kind: kind.to_owned(),
            has_event_time: operator.has_event_time,
            commits_on_snapshot: operator.commits_on_snapshot,
            inputs: operator.inputs,
            figures: Some(to_message(&operator.figures, operator.last_reject)),
            rates: Some(operator.rates.into()),
            holding_since_ms: time(operator.holding_since),
            subtasks: operator.subtasks.into_iter().map(proto::Subtask::from).collect(),
        }
    }
}

impl From<proto::Operator> for Operator {
    fn from(operator: proto::Operator) -> Self {
        let kind = match operator.kind.as_str() {
            "source" => OperatorKind::Source,
            "sink" => OperatorKind::Sink,
            "side_sink" => OperatorKind::SideSink,
            _ => OperatorKind::Operator,
        };
        let (figures, last_reject) = of_message(operator.figures);
        Operator {
            uid: operator.uid,
            description: operator.description,
            parallelism: operator.parallelism,
            kind,
            has_event_time: operator.has_event_time,
            commits_on_snapshot: operator.commits_on_snapshot,
            inputs: operator.inputs,
            figures,
            last_reject,
            rates: operator.rates.map(Rates::from).unwrap_or_default(),
            holding_since: some_time(operator.holding_since_ms),
            subtasks: operator.subtasks.into_iter().map(Subtask::from).collect(),
        }
    }
}

/// The message, with why the last rejected record was rejected.
fn to_message(figures: &Figures, last_reject: Option<String>) -> proto::Figures {
    let values = figures.iter().map(|(name, value)| (name.to_owned(), value)).collect();
    proto::Figures { values, last_reject: last_reject.unwrap_or_default() }
}

fn of_message(figures: Option<proto::Figures>) -> (Figures, Option<String>) {
    let proto::Figures { values, last_reject } = figures.unwrap_or_default();
    (values.into_iter().collect(), some_text(last_reject))
}

impl From<Rates> for proto::Rates {
    fn from(rates: Rates) -> Self {
        proto::Rates {
            rows_in_per_second: rates.rows_in,
            rows_out_per_second: rates.rows_out,
            bytes_in_per_second: rates.bytes_in,
            bytes_out_per_second: rates.bytes_out,
            busy: rates.busy,
            blocked: rates.blocked,
        }
    }
}

impl From<proto::Rates> for Rates {
    fn from(rates: proto::Rates) -> Self {
        Rates {
            rows_in: rates.rows_in_per_second,
            rows_out: rates.rows_out_per_second,
            bytes_in: rates.bytes_in_per_second,
            bytes_out: rates.bytes_out_per_second,
            busy: rates.busy,
            blocked: rates.blocked,
        }
    }
}

impl From<Subtask> for proto::Subtask {
    fn from(subtask: Subtask) -> Self {
        let splits = subtask.splits.into_iter().map(proto::Split::from).collect();
        proto::Subtask { figures: Some(to_message(&subtask.figures, subtask.last_reject)), splits }
    }
}

impl From<proto::Subtask> for Subtask {
    fn from(subtask: proto::Subtask) -> Self {
        let (figures, last_reject) = of_message(subtask.figures);
        Subtask { figures, last_reject, splits: subtask.splits.into_iter().map(Split::from).collect() }
    }
}

impl From<Split> for proto::Split {
    fn from(split: Split) -> Self {
        proto::Split {
            id: split.id,
            watermark_ms: split.watermark.map(Timestamp::millis),
            is_idle: split.is_idle,
            is_ended: split.is_ended,
            is_paused: split.is_paused,
            quiet_since_ms: split.quiet_since.map(Timestamp::millis),
        }
    }
}

impl From<proto::Split> for Split {
    fn from(split: proto::Split) -> Self {
        Split {
            id: split.id,
            watermark: split.watermark_ms.map(Timestamp),
            is_idle: split.is_idle,
            is_ended: split.is_ended,
            is_paused: split.is_paused,
            quiet_since: split.quiet_since_ms.map(Timestamp),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a metric that this crate does not know, too.
    fn figures() -> Figures {
        let values =
            [("rows_in", 1), ("watermark_ms", i64::MAX), ("next_result_ms", -17), ("lag", 0), ("of_its_own", 5)];
        values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn operator() -> Operator {
        let split = Split {
            id: "shard-00003".into(),
            watermark: Some(Timestamp(-1)),
            is_idle: true,
            is_ended: false,
            is_paused: true,
            quiet_since: Some(Timestamp(4)),
        };
        let rates = Rates { rows_in: 1.5, rows_out: 2.5, bytes_in: 3.5, bytes_out: 4.5, busy: 0.25, blocked: 0.5 };
        Operator {
            uid: "scan".into(),
            description: "stream 'a'".into(),
            parallelism: 2,
            kind: OperatorKind::SideSink,
            has_event_time: true,
            commits_on_snapshot: true,
            inputs: vec![0, 2],
            figures: figures(),
            last_reject: Some("a text where a number was expected".into()),
            rates,
            holding_since: Some(Timestamp(6)),
            subtasks: vec![Subtask { figures: figures(), last_reject: Some("no JSON".into()), splits: vec![split] }],
        }
    }

    #[test]
    fn every_figure_survives_the_wire() {
        let progress = Progress {
            at: Some(Timestamp(1)),
            bounded: true,
            started_at: Some(Timestamp(2)),
            elapsed: Duration::from_millis(3),
            rows_read: 4,
            rows_restored: 5,
            rows_written: 6,
            objects: 7,
            object_bytes: 8,
            late_rows: 9,
            timeless_rows: 10,
            rejected_rows: 11,
            last_reject: Some("no JSON".into()),
            rejected_to: Some("a".into()),
            rejections: vec![Rejection {
                table: "t".into(),
                stage: Stage::Delivery,
                rows: 31,
                last_reason: "too long".into(),
                kept: Some("stream 't_dead_letter'".into()),
            }],
            late_to: Some("b".into()),
            lag: Some(12),
            watermark: Some(Timestamp::MAX),
            read_at: Some(Timestamp(13)),
            delivered_at: Some(Timestamp(14)),
            state_bytes: 15,
            memory_budget_bytes: 16,
            stored_bytes: 17,
            checkpoint: CheckpointId(18),
            checkpoint_at: Some(Timestamp(19)),
            checkpoint_took: Duration::from_millis(20),
            checkpoint_alignment: Duration::from_millis(21),
            checkpoint_write: Duration::from_millis(22),
            checkpoint_bytes: 23,
            checkpoints: 24,
            checkpoint_interval: Duration::from_millis(25),
            snapshot: Some(Snapshot {
                checkpoint: CheckpointId(26),
                at: Timestamp(27),
                took: Duration::from_millis(28),
                bytes: 29,
                uploaded_bytes: 30,
            }),
            snapshot_failure: Some("the bucket is gone".into()),
            snapshot_since: Some(Timestamp(22)),
            is_opening: true,
            operators: vec![operator(), Operator { kind: OperatorKind::Source, ..Operator::default() }],
        };
        assert_eq!(Progress::from(proto::Progress::from(progress.clone())), progress);
    }
}
