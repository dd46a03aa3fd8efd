//! How far a read-committed reader may read a shard, and which records it skips there (KIP-98).
//!
//! The *last stable offset* is the sequence number of the first record of the earliest transaction that has not ended. A
//! read-committed reader sees the records before it, but for those of aborted transactions.
//!
//! SUBTLE: a transaction holds readers back until its markers are durable in *all* its shards, and not only in this one.
//! A shard whose marker is durable keeps the transaction in `unpublished` until the other shards have theirs. So the
//! records of a commit appear in all shards together.

use std::collections::BTreeMap;

use crate::batch::marker::TransactionOutcome;
use crate::ids::ProducerId;

/// A transaction whose marker is in the shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CompletedTransaction {
    pub(crate) range: TransactionRange,
    pub(crate) outcome: TransactionOutcome,
}

/// Which records of a producer are, or were, of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TransactionRange {
    pub(crate) producer: ProducerId,
    /// The sequence number of its first record in the shard.
    pub(crate) first: u64,
    /// That of its marker.
    pub(crate) last: u64,
    /// How many records it has.
    pub(crate) records: u64,
}

/// A transaction that a reader has to skip: the records of `producer` from `first` to `last`, both included. The last is
/// that of the abort marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Whose batches are skipped.
    pub producer: ProducerId,
    /// From this record on.
    pub first: coulee_model::SequenceNumber,
    /// To this one.
    pub last: coulee_model::SequenceNumber,
}

/// The transactions that hold committed readers back, and those that committed readers skip.
#[derive(Debug, Default)]
pub(crate) struct LastStableOffset {
    /// Where the earliest transaction without a durable marker begins.
    first_open: Option<u64>,
    /// Those whose marker is durable here, and perhaps not elsewhere, by where they begin.
    unpublished: BTreeMap<ProducerId, u64>,
    /// In order of their markers.
    aborted: Vec<TransactionRange>,
}

impl LastStableOffset {
    pub(crate) fn new(first_open: Option<u64>, aborted: Vec<TransactionRange>) -> Self {
        LastStableOffset { first_open, unpublished: BTreeMap::new(), aborted }
    }

    /// Takes in what a write has done. `withheld` says whether a transaction that ended waits for other shards.
    pub(crate) fn advance(
        &mut self,
        first_open: Option<u64>,
        completed: &[CompletedTransaction],
        withheld: impl Fn(ProducerId) -> bool,
    ) {
        self.first_open = first_open;
        for completed in completed {
            if completed.outcome == TransactionOutcome::Abort {
                self.aborted.push(completed.range);
            }
            if withheld(completed.range.producer) {
                self.unpublished.insert(completed.range.producer, completed.range.first);
            }
        }
    }

    /// The markers of a transaction are durable in all its shards.
    pub(crate) fn publish(&mut self, producer: ProducerId) {
        self.unpublished.remove(&producer);
    }

    /// The last stable offset: committed readers see what is before it. `end` is the end of what all readers may see.
    pub(crate) fn offset(&self, end: u64) -> u64 {
        let unpublished = self.unpublished.values().copied().min();
        self.first_open.into_iter().chain(unpublished).fold(end, u64::min)
    }

    /// The aborted transactions with records from `from` to before `to`.
    pub(crate) fn aborted(&self, from: u64, to: u64) -> Vec<TransactionRange> {
        let candidates = &self.aborted[self.aborted.partition_point(|range| range.last < from)..];
        candidates.iter().filter(|range| range.first < to).copied().collect()
    }

    /// How many records the aborted transactions have whose marker is before `stable`.
    pub(crate) fn aborted_records(&self, stable: u64) -> u64 {
        let before = self.aborted.partition_point(|range| range.last < stable);
        self.aborted[..before].iter().map(|range| range.records).sum()
    }

    pub(crate) fn all_aborted(&self) -> &[TransactionRange] {
        &self.aborted
    }

    /// Forgets what retention has removed.
    pub(crate) fn forget(&mut self, earliest: u64) {
        self.aborted.drain(..self.aborted.partition_point(|range| range.last < earliest));
    }
}

/// Whether a batch is of one of these transactions.
pub(crate) fn is_in(ranges: &[TransactionRange], producer: ProducerId, base: u64) -> bool {
    ranges.iter().any(|range| range.producer == producer && range.first <= base && base <= range.last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(producer: i64, first: u64, last: u64, outcome: TransactionOutcome) -> CompletedTransaction {
        CompletedTransaction {
            range: TransactionRange { producer: ProducerId(producer), first, last, records: last - first },
            outcome,
        }
    }

    #[test]
    fn a_transaction_holds_back_until_it_is_published() {
        let mut last_stable_offset = LastStableOffset::new(Some(3), Vec::new());
        assert_eq!(last_stable_offset.offset(10), 3);
        // 3 has its marker here, and waits for others; 5 is open.
        last_stable_offset.advance(Some(5), &[completed(1, 3, 10, TransactionOutcome::Commit)], |_| true);
        assert_eq!(last_stable_offset.offset(11), 3);
        last_stable_offset.publish(ProducerId(1));
        assert_eq!(last_stable_offset.offset(11), 5);
        last_stable_offset.advance(None, &[completed(2, 5, 11, TransactionOutcome::Abort)], |_| false);
        assert_eq!(last_stable_offset.offset(12), 12);
        assert!(is_in(&last_stable_offset.aborted(0, 12), ProducerId(2), 7));
        assert!(!is_in(&last_stable_offset.aborted(0, 12), ProducerId(1), 7), "committed");
        assert!(last_stable_offset.aborted(0, 5).is_empty() && last_stable_offset.aborted(12, 20).is_empty());
        last_stable_offset.forget(11);
        assert_eq!(last_stable_offset.all_aborted().len(), 1, "its marker is left");
        last_stable_offset.forget(12);
        assert!(last_stable_offset.all_aborted().is_empty());
    }
}
