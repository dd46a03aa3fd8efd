//! What a job did lately: rates over the last seconds, and since when nothing came, nothing went, and a split said nothing.
//!
//! Counters only say how much there was in all. Here a few of their former values are kept, taken whenever somebody looks and
//! at least every second while the job runs.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use coulee_model::Timestamp;
use coulee_runtime::metrics::builtin::IDLE;

use super::figures::{Figures, Rates};
use super::progress::{Operator, OperatorKind, Progress};

/// How far back rates look.
pub(super) const WINDOW: Duration = Duration::from_secs(5);
/// The least time between two samples that are kept.
const SPACING: Duration = Duration::from_millis(500);

/// The former figures of one running job.
#[derive(Debug, Default)]
pub(crate) struct FigureHistory {
    /// The oldest is at or just beyond the window's begin.
    samples: VecDeque<Sample>,
    rows_read: Change,
    rows_written: Change,
    /// By operator: since when a sink has held rows back.
    holding: Vec<Option<Timestamp>>,
    /// By operator and split.
    splits: BTreeMap<(usize, String), Quiet>,
    /// By operator and subtask, the most idle time that was told: it never shrinks, although work is counted when it is done.
    idle: BTreeMap<(usize, usize), Duration>,
}

#[derive(Debug)]
struct Sample {
    elapsed: Duration,
    operators: Vec<Figures>,
}

/// A counter, and when it last moved.
#[derive(Debug, Default)]
struct Change {
    value: Option<u64>,
    at: Option<Timestamp>,
}

/// The event time of a split, and since when it has been that.
#[derive(Debug)]
struct Quiet {
    watermark: Option<Timestamp>,
    since: Timestamp,
}

impl Change {
    /// Takes the value now; says when it last moved while it was looked at.
    fn observe(&mut self, value: u64, now: Timestamp) -> Option<Timestamp> {
        if self.value.is_some_and(|before| before != value) {
            self.at = Some(now);
        }
        self.value = Some(value);
        self.at
    }
}

impl FigureHistory {
    /// Takes the figures of `now`, and writes into them what follows from those before. The first call is made with the
    /// figures that the job starts with.
    pub(crate) fn observe(&mut self, progress: &mut Progress, now: Timestamp) {
        progress.read_at = self.rows_read.observe(progress.rows_read + progress.rejected_rows, now);
        progress.delivered_at = self.rows_written.observe(progress.rows_written, now);
        self.observe_idle(progress);
        self.observe_sinks(&mut progress.operators, now);
        self.observe_splits(&mut progress.operators, now);
        self.observe_rates(progress);
    }

    /// Instead of `observe`, when nothing has changed since the last one for longer than the window.
    pub(crate) fn nothing_new(&mut self, elapsed: Duration) {
        if let Some(last) = self.samples.pop_back() {
            self.samples.clear();
            self.samples.push_back(Sample { elapsed, ..last });
        }
    }

    fn observe_idle(&mut self, progress: &mut Progress) {
        for (at, operator) in progress.operators.iter_mut().enumerate() {
            let mut all = Duration::ZERO;
            for (index, subtask) in operator.subtasks.iter_mut().enumerate() {
                let figures = &mut subtask.figures;
                let idle = progress.elapsed.saturating_sub(figures.busy() + figures.blocked());
                let most = self.idle.entry((at, index)).or_default();
                *most = idle.max(*most);
                figures.set(&IDLE, most.as_micros() as i64);
                all += *most;
            }
            operator.figures.set(&IDLE, all.as_micros() as i64);
        }
    }

    fn observe_sinks(&mut self, operators: &mut [Operator], now: Timestamp) {
        self.holding.resize(operators.len(), None);
        for (operator, since) in operators.iter_mut().zip(&mut self.holding) {
            let holds =
                operator.kind == OperatorKind::Sink && operator.figures.rows_in() > operator.figures.delivered_rows();
            *since = if holds { since.or(Some(now)) } else { None };
            operator.holding_since = *since;
        }
    }

    fn observe_splits(&mut self, operators: &mut [Operator], now: Timestamp) {
        for (at, operator) in operators.iter_mut().enumerate().filter(|(_, operator)| operator.has_event_time) {
            for split in operator.subtasks.iter_mut().flat_map(|subtask| &mut subtask.splits) {
                let seen = self.splits.entry((at, split.id.clone()));
                let quiet = seen.or_insert(Quiet { watermark: split.watermark, since: now });
                if quiet.watermark != split.watermark {
                    *quiet = Quiet { watermark: split.watermark, since: now };
                }
                split.quiet_since = Some(quiet.since);
            }
        }
    }

    fn observe_rates(&mut self, progress: &mut Progress) {
        let elapsed = progress.elapsed;
        while self.samples.get(1).is_some_and(|second| elapsed.saturating_sub(second.elapsed) >= WINDOW) {
            self.samples.pop_front();
        }
        if let Some(former) = self.samples.front().filter(|former| elapsed >= former.elapsed + SPACING) {
            let over = (elapsed - former.elapsed).as_secs_f64();
            for (operator, before) in progress.operators.iter_mut().zip(&former.operators) {
                operator.rates = rates(&operator.figures, before, over, operator.parallelism);
            }
        }
        if self.samples.back().is_none_or(|last| elapsed >= last.elapsed + SPACING) {
            let operators = progress.operators.iter().map(|operator| operator.figures.clone()).collect();
            self.samples.push_back(Sample { elapsed, operators });
        }
    }
}

fn rates(now: &Figures, before: &Figures, seconds: f64, subtasks: u32) -> Rates {
    let per_second = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
    // Work is counted when it is done, and may have begun before the window did.
    let share = |now: Duration, before: Duration| {
        (now.saturating_sub(before).as_secs_f64() / seconds / f64::from(subtasks.max(1))).min(1.0)
    };
    Rates {
        rows_in: per_second(now.rows_in(), before.rows_in()),
        rows_out: per_second(now.rows_out(), before.rows_out()),
        bytes_in: per_second(now.bytes_in(), before.bytes_in()),
        bytes_out: per_second(now.bytes_out(), before.bytes_out()),
        busy: share(now.busy(), before.busy()),
        blocked: share(now.blocked(), before.blocked()),
    }
}

#[cfg(test)]
mod tests {
    use coulee_runtime::metrics::builtin::{BUSY, BYTES_IN, DELIVERED_ROWS, ROWS_IN};

    use super::super::figures::{Split, Subtask};
    use super::*;

    fn at(elapsed: u64, rows: u64, busy: u64) -> Progress {
        let rows_in = rows as i64;
        let figures = Figures::from([(&ROWS_IN, rows_in), (&BYTES_IN, rows_in * 10), (&BUSY, busy as i64 * 1_000)]);
        let operator = Operator {
            parallelism: 2,
            subtasks: vec![Subtask { figures: figures.clone(), ..Subtask::default() }],
            figures,
            ..Operator::default()
        };
        let elapsed = Duration::from_millis(elapsed);
        Progress { elapsed, rows_read: rows, operators: vec![operator], ..Progress::default() }
    }

    fn observed(history: &mut FigureHistory, mut progress: Progress) -> Progress {
        let now = Timestamp(progress.elapsed.as_millis() as i64);
        history.observe(&mut progress, now);
        progress
    }

    #[test]
    fn rates_are_of_the_last_seconds_only() {
        let mut history = FigureHistory::default();
        let first = observed(&mut history, at(0, 100, 0));
        assert_eq!((first.operators[0].rates, first.read_at), (Rates::default(), None));
        let rates = observed(&mut history, at(1_000, 1_100, 500)).operators[0].rates;
        assert_eq!((rates.rows_in, rates.bytes_in, rates.busy), (1_000.0, 10_000.0, 0.25));
        for second in 2..=20 {
            observed(&mut history, at(second * 1_000, 1_100, 500));
        }
        let quiet = observed(&mut history, at(21_000, 1_100, 500));
        assert_eq!(quiet.operators[0].rates, Rates::default());
        assert_eq!(quiet.read_at, Some(Timestamp(1_000)), "the counter moved then, and not since");
        assert!(history.samples.len() < 10, "{} samples", history.samples.len());
    }

    #[test]
    fn what_comes_after_a_long_quiet_time_counts_for_the_seconds_in_which_it_came() {
        let mut history = FigureHistory::default();
        observed(&mut history, at(0, 100, 0));
        observed(&mut history, at(6_000, 100, 0));
        history.nothing_new(Duration::from_secs(60));
        let rates = observed(&mut history, at(61_000, 1_100, 0)).operators[0].rates;
        assert_eq!(rates.rows_in, 1_000.0);
    }

    #[test]
    fn idle_time_never_shrinks() {
        let mut history = FigureHistory::default();
        let idle = |progress: Progress| progress.operators[0].figures.idle().as_millis();
        assert_eq!(idle(observed(&mut history, at(3_000, 0, 0))), 3_000);
        // A batch took three seconds, which are counted only now.
        assert_eq!(idle(observed(&mut history, at(3_100, 0, 3_000))), 3_000);
        assert_eq!(idle(observed(&mut history, at(9_000, 0, 3_000))), 6_000);
    }

    #[test]
    fn a_split_is_quiet_since_its_event_time_last_moved() {
        let mut history = FigureHistory::default();
        let reading = |elapsed: u64, watermark: i64| {
            let mut progress = at(elapsed, 0, 0);
            progress.operators[0].has_event_time = true;
            let split = Split { id: "shard-00001".into(), watermark: Some(Timestamp(watermark)), ..Split::default() };
            progress.operators[0].subtasks[0].splits.push(split);
            progress
        };
        let since = |progress: Progress| progress.operators[0].subtasks[0].splits[0].quiet_since;
        assert_eq!(since(observed(&mut history, reading(10, 7))), Some(Timestamp(10)));
        assert_eq!(since(observed(&mut history, reading(2_000, 7))), Some(Timestamp(10)));
        assert_eq!(since(observed(&mut history, reading(3_000, 8))), Some(Timestamp(3_000)));
    }

    #[test]
    fn a_sink_holds_rows_since_the_first_that_it_did_not_deliver() {
        let mut history = FigureHistory::default();
        let sink = |elapsed: u64, taken: u64, delivered: u64| {
            let mut progress = at(elapsed, taken, 0);
            progress.operators[0].kind = OperatorKind::Sink;
            progress.operators[0].figures.set(&DELIVERED_ROWS, delivered as i64);
            progress.rows_written = delivered;
            progress
        };
        let since = |progress: &Progress| progress.operators[0].holding_since;
        assert_eq!(since(&observed(&mut history, sink(0, 0, 0))), None);
        assert_eq!(since(&observed(&mut history, sink(1_000, 5, 0))), Some(Timestamp(1_000)));
        assert_eq!(since(&observed(&mut history, sink(2_000, 9, 5))), Some(Timestamp(1_000)));
        let delivered = observed(&mut history, sink(3_000, 9, 9));
        assert_eq!((since(&delivered), delivered.delivered_at), (None, Some(Timestamp(3_000))));
    }
}
