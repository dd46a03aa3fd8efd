//! What the flow of rows has to do with it: nothing comes, nothing is let through, something is too slow, or the sink waits.

use std::time::Duration;

use coulee_model::Timestamp;

use super::{Finding, FindingCode, QUIET, named, since, sinks, sources};
use crate::job::progress::{Operator, OperatorKind, Progress};
use crate::span::span;

/// From this share of its time on, an operator counts as blocked, or as busy.
const HIGH: f64 = 0.5;
/// No checkpoint for so many intervals is worth a word.
const CHECKPOINTS_MISSED: u32 = 3;
/// How long before a checkpoint rows must have been with a sink for it to have delivered them, if it were to.
const DELIVERY_GRACE: Duration = Duration::from_secs(2);

/// The sources have read nothing, or nothing lately.
pub(super) fn no_data(progress: &Progress, now: Timestamp) -> Option<Finding> {
    let source = sources(progress).next()?;
    if sources(progress).any(|source| source.rates.blocked >= HIGH) {
        // It would read more if somebody took it.
        return None;
    }
    let since_when = match progress.read_at {
        Some(at) if since(at, now) < QUIET => return None,
        Some(at) => at,
        None => progress.started_at?,
    };
    let what: Vec<&str> = sources(progress).map(|source| source.description.as_str()).collect();
    let what = what.join(", ");
    let (message, advice) = match progress.lag {
        Some(lag) if lag > 0 => (
            format!("nothing has been read since {since_when} UTC, although {lag} records wait in {what}"),
            "see whether 'scan.rate-limit' or a split that is too far ahead holds the source back, and what `--log debug` says",
        ),
        _ => (
            format!("nothing has come from {what} since {since_when} UTC"),
            "see that its producers are at work: `coulee tail STREAM --follow` shows what comes; 'scan.startup.mode' says \
             where a new job begins",
        ),
    };
    Some(Finding::new(FindingCode::NoData, Some(source), message, advice))
}

/// No record could become a row.
pub(super) fn rejected(progress: &Progress) -> Option<Finding> {
    if progress.rejected_rows == 0 || progress.rejected_rows < progress.rows_read {
        return None;
    }
    let of = |operator: &&Operator| operator.figures.rejected_rows() > 0;
    let all = progress.rejected_rows + progress.rows_read;
    let reason = progress.last_reject.as_deref().unwrap_or("unknown");
    let message = format!("{} of {all} records were rejected; the last one: {reason}", progress.rejected_rows);
    let advice = match &progress.rejected_to {
        Some(kept) => format!(
            "make the table's columns and 'format' fit the records; they are kept, each with its reason, in {kept}"
        ),
        None => "make the table's columns and 'format' fit the records".to_owned(),
    };
    Some(Finding::new(FindingCode::Rejected, progress.operators.iter().find(of), message, advice))
}

/// The first operator that takes rows and lets none through, and has no window that could explain it.
pub(super) fn filtered(progress: &Progress) -> Option<Finding> {
    let swallows = |operator: &&Operator| {
        let figures = &operator.figures;
        // Who has state may give on later what came.
        let keeps = figures.state_bytes() > 0 || figures.next_result().is_some();
        operator.kind == OperatorKind::Operator && figures.rows_in() > 0 && figures.rows_out() == 0 && !keeps
    };
    let operator = progress.operators.iter().find(swallows)?;
    if operator.figures.late_rows() + operator.figures.timeless_rows() >= operator.figures.rows_in() {
        // Told as such.
        return None;
    }
    let message = format!(
        "{} ({}) took in {} rows and gave none on",
        named(operator),
        operator.description,
        operator.figures.rows_in()
    );
    let advice = "check the conditions of WHERE and HAVING against the records: `coulee tail STREAM` shows them";
    Some(Finding::new(FindingCode::Filtered, Some(operator), message, advice))
}

/// The operator that the most upstream blocked one waits for.
pub(super) fn backpressure(progress: &Progress) -> Option<Finding> {
    let is_blocked = |operator: &Operator| operator.rates.blocked >= HIGH;
    let first = progress.operators.iter().position(is_blocked)?;
    let mut slow = first;
    // Downstream, as long as the next one waits itself. Edges lead to higher places: it ends.
    while let Some(next) = busiest_after(progress, slow) {
        slow = next;
        if !is_blocked(&progress.operators[slow]) {
            break;
        }
    }
    if slow == first {
        return None;
    }
    let (waiting, operator) = (&progress.operators[first], &progress.operators[slow]);
    let message = format!(
        "{} (busy {:.0} % of the time) is too slow for what comes: {} waits for it {:.0} % of the time",
        named(operator),
        operator.rates.busy * 100.0,
        named(waiting),
        waiting.rates.blocked * 100.0
    );
    let advice = match operator.kind {
        OperatorKind::Sink | OperatorKind::SideSink => {
            "see what it writes to (its disk, its store, its network), or raise 'sink.parallelism' on its table"
        }
        OperatorKind::Source | OperatorKind::Operator => {
            "give the job more subtasks: `coulee job stop JOB` and `coulee job start JOB --parallelism N`"
        }
    };
    Some(Finding::new(FindingCode::Backpressure, Some(operator), message, advice))
}

/// Of those that an operator's rows go to, the one that works or waits most.
fn busiest_after(progress: &Progress, of: usize) -> Option<usize> {
    let after = progress.operators.iter().enumerate().skip(of + 1);
    let after = after.filter(|(_, operator)| operator.inputs.contains(&(of as u32)));
    let load = |operator: &Operator| operator.rates.busy + operator.rates.blocked;
    after.max_by(|(_, a), (_, b)| load(a).total_cmp(&load(b))).map(|(at, _)| at)
}

/// No checkpoint completes, or the next one is still to come: sinks deliver with checkpoints.
pub(super) fn checkpoint(progress: &Progress, now: Timestamp) -> Option<Finding> {
    let last = progress.checkpoint_at.max(progress.started_at)?;
    let (age, interval) = (since(last, now), progress.checkpoint_interval);
    if age >= QUIET.max(interval.saturating_mul(CHECKPOINTS_MISSED)) {
        let message = format!(
            "no checkpoint has completed since {last} UTC ({}), although one is due every {}: sinks deliver with checkpoints",
            span(age),
            span(interval)
        );
        let advice = "a barrier waits behind rows that an operator is slow to take, or the disk does not answer: see the \
                      operators' figures, and `--log debug` for each checkpoint";
        return Some(Finding::new(FindingCode::CheckpointStuck, None, message, advice));
    }
    let sink = sinks(progress).find(|sink| sink.holding_since.is_some_and(|at| at >= last))?;
    if interval < QUIET {
        return None;
    }
    let held = sink.figures.rows_in().saturating_sub(sink.figures.delivered_rows());
    let message =
        format!("{} holds {held} rows until the next checkpoint; one is taken every {}", named(sink), span(interval));
    let advice = "wait for it, or SET a shorter 'execution.checkpointing.interval'";
    Some(Finding::new(FindingCode::CheckpointDue, Some(sink), message, advice))
}

/// Sinks that commit on snapshots wait for one.
pub(super) fn snapshot(progress: &Progress) -> Option<Finding> {
    let failure = progress.snapshot_failure.as_ref()?;
    let message = format!("the last snapshot was not taken: {failure}");
    let advice = "it is tried again by itself; sinks with 'sink.commit-on' = 'snapshot' deliver only once it succeeds";
    Some(Finding::new(FindingCode::SnapshotFailed, None, message, advice))
}

/// A sink that keeps rows beyond a checkpoint fills its files first.
pub(super) fn buffering(progress: &Progress) -> Vec<Finding> {
    let Some(checkpoint_at) = progress.checkpoint_at else { return Vec::new() };
    let triggered = checkpoint_at.0.saturating_sub(progress.checkpoint_took.as_millis() as i64);
    let buffers = |sink: &&Operator| {
        sink.holding_since.is_some_and(|at| at.0.saturating_add(DELIVERY_GRACE.as_millis() as i64) <= triggered)
    };
    let tell = |sink: &Operator| {
        let held = sink.figures.rows_in().saturating_sub(sink.figures.delivered_rows());
        if sink.commits_on_snapshot {
            let last = progress.snapshot.as_ref().map_or("none was taken since the start".to_owned(), |snapshot| {
                format!("the last one was complete at {} UTC", snapshot.at)
            });
            let message = format!("{} holds {held} rows until a snapshot has them; {last}", named(sink));
            let advice = "wait for it, SET a shorter 'execution.snapshot.interval', or let the sink commit on checkpoints \
                          ('sink.commit-on' = 'checkpoint')";
            return Finding::new(FindingCode::SnapshotDue, Some(sink), message, advice);
        }
        let message = format!(
            "{} ({}) collects: it holds {held} rows in files that are not full yet",
            named(sink),
            sink.description
        );
        let advice = "they become visible at the latest after 'sink.rolling-policy.rollover-interval' (5 min unless set): \
                      make it shorter, or 'sink.rolling-policy.file-size' smaller";
        Finding::new(FindingCode::SinkBuffers, Some(sink), message, advice)
    };
    sinks(progress).filter(buffers).map(tell).collect()
}
