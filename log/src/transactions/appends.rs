//! The partition appends of one transaction: how its batches are numbered in each shard (Kafka: partition), how many are
//! under way, and whether one failed.
//!
//! SUBTLE: `order` is held from the check that the transaction still takes appends until the batch is in its shard's
//! queue. So no batch is queued behind the transaction's marker, where it would begin a transaction that nobody ends.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::batch::builder::BatchBuilder;
use crate::error::{LogError, Result};
use crate::ids::TransactionRef;
use crate::shard::append::{Append, AppendListener};
use crate::shard::shard::Shard;

/// Why a transaction takes no more appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// A newer owner of its name has begun one.
    Fenced,
    /// It has ended, or is about to, for this reason.
    Ended(&'static str),
}

impl CloseReason {
    pub(crate) fn error(self, transaction: &TransactionRef) -> LogError {
        let transaction = transaction.clone();
        match self {
            CloseReason::Fenced => LogError::TransactionFenced { transaction },
            CloseReason::Ended(reason) => LogError::TransactionEnded { transaction, reason },
        }
    }
}

/// The appends of a transaction. Locks are taken in the order `order`, a shard's queue; and a writer, `counts`.
#[derive(Default)]
pub(crate) struct PartitionAppends {
    order: Mutex<Order>,
    counts: Mutex<Counts>,
    /// Told when nothing is under way any more.
    settled: Notify,
}

#[derive(Default)]
struct Order {
    /// Why no more appends are taken.
    closed: Option<CloseReason>,
    /// The shards that the transaction has appended to, and how many records each was sent.
    shards: Vec<(Arc<Shard>, i32)>,
}

#[derive(Default)]
struct Counts {
    under_way: usize,
    failed: Option<LogError>,
}

impl PartitionAppends {
    /// Of a transaction that a former process has prepared.
    pub(crate) fn resumed(shards: Vec<Arc<Shard>>) -> Self {
        let shards = shards.into_iter().map(|shard| (shard, 0)).collect();
        let order = Order { closed: Some(CloseReason::Ended("it was prepared before the restart")), shards };
        PartitionAppends { order: Mutex::new(order), ..PartitionAppends::default() }
    }

    /// Queues a batch as the transaction's next in its shard.
    pub(crate) fn append(
        self: &Arc<Self>,
        transaction: &TransactionRef,
        shard: &Arc<Shard>,
        batch: BatchBuilder,
    ) -> Append {
        // May read files, and ask who is in charge of the transactions found there: not to be done under a lock.
        if let Err(error) = shard.open() {
            return self.refuse(error);
        }
        if batch.is_encoded() {
            let reason = "a batch that a client has encoded cannot be put into a transaction of the log";
            return self.refuse(LogError::InvalidBatch { reason });
        }
        let mut order = self.order.lock();
        if let Some(reason) = order.closed {
            return Append::refused(reason.error(transaction));
        }
        if let Some(error) = self.counts.lock().failed.clone() {
            return Append::refused(error);
        }
        let at = match order.shards.iter().position(|(known, _)| Arc::ptr_eq(known, shard)) {
            Some(at) => at,
            None => {
                order.shards.push((Arc::clone(shard), 0));
                order.shards.len() - 1
            }
        };
        let next = &mut order.shards[at].1;
        let count = batch.len() as i64;
        let batch = batch.transactional(transaction.producer, *next);
        self.counts.lock().under_way += 1;
        let (append, taken) = shard.enqueue(batch, Some(Arc::clone(self) as Arc<dyn AppendListener>));
        if taken.is_some() {
            *next = ((i64::from(*next) + count) & i64::from(i32::MAX)) as i32;
        }
        append
    }

    /// An append that never began fails the transaction, too: what is committed must be all that was written.
    fn refuse(&self, error: LogError) -> Append {
        self.counts.lock().failed.get_or_insert(error.clone());
        Append::refused(error)
    }

    /// Takes no more appends. The first reason stays, and is the answer.
    pub(crate) fn close(&self, reason: CloseReason) -> CloseReason {
        *self.order.lock().closed.get_or_insert(reason)
    }

    /// Waits until no append is under way.
    ///
    /// # Errors
    /// The first error of any append.
    pub(crate) async fn settled(&self) -> Result<()> {
        loop {
            let notified = self.settled.notified();
            {
                let counts = self.counts.lock();
                if counts.under_way == 0 {
                    return counts.failed.clone().map_or(Ok(()), Err);
                }
            }
            notified.await;
        }
    }

    /// The shards that have, or may have, batches of the transaction.
    pub(crate) fn shards(&self) -> Vec<Arc<Shard>> {
        self.order.lock().shards.iter().map(|(shard, _)| Arc::clone(shard)).collect()
    }
}

impl AppendListener for PartitionAppends {
    fn appended(&self, error: Option<&LogError>) {
        let mut counts = self.counts.lock();
        counts.under_way -= 1;
        if let Some(error) = error {
            counts.failed.get_or_insert_with(|| error.clone());
        }
        if counts.under_way == 0 {
            self.settled.notify_waiters();
        }
    }
}
