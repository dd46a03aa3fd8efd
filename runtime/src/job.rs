//! A running job: subtasks, the channels between them, and the coordinator that checkpoints them.
//!
//! ```text
//!            Control (trigger, committed)                     Control
//!        ┌───────────────┬──────────────────────────────┬───────────────┐
//!        ▼               ▼                              ▼               │
//!   source task ──▶ operator task ──▶ … ──▶ operator or sink task    coordinator ──▶ JobStore
//!        └───────────────┴──────────────────────────────┴───────────────▲
//!            Report (acknowledged with changes, ended, failed)          │
//! ```
//!
//! Each task owns a chain of operators. Everything a task does with rows is synchronous; it waits only for input, for room
//! downstream, and for a sink.

mod chain;
mod coordinator;
mod drift;
mod launch;
mod route;
mod source_task;
mod source_watermark;
mod task;

pub use coordinator::{Action, Coordinator, Event, Phase};
pub use launch::{
    Environment, JobHandle, JobSettings, JobSpec, JobStatus, Outcome, SPOOL_FOLDER, STATE_FOLDER, SnapshotFigures,
    Snapshots, StateMismatch, launch, restore, savepoint_at_rest, stored_states,
};

use coulee_checkpoint::Changes;
use coulee_model::CheckpointId;

use crate::Error;
use crate::channel::Barrier;
use crate::metrics::CountedRows;

/// What the coordinator says to a task.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Control {
    /// To a source: put this barrier into the flow.
    Trigger(Barrier),
    /// To a sink: the checkpoint is durable.
    Committed(CheckpointId),
}

/// Which task, counted over the whole job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub usize);

/// What a task says to the coordinator.
#[derive(Debug)]
pub(crate) enum Report {
    /// The barrier has passed through; these are the changes since the last one and the counters as of it.
    Acknowledged { task: TaskId, checkpoint: CheckpointId, changes: Changes, counted: Vec<CountedRows> },
    /// No row will come out of the task any more.
    Ended { task: TaskId },
    /// A sink has made the checkpoint visible.
    Delivered { task: TaskId, checkpoint: CheckpointId },
    /// The task has stopped.
    Failed { error: Error },
}
