//! Names the file and the byte of a damaged batch, for a reader that has met one.

use std::path::PathBuf;

use coulee_model::SequenceNumber;

use crate::error::{LogError, Result};
use crate::shard::shard::Shard;

impl Shard {
    /// Names the file of a batch that did not decode, and the byte where the batch begins: a [`LogError::DamagedBatch`] of a
    /// batch that was read from this shard becomes a [`LogError::Corrupt`]. Any other error is returned as it is, and so is
    /// this one when its segment has been removed. Blocks for the disk.
    pub fn locate(&self, error: LogError) -> LogError {
        let LogError::DamagedBatch { base, reason } = error else { return error };
        match self.position_of(base) {
            Ok(Some((path, position))) => LogError::corrupt(&path, position, reason),
            // The way to the batch is damaged already.
            Err(error @ LogError::Corrupt { .. }) => error,
            Ok(None) | Err(_) => LogError::DamagedBatch { base, reason },
        }
    }

    fn position_of(&self, sequence: SequenceNumber) -> Result<Option<(PathBuf, u64)>> {
        let segments = self.opened()?.segments.read().clone();
        let after = segments.partition_point(|segment| segment.base <= sequence.0);
        let Some(segment) = after.checked_sub(1).map(|index| &segments[index]) else { return Ok(None) };
        Ok(Some((segment.path().to_owned(), segment.position_of(sequence.0)?)))
    }
}
