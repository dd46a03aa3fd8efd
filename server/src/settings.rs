//! Settings of an engine: plain values, checked once. `cli` reads them from flags, the environment and a file.

use coulee_checkpoint::StoreSettings;
use coulee_log::LogSettings;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The most subtasks that an operator may have: there are as many key groups.
const PARALLELISM_MAX: u32 = 256;

/// Settings of an [`Engine`](crate::Engine).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineSettings {
    /// Subtasks per operator of a job that does not say. 1 to 256.
    pub parallelism: u32,
    /// The log.
    pub log: LogSettings,
    /// The state of jobs.
    pub state: StateSettings,
    /// What happens after a failure.
    pub restart: RestartSettings,
    /// The snapshots of jobs.
    pub snapshots: SnapshotSettings,
}

/// How snapshots are kept. Where and how often they are taken is each job's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SnapshotSettings {
    /// How long, in milliseconds, an object must have been without a snapshot before it is removed: longer than clocks differ and requests take.
    /// 1000 or more.
    pub garbage_grace_ms: u64,
}

/// How much memory the state store of each job may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StateSettings {
    /// Bytes of changes that are held in memory before a file is written. 64 KiB to 4 GiB.
    pub write_buffer_bytes: usize,
    /// Bytes of decompressed blocks kept for reads. Up to 64 GiB.
    pub block_cache_bytes: usize,
}

/// When a job that failed is started again. Only what may pass by itself is tried again: a full disk, a store that does not
/// answer, a fault of Coulee's own. Wrong input fails at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RestartSettings {
    /// How many starts in a row may fail without a new checkpoint. 0: none is repeated.
    pub attempts: u32,
    /// The pause before the first repetition, in milliseconds; it doubles with each, give or take a tenth.
    pub pause_ms: u64,
    /// The longest pause, in milliseconds.
    pub pause_ms_max: u64,
}

impl Default for EngineSettings {
    fn default() -> Self {
        EngineSettings {
            parallelism: 1,
            log: LogSettings::default(),
            state: StateSettings::default(),
            restart: RestartSettings::default(),
            snapshots: SnapshotSettings::default(),
        }
    }
}

impl Default for SnapshotSettings {
    fn default() -> Self {
        SnapshotSettings { garbage_grace_ms: 3_600_000 }
    }
}

impl Default for StateSettings {
    fn default() -> Self {
        let StoreSettings { write_buffer_bytes, block_cache_bytes } = StoreSettings::default();
        StateSettings { write_buffer_bytes, block_cache_bytes }
    }
}

impl Default for RestartSettings {
    fn default() -> Self {
        RestartSettings { attempts: 10, pause_ms: 1_000, pause_ms_max: 60_000 }
    }
}

impl EngineSettings {
    /// # Errors
    /// `Invalid`, naming the setting that is out of its range.
    pub fn check(&self) -> Result<()> {
        self.log.check()?;
        check_parallelism(self.parallelism)?;
        let StateSettings { write_buffer_bytes, block_cache_bytes } = self.state;
        if !(64 << 10..=4 << 30).contains(&write_buffer_bytes) {
            return Err(wrong("state.write_buffer_bytes", write_buffer_bytes, "64 KiB to 4 GiB"));
        }
        if block_cache_bytes > 64 << 30 {
            return Err(wrong("state.block_cache_bytes", block_cache_bytes, "up to 64 GiB"));
        }
        let RestartSettings { pause_ms, pause_ms_max, .. } = self.restart;
        if pause_ms == 0 || pause_ms > pause_ms_max {
            return Err(wrong("restart.pause_ms", pause_ms, "1 to restart.pause_ms_max"));
        }
        let grace_ms = self.snapshots.garbage_grace_ms;
        if grace_ms < 1_000 {
            return Err(wrong("snapshots.garbage_grace_ms", grace_ms, "1000 or more; an hour is reasonable"));
        }
        Ok(())
    }
}

/// # Errors
/// `Invalid` unless there are 1 to 256 subtasks.
pub(crate) fn check_parallelism(parallelism: u32) -> Result<()> {
    match parallelism {
        1..=PARALLELISM_MAX => Ok(()),
        _ => Err(wrong("parallelism", parallelism, "1 to 256")),
    }
}

fn wrong(setting: &str, found: impl std::fmt::Display, expected: &str) -> Error {
    Error::Invalid(format!("{setting} is {found}: expected {expected}"))
}

impl From<&StateSettings> for StoreSettings {
    fn from(settings: &StateSettings) -> Self {
        StoreSettings { write_buffer_bytes: settings.write_buffer_bytes, block_cache_bytes: settings.block_cache_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_named() {
        assert!(EngineSettings::default().check().is_ok());
        let error = EngineSettings { parallelism: 0, ..Default::default() }.check().unwrap_err();
        assert_eq!(error.to_string(), "parallelism is 0: expected 1 to 256");
    }
}
