//! What a metric is: its name, its unit, and how the values of subtasks become one.

/// A metric, declared as a static where it is counted.
///
/// To add one: declare it in the operator's or connector's file, take its [`Instrument`](super::Instrument) from the subtask's metrics when the operator is
/// opened, and list it in the server's catalogue, which gives it its name for Prometheus. It is then in `job show`, in its JSON, in Prometheus, and (a counter
/// of rows) in checkpoints.
#[derive(Debug, PartialEq, Eq)]
pub struct Definition {
    /// Lower case with underscores, the unit last (`_bytes`, `_us`, `_ms`; a count has none). It names the value in checkpoints, in JSON and on the wire.
    pub name: &'static str,
    /// What the value counts.
    pub unit: Unit,
    /// Whether it only grows.
    pub kind: Kind,
    /// How the values of an operator's subtasks become one.
    pub merge: Merge,
}

/// What a value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things: rows, files.
    Count,
    /// Bytes.
    Bytes,
    /// A span of time in microseconds.
    Micros,
    /// A span of time in milliseconds.
    Millis,
    /// A point in time: milliseconds since 1970-01-01T00:00:00Z; the largest and the least value are the two ends of time.
    Instant,
}

impl Unit {
    /// A value in Prometheus' base units: seconds, bytes, seconds since 1970.
    pub fn in_base_units(self, value: i64) -> f64 {
        match (self, value) {
            (Unit::Count | Unit::Bytes, value) => value as f64,
            (Unit::Micros, value) => value as f64 / 1e6,
            (Unit::Instant, i64::MAX) => f64::INFINITY,
            (Unit::Instant, i64::MIN) => f64::NEG_INFINITY,
            (Unit::Millis | Unit::Instant, value) => value as f64 / 1e3,
        }
    }
}

/// Whether a value only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It counts data, and is part of checkpoints: a job that was killed counts each row once.
    Counter,
    /// It only grows, and begins at 0 with every start of the job.
    CounterOfRun,
    /// It goes up and down, and may have no value.
    Gauge,
}

/// How the values of an operator's subtasks become one. A subtask without a value says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// Their sum.
    Sum,
    /// The highest.
    Highest,
    /// The lowest.
    Lowest,
}

impl Definition {
    /// A counter of data.
    pub const fn counter(name: &'static str, unit: Unit) -> Self {
        Definition { name, unit, kind: Kind::Counter, merge: Merge::Sum }
    }

    /// A counter that begins anew with every start of the job.
    pub const fn counter_of_run(name: &'static str, unit: Unit) -> Self {
        Definition { name, unit, kind: Kind::CounterOfRun, merge: Merge::Sum }
    }

    /// A value that goes up and down.
    pub const fn gauge(name: &'static str, unit: Unit, merge: Merge) -> Self {
        Definition { name, unit, kind: Kind::Gauge, merge }
    }
}

impl Merge {
    /// Two values as one.
    pub fn of(self, a: i64, b: i64) -> i64 {
        match self {
            Merge::Sum => a.saturating_add(b),
            Merge::Highest => a.max(b),
            Merge::Lowest => a.min(b),
        }
    }
}
