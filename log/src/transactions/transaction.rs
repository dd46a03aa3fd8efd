//! A transaction in the hands of its owner: batches in several shards that become visible together, or never.
//!
//! ```text
//! Log::transaction ─▶ append … append ─▶ prepare ─▶ TransactionRef ─▶ Log::commit_transaction   (in this process or a later one)
//!                          └── dropped ─▶ aborted               └──▶ Log::abort_transaction
//! ```
//!
//! This is Kafka's mechanism (KIP-98), with the states of KIP-939: batches carry a producer id, and markers in each shard
//! end what it has written. A transaction of the log has a producer id of its own, so that one writer may have any number
//! of them prepared. A prepared transaction never expires: whoever prepared it may have promised to commit it.
//!
//! What holds:
//! - After [`Transaction::prepare`] all records are durable, and the transaction survives any crash until it is committed
//!   or aborted.
//! - A decision is durable before the first marker. Once it is, no reader sees a part of the transaction: the markers of
//!   all shards are durable before any shard shows the records. After a crash in between, [`Log::open`](crate::Log::open)
//!   completes it before it returns.
//! - A transaction that was not prepared when the process ended is aborted: its shards write the markers when they are
//!   opened, before any reader.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use coulee_model::Timestamp;
use tokio::sync::oneshot;

use crate::batch::builder::BatchBuilder;
use crate::error::{LogError, Result};
use crate::ids::{TransactionRef, TransactionalId};
use crate::shard::append::Append;
use crate::shard::shard::Shard;
use crate::transactions::appends::PartitionAppends;
use crate::transactions::coordinator::TransactionCoordinator;
use crate::transactions::state::Done;

/// An open transaction. Dropped before it is [prepared](Self::prepare), it is aborted.
pub struct Transaction {
    coordinator: Arc<TransactionCoordinator>,
    reference: TransactionRef,
    appends: Arc<PartitionAppends>,
    prepared: bool,
}

impl Transaction {
    /// Begins a transaction. One of the same name that is not prepared is aborted.
    ///
    /// # Errors
    /// Those of [`TransactionCoordinator::begin`].
    pub(crate) fn begin(
        coordinator: &Arc<TransactionCoordinator>,
        id: &TransactionalId,
        now: Timestamp,
    ) -> Result<Transaction> {
        let (reference, appends) = coordinator.begin(id, now)?;
        Ok(Transaction { coordinator: Arc::clone(coordinator), reference, appends, prepared: false })
    }

    /// Its name.
    pub fn id(&self) -> &TransactionalId {
        &self.reference.id
    }

    /// Queues a batch in a shard of the same log, as [`Shard::append`] does. Uncommitted readers see it once it is stored.
    ///
    /// The answer need not be waited for: [`prepare`](Self::prepare) does.
    ///
    /// # Errors
    /// In the answer. Those of [`Shard::append`], after which the transaction cannot be prepared;
    /// [`LogError::TransactionEnded`] when it was prepared or aborted, or not prepared in time;
    /// [`LogError::TransactionFenced`] when a newer owner of its name has begun one.
    pub fn append(&self, shard: &Arc<Shard>, batch: BatchBuilder) -> Append {
        self.appends.append(&self.reference, shard, batch)
    }

    /// Waits until all that was appended is stored, and makes the transaction survive a crash. Takes no appends from here on.
    ///
    /// # Errors
    /// The first error of an append, [`LogError::TransactionEnded`], [`LogError::TransactionFenced`],
    /// [`LogError::TransactionsPoisoned`], [`LogError::DiskFull`], [`LogError::LogClosed`]. The transaction will be aborted then.
    pub async fn prepare(&mut self) -> Result<TransactionRef> {
        // Both at once: what is logged is only that the transaction does not expire.
        let logged = Ended::of(|done| self.coordinator.prepare(&self.reference, &self.appends, done));
        self.appends.settled().await?;
        logged.await?;
        self.prepared = true;
        Ok(self.reference.clone())
    }

    /// Aborts it: no committed reader will see any of it.
    pub fn abort(mut self) -> Ended {
        self.prepared = true;
        Ended::of(|done| self.coordinator.abort(&self.reference, done))
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if !self.prepared {
            self.coordinator.abort(&self.reference, Box::new(|_| {}));
        }
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").field("reference", &self.reference).field("prepared", &self.prepared).finish()
    }
}

/// A request is dropped without an answer only by a panic.
const DROPPED: LogError = LogError::Internal { fault: "a thread panicked that was to end a transaction" };

/// The end of a transaction, under way. It goes on when this is dropped.
#[derive(Debug)]
#[must_use = "only a completed end is known to be visible"]
pub struct Ended {
    answer: oneshot::Receiver<Result<()>>,
}

impl Ended {
    pub(crate) fn of(start: impl FnOnce(Done)) -> Self {
        let (sender, answer) = oneshot::channel();
        // Whoever does not wait does not want the answer.
        start(Box::new(move |result| drop(sender.send(result))));
        Ended { answer }
    }

    /// Waits in a thread that may block.
    ///
    /// # Errors
    /// As awaiting it.
    ///
    /// # Panics
    /// When called from an asynchronous task: await it there.
    pub fn wait(self) -> Result<()> {
        self.answer.blocking_recv().unwrap_or(Err(DROPPED))
    }
}

impl Future for Ended {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(context).map(|answer| answer.unwrap_or(Err(DROPPED)))
    }
}
