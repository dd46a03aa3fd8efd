//! Coulee's shard log: durable, append-only streams of records, read by position.
//!
//! ```text
//! BatchBuilder ─ Shard::append ─▶ queue ─▶ committer thread ─▶ segment file ─ fdatasync ─▶ end moves ─▶ Append answers
//!                (encode, number)          (one write per group)                            │
//! Fetched ◀── Shard::read ── segment + index                     Tail::changed ◀────────────┘
//! ```
//!
//! A [`Log`] is a folder of [`Stream`]s. A stream is a set of [`Shard`]s, and its [`ShardMap`] says which shard owns which
//! keys. A shard is a run of segment files, each with a sparse index. Records are stored in Kafka's record batch format,
//! version 2, as the producer sent them, so a Kafka fetch is a copy of a file's range ([`Shard::fetch_ranges`]);
//! `docs/formats/log.md` describes the bytes.
//!
//! The crate is built in layers. A file uses only its own layer and those before it, and no files use each other in a
//! circle; `tests/layers.rs` reads the sources and checks both.
//!
//! | layer | holds | does not know |
//! | --- | --- | --- |
//! | `ids`, `error`, `settings` | identities, what can go wrong, what can be set | anything else |
//! | `batch` | a record batch: its bytes, its records, its markers | files |
//! | `files` | segments, indexes, journals, and the seam to the disk | who writes them, or what readers may see |
//! | `shard` | one shard: queue, writer, recovery, producers, readers | other shards, who coordinates transactions |
//! | `transactions` | transactions over several shards: the coordinator, its journal, the markers | streams |
//! | `streams` | the log's folder, a stream's map of shards and settings | transactions |
//! | `log` | the log: streams, transactions and threads together | |
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

// Layer 0: identities, errors, settings.
mod error;
mod ids;
mod settings;

// Layers 1 to 5: each uses only those before it.
mod batch;

mod files;

mod shard;

mod transactions;

mod streams;

// Layer 6: the log.
mod log;

#[cfg(test)]
mod tests;

pub use batch::builder::{BatchBuilder, Record};
pub use batch::encoded::EncodedBatch;
pub use batch::records::{DecodedBatch, Headers, RecordRef, Records};
pub use error::{LogError, Result};
pub use files::retention::Removed;
pub use files::segment::FileRange;
pub use ids::{Place, ProducerId, TransactionRef, TransactionalId, TransactionalIdError};
pub use log::Log;
pub use settings::{BATCH_BYTES_MAX, Compression, LogSettings, SHARDS_MAX, StreamSettings, SyncPolicy};
pub use shard::append::{Append, Appended};
pub use shard::fetch::{Fetched, FetchedRanges, Isolation};
pub use shard::last_stable_offset::AbortedTransaction;
pub use shard::shard::{READ_BYTES_MAX, Shard};
pub use shard::tail::Tail;
pub use streams::shard_map::{HashKeyRange, MappedShard, ShardMap, ShardMapError};
pub use streams::stream::Stream;
pub use transactions::transaction::{Ended, Transaction};
