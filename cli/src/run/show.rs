//! Shows a script at work: its events, the rows of its queries, and how its jobs get on.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use coulee_server::{Closing, Engine, JobReport, JobState, PrintGuard, RecordBatch, ScriptEvent};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::time::Instant;

use crate::args::Output;
use crate::failure::Failure;
use crate::figures::counted;
use crate::live::{self, Rates};
use crate::rows::RowWriter;
use crate::screen::{self, note};
use crate::{serve, summary};

/// How often the block on a terminal is drawn.
const REDRAW: Duration = Duration::from_millis(100);
/// How often a line is written where there is no terminal.
const LINE: Duration = Duration::from_secs(1);

/// What is shown, and what was.
pub struct Show {
    engine: Arc<Engine>,
    rows: RowWriter,
    rates: Rates,
    is_live: bool,
    interrupted: bool,
    /// Whether a query left records aside that somebody may want to see.
    keeps_rows: bool,
    /// Why a query did not do its work, though it finished.
    shortfall: Option<String>,
    /// What is said when the first job starts whose results stay.
    announcement: Option<String>,
}

impl Show {
    /// Shows the jobs of an engine.
    pub fn new(engine: Arc<Engine>, output: Output) -> Self {
        Show {
            engine,
            rows: RowWriter::new(output),
            rates: Rates::default(),
            is_live: screen::is_live(),
            interrupted: false,
            keeps_rows: false,
            shortfall: None,
            announcement: None,
        }
    }

    /// What is to be said when the first job starts that could be resumed. The rows of a `SELECT` need no such words.
    pub fn announce_with_first_job(&mut self, text: String) {
        self.announcement = Some(text);
    }

    /// Whether the user wanted it to end.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted
    }

    /// Whether a query left records aside that somebody may want to see.
    pub fn keeps_rows(&self) -> bool {
        self.keeps_rows
    }

    /// Why a query did not do its work, though it finished.
    pub fn shortfall(&self) -> Option<String> {
        self.shortfall.clone()
    }

    /// Shows what happens until the work is done.
    pub async fn during<T>(
        &mut self,
        work: impl Future<Output = coulee_server::Result<T>>,
        mut events: UnboundedReceiver<ScriptEvent>,
        mut rows: Receiver<RecordBatch>,
    ) -> Result<T, Failure> {
        tokio::pin!(work);
        let mut ticks = tokio::time::interval(if self.is_live { REDRAW } else { LINE });
        ticks.reset();
        let mut interrupts = serve::Interrupts::new()?;
        let done = loop {
            tokio::select! {
                biased;
                () = interrupts.next() => self.interrupt()?,
                Some(batch) = rows.recv() => self.batch(&batch)?,
                Some(event) = events.recv() => self.event(event)?,
                done = &mut work => break done,
                _ = ticks.tick() => self.tick()?,
            }
        };
        while let Ok(batch) = rows.try_recv() {
            self.batch(&batch)?;
        }
        while let Ok(event) = events.try_recv() {
            self.event(event)?;
        }
        screen::draw(&[])?;
        Ok(done?)
    }

    fn interrupt(&mut self) -> Result<(), Failure> {
        if std::mem::replace(&mut self.interrupted, true) {
            // At once, whatever is under way: the last checkpoint is intact, and a temporary folder stays.
            std::process::exit(i32::from(Failure::Interrupted.code()));
        }
        note("stopping with a last checkpoint; interrupt again to quit at once")?;
        let engine = self.engine.clone();
        tokio::spawn(async move { engine.close(Closing::Stop).await });
        Ok(())
    }

    fn batch(&mut self, batch: &RecordBatch) -> Result<(), Failure> {
        let text = self.rows.write(batch)?;
        screen::data(&text)
    }

    fn event(&mut self, event: ScriptEvent) -> Result<(), Failure> {
        match event {
            ScriptEvent::Done(_) => Ok(()),
            ScriptEvent::Note(text) => note(&text),
            ScriptEvent::Text(text) => screen::data(format!("{}\n", text.trim_end()).as_bytes()),
            ScriptEvent::Table(rows) => screen::data(&crate::rows::table(&rows)?),
            ScriptEvent::Started(job) => self.started(&job),
            ScriptEvent::AlreadyFinished(job) => note(&summary::already_finished(&job)),
            ScriptEvent::Ended(job) => self.ended(&job),
            ScriptEvent::Analyzed(job) => screen::data(crate::jobs::show::analysis(&job).as_bytes()),
        }
    }

    fn started(&mut self, job: &JobReport) -> Result<(), Failure> {
        if is_query(job) {
            return Ok(());
        }
        if let Some(text) = self.announcement.take() {
            note(&text)?;
        }
        if let Some(progress) = job.progress.as_ref().filter(|progress| progress.checkpoint.0 > 0) {
            note(&format!("job '{}' resumes from checkpoint {}", job.name, progress.checkpoint))?;
            return job.notes.iter().try_for_each(|text| note(text));
        }
        for (folder, files) in self.engine.files_of_others(job.name.as_str())? {
            note(&format!(
                "warning: {} holds {} already that job '{}' did not write: its rows come beside theirs. A script that is run again with the \
                 same --data-dir goes on where it ended; without one it begins anew",
                folder.display(),
                counted(files as u64, "file"),
                job.name
            ))?;
        }
        Ok(())
    }

    fn ended(&mut self, job: &JobReport) -> Result<(), Failure> {
        // A query that went well has said what it has to by its rows, but for those that are not among them.
        if is_query(job) && job.state == JobState::Finished {
            let asides = job.progress.as_ref().map(summary::asides).unwrap_or_default();
            self.keeps_rows |= summary::keeps_rows(job);
            self.shortfall = self.shortfall.take().or_else(|| summary::shortfall(job));
            return asides.iter().try_for_each(|line| note(line));
        }
        self.summarise(job)
    }

    fn tick(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        let jobs = self.engine.jobs();
        let running: Vec<&JobReport> = jobs.iter().filter(|job| job.state == JobState::Running).collect();
        let mut block = Vec::new();
        for job in running {
            let rate = job.progress.as_ref().map_or(0.0, |progress| self.rates.update(&job.name, progress, now));
            match self.is_live {
                true => block.extend(live::block(job, rate)),
                false => note(&live::line(job, rate))?,
            }
        }
        if self.is_live { screen::draw(&block) } else { Ok(()) }
    }

    /// Tells how a job ended.
    ///
    /// # Errors
    /// When nobody reads it.
    pub fn summarise(&self, job: &JobReport) -> Result<(), Failure> {
        summary::summary(job).iter().try_for_each(|line| note(line))
    }
}

/// Whether a job only shows the rows of a `SELECT`.
fn is_query(job: &JobReport) -> bool {
    job.name.as_str().starts_with("select-")
}

/// Makes room for the connector `print`, and ends with the standard output.
pub struct PrintRoom;

impl PrintGuard for PrintRoom {
    fn before(&self) {
        // Nothing is written: only the block goes away.
        let _: io::Result<()> = screen::write_data(&[]);
    }

    fn closed(&self) {
        // Like a process that the system ends when its pipe is closed: checkpoints are intact, and nobody wants more.
        std::process::exit(0);
    }
}
