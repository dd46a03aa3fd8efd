//! Where a shard lives, what it works with, and the one question that it asks about transactions.

use std::path::PathBuf;
use std::sync::Arc;

use coulee_model::Clock;
use tokio::sync::watch;

use crate::batch::marker::TransactionOutcome;
use crate::files::storage::Storage;
use crate::ids::{Place, ProducerId};
use crate::settings::{CurrentSettings, LogSettings};
use crate::shard::budget::AppendBudget;
use crate::shard::progress::Progress;

/// What a shard and its writer are given.
pub(crate) struct ShardContext {
    pub(crate) place: Place,
    pub(crate) folder: PathBuf,
    pub(crate) settings: LogSettings,
    /// Those of the stream, which may change.
    pub(crate) stream: Arc<CurrentSettings>,
    pub(crate) storage: Arc<dyn Storage>,
    /// The memory that appends of all shards share.
    pub(crate) budget: Arc<AppendBudget>,
    /// How far the shard is written and durable.
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) transactions: Arc<dyn TransactionFates>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// What is to be done with a transaction that a shard finds open in its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TransactionFate {
    /// The transaction goes on: its coordinator will have the shard write a marker.
    Open,
    /// The transaction ended so, or was left by a process that is gone: the shard writes the marker itself.
    Ended(TransactionOutcome),
}

/// Whoever knows what became of transactions.
pub(crate) trait TransactionFates: Send + Sync {
    /// What became of the transaction that `producer` has open in a shard.
    fn fate(&self, producer: ProducerId) -> TransactionFate;
}
