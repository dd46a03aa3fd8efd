//! The journal of transactions: the file that says which transactions are prepared, how they were decided, and which
//! producer ids were given out. `docs/formats/log.md` has its bytes.
//!
//! The journal is written anew, without completed transactions, at every start and whenever it has grown. A crash may tear
//! its last record; a record that a caller was told of was synced before.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use coulee_model::{ShardId, StreamName};

use crate::batch::marker::TransactionOutcome;
use crate::error::{LogError, Result};
use crate::files::journal::{self, JournalFile};
use crate::files::storage::{Storage, WriteFailure};
use crate::ids::{Place, ProducerId, TransactionalId};
use crate::transactions::committed::CommittedTransactions;

const MAGIC: [u8; 8] = *b"COULEET1";
/// A transaction over all shards of many streams fits; more is nonsense.
const RECORD_BYTES_MAX: usize = 16 << 20;
/// Above this size, and twice what it was when it was last, the file is written anew.
const COMPACT_BYTES: u64 = 4 << 20;

const RESERVED: u8 = 1;
const PREPARED: u8 = 2;
const DECIDED: u8 = 3;
const COMPLETED: u8 = 4;
const COMMITTED: u8 = 5;

/// One thing to remember.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum JournalRecord {
    /// The producer ids from `first` to before `below` are given out, or were.
    Reserved {
        first: i64,
        below: i64,
    },
    Prepared {
        producer: ProducerId,
        id: TransactionalId,
        places: Vec<Place>,
    },
    Decided {
        producer: ProducerId,
        outcome: TransactionOutcome,
    },
    /// All markers are durable.
    Completed {
        producer: ProducerId,
    },
    /// The transactions from `first` to `last` are complete, and were committed.
    Committed {
        first: i64,
        last: i64,
    },
}

/// A transaction that is prepared or decided, and not complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prepared {
    pub(crate) id: TransactionalId,
    pub(crate) places: Vec<Place>,
    pub(crate) outcome: Option<TransactionOutcome>,
}

/// All that the journal says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct JournalState {
    /// The producer ids that were given out: from the first to before the second.
    pub(crate) given: Option<(i64, i64)>,
    pub(crate) open: BTreeMap<ProducerId, Prepared>,
    pub(crate) committed: CommittedTransactions,
}

impl JournalState {
    pub(crate) fn apply(&mut self, record: JournalRecord) {
        match record {
            JournalRecord::Reserved { first, below } => self.given = Some((first, below)),
            JournalRecord::Prepared { producer, id, places } => {
                self.open.insert(producer, Prepared { id, places, outcome: None });
            }
            JournalRecord::Decided { producer, outcome } => {
                if let Some(open) = self.open.get_mut(&producer) {
                    open.outcome = Some(outcome);
                }
            }
            JournalRecord::Completed { producer } => {
                if self.open.remove(&producer).is_some_and(|open| open.outcome == Some(TransactionOutcome::Commit)) {
                    self.committed.note(producer.0, producer.0);
                }
            }
            JournalRecord::Committed { first, last } => self.committed.note(first, last),
        }
    }

    /// The fewest records that say the same.
    fn records(&self) -> Vec<JournalRecord> {
        let given = self.given.map(|(first, below)| JournalRecord::Reserved { first, below });
        let committed = self.committed.runs().map(|(first, last)| JournalRecord::Committed { first, last });
        let open = self.open.iter().flat_map(|(&producer, open)| {
            let decided = open.outcome.map(|outcome| JournalRecord::Decided { producer, outcome });
            [JournalRecord::Prepared { producer, id: open.id.clone(), places: open.places.clone() }]
                .into_iter()
                .chain(decided)
        });
        given.into_iter().chain(committed).chain(open).collect()
    }

    /// The content of a file that says only this.
    fn content(&self) -> Vec<u8> {
        let mut content = MAGIC.to_vec();
        self.records().iter().for_each(|record| encode(record, &mut content));
        content
    }
}

/// The journal of a log, open for appending.
pub(crate) struct TransactionJournal {
    file: JournalFile,
    /// Above this size the file is written anew.
    compact_at: u64,
    /// What the file says, kept for writing it anew.
    state: JournalState,
}

impl TransactionJournal {
    /// Reads the file, and writes it anew with `first` added to what it says.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] when there is damage that is no torn write; [`LogError::Io`], [`LogError::DiskFull`].
    pub(crate) fn open(
        path: &Path,
        storage: &Arc<dyn Storage>,
        first: impl FnOnce(&JournalState) -> JournalRecord,
    ) -> Result<(TransactionJournal, JournalState)> {
        let mut state = JournalState::default();
        journal::read(path, MAGIC, RECORD_BYTES_MAX, decode, |record| state.apply(record))?;
        let record = first(&state);
        state.apply(record);
        let file = JournalFile::create(path, storage, &state.content())?;
        let compact_at = compact_at(&file);
        Ok((TransactionJournal { file, compact_at, state: state.clone() }, state))
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Adds records, and makes them durable if `sync` says so.
    ///
    /// # Errors
    /// After [`WriteFailure::Undetermined`] nothing is added until the log is opened again: records that were added would stand
    /// before or amid others that may be there, and make them look damaged.
    pub(crate) fn append(&mut self, records: &[JournalRecord], sync: bool) -> Result<(), WriteFailure> {
        let mut bytes = Vec::new();
        records.iter().for_each(|record| encode(record, &mut bytes));
        self.file.append(&bytes, sync).map_err(|failure| match failure {
            WriteFailure::NotWritten(error) => WriteFailure::NotWritten(LogError::io("write", self.path(), error)),
            WriteFailure::Undetermined(error) => self.undetermined(error),
        })?;
        records.iter().for_each(|record| self.state.apply(record.clone()));
        if self.file.bytes() > self.compact_at {
            self.file.replace(&self.state.content()).map_err(|error| self.undetermined(io::Error::other(error)))?;
            self.compact_at = compact_at(&self.file);
        }
        Ok(())
    }

    fn undetermined(&self, source: io::Error) -> WriteFailure {
        let path = self.path().to_owned();
        WriteFailure::Undetermined(LogError::TransactionsPoisoned { path, source: Arc::new(source) })
    }
}

/// The size at which the file is worth writing anew.
fn compact_at(file: &JournalFile) -> u64 {
    COMPACT_BYTES.max(2 * file.bytes())
}

fn encode(record: &JournalRecord, bytes: &mut Vec<u8>) {
    let mut body = Vec::new();
    match record {
        JournalRecord::Reserved { first, below } => put(&mut body, RESERVED, [*first, *below]),
        JournalRecord::Committed { first, last } => put(&mut body, COMMITTED, [*first, *last]),
        JournalRecord::Completed { producer } => put(&mut body, COMPLETED, [producer.0]),
        JournalRecord::Decided { producer, outcome } => {
            put(&mut body, DECIDED, [producer.0]);
            body.push(u8::from(*outcome == TransactionOutcome::Commit));
        }
        JournalRecord::Prepared { producer, id, places } => {
            put(&mut body, PREPARED, [producer.0]);
            put_text(&mut body, id.as_str());
            body.extend_from_slice(&(places.len() as u32).to_be_bytes());
            for place in places {
                put_text(&mut body, place.stream.as_str());
                body.extend_from_slice(&place.shard.0.to_be_bytes());
            }
        }
    }
    journal::put_frame(&body, bytes);
}

fn put<const N: usize>(body: &mut Vec<u8>, kind: u8, numbers: [i64; N]) {
    body.push(kind);
    numbers.iter().for_each(|number| body.extend_from_slice(&number.to_be_bytes()));
}

fn put_text(body: &mut Vec<u8>, text: &str) {
    body.extend_from_slice(&(text.len() as u16).to_be_bytes());
    body.extend_from_slice(text.as_bytes());
}

fn decode(body: &[u8]) -> Option<JournalRecord> {
    let (kind, mut rest) = body.split_first()?;
    let record = match *kind {
        RESERVED => JournalRecord::Reserved { first: number(&mut rest)?, below: number(&mut rest)? },
        COMMITTED => JournalRecord::Committed { first: number(&mut rest)?, last: number(&mut rest)? },
        COMPLETED => JournalRecord::Completed { producer: ProducerId(number(&mut rest)?) },
        DECIDED => {
            let producer = ProducerId(number(&mut rest)?);
            let [outcome] = take(&mut rest)?;
            JournalRecord::Decided {
                producer,
                outcome: if outcome == 1 { TransactionOutcome::Commit } else { TransactionOutcome::Abort },
            }
        }
        PREPARED => {
            let producer = ProducerId(number(&mut rest)?);
            let id = TransactionalId::new(text(&mut rest)?).ok()?;
            let count = u32::from_be_bytes(take(&mut rest)?);
            let place = |_| {
                let stream = StreamName::new(text(&mut rest)?).ok()?;
                Some(Place { stream, shard: ShardId(u32::from_be_bytes(take(&mut rest)?)) })
            };
            let places = (0..count).map(place).collect::<Option<Vec<_>>>()?;
            JournalRecord::Prepared { producer, id, places }
        }
        _ => return None,
    };
    rest.is_empty().then_some(record)
}

fn number(rest: &mut &[u8]) -> Option<i64> {
    take(rest).map(i64::from_be_bytes)
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let length = u16::from_be_bytes(take(rest)?);
    let (text, after) = rest.split_at_checked(length.into())?;
    *rest = after;
    std::str::from_utf8(text).ok()
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (field, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::storage::Disk;

    fn prepared(producer: i64) -> JournalRecord {
        let place = |shard| Place { stream: StreamName::new("s").expect("a name"), shard: ShardId(shard) };
        let id = TransactionalId::new(format!("job/sink/0/{producer}")).expect("an id");
        JournalRecord::Prepared { producer: ProducerId(producer), id, places: vec![place(0), place(3)] }
    }

    fn records() -> Vec<JournalRecord> {
        let decided = |producer, outcome| JournalRecord::Decided { producer: ProducerId(producer), outcome };
        let completed = |producer| JournalRecord::Completed { producer: ProducerId(producer) };
        vec![
            prepared(10),
            prepared(11),
            decided(10, TransactionOutcome::Commit),
            completed(10),
            prepared(12),
            decided(11, TransactionOutcome::Commit),
            prepared(13),
            completed(11),
            decided(12, TransactionOutcome::Abort),
        ]
    }

    fn open(path: &Path) -> Result<JournalState> {
        let storage: Arc<dyn Storage> = Arc::new(Disk);
        let reserve = |journaled: &JournalState| match journaled.given {
            None => JournalRecord::Reserved { first: 10, below: 20 },
            Some((first, below)) => JournalRecord::Reserved { first, below },
        };
        TransactionJournal::open(path, &storage, reserve).map(|(_, journaled)| journaled)
    }

    fn written(path: &Path) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        encode(&JournalRecord::Reserved { first: 10, below: 20 }, &mut bytes);
        records().iter().for_each(|record| encode(record, &mut bytes));
        std::fs::write(path, &bytes).expect("write");
        bytes
    }

    #[test]
    fn what_is_remembered_survives_being_written_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("transactions");
        let long = written(&path).len();
        let journaled = open(&path).expect("sound");
        assert_eq!(journaled.given, Some((10, 20)));
        assert_eq!(journaled.committed.runs().collect::<Vec<_>>(), [(10, 11)]);
        let open_ones: Vec<_> = journaled.open.iter().map(|(producer, open)| (producer.0, open.outcome)).collect();
        assert_eq!(open_ones, [(12, Some(TransactionOutcome::Abort)), (13, None)]);
        assert!(std::fs::metadata(&path).expect("a file").len() < long as u64, "shorter");
        assert_eq!(open(&path).expect("sound"), journaled);
    }

    #[test]
    fn a_torn_record_ends_the_file_and_damage_before_others_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("transactions");
        let good = written(&path);
        // After the magic number: frames of a length, a checksum and a body.
        let mut ends = vec![8];
        while let Some(length) = good[ends[ends.len() - 1]..].first_chunk::<4>() {
            ends.push(ends[ends.len() - 1] + 8 + u32::from_be_bytes(*length) as usize);
        }
        assert_eq!(ends.last(), Some(&good.len()));
        for cut in 8..good.len() {
            let mut expected = JournalState::default();
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            let all = std::iter::once(JournalRecord::Reserved { first: 10, below: 20 }).chain(records());
            all.take(whole.max(1)).for_each(|record| expected.apply(record));
            std::fs::write(&path, &good[..cut]).expect("write");
            assert_eq!(open(&path).expect("torn"), expected, "cut at {cut}");
        }
        let last = ends[ends.len() - 2];
        for at in (0..last).chain([last + 9]) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).expect("write");
            match open(&path) {
                Err(LogError::Corrupt { .. }) => assert!(at < last, "byte {at}"),
                Ok(_) => assert!(at >= last, "byte {at}"),
                Err(other) => panic!("{other}"),
            }
        }
    }
}
