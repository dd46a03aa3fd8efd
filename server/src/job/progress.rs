//! The figures of a job, from the counters of its subtasks and the shape of its graph.

use std::time::Duration;

use coulee_model::{CheckpointId, Stopwatch, Timestamp};
use coulee_runtime::connector::CommitOn;
use coulee_runtime::graph::{Edge, Graph, Node, NodeKind, Port};
use coulee_runtime::job::JobStatus;
use coulee_runtime::metrics::SubtaskFigures;
use serde::{Deserialize, Serialize};

use super::figures::{Figures, Rates, Snapshot, Subtask, lowest};
use super::rejections::{Rejection, Tables};
use crate::metrics::catalogue;

/// The figures of a job at one moment. Counts include what was counted before a restart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// When these figures were taken.
    pub at: Option<Timestamp>,
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
    /// The same by table and stage.
    pub rejections: Vec<Rejection>,
    /// Where late rows and rows without event time are kept.
    pub late_to: Option<String>,
    /// Records still to read, where that is known.
    pub lag: Option<u64>,
    /// The lowest watermark of its sources, where one is known.
    pub watermark: Option<Timestamp>,
    /// When a source last read a row, since this start.
    pub read_at: Option<Timestamp>,
    /// When a sink last made a row visible, since this start.
    pub delivered_at: Option<Timestamp>,
    /// Bytes of state in memory.
    pub state_bytes: u64,
    /// Bytes that the state may take in memory before it is served from the disk; 0 where there is no such limit.
    pub memory_budget_bytes: u64,
    /// Bytes of state on disk, roughly.
    pub stored_bytes: u64,
    /// The last durable checkpoint.
    pub checkpoint: CheckpointId,
    /// When it became durable.
    pub checkpoint_at: Option<Timestamp>,
    /// From its trigger to its durability.
    pub checkpoint_took: Duration,
    /// Of that time, from the trigger until every subtask had passed the barrier on.
    pub checkpoint_alignment: Duration,
    /// Of that time, the synced write.
    pub checkpoint_write: Duration,
    /// Bytes that it wrote.
    pub checkpoint_bytes: u64,
    /// How many checkpoints became durable since this start.
    pub checkpoints: u64,
    /// How often one is taken.
    pub checkpoint_interval: Duration,
    /// The last snapshot since this start.
    pub snapshot: Option<Snapshot>,
    /// Why the last snapshot was not taken, if it was not.
    pub snapshot_failure: Option<String>,
    /// Since when a snapshot has been under way, if one is.
    pub snapshot_since: Option<Timestamp>,
    /// Whether sinks still complete what they had prepared, or sources are opened: no row flows yet.
    pub is_opening: bool,
    /// The operators, upstream first.
    pub operators: Vec<Operator>,
}

/// An operator and its figures.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Operator {
    /// Its stable name.
    pub uid: String,
    /// What it does, in one line.
    pub description: String,
    /// How many subtasks.
    pub parallelism: u32,
    /// Whether it reads, works or writes.
    pub kind: OperatorKind,
    /// Of a source: whether its rows have an event time.
    pub has_event_time: bool,
    /// Of a sink: whether it makes rows visible only once a snapshot has them, rather than a checkpoint.
    pub commits_on_snapshot: bool,
    /// Where its rows come from: places in [`Progress::operators`].
    pub inputs: Vec<u32>,
    /// The figures over all subtasks.
    pub figures: Figures,
    /// Why the last rejected record was rejected.
    pub last_reject: Option<String>,
    /// How fast it is, over the last seconds.
    pub rates: Rates,
    /// Of a sink: since when it has held rows that it has not made visible.
    pub holding_since: Option<Timestamp>,
    /// Its subtasks, by index.
    pub subtasks: Vec<Subtask>,
}

/// Where an operator stands in its graph.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperatorKind {
    /// It reads.
    Source,
    /// It works on rows.
    #[default]
    Operator,
    /// It writes the job's results.
    Sink,
    /// It writes what went aside: rejected records, late rows.
    SideSink,
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
    checkpoint_interval: Duration,
    started_at: Timestamp,
    started: Stopwatch,
    rows_restored: u64,
    parts: Vec<Part>,
    tables: Tables,
    nodes: Vec<Operator>,
}

impl Shape {
    /// The shape of a job that starts now with these figures.
    pub(crate) fn new(graph: &Graph, checkpoint_interval: Duration, restored: &JobStatus, now: Timestamp) -> Self {
        let parts: Vec<Part> = graph.nodes.iter().map(|node| part(graph, node)).collect();
        let nodes = graph.nodes.iter().zip(&parts).map(|(node, part)| blank(graph, node, *part)).collect();
        let mut shape = Shape {
            bounded: graph.is_bounded(),
            checkpoint_interval,
            started_at: now,
            started: Stopwatch::start(),
            rows_restored: 0,
            parts,
            tables: Tables::new(graph),
            nodes,
        };
        shape.rows_restored = shape.progress(restored).rows_read;
        shape
    }

    /// How long the job has been running.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The figures now.
    pub(crate) fn progress(&self, status: &JobStatus) -> Progress {
        let mut progress = Progress {
            bounded: self.bounded,
            started_at: Some(self.started_at),
            elapsed: self.started.elapsed(),
            rows_restored: self.rows_restored,
            memory_budget_bytes: status.memory_budget_bytes,
            stored_bytes: status.stored_bytes,
            checkpoint: status.checkpoint,
            checkpoint_at: status.checkpoint_at,
            checkpoint_took: status.checkpoint_took,
            checkpoint_alignment: status.checkpoint_alignment,
            checkpoint_write: status.checkpoint_write,
            checkpoint_bytes: status.checkpoint_bytes as u64,
            checkpoints: status.checkpoints,
            checkpoint_interval: self.checkpoint_interval,
            snapshot: status.snapshot.as_ref().map(Snapshot::from),
            snapshot_failure: status.snapshot_failure.clone(),
            snapshot_since: status.snapshot_since,
            is_opening: status.is_opening,
            rejected_to: self.target_of(Port::REJECTED),
            late_to: self.target_of(Port::LATE),
            operators: self.nodes.clone(),
            ..Progress::default()
        };
        for figures in &status.subtasks {
            progress.add(self.parts[figures.operator.0 as usize], figures);
            self.tables.add(figures, &mut progress.rejections);
        }
        let mut kept: Vec<&str> = progress.rejections.iter().filter_map(|found| found.kept.as_deref()).collect();
        kept.dedup();
        if !kept.is_empty() {
            progress.rejected_to = Some(kept.join(", "));
        }
        progress
    }

    fn target_of(&self, port: Port) -> Option<String> {
        let at = self.parts.iter().position(|part| *part == Part::Sink(port))?;
        Some(self.nodes[at].description.clone())
    }
}

fn part(graph: &Graph, node: &Node) -> Part {
    match node.kind {
        NodeKind::Source(_) => Part::Source,
        NodeKind::Operator(_) => Part::Operator,
        NodeKind::Sink(_) => {
            // Main rows win where a sink gets several kinds.
            let ports = graph.edges.iter().filter(|edge| edge.to == node.id).map(|edge| edge.port);
            Part::Sink(ports.min().unwrap_or(Port::MAIN))
        }
    }
}

/// An operator that has counted nothing.
fn blank(graph: &Graph, node: &Node, part: Part) -> Operator {
    // Whatever computes may reject rows; only the tables that they come from are told.
    let is_told = |edge: &&Edge| {
        edge.to == node.id && (edge.port != Port::REJECTED || matches!(graph.node(edge.from).kind, NodeKind::Source(_)))
    };
    let inputs = graph.edges.iter().filter(is_told).map(|edge| edge.from.0).collect();
    Operator {
        uid: node.uid.clone(),
        description: node.describe(),
        parallelism: node.parallelism,
        kind: match part {
            Part::Source => OperatorKind::Source,
            Part::Operator => OperatorKind::Operator,
            Part::Sink(Port::MAIN) => OperatorKind::Sink,
            Part::Sink(_) => OperatorKind::SideSink,
        },
        commits_on_snapshot: matches!(&node.kind, NodeKind::Sink(sink) if sink.commit_on() == CommitOn::Snapshot),
        has_event_time: matches!(&node.kind, NodeKind::Source(source) if source.event_time.is_some()),
        inputs,
        ..Operator::default()
    }
}

impl Progress {
    fn add(&mut self, part: Part, counted: &SubtaskFigures) {
        let subtask = Subtask::from(counted);
        let figures = &subtask.figures;
        self.late_rows += figures.late_rows();
        self.timeless_rows += figures.timeless_rows();
        self.rejected_rows += figures.rejected_rows();
        self.state_bytes += figures.state_bytes();
        if subtask.last_reject.is_some() {
            self.last_reject.clone_from(&subtask.last_reject);
        }
        match part {
            Part::Source => self.add_source(figures),
            Part::Sink(Port::MAIN) => {
                self.rows_written += figures.delivered_rows();
                self.objects += figures.delivered_objects();
                self.object_bytes += figures.delivered_bytes();
            }
            Part::Sink(_) | Part::Operator => {}
        }
        let operator = &mut self.operators[counted.operator.0 as usize];
        operator.figures.merge(figures, catalogue::merge_of);
        if subtask.last_reject.is_some() {
            operator.last_reject.clone_from(&subtask.last_reject);
        }
        let index = counted.subtask.0 as usize;
        if operator.subtasks.len() <= index {
            operator.subtasks.resize_with(index + 1, Subtask::default);
        }
        operator.subtasks[index] = subtask;
    }

    fn add_source(&mut self, figures: &Figures) {
        self.rows_read += figures.rows_in();
        // A subtask without splits never knows its lag, nor has it a watermark: those that do speak for all.
        if let Some(lag) = figures.lag() {
            self.lag = Some(self.lag.unwrap_or(0) + lag);
        }
        self.watermark = lowest(self.watermark, figures.watermark());
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
    use coulee_runtime::metrics::SplitFigures;
    use coulee_runtime::metrics::builtin::{DELIVERED_OBJECTS, DELIVERED_ROWS, LAG, REJECTED_ROWS, ROWS_IN, WATERMARK};

    use super::*;

    fn subtask(operator: u32, subtask: u32, figures: Figures) -> SubtaskFigures {
        let (operator, subtask) = (OperatorId(operator), SubtaskIndex(subtask));
        SubtaskFigures { operator, subtask, figures, splits: Vec::new(), last_reject: None, row_errors: Vec::new() }
    }

    #[test]
    fn side_outputs_do_not_count_as_written_and_silent_subtasks_say_nothing() {
        let node = |uid: &str| Operator { uid: uid.into(), description: format!("sink {uid}"), ..Operator::default() };
        let shape = Shape {
            bounded: true,
            checkpoint_interval: Duration::from_secs(1),
            started_at: Timestamp(0),
            started: Stopwatch::start(),
            rows_restored: 0,
            parts: vec![Part::Source, Part::Sink(Port::MAIN), Part::Sink(Port::REJECTED)],
            tables: Tables::default(),
            nodes: vec![node("a"), node("b"), node("c")],
        };
        let read = [(&ROWS_IN, 30), (&REJECTED_ROWS, 10), (&LAG, 40), (&WATERMARK, 1_000)];
        let mut reading = subtask(0, 0, Figures::from(read));
        reading.splits = vec![SplitFigures {
            id: "shard-00003".into(),
            watermark: Timestamp::MIN,
            is_idle: true,
            is_ended: false,
            is_paused: false,
        }];
        let written = Figures::from([(&DELIVERED_ROWS, 25), (&DELIVERED_OBJECTS, 2)]);
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
            snapshot_since: None,
            is_opening: false,
            subtasks: vec![
                reading,
                subtask(0, 1, Figures::default()),
                subtask(1, 0, written.clone()),
                subtask(2, 0, written),
            ],
        };
        let progress = shape.progress(&status);
        assert_eq!((progress.rows_read, progress.rows_written, progress.objects), (30, 25, 2));
        assert_eq!((progress.lag, progress.watermark), (Some(40), Some(Timestamp(1_000))));
        assert_eq!(progress.share_done(), Some(0.5));
        assert_eq!(progress.rejected_to.as_deref(), Some("sink c"));
        assert_eq!(progress.late_to, None);
        let source = &progress.operators[0];
        assert_eq!((source.subtasks.len(), source.figures.rows_in(), source.figures.lag()), (2, 30, Some(40)));
        let split = &source.subtasks[0].splits[0];
        assert_eq!((split.id.as_str(), split.watermark, split.is_idle), ("shard-00003", None, true));
        assert!(source.subtasks[1].splits.is_empty());
    }
}
