//! A job: its record on disk, what runs of it, and what it tells of itself.

mod diagnose;
mod figure_history;
mod figures;
mod progress;
mod record;
mod rejections;
mod supervise;
mod threads;

use std::path::PathBuf;
use std::sync::Arc;

use coulee_model::{Clock, JobName, Timestamp};
use coulee_runtime::job::JobHandle;
use coulee_runtime::state::StateDescriptor;
use coulee_runtime::table::TableSpec;
use parking_lot::Mutex;
use tokio::sync::watch;

pub use diagnose::{Finding, FindingCode, QUIET, diagnose};
use figure_history::FigureHistory;
pub use figures::{Figures, Rates, Snapshot, Split, Subtask};
pub(crate) use progress::Shape;
pub use progress::{Operator, OperatorKind, Progress};
pub use record::{Desired, Failure, JobState, SinkTarget};
pub(crate) use record::{JobRecord, RECORD_FILE, StoredScript};
pub use rejections::Rejection;
pub(crate) use supervise::{Parts, Plan, start};
pub(crate) use threads::JobThreads;

use crate::blocking::blocking;
use crate::{Error, Result};

/// A job that has failed and will be started again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// When.
    pub at: Timestamp,
    /// Why it failed.
    pub cause: String,
}

/// What a job tells of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct JobReport {
    /// Its name.
    pub name: JobName,
    /// What tells it from a namesake.
    pub incarnation: String,
    /// Where it is in its life.
    pub state: JobState,
    /// Set while it waits to be started again.
    pub retry: Option<Retry>,
    /// Where its script was from.
    pub origin: String,
    /// Its script.
    pub script: String,
    /// Which statement of the script it is, from 0.
    pub statement: usize,
    /// When it was made.
    pub created_at: Timestamp,
    /// How many times it was started.
    pub attempts: u32,
    /// How many of those starts followed a failure by themselves.
    pub restarts: u32,
    /// The last failure that was followed by another start.
    pub last_failure: Option<Failure>,
    /// Subtasks per operator, unless the script says otherwise.
    pub parallelism: u32,
    /// The tables that it writes to.
    pub sinks: Vec<SinkTarget>,
    /// The figures now, or when it last ended; `None` before the first start.
    pub progress: Option<Progress>,
    /// Of a running job that delivers nothing: what keeps it from delivering.
    pub findings: Vec<Finding>,
    /// What its operators keep in checkpoints, as of its last start.
    pub states: Vec<StateDescriptor>,
    /// Of a running job: how its stored state differs from what it keeps, where that does not keep it from going on.
    pub notes: Vec<String>,
}

/// What is asked of a running job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobCommand {
    Run,
    /// A last checkpoint, then the end.
    Stop,
    /// The same, but the job is meant to go on with the next server.
    Pause,
    Cancel,
}

/// What runs of a job.
///
/// SUBTLE: whoever holds a handle keeps the state store open. Readers take their figures under the lock and never keep the
/// handle, so that the store is closed when the supervisor says that the job has ended.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) handle: Arc<JobHandle>,
    pub(crate) shape: Shape,
    pub(crate) history: FigureHistory,
    pub(crate) clock: Arc<dyn Clock>,
    /// What the handle counted when a sample was last taken, and how many samples ago that changed.
    events: u64,
    quiet: u64,
}

/// Samples without a change after which most are left out: by then every rate is 0.
const QUIET_AFTER: u64 = figure_history::WINDOW.as_secs() + 1;
/// One sample in so many is taken nevertheless.
const QUIET_EVERY: u64 = 10;

impl Live {
    pub(crate) fn new(handle: Arc<JobHandle>, shape: Shape, clock: Arc<dyn Clock>) -> Self {
        Live { handle, shape, history: FigureHistory::default(), clock, events: 0, quiet: 0 }
    }

    /// Takes the figures while nobody looks; nearly free while the job has nothing to do.
    fn sample(&mut self) {
        let events = self.handle.events();
        self.quiet = if events == self.events { self.quiet + 1 } else { 0 };
        self.events = events;
        if self.quiet > QUIET_AFTER && !self.quiet.is_multiple_of(QUIET_EVERY) {
            self.history.nothing_new(self.shape.elapsed());
        } else {
            self.progress();
        }
    }

    fn progress(&mut self) -> Progress {
        let now = self.clock.now();
        let mut progress = self.shape.progress(&self.handle.status());
        progress.at = Some(now);
        self.history.observe(&mut progress, now);
        progress
    }
}

/// A job that nobody starts while this lives.
#[derive(Debug)]
pub(crate) struct AtRest(Arc<Job>);

impl Drop for AtRest {
    fn drop(&mut self) {
        self.0.active.send_replace(false);
    }
}

/// A job of an engine.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) folder: PathBuf,
    /// Whether there is a record on disk; a query that prints has none.
    is_kept: bool,
    record: Mutex<JobRecord>,
    /// Held by whoever writes the record down.
    writing: Mutex<()>,
    live: Mutex<Option<Live>>,
    /// The tables that it writes to, as its last plan had them.
    outputs: Mutex<Vec<TableSpec>>,
    retry: Mutex<Option<Retry>>,
    command: watch::Sender<JobCommand>,
    /// Whether a supervisor is at work.
    active: watch::Sender<bool>,
}

impl Job {
    /// A job that rests.
    pub(crate) fn new(folder: PathBuf, record: JobRecord, is_kept: bool) -> Arc<Self> {
        Arc::new(Job {
            folder,
            is_kept,
            record: Mutex::new(record),
            writing: Mutex::new(()),
            live: Mutex::new(None),
            outputs: Mutex::new(Vec::new()),
            retry: Mutex::new(None),
            command: watch::Sender::new(JobCommand::Run),
            active: watch::Sender::new(false),
        })
    }

    pub(crate) fn name(&self) -> JobName {
        self.record.lock().name.clone()
    }

    pub(crate) fn record(&self) -> JobRecord {
        self.record.lock().clone()
    }

    /// The tables that it writes to, as its last plan had them; none before it was planned in this process.
    pub(crate) fn outputs(&self) -> Vec<TableSpec> {
        self.outputs.lock().clone()
    }

    pub(crate) fn set_outputs(&self, outputs: Vec<TableSpec>) {
        *self.outputs.lock() = outputs;
    }

    pub(crate) fn is_active(&self) -> bool {
        *self.active.borrow()
    }

    /// What runs of it; whoever keeps this keeps the state store open, so only for as long as an answer takes.
    pub(crate) fn handle(&self) -> Option<Arc<JobHandle>> {
        self.live.lock().as_ref().map(|live| live.handle.clone())
    }

    /// Keeps a job at rest for as long as the answer lives: nobody starts it.
    ///
    /// # Errors
    /// [`Error::JobState`] for one that is at work.
    pub(crate) fn keep_at_rest(self: &Arc<Self>) -> Result<AtRest> {
        if self.active.send_replace(true) {
            let advice = "stop it first with `coulee job stop`, or wait for its end".to_owned();
            return Err(Error::JobState { name: self.name(), state: "is at work", advice });
        }
        Ok(AtRest(self.clone()))
    }

    /// Changes the record, and answers once that is on disk. Reports do not wait for the disk: the record is locked for the change alone.
    ///
    /// # Errors
    /// When it cannot be written; the change then holds in memory only.
    pub(crate) async fn update(self: &Arc<Self>, change: impl FnOnce(&mut JobRecord)) -> Result<()> {
        change(&mut self.record.lock());
        if !self.is_kept {
            return Ok(());
        }
        let job = self.clone();
        blocking(move || job.write_down()).await
    }

    /// Writes the record as it is by the time that it is this one's turn: what is on disk never goes back to an earlier one. Blocks for an fsync.
    fn write_down(&self) -> Result<()> {
        let _turn = self.writing.lock();
        let record = self.record.lock().clone();
        record.save(&self.folder)
    }

    /// Asks a running job to end. A stronger command is not taken back by a weaker one.
    pub(crate) fn ask(&self, command: JobCommand) {
        self.command.send_if_modified(|now| {
            let stronger = matches!(
                (*now, command),
                (JobCommand::Run, _) | (JobCommand::Pause, JobCommand::Stop) | (_, JobCommand::Cancel)
            );
            let changed = stronger && *now != command;
            if changed {
                *now = command;
            }
            changed
        });
    }

    /// Waits until no supervisor is at work.
    pub(crate) async fn ended(&self) {
        // The sender lives in `self`: it cannot be gone.
        let _ = self.active.subscribe().wait_for(|active| !active).await;
    }

    /// To be called every second, so that it is known what the job did lately.
    pub(crate) fn sample(&self) {
        if let Some(live) = self.live.lock().as_mut() {
            live.sample();
        }
    }

    /// The figures now, or when the job last ended.
    pub(crate) fn progress(&self) -> Option<Progress> {
        let live = self.live.lock().as_mut().map(Live::progress);
        live.or_else(|| self.record.lock().progress.clone())
    }

    pub(crate) fn report(&self) -> JobReport {
        let progress = self.progress();
        let record = self.record.lock().clone();
        // A record that says "running" without anybody at work was left by a process that was killed.
        let state = match record.state {
            JobState::Running if !self.is_active() => JobState::Stopped,
            state => state,
        };
        let retry = self.retry.lock().clone();
        let findings = findings(&state, retry.as_ref(), progress.as_ref());
        JobReport {
            name: record.name,
            incarnation: record.incarnation,
            state,
            retry,
            origin: record.script.origin,
            script: record.script.text,
            statement: record.statement,
            created_at: record.created_at,
            attempts: record.attempts,
            restarts: record.restarts,
            last_failure: record.last_failure,
            parallelism: record.script.parallelism,
            sinks: record.sinks,
            progress,
            findings,
            states: record.states,
            notes: self.live.lock().as_ref().map(|live| live.handle.notes().to_vec()).unwrap_or_default(),
        }
    }
}

/// What keeps a running job from delivering.
fn findings(state: &JobState, retry: Option<&Retry>, progress: Option<&Progress>) -> Vec<Finding> {
    match (state, retry, progress) {
        (JobState::Running, Some(retry), _) => vec![Finding::restarting(&retry.cause, retry.at)],
        (JobState::Running, None, Some(progress)) => match progress.at {
            Some(at) => diagnose(progress, at),
            None => Vec::new(),
        },
        _ => Vec::new(),
    }
}
