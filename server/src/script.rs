//! Runs the statements of a script in order: definitions at once, `INSERT`s as jobs, `SELECT`s until they end.

mod restore;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use coulee_model::JobName;
use coulee_runtime::table::TableSpec;
use coulee_sql::{Effect, PlannedJob, QuerySink, Statement, parse_script};
use tokio::sync::mpsc::UnboundedSender;

use crate::blocking::blocking;
use crate::engine::Engine;
use crate::folder::{remove_folder, write_json};
use crate::forget::Forget;
use crate::job::{Job, JobRecord, JobReport, JobState, StoredScript};
use crate::plan::Planner;
use crate::settings::check_parallelism;
use crate::{Error, Result};
use restore::Restore;

/// A script to be run.
#[derive(Clone, Default)]
pub struct Script {
    /// The statements.
    pub text: String,
    /// What messages call it: its file.
    pub origin: String,
    /// The name of its jobs, unless the script says otherwise; the origin's stem when absent.
    pub name: Option<String>,
    /// Subtasks per operator, unless the script says otherwise; the engine's when absent.
    pub parallelism: Option<u32>,
    /// Forget what its jobs have done, and begin anew.
    pub fresh: bool,
    /// The snapshot that a job of the script begins with which is new: a name or a URL.
    pub from: Option<String>,
    /// Whether stored state of operators that a job no longer has is dropped; otherwise it is an error.
    pub allow_non_restored_state: bool,
    /// Where a `SELECT` prints; without it, a `SELECT` is refused.
    pub query_sink: Option<QuerySink>,
}

/// What happens while a script runs, in order.
#[derive(Debug, Clone)]
pub enum ScriptEvent {
    /// A statement without rows has run: what it did.
    Done(String),
    /// Something to know of the statement that has run: a setting without effect, a clause that nothing enforces.
    Note(String),
    /// An answer in text.
    Text(String),
    /// An answer in rows.
    Table(RecordBatch),
    /// A job has started or resumed.
    Started(JobReport),
    /// A job had finished before and was left alone.
    AlreadyFinished(JobReport),
    /// A job that the script waited for has ended.
    Ended(JobReport),
    /// The job of an `EXPLAIN ANALYZE` has ended: what its operators did. Its plan comes before, as text.
    Analyzed(JobReport),
}

/// What a script that has run leaves behind.
#[derive(Debug, Clone, Default)]
pub struct ScriptRun {
    /// The jobs that it started and did not wait for. They run on.
    pub running: Vec<JobName>,
    /// Whether every statement was run; otherwise the engine was closed, or a job that was waited for was stopped.
    pub complete: bool,
}

impl Engine {
    /// Runs a script. A job that exists is resumed if it has not finished, and left alone if it has.
    ///
    /// # Errors
    /// The first statement's that fails; [`Error::JobFailed`] for a job that the script waits for. Jobs that were started run on.
    pub async fn run_script(
        self: &Arc<Self>,
        script: Script,
        events: UnboundedSender<ScriptEvent>,
    ) -> Result<ScriptRun> {
        let stored = self.stored(&script)?;
        self.run_statements(script, stored, false, events).await
    }

    /// `goes_on`: its jobs may be running already, as the script goes on after a restart of the server.
    async fn run_statements(
        self: &Arc<Self>,
        script: Script,
        stored: StoredScript,
        goes_on: bool,
        events: UnboundedSender<ScriptEvent>,
    ) -> Result<ScriptRun> {
        let statements = parse_script(&stored.text, &stored.origin)?;
        let forget = match (script.fresh, &stored.from) {
            (false, _) => None,
            (true, None) => Some(Forget::All),
            (true, Some(_)) => Some(Forget::State),
        };
        if let Some(what) = forget {
            self.forget_script(&stored.name, what).await?;
        }
        let planner = Planner::new(&self.connectors, &stored, script.query_sink.clone());
        let stored_from = stored.from.clone();
        let mut run = Running {
            engine: self.clone(),
            stored,
            forget,
            restore: Restore::new(stored_from, &statements),
            drops_state: script.allow_non_restored_state,
            goes_on,
            events,
            planner,
            is_last: false,
            out: ScriptRun::default(),
        };
        let last = statements.len().saturating_sub(1);
        for (index, statement) in statements.into_iter().enumerate() {
            run.is_last = index == last;
            if self.is_closing() || !run.statement(index, statement).await? {
                return Ok(run.out);
            }
        }
        if let Some(unused) = run.restore.unused() {
            return Err(unused);
        }
        run.out.complete = true;
        Ok(run.out)
    }

    /// Runs a script that goes on after a restart of the server, until all its jobs have been started.
    ///
    /// # Errors
    /// As [`run_script`](Self::run_script).
    pub async fn submit(self: &Arc<Self>, script: Script, events: UnboundedSender<ScriptEvent>) -> Result<ScriptRun> {
        let stored = self.stored(&script)?;
        self.submit_stored(script, stored, false, events).await
    }

    async fn submit_stored(
        self: &Arc<Self>,
        script: Script,
        stored: StoredScript,
        goes_on: bool,
        events: UnboundedSender<ScriptEvent>,
    ) -> Result<ScriptRun> {
        parse_script(&stored.text, &stored.origin)?;
        let scripts = self.folder.scripts();
        let path = scripts.join(format!("{}.json", stored.name));
        let (written, content) = (path.clone(), stored.clone());
        blocking(move || {
            std::fs::create_dir_all(&scripts).map_err(|e| Error::io("create", &scripts, e))?;
            write_json(&written, &content)
        })
        .await?;
        let run = self.run_statements(script, stored, goes_on, events).await;
        if !self.is_closing()
            && let Err(error) = std::fs::remove_file(&path)
        {
            tracing::warn!(path = %path.display(), %error, "a script that has run could not be removed; it is run again at the next start");
        }
        run
    }

    /// The files of scripts that the last server did not get to the end of.
    pub(crate) fn left_scripts(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.folder.scripts()) else { return Vec::new() };
        entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
    }

    /// Goes on with such scripts.
    pub(crate) fn resume_scripts(self: &Arc<Self>, paths: Vec<PathBuf>) {
        for path in paths {
            let read = std::fs::read(&path).map_err(|e| e.to_string());
            let stored = read.and_then(|text| serde_json::from_slice(&text).map_err(|e| e.to_string()));
            match stored {
                Ok(stored) => {
                    let running = tokio::spawn(go_on(self.clone(), stored));
                    tokio::spawn(async move {
                        if let Err(error) = running.await {
                            tracing::error!(path = %path.display(), %error, "the script broke off; it is run again at the next start");
                        }
                    });
                }
                Err(error) => tracing::error!(path = %path.display(), error, "the script cannot go on"),
            }
        }
    }

    fn stored(&self, script: &Script) -> Result<StoredScript> {
        let parallelism = script.parallelism.unwrap_or(self.settings.parallelism);
        check_parallelism(parallelism)?;
        let name = match &script.name {
            Some(name) => JobName::new(name)?,
            None => name_of(&script.origin),
        };
        Ok(StoredScript {
            text: script.text.clone(),
            origin: script.origin.clone(),
            name,
            parallelism,
            from: script.from.clone(),
            catalog: self.kept.definitions().as_ref().clone(),
        })
    }
}

async fn go_on(engine: Arc<Engine>, stored: StoredScript) {
    let name = stored.name.clone();
    // Nobody listens any more.
    let (events, _) = tokio::sync::mpsc::unbounded_channel();
    if let Err(error) = engine.submit_stored(Script::default(), stored, true, events).await {
        tracing::error!(script = %name, %error, "the script cannot go on");
    }
}

/// The stem of a file's name, with what a job's name cannot have replaced.
fn name_of(origin: &str) -> JobName {
    let stem = Path::new(origin).file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let legal = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' };
    let name: String = stem.chars().map(legal).take(200).collect();
    JobName::new(name.trim_matches('-')).or_else(|_| JobName::new("job")).expect("a valid name")
}

/// A script under way.
struct Running {
    engine: Arc<Engine>,
    stored: StoredScript,
    /// What of a job is forgotten before it starts.
    forget: Option<Forget>,
    restore: Restore,
    drops_state: bool,
    goes_on: bool,
    events: UnboundedSender<ScriptEvent>,
    planner: Planner,
    /// Whether this is the last statement: nothing has to wait for its job.
    is_last: bool,
    out: ScriptRun,
}

impl Running {
    /// Runs one statement; says whether to go on.
    async fn statement(&mut self, index: usize, statement: Statement) -> Result<bool> {
        let (effect, outputs) = self.plan(&statement)?;
        self.stored.catalog = self.planner.taken_over();
        let line = statement.line();
        for note in self.planner.notes() {
            self.tell(ScriptEvent::Note(format!("{}:{line}: {note}", self.stored.origin)));
        }
        let event = match effect {
            Effect::Insert(planned) => return self.insert(index, planned, outputs).await,
            Effect::Query(planned, _) => return self.query(index, planned).await,
            Effect::Analyze(planned, plan) => return self.analyze(index, planned, plan).await,
            Effect::Done(text) => ScriptEvent::Done(text),
            Effect::Explain(text) => ScriptEvent::Text(text),
            Effect::Table(rows) => ScriptEvent::Table(rows),
        };
        self.tell(event);
        Ok(true)
    }

    /// Plans beside the asynchronous tasks: it may make streams and list files. What is to be kept is on disk then.
    fn plan(&mut self, statement: &Statement) -> Result<(Effect, Vec<TableSpec>)> {
        let (planner, kept) = (&mut self.planner, &self.engine.kept);
        tokio::task::block_in_place(|| {
            let effect = planner.execute(statement)?;
            kept.change(planner.catalog_changes())?;
            Ok((effect, planner.outputs()))
        })
    }

    async fn insert(&mut self, index: usize, planned: PlannedJob, outputs: Vec<TableSpec>) -> Result<bool> {
        let name = JobName::new(planned.name.clone())?;
        let waits = planned.settings.wait && !self.is_last;
        let turn = self.engine.turn_of(&name).await;
        if let Some(what) = self.forget {
            self.engine.forget_job(&name, what).await?;
        }
        let known = self.engine.jobs.lock().get(&name).cloned();
        let job = match known {
            Some(job) if self.restore.wanted.is_some() && !self.goes_on => {
                let advice = "leave --from out to go on with its own state, or give --fresh to forget it".to_owned();
                return Err(Error::JobState { name: job.name(), state: "exists already", advice });
            }
            Some(job) if job.record().state == JobState::Finished => {
                job.set_outputs(outputs);
                self.tell(ScriptEvent::AlreadyFinished(job.report()));
                return Ok(true);
            }
            Some(job) if job.is_active() && self.goes_on => job,
            Some(job) => {
                self.resume(&job, index, planned, outputs).await?;
                job
            }
            None => self.create(&name, index, planned, outputs).await?,
        };
        drop(turn);
        self.tell(ScriptEvent::Started(job.report()));
        if waits {
            return self.wait(&job).await;
        }
        self.out.running.push(name);
        Ok(true)
    }

    async fn resume(&self, job: &Arc<Job>, index: usize, planned: PlannedJob, outputs: Vec<TableSpec>) -> Result<()> {
        let stored = self.stored.clone();
        let change = move |record: &mut JobRecord| {
            record.script = stored;
            record.statement = index;
        };
        self.engine.launch(job, planned, outputs, self.drops_state, change).await
    }

    async fn create(
        &mut self,
        name: &JobName,
        index: usize,
        planned: PlannedJob,
        outputs: Vec<TableSpec>,
    ) -> Result<Arc<Job>> {
        let folder = self.engine.folder.job(name);
        // Remains of a start that was killed before there was a record.
        let made = folder.clone();
        blocking(move || {
            remove_folder(&made)?;
            std::fs::create_dir_all(&made).map_err(|e| Error::io("create", &made, e))
        })
        .await?;
        let now = self.engine.parts.clock.now();
        let job = Job::new(folder, JobRecord::new(name.clone(), self.stored.clone(), index, now), true);
        self.engine.jobs.lock().insert(name.clone(), job.clone());
        let launched = self.begin(&job, planned, outputs).await;
        if let Err(error) = launched {
            self.engine.jobs.lock().remove(name);
            let remains = job.folder.clone();
            blocking(move || remove_folder(&remains)).await?;
            return Err(error);
        }
        Ok(job)
    }

    /// Starts a job that has no state, with a snapshot's if one is asked for.
    async fn begin(&mut self, job: &Arc<Job>, planned: PlannedJob, outputs: Vec<TableSpec>) -> Result<()> {
        let name = job.name();
        let settings = &planned.settings;
        // Where the job's own names are looked for.
        let places = crate::snapshots::places_of(settings);
        job.update(|record| record.places = places).await?;
        let from = self.restore.wanted.clone().or_else(|| settings.recovery.clone());
        if let Some(from) = from {
            let kept = self.engine.savepoint(&from, Some(name.as_str())).await?;
            if self.restore.wanted.is_none() || self.restore.is_for(&kept.manifest.job, &name) {
                self.engine.restore_job(job, &kept).await?;
            }
        }
        self.engine.launch(job, planned, outputs, self.drops_state, |_| {}).await
    }

    async fn query(&self, index: usize, planned: PlannedJob) -> Result<bool> {
        let run = |job: Arc<Job>| async move {
            self.tell(ScriptEvent::Started(job.report()));
            self.wait(&job).await
        };
        self.passing(index, planned, run).await
    }

    async fn analyze(&self, index: usize, planned: PlannedJob, plan: String) -> Result<bool> {
        let run = |job: Arc<Job>| async move {
            job.ended().await;
            let report = job.report();
            if report.state == JobState::Finished {
                self.tell(ScriptEvent::Text(plan));
                self.tell(ScriptEvent::Analyzed(report.clone()));
            }
            complete(report)
        };
        self.passing(index, planned, run).await
    }

    /// Starts a job that leaves nothing behind once `run` has seen it to its end.
    async fn passing<F>(&self, index: usize, planned: PlannedJob, run: impl FnOnce(Arc<Job>) -> F) -> Result<bool>
    where
        F: Future<Output = Result<bool>>,
    {
        let now = self.engine.parts.clock.now();
        let mut record = JobRecord::new(JobName::new("select")?, self.stored.clone(), index, now);
        let name = JobName::new(format!("select-{}", record.incarnation))?;
        record.name = name.clone();
        let folder = self.engine.folder.scratch().join(name.as_str());
        let job = Job::new(folder.clone(), record, false);
        self.engine.jobs.lock().insert(name.clone(), job.clone());
        let ended = match self.engine.launch(&job, planned, Vec::new(), false, |_| {}).await {
            Ok(()) => run(job).await,
            Err(error) => Err(error),
        };
        self.engine.jobs.lock().remove(&name);
        blocking(move || remove_folder(&folder)).await?;
        ended
    }

    async fn wait(&self, job: &Arc<Job>) -> Result<bool> {
        job.ended().await;
        let report = job.report();
        self.tell(ScriptEvent::Ended(report.clone()));
        complete(report)
    }

    fn tell(&self, event: ScriptEvent) {
        // A listener that is gone does not end the script.
        let _ = self.events.send(event);
    }
}

/// Whether a job that has ended did all its work.
fn complete(JobReport { name, state, .. }: JobReport) -> Result<bool> {
    match state {
        JobState::Finished => Ok(true),
        JobState::Failed { cause } => Err(Error::JobFailed { name, cause }),
        JobState::Created | JobState::Running | JobState::Stopped | JobState::Cancelled => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::name_of;

    #[test]
    fn a_job_is_called_after_its_file() {
        for (origin, name) in
            [("examples/flights/delays.sql", "delays"), ("my job (2).sql", "my-job--2"), ("", "job"), ("....", "...")]
        {
            assert_eq!(name_of(origin).as_str(), name, "{origin}");
        }
    }
}
