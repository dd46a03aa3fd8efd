//! Where a shard lives, what it works with, and the one question that it asks about transactions.

use std::path::PathBuf;
use std::sync::Arc;

use coulee_model::{Clock, SequenceNumber, ShardId};
use tokio::sync::watch;

use crate::batch::marker::TransactionOutcome;
use crate::error::LogError;
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
    /// What is known of a shard that takes no more appends.
    pub(crate) sealed: Option<Arc<SealedShard>>,
    /// The memory that appends of all shards share.
    pub(crate) budget: Arc<AppendBudget>,
    /// How far the shard is written and durable.
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) transactions: Arc<dyn TransactionFates>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// A shard that was split or merged.
#[derive(Debug)]
pub(crate) struct SealedShard {
    /// The sequence number after the last record that was appended to it.
    pub(crate) end: SequenceNumber,
    /// The shards that took over its keys.
    pub(crate) children: Vec<ShardId>,
}

impl SealedShard {
    pub(crate) fn error(&self, place: &Place) -> LogError {
        LogError::ShardSealed { place: place.clone(), end: self.end, children: self.children.clone() }
    }
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
