//! What event time has to do with it: splits that hold it back, windows that wait for it, rows that have none or come too late.

use std::time::Duration;

use coulee_model::Timestamp;

use super::{Finding, FindingCode, named, since, sources};
use crate::job::figures::Split;
use crate::job::progress::{Operator, Progress};
use crate::span::span;

/// How far a split may be behind the furthest before it is worth a word, where no window is known to wait for it.
const BEHIND: Duration = Duration::from_secs(10);
/// How many quiet splits are named.
const NAMED_MAX: usize = 3;
/// Rows of which this share has no event time (nine of ten) are said to have none.
const NEARLY_ALL: (u64, u64) = (9, 10);

/// Rows without event time cannot enter a window.
pub(super) fn timeless(progress: &Progress) -> Option<Finding> {
    let is_most = |part: u64, whole: u64| part > 0 && part * NEARLY_ALL.1 >= whole * NEARLY_ALL.0;
    let of = |operator: &&Operator| is_most(operator.figures.timeless_rows(), operator.figures.rows_in());
    let operator = progress.operators.iter().find(of)?;
    let (timeless, taken) =
        (operator.figures.timeless_rows(), operator.figures.rows_in().max(operator.figures.timeless_rows()));
    let message = format!(
        "{timeless} of the {taken} rows that {} took in have no event time: they enter no window",
        named(operator)
    );
    let advice = "check the expression of the column in WATERMARK FOR: its field's name and format must be those of the \
                  records; SET 'late-rows.stream' = '…' keeps such rows";
    Some(Finding::new(FindingCode::NoEventTime, Some(operator), message, advice))
}

/// The split by which event time goes, where it is far behind the others.
pub(super) fn held_back(progress: &Progress) -> Vec<Finding> {
    sources(progress)
        .filter(|source| source.has_event_time)
        .filter_map(|source| held_back_in(progress, source))
        .collect()
}

fn held_back_in(progress: &Progress, source: &Operator) -> Option<Finding> {
    let splits: Vec<&Split> = splits(source).filter(|split| !split.is_ended).collect();
    let slowest = splits.iter().filter(|split| !split.is_idle).min_by_key(|split| split.watermark)?;
    let furthest = splits.iter().filter_map(|split| split.watermark).filter(|at| *at < Timestamp::MAX).max()?;
    let (gap, place) = match slowest.watermark {
        Some(at) => {
            let gap = since(at, furthest);
            (gap, format!("is at {at} UTC, {} behind the furthest ({furthest} UTC)", span(gap)))
        }
        None => (Duration::MAX, format!("has brought no row with an event time{}", quiet(slowest))),
    };
    // It alone keeps a window open that the others are done with; without knowing a window, a large gap is told.
    let waits = |at: Timestamp| slowest.watermark.is_none_or(|slowest| at > slowest) && at <= furthest;
    let is_waited_for = progress.operators.iter().filter_map(|operator| operator.figures.next_result()).any(waits);
    if !is_waited_for && gap < BEHIND {
        return None;
    }
    let message = format!("{} of {} holds back event time for all: it {place}", slowest.id, named(source));
    let advice = "see that it gets records, or let event time go on without it: 'scan.watermark.idle-timeout' on its \
                  table, after which a split that has been read to its end counts no more";
    Some(Finding::new(FindingCode::WatermarkHeld, Some(source), message, advice))
}

/// Splits that event time goes on without, or all of them.
pub(super) fn idle_splits(progress: &Progress) -> Vec<Finding> {
    sources(progress).filter_map(idle_in).collect()
}

fn idle_in(source: &Operator) -> Option<Finding> {
    let open: Vec<&Split> = splits(source).filter(|split| !split.is_ended).collect();
    let idle: Vec<&&Split> = open.iter().filter(|split| split.is_idle).collect();
    let first = idle.first()?;
    let mut names: Vec<String> = idle.iter().take(NAMED_MAX).map(|split| split.id.clone()).collect();
    if idle.len() > NAMED_MAX {
        names.push(format!("{} more", idle.len() - NAMED_MAX));
    }
    let names = names.join(", ");
    let has = if idle.len() == 1 { "has" } else { "have" };
    let (message, advice) = if idle.len() == open.len() && source.has_event_time {
        let at = source.figures.watermark().map_or("before its first row".to_owned(), |at| format!("at {at} UTC"));
        let message = format!(
            "every split of {} is idle, so event time stands still {at}: {names} {has} brought nothing{}",
            named(source),
            quiet(first)
        );
        (message, "results of open windows come with the next records: event time does not run by itself")
    } else {
        let goes_on = if source.has_event_time { "; event time goes on without" } else { "" };
        let message = format!("{names} of {} {has} brought nothing{}{goes_on}", named(source), quiet(first));
        (message, "if it should bring records, check its producer and how the records' keys are spread over the shards")
    };
    Some(Finding::new(FindingCode::IdleSplit, Some(source), message, advice))
}

/// The first window to give a result, per operator that has one open.
pub(super) fn open_windows(progress: &Progress) -> Vec<Finding> {
    let open = |operator: &Operator| {
        let until = operator.figures.next_result()?;
        let reached = operator.figures.watermark();
        let place = match reached {
            // It is about to be emitted.
            Some(at) if at >= until => return None,
            Some(at) => format!("it is at {at} UTC, {} before", span(since(at, until))),
            None => "it has not begun".to_owned(),
        };
        let message = format!(
            "the first open window of {} gives its result when event time has passed {until} UTC; {place}",
            named(operator)
        );
        let advice =
            "wait for records of later times, make the windows smaller, or let WATERMARK FOR allow less disorder";
        Some(Finding::new(FindingCode::WindowOpen, Some(operator), message, advice))
    };
    progress.operators.iter().filter_map(open).collect()
}

/// All rows late, and none waiting in a window.
pub(super) fn late(progress: &Progress) -> Option<Finding> {
    // A row that an operator takes in may stand for several of its input's: then more rows are late than came.
    let is_all = |operator: &&Operator| {
        let figures = &operator.figures;
        figures.late_rows() > 0
            && figures.late_rows() * NEARLY_ALL.1 >= figures.rows_in() * NEARLY_ALL.0
            && figures.next_result().is_none()
    };
    let operator = progress.operators.iter().find(is_all)?;
    let reached = operator.figures.watermark().map_or(String::new(), |at| format!(" (event time is at {at} UTC)"));
    let message = format!(
        "{} rows came to {} after their windows had left{reached}, and no window is open",
        operator.figures.late_rows(),
        named(operator)
    );
    let advice = "one record from the future moves event time for all: see 'scan.watermark.max-future-skew'; allow more \
                  disorder in WATERMARK FOR; SET 'late-rows.stream' = '…' keeps late rows";
    Some(Finding::new(FindingCode::LateRows, Some(operator), message, advice))
}

fn splits(source: &Operator) -> impl Iterator<Item = &Split> {
    source.subtasks.iter().flat_map(|subtask| &subtask.splits)
}

fn quiet(split: &Split) -> String {
    split.quiet_since.map_or(String::new(), |at| format!(" since {at} UTC"))
}
