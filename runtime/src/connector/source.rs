//! Where rows come from: a source, its splits, and the readers of its subtasks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use coulee_model::Clock;

use crate::metrics::SubtaskMetrics;
use crate::origin::RowPositions;
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

/// What there is to read.
#[derive(Debug)]
pub struct Enumeration {
    /// The splits that are there.
    pub splits: Vec<SplitStart>,
    /// Finds the splits that come while the job runs; `None` when none will.
    pub discovery: Option<Box<dyn SplitEnumerator>>,
}

impl From<Vec<SplitStart>> for Enumeration {
    /// Splits to which none will be added.
    fn from(splits: Vec<SplitStart>) -> Self {
        Enumeration { splits, discovery: None }
    }
}

/// Finds splits while a job runs. There is one per source and attempt, beside the subtasks.
///
/// **Operations** `discover` waits for splits; the runtime gives each to the subtask that has the fewest. `finished` tells of splits that have been read to
/// their end, which lets an enumerator hold back a split until those are finished that must be read before it.
/// **Guarantees** asked of an implementation: no split is given twice in an attempt, and none that [`Source::enumerate`] was told of.
/// **Non-guarantees** An enumerator has no state of its own in a checkpoint: the splits of the subtasks are it. A split that was given after the last durable
/// checkpoint is not in [`KnownSplits`] at the next attempt, and is to be found again.
/// **Failure** An error ends the job's attempt.
#[async_trait]
pub trait SplitEnumerator: Send + Sync + Debug {
    /// The next splits; waits when there are none. `None`: none will come any more, and a job whose splits have all ended is over.
    ///
    /// Cancel-safe: a call that is dropped loses no split.
    async fn discover(&mut self) -> Result<Option<Vec<SplitStart>>>;

    /// A split has been read to its end. Told at least once, to the enumerator of the attempt in which it happened.
    fn finished(&mut self, split: &SplitId) {
        let _ = split;
    }
}

/// Where rows come from.
///
/// **Operations** `enumerate` says, once per attempt, what there is to read; then `open` makes one reader per subtask, which reads some of it.
/// **Guarantees** asked of an implementation: within a split, rows come in one order, and reading again from a position gives the same rows. A split
/// that the checkpoint has as unfinished is read to its end, or the job fails with an error that names it; one that it has as finished is not
/// read again.
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

    /// Whether it is a changelog of upserts: a row replaces the one before it of the same primary key, which is not given, and of a row that is deleted only the
    /// key is. The columns of the key must be asked for.
    fn is_upsert(&self) -> bool {
        false
    }

    /// Whether `CaughtUp` is exact: the reader knows that nothing more is there, rather than that nothing came.
    fn knows_its_end(&self) -> bool {
        false
    }

    /// The splits to read: all there are when a job begins; when it resumes, those of `known` that are unfinished, at their positions,
    /// and such as have come since if the source reads those. The runtime stores all of them with the next checkpoint.
    async fn enumerate(&self, known: KnownSplits) -> Result<Enumeration>;

    /// Opens a reader of some splits, positioned.
    async fn open(&self, splits: Vec<SplitStart>, context: SourceContext) -> Result<Box<dyn SourceReader>>;
}

/// What a reader has to say. `split` counts in the list that the reader was opened with, and on in those that were added.
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
    /// The next rows of a split: changes if they have kinds.
    pub fn of(split: usize, rows: Batch, rejected: Option<RecordBatch>) -> Self {
        match rows.kinds() {
            None => SourceEvent::Rows { split, rows: rows.into_rows(), rejected },
            Some(_) => SourceEvent::Changes { split, changes: rows, rejected },
        }
    }

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

/// Reads the splits it was opened with, and those that were added since.
#[async_trait]
pub trait SourceReader: Send {
    /// The next event; waits when there is none, which is also when every split has ended.
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

    /// Reads further splits as well. They are counted on from those that the reader has.
    ///
    /// # Errors
    /// When a position is damaged, and always in a reader whose source has no [`Enumeration::discovery`].
    fn add_splits(&mut self, splits: Vec<SplitStart>) -> Result<()> {
        Err(Error::internal(format!("{} splits were added to a source whose splits do not change", splits.len())))
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
