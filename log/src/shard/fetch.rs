//! What a read returns: whole batches, as they are stored.

use bytes::Bytes;
use coulee_model::SequenceNumber;

use crate::batch::encoded::EncodedBatch;
use crate::error::{LogError, Result};
use crate::files::segment::FileRange;
use crate::shard::last_stable_offset::{self, AbortedTransaction, TransactionRange};

/// What a reader sees of transactions (KIP-98).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Isolation {
    /// Every record that is durable, also of transactions that are open or were aborted.
    ReadUncommitted,
    /// The records without a transaction, and those of committed ones, in order; nothing behind the beginning of one that
    /// is not decided.
    #[default]
    ReadCommitted,
}

/// Batches read from a shard.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The batches as they are stored, one after the other, markers and aborted ones included. The first may begin before
    /// the sequence number that was asked for.
    pub bytes: Bytes,
    /// Where to read on: after the last record in `bytes`, or what was asked for when there is none.
    pub next: SequenceNumber,
    /// The end of what the reader may see when it was read: `next == end` means that there is nothing more for now.
    pub end: SequenceNumber,
    /// What a committed reader skips of it.
    pub(crate) aborted: Vec<TransactionRange>,
}

impl Fetched {
    /// The batches that have records for the reader, without a copy: no markers, and for a committed reader no aborted ones.
    ///
    /// # Errors
    /// [`LogError::DamagedBatch`] when bytes are not a batch; nothing follows it.
    pub fn batches(&self) -> impl Iterator<Item = Result<EncodedBatch>> + use<> {
        let mut rest = self.bytes.clone();
        let mut base = self.next;
        let aborted = self.aborted.clone();
        std::iter::from_fn(move || {
            while !rest.is_empty() {
                match EncodedBatch::take(&mut rest) {
                    Ok(batch) => {
                        base = batch.last_sequence().plus(1);
                        if !batch.is_control() && !is_aborted(&aborted, &batch) {
                            return Some(Ok(batch));
                        }
                    }
                    Err(reason) => {
                        rest.clear();
                        return Some(Err(LogError::DamagedBatch { base, reason }));
                    }
                }
            }
            None
        })
    }

    /// For a committed reader, the aborted transactions that [`bytes`](Self::bytes) has batches of, in order of their
    /// markers: what Kafka's fetch answers beside the bytes. Empty for an uncommitted one.
    pub fn aborted(&self) -> impl ExactSizeIterator<Item = AbortedTransaction> + '_ {
        public(&self.aborted)
    }
}

/// Batches of a shard as parts of its files, to be sent without a copy.
#[derive(Debug, Clone)]
pub struct FetchedRanges {
    /// The parts, in order: together the bytes that [`Shard::read`](crate::Shard::read) would return.
    pub ranges: Vec<FileRange>,
    /// Where to read on: after the last record of the ranges, or what was asked for when there is none.
    pub next: SequenceNumber,
    /// The end of what the reader may see when it was read.
    pub end: SequenceNumber,
    /// What a committed reader skips of it.
    pub(crate) aborted: Vec<TransactionRange>,
}

impl FetchedRanges {
    /// The length of all ranges.
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.bytes).sum()
    }

    /// As [`Fetched::aborted`].
    pub fn aborted(&self) -> impl ExactSizeIterator<Item = AbortedTransaction> + '_ {
        public(&self.aborted)
    }
}

fn public(aborted: &[TransactionRange]) -> impl ExactSizeIterator<Item = AbortedTransaction> + '_ {
    aborted.iter().map(|range| AbortedTransaction {
        producer: range.producer,
        first: SequenceNumber(range.first),
        last: SequenceNumber(range.last),
    })
}

fn is_aborted(aborted: &[TransactionRange], batch: &EncodedBatch) -> bool {
    batch.is_transactional()
        && batch
            .producer()
            .is_some_and(|producer| last_stable_offset::is_in(aborted, producer, batch.base_sequence().0))
}
