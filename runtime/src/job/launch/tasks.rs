//! The running tasks of a job, and how each of them ends.

use std::collections::{BTreeMap, BTreeSet};

use coulee_checkpoint::StateKey;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;

use crate::Result;
use crate::connector::CommitOn;
use crate::graph::{Graph, Node, NodeKind};
use crate::job::committer::CommitRequest;
use crate::job::executor::Running;
use crate::job::route::TaskError;
use crate::job::{Control, Report, TaskId};

/// The committer of a sink.
pub(super) struct Committer {
    /// Counted on from those of the tasks.
    pub(super) id: TaskId,
    pub(super) requests: mpsc::UnboundedSender<CommitRequest>,
    /// When it commits.
    pub(super) commit_on: CommitOn,
}

/// The tasks of a job, and the lines to them.
pub(super) struct Tasks {
    pub(super) running: FuturesUnordered<Running<TaskEnd>>,
    pub(super) controls: Vec<mpsc::UnboundedSender<Control>>,
    pub(super) sources: BTreeSet<TaskId>,
    pub(super) committers: Vec<Committer>,
    /// For each task that ends in a sink: which of the committers is its.
    pub(super) sinks: BTreeMap<TaskId, usize>,
    /// What was to be committed when the attempt began, and the recovery has committed.
    pub(super) recovered: Vec<StateKey>,
    pub(super) reports: mpsc::UnboundedReceiver<Report>,
}

/// How a task of a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::job) enum TaskEnd {
    /// After the last barrier.
    Done,
    /// It failed, and its report says why.
    Reported,
    /// The task that it sends to or reads from is gone. Why, that one says.
    Disconnected,
}

/// Reports a task's failure; a task whose neighbour is gone says nothing, as the neighbour did.
pub(super) fn report_failure(reports: &mpsc::UnboundedSender<Report>, ran: Result<(), TaskError>) -> TaskEnd {
    match ran {
        Ok(()) => TaskEnd::Done,
        Err(TaskError::Error(error)) => {
            // Without a driver nobody wants to know.
            let _ = reports.send(Report::Failed { error });
            TaskEnd::Reported
        }
        Err(TaskError::Disconnected) => TaskEnd::Disconnected,
    }
}

/// A sink that waits for snapshots, if there is one.
pub(super) fn commits_on_snapshots(graph: &Graph) -> Option<&Node> {
    let waits = |node: &&Node| matches!(&node.kind, NodeKind::Sink(sink) if sink.commit_on() == CommitOn::Snapshot);
    graph.nodes.iter().find(waits)
}
