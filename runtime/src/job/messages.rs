//! What the tasks of a job and its driver say to each other.

use coulee_checkpoint::{Changes, StateKey};
use coulee_model::CheckpointId;

use super::committable::Committable;
use crate::Error;
use crate::channel::Barrier;
use crate::connector::SplitStart;
use crate::metrics::CountedRows;

/// What is said to the task of a source.
#[derive(Debug)]
pub(crate) enum Control {
    /// By the driver: put this barrier into the flow.
    Trigger(Barrier),
    /// By the source's enumerator: read these as well.
    Splits(Vec<SplitStart>),
    /// By the same: no further splits will come.
    NoMoreSplits,
}

/// Which task, counted over the whole job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub usize);

/// What a task says to the coordinator.
#[derive(Debug)]
pub(crate) enum Report {
    /// The barrier has passed through; these are the changes since the last one, what a sink's writer prepared, and the counters as of it.
    Acknowledged {
        task: TaskId,
        checkpoint: CheckpointId,
        changes: Changes,
        committables: Vec<Committable>,
        counted: Vec<CountedRows>,
    },
    /// No row will come out of the task any more.
    Ended { task: TaskId },
    /// A committer has made the checkpoint visible, and those before it: what is stored under these keys.
    Delivered { task: TaskId, checkpoint: CheckpointId, committed: Vec<StateKey> },
    /// The task has stopped.
    Failed { error: Error },
}
