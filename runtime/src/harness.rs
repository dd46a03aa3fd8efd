//! The operator harness: rows, watermarks, time and barriers in; output out. No threads, a clock that stands still until it is moved, no job.
//!
//! [`agrees`] runs one script of inputs in every way that must not matter: rows one at a time and all at once, with and without a
//! restart from the last checkpoint between every two inputs.

use std::path::Path;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use coulee_checkpoint::{Changes, CheckpointRecord, JobStore, StoreResources, StoreSettings};
use coulee_model::{CheckpointId, Clock, ManualClock, OperatorId, SubtaskIndex, Timestamp};

use crate::graph::{OperatorFactory, Port};
use crate::job::executor::{Executor, Tokio};
use crate::metrics::SubtaskMetrics;
use crate::operator::{Emitted, InputIndex, OpenContext, Operator, Output};
use crate::row_errors::policy::all_letters;
use crate::state::MemoryBudget;
use crate::{Batch, Result};

/// One thing that reaches an operator.
#[derive(Debug, Clone)]
pub enum Input {
    /// Rows.
    Rows(Batch),
    /// Rows of one of several inputs.
    RowsOf(InputIndex, Batch),
    /// A watermark.
    Watermark(Timestamp),
    /// The wall clock moves on to this instant; the harness begins at 0. What is due is fired.
    Time(Timestamp),
}

/// An operator under test, with a store of its own.
pub struct Harness {
    factory: Arc<dyn OperatorFactory>,
    operator: Box<dyn Operator>,
    store: Arc<JobStore>,
    metrics: Arc<SubtaskMetrics>,
    checkpoint: CheckpointId,
    subtask: SubtaskIndex,
    parallelism: u32,
    clock: Arc<ManualClock>,
    budget: Arc<MemoryBudget>,
    output: Vec<(Port, Batch)>,
    watermarks: Vec<Timestamp>,
}

const OPERATOR: OperatorId = OperatorId(0);

impl Harness {
    /// The operator as the only subtask, with its state in the folder `dir` and 64 MiB of memory for it.
    ///
    /// # Errors
    /// When the operator cannot be made or opened.
    pub fn new(factory: Arc<dyn OperatorFactory>, dir: &Path) -> Result<Self> {
        Self::with_memory(factory, dir, 64 << 20)
    }

    /// The same with a memory budget of so many bytes (1 MiB at least).
    ///
    /// # Errors
    /// When the operator cannot be made or opened.
    pub fn with_memory(factory: Arc<dyn OperatorFactory>, dir: &Path, bytes: usize) -> Result<Self> {
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        let resources = StoreResources::default().with_clock(clock.clone());
        let store = Arc::new(JobStore::open_with(dir, &StoreSettings::default(), &resources)?);
        let checkpoint = store.last_checkpoint().map_or(CheckpointId(0), |record| record.id);
        let metrics = Arc::new(SubtaskMetrics::new(OPERATOR, SubtaskIndex(0)));
        let operator = factory.create(SubtaskIndex(0))?;
        let mut harness = Harness {
            factory,
            operator,
            store,
            metrics,
            checkpoint,
            subtask: SubtaskIndex(0),
            parallelism: 1,
            clock,
            budget: MemoryBudget::new(bytes),
            output: Vec::new(),
            watermarks: Vec::new(),
        };
        harness.open()?;
        Ok(harness)
    }

    fn open(&mut self) -> Result<()> {
        let clock: Arc<dyn Clock> = self.clock.clone();
        let executor: Arc<dyn Executor> = Arc::new(Tokio);
        self.operator.open(&OpenContext {
            operator: OPERATOR,
            subtask: self.subtask,
            parallelism: self.parallelism,
            store: &self.store,
            metrics: self.metrics.clone(),
            budget: &self.budget,
            clock: &clock,
            executor: &executor,
        })
    }

    /// Gives the operator an input.
    ///
    /// # Errors
    /// What the operator says.
    pub fn push(&mut self, input: Input) -> Result<()> {
        let mut out = Output::default();
        match input {
            Input::Rows(batch) => self.operator.process(InputIndex::FIRST, batch, &mut out)?,
            Input::RowsOf(input, batch) => self.operator.process(input, batch, &mut out)?,
            Input::Time(now) => {
                self.clock.advance(now.0 - self.clock.now().0);
                while self.operator.next_time().is_some_and(|due| due <= now) {
                    self.operator.time(now, &mut out)?;
                }
            }
            Input::Watermark(watermark) => self.operator.watermark(watermark, &mut out)?,
        }
        self.more(out)
    }

    /// Takes what was emitted, and lets the operator go on with what it began.
    fn more(&mut self, mut out: Output) -> Result<()> {
        while self.operator.more(&mut out)? {
            self.collect(std::mem::take(&mut out))?;
        }
        self.collect(out)
    }

    fn collect(&mut self, out: Output) -> Result<()> {
        for item in out.items {
            match item {
                Emitted::Batch(port, batch) => self.output.push((port, batch)),
                Emitted::Rejected(rejected) => self.output.push((Port::REJECTED, all_letters(&rejected)?)),
                Emitted::Watermark(watermark) => self.watermarks.push(watermark),
            }
        }
        Ok(())
    }

    /// A barrier, whose changes become durable.
    ///
    /// # Errors
    /// What the operator or the store says.
    pub fn checkpoint(&mut self) -> Result<()> {
        let (mut out, mut changes) = (Output::default(), Changes::default());
        self.checkpoint = self.checkpoint.next();
        self.operator.checkpoint(self.checkpoint, &mut out, &mut changes)?;
        self.more(out)?;
        let record = CheckpointRecord { id: self.checkpoint, at: Timestamp(0), job: String::new() };
        self.store.commit(record, [changes])?;
        Ok(())
    }

    /// Throws the operator away and makes it anew from the last checkpoint, as subtask `subtask` of `parallelism`.
    ///
    /// # Errors
    /// When it cannot be made or opened.
    pub fn restart(&mut self, subtask: SubtaskIndex, parallelism: u32) -> Result<()> {
        self.operator = self.factory.create(subtask)?;
        (self.subtask, self.parallelism) = (subtask, parallelism);
        self.open()
    }

    /// The input has ended.
    ///
    /// # Errors
    /// What the operator says.
    pub fn end(&mut self) -> Result<()> {
        self.push(Input::Watermark(Timestamp::MAX))?;
        let mut out = Output::default();
        self.operator.end(&mut out)?;
        self.more(out)
    }

    /// The rows that were emitted on a port since the last call. Rejected rows are on [`Port::REJECTED`], as dead letters.
    pub fn take(&mut self, port: Port) -> Vec<RecordBatch> {
        self.take_batches(port).into_iter().map(Batch::into_rows).collect()
    }

    /// The same with what happened to them, when they are a changelog.
    pub fn take_batches(&mut self, port: Port) -> Vec<Batch> {
        let (taken, kept) = std::mem::take(&mut self.output).into_iter().partition(|(of, _)| *of == port);
        self.output = kept;
        let taken: Vec<(Port, Batch)> = taken;
        taken.into_iter().map(|(_, batch)| batch).collect()
    }

    /// The watermarks that were passed on since the last call.
    pub fn take_watermarks(&mut self) -> Vec<Timestamp> {
        std::mem::take(&mut self.watermarks)
    }

    /// Bytes of state that the operator holds in memory.
    pub fn state_bytes(&self) -> usize {
        self.operator.state_bytes()
    }

    /// The operator's counters.
    pub fn metrics(&self) -> &SubtaskMetrics {
        &self.metrics
    }
}

/// What an operator without state makes of rows: without a store, so that thousands of expressions can be evaluated. Also the rows that it rejects.
///
/// # Errors
/// What the operator says.
pub fn through(
    factory: &Arc<dyn OperatorFactory>,
    batches: Vec<Batch>,
) -> Result<(Vec<Batch>, Vec<crate::row_errors::RejectedRows>)> {
    let mut operator = factory.create(SubtaskIndex(0))?;
    let mut out = Output::default();
    for batch in batches {
        operator.process(InputIndex::FIRST, batch, &mut out)?;
    }
    let (mut emitted, mut rejected) = (Vec::new(), Vec::new());
    for item in out.items {
        match item {
            Emitted::Batch(Port::MAIN, batch) => emitted.push(batch),
            Emitted::Rejected(rows) => rejected.push(rows),
            Emitted::Batch(..) | Emitted::Watermark(_) => {}
        }
    }
    Ok((emitted, rejected))
}

/// Rows as sorted lines of text: for comparing results whose order does not matter.
///
/// # Errors
/// When a column cannot be shown.
pub fn sorted_lines(batches: &[RecordBatch]) -> Result<Vec<String>> {
    let mut lines = lines(batches)?;
    lines.sort();
    Ok(lines)
}

/// The rows of a changelog as lines of text, in their order, the kind first: `+U | ann | 3`.
///
/// # Errors
/// When a column cannot be shown.
pub fn changelog_lines(batches: &[Batch]) -> Result<Vec<String>> {
    lines(&batches.iter().map(Batch::with_kinds_shown).collect::<Result<Vec<_>>>()?)
}

fn lines(batches: &[RecordBatch]) -> Result<Vec<String>> {
    let table = pretty_format_batches(batches)?.to_string();
    let rows = table.lines().filter(|line| line.starts_with('|'));
    let squeezed = rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(" | "));
    // The first line is the header.
    Ok(squeezed.skip(1).collect())
}

/// Runs the inputs, ends the operator, and returns the main output as [`sorted_lines`], or as [`changelog_lines`] if it is a changelog: in every batch size,
/// each with and without a checkpoint and restart between every two inputs. Batches are cut anywhere, also between the two halves of an update. `folder` gives a new empty folder at each call.
///
/// # Errors
/// What the operator says.
///
/// # Panics
/// When two ways disagree.
pub fn agrees(
    factory: &Arc<dyn OperatorFactory>,
    inputs: &[Input],
    mut folder: impl FnMut() -> std::path::PathBuf,
) -> Result<Vec<String>> {
    let changes =
        |input: &Input| matches!(input, Input::Rows(batch) | Input::RowsOf(_, batch) if batch.kinds().is_some());
    let emits_changelog = factory.emits_changelog(Port::MAIN, inputs.iter().any(changes));
    let mut agreed: Option<Vec<String>> = None;
    for batch_rows in [usize::MAX, 3, 1] {
        for restart in [false, true] {
            let mut harness = Harness::new(factory.clone(), &folder())?;
            for input in inputs {
                for part in parts(input, batch_rows) {
                    harness.push(part)?;
                    if restart {
                        harness.checkpoint()?;
                        harness.restart(SubtaskIndex(0), 1)?;
                    }
                }
            }
            harness.end()?;
            let lines = match emits_changelog {
                true => changelog_lines(&harness.take_batches(Port::MAIN))?,
                false => sorted_lines(&harness.take(Port::MAIN))?,
            };
            match &agreed {
                None => agreed = Some(lines),
                Some(agreed) => {
                    assert_eq!(&lines, agreed, "with batches of {batch_rows} rows, restarting: {restart}");
                }
            }
        }
    }
    Ok(agreed.unwrap_or_default())
}

fn parts(input: &Input, batch_rows: usize) -> Vec<Input> {
    match input {
        Input::Rows(batch) | Input::RowsOf(_, batch) if batch.len() > batch_rows => {
            let again = |part| match input {
                Input::RowsOf(of, _) => Input::RowsOf(*of, part),
                _ => Input::Rows(part),
            };
            let starts = (0..batch.len()).step_by(batch_rows);
            starts.map(|start| again(batch.slice(start, batch_rows.min(batch.len() - start)))).collect()
        }
        other => vec![other.clone()],
    }
}
