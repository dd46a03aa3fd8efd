//! Entries that die by the clock: a compaction filter drops them, and [`JobStore::reclaim`] sees to it that compactions come by.
//!
//! RocksDB compacts what is written to. State that is only waiting to expire is not written to, so nothing would ever free it.
//! `reclaim` therefore samples each file once, to learn when a quarter of it will have expired, and compacts it then: rewriting what
//! lives costs at most three times what it frees, and at most a third of the live size lies dead on disk.

use std::collections::HashMap;
use std::ffi::CStr;
use std::sync::Arc;
use std::time::Duration;

use coulee_model::{Clock, Stopwatch, Timestamp};
use rocksdb::compaction_filter::CompactionFilter;
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};
use rocksdb::{BottommostLevelCompaction, CompactOptions, CompactionDecision, LiveFile, ReadOptions};

use super::{EXPIRING, JobStore};
use crate::changes::EXPIRY_BYTES;
use crate::{Result, TableId};

/// The expiry at the head of a value; `None` when the value is too short to have one.
pub(super) fn expiry(value: &[u8]) -> Option<Timestamp> {
    value.first_chunk::<EXPIRY_BYTES>().map(|at| Timestamp(i64::from_be_bytes(*at)))
}

/// Whether the entry is gone at `now`.
pub(super) fn is_expired(value: &[u8], now: Timestamp) -> bool {
    expiry(value).is_some_and(|at| at != Timestamp::MAX && at <= now)
}

/// Makes a filter for each compaction.
pub(super) struct Factory {
    clock: Arc<dyn Clock>,
}

impl Factory {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Factory { clock }
    }
}

impl CompactionFilterFactory for Factory {
    type Filter = Filter;

    fn create(&mut self, _: CompactionFilterContext) -> Filter {
        // The clock is read once per compaction, not per entry. Entries that expire meanwhile go with a later one.
        Filter { now: self.clock.now() }
    }

    fn name(&self) -> &CStr {
        c"coulee.expiry"
    }
}

/// Drops what has expired.
pub(super) struct Filter {
    now: Timestamp,
}

impl CompactionFilter for Filter {
    fn filter(&mut self, _level: u32, _key: &[u8], value: &[u8]) -> CompactionDecision {
        if is_expired(value, self.now) { CompactionDecision::Remove } else { CompactionDecision::Keep }
    }

    fn name(&self) -> &CStr {
        c"coulee.expiry"
    }
}

/// When each file of the expiring tables is worth a compaction, by the file's name. Files never change, so each is judged once.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    pays_at: HashMap<String, Timestamp>,
}

/// What [`JobStore::reclaim`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reclaimed {
    /// Files that were compacted.
    pub files: usize,
    /// Bytes by which the files of expiring tables shrank.
    pub bytes: u64,
    /// Whether time ran out before the work did.
    pub more: bool,
}

/// Places in a file that are looked at, and entries read at each.
const SAMPLE_PLACES: u64 = 16;
const SAMPLE_RUN: usize = 16;

impl JobStore {
    /// Frees the disk space of expired entries where that pays. To be called every so often; costs a listing of files when there is nothing
    /// to do. Blocks for about `max_duration` at most: the time is looked at between files (32 MB each). Reads and commits go on beside it.
    ///
    /// # Errors
    /// [`Error::Store`](crate::Error::Store).
    pub fn reclaim(&self, max_duration: Duration) -> Result<Reclaimed> {
        let started = Stopwatch::start();
        let now = self.clock.now();
        let mut schedule = self.reclaim.lock();
        let files = self.expiring_files()?;
        let before: u64 = files.iter().map(|file| file.size as u64).sum();
        // Files that are gone are forgotten.
        let mut known = std::mem::take(&mut schedule.pays_at);
        schedule.pays_at = files.iter().filter_map(|file| known.remove_entry(&file.name)).collect();
        let mut done = Reclaimed::default();
        for file in &files {
            let Some((start, end)) = file.start_key.as_deref().zip(file.end_key.as_deref()) else { continue };
            if schedule.pays_at.get(&file.name).is_some_and(|at| *at > now) {
                continue;
            }
            // New, or due. SUBTLE: what was sampled before may have been overwritten since by what lives longer: judge again before paying.
            let pays_at = self.pays_at(start, end)?;
            schedule.pays_at.insert(file.name.clone(), pays_at);
            if pays_at > now {
                continue;
            }
            if started.elapsed() >= max_duration {
                done.more = true;
                break;
            }
            self.compact(start, end);
            done.files += 1;
        }
        if done.files > 0 {
            let after: u64 = self.expiring_files()?.iter().map(|file| file.size as u64).sum();
            done.bytes = before.saturating_sub(after);
        }
        Ok(done)
    }

    pub(super) fn expiring_files(&self) -> Result<Vec<LiveFile>> {
        let mut files = self.db.live_files().map_err(|e| self.wrap(e))?;
        files.retain(|file| file.column_family_name == EXPIRING);
        Ok(files)
    }

    fn compact(&self, start: &[u8], end: &[u8]) {
        let mut options = CompactOptions::default();
        options.set_exclusive_manual_compaction(false);
        // Also where nothing lies above the last level: that is where old entries are.
        options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
        self.db.compact_range_cf_opt(self.family(TableId(TableId::EXPIRES)), Some(start), Some(end), &options);
    }

    /// When a quarter of the entries with keys in `[start, end]` will have expired, judged by a sample; `MAX` when that is never.
    fn pays_at(&self, start: &[u8], end: &[u8]) -> Result<Timestamp> {
        let mut read = ReadOptions::default();
        read.fill_cache(false);
        let mut rows = self.db.raw_iterator_cf_opt(self.family(TableId(TableId::EXPIRES)), read);
        let mut expiries = Vec::with_capacity((SAMPLE_PLACES as usize) * SAMPLE_RUN);
        for place in 0..SAMPLE_PLACES {
            rows.seek(between(start, end, place));
            for _ in 0..SAMPLE_RUN {
                let Some((key, value)) = rows.item() else { break };
                if key > end {
                    break;
                }
                expiries.push(expiry(value).unwrap_or(Timestamp::MAX));
                rows.next();
            }
            rows.status().map_err(|e| self.wrap(e))?;
        }
        expiries.sort_unstable();
        Ok(expiries.get(expiries.len() / 4).copied().unwrap_or(Timestamp::MAX))
    }
}

/// The key at the `n`th place from `start` to `end`, as far as the eight bytes tell after what both have in common.
fn between(start: &[u8], end: &[u8], n: u64) -> Vec<u8> {
    // Multiples of the golden ratio, modulo 1: evenly spread, and never in step with a pattern of the keys.
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let common = start.iter().zip(end).take_while(|(a, b)| a == b).count();
    let number = |key: &[u8]| (0..8).fold(0u64, |n, i| n << 8 | u64::from(key.get(common + i).copied().unwrap_or(0)));
    let (low, high) = (number(start), number(end));
    if n == 0 || high <= low {
        return start.to_vec();
    }
    let mut key = start[..common].to_vec();
    let step = (u128::from(high - low) * u128::from(n.wrapping_mul(GOLDEN))) >> 64;
    key.extend_from_slice(&(low + step as u64).to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sampled_places_are_spread_over_the_file() {
        for (start, end) in
            [(&b"aa"[..], &b"az"[..]), (b"a", b"b\xff\xff"), (b"", b"\xff"), (b"same", b"same"), (b"x", b"xy")]
        {
            let places: Vec<_> = (0..16).map(|n| between(start, end, n)).collect();
            assert!(
                places[0] == start && places.iter().all(|place| start <= &place[..] && &place[..] <= end),
                "{places:?}"
            );
        }
        let mut places: Vec<u8> =
            (0..16).map(|n| between(b"\x00", b"\xff", n).first().copied().unwrap_or(0) / 32).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 8, "every eighth is looked at");
    }
}
