//! A running job: subtasks, the channels between them, and the coordinator that checkpoints them.
//!
//! ```text
//!   enumerator                                                        committer ──▶ visible
//!        │ splits                                                         ▲   │
//!        ▼                          Control (trigger)                     │   │ delivered
//!   source task ◀─────────────────────────────────────────────────────── driver ──▶ JobStore
//!        │                                                                ▲
//!        └──▶ operator task ──▶ … ──▶ operator or sink task ──────────────┘
//!                     Report (acknowledged with changes and committables, ended, failed)
//! ```
//!
//! Each task owns a chain of operators. Everything a task does with rows is synchronous; it waits only for input, for room
//! downstream, and for a sink.

mod chain;
mod committable;
mod committer;
mod coordinator;
mod enumerator;
pub(crate) mod executor;
mod launch;
mod messages;
mod route;
mod source_task;
mod source_watermark;
mod task;
#[cfg(test)]
mod tests;
mod watermark_alignment;

pub use coordinator::{Action, CheckpointCoordinator, Event, Phase};
pub use launch::{
    Environment, JobHandle, JobOutcome, JobSettings, JobSpec, JobStatus, SPOOL_FOLDER, STATE_FOLDER, SnapshotFigures,
    Snapshots, StateMismatch, launch, restore, savepoint_at_rest, stored_states,
};
pub use messages::TaskId;
pub(crate) use messages::{Control, Report};
