//! Keyed state that survives: one RocksDB per job, and snapshots of it in an object store.
//!
//! Between checkpoints a job's changes live in its operators' memory. At a checkpoint every subtask hands over its
//! [`Changes`]; [`JobStore::commit`] writes all of them, with the checkpoint's record, in one atomic batch whose log is
//! synced: there is no half checkpoint to repair. Between commits RocksDB stays at the last checkpoint, so a restart
//! just opens it. A [`snapshot`] is a hard-linked copy of it that is uploaded with a manifest.
//!
//! This crate knows keys and values. It knows no operator and no batch: what a value means is its writer's business.

mod changes;
mod error;
pub mod snapshot;
mod store;

pub use changes::{Changes, EXPIRY_BYTES, StateKey, TableId, with_expiry};
pub use error::{Error, Result};
pub use store::{CheckpointRecord, CommitStats, Entry, JobStore, Reclaimed, Scan, StoreResources, StoreSettings};
