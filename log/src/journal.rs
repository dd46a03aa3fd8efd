//! The file that remembers transactions: which are prepared, how they were decided, and which producer ids were given
//! out. `docs/formats/log.md` has its bytes.
//!
//! It is written anew, without what is over, at every start and whenever it has grown. A record that was torn off by a
//! crash ends it; what was answered was synced before.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coulee_model::{ShardId, StreamName};

use crate::error::{Place, is_disk_full};
use crate::marker::Outcome;
use crate::outcomes::Committed;
use crate::storage::{self, SegmentFile, Storage};
use crate::transaction::TransactionalId;
use crate::{LogError, ProducerId, Result};

const MAGIC: [u8; 8] = *b"COULEET1";
/// Length and checksum.
const FRAME_BYTES: usize = 8;
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
pub(crate) enum Record {
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
        outcome: Outcome,
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
    pub(crate) outcome: Option<Outcome>,
}

/// All that the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// The producer ids that were given out: from the first to before the second.
    pub(crate) given: Option<(i64, i64)>,
    pub(crate) open: BTreeMap<ProducerId, Prepared>,
    pub(crate) committed: Committed,
}

impl Memory {
    pub(crate) fn apply(&mut self, record: Record) {
        match record {
            Record::Reserved { first, below } => self.given = Some((first, below)),
            Record::Prepared { producer, id, places } => {
                self.open.insert(producer, Prepared { id, places, outcome: None });
            }
            Record::Decided { producer, outcome } => {
                if let Some(open) = self.open.get_mut(&producer) {
                    open.outcome = Some(outcome);
                }
            }
            Record::Completed { producer } => {
                if self.open.remove(&producer).is_some_and(|open| open.outcome == Some(Outcome::Commit)) {
                    self.committed.note(producer.0, producer.0);
                }
            }
            Record::Committed { first, last } => self.committed.note(first, last),
        }
    }

    /// The fewest records that say the same.
    fn records(&self) -> Vec<Record> {
        let given = self.given.map(|(first, below)| Record::Reserved { first, below });
        let committed = self.committed.runs().map(|(first, last)| Record::Committed { first, last });
        let open = self.open.iter().flat_map(|(&producer, open)| {
            let decided = open.outcome.map(|outcome| Record::Decided { producer, outcome });
            [Record::Prepared { producer, id: open.id.clone(), places: open.places.clone() }].into_iter().chain(decided)
        });
        given.into_iter().chain(committed).chain(open).collect()
    }
}

/// The open file.
pub(crate) struct Journal {
    path: PathBuf,
    storage: Arc<dyn Storage>,
    file: Box<dyn SegmentFile>,
    bytes: u64,
    /// Above this size the file is written anew.
    compact_at: u64,
    /// What the file says, kept for writing it anew.
    memory: Memory,
}

/// Why nothing was added.
pub(crate) enum Failure {
    /// Nothing of it is in the file.
    Passing(LogError),
    /// Nobody knows.
    Lasting(LogError),
}

impl Journal {
    /// Reads the file, and writes it anew with `first` added to what it says.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] when there is damage that is no torn write; [`LogError::Io`], [`LogError::DiskFull`].
    pub(crate) fn open(
        path: &Path,
        storage: &Arc<dyn Storage>,
        first: impl FnOnce(&Memory) -> Record,
    ) -> Result<(Journal, Memory)> {
        let mut memory = Memory::default();
        match std::fs::read(path) {
            Ok(bytes) => read(path, &bytes, |record| memory.apply(record))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(LogError::io("read", path, error)),
        }
        let record = first(&memory);
        memory.apply(record);
        let (file, bytes) = rewrite(path, storage, &memory)?;
        let journal = Journal {
            path: path.to_owned(),
            storage: Arc::clone(storage),
            file,
            bytes,
            compact_at: COMPACT_BYTES.max(2 * bytes),
            memory: memory.clone(),
        };
        Ok((journal, memory))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds records, and makes them durable if `sync` says so.
    pub(crate) fn append(&mut self, records: &[Record], sync: bool) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        records.iter().for_each(|record| encode(record, &mut bytes));
        if let Err(error) = self.file.write_all_at(&bytes, self.bytes) {
            // SUBTLE: cutting back is only sound before a sync was tried; what a failed sync leaves is unknown.
            let undone = is_disk_full(&error) && self.file.truncate(self.bytes).is_ok();
            return Err(if undone {
                Failure::Passing(LogError::io("write", &self.path, error))
            } else {
                self.lost(error)
            });
        }
        if sync && let Err(error) = self.file.sync() {
            return Err(self.lost(error));
        }
        self.bytes += bytes.len() as u64;
        records.iter().for_each(|record| self.memory.apply(record.clone()));
        if self.bytes > self.compact_at { self.compact() } else { Ok(()) }
    }

    /// Writes the file anew, without what is over. What was added before is durable whatever comes of it.
    fn compact(&mut self) -> Result<(), Failure> {
        let rewritten = rewrite(&self.path, &self.storage, &self.memory).or_else(|error| {
            // SUBTLE: the draft may have taken the place of the file, but not durably. The file of that name is the one to
            // add to, and its name has to be made durable first.
            tracing::warn!(path = %self.path.display(), %error, "could not write the log of transactions anew");
            let folder = self.path.parent().unwrap_or(&self.path);
            let file = self.storage.open(&self.path).map_err(|e| LogError::io("open", &self.path, e))?;
            let found = std::fs::metadata(&self.path).map_err(|e| LogError::io("look at", &self.path, e))?;
            storage::sync_folder(folder).map(|()| (file, found.len()))
        });
        match rewritten {
            Ok((file, bytes)) => {
                (self.file, self.bytes) = (file, bytes);
                self.compact_at = COMPACT_BYTES.max(2 * bytes);
                Ok(())
            }
            Err(error) => Err(self.lost(io::Error::other(error))),
        }
    }

    fn lost(&self, source: io::Error) -> Failure {
        Failure::Lasting(LogError::TransactionsPoisoned { path: self.path.clone(), source: Arc::new(source) })
    }
}

fn rewrite(path: &Path, storage: &Arc<dyn Storage>, memory: &Memory) -> Result<(Box<dyn SegmentFile>, u64)> {
    let mut bytes = MAGIC.to_vec();
    memory.records().iter().for_each(|record| encode(record, &mut bytes));
    storage::write_atomically(path, &bytes)?;
    let file = storage.open(path).map_err(|e| LogError::io("open", path, e))?;
    Ok((file, bytes.len() as u64))
}

fn encode(record: &Record, bytes: &mut Vec<u8>) {
    let mut body = Vec::new();
    match record {
        Record::Reserved { first, below } => put(&mut body, RESERVED, [*first, *below]),
        Record::Committed { first, last } => put(&mut body, COMMITTED, [*first, *last]),
        Record::Completed { producer } => put(&mut body, COMPLETED, [producer.0]),
        Record::Decided { producer, outcome } => {
            put(&mut body, DECIDED, [producer.0]);
            body.push(u8::from(*outcome == Outcome::Commit));
        }
        Record::Prepared { producer, id, places } => {
            put(&mut body, PREPARED, [producer.0]);
            put_text(&mut body, id.as_str());
            body.extend_from_slice(&(places.len() as u32).to_be_bytes());
            for place in places {
                put_text(&mut body, place.stream.as_str());
                body.extend_from_slice(&place.shard.0.to_be_bytes());
            }
        }
    }
    bytes.extend_from_slice(&(body.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
    bytes.extend_from_slice(&body);
}

fn put<const N: usize>(body: &mut Vec<u8>, kind: u8, numbers: [i64; N]) {
    body.push(kind);
    numbers.iter().for_each(|number| body.extend_from_slice(&number.to_be_bytes()));
}

fn put_text(body: &mut Vec<u8>, text: &str) {
    body.extend_from_slice(&(text.len() as u16).to_be_bytes());
    body.extend_from_slice(text.as_bytes());
}

/// Visits the records of a file up to the first that is torn.
fn read(path: &Path, bytes: &[u8], mut visit: impl FnMut(Record)) -> Result<()> {
    let Some(mut rest) = bytes.strip_prefix(&MAGIC) else {
        return Err(LogError::corrupt(path, 0, "it does not begin as a log of transactions does"));
    };
    while !rest.is_empty() {
        let position = (bytes.len() - rest.len()) as u64;
        let Some((body, after)) = framed(rest) else {
            // A torn write leaves nothing sound behind it; damage does.
            if (1..rest.len()).any(|at| framed(&rest[at..]).is_some_and(|(body, _)| decode(body).is_some())) {
                return Err(LogError::corrupt(path, position, "a record is not what was written, but others follow"));
            }
            tracing::warn!(path = %path.display(), position, "cut off a torn write that was never answered");
            return Ok(());
        };
        let record = decode(body).ok_or_else(|| LogError::corrupt(path, position, "a record is malformed"))?;
        visit(record);
        rest = after;
    }
    Ok(())
}

fn framed(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (frame, rest) = bytes.split_first_chunk::<FRAME_BYTES>()?;
    let (length, crc) = frame.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length) as usize;
    if length == 0 || length > RECORD_BYTES_MAX {
        return None;
    }
    let (body, after) = rest.split_at_checked(length)?;
    (crc == crc32c::crc32c(body).to_be_bytes()).then_some((body, after))
}

fn decode(body: &[u8]) -> Option<Record> {
    let (kind, mut rest) = body.split_first()?;
    let record = match *kind {
        RESERVED => Record::Reserved { first: number(&mut rest)?, below: number(&mut rest)? },
        COMMITTED => Record::Committed { first: number(&mut rest)?, last: number(&mut rest)? },
        COMPLETED => Record::Completed { producer: ProducerId(number(&mut rest)?) },
        DECIDED => {
            let producer = ProducerId(number(&mut rest)?);
            let [outcome] = take(&mut rest)?;
            Record::Decided { producer, outcome: if outcome == 1 { Outcome::Commit } else { Outcome::Abort } }
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
            Record::Prepared { producer, id, places }
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
    use crate::storage::Disk;

    fn prepared(producer: i64) -> Record {
        let place = |shard| Place { stream: StreamName::new("s").expect("a name"), shard: ShardId(shard) };
        let id = TransactionalId::new(format!("job/sink/0/{producer}")).expect("an id");
        Record::Prepared { producer: ProducerId(producer), id, places: vec![place(0), place(3)] }
    }

    fn records() -> Vec<Record> {
        let decided = |producer, outcome| Record::Decided { producer: ProducerId(producer), outcome };
        let completed = |producer| Record::Completed { producer: ProducerId(producer) };
        vec![
            prepared(10),
            prepared(11),
            decided(10, Outcome::Commit),
            completed(10),
            prepared(12),
            decided(11, Outcome::Commit),
            prepared(13),
            completed(11),
            decided(12, Outcome::Abort),
        ]
    }

    fn open(path: &Path) -> Result<Memory> {
        let storage: Arc<dyn Storage> = Arc::new(Disk);
        let reserve = |memory: &Memory| match memory.given {
            None => Record::Reserved { first: 10, below: 20 },
            Some((first, below)) => Record::Reserved { first, below },
        };
        Journal::open(path, &storage, reserve).map(|(_, memory)| memory)
    }

    fn written(path: &Path) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        encode(&Record::Reserved { first: 10, below: 20 }, &mut bytes);
        records().iter().for_each(|record| encode(record, &mut bytes));
        std::fs::write(path, &bytes).expect("write");
        bytes
    }

    #[test]
    fn what_is_remembered_survives_being_written_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("transactions");
        let long = written(&path).len();
        let memory = open(&path).expect("sound");
        assert_eq!(memory.given, Some((10, 20)));
        assert_eq!(memory.committed.runs().collect::<Vec<_>>(), [(10, 11)]);
        let open_ones: Vec<_> = memory.open.iter().map(|(producer, open)| (producer.0, open.outcome)).collect();
        assert_eq!(open_ones, [(12, Some(Outcome::Abort)), (13, None)]);
        assert!(std::fs::metadata(&path).expect("a file").len() < long as u64, "shorter");
        assert_eq!(open(&path).expect("sound"), memory);
    }

    #[test]
    fn a_torn_record_ends_the_file_and_damage_before_others_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("transactions");
        let good = written(&path);
        let (mut ends, mut rest) = (vec![8], &good[8..]);
        while let Some((body, after)) = framed(rest) {
            ends.push(ends.last().expect("one") + FRAME_BYTES + body.len());
            rest = after;
        }
        assert_eq!(ends.last(), Some(&good.len()));
        for cut in 8..good.len() {
            let mut expected = Memory::default();
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            let all = std::iter::once(Record::Reserved { first: 10, below: 20 }).chain(records());
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
