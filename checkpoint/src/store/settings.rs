//! How RocksDB is set up, and why.

use std::sync::Arc;

use coulee_model::{Clock, SystemClock};
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, LogLevel, Options,
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
        separate_values(&mut plain);
        let mut expiring = family(settings, &cache);
        // Values lie in the tables here and are rewritten with them: fewer bytes count for more than the processor's time.
        expiring.set_compression_type(DBCompressionType::Lz4);
        expiring.set_compaction_filter_factory(expiry::Factory::new(resources.clock()));
        Ok(Setup { database, plain, expiring })
    }
}

fn database(settings: &StoreSettings) -> Result<Options, rocksdb::Error> {
    // What the binding has no setter for. Opening after a crash replays the log into memory and leaves it at that: writing files first
    // would double the time.
    let mut options = Options::default().get_options_from_string("avoid_flush_during_recovery=true")?;
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // A last record of the log that was cut short is a commit that was never acknowledged (`torn` has the one that is long enough and damaged); anything else
    // damaged must be seen.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    // The log holds what is in memory; a family that is seldom written must not keep old logs, which opening would replay.
    options.set_max_total_wal_size(2 * settings.write_buffer_bytes as u64);
    // The disk begins while a large commit is still being written, so that the sync at its end finds little left.
    options.set_wal_bytes_per_sync(4 << 20);
    options.set_bytes_per_sync(1 << 20);
    // One thread writes out memory, one compacts; more would take the processor from the job.
    options.set_max_background_jobs(2);
    // Opening a file anew for a read costs as much as many reads (256 were 15 % slower with 1 GB), but descriptors are limited too.
    options.set_max_open_files(512);
    // There is one writer.
    options.set_allow_concurrent_memtable_write(false);
    // Statistics of every file, for which opening would read them all.
    options.set_skip_stats_update_on_db_open(true);
    // An idle job must not wake up to write statistics nobody reads.
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_keep_log_file_num(2);
    options.set_log_level(LogLevel::Warn);
    Ok(options)
}

/// What both families have in common.
///
/// Tried with `state update` on 1 GB, in keys per second of processor time (others used the machine, so differences below 10 % say nothing),
/// and left out: LZ4, on values that do not compress (a fifth slower); a hash index in data blocks, blocks of 2 or 8 KiB and a write buffer
/// of twice the size (no difference); reading through mmap (no faster, and what is mapped counts as the process's memory). What is left is
/// copying into and out of the page cache (a fifth), and many small things.
fn family(settings: &StoreSettings, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    // 1 % of the gets of an absent key read a block.
    table.set_bloom_filter(10.0, false);
    table.set_optimize_filters_for_memory(true);
    // Within the cache, so that its size is the limit that it says it is; those of new files stay.
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    // In blocks of their own: the filter of a file of small entries has a megabyte, and would push all else out of the cache.
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_pin_top_level_index_and_filter(true);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(settings.write_buffer_bytes);
    // Memory is taken in pieces of this size: an idle store has two of them.
    options.set_arena_block_size(64 << 10);
    // Most keys of a large state are not in memory, and a filter says so without a search. It is allocated whole: 0.5 % of the buffer.
    options.set_memtable_whole_key_filtering(true);
    options.set_memtable_prefix_bloom_ratio(0.005);
    options.set_compression_type(DBCompressionType::None);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_target_file_size_base(FILE_BYTES);
    options.set_max_bytes_for_level_base(128 << 20);
    options
}

/// Bytes of a data file, about: what a compaction of one file, as [`reclaim`](super::JobStore::reclaim) does, has to rewrite.
const FILE_BYTES: u64 = 32 << 20;

/// Larger values live in blob files: compactions then move keys and references, a tenth of the bytes.
fn separate_values(options: &mut Options) {
    options.set_enable_blob_files(true);
    options.set_min_blob_size(BLOB_BYTES_MIN);
    options.set_blob_file_size(64 << 20);
    options.set_blob_compression_type(DBCompressionType::None);
    // Overwritten values are left behind in blob files. A compaction moves what lives in the older half of them; and where more than half of
    // those is dead, one is made to happen. (The older quarter: 10 % faster under random updates, with three times the live bytes on disk.)
    options.set_enable_blob_gc(true);
    options.set_blob_gc_age_cutoff(0.5);
    options.set_blob_gc_force_threshold(0.5);
    // Files of level 0 hold keys only, and are small: merging them into level 1 by fours would rewrite that for a twentieth of its size (16
    // instead of 4: 86,000 to 120,000 keys per second of processor time). A filter tells a get which of them to look into.
    options.set_level_zero_file_num_compaction_trigger(16);
    options.set_level_zero_slowdown_writes_trigger(32);
    options.set_level_zero_stop_writes_trigger(48);
}
