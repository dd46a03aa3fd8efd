//! Keeps a job running: starts it, forwards what is asked of it, and starts it again from its last checkpoint after a
//! failure that may pass by itself.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coulee_checkpoint::{JobStore, StoreResources, StoreSettings};
use coulee_model::{Classify, Clock, ErrorKind};
use coulee_runtime::Subject;
use coulee_runtime::graph::Graph;
use coulee_runtime::job::{Environment, JobHandle, JobOutcome, JobSettings, JobSpec, Snapshots, launch};
use futures::FutureExt;
use tokio::runtime::Handle;

use super::{Desired, Failure, Job, JobCommand, JobRecord, JobState, Live, Progress, Retry, Shape};
use crate::blocking::blocking;
use crate::folder::remove_folder;
use crate::restart::{RestartPolicy, chance};
use crate::settings::RestartSettings;
use crate::{Error, Result};

/// The target of the log line of a job that failed for good: who tells the user by other means turns that one off.
const FAILED_JOB: &str = "coulee::job";

/// How long a job that is asked to stop may take for its last checkpoint before it is ended without.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// What every job of an engine runs with.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) state: StoreSettings,
    /// What the state stores of all jobs share: a cache and write buffers, so that an idle job costs next to nothing.
    pub(crate) resources: StoreResources,
    pub(crate) restart: RestartSettings,
    /// Where relative paths begin.
    pub(crate) base: PathBuf,
    /// What jobs run on, see [`JobThreads`](super::JobThreads).
    pub(crate) threads: Handle,
}

/// What is to run, and how.
pub(crate) struct Plan {
    pub(crate) graph: Graph,
    pub(crate) settings: JobSettings,
    pub(crate) restart: RestartPolicy,
    pub(crate) snapshots: Option<Snapshots>,
    /// Of each table, where the script declares it: `job.sql:3:1`.
    pub(crate) declared: BTreeMap<String, String>,
}

/// Starts a job that rests, from its last checkpoint if it has one, and looks after it until it ends.
///
/// `change` is made to the record with the start.
///
/// # Errors
/// When it is running already, its state cannot be opened, or the graph does not fit its state. The record is then as it was.
pub(crate) async fn start(
    job: &Arc<Job>,
    plan: Plan,
    parts: &Parts,
    change: impl FnOnce(&mut JobRecord),
) -> Result<()> {
    let already = job.active.send_replace(true);
    if already {
        let (name, advice) = (job.name(), "stop it first with `coulee job stop`, or wait for its end".to_owned());
        return Err(Error::JobState { name, state: "is running", advice });
    }
    let supervisor = Supervisor { job: job.clone(), plan, parts: parts.clone() };
    job.command.send_replace(JobCommand::Run);
    match supervisor.begin(change).await {
        Ok(handle) => {
            parts.threads.spawn(look_after(job.clone(), supervisor.run(handle)));
            Ok(())
        }
        Err(error) => {
            *job.live.lock() = None;
            job.active.send_replace(false);
            Err(error)
        }
    }
}

/// Runs a supervisor; should it panic, its job rests as failed, so that it can be seen and started again.
async fn look_after(job: Arc<Job>, supervised: impl Future<Output = ()>) {
    let Err(panic) = AssertUnwindSafe(supervised).catch_unwind().await else { return };
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned());
    let cause = format!("the job's supervisor panicked: {text}; start the job again from its last checkpoint");
    tracing::error!(target: FAILED_JOB, job = %job.name(), cause, "the job failed");
    // The attempt holds the state store, which the next start opens.
    if let Some(handle) = job.handle() {
        handle.cancel();
        handle.outcome().await;
    }
    *job.live.lock() = None;
    *job.retry.lock() = None;
    if let Err(error) = job.update(|record| record.state = JobState::Failed { cause }).await {
        tracing::error!(job = %job.name(), %error, "the job's end could not be written down; its checkpoints are intact");
    }
    job.active.send_replace(false);
}

struct Supervisor {
    job: Arc<Job>,
    plan: Plan,
    parts: Parts,
}

/// What follows the end of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    /// The job rests in this state.
    Rest(JobState),
    /// It is to be started again.
    Again { pause: Duration, cause: String },
}

impl Supervisor {
    /// The first attempt: its record must be on disk before anything of it can be.
    async fn begin(&self, change: impl FnOnce(&mut JobRecord)) -> Result<Arc<JobHandle>> {
        let before = self.job.record();
        let begun = self.job.update(|record| {
            change(record);
            (record.desired, record.state) = (Desired::Running, JobState::Running);
            record.attempts += 1;
        });
        begun.await?;
        let launched = self.launch().await;
        if launched.is_err() {
            self.job.update(|record| *record = before).await?;
        }
        launched
    }

    async fn launch(&self) -> Result<Arc<JobHandle>> {
        let (state, parts) = (self.job.folder.join("state"), self.parts.clone());
        let open = move || JobStore::open_with(&state, &parts.state, &parts.resources);
        let opened = tokio::task::spawn_blocking(open).await;
        let store = opened.map_err(|e| Error::Internal(format!("opening the state failed: {e}")))??;
        let record = self.job.record();
        let spec = JobSpec {
            name: record.name,
            incarnation: record.incarnation,
            graph: self.plan.graph.clone(),
            settings: self.plan.settings.clone(),
        };
        let environment = Environment {
            store: Arc::new(store),
            spool: self.job.folder.join("spool"),
            scratch: self.job.folder.join("scratch"),
            snapshots: self.plan.snapshots.clone(),
            clock: self.parts.clock.clone(),
        };
        let handle = {
            // The runtime that a job is launched on is that of all its tasks.
            let _jobs = self.parts.threads.enter();
            Arc::new(launch(spec, environment)?)
        };
        let (clock, interval) = (self.parts.clock.clone(), self.plan.settings.checkpoint_interval);
        let shape = Shape::new(&self.plan.graph, interval, handle.restored(), clock.now());
        *self.job.live.lock() = Some(Live::new(handle.clone(), shape, clock));
        // Rates count from here on.
        self.job.progress();
        Ok(handle)
    }

    async fn run(self, first: Arc<JobHandle>) {
        let mut attempt: Result<Arc<JobHandle>> = Ok(first);
        let mut failures = 0;
        loop {
            let (outcome, progress) = match attempt {
                Ok(handle) => {
                    let before = handle.restored().checkpoint;
                    let outcome = self.attend(&handle).await;
                    drop(handle);
                    let progress = self.close();
                    if progress.as_ref().is_some_and(|progress| progress.checkpoint > before) {
                        failures = 0;
                    }
                    (ended(outcome, *self.job.command.borrow(), &self.plan.declared), progress)
                }
                Err(error) => (Ended::Failed { kind: error.kind(), cause: error.to_string() }, None),
            };
            failures += u32::from(matches!(outcome, Ended::Failed { .. }));
            let command = *self.job.command.borrow();
            let pause = || self.plan.restart.pause(failures, self.chance());
            match next(outcome, command, pause) {
                Next::Again { pause, cause } => {
                    self.pause(pause, cause, progress).await;
                    attempt = self.again().await;
                }
                Next::Rest(state) => break self.rest(state, command, progress).await,
            }
        }
        let job = self.job.clone();
        *job.retry.lock() = None;
        // The graph first: its sources and sinks hold the log, which may be closed as soon as the job has ended.
        drop(self);
        job.active.send_replace(false);
    }

    /// Waits for an attempt's end, and forwards what is asked.
    async fn attend(&self, handle: &JobHandle) -> JobOutcome {
        let mut commands = self.job.command.subscribe();
        // Seen or not, what is asked by now counts.
        commands.mark_changed();
        let outcome = handle.outcome();
        tokio::pin!(outcome);
        let mut patience = None;
        loop {
            let impatient = async {
                match patience {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                outcome = &mut outcome => return outcome,
                Ok(()) = commands.changed() => match *commands.borrow() {
                    JobCommand::Run => {}
                    JobCommand::Stop | JobCommand::Pause => {
                        handle.stop();
                        patience = Some(tokio::time::Instant::now() + STOP_TIMEOUT);
                    }
                    JobCommand::Cancel => handle.cancel(),
                },
                () = impatient => {
                    tracing::warn!(job = %self.job.name(), "no last checkpoint within {STOP_TIMEOUT:?}: ended at the one before");
                    patience = None;
                    handle.cancel();
                }
            }
        }
    }

    /// Takes the last figures and lets go of the state store.
    fn close(&self) -> Option<Progress> {
        let progress = self.job.progress();
        *self.job.live.lock() = None;
        progress
    }

    /// Where in its range the pause after this attempt is.
    fn chance(&self) -> f64 {
        let record = self.job.record();
        chance(&record.incarnation, record.attempts)
    }

    /// Waits before the next attempt, unless the job is asked to end.
    async fn pause(&self, pause: Duration, cause: String, progress: Option<Progress>) {
        tracing::warn!(job = %self.job.name(), cause, ?pause, "the job failed and will be started again");
        let at = self.parts.clock.now().plus_millis(pause.as_millis() as i64);
        // The same as for attempts: worth keeping, not worth failing for.
        let failure = Failure { at: self.parts.clock.now(), cause: cause.clone() };
        let noted = self.job.update(|record| {
            record.last_failure = Some(failure);
            // What is shown while nothing runs.
            record.progress = progress.or(record.progress.take());
        });
        let _ = noted.await;
        *self.job.retry.lock() = Some(Retry { at, cause });
        let mut commands = self.job.command.subscribe();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = commands.wait_for(|command| *command != JobCommand::Run) => {}
        }
        *self.job.retry.lock() = None;
    }

    async fn again(&self) -> Result<Arc<JobHandle>> {
        if *self.job.command.borrow() != JobCommand::Run {
            // It rests at its last checkpoint; what is said here is not seen.
            return Err(Error::JobFailed { name: self.job.name(), cause: "asked to end".to_owned() });
        }
        // That many attempts were made is worth keeping, but not worth failing for.
        let noted = self.job.update(|record| {
            record.attempts += 1;
            record.restarts += 1;
        });
        let _ = noted.await;
        self.launch().await
    }

    async fn rest(&self, state: JobState, command: JobCommand, progress: Option<Progress>) {
        let name = self.job.name();
        match &state {
            JobState::Failed { cause } => tracing::error!(target: FAILED_JOB, job = %name, cause, "the job failed"),
            state => tracing::info!(job = %name, state = state.word(), "the job ended"),
        }
        if state == JobState::Finished {
            // All is delivered. Gone before the end is written down, so that a crash in between leaves no file behind: sinks
            // recognise what they delivered without its spool.
            let spool = self.job.folder.join("spool");
            let removed = spool.clone();
            if let Err(error) = blocking(move || remove_folder(&removed)).await {
                tracing::warn!(job = %name, path = %spool.display(), %error, "the spool of a finished job could not be removed");
            }
        }
        let saved = self.job.update(|record| {
            record.state = state;
            record.progress = progress.or(record.progress.take());
            match command {
                JobCommand::Stop => record.desired = Desired::Stopped,
                JobCommand::Cancel => record.desired = Desired::Cancelled,
                JobCommand::Run | JobCommand::Pause => {}
            }
        });
        if let Err(error) = saved.await {
            tracing::error!(job = %name, %error, "the job's end could not be written down; its checkpoints are intact");
        }
    }
}

/// How an attempt ended, without what only the runtime needs.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ended {
    Finished,
    Stopped,
    Cancelled,
    Failed { kind: ErrorKind, cause: String },
}

/// `command`: what the job was asked for. Without being asked to end it has failed, whatever it says.
fn ended(outcome: JobOutcome, command: JobCommand, declared: &BTreeMap<String, String>) -> Ended {
    match outcome {
        JobOutcome::Finished => Ended::Finished,
        JobOutcome::Stopped(_) => Ended::Stopped,
        JobOutcome::Cancelled if command == JobCommand::Run => {
            let cause = "the job was torn down, and nobody had asked for it".to_owned();
            Ended::Failed { kind: ErrorKind::Internal, cause }
        }
        JobOutcome::Cancelled => Ended::Cancelled,
        JobOutcome::Failed(error) => Ended::Failed { kind: error.kind(), cause: located(&error, declared) },
    }
}

/// An error behind the place where the script declares the table that it is about, where that is known.
fn located(error: &coulee_runtime::Error, declared: &BTreeMap<String, String>) -> String {
    match error.subject() {
        Some(Subject::Table(table)) => match declared.get(table) {
            Some(place) => format!("{place}: {error}"),
            None => error.to_string(),
        },
        _ => error.to_string(),
    }
}

/// Decides what follows an attempt's end. `pause`: how long after it the job is started again, unless it is time to give up.
fn next(ended: Ended, command: JobCommand, pause: impl FnOnce() -> Option<Duration>) -> Next {
    match (ended, command) {
        (Ended::Finished, _) => Next::Rest(JobState::Finished),
        (Ended::Stopped, _) => Next::Rest(JobState::Stopped),
        (Ended::Cancelled, JobCommand::Cancel) => Next::Rest(JobState::Cancelled),
        // The last checkpoint took too long: it rests at the one before.
        (Ended::Cancelled, JobCommand::Stop | JobCommand::Pause | JobCommand::Run) => Next::Rest(JobState::Stopped),
        // It was to end anyway; what it did since its last checkpoint is done again at the next start.
        (Ended::Failed { .. }, JobCommand::Cancel) => Next::Rest(JobState::Cancelled),
        (Ended::Failed { kind, cause }, command) => match (kind, command, pause()) {
            (ErrorKind::Unavailable | ErrorKind::Internal, JobCommand::Run, Some(pause)) => {
                Next::Again { pause, cause }
            }
            // It was to end anyway; what it did since its last checkpoint is done again at the next start.
            (ErrorKind::Unavailable | ErrorKind::Internal, JobCommand::Stop | JobCommand::Pause, _) => {
                Next::Rest(JobState::Stopped)
            }
            _ => Next::Rest(JobState::Failed { cause }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(kind: ErrorKind) -> Ended {
        Ended::Failed { kind, cause: "it broke".into() }
    }

    #[test]
    fn only_what_may_pass_by_itself_is_tried_again() {
        let pause = || Some(Duration::from_secs(7));
        let again = Next::Again { pause: Duration::from_secs(7), cause: "it broke".into() };
        let rest = Next::Rest(JobState::Failed { cause: "it broke".into() });
        assert_eq!(next(failed(ErrorKind::Unavailable), JobCommand::Run, pause), again);
        assert_eq!(next(failed(ErrorKind::Internal), JobCommand::Run, pause), again);
        assert_eq!(next(failed(ErrorKind::Unavailable), JobCommand::Run, || None), rest);
        assert_eq!(next(failed(ErrorKind::Invalid), JobCommand::Run, pause), rest);
        assert_eq!(next(failed(ErrorKind::Corrupt), JobCommand::Run, pause), rest);
    }

    #[test]
    fn a_job_that_was_asked_to_end_ends() {
        let pause = || Some(Duration::from_secs(7));
        let unavailable = failed(ErrorKind::Unavailable);
        assert_eq!(next(unavailable.clone(), JobCommand::Stop, pause), Next::Rest(JobState::Stopped));
        assert_eq!(next(unavailable, JobCommand::Cancel, pause), Next::Rest(JobState::Cancelled));
        assert_eq!(next(Ended::Finished, JobCommand::Stop, pause), Next::Rest(JobState::Finished));
    }

    #[test]
    fn an_end_that_nobody_asked_for_is_a_failure() {
        let pause = || Some(Duration::from_secs(7));
        let Next::Again { cause, .. } =
            next(ended(JobOutcome::Cancelled, JobCommand::Run, &BTreeMap::new()), JobCommand::Run, pause)
        else {
            panic!("it is started again");
        };
        assert!(cause.contains("nobody had asked"), "{cause}");
        assert_eq!(
            next(ended(JobOutcome::Cancelled, JobCommand::Cancel, &BTreeMap::new()), JobCommand::Cancel, pause),
            Next::Rest(JobState::Cancelled)
        );
    }

    #[tokio::test]
    async fn a_job_whose_supervisor_panics_rests_with_the_cause() {
        let record = super::super::record::tests::record();
        let job = Job::new(PathBuf::from("/nowhere"), record, false);
        job.active.send_replace(true);
        look_after(job.clone(), async { panic!("a fault of ours") }).await;
        assert!(!job.is_active(), "it can be started again");
        let JobState::Failed { cause } = job.record().state else { panic!("{:?}", job.record().state) };
        assert!(cause.contains("a fault of ours"), "{cause}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_report_does_not_wait_until_the_record_is_on_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let job = Job::new(dir.path().to_owned(), super::super::record::tests::record(), true);
        // A disk that does not answer.
        let writing = job.writing.lock();
        let changed = job.clone();
        let updated = tokio::spawn(async move { changed.update(|record| record.attempts = 7).await });
        while job.report().attempts != 7 {
            // The update runs on the other thread.
            std::thread::yield_now();
        }
        assert!(!updated.is_finished());
        drop(writing);
        updated.await.unwrap().unwrap();
        assert_eq!(JobRecord::load(dir.path()).unwrap().attempts, 7);
    }
}
