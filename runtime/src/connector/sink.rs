//! Where rows go, exactly once: a sink, the writers of its subtasks, and its committer.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use coulee_model::{CheckpointId, Clock, JobName, SubtaskIndex, Timestamp};

use crate::metrics::SubtaskMetrics;
use crate::row_errors::RejectedRows;
use crate::state::Facet;
use crate::{Batch, Error, Result};

/// What a sink's recovery and its writers are given.
#[derive(Debug, Clone)]
pub struct SinkContext {
    /// The job.
    pub job: JobName,
    /// A random text that is made when a job is created and kept as long as its state: it tells the objects of this job
    /// from those of a namesake. 12 lower-case hexadecimal digits.
    pub incarnation: String,
    /// The sink's stable name within the job.
    pub uid: String,
    /// A folder of this sink alone, on the disk that holds the job's state. Survives crashes; made on demand by the sink.
    pub spool: PathBuf,
    /// Time, for interval policies.
    pub clock: Arc<dyn Clock>,
}

/// What a sink waits for before it makes visible what it prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CommitOn {
    /// The checkpoint, on the local disk: exactly once as long as the disk lives.
    #[default]
    Checkpoint,
    /// A snapshot of that checkpoint or of a later one, in the object store: exactly once also when the disk is lost, and later.
    Snapshot,
}

/// Where rows go, exactly once.
///
/// ```text
///   rows ──▶ writer of a subtask ── prepare(n): state, committables ──▶ checkpoint n ── durable ──▶ committer ── commit(n) ──▶ visible
///               one per subtask, in its task                                                     one per sink, beside the tasks
/// ```
///
/// **Operations** `recover` once per attempt, before anything is opened; then one writer per subtask and one committer. A writer's life is
/// `(write | flush)* prepare`, repeated; `finish` before the last `prepare` of a bounded input. The committer gets what the writers prepared, once it is
/// durable, in the order of checkpoints. It does not hold up rows or barriers, however long it takes.
/// **Guarantees** asked of an implementation: what `prepare(n)` gave to be committed becomes visible if, and only if, checkpoint `n` becomes durable,
/// by the committer or by the next `recover`. Both are idempotent: they may be given what they, or their predecessors, have committed.
/// **Non-guarantees** A commit may be skipped when the process dies: `recover` gets what is not known to be committed. Commits may lag behind
/// checkpoints by any number; a writer that bounds what waits on the disk does so itself, by waiting in `write` for commits of *durable* checkpoints.
/// **Failure** An error ends the job's attempt. What was not prepared is written again by the next one.
#[async_trait]
pub trait Sink: Send + Sync + Debug {
    /// One line for `EXPLAIN`: the connector and where it writes.
    fn describe(&self) -> String;

    /// Why it takes only rows that are appended, and what to do instead: the end of the error that refuses a changelog when the graph is built.
    /// `None` when it takes changelogs.
    fn refuses_changelog(&self) -> Option<&'static str> {
        Some("the sink does not say that it takes changelogs: aggregate in windows, or write to a sink that does")
    }

    /// Whether it takes upserts by the table's primary key, without the rows before updates. Rows of one key must come to one subtask.
    fn is_upsert(&self) -> bool {
        false
    }

    /// What gives the stored preparations their meaning: the connector and where it writes, without credentials and without what only tunes it. A job whose
    /// facets differ from those that were stored is refused.
    fn identity(&self) -> Vec<Facet> {
        vec![Facet::new("writes", self.describe())]
    }

    /// Whether its writers may hand over rows that they cannot take ([`SinkWriter::take_rejected`]).
    fn may_reject(&self) -> bool {
        false
    }

    /// What must be durable before `commit` is called.
    fn commit_on(&self) -> CommitOn {
        CommitOn::Checkpoint
    }

    /// Commits the `committables`, and removes every trace of what neither they nor the `states` know. `states` holds what each writer's `prepare`
    /// returned at the checkpoint that is restored; none at a first start. `committables` are those of that checkpoint and of earlier ones that
    /// are not known to be committed.
    async fn recover(&self, context: &SinkContext, states: &[Bytes], committables: &[Bytes]) -> Result<()>;

    /// Opens the committer of an attempt. By default that of a sink whose writers have nothing to commit.
    async fn committer(&self, context: &SinkContext) -> Result<Box<dyn SinkCommitter>> {
        let _ = context;
        Ok(Box::new(NothingToCommit))
    }

    /// Opens the writer of one subtask. `states` are those of the writers that it continues (several after a change of parallelism).
    async fn open(
        &self,
        context: &SinkContext,
        subtask: SubtaskIndex,
        states: &[Bytes],
        metrics: Arc<SubtaskMetrics>,
    ) -> Result<Box<dyn SinkWriter>>;
}

/// What a writer hands over at a barrier.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prepared {
    /// What the next writer needs to go on from here, in the sink's own encoding. Replaces what the checkpoint before had.
    pub state: Bytes,
    /// What is to be made visible once the checkpoint is durable, each in the sink's own encoding. Given once: the runtime stores it with the
    /// checkpoint, and keeps it until it is committed.
    pub committables: Vec<Bytes>,
}

/// Makes visible what the writers of a sink prepared.
#[async_trait]
pub trait SinkCommitter: Send {
    /// What [`Sink::commit_on`] names is durable for `checkpoint`: commits what was prepared for it and, when commits were skipped, for checkpoints before it.
    /// Idempotent.
    ///
    /// # Errors
    /// End the job's attempt. What is not committed then, the next `recover` commits.
    async fn commit(&mut self, checkpoint: CheckpointId, committables: Vec<Bytes>) -> Result<()>;
}

/// The committer of a sink whose writers give nothing to be committed.
struct NothingToCommit;

#[async_trait]
impl SinkCommitter for NothingToCommit {
    async fn commit(&mut self, checkpoint: CheckpointId, committables: Vec<Bytes>) -> Result<()> {
        match committables.len() {
            0 => Ok(()),
            count => Err(Error::internal(format!(
                "checkpoint {checkpoint} has {count} committables of a sink without a committer"
            ))),
        }
    }
}

/// Writes the rows of one subtask.
#[async_trait]
pub trait SinkWriter: Send {
    /// Takes rows. They need not be safe before `prepare`.
    async fn write(&mut self, batch: Batch) -> Result<()>;

    /// When, by the clock of its context, the writer next wants `flush` to be called, if nothing else comes; `None` when nothing waits for that.
    fn next_flush(&self) -> Option<Timestamp> {
        None
    }

    /// It is `now`, at or after `next_flush`: sends on what `write` has held back for a moment.
    async fn flush(&mut self, now: Timestamp) -> Result<()> {
        let _ = now;
        Ok(())
    }

    /// Makes all that was written recoverable, and returns what `open` needs to go on from here and what is to be committed. May itself start what its
    /// policy says is due (roll a file, say), but must make nothing visible.
    async fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Prepared>;

    /// The input has ended: closes every buffer, so that the next `prepare` gives all to be committed.
    async fn finish(&mut self) -> Result<()> {
        Ok(())
    }

    /// The rows that the calls since the last one could not take, whatever is tried: asked after each call of `write`, `flush`,
    /// `finish` and `prepare`. They are not part of what is delivered.
    fn take_rejected(&mut self) -> Option<RejectedRows> {
        None
    }

    /// When the writer next wants `prepare` to be called although no more rows come; `None` when it has nothing that waits. A job without anything new takes
    /// no checkpoints.
    fn next_delivery(&self) -> Option<Timestamp> {
        None
    }
}
