//! The loop of a running job: carries out what the coordinator decides.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use coulee_checkpoint::{Changes, CheckpointRecord, StateKey};
use coulee_model::{CheckpointId, Stopwatch};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::handle::{JobCommand, Progress};
use super::snapshots::{Savepoint, SnapshotTaker, Taken};
use super::spec::{Environment, JobOutcome, JobSpec};
use super::stored::StoredJob;
use super::tasks::{TaskEnd, Tasks, commits_on_snapshots};
use super::{fit, wire};
use crate::connector::CommitOn;
use crate::failpoints::injected;
use crate::graph::Node;
use crate::job::committable::Committable;
use crate::job::committer::CommitRequest;
use crate::job::coordinator::{Action, CheckpointCoordinator, Event, Phase};
use crate::job::executor::{Executor, Lost, Ticks};
use crate::job::{Control, Report, TaskId};
use crate::metrics::{CountedRows, JobMetrics};
use crate::planted::{Bug, is_planted};
use crate::state::{MemoryBudget, StateDescriptor};
use crate::{Error, Result};

/// How often the disk of expired state is freed, and for how long at most.
const RECLAIM_EVERY: Duration = Duration::from_secs(60);
const RECLAIM_FOR: Duration = Duration::from_secs(5);

/// How long an attempt that failed waits for the snapshot that is under way before it makes room for the next one.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(10);

/// How long the cause of a task's end may take to show once another task has lost its neighbour by it.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs one attempt at a job.
pub(super) struct Driver {
    pub(super) executor: Arc<dyn Executor>,
    pub(super) spec: JobSpec,
    pub(super) environment: Environment,
    pub(super) metrics: JobMetrics,
    pub(super) progress: Arc<Mutex<Progress>>,
    pub(super) commands: watch::Receiver<JobCommand>,
    pub(super) wanted: mpsc::UnboundedReceiver<Savepoint>,
    pub(super) snapshot_taker: SnapshotTaker,
    pub(super) budget: Arc<MemoryBudget>,
    /// Operators whose stored state goes with the first checkpoint.
    pub(super) dropped: Vec<String>,
    /// What every operator with state keeps: stored with every checkpoint.
    pub(super) states: Vec<StateDescriptor>,
    /// What has been committed since the last checkpoint: the next one no longer has it.
    pub(super) committed: Vec<StateKey>,
    /// How much had come when the checkpoint that is under way was triggered, and when the last durable one was.
    pub(super) triggered_at: u64,
    pub(super) settled_at: Option<u64>,
}

/// A checkpoint whose changes are being pending.
#[derive(Default)]
struct PendingCheckpoint {
    changes: Vec<Changes>,
    /// What is to be committed, by committer.
    committables: BTreeMap<usize, Vec<Committable>>,
    counted: Vec<CountedRows>,
    started: Option<Stopwatch>,
}

impl Driver {
    pub(super) async fn run(mut self) -> JobOutcome {
        let waits = commits_on_snapshots(&self.spec.graph).is_some();
        let record = self.environment.store.last_checkpoint();
        let begin = async {
            self.snapshot_taker.clear().await?;
            if waits && record.is_some() {
                self.progress.lock().snapshot_since = Some(self.environment.clock.now());
            }
            let after = self.snapshot_taker.begin(record.as_ref(), waits).await?;
            self.progress.lock().snapshot_since = None;
            let tasks = wire::wire(&self.spec, &self.environment, &self.metrics, &self.budget, &self.executor).await?;
            Ok((after, tasks))
        };
        let begun = tokio::select! {
            biased;
            begun = begin => Some(begun),
            _ = self.commands.wait_for(|command| *command == JobCommand::Cancel) => None,
        };
        let outcome = match begun {
            Some(Ok((after, mut tasks))) => {
                self.progress.lock().is_opening = false;
                // A panic of ours must not leave the tasks running beside the next attempt.
                let driven = AssertUnwindSafe(self.drive(&mut tasks, after)).catch_unwind().await;
                let outcome = driven.unwrap_or_else(|panic| Err(Lost::Panicked(panic).during("the driver")));
                // Tasks of a finished job have ended or are about to; those of a failed one must be gone before a restart.
                if !matches!(outcome, Ok(JobOutcome::Finished | JobOutcome::Stopped(_))) {
                    tasks.running.iter().for_each(|task| task.abort());
                }
                // Committers end when nobody asks for more.
                tasks.committers.clear();
                while tasks.running.next().await.is_some() {}
                outcome
            }
            Some(Err(error)) => Err(error),
            None => Ok(JobOutcome::Cancelled),
        };
        self.finish_snapshots(&outcome).await;
        outcome.unwrap_or_else(|error| {
            // Whoever waits for the outcome tells the user.
            tracing::debug!(job = %self.spec.name, %error, "an attempt at the job failed");
            JobOutcome::Failed(Arc::new(error))
        })
    }

    /// Waits for the snapshot that is under way, for as long as that is worth it.
    async fn finish_snapshots(&mut self, outcome: &Result<JobOutcome>) {
        let (mut commands, executor) = (self.commands.clone(), self.executor.clone());
        let given_up = async move {
            match outcome {
                Ok(JobOutcome::Finished | JobOutcome::Stopped(_)) => cancelled(&mut commands).await,
                Ok(JobOutcome::Failed(_)) | Err(_) => tokio::select! {
                    biased;
                    () = executor.sleep(SNAPSHOT_PATIENCE) => {}
                    () = cancelled(&mut commands) => {}
                },
                Ok(JobOutcome::Cancelled) => {}
            }
        };
        self.snapshot_taker.finish(given_up).await;
        self.progress.lock().snapshot_since = None;
    }

    /// `after`: the checkpoint that the next one follows.
    async fn drive(&mut self, tasks: &mut Tasks, after: CheckpointId) -> Result<JobOutcome> {
        let all: BTreeSet<TaskId> = (0..tasks.controls.len()).map(TaskId).collect();
        let committers = tasks.committers.iter().map(|committer| committer.id).collect();
        let mut coordinator = CheckpointCoordinator::new(all, committers, after);
        self.committed = std::mem::take(&mut tasks.recovered);
        let mut pending = PendingCheckpoint::default();
        let interval = self.spec.settings.checkpoint_interval;
        let (executor, started) = (self.executor.clone(), self.executor.now());
        let mut ticks = Ticks::new(started, interval);
        let mut stopping = false;
        let mut reclaims = Ticks::new(started, RECLAIM_EVERY);
        let mut reclaiming = FuturesUnordered::new();
        let budget = self.budget.clone();
        // SUBTLE: waiting for a cancel while the tasks were wired took notice of every other command as well.
        self.commands.mark_changed();
        loop {
            // In the order of their weight. None of the first is ready time and again, so that the ticks at the end always come.
            let event = tokio::select! {
                biased;
                changed = self.commands.changed() => match (changed, *self.commands.borrow()) {
                    (Ok(()), JobCommand::Stop) if !stopping => {
                        stopping = true;
                        Event::Stop
                    }
                    (Ok(()), JobCommand::Run | JobCommand::Stop) => continue,
                    // A handle that was dropped leaves nobody to tell: the job goes with it.
                    (Ok(()), JobCommand::Cancel) | (Err(_), _) => return Ok(JobOutcome::Cancelled),
                },
                report = tasks.reports.recv() => match report {
                    Some(report) => pending.take(report, &tasks.sinks, &mut self.committed)?,
                    None => return Err(silent_end(tasks, executor.as_ref()).await),
                },
                Some(ended) = tasks.running.next() => match ended {
                    // What else it had to say is in its reports.
                    Ok(TaskEnd::Done | TaskEnd::Reported) => continue,
                    Ok(TaskEnd::Disconnected) => return Err(silent_end(tasks, executor.as_ref()).await),
                    Err(lost) => return Err(lost.during("a task")),
                },
                taken = self.snapshot_taker.taken() => {
                    self.taken(taken?, tasks);
                    continue;
                }
                Some(savepoint) = self.wanted.recv() => {
                    self.snapshot_taker.want(savepoint);
                    Event::Tick
                }
                Some(reclaimed) = reclaiming.next() => {
                    reclaimed?;
                    continue;
                }
                () = budget.checkpoint_requested() => Event::Tick,
                () = executor.sleep_until(ticks.next()) => {
                    ticks.passed(executor.now());
                    if self.is_settled() {
                        ticks.reset(self.common_tick());
                        continue;
                    }
                    Event::Tick
                }
                () = executor.sleep_until(reclaims.next()) => {
                    reclaims.passed(executor.now());
                    if reclaiming.is_empty() {
                        reclaiming.push(self.reclaim());
                    }
                    continue;
                }
            };
            if let Some(outcome) = self.carry_out(&mut coordinator, event, tasks, &mut pending).await? {
                return Ok(outcome);
            }
        }
    }

    async fn carry_out(
        &mut self,
        coordinator: &mut CheckpointCoordinator,
        event: Event,
        tasks: &Tasks,
        pending: &mut PendingCheckpoint,
    ) -> Result<Option<JobOutcome>> {
        let mut actions: std::collections::VecDeque<Action> = coordinator.step(event).into();
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Trigger(barrier) => {
                    self.triggered_at = self.events();
                    *pending = PendingCheckpoint { started: Some(Stopwatch::start()), ..PendingCheckpoint::default() };
                    for source in &tasks.sources {
                        // A source that is gone has reported why; the report comes next.
                        let _ = tasks.controls[source.0].send(Control::Trigger(barrier));
                    }
                }
                Action::Commit(id) => {
                    fail::fail_point!("job.commit.before", |_| Err(injected("job.commit.before")));
                    let mut pending = std::mem::take(pending);
                    let mut committables = std::mem::take(&mut pending.committables);
                    if is_planted(Bug::CommitBeforeDurable) {
                        tasks.prepared(id, &mut committables);
                        tasks.commit(CommitOn::Checkpoint, id);
                    }
                    let record = self.commit(id, pending).await?;
                    fail::fail_point!("job.commit.after", |_| Err(injected("job.commit.after")));
                    tasks.prepared(id, &mut committables);
                    let then = coordinator.step(Event::Durable(id));
                    let is_last = matches!(coordinator.phase(), Phase::Delivering(..) | Phase::Done);
                    let waits = tasks.committers.iter().any(|committer| committer.commit_on == CommitOn::Snapshot);
                    if !self.snapshot(&record, is_last && waits, tasks).await? {
                        return Ok(Some(JobOutcome::Cancelled));
                    }
                    actions.extend(then);
                }
                Action::Notify(id) => {
                    tasks.commit(CommitOn::Checkpoint, id);
                    if is_planted(Bug::SnapshotNotWaitedFor) {
                        tasks.commit(CommitOn::Snapshot, id);
                    }
                    fail::fail_point!("job.notify.after", |_| Err(injected("job.notify.after")));
                }
                Action::Finish { last, input_ended } => {
                    return Ok(Some(if input_ended { JobOutcome::Finished } else { JobOutcome::Stopped(last) }));
                }
            }
        }
        Ok(None)
    }

    async fn commit(&mut self, id: CheckpointId, pending: PendingCheckpoint) -> Result<CheckpointRecord> {
        let alignment = pending.started.map_or(Duration::ZERO, |started| started.elapsed());
        let uid = |id| self.spec.graph.node(id).uid.clone();
        let (mut totals, mut row_errors) = (Vec::new(), Vec::new());
        for (operator, subtask, counted, errors) in pending.counted {
            totals.push((uid(operator), subtask.0, counted));
            if !errors.is_empty() {
                row_errors.push((uid(operator), subtask.0, errors));
            }
        }
        let stored = StoredJob { format: fit::FORMAT, states: self.states.clone(), totals, row_errors };
        let job = serde_json::to_string(&stored).map_err(|e| Error::internal(e.to_string()))?;
        let record = CheckpointRecord { id, at: self.environment.clock.now(), job };
        let mut changes = pending.changes;
        let mut committed = Changes::default();
        self.committed.drain(..).for_each(|key| committed.delete(key));
        changes.push(committed);
        changes.extend(self.dropped.drain(..).map(|uid| Changes::forget_operator(Node::state_of(&uid))));
        let (store, written) = (self.environment.store.clone(), record.clone());
        let write = move || Ok(store.commit(written, changes)?);
        let stats = self.executor.blocking("the write of a checkpoint", write).await?;
        let took = pending.started.map_or(Duration::ZERO, |started| started.elapsed());
        self.budget.checkpoint_durable();
        self.settled_at = Some(self.triggered_at);
        let mut progress = self.progress.lock();
        (progress.id, progress.at, progress.bytes) = (id, Some(record.at), stats.bytes);
        (progress.took, progress.alignment, progress.write) = (took, alignment, stats.took);
        progress.count += 1;
        tracing::debug!(job = %self.spec.name, checkpoint = %id, bytes = stats.bytes, ?took, "checkpoint");
        Ok(record)
    }

    /// How much has come to all subtasks.
    fn events(&self) -> u64 {
        self.metrics.iter().map(|metrics| metrics.events()).sum()
    }

    /// Whether the last checkpoint holds all there is, so that another one would only cost: then it is as good as one of now.
    fn is_settled(&self) -> bool {
        let settled = self.settled_at == Some(self.events())
            && self.committed.is_empty()
            && !self.metrics.iter().any(|metrics| metrics.is_waiting())
            && !self.snapshot_taker.is_due(self.progress.lock().id);
        if settled {
            self.progress.lock().at = Some(self.environment.clock.now());
        }
        settled
    }

    /// Frees the disk of state whose time is over, beside everything else.
    fn reclaim(&self) -> BoxFuture<'static, Result<()>> {
        let (store, job, executor) = (self.environment.store.clone(), self.spec.name.clone(), self.executor.clone());
        let work = move || {
            if let Err(error) = store.reclaim(RECLAIM_FOR) {
                tracing::warn!(%job, %error, "expired state could not be removed from the disk; it is tried again");
            }
            Ok(())
        };
        Box::pin(async move { executor.blocking("the removal of expired state", work).await })
    }

    /// The next instant at which all jobs of the process tick that have this interval and nothing to do: many of them wake it up once, not each by itself.
    fn common_tick(&self) -> tokio::time::Instant {
        let every = (self.spec.settings.checkpoint_interval.as_millis() as i64).max(1);
        let left = every - self.environment.clock.now().millis().rem_euclid(every);
        self.executor.now() + Duration::from_millis(left as u64)
    }

    /// Begins a snapshot if it is time. `last`: sinks wait for one of this very checkpoint, which is the last; then waits for it. `false` when
    /// the job was cancelled meanwhile.
    async fn snapshot(&mut self, record: &CheckpointRecord, last: bool, tasks: &Tasks) -> Result<bool> {
        while last && self.snapshot_taker.is_running() {
            let Some(taken) = self.taken_or_cancelled().await? else { return Ok(false) };
            self.taken(taken, tasks);
        }
        if self.snapshot_taker.checkpoint(record, last).await? {
            self.progress.lock().snapshot_since = Some(self.environment.clock.now());
        }
        if last {
            let Some(taken) = self.taken_or_cancelled().await? else { return Ok(false) };
            if let Some(Err(error)) = &taken.result {
                let why = format!("the last snapshot, which sinks wait for, was not taken: {error}");
                return Err(Error::unavailable(why));
            }
            self.taken(taken, tasks);
        }
        Ok(true)
    }

    /// The end of the snapshot under way; `None` when the job is cancelled before.
    async fn taken_or_cancelled(&mut self) -> Result<Option<Taken>> {
        let mut commands = self.commands.clone();
        tokio::select! {
            biased;
            taken = self.snapshot_taker.taken() => taken.map(Some),
            () = cancelled(&mut commands) => Ok(None),
        }
    }

    /// Notes how a snapshot went, and tells the sinks that wait for it.
    fn taken(&mut self, taken: Taken, tasks: &Tasks) {
        let mut progress = self.progress.lock();
        progress.snapshot_since = None;
        match taken.result {
            None => {}
            Some(Err(error)) => {
                let (job, checkpoint) = (&self.spec.name, taken.checkpoint);
                tracing::warn!(%job, %checkpoint, %error, "the snapshot was not taken; the next one is tried soon");
                progress.snapshot_failure = Some(error.to_string());
            }
            Some(Ok(figures)) => {
                progress.snapshot = Some(figures);
                progress.snapshot_failure = None;
                tasks.commit(CommitOn::Snapshot, taken.checkpoint);
            }
        }
    }
}

impl Tasks {
    /// Gives each committer what was prepared for it, by its place.
    fn prepared(&self, id: CheckpointId, committables: &mut BTreeMap<usize, Vec<Committable>>) {
        for (index, committer) in self.committers.iter().enumerate() {
            // A committer that is gone has reported why.
            let durable = CommitRequest::Durable(id, committables.remove(&index).unwrap_or_default());
            let _ = committer.requests.send(durable);
        }
    }

    /// Tells the committers that wait for it that a checkpoint is durable.
    fn commit(&self, on: CommitOn, checkpoint: CheckpointId) {
        for committer in self.committers.iter().filter(|committer| committer.commit_on == on) {
            // A committer that is gone has reported why.
            let _ = committer.requests.send(CommitRequest::Commit(checkpoint));
        }
    }
}

impl PendingCheckpoint {
    /// Takes a report in. `sinks`: the committer of each task that ends in a sink; `committed` gets what was committed.
    fn take(
        &mut self,
        report: Report,
        sinks: &BTreeMap<TaskId, usize>,
        committed: &mut Vec<StateKey>,
    ) -> Result<Event> {
        match report {
            Report::Acknowledged { task, checkpoint, changes, committables, counted } => {
                if let Some(committer) = sinks.get(&task) {
                    self.committables.entry(*committer).or_default().extend(committables);
                }
                self.changes.push(changes);
                self.counted.extend(counted);
                Ok(Event::Acknowledged(task, checkpoint))
            }
            Report::Ended { task } => Ok(Event::Ended(task)),
            Report::Delivered { task, checkpoint, committed: keys } => {
                committed.extend(keys);
                Ok(Event::Delivered(task, checkpoint))
            }
            Report::Failed { error } => Err(error),
        }
    }
}

/// Waits until the job is to end at once: because somebody says so, or as nobody holds it any more.
async fn cancelled(commands: &mut watch::Receiver<JobCommand>) {
    let _ = commands.wait_for(|command| *command == JobCommand::Cancel).await;
}

/// Why a task ended that said nothing itself: the report or the panic of another one, which has ended by now.
async fn silent_end(tasks: &mut Tasks, executor: &dyn Executor) -> Error {
    let cause = async {
        loop {
            tokio::select! {
                biased;
                Some(report) = tasks.reports.recv() => if let Report::Failed { error } = report {
                    return Some(error);
                },
                Some(ended) = tasks.running.next() => if let Err(lost) = ended {
                    return Some(lost.during("a task"));
                },
                else => return None,
            }
        }
    };
    let cause = executor.within(LAST_WORDS_TIMEOUT, cause).await;
    cause.flatten().unwrap_or_else(|| {
        Error::internal("a task ended before the job did, and nothing says why; the job can be started again from its last checkpoint")
    })
}
