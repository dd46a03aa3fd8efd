//! What the world has of a running job: its figures, and ways to end it or to save it.

use std::sync::Arc;
use std::time::Duration;

use coulee_checkpoint::JobStore;
use coulee_checkpoint::snapshot::{Manifest, SnapshotStore};
use coulee_model::{CheckpointId, Timestamp};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use super::snapshots::{Savepoint, SnapshotFigures};
use super::spec::JobOutcome;
use crate::metrics::{JobMetrics, SubtaskFigures};
use crate::state::MemoryBudget;
use crate::{Error, Result};

/// What is known of a running job.
#[derive(Debug, Clone)]
pub struct JobStatus {
    /// The last durable checkpoint.
    pub checkpoint: CheckpointId,
    /// When it became durable, or was last seen to hold all there is.
    pub checkpoint_at: Option<Timestamp>,
    /// From its trigger to its durability.
    pub checkpoint_took: Duration,
    /// Bytes that it wrote.
    pub checkpoint_bytes: usize,
    /// Of that time, from the trigger until every subtask had passed the barrier on.
    pub checkpoint_alignment: Duration,
    /// Of that time, the synced write.
    pub checkpoint_write: Duration,
    /// How many checkpoints became durable since the job was launched.
    pub checkpoints: u64,
    /// Bytes of the stored state.
    pub stored_bytes: u64,
    /// Bytes that the state of all subtasks may take in memory before it is served from the disk.
    pub memory_budget_bytes: u64,
    /// The last snapshot that was completed since the job was launched.
    pub snapshot: Option<SnapshotFigures>,
    /// Why the last snapshot was not taken, if it was not.
    pub snapshot_failure: Option<String>,
    /// Since when a snapshot has been under way, if one is.
    pub snapshot_since: Option<Timestamp>,
    /// Whether sinks still complete what they had prepared, or sources are opened: no row flows yet.
    pub is_opening: bool,
    /// The counters of every subtask.
    pub subtasks: Vec<SubtaskFigures>,
}

impl JobStatus {
    pub(super) fn new(last: Progress, store: &JobStore, budget: &MemoryBudget, metrics: &JobMetrics) -> Self {
        JobStatus {
            checkpoint: last.id,
            checkpoint_at: last.at,
            checkpoint_took: last.took,
            checkpoint_bytes: last.bytes,
            checkpoint_alignment: last.alignment,
            checkpoint_write: last.write,
            checkpoints: last.count,
            memory_budget_bytes: budget.limit_bytes() as u64,
            snapshot: last.snapshot,
            snapshot_failure: last.snapshot_failure,
            snapshot_since: last.snapshot_since,
            is_opening: last.is_opening,
            stored_bytes: store.size_bytes(),
            subtasks: metrics.iter().map(|metrics| metrics.read()).collect(),
        }
    }
}

/// What the driver tells of its checkpoints and snapshots.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    pub(super) id: CheckpointId,
    pub(super) at: Option<Timestamp>,
    pub(super) took: Duration,
    pub(super) alignment: Duration,
    pub(super) write: Duration,
    pub(super) bytes: usize,
    pub(super) count: u64,
    pub(super) snapshot: Option<SnapshotFigures>,
    pub(super) snapshot_failure: Option<String>,
    pub(super) snapshot_since: Option<Timestamp>,
    pub(super) is_opening: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobCommand {
    Run,
    Stop,
    Cancel,
}

/// A running job.
#[derive(Debug)]
pub struct JobHandle {
    pub(super) command: watch::Sender<JobCommand>,
    pub(super) savepoints: mpsc::UnboundedSender<Savepoint>,
    pub(super) outcome: watch::Receiver<Option<JobOutcome>>,
    pub(super) progress: Arc<Mutex<Progress>>,
    pub(super) metrics: JobMetrics,
    pub(super) store: Arc<JobStore>,
    pub(super) budget: Arc<MemoryBudget>,
    /// Taken by `launch`, before it starts anything.
    pub(super) restored: JobStatus,
    pub(super) notes: Vec<String>,
}

impl JobHandle {
    /// The figures as of the checkpoint that the job was launched from, before anything of it ran.
    pub fn restored(&self) -> &JobStatus {
        &self.restored
    }

    /// How the stored state differs from what the job keeps, where that does not keep it from going on: one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Takes a last checkpoint and ends the job. Open windows and buffers stay in its state.
    pub fn stop(&self) {
        self.command.send_if_modified(|command| std::mem::replace(command, JobCommand::Stop) == JobCommand::Run);
    }

    /// Ends the job at once.
    pub fn cancel(&self) {
        self.command.send_replace(JobCommand::Cancel);
    }

    /// Takes a checkpoint now and keeps it in an object store under a name, while the job goes on. Answers when it is complete there.
    ///
    /// # Errors
    /// `Invalid` for a name that cannot be or that is taken; `Unavailable` when the job has ended or the object store does not answer.
    pub async fn savepoint(&self, to: SnapshotStore, name: String, note: Option<String>) -> Result<Manifest> {
        let (answer, answered) = oneshot::channel();
        let ended = || Error::unavailable("the job has ended: take the savepoint of the job at rest");
        self.savepoints.send(Savepoint { store: to, name, note, answer }).map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }

    /// Waits until the job has ended.
    pub async fn outcome(&self) -> JobOutcome {
        let mut outcome = self.outcome.clone();
        let found = outcome.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
        found.unwrap_or_else(|| {
            JobOutcome::Failed(Arc::new(Error::internal(
                "the job's driver was torn down with its runtime, without a word",
            )))
        })
    }

    /// Grows whenever anything comes to a subtask: cheap to compare, to see whether the figures can have changed.
    pub fn events(&self) -> u64 {
        self.metrics.iter().map(|metrics| metrics.events()).sum()
    }

    /// The figures now.
    pub fn status(&self) -> JobStatus {
        JobStatus::new(self.progress.lock().clone(), &self.store, &self.budget, &self.metrics)
    }
}
