//! What is said of a job that has ended.

use coulee_server::{JobReport, JobState, Progress};

use crate::figures::{bytes, count, counted, short, span};

/// The summary of a job, in lines.
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
    let rejected = progress.rejected_rows;
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

    #[test]
    fn the_rate_is_of_this_start_only() {
        let progress =
            Progress { rows_read: 3_000, rows_restored: 1_000, elapsed: Duration::from_secs(2), ..Progress::default() };
        assert_eq!(timing(&progress), "after 2.0 s (1.00 K rows/s)");
    }
}
