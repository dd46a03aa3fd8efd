//! The state of one job in RocksDB: always exactly the last checkpoint.
//!
//! This file opens a store and commits to it. `settings` says how RocksDB is set up and what was measured; `read` has gets and scans,
//! `expiry` the tables whose entries die by the clock, `torn` what a power loss leaves of a commit, `figures` what a store costs.
//!
//! There are two column families, written by one atomic batch: `default` for plain tables, whose larger values live in blob files apart
//! from the keys, and `expiring` for tables whose values begin with an expiry. Apart, because a compaction filter makes RocksDB read every
//! blob that a compaction passes by: plain tables must not pay for that.

mod expiry;
mod figures;
mod read;
mod settings;
mod torn;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coulee_model::{CheckpointId, Clock, OperatorId, Stopwatch, Timestamp};
use parking_lot::{Mutex, RwLock};
use rocksdb::{ColumnFamily, ColumnFamilyDescriptor, DB, DEFAULT_COLUMN_FAMILY_NAME, WriteBatch, WriteOptions};
use serde::{Deserialize, Serialize};

use crate::changes::Change;
use crate::{Changes, Error, Result, StateKey, TableId};

pub use expiry::Reclaimed;
pub use read::{Entry, Scan};
pub use settings::{StoreResources, StoreSettings};

/// The format of keys and records that this version writes. 2 added the column family of expiring tables and blob files.
const FORMAT: u32 = 2;

/// Keys of this "operator" are the store's own.
const OWN: OperatorId = OperatorId(u32::MAX);
const KEY_FORMAT: &[u8] = b"format";
const KEY_CHECKPOINT: &[u8] = b"checkpoint";

/// The column family of tables that [expire](TableId::expires).
const EXPIRING: &str = "expiring";

/// What the store knows of its last checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRecord {
    /// Its number.
    pub id: CheckpointId,
    /// When it was committed, by the wall clock.
    pub at: Timestamp,
    /// What the job's coordinator keeps with it; opaque here.
    pub job: String,
}

/// What a commit cost.
#[derive(Debug, Clone, Copy)]
pub struct CommitStats {
    /// Bytes of keys and values written.
    pub bytes: usize,
    /// How long the synced write took.
    pub took: Duration,
}

/// The state of one job.
///
/// **Operations** `commit` applies the changes of one checkpoint; reads see the last committed one, less what has expired.
/// **Guarantees** A commit is atomic and durable when it returns; checkpoints ascend; a store is open in one process at a time.
/// **Non-guarantees** Reads during a commit may see the state before or after it.
/// **Failure** An error of `commit` leaves the last checkpoint as it was, or the new one complete; opening tells which. Until it is
/// opened again the store refuses further commits.
pub struct JobStore {
    dir: PathBuf,
    db: DB,
    clock: Arc<dyn Clock>,
    shares_cache: bool,
    last: RwLock<Option<CheckpointRecord>>,
    /// A commit failed: what is on disk is unknown until the store is opened again.
    failed: AtomicBool,
    reclaim: Mutex<expiry::Schedule>,
}

impl std::fmt::Debug for JobStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobStore").field("dir", &self.dir).field("last", &self.last).finish_non_exhaustive()
    }
}

impl JobStore {
    /// Opens the store in `dir`, creating it (and the folder) if absent, with resources of its own and the machine's clock.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub fn open(dir: &Path, settings: &StoreSettings) -> Result<Self> {
        Self::open_with(dir, settings, &StoreResources::default())
    }

    /// Opens the store in `dir`, creating it (and the folder) if absent. `resources` may be shared with other stores of the process.
    ///
    /// # Errors
    /// [`Error::Store`] when RocksDB cannot open it (locked by another process, damaged); [`Error::NewerFormat`]; [`Error::File`].
    pub fn open_with(dir: &Path, settings: &StoreSettings, resources: &StoreResources) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(|source| Error::File { path: dir.to_owned(), source })?;
        let wrap = |source| Error::Store { dir: dir.to_owned(), source };
        let setup = settings::Setup::new(settings, resources).map_err(wrap)?;
        let open = || {
            let families = [
                ColumnFamilyDescriptor::new(DEFAULT_COLUMN_FAMILY_NAME, setup.plain.clone()),
                ColumnFamilyDescriptor::new(EXPIRING, setup.expiring.clone()),
            ];
            DB::open_cf_descriptors(&setup.database, dir, families)
        };
        let db = match open() {
            Err(damage) if damage.kind() == rocksdb::ErrorKind::Corruption => {
                let cut = torn::cut_torn_commit(dir).map_err(|source| Error::File { path: dir.to_owned(), source })?;
                if cut { open() } else { Err(damage) }
            }
            opened => opened,
        };
        let db = db.map_err(wrap)?;
        let mut store = JobStore {
            dir: dir.to_owned(),
            db,
            clock: resources.clock(),
            shares_cache: resources.shares_cache(),
            last: RwLock::new(None),
            failed: AtomicBool::new(false),
            reclaim: Mutex::default(),
        };
        store.check_format()?;
        let last = store.read_checkpoint()?;
        *store.last.get_mut() = last;
        Ok(store)
    }

    fn check_format(&self) -> Result<()> {
        let key = own_key(KEY_FORMAT);
        let found = match self.get(&key)? {
            None => 0,
            Some(bytes) => <[u8; 4]>::try_from(bytes.as_ref())
                .map(u32::from_be_bytes)
                .map_err(|_| self.damaged("the format number", format!("{} bytes instead of 4", bytes.len())))?,
        };
        match found {
            FORMAT => Ok(()),
            newer if newer > FORMAT => Err(Error::NewerFormat { dir: self.dir.clone(), found, supported: FORMAT }),
            // Absent or older: every older format reads as this one does.
            _ => self.db.put_opt(key.as_bytes(), FORMAT.to_be_bytes(), &synced()).map_err(|e| self.wrap(e)),
        }
    }

    fn read_checkpoint(&self) -> Result<Option<CheckpointRecord>> {
        let Some(bytes) = self.get(&own_key(KEY_CHECKPOINT))? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|e| self.damaged("the checkpoint record", e.to_string()))
    }

    fn wrap(&self, source: rocksdb::Error) -> Error {
        Error::Store { dir: self.dir.clone(), source }
    }

    fn damaged(&self, what: &str, reason: String) -> Error {
        Error::Damaged { dir: self.dir.clone(), what: what.to_owned(), reason }
    }

    fn injected(&self, point: &str) -> Error {
        Error::File { path: self.dir.clone(), source: std::io::Error::other(format!("failpoint {point}")) }
    }

    /// The column family that holds a table.
    fn family(&self, table: TableId) -> &ColumnFamily {
        let name = if table.expires() { EXPIRING } else { DEFAULT_COLUMN_FAMILY_NAME };
        self.db.cf_handle(name).unwrap_or_else(|| panic!("state in {}: opened without '{name}'", self.dir.display()))
    }

    /// The last durable checkpoint, `None` before the first.
    pub fn last_checkpoint(&self) -> Option<CheckpointRecord> {
        self.last.read().clone()
    }

    /// Applies the changes of one checkpoint and makes them durable, all or nothing. Blocks for one fsync.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] unless `record.id` is above the last one; [`Error::ShortValue`] for a value of an expiring table without
    /// an expiry: both leave the store usable. [`Error::Store`] when the write fails, [`Error::MustReopen`] ever after.
    pub fn commit(&self, record: CheckpointRecord, changes: impl IntoIterator<Item = Changes>) -> Result<CommitStats> {
        let started = Stopwatch::start();
        if self.failed.load(Ordering::Acquire) {
            return Err(Error::MustReopen { dir: self.dir.clone() });
        }
        if let Some(last) = self.last_checkpoint()
            && record.id <= last.id
        {
            return Err(Error::OutOfOrder { last: last.id, given: record.id });
        }
        let batch = self.batch(&record, changes)?;
        let bytes = batch.size_in_bytes();
        if let Err(error) = self.write(batch) {
            self.failed.store(true, Ordering::Release);
            return Err(error);
        }
        *self.last.write() = Some(record);
        Ok(CommitStats { bytes, took: started.elapsed() })
    }

    fn batch(&self, record: &CheckpointRecord, changes: impl IntoIterator<Item = Changes>) -> Result<WriteBatch> {
        let (plain, expiring) = (self.family(TableId(0)), self.family(TableId(TableId::EXPIRES)));
        let family = |key: &StateKey| if key.table().expires() { expiring } else { plain };
        let mut changes: Vec<Changes> = changes.into_iter().collect();
        changes.iter_mut().for_each(Changes::sort);
        // Reserved at once: a batch that doubles as it grows costs twice its size in memory, just when memory is short.
        let mut batch =
            WriteBatch::with_capacity_bytes(changes.iter().map(Changes::encoded_bytes).sum::<usize>() + 4096);
        for change in changes.into_iter().flat_map(|changes| changes.list) {
            match change {
                Change::Put(key, value) => {
                    if key.table().expires() && expiry::expiry(&value).is_none() {
                        return Err(Error::ShortValue {
                            operator: key.operator(),
                            table: key.table(),
                            bytes: value.len(),
                        });
                    }
                    batch.put_cf(family(&key), key.as_bytes(), value);
                }
                Change::Delete(key) => batch.delete_cf(family(&key), key.as_bytes()),
                Change::DeleteRange(from, to) => {
                    batch.delete_range_cf(family(&from), from.as_bytes(), to.as_bytes());
                    // A range over several tables may lie in both.
                    if !from.same_table(&to) {
                        let other = if from.table().expires() { plain } else { expiring };
                        batch.delete_range_cf(other, from.as_bytes(), to.as_bytes());
                    }
                }
            }
        }
        let encoded = serde_json::to_vec(record).map_err(|e| self.damaged("the checkpoint record", e.to_string()))?;
        batch.put_cf(plain, own_key(KEY_CHECKPOINT).as_bytes(), encoded);
        Ok(batch)
    }

    fn write(&self, batch: WriteBatch) -> Result<()> {
        fail::fail_point!("checkpoint.commit.before-write", |_| Err(self.injected("checkpoint.commit.before-write")));
        self.db.write_opt(batch, &synced()).map_err(|e| self.wrap(e))?;
        fail::fail_point!("checkpoint.commit.after-write", |_| Err(self.injected("checkpoint.commit.after-write")));
        Ok(())
    }

    /// Copies the last checkpoint into the new folder `dir` by hard links (same file system). The copy is a store of its own.
    ///
    /// Flushes what is in memory first: then the copy consists of files that never change again, and a snapshot uploads each of them once.
    ///
    /// # Errors
    /// [`Error::Store`], also when `dir` exists.
    pub fn link_to(&self, dir: &Path) -> Result<()> {
        fail::fail_point!("checkpoint.link.before", |_| Err(self.injected("checkpoint.link.before")));
        let checkpoint = rocksdb::checkpoint::Checkpoint::new(&self.db).map_err(|e| self.wrap(e))?;
        checkpoint.create_checkpoint(dir).map_err(|e| self.wrap(e))?;
        fail::fail_point!("checkpoint.link.after", |_| Err(self.injected("checkpoint.link.after")));
        Ok(())
    }
}

fn own_key(name: &[u8]) -> StateKey {
    StateKey::new(OWN, TableId(0), coulee_model::KeyGroup(0), name)
}

fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod power_tests;
#[cfg(test)]
mod tests;
