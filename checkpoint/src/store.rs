//! The state of one job in RocksDB: always exactly the last checkpoint.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use coulee_model::{CheckpointId, OperatorId, Timestamp};
use parking_lot::RwLock;
use rocksdb::{DB, DBCompressionType, IteratorMode, Options, ReadOptions, WriteBatch, WriteOptions};
use serde::{Deserialize, Serialize};

use crate::changes::Change;
use crate::{Changes, Error, Result, StateKey, TableId};

/// The format of keys and records that this version writes.
const FORMAT: u32 = 1;

/// Keys of this "operator" are the store's own.
const OWN: OperatorId = OperatorId(u32::MAX);
const KEY_FORMAT: &[u8] = b"format";
const KEY_CHECKPOINT: &[u8] = b"checkpoint";

/// How much memory a store may use.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreSettings {
    /// Bytes of changes that RocksDB holds in memory before it writes a file.
    pub write_buffer_bytes: usize,
    /// Bytes of decompressed blocks kept for reads.
    pub block_cache_bytes: usize,
}

impl Default for StoreSettings {
    fn default() -> Self {
        StoreSettings { write_buffer_bytes: 32 << 20, block_cache_bytes: 32 << 20 }
    }
}

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
/// **Operations** `commit` applies the changes of one checkpoint; reads see the last committed one.
/// **Guarantees** A commit is atomic and durable when it returns; checkpoints ascend; a store is open in one process at a time.
/// **Non-guarantees** Reads during a commit may see the state before or after it.
/// **Failure** An error of `commit` leaves the last checkpoint as it was, or the new one complete; opening tells which.
#[derive(Debug)]
pub struct JobStore {
    dir: PathBuf,
    db: DB,
    last: RwLock<Option<CheckpointRecord>>,
}

impl JobStore {
    /// Opens the store in `dir`, creating it (and the folder) if absent.
    ///
    /// # Errors
    /// [`Error::Store`] when RocksDB cannot open it (locked by another process, damaged); [`Error::NewerFormat`].
    pub fn open(dir: &Path, settings: &StoreSettings) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(|source| Error::File { path: dir.to_owned(), source })?;
        let db = DB::open(&options(settings), dir).map_err(|source| Error::Store { dir: dir.to_owned(), source })?;
        let mut store = JobStore { dir: dir.to_owned(), db, last: RwLock::new(None) };
        store.check_format()?;
        let last = store.read_checkpoint()?;
        *store.last.get_mut() = last;
        Ok(store)
    }

    fn check_format(&self) -> Result<()> {
        let Some(bytes) = self.get(&own_key(KEY_FORMAT))? else {
            let key = own_key(KEY_FORMAT);
            return self.db.put_opt(key.as_bytes(), FORMAT.to_be_bytes(), &synced()).map_err(|e| self.wrap(e));
        };
        let found = <[u8; 4]>::try_from(bytes.as_ref())
            .map(u32::from_be_bytes)
            .map_err(|_| self.damaged("the format number", format!("{} bytes instead of 4", bytes.len())))?;
        if found > FORMAT {
            return Err(Error::NewerFormat { dir: self.dir.clone(), found, supported: FORMAT });
        }
        Ok(())
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

    /// The last durable checkpoint, `None` before the first.
    pub fn last_checkpoint(&self) -> Option<CheckpointRecord> {
        self.last.read().clone()
    }

    /// Applies the changes of one checkpoint and makes them durable, all or nothing. Blocks for one fsync.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] unless `record.id` is above the last one; [`Error::Store`] when the write fails.
    pub fn commit(&self, record: CheckpointRecord, changes: impl IntoIterator<Item = Changes>) -> Result<CommitStats> {
        let started = Instant::now();
        if let Some(last) = self.last_checkpoint()
            && record.id <= last.id
        {
            return Err(Error::OutOfOrder { last: last.id, given: record.id });
        }
        let mut batch = WriteBatch::default();
        for change in changes.into_iter().flat_map(|changes| changes.list) {
            match change {
                Change::Put(key, value) => batch.put(key.as_bytes(), value),
                Change::Delete(key) => batch.delete(key.as_bytes()),
                Change::DeleteRange(from, to) => batch.delete_range(from.as_bytes(), to.as_bytes()),
            }
        }
        let encoded = serde_json::to_vec(&record).map_err(|e| self.damaged("the checkpoint record", e.to_string()))?;
        batch.put(own_key(KEY_CHECKPOINT).as_bytes(), encoded);
        let bytes = batch.size_in_bytes();
        self.db.write_opt(batch, &synced()).map_err(|e| self.wrap(e))?;
        *self.last.write() = Some(record);
        Ok(CommitStats { bytes, took: started.elapsed() })
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn get(&self, key: &StateKey) -> Result<Option<Bytes>> {
        self.db.get(key.as_bytes()).map(|value| value.map(Bytes::from)).map_err(|e| self.wrap(e))
    }

    /// The values of many keys at once, in their order.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn get_many<'a>(&self, keys: impl IntoIterator<Item = &'a StateKey>) -> Result<Vec<Option<Bytes>>> {
        let found = self.db.multi_get(keys.into_iter().map(StateKey::as_bytes));
        found.into_iter().map(|value| value.map(|v| v.map(Bytes::from)).map_err(|e| self.wrap(e))).collect()
    }

    /// Every entry of one table of an operator, in key order: `(key behind the table's prefix: group u16 | rest, value)`.
    ///
    /// # Errors
    /// [`Error::Store`], per item.
    pub fn scan(&self, operator: OperatorId, table: TableId) -> impl Iterator<Item = Result<(Bytes, Bytes)>> + '_ {
        let start = StateKey::table_start(operator, table);
        let skip = start.len();
        let mut read = ReadOptions::default();
        read.set_iterate_range(rocksdb::PrefixRange(start));
        self.db.iterator_opt(IteratorMode::Start, read).map(move |entry| {
            let (key, value) = entry.map_err(|e| self.wrap(e))?;
            Ok((Bytes::from(key).slice(skip..), Bytes::from(value)))
        })
    }

    /// The entries of a range of key groups, in key order, as [`JobStore::scan`] gives them; from `start` on in the first group, and
    /// below `end` in the last.
    ///
    /// # Errors
    /// [`Error::Store`], per item.
    pub fn scan_range(
        &self,
        operator: OperatorId,
        table: TableId,
        groups: std::ops::Range<u16>,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> impl Iterator<Item = Result<(Bytes, Bytes)>> + '_ {
        let prefix = StateKey::table_start(operator, table);
        let skip = prefix.len();
        let mut lower = prefix.clone();
        lower.extend_from_slice(&groups.start.to_be_bytes());
        lower.extend_from_slice(start);
        let mut upper = prefix;
        match end {
            Some(end) => {
                upper.extend_from_slice(&groups.end.saturating_sub(1).to_be_bytes());
                upper.extend_from_slice(end);
            }
            None => upper.extend_from_slice(&groups.end.to_be_bytes()),
        }
        let mut read = ReadOptions::default();
        read.set_iterate_range(lower..upper);
        self.db.iterator_opt(IteratorMode::Start, read).map(move |entry| {
            let (key, value) = entry.map_err(|e| self.wrap(e))?;
            Ok((Bytes::from(key).slice(skip..), Bytes::from(value)))
        })
    }

    /// Bytes on disk and in RocksDB's memory, roughly.
    pub fn size_bytes(&self) -> u64 {
        ["rocksdb.total-sst-files-size", "rocksdb.cur-size-all-mem-tables"]
            .iter()
            .filter_map(|property| self.db.property_int_value(*property).ok().flatten())
            .sum()
    }

    /// Copies the last checkpoint into the new folder `dir` by hard links (same file system). The copy is a store of its own.
    ///
    /// # Errors
    /// [`Error::Store`], also when `dir` exists.
    pub fn link_to(&self, dir: &Path) -> Result<()> {
        let checkpoint = rocksdb::checkpoint::Checkpoint::new(&self.db).map_err(|e| self.wrap(e))?;
        checkpoint.create_checkpoint(dir).map_err(|e| self.wrap(e))
    }

    /// How many entries each operator has, by operator: for `job show` and for judging whether state fits a changed job.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn operators(&self) -> Result<BTreeMap<OperatorId, u64>> {
        let mut counts = BTreeMap::new();
        for entry in self.db.iterator(IteratorMode::Start) {
            let (key, _) = entry.map_err(|e| self.wrap(e))?;
            let Some(operator) = key.first_chunk::<4>().map(|id| OperatorId(u32::from_be_bytes(*id))) else { continue };
            if operator != OWN {
                *counts.entry(operator).or_default() += 1;
            }
        }
        Ok(counts)
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

fn options(settings: &StoreSettings) -> Options {
    let mut table = rocksdb::BlockBasedOptions::default();
    table.set_block_cache(&rocksdb::Cache::new_lru_cache(settings.block_cache_bytes));
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(settings.write_buffer_bytes);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_max_open_files(128);
    // A torn last record of the log is a commit that was never acknowledged; anything else damaged must be seen.
    options.set_wal_recovery_mode(rocksdb::DBRecoveryMode::TolerateCorruptedTailRecords);
    // An idle job must not wake up to write statistics nobody reads.
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_keep_log_file_num(2);
    options.set_log_level(rocksdb::LogLevel::Warn);
    options
}

#[cfg(test)]
mod tests {
    use coulee_model::KeyGroup;

    use super::*;

    const OP: OperatorId = OperatorId(7);

    fn record(id: u64) -> CheckpointRecord {
        CheckpointRecord { id: CheckpointId(id), at: Timestamp(1), job: format!("job at {id}") }
    }

    fn key(table: u8, group: u16, rest: &str) -> StateKey {
        StateKey::new(OP, TableId(table), KeyGroup(group), rest.as_bytes())
    }

    fn scanned(store: &JobStore, table: u8) -> Vec<(Vec<u8>, Vec<u8>)> {
        store.scan(OP, TableId(table)).map(|e| e.map(|(k, v)| (k.to_vec(), v.to_vec())).expect("readable")).collect()
    }

    #[test]
    fn a_commit_is_all_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let settings = StoreSettings::default();
        {
            let store = JobStore::open(dir.path(), &settings).unwrap();
            assert_eq!(store.last_checkpoint(), None);
            let mut a = Changes::default();
            a.put(key(1, 0, "b"), "1");
            a.put(key(1, 256, "a"), "2");
            let mut b = Changes::default();
            b.put(key(2, 0, "x"), "3");
            store.commit(record(1), [a, b]).unwrap();
        }
        let store = JobStore::open(dir.path(), &settings).unwrap();
        assert_eq!(store.last_checkpoint(), Some(record(1)));
        assert_eq!(scanned(&store, 1), [(b"\0\0b".to_vec(), b"1".to_vec()), (b"\x01\0a".to_vec(), b"2".to_vec())]);
        assert_eq!(scanned(&store, 2).len(), 1);
        assert_eq!(scanned(&store, 0), []);
        let found = store.get_many(&[key(1, 0, "b"), key(1, 0, "missing")]).unwrap();
        assert_eq!(found, [Some(Bytes::from("1")), None]);
    }

    #[test]
    fn deletes_and_ranges_apply_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let store = JobStore::open(dir.path(), &StoreSettings::default()).unwrap();
        let mut changes = Changes::default();
        for name in ["a", "b", "c"] {
            changes.put(key(1, 0, name), name);
        }
        changes.delete_range(key(1, 0, "a"), key(1, 0, "c"));
        changes.put(key(1, 0, "b"), "again");
        store.commit(record(1), [changes]).unwrap();
        assert_eq!(scanned(&store, 1), [(b"\0\0b".to_vec(), b"again".to_vec()), (b"\0\0c".to_vec(), b"c".to_vec())]);
        assert_eq!(store.operators().unwrap(), BTreeMap::from([(OP, 2)]));
    }

    #[test]
    fn checkpoints_ascend_and_a_store_has_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let store = JobStore::open(dir.path(), &StoreSettings::default()).unwrap();
        store.commit(record(5), []).unwrap();
        assert!(matches!(store.commit(record(5), []), Err(Error::OutOfOrder { .. })));
        let second = JobStore::open(dir.path(), &StoreSettings::default()).unwrap_err();
        assert!(second.to_string().contains("already running"), "{second}");
    }

    #[test]
    fn a_newer_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        {
            let store = JobStore::open(dir.path(), &StoreSettings::default()).unwrap();
            store.db.put(own_key(KEY_FORMAT).as_bytes(), 99u32.to_be_bytes()).unwrap();
        }
        let error = JobStore::open(dir.path(), &StoreSettings::default()).unwrap_err();
        assert!(matches!(error, Error::NewerFormat { found: 99, .. }), "{error}");
    }
}
