//! Settings of an engine: plain values, checked once. `cli` reads them from flags, the environment and a file.

use std::time::Duration;

use coulee_checkpoint::StoreSettings;
use coulee_log::LogSettings;
use coulee_sql::RestartStrategy;
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
    /// The pause before the first repetition, in milliseconds; it doubles with each.
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
        }
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

/// When one job is started again: what its script says, or else the engine's settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RestartPolicy {
    /// How many starts in a row may fail without a new checkpoint; `None`: any number.
    attempts: Option<u32>,
    /// The pause before the first repetition.
    first: Duration,
    /// What each pause is multiplied by to give the next. 1 or more.
    multiplier: f64,
    /// The longest pause.
    max: Duration,
}

impl RestartPolicy {
    /// The script's strategy if it has one.
    pub(crate) fn new(settings: &RestartSettings, strategy: Option<RestartStrategy>) -> Self {
        match strategy {
            None => RestartPolicy {
                attempts: Some(settings.attempts),
                first: Duration::from_millis(settings.pause_ms),
                multiplier: 2.0,
                max: Duration::from_millis(settings.pause_ms_max),
            },
            Some(RestartStrategy::None) => {
                RestartPolicy { attempts: Some(0), first: Duration::ZERO, multiplier: 1.0, max: Duration::ZERO }
            }
            Some(RestartStrategy::FixedDelay { attempts, delay }) => {
                RestartPolicy { attempts: Some(attempts), first: delay, multiplier: 1.0, max: delay }
            }
            Some(RestartStrategy::ExponentialDelay { initial, max, multiplier, attempts }) => {
                RestartPolicy { attempts, first: initial, multiplier, max: max.max(initial) }
            }
        }
    }

    /// The pause before the next start, after so many failures in a row (1 or more); `None` when it is time to give up.
    pub(crate) fn pause(&self, failures: u32) -> Option<Duration> {
        if self.attempts.is_some_and(|attempts| failures > attempts) {
            return None;
        }
        let doublings = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.first.as_secs_f64() * self.multiplier.powi(doublings);
        // Infinite after very many: then the longest.
        Some(Duration::from_secs_f64(seconds.min(self.max.as_secs_f64())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_end() {
        let settings = RestartPolicy::new(&RestartSettings { attempts: 8, ..Default::default() }, None);
        let pauses: Vec<Option<u64>> = (1..=9).map(|n| settings.pause(n).map(|p| p.as_secs())).collect();
        let expected = [1, 2, 4, 8, 16, 32, 60, 60].map(Some).into_iter().chain([None]);
        assert_eq!(pauses, expected.collect::<Vec<_>>());
        let patient = RestartPolicy::new(&RestartSettings { attempts: u32::MAX, ..Default::default() }, None);
        assert_eq!(patient.pause(u32::MAX), Some(Duration::from_secs(60)));
    }

    #[test]
    fn a_scripts_strategy_precedes_the_engines() {
        let pauses = |strategy| {
            let policy = RestartPolicy::new(&RestartSettings::default(), Some(strategy));
            (1..=4).map(|n| policy.pause(n).map(|pause| pause.as_millis())).collect::<Vec<_>>()
        };
        assert_eq!(pauses(RestartStrategy::None), [None; 4]);
        let delay = Duration::from_millis(70);
        assert_eq!(pauses(RestartStrategy::FixedDelay { attempts: 2, delay }), [Some(70), Some(70), None, None]);
        let (initial, max) = (Duration::from_millis(100), Duration::from_millis(225));
        let growing = RestartStrategy::ExponentialDelay { initial, max, multiplier: 1.5, attempts: None };
        assert_eq!(pauses(growing), [Some(100), Some(150), Some(225), Some(225)]);
    }

    #[test]
    fn values_out_of_range_are_named() {
        assert!(EngineSettings::default().check().is_ok());
        let error = EngineSettings { parallelism: 0, ..Default::default() }.check().unwrap_err();
        assert_eq!(error.to_string(), "parallelism is 0: expected 1 to 256");
    }
}
