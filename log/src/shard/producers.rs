//! The producer state of a shard (KIP-98): the last batches of each idempotent producer, so that a batch sent twice is
//! stored once; and which producers have a transaction open.
//!
//! A producer id that was given to a single transaction is forgotten with the transaction's marker.
//!
//! SUBTLE: the first batch of an unknown producer must have the number 0. If the shard took any first number, as Kafka did
//! until KAFKA-15591, nobody would notice that the first batch was lost.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use crate::batch::header::Header;
use crate::batch::marker::TransactionOutcome;
use crate::error::{LogError, Result};
use crate::files::storage::{self, Storage};
use crate::ids::{Place, ProducerId};
use crate::shard::last_stable_offset::{CompletedTransaction, TransactionRange};

/// Retries reach back this far: clients have up to five requests in flight.
const LAST_BATCHES_MAX: usize = 5;
/// Beyond this many, those that were quiet the longest are forgotten when a segment is closed.
const PRODUCERS_MAX: usize = 65_536;

const MAGIC: [u8; 8] = *b"COULEEP2";

/// A batch that a producer has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SentBatch {
    /// The producer's numbers of its first and last record.
    first: i32,
    last: i32,
    /// The sequence number of its first record in the shard.
    at: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Producer {
    epoch: i16,
    /// Oldest first; empty when a marker has raised the epoch.
    last_batches: Vec<SentBatch>,
    /// The end of its last batch in the shard: who is quiet the longest.
    end: u64,
}

/// What a transaction has written so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OpenTransaction {
    /// The sequence number of its first record.
    first: u64,
    records: u64,
}

/// Every producer that a shard knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Producers {
    known: HashMap<ProducerId, Producer>,
    /// Those with an open transaction.
    open: BTreeMap<ProducerId, OpenTransaction>,
}

/// What is to be done with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    New,
    /// It is stored already, beginning at this sequence number.
    Duplicate(u64),
}

impl Producers {
    /// Whether a batch follows what its producer sent before.
    ///
    /// # Errors
    /// [`LogError::FencedProducer`] for an epoch that was replaced, [`LogError::OutOfOrderSequence`] for a gap.
    pub(crate) fn check(&self, batch: &Header, place: &Place) -> Result<Admission> {
        if batch.producer.0 < 0 {
            return Ok(Admission::New);
        }
        let known = self.known.get(&batch.producer);
        if let Some(known) = known.filter(|known| known.epoch > batch.producer_epoch) {
            return Err(LogError::FencedProducer {
                place: place.clone(),
                producer: batch.producer,
                found: batch.producer_epoch,
                current: known.epoch,
            });
        }
        if !batch.is_numbered() {
            return Ok(Admission::New);
        }
        let last_batches =
            known.filter(|known| known.epoch == batch.producer_epoch).map_or(&[][..], |known| &known.last_batches);
        let last = last_of(batch);
        if let Some(sent) = last_batches.iter().find(|sent| sent.first == batch.producer_sequence && sent.last == last)
        {
            return Ok(Admission::Duplicate(sent.at));
        }
        let expected = last_batches.last().map_or(0, |sent| advance(sent.last, 1));
        if batch.producer_sequence != expected {
            return Err(LogError::OutOfOrderSequence {
                place: place.clone(),
                producer: batch.producer,
                found: batch.producer_sequence,
                expected,
            });
        }
        Ok(Admission::New)
    }

    /// Remembers a batch that was admitted as new, stamped with its place. `outcome` is that of a marker. The answer is the
    /// transaction that the batch has ended.
    pub(crate) fn note(&mut self, batch: &Header, outcome: Option<TransactionOutcome>) -> Option<CompletedTransaction> {
        if batch.producer.0 < 0 {
            return None;
        }
        if let Some(outcome) = outcome {
            return self.complete(batch, outcome);
        }
        if batch.is_transactional() && !batch.is_control() {
            let first = OpenTransaction { first: batch.base_sequence, records: 0 };
            self.open.entry(batch.producer).or_insert(first).records += u64::from(batch.count);
        }
        self.remember(batch);
        None
    }

    fn complete(&mut self, marker: &Header, outcome: TransactionOutcome) -> Option<CompletedTransaction> {
        if marker.producer.is_of_one_transaction() {
            self.known.remove(&marker.producer);
        } else {
            self.remember(marker);
        }
        let OpenTransaction { first, records } = self.open.remove(&marker.producer)?;
        let range = TransactionRange { producer: marker.producer, first, last: marker.base_sequence, records };
        Some(CompletedTransaction { range, outcome })
    }

    fn remember(&mut self, batch: &Header) {
        let known = self.known.entry(batch.producer).or_insert_with(|| Producer {
            epoch: batch.producer_epoch,
            last_batches: Vec::with_capacity(LAST_BATCHES_MAX),
            end: 0,
        });
        if known.epoch != batch.producer_epoch {
            known.epoch = batch.producer_epoch;
            known.last_batches.clear();
        }
        known.end = batch.end();
        if batch.is_numbered() {
            if known.last_batches.len() == LAST_BATCHES_MAX {
                known.last_batches.remove(0);
            }
            known.last_batches.push(SentBatch {
                first: batch.producer_sequence,
                last: last_of(batch),
                at: batch.base_sequence,
            });
        }
    }

    /// The epoch and the last number of a producer.
    pub(crate) fn last(&self, producer: ProducerId) -> Option<(i16, i32)> {
        let known = self.known.get(&producer)?;
        Some((known.epoch, known.last_batches.last()?.last))
    }

    /// Whether a producer has a transaction open.
    pub(crate) fn is_open(&self, producer: ProducerId) -> bool {
        self.open.contains_key(&producer)
    }

    /// The producers that have a transaction open.
    pub(crate) fn open(&self) -> impl Iterator<Item = ProducerId> + use<'_> {
        self.open.keys().copied()
    }

    /// The first record of the transaction that has been open the longest.
    pub(crate) fn first_open(&self) -> Option<u64> {
        self.open.values().map(|open| open.first).min()
    }

    /// Forgets those whose records retention has removed, and then the quietest that are too many.
    pub(crate) fn forget(&mut self, earliest: u64) {
        let open = &self.open;
        self.known.retain(|id, known| known.end > earliest || open.contains_key(id));
        if self.known.len() > PRODUCERS_MAX {
            let mut ends: Vec<u64> = self.known.values().map(|known| known.end).collect();
            let surplus = ends.len() - PRODUCERS_MAX;
            let (_, &mut newest_forgotten, _) = ends.select_nth_unstable(surplus - 1);
            self.known.retain(|id, known| known.end > newest_forgotten || open.contains_key(id));
        }
    }

    /// Writes the file that holds what is known before the record `at`, with the aborted transactions of before.
    pub(crate) fn save(
        &self,
        aborted: &[TransactionRange],
        storage: &dyn Storage,
        folder: &Path,
        at: u64,
    ) -> Result<()> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&at.to_be_bytes());
        bytes.extend_from_slice(&(self.known.len() as u32).to_be_bytes());
        for (id, known) in &self.known {
            bytes.extend_from_slice(&id.0.to_be_bytes());
            bytes.extend_from_slice(&known.epoch.to_be_bytes());
            bytes.extend_from_slice(&known.end.to_be_bytes());
            bytes.push(known.last_batches.len() as u8);
            for sent in &known.last_batches {
                bytes.extend_from_slice(&sent.first.to_be_bytes());
                bytes.extend_from_slice(&sent.last.to_be_bytes());
                bytes.extend_from_slice(&sent.at.to_be_bytes());
            }
        }
        put_numbers(&mut bytes, self.open.iter().map(|(id, open)| [id.0 as u64, open.first, open.records]));
        put_numbers(
            &mut bytes,
            aborted.iter().map(|range| [range.producer.0 as u64, range.first, range.last, range.records]),
        );
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_be_bytes());
        storage::write_atomically(storage, &path_at(folder, at), &bytes)
    }

    /// Reads that file; `None` when it is absent or damaged, as it can be rebuilt from the log.
    pub(crate) fn load(folder: &Path, at: u64) -> Option<(Producers, Vec<TransactionRange>)> {
        let bytes = std::fs::read(path_at(folder, at)).ok()?;
        let (content, crc) = bytes.split_last_chunk::<4>()?;
        if crc32c::crc32c(content) != u32::from_be_bytes(*crc) {
            return None;
        }
        let mut rest = content.strip_prefix(&MAGIC)?;
        if u64::from_be_bytes(take(&mut rest)?) != at {
            return None;
        }
        let mut known = HashMap::new();
        for _ in 0..u32::from_be_bytes(take(&mut rest)?) {
            let id = ProducerId(i64::from_be_bytes(take(&mut rest)?));
            let epoch = i16::from_be_bytes(take(&mut rest)?);
            let end = u64::from_be_bytes(take(&mut rest)?);
            let [count] = take(&mut rest)?;
            let mut last_batches = Vec::with_capacity(LAST_BATCHES_MAX);
            for _ in 0..count {
                let first = i32::from_be_bytes(take(&mut rest)?);
                let last = i32::from_be_bytes(take(&mut rest)?);
                last_batches.push(SentBatch { first, last, at: u64::from_be_bytes(take(&mut rest)?) });
            }
            known.insert(id, Producer { epoch, last_batches, end });
        }
        let transaction = |[id, first, records]: [u64; 3]| (ProducerId(id as i64), OpenTransaction { first, records });
        let open = take_numbers(&mut rest, transaction)?;
        let range = |[id, first, last, records]: [u64; 4]| TransactionRange {
            producer: ProducerId(id as i64),
            first,
            last,
            records,
        };
        let aborted = take_numbers(&mut rest, range)?;
        rest.is_empty().then_some((Producers { known, open: open.into_iter().collect() }, aborted))
    }
}

/// The file that holds what is known before the record `at`.
pub(crate) fn path_at(folder: &Path, at: u64) -> PathBuf {
    folder.join(format!("{at:020}.producers"))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (field, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*field)
}

/// A count and as many rows of numbers.
fn put_numbers<const N: usize>(bytes: &mut Vec<u8>, rows: impl ExactSizeIterator<Item = [u64; N]>) {
    bytes.extend_from_slice(&(rows.len() as u32).to_be_bytes());
    rows.flatten().for_each(|number| bytes.extend_from_slice(&number.to_be_bytes()));
}

fn take_numbers<const N: usize, T>(rest: &mut &[u8], made: impl Fn([u64; N]) -> T) -> Option<Vec<T>> {
    let mut rows = Vec::new();
    for _ in 0..u32::from_be_bytes(take(rest)?) {
        let mut row = [0; N];
        for number in &mut row {
            *number = u64::from_be_bytes(take(rest)?);
        }
        rows.push(made(row));
    }
    Some(rows)
}

/// The producer's number of a batch's last record.
fn last_of(batch: &Header) -> i32 {
    advance(batch.producer_sequence, batch.last_delta)
}

/// A producer's numbers run from 0 to `i32::MAX` and begin again at 0.
fn advance(sequence: i32, by: u32) -> i32 {
    ((i64::from(sequence) + i64::from(by)) & i64::from(i32::MAX)) as i32
}

#[cfg(test)]
mod tests {
    use coulee_model::{ShardId, StreamName};

    use super::*;

    fn batch(epoch: i16, first: i32, count: u32, at: u64) -> Header {
        Header {
            base_sequence: at,
            bytes: 100,
            attributes: 0,
            last_delta: count - 1,
            base_timestamp: 0,
            max_timestamp: 0,
            producer: ProducerId(7),
            producer_epoch: epoch,
            producer_sequence: first,
            count,
        }
    }

    fn place() -> Place {
        Place { stream: StreamName::new("s").expect("a name"), shard: ShardId(0) }
    }

    #[test]
    fn batches_must_follow_one_another() {
        let mut producers = Producers::default();
        assert!(producers.check(&batch(0, 3, 1, 0), &place()).is_err(), "an unknown producer begins at 0");
        producers.note(&batch(0, 0, 10, 100), None);
        assert_eq!(producers.check(&batch(0, 10, 5, 0), &place()).expect("next"), Admission::New);
        assert_eq!(producers.check(&batch(0, 0, 10, 0), &place()).expect("again"), Admission::Duplicate(100));
        let error = producers.check(&batch(0, 12, 1, 0), &place()).unwrap_err();
        assert!(matches!(error, LogError::OutOfOrderSequence { found: 12, expected: 10, .. }), "{error}");
        assert!(producers.check(&batch(0, 0, 3, 0), &place()).is_err(), "the same start with another length");
        assert_eq!(producers.last(ProducerId(7)), Some((0, 9)));
    }

    #[test]
    fn a_new_epoch_begins_at_0_and_fences_the_old_one() {
        let mut producers = Producers::default();
        producers.note(&batch(3, 0, 10, 100), None);
        assert!(producers.check(&batch(4, 10, 1, 0), &place()).is_err());
        assert_eq!(producers.check(&batch(4, 0, 10, 0), &place()).expect("not a duplicate"), Admission::New);
        producers.note(&batch(4, 0, 1, 110), None);
        let error = producers.check(&batch(3, 10, 1, 0), &place()).unwrap_err();
        assert!(matches!(error, LogError::FencedProducer { found: 3, current: 4, .. }), "{error}");
    }

    #[test]
    fn the_last_five_are_remembered_and_numbers_wrap() {
        let mut producers = Producers::default();
        for i in 0..6 {
            producers.note(&batch(0, i, 1, i as u64), None);
        }
        assert!(producers.check(&batch(0, 0, 1, 0), &place()).is_err(), "the sixth from the end is forgotten");
        assert_eq!(producers.check(&batch(0, 1, 1, 0), &place()).expect("the fifth"), Admission::Duplicate(1));

        producers.note(&batch(0, i32::MAX - 1, 4, 50), None);
        assert_eq!(producers.last(ProducerId(7)), Some((0, 1)));
        assert_eq!(producers.check(&batch(0, 2, 7, 0), &place()).expect("after the wrap"), Admission::New);
    }

    #[test]
    fn the_file_brings_everything_back_or_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut producers = Producers::default();
        producers.note(&batch(0, 0, 10, 100), None);
        producers.note(&batch(0, 10, 10, 110), None);
        producers.note(&Header { attributes: crate::batch::header::OF_TRANSACTION, ..batch(0, 20, 5, 120) }, None);
        let aborted = vec![TransactionRange { producer: ProducerId(8), first: 3, last: 40, records: 9 }];
        producers.save(&aborted, &storage::Disk, folder.path(), 120).expect("save");
        assert_eq!(Producers::load(folder.path(), 120), Some((producers, aborted)));
        assert_eq!(Producers::load(folder.path(), 121), None);

        let path = path_at(folder.path(), 120);
        let good = std::fs::read(&path).expect("read");
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 1;
            std::fs::write(&path, &bad).expect("write");
            assert_eq!(Producers::load(folder.path(), 120), None, "bit flipped in byte {i}");
        }
    }

    #[test]
    fn those_without_records_are_forgotten() {
        let mut producers = Producers::default();
        producers.note(&batch(0, 0, 10, 100), None);
        producers.forget(109);
        assert!(producers.last(ProducerId(7)).is_some());
        producers.forget(110);
        assert!(producers.last(ProducerId(7)).is_none());
    }

    #[test]
    fn a_transaction_is_open_from_its_first_batch_to_its_marker() {
        use crate::batch::header::{OF_MARKER, OF_TRANSACTION};
        let single = ProducerId(ProducerId::OF_ONE_TRANSACTION + 7);
        for (producer, left) in [(ProducerId(7), Some((0, 14))), (single, None)] {
            let mut producers = Producers::default();
            let of = |attributes, first, count, at| Header { attributes, producer, ..batch(0, first, count, at) };
            assert_eq!(producers.note(&of(OF_TRANSACTION, 0, 10, 100), None), None);
            assert_eq!(producers.note(&of(OF_TRANSACTION, 10, 5, 110), None), None);
            assert_eq!((producers.first_open(), producers.is_open(producer)), (Some(100), true));
            producers.forget(1000);
            assert_eq!(producers.last(producer), Some((0, 14)), "not forgotten while it is open");
            let marker = Header { producer_sequence: -1, ..of(OF_MARKER, 0, 1, 130) };
            let range = TransactionRange { producer, first: 100, last: 130, records: 15 };
            assert_eq!(
                producers.note(&marker, Some(TransactionOutcome::Abort)),
                Some(CompletedTransaction { range, outcome: TransactionOutcome::Abort })
            );
            assert_eq!(producers.first_open(), None);
            assert_eq!(producers.last(producer), left);
            assert_eq!(producers.note(&marker, Some(TransactionOutcome::Abort)), None, "a second marker ends nothing");
        }
    }
}
