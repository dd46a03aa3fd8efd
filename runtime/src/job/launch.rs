//! From a graph to running tasks, and the loop that carries out what the coordinator decides.

mod driver;
mod fit;
mod handle;
mod hard_links;
mod snapshots;
mod wire;

pub use fit::StateMismatch;
pub use handle::{JobHandle, JobStatus, SnapshotFigures};
pub use snapshots::{SPOOL_FOLDER, STATE_FOLDER, Snapshots, restore, savepoint_at_rest};

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coulee_checkpoint::{CheckpointRecord, JobStore, StateKey};
use coulee_model::{CheckpointId, Clock, JobName};
use futures::FutureExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use super::committer::CommitRequest;
use super::executor::{Executor, Lost, Running, Tokio};
use super::{Control, Report, TaskId};
use crate::connector::CommitOn;
use crate::graph::{Graph, Node, NodeKind};
use crate::metrics::{Figures, RowErrorFigures};
use crate::state::{MemoryBudget, StateDescriptor};
use crate::{Error, Result};
use driver::{Driver, TaskEnd};
use fit::Fit;
use handle::{JobCommand, Progress};
use snapshots::{SnapshotInput, SnapshotTaker};

/// What to run.
#[derive(Debug, Clone)]
pub struct JobSpec {
    /// The job's name.
    pub name: JobName,
    /// See [`SinkContext::incarnation`](crate::connector::SinkContext::incarnation).
    pub incarnation: String,
    /// The graph.
    pub graph: Graph,
    /// How to run it.
    pub settings: JobSettings,
}

/// How to run a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSettings {
    /// How often a checkpoint is taken.
    pub checkpoint_interval: Duration,
    /// What the state of all operators together may take in memory, in bytes, before it is served from the disk.
    pub memory_budget_bytes: u64,
    /// The most rows of a batch between two operators, 1 or more. Absent: sources read 8,192 at a time, and what operators emit stays whole.
    pub batch_rows: Option<usize>,
    /// Whether stored state of operators that the job no longer has is dropped; otherwise it is an error.
    pub allow_non_restored_state: bool,
}

impl Default for JobSettings {
    fn default() -> Self {
        JobSettings {
            checkpoint_interval: Duration::from_secs(1),
            memory_budget_bytes: 256 << 20,
            batch_rows: None,
            allow_non_restored_state: false,
        }
    }
}

/// What a job is given to run on.
#[derive(Debug, Clone)]
pub struct Environment {
    /// The job's state; it resumes from its last checkpoint.
    pub store: Arc<JobStore>,
    /// A folder for the spools of its sinks.
    pub spool: PathBuf,
    /// A folder for the links of snapshots, on the file system of the state and the spool.
    pub scratch: PathBuf,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Snapshots, when they are wanted.
    pub snapshots: Option<Snapshots>,
}

/// How a job ended.
#[derive(Debug, Clone)]
pub enum JobOutcome {
    /// All input was processed and delivered.
    Finished,
    /// Stopped on request; it resumes from this checkpoint.
    Stopped(CheckpointId),
    /// Torn down on request, without a last checkpoint; it resumes from the one before.
    Cancelled,
    /// Failed; it resumes from its last checkpoint.
    Failed(Arc<Error>),
}

/// What the coordinator stores with a checkpoint.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct StoredJob {
    /// The version of `states`; see [`fit`].
    #[serde(default)]
    pub(super) format: u32,
    /// What every operator with state keeps.
    #[serde(default)]
    pub(super) states: Vec<StateDescriptor>,
    /// Counters as of the checkpoint: uid, subtask, values by name.
    pub(super) totals: Vec<(String, u32, Figures)>,
    /// Rows that failed on their way, as of the checkpoint: uid, subtask, by table and stage.
    #[serde(default)]
    pub(super) row_errors: Vec<(String, u32, Vec<RowErrorFigures>)>,
}

impl StoredJob {
    pub(super) fn parse(record: &CheckpointRecord) -> Result<Self> {
        serde_json::from_str(&record.job)
            .map_err(|e| Error::corrupt(format!("the record of checkpoint {} is damaged: {e}", record.id)))
    }
}

/// What the operators of a checkpoint keep, as its record says; nothing for one of a version that did not record it.
///
/// # Errors
/// `Corrupt` when the record is damaged.
pub fn stored_states(record: &CheckpointRecord) -> Result<Vec<StateDescriptor>> {
    Ok(StoredJob::parse(record)?.states)
}

/// Starts a job from the last checkpoint in its store, on the current tokio runtime.
///
/// # Errors
/// `Invalid` when the graph is not complete or does not fit the stored state, because of a [`StateMismatch`] then. What goes wrong later is the job's
/// [`JobOutcome`].
pub fn launch(spec: JobSpec, environment: Environment) -> Result<JobHandle> {
    launch_on(Arc::new(Tokio), spec, environment)
}

/// As [`launch`], on whatever runs tasks.
pub(crate) fn launch_on(executor: Arc<dyn Executor>, mut spec: JobSpec, environment: Environment) -> Result<JobHandle> {
    spec.graph.check()?;
    let last = environment.store.last_checkpoint();
    let stored = last.as_ref().map(StoredJob::parse).transpose()?.unwrap_or_default();
    fit::adopt(&mut spec.graph, &stored.states)?;
    let states = spec.graph.states();
    let drops = spec.settings.allow_non_restored_state;
    let Fit { dropped, notes } = fit::fit(&spec.graph, &stored, &environment.store, drops)?;
    notes.iter().for_each(|note| tracing::info!(job = %spec.name, "{note}"));
    check_commits(&spec.graph, &environment)?;
    let metrics = wire::metrics(&spec.graph, &stored);
    let id = last.as_ref().map_or(CheckpointId(0), |record| record.id);
    let progress = Progress { id, at: last.map(|record| record.at), is_opening: true, ..Progress::default() };
    let budget = MemoryBudget::new(spec.settings.memory_budget_bytes as usize);
    // SUBTLE: taken here rather than by whoever gets the handle, as by then rows may have been read.
    let restored = JobStatus::new(progress.clone(), &environment.store, &budget, &metrics);
    let progress = Arc::new(Mutex::new(progress));
    let (savepoints, wanted) = mpsc::unbounded_channel();
    let (command, commands) = watch::channel(JobCommand::Run);
    let (ended, outcome) = watch::channel(None);
    let handle = JobHandle {
        command,
        outcome,
        progress: progress.clone(),
        savepoints,
        metrics: metrics.clone(),
        store: environment.store.clone(),
        budget: budget.clone(),
        restored,
        notes,
    };
    let origin = SnapshotInput {
        job: spec.name.clone(),
        store: environment.store.clone(),
        spool: environment.spool.clone(),
        scratch: environment.scratch.clone(),
        clock: environment.clock.clone(),
        executor: executor.clone(),
    };
    let snapshot_taker = SnapshotTaker::new(origin, environment.snapshots.clone(), &spec.incarnation);
    let driver = Driver {
        executor: executor.clone(),
        spec,
        environment,
        metrics,
        progress,
        commands,
        wanted,
        snapshot_taker,
        budget,
        dropped,
        states,
        committed: Vec::new(),
        triggered_at: 0,
        settled_at: None,
    };
    executor.spawn(Box::pin(async move {
        // Whatever ends without a word is a failure: a job that nobody ended must not look like one that was cancelled.
        let ran = AssertUnwindSafe(driver.run()).catch_unwind().await;
        let outcome =
            ran.unwrap_or_else(|panic| JobOutcome::Failed(Arc::new(Lost::Panicked(panic).during("the driver"))));
        ended.send_replace(Some(outcome));
    }));
    Ok(handle)
}

/// A sink that waits for snapshots, if there is one.
fn commits_on_snapshots(graph: &Graph) -> Option<&Node> {
    let waits = |node: &&Node| matches!(&node.kind, NodeKind::Sink(sink) if sink.commit_on() == CommitOn::Snapshot);
    graph.nodes.iter().find(waits)
}

/// Sinks that wait for snapshots need snapshots.
fn check_commits(graph: &Graph, environment: &Environment) -> Result<()> {
    match commits_on_snapshots(graph) {
        Some(node) if environment.snapshots.is_none() => Err(Error::invalid(format!(
            "sink '{}' commits on snapshots, and the job takes none: SET 'execution.checkpointing.dir' to a folder or an object store's URL",
            node.uid
        ))),
        _ => Ok(()),
    }
}

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
