//! Coulee's shard log: durable, append-only streams of records, read by position.
//!
//! ```text
//! BatchBuilder ─ Shard::append ─▶ queue ─▶ committer thread ─▶ segment file ─ fdatasync ─▶ end moves ─▶ Append answers
//!                (encode, number)          (one write per group)                            │
//! Fetched ◀── Shard::read ── segment + index                     Tail::changed ◀────────────┘
//! ```
//!
//! A [`Log`] is a folder of [`Stream`]s; a stream is a set of [`Shard`]s; a shard is a run of segment files, each with a
//! sparse index. Records are stored in Kafka's record batch format, version 2, as the producer sent them, so a Kafka
//! fetch is a copy of a file's range; `docs/formats/log.md` describes the bytes.
//!
//! What holds:
//! - An acknowledged record is on the disk, unless its stream's [`SyncPolicy`] asks for less. Many appends share a sync.
//! - Readers never see a record that could be lost again under that policy.
//! - Sequence numbers are dense and follow the order of the [`Shard::append`] calls.
//! - The records of a [`Transaction`] become visible to committed readers in all shards together, or never.
//! - A batch that an idempotent producer sends twice is stored once, also across a restart.
//! - Indexes and snapshots are shortcuts, never evidence: deleting them costs time, not records.
//!
//! The log knows no Arrow, no SQL, no network, and does not interpret keys or values.
//!
//! ```
//! # use std::sync::Arc;
//! # use coulee_log::{BatchBuilder, Isolation, Log, LogSettings, Record, StreamSettings};
//! # use coulee_model::{SequenceNumber, StreamName, SystemClock, Timestamp};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let log = Log::open(folder.path(), LogSettings::default(), Arc::new(SystemClock))?;
//! let stream = log.create_stream(&StreamName::new("flights")?, StreamSettings::default())?;
//! let shard = stream.shard(stream.route(Some(b"N14228")))?;
//!
//! let mut batch = BatchBuilder::new(stream.settings().compression);
//! batch.push(&Record { key: Some(b"N14228"), value: Some(b"EWR-IAH"), timestamp: Timestamp(0), headers: &[] });
//! let appended = shard.append(batch).wait()?;
//!
//! for batch in shard.read(appended.first, 1 << 20, Isolation::ReadCommitted)?.batches() {
//!     for record in batch?.decode()?.records() {
//!         assert_eq!(record.value, Some(&b"EWR-IAH"[..]));
//!     }
//! }
//! assert_eq!(shard.end(), SequenceNumber(1));
//! # Ok(())
//! # }
//! ```

mod error;
mod settings;

// A batch.
mod batch;
mod builder;
mod codec;
mod header;
mod marker;
mod varint;

// Files.
mod index;
mod journal;
mod producers;
mod recovery;
mod retention;
mod scan;
mod segment;
mod storage;

// Appending and reading.
mod append;
mod committer;
mod fetch;
mod queue;
mod shard;
mod stability;
mod tail;
mod writer;

// Transactions.
mod coordinator;
mod ending;
mod lanes;
mod outcomes;
mod transaction;

// Streams.
mod folder;
mod log;
mod route;
mod stream;

#[cfg(test)]
mod tests;

pub use append::{Append, Appended};
pub use batch::{DecodedBatch, EncodedBatch, Headers, RecordRef, Records};
pub use builder::{BatchBuilder, Record};
pub use error::{LogError, Place, Result};
pub use fetch::{Fetched, Isolation};
pub use log::Log;
pub use retention::Removed;
pub use settings::{BATCH_BYTES_MAX, Compression, LogSettings, SHARDS_MAX, StreamSettings, SyncPolicy};
pub use shard::{READ_BYTES_MAX, Shard};
pub use stability::AbortedSpan;
pub use stream::Stream;
pub use tail::Tail;
pub use transaction::{Ended, Transaction, TransactionRef, TransactionalId};

/// The identity of an idempotent producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ProducerId(pub i64);

impl ProducerId {
    /// From here on, producer ids are those of a single transaction, and forgotten with it.
    pub(crate) const OF_ONE_TRANSACTION: i64 = 1 << 62;

    pub(crate) fn is_of_one_transaction(self) -> bool {
        self.0 >= Self::OF_ONE_TRANSACTION
    }
}

impl std::fmt::Display for ProducerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}
