//! When a job that failed is started again: pure arithmetic. Who waits, and on what failures, is [`supervise`](crate::job)'s matter.

use std::time::Duration;

use coulee_sql::RestartStrategy;

use crate::settings::RestartSettings;

/// How much of the engine's own pauses is left to chance: as Flink's default.
const JITTER: f64 = 0.1;

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
    /// How much of a pause is added or taken away by chance. 0 to 1.
    jitter: f64,
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
                jitter: JITTER,
            },
            Some(RestartStrategy::None) => RestartPolicy::steady(0, Duration::ZERO),
            Some(RestartStrategy::FixedDelay { attempts, delay }) => RestartPolicy::steady(attempts, delay),
            Some(RestartStrategy::ExponentialDelay { initial, max, multiplier, jitter, attempts }) => {
                RestartPolicy { attempts, first: initial, multiplier, max: max.max(initial), jitter }
            }
        }
    }

    fn steady(attempts: u32, pause: Duration) -> Self {
        RestartPolicy { attempts: Some(attempts), first: pause, multiplier: 1.0, max: pause, jitter: 0.0 }
    }

    /// The pause before the next start, after so many failures in a row (1 or more); `None` when it is time to give up.
    ///
    /// `chance`, -1 to 1, says which of the pauses around the usual one; none is longer than the longest.
    pub(crate) fn pause(&self, failures: u32, chance: f64) -> Option<Duration> {
        if self.attempts.is_some_and(|attempts| failures > attempts) {
            return None;
        }
        let growths = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        // Infinite after very many: then the longest.
        let max = self.max.as_secs_f64();
        let usual = (self.first.as_secs_f64() * self.multiplier.powi(growths)).min(max);
        Some(Duration::from_secs_f64((usual * (1.0 + self.jitter * chance)).clamp(0.0, max)))
    }
}

/// The chance of a job's start, -1 to 1: always the same for the same, and as good as random among jobs that fail together.
pub(crate) fn chance(incarnation: &str, start: u32) -> f64 {
    // FNV-1a, and SplitMix64's last steps: neighbours must differ in the high bits.
    let bytes = incarnation.bytes().chain(start.to_le_bytes());
    let mut hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    (hash >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(policy: &RestartPolicy, failures: u32, chance: f64) -> Option<u128> {
        policy.pause(failures, chance).map(|pause| pause.as_millis())
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_end() {
        let settings = RestartPolicy::new(&RestartSettings { attempts: 8, ..Default::default() }, None);
        let pauses: Vec<_> = (1..=9).map(|n| millis(&settings, n, 0.0)).collect();
        let expected = [1, 2, 4, 8, 16, 32, 60, 60].map(|seconds| Some(seconds * 1_000)).into_iter().chain([None]);
        assert_eq!(pauses, expected.collect::<Vec<_>>());
        let patient = RestartPolicy::new(&RestartSettings { attempts: u32::MAX, ..Default::default() }, None);
        assert_eq!(patient.pause(u32::MAX, 0.0), Some(Duration::from_secs(60)));
    }

    #[test]
    fn a_scripts_strategy_precedes_the_engines() {
        let pauses = |strategy| {
            let policy = RestartPolicy::new(&RestartSettings::default(), Some(strategy));
            // Chance has no say in pauses that are always the same.
            (1..=4).map(|n| millis(&policy, n, 1.0)).collect::<Vec<_>>()
        };
        assert_eq!(pauses(RestartStrategy::None), [None; 4]);
        let delay = Duration::from_millis(70);
        assert_eq!(pauses(RestartStrategy::FixedDelay { attempts: 2, delay }), [Some(70), Some(70), None, None]);
        let (initial, max) = (Duration::from_millis(100), Duration::from_millis(225));
        let growing = RestartStrategy::ExponentialDelay { initial, max, multiplier: 1.5, jitter: 0.0, attempts: None };
        assert_eq!(pauses(growing), [Some(100), Some(150), Some(225), Some(225)]);
    }

    #[test]
    fn chance_moves_a_pause_by_its_share_and_never_beyond_the_longest() {
        let (initial, max) = (Duration::from_millis(800), Duration::from_millis(1_000));
        let strategy =
            |jitter| RestartStrategy::ExponentialDelay { initial, max, multiplier: 2.0, jitter, attempts: None };
        let policy = |jitter| RestartPolicy::new(&RestartSettings::default(), Some(strategy(jitter)));
        let first: Vec<_> = [-1.0, -0.5, 0.0, 1.0].map(|chance| millis(&policy(0.25), 1, chance)).into();
        assert_eq!(first, [Some(600), Some(700), Some(800), Some(1_000)]);
        assert_eq!(millis(&policy(0.25), 2, -1.0), Some(750));
        assert_eq!(millis(&policy(0.25), 2, 1.0), Some(1_000));
        assert_eq!(millis(&policy(1.0), 1, -1.0), Some(0));
        let engines = RestartPolicy::new(&RestartSettings::default(), None);
        assert_eq!((millis(&engines, 1, -1.0), millis(&engines, 1, 1.0)), (Some(900), Some(1_100)));
    }

    #[test]
    fn chances_repeat_and_are_spread_out() {
        assert_eq!(chance("0123456789ab", 3), chance("0123456789ab", 3));
        let all: Vec<f64> =
            (0..1_000).flat_map(|job| (1..=10).map(move |start| chance(&format!("{job:012x}"), start))).collect();
        assert!(all.iter().all(|chance| (-1.0..=1.0).contains(chance)));
        for tenth in 0..10 {
            let from = -1.0 + f64::from(tenth) * 0.2;
            let within = all.iter().filter(|chance| (from..from + 0.2).contains(*chance)).count();
            // Of 10,000 about 1,000, give or take 30.
            assert!((850..1_150).contains(&within), "{within} of 10,000 in the tenth from {from}");
        }
    }
}
