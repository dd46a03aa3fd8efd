//! How RocksDB is set up, and why.

use std::sync::Arc;

use coulee_model::{Clock, SystemClock};
use rocksdb::{
    BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, DataBlockIndexType, LogLevel, Options,
    WriteBufferManager,
};
use serde::{Deserialize, Serialize};

use super::expiry;

/// How much memory a store may use.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreSettings {
    /// Bytes of changes that RocksDB holds in memory before it writes a file.
    pub write_buffer_bytes: usize,
    /// Bytes of decompressed blocks, indexes and filters kept for reads. Unused where stores share a cache.
    pub block_cache_bytes: usize,
}

impl Default for StoreSettings {
    fn default() -> Self {
        StoreSettings { write_buffer_bytes: 32 << 20, block_cache_bytes: 32 << 20 }
    }
}

/// What stores may share, and the clock. Cheap to clone; the clones share.
///
/// Background threads need no handle here: RocksDB keeps one pool per process, which all stores use.
#[derive(Clone)]
pub struct StoreResources {
    memory: Option<(Cache, WriteBufferManager)>,
    clock: Arc<dyn Clock>,
}

impl Default for StoreResources {
    /// Nothing shared: every store has the memory that its own settings say. The machine's clock.
    fn default() -> Self {
        StoreResources { memory: None, clock: Arc::new(SystemClock) }
    }
}

impl std::fmt::Debug for StoreResources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreResources").field("shared", &self.memory.is_some()).field("clock", &self.clock).finish()
    }
}

impl StoreResources {
    /// One cache of `block_cache_bytes` and one budget of `write_buffer_bytes` for all stores that are opened with this or a clone of it.
    pub fn shared(block_cache_bytes: usize, write_buffer_bytes: usize) -> Self {
        let cache = Cache::new_lru_cache(block_cache_bytes);
        let buffers = WriteBufferManager::new_write_buffer_manager(write_buffer_bytes, false);
        StoreResources { memory: Some((cache, buffers)), ..Self::default() }
    }

    /// The same with another clock: the one that expiring tables are judged by.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        StoreResources { clock, ..self }
    }

    /// Bytes of memory that the shared cache and the shared budget hold now; 0 when nothing is shared.
    pub fn memory_bytes(&self) -> u64 {
        self.memory.as_ref().map_or(0, |(cache, buffers)| (cache.get_usage() + buffers.get_usage()) as u64)
    }

    pub(super) fn shares_cache(&self) -> bool {
        self.memory.is_some()
    }

    pub(super) fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }
}

/// Values from this length on live in blob files.
pub(super) const BLOB_BYTES_MIN: u64 = 256;
/// Bytes that stand for such a value beside its key, roughly.
pub(super) const BLOB_REFERENCE_BYTES: usize = 12;

/// RocksDB's options for the database and for its two column families.
pub(super) struct Setup {
    pub(super) database: Options,
    pub(super) plain: Options,
    pub(super) expiring: Options,
}

impl Setup {
    pub(super) fn new(settings: &StoreSettings, resources: &StoreResources) -> Result<Self, rocksdb::Error> {
        let cache = match &resources.memory {
            Some((cache, _)) => cache.clone(),
            None => Cache::new_lru_cache(settings.block_cache_bytes),
        };
        let mut database = database(settings)?;
        if let Some((_, buffers)) = &resources.memory {
            database.set_write_buffer_manager(buffers);
        }
        let mut plain = family(settings, &cache);
        if tune("blob", 1) == 1 {
            separate_values(&mut plain);
        }
        let mut expiring = family(settings, &cache);
        expiring.set_compaction_filter_factory(expiry::Factory::new(resources.clock()));
        Ok(Setup { database, plain, expiring })
    }
}
fn tune(name: &str, default: usize) -> usize {
    std::env::var("CK_TUNE")
        .unwrap_or_default()
        .split(',')
        .find_map(|p| p.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
        .unwrap_or(default)
}

fn database(settings: &StoreSettings) -> Result<Options, rocksdb::Error> {
    // What the binding has no setter for.
    let mut options = Options::default().get_options_from_string("avoid_flush_during_recovery=true")?;
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // A torn last record of the log is a commit that was never acknowledged; anything else damaged must be seen.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    // The log holds what is in memory; a family that is seldom written must not keep old logs, which opening would replay.
    options.set_max_total_wal_size(2 * settings.write_buffer_bytes as u64);
    options.set_wal_bytes_per_sync(tune("walsync", 4 << 20) as u64);
    options.set_bytes_per_sync(1 << 20);
    options.set_max_background_jobs(tune("jobs", 2) as i32);
    options.set_max_open_files(tune("files", 256) as i32);
    options.set_allow_concurrent_memtable_write(false);
    options.set_skip_stats_update_on_db_open(true);
    // An idle job must not wake up to write statistics nobody reads.
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_keep_log_file_num(2);
    options.set_log_level(LogLevel::Warn);
    if tune("mmap", 0) == 1 {
        options.set_allow_mmap_reads(true);
    }
    Ok(options)
}

fn family(settings: &StoreSettings, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(tune("block", 4096));
    table.set_bloom_filter(10.0, false);
    table.set_optimize_filters_for_memory(true);
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    if tune("hash", 1) == 1 {
        table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
        table.set_data_block_hash_ratio(0.75);
    }
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(settings.write_buffer_bytes);
    options.set_max_write_buffer_number(tune("buffers", 2) as i32);
    options.set_arena_block_size(64 << 10);
    options.set_memtable_whole_key_filtering(true);
    options.set_memtable_prefix_bloom_ratio(tune("mbloom", 5) as f64 / 1000.0);
    options.set_compression_type(if tune("lz4", 0) == 1 { DBCompressionType::Lz4 } else { DBCompressionType::None });
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_target_file_size_base(tune("filemb", 32) as u64 * 1024 * 1024);
    options.set_max_bytes_for_level_base((tune("basemb", 128) * 1024 * 1024) as u64);
    options.set_level_zero_file_num_compaction_trigger(tune("l0", 4) as i32);
    options
}

fn separate_values(options: &mut Options) {
    options.set_enable_blob_files(true);
    options.set_min_blob_size(tune("minblob", 256) as u64);
    options.set_blob_file_size(tune("blobmb", 64) as u64 * 1024 * 1024);
    options.set_blob_compression_type(DBCompressionType::None);
    options.set_enable_blob_gc(true);
    options.set_blob_gc_age_cutoff(tune("cutoff", 25) as f64 / 100.0);
    options.set_blob_gc_force_threshold(tune("force", 100) as f64 / 100.0);
}
