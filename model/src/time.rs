//! Event time as milliseconds, and the clock that components are given instead of asking the machine.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::Date;

/// A point in time: milliseconds since 1970-01-01T00:00:00Z, without leap seconds. Negative before 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Before every record: the watermark of a stream that has said nothing yet.
    pub const MIN: Timestamp = Timestamp(i64::MIN);
    /// After every record: the watermark of a stream that has ended.
    pub const MAX: Timestamp = Timestamp(i64::MAX);

    /// Milliseconds since the epoch.
    pub fn millis(self) -> i64 {
        self.0
    }

    /// This time moved by `millis`, held at the ends of the range.
    #[must_use]
    pub fn plus_millis(self, millis: i64) -> Self {
        Timestamp(self.0.saturating_add(millis))
    }
}

impl fmt::Display for Timestamp {
    /// `2013-01-31 23:45:00.000`, in UTC; `-∞` and `+∞` for the two ends.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Timestamp::MIN => return f.write_str("-∞"),
            Timestamp::MAX => return f.write_str("+∞"),
            _ => {}
        }
        let (days, ms) = (self.0.div_euclid(86_400_000), self.0.rem_euclid(86_400_000));
        let Date { year, month, day } = Date::from_days(days);
        let (h, m, s) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02}.{:03}", ms % 1_000)
    }
}

/// Where components get the time from. Injected, so that tests decide what time it is.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The wall-clock time now. May step backwards when the machine's clock is set.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else is given")]
    fn now(&self) -> Timestamp {
        let millis = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_millis() as i64,
            Err(before) => -(before.duration().as_millis() as i64),
        };
        Timestamp(millis)
    }
}

/// Measures how long a piece of work takes, by the machine's monotonic clock: for figures that are shown, and for bounds on the time that a piece of work may
/// keep its thread. What waits, waits by [`Clock`] or by tokio's time, which a test can hold.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts to measure.
    #[expect(clippy::disallowed_methods, reason = "the one place that measures")]
    #[must_use]
    pub fn start() -> Self {
        Stopwatch(Instant::now())
    }

    /// The time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A clock that stands still until it is told to move.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows `now`.
    pub fn new(now: Timestamp) -> Self {
        ManualClock(AtomicI64::new(now.0))
    }

    /// Moves the clock on.
    pub fn advance(&self, millis: i64) {
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_print_as_utc() {
        for (ms, text) in [
            (0, "1970-01-01 00:00:00.000"),
            (-1, "1969-12-31 23:59:59.999"),
            (1_357_035_420_000, "2013-01-01 10:17:00.000"),
            (951_827_696_789, "2000-02-29 12:34:56.789"),
            (i64::MIN, "-∞"),
        ] {
            assert_eq!(Timestamp(ms).to_string(), text);
        }
    }
}
