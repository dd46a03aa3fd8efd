//! The engine: a data folder with its log, its connectors and its jobs.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coulee_checkpoint::{StoreResources, StoreSettings};
use coulee_connectors::{PrintTarget, StandardOutput};
use coulee_log::Log;
use coulee_model::{Clock, JobName, SystemClock};
use coulee_runtime::job::{JobSettings, StateMismatch};
use coulee_runtime::table::{Connectors, TableSpec};
use coulee_sql::PlannedJob;
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio::time::MissedTickBehavior;

use crate::blocking::blocking;
use crate::folder::{DataFolder, remove_folder};
use crate::job::{self, Job, JobCommand, JobRecord, JobReport, JobThreads, Parts, Plan, RECORD_FILE};
use crate::kept::Kept;
use crate::plan::{self, targets};
use crate::registry;
use crate::restart::RestartPolicy;
use crate::settings::{EngineSettings, check_parallelism};
use crate::{Error, Result, snapshots};

/// How many full write buffers the state stores of all jobs may hold together.
const WRITE_BUFFERS: usize = 4;
/// How often a job's figures are taken while nobody looks, so that it is known what it did lately.
const FIGURES_INTERVAL: Duration = Duration::from_secs(1);
/// How often old segments of the log are looked for.
const RETENTION_INTERVAL: Duration = Duration::from_secs(60);

/// Makes the process fail on purpose where the variable `COULEE_FAILPOINTS` says so: for crash tests. To be called before anything else.
///
/// # Errors
/// When the variable is not of its form.
pub fn faults_from_environment() -> Result<()> {
    Ok(coulee_runtime::failpoints::from_environment()?)
}

/// What an engine is given beside its settings.
#[derive(Debug, Clone)]
pub struct Components {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where the connector `print` prints.
    pub print: Arc<dyn PrintTarget>,
}

impl Default for Components {
    fn default() -> Self {
        Components { clock: Arc::new(SystemClock), print: Arc::new(StandardOutput) }
    }
}

/// How the jobs of an engine that closes are to be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// The user has stopped them: a server does not start them again by itself.
    Stop,
    /// They go on with the next server.
    Pause,
}

/// How a job is started.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// The job.
    pub job: String,
    /// The snapshot that a job without state begins with: a name or a URL. Absent: its last checkpoint.
    pub from: Option<String>,
    /// Forget its state first. What it has delivered stays.
    pub fresh: bool,
    /// Subtasks per operator from now on; as before when absent.
    pub parallelism: Option<u32>,
    /// Whether stored state of operators that the job no longer has is dropped; otherwise it is an error.
    pub allow_non_restored_state: bool,
}

impl Start {
    /// From its last checkpoint, as it was.
    pub fn of(job: &str) -> Self {
        Start { job: job.to_owned(), ..Start::default() }
    }
}

/// Stored state that does not fit the query is the statement's fault.
fn at_statement(error: Error, planned: &PlannedJob) -> Error {
    let mismatch = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<StateMismatch>());
    let place = mismatch.and_then(|why| planned.error_at(why.operator, &why.message, &why.advice));
    place.map_or(error, Error::Sql)
}

/// What the last server was at when it ended.
#[derive(Debug)]
pub struct Left {
    jobs: Vec<Arc<Job>>,
    scripts: Vec<PathBuf>,
}

/// An engine over one data folder. Nobody else uses the folder while it lives.
#[derive(Debug)]
pub struct Engine {
    pub(crate) connectors: Connectors,
    pub(crate) jobs: Mutex<BTreeMap<JobName, Arc<Job>>>,
    pub(crate) settings: EngineSettings,
    /// The tables and views that outlive their scripts.
    pub(crate) kept: Kept,
    pub(crate) parts: Parts,
    closing: AtomicBool,
    /// Of each name, the turn to start its job.
    starting: Mutex<BTreeMap<JobName, Arc<tokio::sync::Mutex<()>>>>,
    // Before what jobs hold on to.
    threads: JobThreads,
    // Before the folder, whose lock must outlive it.
    log: Arc<Log>,
    pub(crate) folder: DataFolder,
}

impl Engine {
    /// Whether an engine has made this folder its data folder.
    pub fn is_data_folder(path: &Path) -> bool {
        DataFolder::is_one(path)
    }

    /// Opens the data folder, and makes it if it is absent. To be called within a tokio runtime. Blocks for the disk.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::NewerFormat`], [`Error::ForeignFolder`], [`Error::Damaged`], [`Error::Io`],
    /// [`Error::Invalid`] for a setting, and what the log says.
    pub fn open(data_dir: &Path, settings: EngineSettings) -> Result<Arc<Self>> {
        Self::open_with(data_dir, settings, Components::default())
    }

    /// The same, with other components.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(data_dir: &Path, settings: EngineSettings, components: Components) -> Result<Arc<Self>> {
        settings.check()?;
        let folder = DataFolder::open(data_dir)?;
        let Components { clock, print } = components;
        let base = std::env::current_dir().map_err(|e| Error::io("find", Path::new("."), e))?;
        let log = Arc::new(Log::open(&folder.log(), settings.log.clone(), clock.clone())?);
        let jobs = load_jobs(&folder)?;
        let state = StoreSettings::from(&settings.state);
        let shared = StoreResources::shared(state.block_cache_bytes, WRITE_BUFFERS * state.write_buffer_bytes);
        let resources = shared.with_clock(clock.clone());
        let threads = JobThreads::start()?;
        let engine = Arc::new(Engine {
            connectors: registry::connectors(&log, &base, print),
            jobs: Mutex::new(jobs),
            parts: Parts {
                clock,
                state,
                resources,
                restart: settings.restart.clone(),
                base,
                threads: threads.handle(),
            },
            settings,
            kept: Kept::open(folder.catalog())?,
            closing: AtomicBool::new(false),
            starting: Mutex::default(),
            threads,
            log,
            folder,
        });
        engine.keep_retention();
        engine.keep_figures();
        Ok(engine)
    }

    /// The log.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Time.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.parts.clock
    }

    /// Every connector, for its documentation.
    pub fn connectors(&self) -> &Connectors {
        &self.connectors
    }

    /// The data folder.
    pub fn data_dir(&self) -> &Path {
        self.folder.root()
    }

    /// Every job, by name.
    pub fn jobs(&self) -> Vec<JobReport> {
        let jobs: Vec<Arc<Job>> = self.jobs.lock().values().cloned().collect();
        jobs.iter().map(|job| job.report()).collect()
    }

    /// A job.
    ///
    /// # Errors
    /// [`Error::NoJob`], which lists the names there are.
    pub fn job(&self, name: &str) -> Result<JobReport> {
        self.find(name).map(|job| job.report())
    }

    pub(crate) fn find(&self, name: &str) -> Result<Arc<Job>> {
        let jobs = self.jobs.lock();
        let found = JobName::new(name).ok().and_then(|name| jobs.get(&name).cloned());
        found.ok_or_else(|| Error::NoJob { name: name.to_owned(), existing: jobs.keys().cloned().collect() })
    }

    /// Resumes a job from its last checkpoint, or begins it with a snapshot, planned again from its script.
    ///
    /// # Errors
    /// [`Error::NoJob`], [`Error::JobState`] for one that runs, has finished, or has state that the snapshot would replace, and
    /// the script's.
    pub async fn start_job(&self, start: Start) -> Result<JobReport> {
        let job = self.find(&start.job)?;
        let record = job.record();
        if record.state == job::JobState::Finished && !start.fresh {
            let advice = "run its script with --fresh to start over".to_owned();
            return Err(Error::JobState { name: record.name, state: "has finished", advice });
        }
        let connectors = self.connectors.clone();
        let (mut script, index) = (record.script, record.statement);
        if let Some(parallelism) = start.parallelism {
            check_parallelism(parallelism)?;
            script.parallelism = parallelism;
        }
        let stored = script.clone();
        let (planned, outputs) = blocking(move || plan::replan(&connectors, &script, index)).await?;
        if start.parallelism.is_some_and(|wanted| wanted != planned.settings.parallelism) {
            let set = planned.settings.parallelism;
            return Err(Error::Invalid(format!(
                "the script of job '{}' sets 'parallelism.default' to {set}, which comes first: change it there and submit the script again",
                start.job
            )));
        }
        self.prepare(&job, &start).await?;
        self.launch(&job, planned, outputs, start.allow_non_restored_state, |record| record.script = stored).await?;
        Ok(job.report())
    }

    /// Forgets and restores what a start asks for, while the job rests.
    async fn prepare(&self, job: &Arc<Job>, start: &Start) -> Result<()> {
        if !start.fresh && start.from.is_none() {
            return Ok(());
        }
        // Found before anything is forgotten.
        let kept = match &start.from {
            Some(from) => Some(self.savepoint(from, Some(&start.job)).await?),
            None => None,
        };
        let _resting = job.keep_at_rest()?;
        if start.fresh {
            let folder = job.folder.clone();
            blocking(move || {
                remove_folder(&folder.join("spool"))?;
                remove_folder(&folder.join("state"))
            })
            .await?;
            // What it delivers from now on is told from what it delivered before.
            job.update(JobRecord::begin_anew).await?;
        }
        match kept {
            Some(kept) => self.restore_job(job, &kept).await,
            None => Ok(()),
        }
    }

    /// Takes a last checkpoint and ends the job; answers when it has ended. A job that does not run just stays stopped.
    ///
    /// # Errors
    /// [`Error::NoJob`]; [`Error::Io`] when that cannot be written down.
    pub async fn stop_job(&self, name: &str) -> Result<JobReport> {
        self.end_job(name, JobCommand::Stop, job::Desired::Stopped).await
    }

    /// Ends the job at once. Its state is kept: it can be started again from its last checkpoint.
    ///
    /// # Errors
    /// As [`stop_job`](Self::stop_job).
    pub async fn cancel_job(&self, name: &str) -> Result<JobReport> {
        self.end_job(name, JobCommand::Cancel, job::Desired::Cancelled).await
    }

    async fn end_job(&self, name: &str, command: JobCommand, desired: job::Desired) -> Result<JobReport> {
        let job = self.find(name)?;
        if job.is_active() {
            // First on disk: a server that dies meanwhile must not start it again.
            job.update(|record| record.desired = desired).await?;
            job.ask(command);
            job.ended().await;
        } else if job.record().is_to_resume() {
            let ended = job.update(|record| {
                record.desired = desired;
                record.state = match command {
                    JobCommand::Cancel => job::JobState::Cancelled,
                    _ => job::JobState::Stopped,
                };
            });
            ended.await?;
        }
        Ok(job.report())
    }

    /// Waits until a job does not run, and says how it ended.
    ///
    /// # Errors
    /// [`Error::NoJob`].
    pub async fn wait_job(&self, name: &str) -> Result<JobReport> {
        let job = self.find(name)?;
        job.ended().await;
        Ok(job.report())
    }

    /// What was running when the last server ended. To be asked before the first call is answered: what clients bring is not left.
    pub fn left(&self) -> Left {
        let jobs: Vec<Arc<Job>> = self.jobs.lock().values().cloned().collect();
        let resting = jobs.into_iter().filter(|job| job.record().is_to_resume()).collect();
        Left { jobs: resting, scripts: self.left_scripts() }
    }

    /// Starts what is left. What cannot be started is logged and left as it is.
    pub async fn resume(self: &Arc<Self>, left: Left) {
        for job in left.jobs {
            let name = job.name();
            match self.start_job(Start::of(name.as_str())).await {
                Ok(_) => tracing::info!(job = %name, "the job goes on"),
                Err(error) => tracing::error!(job = %name, %error, "the job cannot go on"),
            }
        }
        self.resume_scripts(left.scripts);
    }

    /// Waits until no other script starts a job of this name; none does as long as the answer lives.
    pub(crate) async fn turn_of(&self, name: &JobName) -> OwnedMutexGuard<()> {
        let turn = self.starting.lock().entry(name.clone()).or_default().clone();
        turn.lock_owned().await
    }

    /// Ends all jobs with a last checkpoint, and starts none from now on.
    pub async fn close(&self, how: Closing) {
        self.closing.store(true, Ordering::SeqCst);
        let jobs: Vec<Arc<Job>> = self.jobs.lock().values().cloned().collect();
        let command = match how {
            Closing::Stop => JobCommand::Stop,
            Closing::Pause => JobCommand::Pause,
        };
        jobs.iter().filter(|job| job.is_active()).for_each(|job| job.ask(command));
        for job in jobs {
            job.ended().await;
        }
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Starts a planned job; `change` is made to its record with it. `drops_state` as for [`Start::allow_non_restored_state`].
    pub(crate) async fn launch(
        &self,
        job: &Arc<Job>,
        planned: PlannedJob,
        outputs: Vec<TableSpec>,
        drops_state: bool,
        change: impl FnOnce(&mut JobRecord),
    ) -> Result<()> {
        if self.is_closing() {
            return Err(Error::Invalid("the engine is closing: no job is started any more".to_owned()));
        }
        let mut places = snapshots::places_of(&planned.settings);
        let plan = self.plan(job, &planned, drops_state).await?;
        let (sinks, states) = (targets(&outputs), planned.graph.states());
        let change = |record: &mut JobRecord| {
            (record.sinks, record.states) = (sinks, states);
            // Those that it was given by hand stay known.
            let former = std::mem::take(&mut record.places);
            places.extend(former.into_iter().filter(|place| !places.contains(place)).collect::<Vec<_>>());
            record.places = places;
            change(record);
        };
        let started = job::start(job, plan, &self.parts, change).await;
        started.map_err(|error| at_statement(error, &planned))?;
        job.set_outputs(outputs);
        Ok(())
    }

    /// What a planned job runs with; `drops_state`: stored state of operators that it no longer has.
    async fn plan(&self, job: &Arc<Job>, planned: &PlannedJob, drops_state: bool) -> Result<Plan> {
        let (graph, settings) = (planned.graph.clone(), planned.settings.clone());
        let (name, base, declared) = (job.name(), self.parts.base.clone(), planned.declared.clone());
        let runtime = JobSettings {
            checkpoint_interval: settings.checkpoint_interval,
            memory_budget_bytes: settings.memory_budget_bytes,
            batch_rows: settings.batch_rows,
            allow_non_restored_state: settings.ignore_unclaimed_state || drops_state,
        };
        let restart = RestartPolicy::new(&self.parts.restart, settings.restart);
        let grace = Duration::from_millis(self.settings.snapshots.garbage_grace_ms);
        blocking(move || {
            let snapshots = snapshots::policy(&settings, &graph, &name, &base, grace)?;
            Ok(Plan { graph, settings: runtime, restart, snapshots, declared })
        })
        .await
    }

    /// Lets the log remove what it need not keep, now and then, as long as the engine lives.
    fn keep_retention(self: &Arc<Self>) {
        let engine = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(RETENTION_INTERVAL).await;
                let Some(engine) = engine.upgrade() else { return };
                let log = engine.log.clone();
                drop(engine);
                match tokio::task::spawn_blocking(move || log.enforce_retention()).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => tracing::warn!(%error, "old records could not be removed"),
                    Err(error) => tracing::error!(%error, "the removal of old records broke off; it is tried again"),
                }
            }
        });
    }

    /// Takes the figures of all jobs, now and then, as long as the engine lives: of all at once, so that many idle ones wake it up once.
    fn keep_figures(self: &Arc<Self>) {
        let engine = Arc::downgrade(self);
        self.threads.handle().spawn(async move {
            let mut ticks = tokio::time::interval(FIGURES_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                ticks.tick().await;
                let Some(engine) = engine.upgrade() else { return };
                let jobs: Vec<Arc<Job>> = engine.jobs.lock().values().cloned().collect();
                for job in jobs {
                    // A fault in the figures of one job must not end those of all.
                    if std::panic::catch_unwind(AssertUnwindSafe(|| job.sample())).is_err() {
                        tracing::error!(job = %job.name(), "the job's figures could not be taken");
                    }
                }
            }
        });
    }
}

/// Reads the records of all jobs.
fn load_jobs(folder: &DataFolder) -> Result<BTreeMap<JobName, Arc<Job>>> {
    let jobs = folder.jobs();
    let mut loaded = BTreeMap::new();
    for entry in std::fs::read_dir(&jobs).map_err(|e| Error::io("list", &jobs, e))? {
        let path = entry.map_err(|e| Error::io("list", &jobs, e))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| JobName::new(name).ok());
        let Some(name) = name.filter(|_| path.join(RECORD_FILE).exists()) else {
            // A job is known once its record is there; what precedes that holds nothing.
            tracing::warn!(path = %path.display(), "not a job; left alone");
            continue;
        };
        loaded.insert(name, Job::new(path.clone(), JobRecord::load(&path)?, true));
    }
    Ok(loaded)
}
