//! Transactions: batches in several shards that become visible together, or never.
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
//! - What was not prepared when the process ended is aborted: its shards write the markers when they are opened, before
//!   any reader.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::append::Append;
use crate::builder::BatchBuilder;
use crate::coordinator::{Coordinator, Done};
use crate::lanes::Lanes;
use crate::shard::Shard;
use crate::{LogError, ProducerId, Result};

/// The longest name of a transaction, in bytes.
const ID_BYTES_MAX: usize = 1024;

/// The name of a transaction, given by its owner: Kafka's `transactional.id`. 1 to 1,024 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TransactionalId(String);

impl TransactionalId {
    /// # Errors
    /// [`LogError::InvalidSetting`] when it is empty or too long.
    pub fn new(id: impl Into<String>) -> Result<Self> {
        let id = id.into();
        if id.is_empty() || id.len() > ID_BYTES_MAX {
            return Err(LogError::InvalidSetting {
                setting: "transactional id",
                found: format!("of {} bytes", id.len()),
                expected: "1 to 1024 bytes",
            });
        }
        Ok(TransactionalId(id))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TransactionalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A transaction, as its owner remembers it: small, and the same after a restart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TransactionRef {
    /// Its name.
    pub id: TransactionalId,
    /// Its producer id, which no other transaction has, or had.
    pub producer: ProducerId,
}

impl fmt::Display for TransactionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' (producer {})", self.id, self.producer)
    }
}

/// An open transaction. Dropped before it is [prepared](Self::prepare), it is aborted.
pub struct Transaction {
    coordinator: Arc<Coordinator>,
    reference: TransactionRef,
    lanes: Arc<Lanes>,
    prepared: bool,
}

impl Transaction {
    pub(crate) fn new(coordinator: Arc<Coordinator>, reference: TransactionRef, lanes: Arc<Lanes>) -> Self {
        Transaction { coordinator, reference, lanes, prepared: false }
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
        self.lanes.append(&self.reference, shard, batch)
    }

    /// Waits until all that was appended is stored, and makes the transaction survive a crash. Takes no appends from here on.
    ///
    /// # Errors
    /// The first error of an append, [`LogError::TransactionEnded`], [`LogError::TransactionFenced`],
    /// [`LogError::TransactionsPoisoned`], [`LogError::DiskFull`], [`LogError::LogClosed`]. The transaction will be aborted then.
    pub async fn prepare(&mut self) -> Result<TransactionRef> {
        // Both at once: what is logged is only that the transaction does not expire.
        let logged = Ended::of(|done| self.coordinator.prepare(&self.reference, &self.lanes, done));
        self.lanes.settled().await?;
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
        self.answer.blocking_recv().unwrap_or(Err(LogError::LogClosed))
    }
}

impl Future for Ended {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(context).map(|answer| answer.unwrap_or(Err(LogError::LogClosed)))
    }
}
