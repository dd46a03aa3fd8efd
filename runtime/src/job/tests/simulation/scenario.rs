//! What a seed draws before anything runs: the records of every split with the time at which each can be read, and how the world behaves.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;

/// The event time of a record that can be read at once, in milliseconds.
pub(super) const EVENT_EPOCH: i64 = 1_000_000_000;

/// The length of a window, and of the functions' buckets, in milliseconds.
pub(super) const WINDOW_MILLIS: i64 = 100;
pub(super) const BUCKET_MILLIS: i64 = 70;

/// A row of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InputRow {
    pub(super) id: i64,
    pub(super) key: String,
    /// Event time, in milliseconds.
    pub(super) time: i64,
    /// A row of value 0 fails in an expression.
    pub(super) value: i64,
}

/// A record of a split.
#[derive(Debug, Clone)]
pub(super) enum Record {
    Row(InputRow),
    /// It cannot be decoded.
    Broken(i64),
    /// It is no row and no error: a transaction marker, a blank line.
    Nothing,
}

/// A split.
#[derive(Debug, Clone)]
pub(super) struct Split {
    pub(super) id: String,
    /// From when on it can be found, since the simulation began.
    pub(super) appears: Duration,
    /// What it holds, with when each record can be read.
    pub(super) records: Vec<(Duration, Record)>,
    /// From when on it is known that no record follows.
    pub(super) ends: Duration,
}

/// A source.
#[derive(Debug, Clone)]
pub(super) struct SourceScript {
    pub(super) name: &'static str,
    pub(super) splits: Vec<Split>,
    /// Whether splits are found while the job runs.
    pub(super) grows: bool,
}

/// See the module.
#[derive(Clone)]
pub(super) struct Scenario {
    pub(super) sources: Vec<SourceScript>,
    /// Rows of a split are out of order by less than this.
    pub(super) disorder: Duration,
    /// After which time a silent split no longer holds event time back.
    pub(super) idle_timeout: Option<Duration>,
    /// How far a split may run ahead of the slowest one.
    pub(super) alignment: Option<Duration>,
    /// Rows per second that each source is kept to.
    pub(super) rate_limit: Option<f64>,
    /// Whether windows are aggregated before the shuffle too; rows cannot be kept as late then.
    pub(super) two_stages: bool,
    /// The most rows of a batch.
    pub(super) batch_rows: Option<usize>,
    /// Between two checkpoints.
    pub(super) interval: Duration,
    /// Between two snapshots, where there are some; and whether sinks wait for them.
    pub(super) snapshots: Option<Duration>,
    pub(super) commits_on_snapshots: bool,
    /// How often the disk is lost with the power: only a job whose sinks wait for snapshots bears that.
    pub(super) disk_losses: u32,
    /// The most microseconds that a committer takes.
    pub(super) commit_micros: u64,
    /// How often the power goes off, how often the job is stopped, and how often something fails.
    pub(super) cuts: u32,
    pub(super) stops: u32,
    pub(super) faults: u32,
}

impl std::fmt::Debug for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let splits = self.sources.iter().flat_map(|source| &source.splits);
        f.debug_struct("Scenario")
            .field("splits", &splits.map(|split| (&split.id, split.appears, split.records.len())).collect::<Vec<_>>())
            .field("disorder", &self.disorder)
            .field("idle_timeout", &self.idle_timeout)
            .field("alignment", &self.alignment)
            .field("rate_limit", &self.rate_limit)
            .field("two_stages", &self.two_stages)
            .field("batch_rows", &self.batch_rows)
            .field("interval", &self.interval)
            .field("snapshots", &self.snapshots)
            .field("commits_on_snapshots", &self.commits_on_snapshots)
            .field("disk_losses", &self.disk_losses)
            .field("cuts", &self.cuts)
            .field("stops", &self.stops)
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

impl Scenario {
    pub(super) fn draw(random: &mut SmallRng) -> Self {
        let disorder = Duration::from_millis(random.random_range(1..60));
        let idle_timeout = random.random_bool(0.5).then(|| Duration::from_millis(random.random_range(50..200)));
        let keys = [3, 10, 60][random.random_range(0..3)];
        let mut next_id = 0;
        let mut sources = Vec::new();
        for name in ["left", "right"].into_iter().take(random.random_range(1..=2)) {
            let grows = random.random_bool(0.5);
            let (pauses, next_id) = (idle_timeout, &mut next_id);
            let mut draw = Draw { random: &mut *random, disorder, pauses, next_id, keys };
            sources.push(draw.source(name, grows));
        }
        let snapshots = random.random_bool(0.4).then(|| Duration::from_millis(random.random_range(100..700)));
        let commits_on_snapshots = snapshots.is_some() && random.random_bool(0.6);
        let may_be_late = idle_timeout.is_some() || sources.iter().any(|source| source.grows);
        Scenario {
            disorder,
            idle_timeout,
            alignment: random.random_bool(0.25).then(|| Duration::from_millis(random.random_range(50..400))),
            rate_limit: random.random_bool(0.2).then(|| random.random_range(100.0..2_000.0)),
            two_stages: !may_be_late && random.random_bool(0.5),
            batch_rows: [None, Some(1), Some(7)][random.random_range(0..3)],
            interval: Duration::from_millis(random.random_range(10..200)),
            snapshots,
            commits_on_snapshots,
            disk_losses: if commits_on_snapshots { random.random_range(0..=2) } else { 0 },
            commit_micros: if random.random_bool(0.5) { 2_000 } else { 200_000 },
            cuts: random.random_range(0..=4),
            stops: random.random_range(0..=2),
            faults: random.random_range(0..=4),
            sources,
        }
    }

    /// Every row, with the split and the place in it.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&Split, usize, &InputRow)> {
        self.splits().flat_map(|split| {
            split.records.iter().enumerate().filter_map(move |(at, (_, record))| match record {
                Record::Row(row) => Some((split, at, row)),
                Record::Broken(_) | Record::Nothing => None,
            })
        })
    }

    pub(super) fn splits(&self) -> impl Iterator<Item = &Split> {
        self.sources.iter().flat_map(|source| &source.splits)
    }

    /// The ids of records that must become dead letters.
    pub(super) fn broken(&self) -> BTreeSet<i64> {
        let records = self.splits().flat_map(|split| &split.records);
        let broken = records.filter_map(|(_, record)| match record {
            Record::Broken(id) => Some(*id),
            Record::Row(row) if row.value == 0 => Some(row.id),
            Record::Row(_) | Record::Nothing => None,
        });
        broken.collect()
    }
}

struct Draw<'a> {
    random: &'a mut SmallRng,
    disorder: Duration,
    /// Splits fall silent for longer than this now and then.
    pauses: Option<Duration>,
    next_id: &'a mut i64,
    keys: u32,
}

impl Draw<'_> {
    fn source(&mut self, name: &'static str, grows: bool) -> SourceScript {
        let at_once = self.random.random_range(1..=3);
        let later = if grows { self.random.random_range(0..=2) } else { 0 };
        let splits = (0..at_once + later).map(|number| {
            let appears = if number < at_once { 0 } else { self.random.random_range(100..2_500) };
            self.split(format!("{name}-{number}"), appears)
        });
        SourceScript { name, splits: splits.collect(), grows }
    }

    fn split(&mut self, id: String, appears: u64) -> Split {
        let mut at = appears;
        let mut records = Vec::new();
        for _ in 0..self.random.random_range(5..70) {
            at += match self.random.random_range(0..12) {
                0..6 => 0,
                6..11 => self.random.random_range(1..40),
                _ => self.pauses.map_or(60, |timeout| timeout.as_millis() as u64 + self.random.random_range(1..600)),
            };
            records.push((Duration::from_millis(at), self.record(at)));
        }
        let ends = Duration::from_millis(at + self.random.random_range(0..300));
        Split { id, appears: Duration::from_millis(appears), records, ends }
    }

    fn record(&mut self, at: u64) -> Record {
        let id = *self.next_id;
        *self.next_id += 1;
        match self.random.random_range(0..25) {
            0 => Record::Nothing,
            1 => Record::Broken(id),
            _ => Record::Row(InputRow {
                id,
                key: format!("k{}", self.random.random_range(0..self.keys)),
                time: EVENT_EPOCH + at as i64 + self.random.random_range(0..self.disorder.as_millis() as i64),
                value: self.random.random_range(0..20),
            }),
        }
    }
}
