//! The appends of one transaction: how they are numbered in each shard, how many are under way, and whether one failed.
//!
//! SUBTLE: `order` is held from the check that the transaction still takes appends until the batch is in its shard's
//! queue. So no batch is queued behind the transaction's marker, where it would begin a transaction that nobody ends.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::append::Append;
use crate::builder::BatchBuilder;
use crate::queue::Answer;
use crate::shard::Shard;
use crate::transaction::TransactionRef;
use crate::{LogError, Result};

/// Why a transaction takes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seal {
    /// A newer owner of its name has begun one.
    Fenced,
    /// It has ended, or is about to, for this reason.
    Ended(&'static str),
}

impl Seal {
    pub(crate) fn error(self, transaction: &TransactionRef) -> LogError {
        let transaction = transaction.clone();
        match self {
            Seal::Fenced => LogError::TransactionFenced { transaction },
            Seal::Ended(reason) => LogError::TransactionEnded { transaction, reason },
        }
    }
}

/// The appends of a transaction. Locks are taken in the order `order`, a shard's queue; and a writer, `counts`.
#[derive(Default)]
pub(crate) struct Lanes {
    order: Mutex<Order>,
    counts: Mutex<Counts>,
    /// Told when nothing is under way any more.
    settled: Notify,
}

#[derive(Default)]
struct Order {
    /// Why nothing more is taken.
    sealed: Option<Seal>,
    /// The shards, and how many records each was sent.
    shards: Vec<(Arc<Shard>, i32)>,
}

#[derive(Default)]
struct Counts {
    under_way: usize,
    failed: Option<LogError>,
}

impl Lanes {
    /// Of a transaction that a former process has prepared.
    pub(crate) fn resumed(shards: Vec<Arc<Shard>>) -> Self {
        let shards = shards.into_iter().map(|shard| (shard, 0)).collect();
        let order = Order { sealed: Some(Seal::Ended("it was prepared before the restart")), shards };
        Lanes { order: Mutex::new(order), ..Lanes::default() }
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
            return self.refuse(shard, error);
        }
        if batch.is_encoded() {
            let reason = "a batch that a client has encoded cannot be put into a transaction of the log";
            return self.refuse(shard, LogError::InvalidBatch { reason });
        }
        let mut order = self.order.lock();
        if let Some(seal) = order.sealed {
            return Append::refused(shard.place().clone(), seal.error(transaction));
        }
        if let Some(error) = self.counts.lock().failed.clone() {
            return Append::refused(shard.place().clone(), error);
        }
        let lane = match order.shards.iter().position(|(known, _)| Arc::ptr_eq(known, shard)) {
            Some(lane) => lane,
            None => {
                order.shards.push((Arc::clone(shard), 0));
                order.shards.len() - 1
            }
        };
        let next = &mut order.shards[lane].1;
        let count = batch.len() as i64;
        let batch = batch.transactional(transaction.producer, *next);
        let (caller, receiver) = oneshot::channel();
        self.counts.lock().under_way += 1;
        match shard.enqueue(batch, Answer::Member(caller, Arc::clone(self))) {
            Ok(()) => {
                *next = ((i64::from(*next) + count) & i64::from(i32::MAX)) as i32;
                Append::queued(shard.place().clone(), receiver)
            }
            Err((error, _)) => {
                self.answered(Some(&error));
                Append::refused(shard.place().clone(), error)
            }
        }
    }

    /// An append that never began fails the transaction, too: what is committed must be all that was written.
    fn refuse(&self, shard: &Shard, error: LogError) -> Append {
        self.counts.lock().failed.get_or_insert(error.clone());
        Append::refused(shard.place().clone(), error)
    }

    /// An append is stored, or failed.
    pub(crate) fn answered(&self, error: Option<&LogError>) {
        let mut counts = self.counts.lock();
        counts.under_way -= 1;
        if let Some(error) = error {
            counts.failed.get_or_insert_with(|| error.clone());
        }
        if counts.under_way == 0 {
            self.settled.notify_waiters();
        }
    }

    /// Takes no more appends. The first reason stays, and is the answer.
    pub(crate) fn seal(&self, seal: Seal) -> Seal {
        *self.order.lock().sealed.get_or_insert(seal)
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
