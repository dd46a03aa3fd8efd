//! The seams to the world outside a job: where rows come from and where they go.
//!
//! The runtime owns these traits, connectors implement them, and `sql` sees only the descriptions.
//! Readers and writers are the only asynchronous parts of a job.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

/// What the traits below are written with, so that an implementation needs no crate of its own for it.
pub use async_trait::async_trait;
pub use bytes::Bytes;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use coulee_model::{CheckpointId, Clock, JobName, SubtaskIndex, Timestamp};

use crate::metrics::SubtaskMetrics;
use crate::origin::RowPositions;
use crate::row_errors::RejectedRows;
use crate::state::Facet;
use crate::{Batch, Error, Result};

/// A part of a source that is read in order by one subtask at a time: a shard, a file.
/// The text is stable across restarts; it is what positions are filed under.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SplitId(pub String);

/// A split and where to go on reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitStart {
    /// Which split.
    pub id: SplitId,
    /// What [`SourceReader::position`] said of it at the checkpoint, or what the enumeration gave it; `None` for a split not read before
    /// of which nothing need be known.
    pub position: Option<Bytes>,
}

impl SplitStart {
    /// The beginning of a split.
    pub fn new(id: SplitId) -> Self {
        SplitStart { id, position: None }
    }
}

/// The splits of a source that the checkpoint has from which a job resumes. Empty when a job begins.
#[derive(Debug, Clone, Default)]
pub struct KnownSplits {
    /// Splits that have not been read to their end, with their positions. Sorted by their ids.
    pub unfinished: Vec<SplitStart>,
    /// Splits that have been read to their end, with what the reader said of them then. Sorted by their ids.
    pub finished: Vec<SplitStart>,
}

impl KnownSplits {
    /// Whether the job begins, rather than resumes.
    pub fn is_empty(&self) -> bool {
        self.unfinished.is_empty() && self.finished.is_empty()
    }

    /// What is to be read of a source whose splits are `all`: the unfinished ones from their positions, new ones from their beginning.
    ///
    /// # Errors
    /// `Invalid` when the checkpoint has an unfinished split that the source no longer has: its rows would be missing without a word.
    pub fn of(self, all: impl IntoIterator<Item = SplitId>, source: &str) -> Result<Vec<SplitStart>> {
        let mut positions: BTreeMap<SplitId, Option<Bytes>> =
            self.unfinished.into_iter().map(|split| (split.id, split.position)).collect();
        let finished: BTreeSet<SplitId> = self.finished.into_iter().map(|split| split.id).collect();
        let left = all.into_iter().filter(|id| !finished.contains(id));
        let starts: Vec<SplitStart> =
            left.map(|id| SplitStart { position: positions.remove(&id).flatten(), id }).collect();
        match positions.into_keys().next() {
            None => Ok(starts),
            Some(gone) => Err(Error::invalid(format!(
                "{source}: the checkpoint has split '{}', which was not read to its end and is no longer there: bring it back, or start \
                 over with --fresh",
                gone.0
            ))),
        }
    }
}

/// What a reader is given.
#[derive(Debug, Clone)]
pub struct SourceContext {
    /// The most rows that one batch should have.
    pub batch_rows: usize,
    /// Time, where a source needs it.
    pub clock: Arc<dyn Clock>,
    /// Counters of the subtask that reads.
    pub metrics: Arc<SubtaskMetrics>,
}

/// Where rows come from.
///
/// **Operations** `enumerate` says, once per attempt, what there is to read; then `open` makes one reader per subtask, which reads some of it.
/// **Guarantees** Within a split, rows come in one order, and reading again from a position gives the same rows. A split that the
/// checkpoint has as unfinished is read to its end, or the job fails with an error that names it; one that it has as finished is not read
/// again.
/// **Non-guarantees** Nothing is promised about order between splits, or about where batches end.
/// **Failure** An error ends the job's attempt; the next one reads again from the last checkpoint.
#[async_trait]
pub trait Source: Send + Sync + Debug {
    /// One line for `EXPLAIN`: the connector and what it reads.
    fn describe(&self) -> String;

    /// The columns of the batches: only those asked for, in the order asked for.
    fn schema(&self) -> SchemaRef;

    /// What gives the stored positions their meaning: the connector and what it reads, without credentials and without what only tunes it. A job whose
    /// facets differ from those that were stored is refused.
    fn identity(&self) -> Vec<Facet> {
        vec![Facet::new("reads", self.describe())]
    }

    /// Whether every split ends. Decided when the source is made.
    fn is_bounded(&self) -> bool;

    /// Whether rows may be updated and deleted, so that readers bring [`SourceEvent::Changes`]. Decided when the source is made.
    fn is_changelog(&self) -> bool {
        false
    }

    /// Whether `CaughtUp` is exact: the reader knows that nothing more is there, rather than that nothing came.
    fn knows_its_end(&self) -> bool {
        false
    }

    /// The splits to read: all there are when a job begins; when it resumes, those of `known` that are unfinished, at their positions,
    /// and such as have come since if the source reads those. The runtime stores all of them with the next checkpoint.
    async fn enumerate(&self, known: KnownSplits) -> Result<Vec<SplitStart>>;

    /// Opens a reader of some splits, positioned.
    async fn open(&self, splits: Vec<SplitStart>, context: SourceContext) -> Result<Box<dyn SourceReader>>;
}

/// What a reader has to say. `split` counts in the list that the reader was opened with.
#[derive(Debug)]
pub enum SourceEvent {
    /// The next rows of one split.
    Rows {
        /// Which split.
        split: usize,
        /// The rows, in the source's schema. May be empty when all of them were rejected.
        rows: RecordBatch,
        /// Records that could not become rows, in [`rejected_schema`].
        rejected: Option<RecordBatch>,
    },
    /// As `Rows`, of a source that is a changelog. An update's old value comes right before its new one.
    Changes {
        /// Which split.
        split: usize,
        /// The rows and what happened to them, in the source's schema.
        changes: Batch,
        /// Records that could not become rows, in [`rejected_schema`].
        rejected: Option<RecordBatch>,
    },
    /// All that the split holds now has been read. Said once; rows may follow later.
    CaughtUp {
        /// Which split.
        split: usize,
    },
    /// The position has moved past records that are no rows.
    Moved {
        /// Which split.
        split: usize,
    },
    /// The split has ended; nothing follows.
    Ended {
        /// Which split.
        split: usize,
    },
}

impl SourceEvent {
    /// Which split it is about.
    pub fn split(&self) -> usize {
        match self {
            SourceEvent::Rows { split, .. }
            | SourceEvent::Changes { split, .. }
            | SourceEvent::CaughtUp { split }
            | SourceEvent::Moved { split }
            | SourceEvent::Ended { split } => *split,
        }
    }
}

/// Reads the splits it was opened with.
#[async_trait]
pub trait SourceReader: Send {
    /// The next event; waits when there is none. Not called again once every split has ended.
    ///
    /// Cancel-safe: a call that is dropped loses no row and moves no position.
    async fn next(&mut self) -> Result<SourceEvent>;

    /// The position of a split behind the last event that `next` returned of it, in the connector's own encoding. It changes with an event of
    /// that split only, so that the runtime stores the positions of those that had one. After `Ended`: what is to be remembered of a split that
    /// is not read again.
    fn position(&self, split: usize) -> Bytes;

    /// Where the rows of the last `Rows` or `Changes` stand in their split: for messages and dead letters. Asked once, right
    /// after that event.
    fn row_positions(&mut self) -> RowPositions {
        RowPositions::default()
    }

    /// What a split is called in messages and dead letters, if not by its id: `flights/3` for a shard of a stream.
    fn split_name(&self, split: usize) -> Option<String> {
        let _ = split;
        None
    }

    /// Asks for no rows of a split until further notice, or for its rows again. A reader that cannot leave out one of its splits ignores it.
    fn set_paused(&mut self, split: usize, paused: bool) {
        let _ = (split, paused);
    }

    /// How many records are left to read as far as is known, for progress.
    fn lag(&self) -> Option<u64> {
        None
    }
}

/// The schema of rejected records: `origin` (text: where it was read), `reason` (text), `raw` (bytes: the record, or the row as
/// JSON), `stage` (text: `decode`, `expression` or `delivery`), `expression` (text: the one that failed, as SQL; null else).
pub fn rejected_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("origin", DataType::Utf8, false),
        Field::new("reason", DataType::Utf8, false),
        Field::new("raw", DataType::Binary, false),
        Field::new("stage", DataType::Utf8, false),
        Field::new("expression", DataType::Utf8, true),
    ]))
}

/// What a sink's recovery and its writers are given.
#[derive(Debug, Clone)]
pub struct SinkContext {
    /// The job.
    pub job: JobName,
    /// A random text that is made when a job is created and kept as long as its state: it tells the objects of this job
    /// from those of a namesake. 12 lower-case hexadecimal digits.
    pub incarnation: String,
    /// The sink's stable name within the job.
    pub uid: String,
    /// A folder of this sink alone, on the disk that holds the job's state. Survives crashes; made on demand by the sink.
    pub spool: PathBuf,
    /// Time, for interval policies.
    pub clock: Arc<dyn Clock>,
}

/// What a sink waits for before it makes visible what it prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CommitOn {
    /// The checkpoint, on the local disk: exactly once as long as the disk lives.
    #[default]
    Checkpoint,
    /// A snapshot of that checkpoint or of a later one, in the object store: exactly once also when the disk is lost, and later.
    Snapshot,
}

/// Where rows go, exactly once.
///
/// **Operations** `recover` once per attempt, before any writer is opened; then one writer per subtask. A writer's life is
/// `(write | flush)* prepare commit`, repeated; `finish` before the last `prepare` of a bounded input.
/// **Guarantees** asked of an implementation: what was written before `prepare(n)` becomes visible if, and only if, checkpoint `n` becomes durable,
/// at its `commit(n)` or at a later commit of a buffered sink, or at the next `recover`. `commit` and `recover` are idempotent.
/// **Non-guarantees** `commit(n)` may be skipped when the process dies: `recover` gets the state of `n` and does its work.
/// **Failure** An error ends the job's attempt. What was not prepared is written again by the next one.
#[async_trait]
pub trait Sink: Send + Sync + Debug {
    /// One line for `EXPLAIN`: the connector and where it writes.
    fn describe(&self) -> String;

    /// Why it takes only rows that are appended, and what to do instead: the end of the error that refuses a changelog when the graph is built.
    /// `None` when it takes changelogs.
    fn refuses_changelog(&self) -> Option<&'static str> {
        Some("the sink does not say that it takes changelogs: aggregate in windows, or write to a sink that does")
    }

    /// What gives the stored preparations their meaning: the connector and where it writes, without credentials and without what only tunes it. A job whose
    /// facets differ from those that were stored is refused.
    fn identity(&self) -> Vec<Facet> {
        vec![Facet::new("writes", self.describe())]
    }

    /// Whether its writers may hand over rows that they cannot take ([`SinkWriter::take_rejected`]).
    fn may_reject(&self) -> bool {
        false
    }

    /// What must be durable before `commit` is called.
    fn commit_on(&self) -> CommitOn {
        CommitOn::Checkpoint
    }

    /// Completes what the checkpoint's states say is prepared, and removes every trace of what they do not know.
    /// `states` holds what each writer's `prepare` returned at the checkpoint that is restored; none at a first start.
    async fn recover(&self, context: &SinkContext, states: &[Bytes]) -> Result<()>;

    /// Opens the writer of one subtask. `states` are those of the writers that it continues (several after a change of parallelism).
    async fn open(
        &self,
        context: &SinkContext,
        subtask: SubtaskIndex,
        states: &[Bytes],
        metrics: Arc<SubtaskMetrics>,
    ) -> Result<Box<dyn SinkWriter>>;
}

/// Writes the rows of one subtask.
#[async_trait]
pub trait SinkWriter: Send {
    /// Takes rows. They need not be safe before `prepare`.
    async fn write(&mut self, batch: Batch) -> Result<()>;

    /// When, by the clock of its context, the writer next wants `flush` to be called, if nothing else comes; `None` when nothing waits for that.
    fn next_flush(&self) -> Option<Timestamp> {
        None
    }

    /// It is `now`, at or after `next_flush`: sends on what `write` has held back for a moment.
    async fn flush(&mut self, now: Timestamp) -> Result<()> {
        let _ = now;
        Ok(())
    }

    /// Makes all that was written recoverable, and returns what `recover` and `open` need to go on from here.
    /// May itself start what its policy says is due (roll a file, say), but must make nothing visible.
    async fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Bytes>;

    /// What [`Sink::commit_on`] names is durable: makes visible what this checkpoint and those before it prepared. Some may have been skipped.
    async fn commit(&mut self, checkpoint: CheckpointId) -> Result<()>;

    /// The input has ended: closes every buffer, so that the next `prepare` and `commit` deliver all.
    async fn finish(&mut self) -> Result<()> {
        Ok(())
    }

    /// The rows that the calls since the last one could not take, whatever is tried: asked after each call of `write`, `flush`,
    /// `finish` and `prepare`. They are not part of what is delivered.
    fn take_rejected(&mut self) -> Option<RejectedRows> {
        None
    }

    /// When the writer next wants `prepare` to be called although no more rows come; `None` when it has nothing that waits. A job without anything new takes
    /// no checkpoints.
    fn next_delivery(&self) -> Option<Timestamp> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finished_splits_are_not_read_again_and_lost_ones_are_an_error() {
        let split = |id: &str, position: Option<&'static [u8]>| SplitStart {
            id: SplitId(id.to_owned()),
            position: position.map(Bytes::from_static),
        };
        let known = KnownSplits { unfinished: vec![split("b", Some(b"7"))], finished: vec![split("a", Some(b"9"))] };
        let all = |ids: &[&str]| ids.iter().map(|id| SplitId((*id).to_owned())).collect::<Vec<_>>();
        let starts = known.clone().of(all(&["a", "b", "c"]), "it").unwrap();
        assert_eq!(starts, [split("b", Some(b"7")), split("c", None)]);
        let lost = known.of(all(&["a", "c"]), "it").unwrap_err().to_string();
        assert!(lost.starts_with("it: the checkpoint has split 'b', which was not read to its end"), "{lost}");
    }
}
