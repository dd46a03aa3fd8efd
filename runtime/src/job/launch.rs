//! From a graph to running tasks, and the loop that carries out what the coordinator decides.

mod snapshots;
mod wire;

pub use snapshots::{SPOOL_FOLDER, STATE_FOLDER, Snapshots};

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coulee_checkpoint::{Changes, CheckpointRecord, JobStore};
use coulee_model::{CheckpointId, Clock, JobName, Timestamp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::coordinator::{Action, Coordinator, Event};
use super::route::Stuck;
use super::{Control, Report, TaskId};
use crate::graph::{Graph, NodeKind};
use crate::metrics::{JobMetrics, SubtaskFigures, Totals};
use crate::state::MemoryBudget;
use crate::{Error, Result};
use snapshots::Snapshooter;

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
    /// Whether stored state of operators that the job no longer has is dropped; otherwise it is an error.
    pub allow_non_restored_state: bool,
}

impl Default for JobSettings {
    fn default() -> Self {
        JobSettings {
            checkpoint_interval: Duration::from_secs(1),
            memory_budget_bytes: 256 << 20,
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
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Snapshots, when they are wanted.
    pub snapshots: Option<Snapshots>,
}

/// How a job ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// All input was processed and delivered.
    Finished,
    /// Stopped on request; it resumes from this checkpoint.
    Stopped(CheckpointId),
    /// Torn down on request, without a last checkpoint; it resumes from the one before.
    Cancelled,
    /// Failed; it resumes from its last checkpoint.
    Failed(Arc<Error>),
}

/// What is known of a running job.
#[derive(Debug, Clone)]
pub struct JobStatus {
    /// The last durable checkpoint.
    pub checkpoint: CheckpointId,
    /// When it became durable.
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
    /// The counters of every subtask.
    pub subtasks: Vec<SubtaskFigures>,
}

/// What a snapshot was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFigures {
    /// Of which checkpoint.
    pub checkpoint: CheckpointId,
    /// When it was complete.
    pub at: Timestamp,
    /// From the start of its links to its manifest.
    pub took: Duration,
    /// Bytes that it refers to.
    pub bytes: u64,
    /// Of those, bytes that had to be uploaded.
    pub uploaded_bytes: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct LastCheckpoint {
    id: CheckpointId,
    at: Option<Timestamp>,
    took: Duration,
    alignment: Duration,
    write: Duration,
    bytes: usize,
    count: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Run,
    Stop,
    Cancel,
}

/// A running job.
#[derive(Debug)]
pub struct JobHandle {
    wish: watch::Sender<Wish>,
    outcome: watch::Receiver<Option<Outcome>>,
    last: Arc<Mutex<LastCheckpoint>>,
    metrics: JobMetrics,
    store: Arc<JobStore>,
    budget: Arc<MemoryBudget>,
}

impl JobHandle {
    /// Takes a last checkpoint and ends the job. Open windows and buffers stay in its state.
    pub fn stop(&self) {
        self.wish.send_if_modified(|wish| std::mem::replace(wish, Wish::Stop) == Wish::Run);
    }

    /// Ends the job at once.
    pub fn cancel(&self) {
        self.wish.send_replace(Wish::Cancel);
    }

    /// Waits until the job has ended.
    pub async fn outcome(&self) -> Outcome {
        let mut outcome = self.outcome.clone();
        match outcome.wait_for(Option::is_some).await {
            Ok(found) => found.clone().unwrap_or(Outcome::Cancelled),
            // The loop ended without a word: its task was torn down with the runtime.
            Err(_) => Outcome::Cancelled,
        }
    }

    /// The figures now.
    pub fn status(&self) -> JobStatus {
        let last = *self.last.lock();
        JobStatus {
            checkpoint: last.id,
            checkpoint_at: last.at,
            checkpoint_took: last.took,
            checkpoint_bytes: last.bytes,
            checkpoint_alignment: last.alignment,
            checkpoint_write: last.write,
            checkpoints: last.count,
            memory_budget_bytes: self.budget.limit_bytes() as u64,
            snapshot: None,
            snapshot_failure: None,
            stored_bytes: self.store.size_bytes(),
            subtasks: self.metrics.iter().map(|metrics| metrics.read()).collect(),
        }
    }
}

/// What the coordinator stores with a checkpoint.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct StoredJob {
    /// The uids of all operators with state.
    pub(super) operators: BTreeSet<String>,
    /// Counters as of the checkpoint: uid, subtask, totals.
    pub(super) totals: Vec<(String, u32, Totals)>,
}

impl StoredJob {
    pub(super) fn parse(record: &CheckpointRecord) -> Result<Self> {
        serde_json::from_str(&record.job)
            .map_err(|e| Error::corrupt(format!("the record of checkpoint {} is damaged: {e}", record.id)))
    }
}

/// Starts a job from the last checkpoint in its store, on the current tokio runtime.
///
/// # Errors
/// `Invalid` when the graph is not complete or does not fit the stored state. What goes wrong later is the job's [`Outcome`].
pub fn launch(spec: JobSpec, environment: Environment) -> Result<JobHandle> {
    spec.graph.check()?;
    let last = environment.store.last_checkpoint();
    let stored = last.as_ref().map(StoredJob::parse).transpose()?.unwrap_or_default();
    check_fits(&spec.graph, &stored)?;
    let metrics = wire::metrics(&spec.graph, &stored);
    let id = last.as_ref().map_or(CheckpointId(0), |record| record.id);
    let checkpoint = LastCheckpoint { id, at: last.map(|record| record.at), ..LastCheckpoint::default() };
    let checkpoint = Arc::new(Mutex::new(checkpoint));
    let budget = MemoryBudget::new(spec.settings.memory_budget_bytes as usize);
    let (wish, wishes) = watch::channel(Wish::Run);
    let (ended, outcome) = watch::channel(None);
    let handle = JobHandle {
        wish,
        outcome,
        last: checkpoint.clone(),
        metrics: metrics.clone(),
        store: environment.store.clone(),
        budget: budget.clone(),
    };
    let snapshooter = environment.snapshots.clone().map(|policy| Snapshooter::new(policy, spec.name.clone()));
    let driver = Driver { spec, environment, metrics, last: checkpoint, wishes, snapshooter, budget };
    tokio::spawn(async move {
        let outcome = driver.run().await;
        ended.send_replace(Some(outcome));
    });
    Ok(handle)
}

/// Operators are matched by their uids. State of an operator that is gone is refused: it would be lost.
fn check_fits(graph: &Graph, stored: &StoredJob) -> Result<()> {
    let gone = stored.operators.iter().find(|uid| graph.nodes.iter().all(|node| node.uid != **uid));
    match gone {
        None => Ok(()),
        Some(uid) => Err(Error::invalid(format!(
            "the stored state has operator '{uid}', which the job no longer has: the query has changed; start over with --fresh, or restore the former query"
        ))),
    }
}

struct Driver {
    spec: JobSpec,
    environment: Environment,
    metrics: JobMetrics,
    last: Arc<Mutex<LastCheckpoint>>,
    wishes: watch::Receiver<Wish>,
    snapshooter: Option<Snapshooter>,
    budget: Arc<MemoryBudget>,
}

/// The tasks of a job, and the lines to them.
pub(super) struct Tasks {
    pub(super) running: JoinSet<()>,
    pub(super) controls: Vec<mpsc::UnboundedSender<Control>>,
    pub(super) sources: BTreeSet<TaskId>,
    pub(super) sinks: BTreeSet<TaskId>,
    pub(super) reports: mpsc::UnboundedReceiver<Report>,
}

/// A checkpoint whose changes are being gathered.
#[derive(Default)]
struct Gathering {
    changes: Vec<Changes>,
    figures: Vec<SubtaskFigures>,
    started: Option<Instant>,
}

impl Driver {
    async fn run(mut self) -> Outcome {
        let wired = tokio::select! {
            wired = wire::wire(&self.spec, &self.environment, &self.metrics, &self.budget) => wired,
            _ = self.wishes.wait_for(|wish| *wish == Wish::Cancel) => return Outcome::Cancelled,
        };
        let outcome = match wired {
            Ok(mut tasks) => {
                let outcome = self.drive(&mut tasks).await;
                // Tasks of a finished job have ended or are about to; those of a failed one must be gone before a restart.
                if !matches!(outcome, Ok(Outcome::Finished | Outcome::Stopped(_))) {
                    tasks.running.abort_all();
                }
                while tasks.running.join_next().await.is_some() {}
                if let Some(snapshooter) = &mut self.snapshooter {
                    snapshooter.finish().await;
                }
                outcome
            }
            Err(error) => Err(error),
        };
        outcome.unwrap_or_else(|error| {
            tracing::error!(job = %self.spec.name, %error, "the job has failed");
            Outcome::Failed(Arc::new(error))
        })
    }

    async fn drive(&mut self, tasks: &mut Tasks) -> Result<Outcome> {
        let all: BTreeSet<TaskId> = (0..tasks.controls.len()).map(TaskId).collect();
        let mut coordinator = Coordinator::new(all, tasks.sinks.clone(), self.last.lock().id);
        let mut gathering = Gathering::default();
        let interval = self.spec.settings.checkpoint_interval;
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut stopping = false;
        let budget = self.budget.clone();
        // SUBTLE: waiting for a cancel while the tasks were wired took notice of every other wish as well.
        self.wishes.mark_changed();
        loop {
            let event = tokio::select! {
                _ = ticks.tick() => Event::Tick,
                () = budget.checkpoint_requested() => Event::Tick,
                changed = self.wishes.changed() => match (changed, *self.wishes.borrow()) {
                    (Ok(()), Wish::Stop) if !stopping => {
                        stopping = true;
                        Event::Stop
                    }
                    (Ok(()), Wish::Run | Wish::Stop) => continue,
                    // A handle that was dropped leaves nobody to tell: the job goes with it.
                    (Ok(()), Wish::Cancel) | (Err(_), _) => return Ok(Outcome::Cancelled),
                },
                report = tasks.reports.recv() => match report {
                    Some(report) => gathering.take(report)?,
                    None => return Err(Error::internal("every task has gone without a word")),
                },
                joined = tasks.running.join_next() => match joined {
                    Some(Err(error)) if error.is_panic() => return Err(panicked(error)),
                    _ => {
                        // Only a report says how it went; without any task left there is none to wait for but those queued.
                        match tasks.reports.recv().await {
                            Some(report) => gathering.take(report)?,
                            None => return Err(Error::internal("every task has gone without a word")),
                        }
                    }
                },
            };
            if let Some(outcome) = self.carry_out(&mut coordinator, event, tasks, &mut gathering).await? {
                return Ok(outcome);
            }
        }
    }

    async fn carry_out(
        &mut self,
        coordinator: &mut Coordinator,
        event: Event,
        tasks: &Tasks,
        gathering: &mut Gathering,
    ) -> Result<Option<Outcome>> {
        let mut actions: std::collections::VecDeque<Action> = coordinator.step(event).into();
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Trigger(barrier) => {
                    *gathering = Gathering { started: Some(Instant::now()), ..Gathering::default() };
                    for source in &tasks.sources {
                        // A source that is gone has reported why; the report comes next.
                        let _ = tasks.controls[source.0].send(Control::Trigger(barrier));
                    }
                }
                Action::Commit(id) => {
                    self.commit(id, std::mem::take(gathering)).await?;
                    actions.extend(coordinator.step(Event::Durable(id)));
                }
                Action::Notify(id) => {
                    for sink in &tasks.sinks {
                        let _ = tasks.controls[sink.0].send(Control::Committed(id));
                    }
                }
                Action::Finish { last, input_ended } => {
                    return Ok(Some(if input_ended { Outcome::Finished } else { Outcome::Stopped(last) }));
                }
            }
        }
        Ok(None)
    }

    async fn commit(&mut self, id: CheckpointId, gathered: Gathering) -> Result<()> {
        let uid = |id| self.spec.graph.node(id).uid.clone();
        let totals = gathered.figures.iter().map(|f| (uid(f.operator), f.subtask.0, f.totals)).collect();
        let operators = self.spec.graph.nodes.iter().filter(|node| !is_stateless(&node.kind));
        let stored = StoredJob { operators: operators.map(|node| node.uid.clone()).collect(), totals };
        let job = serde_json::to_string(&stored).map_err(|e| Error::internal(e.to_string()))?;
        let at = self.environment.clock.now();
        let alignment = gathered.started.map_or(Duration::ZERO, |started| started.elapsed());
        let store = self.environment.store.clone();
        let record = CheckpointRecord { id, at, job };
        let written = tokio::task::spawn_blocking(move || store.commit(record, gathered.changes)).await;
        let stats = written.map_err(panicked)??;
        let took = gathered.started.map_or(Duration::ZERO, |started| started.elapsed());
        self.budget.checkpoint_durable();
        let count = self.last.lock().count + 1;
        *self.last.lock() =
            LastCheckpoint { id, at: Some(at), took, alignment, write: stats.took, bytes: stats.bytes, count };
        tracing::debug!(job = %self.spec.name, checkpoint = %id, bytes = stats.bytes, ?took, "checkpoint");
        if let Some(snapshooter) = &mut self.snapshooter {
            snapshooter.checkpoint(id, at, &self.environment.store, &self.environment.spool).await?;
        }
        Ok(())
    }
}

/// Nodes whose identity does not matter to stored state, as they have none.
fn is_stateless(kind: &NodeKind) -> bool {
    match kind {
        NodeKind::Operator(factory) => factory.is_stateless(),
        NodeKind::Source(_) | NodeKind::Sink(_) => false,
    }
}

impl Gathering {
    fn take(&mut self, report: Report) -> Result<Event> {
        match report {
            Report::Acknowledged { task, checkpoint, changes, figures } => {
                self.changes.push(changes);
                self.figures.extend(figures);
                Ok(Event::Acknowledged(task, checkpoint))
            }
            Report::Ended { task } => Ok(Event::Ended(task)),
            Report::Delivered { task, checkpoint } => Ok(Event::Delivered(task, checkpoint)),
            Report::Failed { error } => Err(error),
        }
    }
}

/// What a panic in a task says.
fn panicked(error: tokio::task::JoinError) -> Error {
    if !error.is_panic() {
        return Error::unavailable("the task was torn down with its runtime");
    }
    let payload = error.into_panic();
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    Error::internal(format!("a task panicked: {text}; the job can be started again from its last checkpoint"))
}

/// Reports a task's failure; a task whose neighbour is gone says nothing, as the neighbour did.
pub(super) fn report_failure(reports: &mpsc::UnboundedSender<Report>, ran: Result<(), Stuck>) {
    if let Err(Stuck::Error(error)) = ran {
        let _ = reports.send(Report::Failed { error });
    }
}
