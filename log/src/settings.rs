//! Settings of the log and of its streams: plain values, checked once.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::error::{LogError, Result};

/// The largest batch that the log takes, in encoded bytes.
pub const BATCH_BYTES_MAX: usize = 64 << 20;

/// The most shards a stream can have.
pub const SHARDS_MAX: u32 = 4096;

/// Settings of a [`Log`](crate::Log).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// A segment is closed, and the next begun, before it would grow past this many bytes. 1 KiB to 1 GiB.
    pub segment_bytes: u64,
    /// An index entry is made for every so many bytes of batches. 1 B (every batch) to 1 MiB. Smaller values make
    /// positioning faster and indexes larger: 24 bytes of memory per entry.
    pub index_interval_bytes: u32,
    /// How many threads write and sync; each shard belongs to one. 1 to 64. More of them sync more shards side by side.
    pub committer_threads: usize,
    /// How many bytes of appends may wait to be written, in all shards together. 64 MiB, so that any batch fits, to 64 GiB.
    /// Appends beyond it are refused; [`Shard::room`](crate::Shard::room) waits from a quarter of it on.
    pub queued_bytes_max: u64,
    /// A transaction that was not prepared after so many milliseconds is aborted. 1 s to 24 hours.
    pub transaction_timeout_ms: u64,
}

impl Default for LogSettings {
    fn default() -> Self {
        LogSettings {
            segment_bytes: 256 << 20,
            index_interval_bytes: 4096,
            committer_threads: 8,
            queued_bytes_max: 256 << 20,
            // Flink's, so that long checkpoint intervals need no other.
            transaction_timeout_ms: 60 * 60 * 1000,
        }
    }
}

impl LogSettings {
    /// # Errors
    /// [`LogError::InvalidSetting`] names the setting that is out of its range.
    pub fn check(&self) -> Result<()> {
        // The index holds positions as u32, which leaves room for one batch past the limit.
        in_range("segment_bytes", self.segment_bytes, 1 << 10, 1 << 30, "1 KiB to 1 GiB")?;
        in_range("index_interval_bytes", self.index_interval_bytes.into(), 1, 1 << 20, "1 B to 1 MiB")?;
        in_range("committer_threads", self.committer_threads as u64, 1, 64, "1 to 64")?;
        in_range("queued_bytes_max", self.queued_bytes_max, BATCH_BYTES_MAX as u64, 64 << 30, "64 MiB to 64 GiB")?;
        let timeout = self.transaction_timeout_ms;
        in_range("transaction_timeout_ms", timeout, 1000, 86_400_000, "1 s to 24 hours, in ms")
    }
}

/// When an append is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncPolicy {
    /// Once it is on the disk. Appends that wait at the same moment share one sync.
    #[default]
    Group,
    /// Once the operating system has it; a sync follows within `ms` milliseconds. A power cut can lose that much.
    Interval {
        /// The longest time between a write and its sync.
        ms: u64,
    },
    /// Once the operating system has it, which decides when to write. A killed process loses nothing; a power cut may.
    Os,
}

/// How the records of a batch are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Stored as they are.
    #[default]
    None,
    /// Deflate: small and slow.
    Gzip,
    /// Fast, and understood by every client.
    Snappy,
    /// The fastest.
    Lz4,
    /// The smallest at a good speed.
    Zstd,
}

/// Settings of one stream. All but the number of shards may change while the stream is in use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamSettings {
    /// How many shards: 1 to 4096.
    pub shards: u32,
    /// When an append is acknowledged.
    pub sync: SyncPolicy,
    /// How records are compressed that do not arrive encoded.
    pub compression: Compression,
    /// Segments whose last append is older than this many milliseconds are removed. `None`: kept.
    pub retention_ms: Option<i64>,
    /// The oldest segments of a shard are removed while the others hold at least this many bytes. `None`: kept.
    pub retention_bytes: Option<u64>,
    /// Whatever the layers above want to remember with the stream.
    pub properties: BTreeMap<String, String>,
}

impl Default for StreamSettings {
    fn default() -> Self {
        StreamSettings {
            shards: 1,
            sync: SyncPolicy::Group,
            compression: Compression::None,
            retention_ms: None,
            retention_bytes: None,
            properties: BTreeMap::new(),
        }
    }
}

impl StreamSettings {
    /// # Errors
    /// [`LogError::InvalidSetting`] names the setting that is out of its range.
    pub fn check(&self) -> Result<()> {
        in_range("shards", self.shards.into(), 1, SHARDS_MAX.into(), "1 to 4096")?;
        if let SyncPolicy::Interval { ms } = self.sync {
            in_range("sync interval in ms", ms, 1, 3_600_000, "1 ms to 1 hour")?;
        }
        match self.retention_ms {
            Some(ms) if ms < 0 => Err(invalid("retention_ms", ms, "0 or more, or none to keep all")),
            _ => Ok(()),
        }
    }
}

/// The settings of an open stream, as they are now.
#[derive(Debug)]
pub(crate) struct CurrentSettings(RwLock<Arc<StreamSettings>>);

impl CurrentSettings {
    pub(crate) fn new(settings: StreamSettings) -> Arc<Self> {
        Arc::new(CurrentSettings(RwLock::new(Arc::new(settings))))
    }

    pub(crate) fn get(&self) -> Arc<StreamSettings> {
        Arc::clone(&self.0.read())
    }

    pub(crate) fn set(&self, settings: StreamSettings) {
        *self.0.write() = Arc::new(settings);
    }
}

fn in_range(setting: &'static str, found: u64, least: u64, most: u64, expected: &'static str) -> Result<()> {
    if (least..=most).contains(&found) { Ok(()) } else { Err(invalid(setting, found, expected)) }
}

fn invalid(setting: &'static str, found: impl ToString, expected: &'static str) -> LogError {
    LogError::InvalidSetting { setting, found: found.to_string(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_named() {
        let error = StreamSettings { shards: 0, ..Default::default() }.check().unwrap_err();
        assert_eq!(error.to_string(), "shards is 0: expected 1 to 4096");
        assert!(LogSettings { segment_bytes: 1 << 40, ..Default::default() }.check().is_err());
        assert!(LogSettings::default().check().is_ok());
        assert!(StreamSettings::default().check().is_ok());
    }

    #[test]
    fn stream_settings_survive_json_and_absent_fields() {
        let settings = StreamSettings {
            shards: 3,
            sync: SyncPolicy::Interval { ms: 20 },
            compression: Compression::Zstd,
            retention_ms: Some(5),
            properties: BTreeMap::from([("format".to_owned(), "json".to_owned())]),
            ..Default::default()
        };
        let text = serde_json::to_string(&settings).expect("to JSON");
        assert_eq!(serde_json::from_str::<StreamSettings>(&text).expect("from JSON"), settings);
        let sparse: StreamSettings = serde_json::from_str(r#"{"shards": 2}"#).expect("from JSON");
        assert_eq!(sparse, StreamSettings { shards: 2, ..Default::default() });
    }
}
