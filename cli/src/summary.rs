//! What is said of a job that has ended.

use coulee_server::{JobReport, JobState, OperatorKind, Progress, Rejection, Stage};

use crate::figures::{bytes, count, counted, short, span};

/// The summary of a job, in lines; without the cause of its failure, which the command's error tells.
pub fn summary(job: &JobReport) -> Vec<String> {
    let Some(progress) = &job.progress else { return vec![format!("job '{}' {}", job.name, ending(&job.state))] };
    let mut lines = vec![format!("job '{}' {} {}", job.name, ending(&job.state), timing(progress))];
    lines.push(format!("  read     {}", counted(progress.rows_read, "row")));
    let mut written = format!("  written  {}", counted(progress.rows_written, "row"));
    if progress.objects > 0 {
        written.push_str(&format!(" in {} ({})", counted(progress.objects, "object"), bytes(progress.object_bytes)));
    }
    lines.push(written);
    lines.extend(asides(progress).into_iter().map(|aside| format!("  {aside}")));
    lines
}

/// The summary of a job after which nobody else tells why it failed.
pub fn with_cause(job: &JobReport) -> Vec<String> {
    let mut lines = summary(job);
    if let JobState::Failed { cause } = &job.state {
        lines.push(format!("  cause    {cause}"));
    }
    lines
}

/// Whether records of the job that went aside are kept in streams.
pub fn keeps_rows(job: &JobReport) -> bool {
    job.progress.as_ref().is_some_and(|progress| {
        (progress.rejected_rows > 0 && progress.rejected_to.is_some())
            || (progress.late_rows + progress.timeless_rows > 0 && progress.late_to.is_some())
    })
}

/// One line of a job that had finished before.
pub fn already_finished(job: &JobReport) -> String {
    let facts = job.progress.as_ref().map(|progress| {
        format!(" ({} read, {} written)", counted(progress.rows_read, "row"), counted(progress.rows_written, "row"))
    });
    format!("job '{}' has already finished{}; use --fresh to start over", job.name, facts.unwrap_or_default())
}

fn ending(state: &JobState) -> &'static str {
    match state {
        JobState::Created => "has not started",
        JobState::Running => "is running",
        JobState::Finished => "finished",
        JobState::Stopped => "stopped",
        JobState::Cancelled => "was cancelled",
        JobState::Failed { .. } => "failed",
    }
}

fn timing(progress: &Progress) -> String {
    let read = progress.rows_read.saturating_sub(progress.rows_restored) as f64;
    let seconds = progress.elapsed.as_secs_f64();
    let rate = if seconds > 0.0 { read / seconds } else { 0.0 };
    format!("after {} ({} rows/s)", span(progress.elapsed), short(rate))
}

/// Rows that did not go the usual way: each is accounted for.
pub fn asides(progress: &Progress) -> Vec<String> {
    let verb = |n: u64| if n == 1 { "was" } else { "were" };
    let kept = |to: &Option<String>| to.as_ref().map_or("not kept".to_owned(), |to| format!("kept: {to}"));
    let mut lines = Vec::new();
    let late = progress.late_rows;
    if late > 0 {
        lines.push(format!("{} {} late ({})", counted(late, "row"), verb(late), kept(&progress.late_to)));
    }
    let timeless = progress.timeless_rows;
    if timeless > 0 {
        lines.push(format!("{} had no event time ({})", counted(timeless, "row"), kept(&progress.late_to)));
    }
    lines.extend(progress.rejections.iter().map(rejection));
    let told: u64 = progress.rejections.iter().map(|rejection| rejection.rows).sum();
    let rejected = progress.rejected_rows.saturating_sub(told);
    if rejected > 0 {
        let reason = progress.last_reject.as_deref().unwrap_or("unknown");
        lines.push(format!(
            "{} record{} {} rejected (the last: {reason}; {})",
            count(rejected),
            if rejected == 1 { "" } else { "s" },
            verb(rejected),
            kept(&progress.rejected_to)
        ));
    }
    lines
}

/// What a table's records or rows were rejected for at one stage, in a line.
fn rejection(found: &Rejection) -> String {
    let kept = found.kept.as_ref().map_or("not kept".to_owned(), |to| format!("kept: {to}"));
    let verb = if found.rows == 1 { "was" } else { "were" };
    let what = match found.stage {
        Stage::Decode => format!("{} of '{}' {verb} rejected", counted(found.rows, "record"), found.table),
        Stage::Expression => format!("{} of '{}' failed in an expression", counted(found.rows, "row"), found.table),
        Stage::Delivery => format!("{} could not be delivered to '{}'", counted(found.rows, "row"), found.table),
    };
    format!("{what} (the last: {}; {kept})", found.last_reason)
}

/// Why a job that finished did not do its work: every record of a table was rejected, or a result could not be delivered to
/// a table that asks for all of them. `None` when it did.
pub fn shortfall(job: &JobReport) -> Option<String> {
    let progress = job.progress.as_ref().filter(|progress| progress.bounded && job.state == JobState::Finished)?;
    let at = |stage: Stage| progress.rejections.iter().filter(move |found| found.stage == stage);
    if let Some(found) = at(Stage::Delivery).find(|found| found.kept.is_some()) {
        return Some(format!("job '{}' finished, but {}", job.name, rejection(found)));
    }
    let is_source = |operator: &&coulee_server::Operator| operator.kind == OperatorKind::Source;
    let sources = progress.operators.iter().filter(is_source).map(|source| &source.figures);
    let (mut read, mut unread) = (0, false);
    for source in sources {
        read += source.rows_in() + source.rejected_rows();
        unread |= source.rows_in() == 0 && source.rejected_rows() > 0;
    }
    let nothing_left = progress.rows_written == 0 && read > 0 && progress.rejected_rows >= read;
    let last = progress.rejections.last().filter(|_| nothing_left || unread)?;
    Some(format!("job '{}' finished, but every record was rejected: {}", job.name, rejection(last)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_row_that_went_aside_is_accounted_for() {
        let progress = Progress {
            late_rows: 3,
            timeless_rows: 521,
            rejected_rows: 1,
            last_reject: Some("line 7: not JSON".into()),
            rejected_to: Some("stream 'flights-rejected'".into()),
            ..Progress::default()
        };
        assert_eq!(
            asides(&progress),
            [
                "3 rows were late (not kept)",
                "521 rows had no event time (not kept)",
                "1 record was rejected (the last: line 7: not JSON; kept: stream 'flights-rejected')",
            ]
        );
        assert!(asides(&Progress::default()).is_empty());
    }

    fn rejections(stage: Stage, rows: u64) -> Vec<Rejection> {
        let kept = Some("stream 't_dead_letter'".into());
        vec![Rejection { table: "t".into(), stage, rows, last_reason: "a / d: division by zero".into(), kept }]
    }

    #[test]
    fn each_stage_has_its_words() {
        let line = |stage, rows| {
            let rejections = rejections(stage, rows);
            asides(&Progress { rejected_rows: rows, rejections, ..Progress::default() }).join("|")
        };
        let tail = "(the last: a / d: division by zero; kept: stream 't_dead_letter')";
        assert_eq!(line(Stage::Decode, 1), format!("1 record of 't' was rejected {tail}"));
        assert_eq!(line(Stage::Expression, 2), format!("2 rows of 't' failed in an expression {tail}"));
        assert_eq!(line(Stage::Delivery, 1), format!("1 row could not be delivered to 't' {tail}"));
    }

    /// A finished job that read and rejected so many rows.
    fn finished(stage: Stage, read: u64, rejected: u64, written: u64) -> JobReport {
        let decoded = if stage == Stage::Decode { read - rejected } else { read };
        let figures = [("rows_in", decoded), ("rejected_rows", read - decoded)];
        let figures = figures.map(|(name, value)| (name.to_owned(), value as i64)).into_iter().collect();
        let source = coulee_server::Operator { kind: OperatorKind::Source, figures, ..Default::default() };
        let progress = Progress {
            bounded: true,
            rows_read: decoded,
            rows_written: written,
            rejected_rows: rejected,
            rejections: rejections(stage, rejected),
            operators: vec![source],
            ..Progress::default()
        };
        JobReport {
            state: JobState::Finished,
            progress: Some(progress),
            ..crate::live::tests::job(Progress::default())
        }
    }

    #[test]
    fn a_job_that_rejected_everything_or_lost_a_result_falls_short() {
        assert_eq!(shortfall(&finished(Stage::Decode, 5, 2, 3)), None);
        assert_eq!(shortfall(&finished(Stage::Expression, 5, 2, 3)), None);
        assert_eq!(shortfall(&finished(Stage::Expression, 5, 2, 0)), None);
        for all in [finished(Stage::Decode, 5, 5, 0), finished(Stage::Expression, 5, 5, 0)] {
            assert!(shortfall(&all).is_some_and(|text| text.contains("every record was rejected")));
        }
        let lost = shortfall(&finished(Stage::Delivery, 5, 1, 4));
        assert!(lost.is_some_and(|text| text.contains("1 row could not be delivered to 't'")));
    }

    #[test]
    fn the_rate_is_of_this_start_only() {
        let progress =
            Progress { rows_read: 3_000, rows_restored: 1_000, elapsed: Duration::from_secs(2), ..Progress::default() };
        assert_eq!(timing(&progress), "after 2.0 s (1.00 K rows/s)");
    }
}
