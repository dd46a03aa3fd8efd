//! Retention: removes the oldest segments of a shard, whole, by age and by size. The last segment always stays.
//!
//! The age of a segment is counted from its last append, not from the timestamps of its records. By those, old records that
//! are appended now would be removed at once, and one record with a timestamp in the future would keep every segment.

use std::path::Path;
use std::sync::Arc;

use coulee_model::Timestamp;
use parking_lot::RwLock;

use crate::error::Result;
use crate::files::index::Summary;
use crate::files::segment::Segment;
use crate::files::storage::{self, Storage};
use crate::settings::StreamSettings;

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// How many segments.
    pub segments: u64,
    /// Their size in bytes.
    pub bytes: u64,
}

impl std::ops::AddAssign for Removed {
    fn add_assign(&mut self, other: Removed) {
        self.segments += other.segments;
        self.bytes += other.bytes;
    }
}

/// Whether the last segment has to be closed so that its records can be removed when their time has come: when its first
/// append is older than is kept.
pub(crate) fn is_due(last: &Summary, settings: &StreamSettings, now: Timestamp) -> bool {
    last.bytes > 0 && is_older(last.first_append, settings, now)
}

/// Removes what the settings allow, the oldest first: only segments that end at or before `stable`, as the beginning of
/// a transaction that is open has to stay.
///
/// # Errors
/// [`LogError::Io`](crate::error::LogError::Io); what was removed before stays removed.
pub(crate) fn remove_old(
    storage: &dyn Storage,
    folder: &Path,
    segments: &RwLock<Vec<Arc<Segment>>>,
    settings: &StreamSettings,
    now: Timestamp,
    stable: u64,
) -> Result<Removed> {
    let summaries: Vec<Summary> = segments.read().iter().map(|segment| segment.summary()).collect();
    let count = count_of_old(&summaries, settings, now, stable);
    // Readers stop finding them before the files go.
    let old: Vec<Arc<Segment>> = segments.write().drain(..count).collect();
    let mut removed = Removed::default();
    for segment in old {
        segment.remove()?;
        // In order, so that no crash leaves a gap between segments.
        storage::sync_folder(storage, folder)?;
        removed += Removed { segments: 1, bytes: segment.summary().bytes };
    }
    Ok(removed)
}

fn count_of_old(segments: &[Summary], settings: &StreamSettings, now: Timestamp, stable: u64) -> usize {
    let mut left: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let closed = &segments[..segments.len().saturating_sub(1)];
    let is_old = |segment: &&Summary| {
        left -= segment.bytes;
        let is_old = is_older(segment.last_append, settings, now);
        segment.end <= stable && (is_old || settings.retention_bytes.is_some_and(|kept| left >= kept))
    };
    closed.iter().take_while(is_old).count()
}

fn is_older(append: i64, settings: &StreamSettings, now: Timestamp) -> bool {
    settings.retention_ms.is_some_and(|kept| append < now.millis().saturating_sub(kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(bytes: u64, last_append: i64) -> Summary {
        Summary { bytes, last_append, end: last_append as u64, ..Summary::empty(0) }
    }

    #[test]
    fn age_and_size_choose_from_the_front_and_spare_the_last() {
        let segments = [segment(10, 100), segment(10, 200), segment(10, 300)];
        let count = |ms: Option<i64>, bytes: Option<u64>| {
            let settings = StreamSettings { retention_ms: ms, retention_bytes: bytes, ..Default::default() };
            assert_eq!(count_of_old(&segments, &settings, Timestamp(1000), 99), 0, "a transaction is open since then");
            count_of_old(&segments, &settings, Timestamp(1000), 300)
        };
        assert_eq!(count(None, None), 0);
        assert_eq!((count(Some(900), None), count(Some(899), None), count(Some(0), None)), (0, 1, 2));
        assert_eq!((count(None, Some(21)), count(None, Some(20)), count(None, Some(0))), (0, 1, 2));
        assert_eq!(count(Some(799), Some(20)), 2, "whichever allows more");
    }
}
