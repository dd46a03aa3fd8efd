//! From a graph to running tasks, and the loop that carries out what the coordinator decides.

mod driver;
mod fit;
mod handle;
mod hard_links;
mod restore;
mod snapshots;
mod spec;
mod stored;
mod tasks;
mod wire;

pub use fit::StateMismatch;
pub use handle::{JobHandle, JobStatus};
pub use restore::restore;
#[cfg(test)]
pub(super) use restore::restore_on;
pub use snapshots::{SPOOL_FOLDER, STATE_FOLDER, SnapshotFigures, Snapshots, savepoint_at_rest};
pub use spec::{Environment, JobOutcome, JobSettings, JobSpec};
pub use stored::stored_states;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use coulee_model::CheckpointId;
use futures::FutureExt;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::executor::{Executor, Lost, Tokio};
use crate::graph::Graph;
use crate::state::MemoryBudget;
use crate::{Error, Result};
use driver::Driver;
use fit::Fit;
use handle::{JobCommand, Progress};
use snapshots::{SnapshotInput, SnapshotTaker};
use stored::StoredJob;
use tasks::commits_on_snapshots;

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
