//! How far a read-committed reader may read a shard, and what it skips there (KIP-98's last stable offset).
//!
//! SUBTLE: a transaction holds readers back until its markers are durable in *all* its shards, and not only in this one:
//! a shard whose marker is written keeps the transaction in `unpublished` until the others have theirs. So the records
//! of a commit appear in all shards together.

use std::collections::BTreeMap;

use crate::ProducerId;
use crate::marker::Outcome;

/// A transaction that ended in a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) span: Span,
    pub(crate) outcome: Outcome,
}

/// Which records of a producer are, or were, of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
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
pub struct AbortedSpan {
    /// Whose batches are skipped.
    pub producer: ProducerId,
    /// From this record on.
    pub first: coulee_model::SequenceNumber,
    /// To this one.
    pub last: coulee_model::SequenceNumber,
}

/// The part of a shard's state that committed readers go by.
#[derive(Debug, Default)]
pub(crate) struct Stability {
    /// Where the earliest transaction without a durable marker begins.
    first_open: Option<u64>,
    /// Those whose marker is durable here, and perhaps not elsewhere, by where they begin.
    unpublished: BTreeMap<ProducerId, u64>,
    /// In order of their markers.
    aborted: Vec<Span>,
}

impl Stability {
    pub(crate) fn new(first_open: Option<u64>, aborted: Vec<Span>) -> Self {
        Stability { first_open, unpublished: BTreeMap::new(), aborted }
    }

    /// Takes in what a write has done. `withheld` says whether a transaction that ended waits for other shards.
    pub(crate) fn advance(
        &mut self,
        first_open: Option<u64>,
        closed: &[Closed],
        withheld: impl Fn(ProducerId) -> bool,
    ) {
        self.first_open = first_open;
        for closed in closed {
            if closed.outcome == Outcome::Abort {
                self.aborted.push(closed.span);
            }
            if withheld(closed.span.producer) {
                self.unpublished.insert(closed.span.producer, closed.span.first);
            }
        }
    }

    /// The markers of a transaction are durable in all its shards.
    pub(crate) fn publish(&mut self, producer: ProducerId) {
        self.unpublished.remove(&producer);
    }

    /// The last stable sequence: committed readers see what is before it. `end` is the end of what is durable.
    pub(crate) fn stable(&self, end: u64) -> u64 {
        let unpublished = self.unpublished.values().copied().min();
        self.first_open.into_iter().chain(unpublished).fold(end, u64::min)
    }

    /// The aborted transactions with records from `from` to before `to`.
    pub(crate) fn aborted(&self, from: u64, to: u64) -> Vec<Span> {
        let candidates = &self.aborted[self.aborted.partition_point(|span| span.last < from)..];
        candidates.iter().filter(|span| span.first < to).copied().collect()
    }

    /// How many records the aborted transactions have whose marker is before `stable`.
    pub(crate) fn aborted_records(&self, stable: u64) -> u64 {
        let before = self.aborted.partition_point(|span| span.last < stable);
        self.aborted[..before].iter().map(|span| span.records).sum()
    }

    pub(crate) fn all_aborted(&self) -> &[Span] {
        &self.aborted
    }

    /// Forgets what retention has removed.
    pub(crate) fn forget(&mut self, earliest: u64) {
        self.aborted.drain(..self.aborted.partition_point(|span| span.last < earliest));
    }
}

/// Whether a batch is of one of these transactions.
pub(crate) fn is_in(spans: &[Span], producer: ProducerId, base: u64) -> bool {
    spans.iter().any(|span| span.producer == producer && span.first <= base && base <= span.last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(producer: i64, first: u64, last: u64, outcome: Outcome) -> Closed {
        Closed { span: Span { producer: ProducerId(producer), first, last, records: last - first }, outcome }
    }

    #[test]
    fn a_transaction_holds_back_until_it_is_published() {
        let mut stability = Stability::new(Some(3), Vec::new());
        assert_eq!(stability.stable(10), 3);
        // 3 has its marker here, and waits for others; 5 is open.
        stability.advance(Some(5), &[closed(1, 3, 10, Outcome::Commit)], |_| true);
        assert_eq!(stability.stable(11), 3);
        stability.publish(ProducerId(1));
        assert_eq!(stability.stable(11), 5);
        stability.advance(None, &[closed(2, 5, 11, Outcome::Abort)], |_| false);
        assert_eq!(stability.stable(12), 12);
        assert!(is_in(&stability.aborted(0, 12), ProducerId(2), 7));
        assert!(!is_in(&stability.aborted(0, 12), ProducerId(1), 7), "committed");
        assert!(stability.aborted(0, 5).is_empty() && stability.aborted(12, 20).is_empty());
        stability.forget(11);
        assert_eq!(stability.all_aborted().len(), 1, "its marker is left");
        stability.forget(12);
        assert!(stability.all_aborted().is_empty());
    }
}
