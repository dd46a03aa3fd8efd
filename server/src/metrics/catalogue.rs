//! Every metric there is. `docs/metrics.md` is this list for people; a test compares them.
//!
//! A metric of operators is declared where it is counted (`coulee_runtime::metrics::Definition`) and listed here with `of`: that is all it takes to show it.

use coulee_connectors::filesystem;
use coulee_runtime::metrics::{Definition, Merge, builtin};

/// What Prometheus may do with a metric's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It only grows, but for a restart.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// A metric. Units are Prometheus' base units: seconds, bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) labels: &'static [&'static str],
    pub(crate) help: &'static str,
    /// What it shows of every subtask that counts it.
    pub(crate) of: Option<&'static Definition>,
}

/// How the values of subtasks become one, by the name of the runtime's metric. Those that nobody listed are added up.
pub(crate) fn merge_of(name: &str) -> Merge {
    let definitions = ALL.iter().filter_map(|metric| metric.of);
    definitions.into_iter().find(|of| of.name == name).map_or(Merge::Sum, |of| of.merge)
}

impl Kind {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        }
    }
}

const JOB: &[&str] = &["job"];
const REJECTIONS: &[&str] = &["job", "table", "stage"];
const SUBTASK: &[&str] = &["job", "operator", "subtask"];
const SPLIT: &[&str] = &["job", "operator", "subtask", "split"];
const SHARD: &[&str] = &["stream", "shard"];

macro_rules! metrics {
    // `ID of definition: …` shows what subtasks count under that definition; `ID: …` is filled in by hand.
    ($($id:ident $(of $definition:path)?: $kind:ident $name:literal, $labels:expr, $help:literal;)*) => {
        $(pub(crate) static $id: Metric =
            Metric { name: $name, kind: Kind::$kind, labels: $labels, help: $help, of: [$(Some(&$definition),)? None][0] };)*

        /// All of them, in the order in which they are written.
        pub(crate) static ALL: &[&Metric] = &[$(&$id),*];
    };
}

metrics! {
    BUILD_INFO: Gauge "coulee_build_info", &["version"], "1, labelled with the version that runs.";

    JOB_STATE: Gauge "coulee_job_state", &["job", "state"], "1 for the state that the job is in, 0 for the others.";
    JOB_STARTS: Counter "coulee_job_starts_total", JOB, "How many times the job was started.";
    JOB_RESTARTS: Counter "coulee_job_restarts_total", JOB, "Of those, starts that followed a failure by themselves.";
    JOB_LAST_FAILURE: Gauge "coulee_job_last_failure_timestamp_seconds", JOB, "When the job last failed and was to be started again.";
    JOB_SILENCE_FINDINGS: Gauge "coulee_job_silence_findings", JOB, "How many reasons job show finds for the job's delivering nothing; 0 while it delivers.";
    JOB_STARTED: Gauge "coulee_job_started_timestamp_seconds", JOB, "When the job was last started.";
    JOB_LAST_READ: Gauge "coulee_job_last_read_timestamp_seconds", JOB, "When a source last read a record, since that start.";
    JOB_LAST_DELIVERY: Gauge "coulee_job_last_delivery_timestamp_seconds", JOB, "When a sink last made a row visible, since that start.";
    JOB_REJECTED: Counter "coulee_job_rejected_rows_total", REJECTIONS, "Records and rows of a table that were rejected at a stage: decode, expression or delivery.";

    CHECKPOINTS: Counter "coulee_checkpoints_total", JOB, "Checkpoints that became durable since the job was started.";
    CHECKPOINT_TIME: Gauge "coulee_checkpoint_timestamp_seconds", JOB, "When the last checkpoint became durable.";
    CHECKPOINT_INTERVAL: Gauge "coulee_checkpoint_interval_seconds", JOB, "How often a checkpoint is taken.";
    CHECKPOINT_DURATION: Gauge "coulee_checkpoint_duration_seconds", JOB, "The last checkpoint, from its trigger to its durability.";
    CHECKPOINT_ALIGNMENT: Gauge "coulee_checkpoint_alignment_seconds", JOB, "Of that, until every subtask had passed the barrier on.";
    CHECKPOINT_WRITE: Gauge "coulee_checkpoint_write_seconds", JOB, "Of that, the synced write.";
    CHECKPOINT_SIZE: Gauge "coulee_checkpoint_size_bytes", JOB, "Bytes that the last checkpoint wrote.";

    SNAPSHOT_TIME: Gauge "coulee_snapshot_timestamp_seconds", JOB, "When the last snapshot was complete in the object store.";
    SNAPSHOT_DURATION: Gauge "coulee_snapshot_duration_seconds", JOB, "From the start of that snapshot's links to its manifest.";
    SNAPSHOT_SIZE: Gauge "coulee_snapshot_size_bytes", JOB, "Bytes that it refers to.";
    SNAPSHOT_UPLOADED: Gauge "coulee_snapshot_uploaded_bytes", JOB, "Of those, bytes that had to be uploaded.";
    SNAPSHOT_FAILED: Gauge "coulee_snapshot_failed", JOB, "1 when the last snapshot was not taken.";

    STATE_MEMORY of builtin::STATE_BYTES: Gauge "coulee_state_memory_bytes", SUBTASK, "State held in memory.";
    STATE_BUDGET: Gauge "coulee_state_memory_budget_bytes", JOB, "What the state of the job may take in memory.";
    STATE_STORED: Gauge "coulee_state_stored_bytes", JOB, "State on the disk, roughly.";

    ROWS_IN of builtin::ROWS_IN: Counter "coulee_operator_rows_in_total", SUBTASK, "Rows taken in.";
    ROWS_OUT of builtin::ROWS_OUT: Counter "coulee_operator_rows_out_total", SUBTASK, "Rows given on.";
    BYTES_IN of builtin::BYTES_IN: Counter "coulee_operator_in_bytes_total", SUBTASK, "Bytes of rows taken in, as columns in memory.";
    BYTES_OUT of builtin::BYTES_OUT: Counter "coulee_operator_out_bytes_total", SUBTASK, "Bytes of rows given on.";
    BUSY of builtin::BUSY: Counter "coulee_operator_busy_seconds_total", SUBTASK, "Time spent working since the start.";
    BACKPRESSURED of builtin::BLOCKED: Counter "coulee_operator_backpressured_seconds_total", SUBTASK, "Time spent waiting for room downstream since the start.";
    IDLE of builtin::IDLE: Counter "coulee_operator_idle_seconds_total", SUBTASK, "Time spent waiting for input since the start.";
    ALIGNMENT of builtin::ALIGNMENT: Gauge "coulee_operator_alignment_seconds", SUBTASK, "How long the last barrier waited from the first input that brought it to the last.";
    WATERMARK of builtin::WATERMARK: Gauge "coulee_operator_watermark_timestamp_seconds", SUBTASK, "The event time reached; +Inf at the end of the input.";
    WATERMARK_LAG: Gauge "coulee_operator_watermark_lag_seconds", SUBTASK, "How far the event time reached is behind the wall clock.";
    NEXT_RESULT of builtin::NEXT_RESULT: Gauge "coulee_operator_next_result_timestamp_seconds", SUBTASK, "What the watermark must pass for the first open window to give its result.";
    LATE_ROWS of builtin::LATE_ROWS: Counter "coulee_operator_late_rows_total", SUBTASK, "Rows whose window had already left.";
    TIMELESS_ROWS of builtin::TIMELESS_ROWS: Counter "coulee_operator_timeless_rows_total", SUBTASK, "Rows without an event time.";
    REJECTED_RECORDS of builtin::REJECTED_ROWS: Counter "coulee_operator_rejected_records_total", SUBTASK, "Records that could not become rows, and rows that failed.";

    SOURCE_LAG of builtin::LAG: Gauge "coulee_source_lag_records", SUBTASK, "Records still to read, where that is known.";
    SPLIT_WATERMARK: Gauge "coulee_split_watermark_timestamp_seconds", SPLIT, "The event time that a split which has not ended has reached.";
    SPLIT_IDLE: Gauge "coulee_split_idle", SPLIT, "1 when the split has brought nothing for so long that it holds back event time no more.";
    SPLIT_PAUSED: Gauge "coulee_split_paused", SPLIT, "1 when the split is not read, as it is too far ahead of the others.";

    DELIVERED_ROWS of builtin::DELIVERED_ROWS: Counter "coulee_sink_delivered_rows_total", SUBTASK, "Rows that a sink made visible.";
    DELIVERED_OBJECTS of builtin::DELIVERED_OBJECTS: Counter "coulee_sink_delivered_objects_total", SUBTASK, "Objects that a sink made visible.";
    DELIVERED_BYTES of builtin::DELIVERED_BYTES: Counter "coulee_sink_delivered_bytes_total", SUBTASK, "Bytes of those objects.";
    DELIVERING of builtin::DELIVERING: Gauge "coulee_sink_delivering_seconds", SUBTASK, "For how long a sink has been making a checkpoint visible; no sample while it does not.";
    OPEN_FILES of filesystem::OPEN_FILES: Gauge "coulee_sink_open_files", SUBTASK, "Files of a filesystem sink that take rows or are being made into objects.";

    STREAM_EARLIEST: Gauge "coulee_stream_earliest_sequence", SHARD, "The sequence number of the shard's first record that is kept.";
    STREAM_END: Gauge "coulee_stream_end_sequence", SHARD, "The sequence number that the shard's next record gets.";
    STREAM_SIZE: Gauge "coulee_stream_size_bytes", SHARD, "Bytes of the shard on the disk.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The rows of the page's tables, in order.
    fn documented() -> Vec<String> {
        let root = std::env::var("CARGO_MANIFEST_DIR").unwrap();
        let page = std::fs::read_to_string(format!("{root}/../docs/metrics.md")).unwrap();
        page.lines().filter(|line| line.starts_with("| `coulee_")).map(str::to_owned).collect()
    }

    #[test]
    fn the_page_lists_every_metric() {
        let row = |metric: &&Metric| {
            format!("| `{}` | {} | {} | {} |", metric.name, metric.kind.word(), metric.labels.join(", "), metric.help)
        };
        let expected: Vec<String> = ALL.iter().map(row).collect();
        assert_eq!(
            documented().join("\n"),
            expected.join("\n"),
            "docs/metrics.md must have these rows:\n{}",
            expected.join("\n")
        );
    }

    #[test]
    fn names_follow_prometheus_rules() {
        let names: BTreeSet<&str> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len(), "a name is used twice");
        for metric in ALL {
            assert!(metric.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", metric.name);
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            for unit in ["_ms", "_millis", "_kb", "_percent"] {
                assert!(!metric.name.contains(unit), "{} is not in a base unit", metric.name);
            }
        }
    }
}
