//! The figures of a job, from the counters of its subtasks and the shape of its graph.

use std::time::{Duration, Instant};

use coulee_model::{CheckpointId, Timestamp};
use coulee_runtime::graph::{Graph, NodeKind, Port};
use coulee_runtime::job::JobStatus;
use coulee_runtime::metrics::{SubtaskFigures, Totals};
use serde::{Deserialize, Serialize};

/// The figures of a job at one moment. Counts include what was counted before a restart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Whether its input ends, so that it finishes by itself.
    pub bounded: bool,
    /// When it was last started; `None` before that.
    pub started_at: Option<Timestamp>,
    /// Since that start.
    pub elapsed: Duration,
    /// Rows that its sources read.
    pub rows_read: u64,
    /// Of those, the rows that were read before this start.
    pub rows_restored: u64,
    /// Rows that its sinks made visible, without those of side outputs.
    pub rows_written: u64,
    /// Objects that its sinks made visible.
    pub objects: u64,
    /// Bytes of those objects.
    pub object_bytes: u64,
    /// Rows whose window had already fired.
    pub late_rows: u64,
    /// Rows without an event time.
    pub timeless_rows: u64,
    /// Records that could not become rows.
    pub rejected_rows: u64,
    /// Why the last of those could not.
    pub last_reject: Option<String>,
    /// Where rejected records are kept.
    pub rejected_to: Option<String>,
    /// Where late rows and rows without event time are kept.
    pub late_to: Option<String>,
    /// Records still to read, where that is known.
    pub lag: Option<u64>,
    /// The lowest watermark of its sources, where one is known.
    pub watermark: Option<Timestamp>,
    /// Bytes of state in memory.
    pub state_bytes: u64,
    /// Bytes of state on disk, roughly.
    pub stored_bytes: u64,
    /// The last durable checkpoint.
    pub checkpoint: CheckpointId,
    /// When it became durable.
    pub checkpoint_at: Option<Timestamp>,
    /// From its trigger to its durability.
    pub checkpoint_took: Duration,
    /// The operators, upstream first.
    pub operators: Vec<Operator>,
}

/// The figures of one operator, over its subtasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Operator {
    /// Its stable name.
    pub uid: String,
    /// What it does, in one line.
    pub description: String,
    /// How many subtasks.
    pub parallelism: u32,
    /// Rows taken in.
    pub rows_in: u64,
    /// Rows given on.
    pub rows_out: u64,
    /// Time spent working, over all subtasks.
    pub busy: Duration,
    /// Time spent waiting for room downstream, over all subtasks.
    pub blocked: Duration,
}

/// What a node is, for its figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Source,
    Operator,
    /// A sink, and which kind of rows it gets.
    Sink(Port),
}

/// What must be known of a graph to read its counters.
#[derive(Debug)]
pub(crate) struct Shape {
    bounded: bool,
    started_at: Timestamp,
    started: Instant,
    rows_restored: u64,
    parts: Vec<Part>,
    nodes: Vec<Operator>,
}

impl Shape {
    /// The shape of a job that starts now with these figures.
    pub(crate) fn new(graph: &Graph, restored: &JobStatus, now: Timestamp) -> Self {
        let part = |id| match graph.node(id).kind {
            NodeKind::Source(_) => Part::Source,
            NodeKind::Operator(_) => Part::Operator,
            NodeKind::Sink(_) => {
                // Main rows win where a sink gets several kinds.
                let ports = graph.edges.iter().filter(|edge| edge.to == id).map(|edge| edge.port);
                Part::Sink(ports.min().unwrap_or(Port::MAIN))
            }
        };
        let describe = |node: &coulee_runtime::graph::Node| Operator {
            uid: node.uid.clone(),
            description: node.describe(),
            parallelism: node.parallelism,
            ..Operator::default()
        };
        let mut shape = Shape {
            bounded: graph.is_bounded(),
            started_at: now,
            started: Instant::now(),
            rows_restored: 0,
            parts: graph.nodes.iter().map(|node| part(node.id)).collect(),
            nodes: graph.nodes.iter().map(describe).collect(),
        };
        shape.rows_restored = shape.progress(restored).rows_read;
        shape
    }

    /// The figures now.
    pub(crate) fn progress(&self, status: &JobStatus) -> Progress {
        let mut progress = Progress {
            bounded: self.bounded,
            started_at: Some(self.started_at),
            elapsed: self.started.elapsed(),
            rows_restored: self.rows_restored,
            stored_bytes: status.stored_bytes,
            checkpoint: status.checkpoint,
            checkpoint_at: status.checkpoint_at,
            checkpoint_took: status.checkpoint_took,
            rejected_to: self.target_of(Port::REJECTED),
            late_to: self.target_of(Port::LATE),
            operators: self.nodes.clone(),
            ..Progress::default()
        };
        for figures in &status.subtasks {
            progress.add(self.parts[figures.operator.0 as usize], figures);
        }
        progress
    }

    fn target_of(&self, port: Port) -> Option<String> {
        let at = self.parts.iter().position(|part| *part == Part::Sink(port))?;
        Some(self.nodes[at].description.clone())
    }
}

impl Progress {
    fn add(&mut self, part: Part, figures: &SubtaskFigures) {
        let totals: &Totals = &figures.totals;
        let operator = &mut self.operators[figures.operator.0 as usize];
        operator.rows_in += totals.rows_in;
        operator.rows_out += totals.rows_out;
        operator.busy += Duration::from_nanos(totals.busy_nanos);
        operator.blocked += Duration::from_nanos(totals.blocked_nanos);
        self.late_rows += totals.late_rows;
        self.timeless_rows += totals.timeless_rows;
        self.rejected_rows += totals.rejected_rows;
        self.state_bytes += totals.state_bytes;
        if let Some(reason) = &figures.last_reject {
            self.last_reject = Some(reason.clone());
        }
        match part {
            Part::Source => self.add_source(figures),
            Part::Sink(Port::MAIN) => {
                self.rows_written += totals.delivered_rows;
                self.objects += totals.delivered_objects;
                self.object_bytes += totals.delivered_bytes;
            }
            Part::Sink(_) | Part::Operator => {}
        }
    }

    fn add_source(&mut self, figures: &SubtaskFigures) {
        self.rows_read += figures.totals.rows_in;
        // A subtask without splits never knows its lag, nor has it a watermark: those that do speak for all.
        if let Some(lag) = figures.lag {
            self.lag = Some(self.lag.unwrap_or(0) + lag);
        }
        if figures.watermark > Timestamp::MIN {
            self.watermark = Some(self.watermark.map_or(figures.watermark, |lowest| lowest.min(figures.watermark)));
        }
    }

    /// The share of a bounded input that is done, 0 to 1, where that is known.
    pub fn share_done(&self) -> Option<f64> {
        let lag = self.lag.filter(|_| self.bounded)?;
        let done = self.rows_read + self.rejected_rows;
        (done + lag > 0).then(|| done as f64 / (done + lag) as f64)
    }
}

#[cfg(test)]
mod tests {
    use coulee_model::{OperatorId, SubtaskIndex};

    use super::*;

    fn figures(operator: u32, totals: Totals, lag: Option<u64>, watermark: i64) -> SubtaskFigures {
        SubtaskFigures {
            operator: OperatorId(operator),
            subtask: SubtaskIndex(0),
            totals,
            watermark: Timestamp(watermark),
            lag,
            alignment: Duration::ZERO,
            next_result: None,
            splits: Vec::new(),
            last_reject: None,
        }
    }

    #[test]
    fn side_outputs_do_not_count_as_written_and_silent_subtasks_say_nothing() {
        let node = |uid: &str| Operator { uid: uid.into(), description: format!("sink {uid}"), ..Operator::default() };
        let shape = Shape {
            bounded: true,
            started_at: Timestamp(0),
            started: Instant::now(),
            rows_restored: 0,
            parts: vec![Part::Source, Part::Sink(Port::MAIN), Part::Sink(Port::REJECTED)],
            nodes: vec![node("a"), node("b"), node("c")],
        };
        let read = Totals { rows_in: 30, rejected_rows: 10, ..Totals::default() };
        let written = Totals { delivered_rows: 25, delivered_objects: 2, ..Totals::default() };
        let status = JobStatus {
            checkpoint: CheckpointId(4),
            checkpoint_at: None,
            checkpoint_took: Duration::ZERO,
            checkpoint_bytes: 0,
            checkpoint_alignment: Duration::ZERO,
            checkpoint_write: Duration::ZERO,
            checkpoints: 0,
            stored_bytes: 9,
            memory_budget_bytes: 0,
            snapshot: None,
            snapshot_failure: None,
            subtasks: vec![
                figures(0, read, Some(40), 1_000),
                figures(0, Totals::default(), None, i64::MIN),
                figures(1, written, None, i64::MIN),
                figures(2, written, None, i64::MIN),
            ],
        };
        let progress = shape.progress(&status);
        assert_eq!((progress.rows_read, progress.rows_written, progress.objects), (30, 25, 2));
        assert_eq!((progress.lag, progress.watermark), (Some(40), Some(Timestamp(1_000))));
        assert_eq!(progress.share_done(), Some(0.5));
        assert_eq!(progress.rejected_to.as_deref(), Some("sink c"));
        assert_eq!(progress.late_to, None);
    }
}
