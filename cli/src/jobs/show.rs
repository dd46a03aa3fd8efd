//! `coulee job show`: a job's facts, figures and operators, and why it shows no output when it shows none.

use std::time::Duration;

use coulee_server::{Finding, JobReport, JobState, Operator, OperatorKind, Progress, Rates as OperatorRates, Split};
use tokio::time::Instant;

use crate::figures::{bytes, count, counted, short, span, time};
use crate::live::{self, Rates};
use crate::rows::text_table;
use crate::{states, summary};

/// The whole text. `subtasks`: also the figures of each subtask and split.
pub fn text(job: &JobReport, subtasks: bool) -> String {
    let mut parts = vec![facts(job)];
    if let Some(progress) = &job.progress {
        let rate = Rates::default().update(&job.name, progress, Instant::now());
        parts.push(figures(job, progress, rate));
    }
    if !job.findings.is_empty() {
        parts.push(explanation(&job.findings));
    }
    if let Some(progress) = &job.progress {
        parts.push(vec![operators(progress).trim_end().to_owned()]);
        if subtasks {
            parts.push(vec![self::subtasks(progress).trim_end().to_owned()]);
        }
        let declared = declared(progress);
        if !declared.is_empty() {
            parts.push(vec![declared.trim_end().to_owned()]);
        }
        let splits = splits(progress);
        if subtasks && !splits.is_empty() {
            parts.push(vec![splits.trim_end().to_owned()]);
        }
    }
    parts.extend(Some(states::text(&job.states)).filter(|lines| !lines.is_empty()));
    parts.push(vec![job.script.trim().to_owned()]);
    let parts: Vec<String> = parts.iter().map(|lines| lines.join("\n")).collect();
    format!("{}\n", parts.join("\n\n"))
}

fn facts(job: &JobReport) -> Vec<String> {
    let mut text = vec![
        format!("name         {}", job.name),
        format!("state        {}", job.state.word()),
        format!("from         {}, statement {}", job.origin, job.statement + 1),
        format!("created      {} UTC", time(job.created_at)),
        format!("starts       {}{}", job.attempts, restarts(job)),
        format!("parallelism  {}", job.parallelism),
        format!("incarnation  {}", job.incarnation),
    ];
    for sink in &job.sinks {
        let place = if sink.path.is_empty() { &sink.table } else { &sink.path };
        text.push(format!("writes       {} ({} {place})", sink.table, sink.connector));
    }
    match (&job.state, &job.retry) {
        (JobState::Failed { cause }, _) => text.push(format!("cause        {cause}")),
        (_, Some(retry)) => text.push(format!("cause        {} (starts again at {} UTC)", retry.cause, time(retry.at))),
        _ => {}
    }
    text.extend(job.notes.iter().map(|note| format!("note         {note}")));
    text
}

fn restarts(job: &JobReport) -> String {
    match &job.last_failure {
        None => String::new(),
        Some(failure) => {
            let restarts = counted(job.restarts.into(), "restart");
            format!(", of which {restarts} after a failure; the last at {} UTC: {}", time(failure.at), failure.cause)
        }
    }
}

fn figures(job: &JobReport, progress: &Progress, rate: f64) -> Vec<String> {
    let mut text = vec![
        format!("read         {} ({}/s)", counted(progress.rows_read, "row"), short(rate)),
        format!("lag          {}", progress.lag.map_or("unknown".to_owned(), |lag| counted(lag, "record"))),
        format!("watermark    {}", progress.watermark.map_or("none yet".to_owned(), time)),
        format!("state        {}", state(progress)),
        format!("checkpoint   {}", checkpoint(progress)),
    ];
    text.extend(snapshot(progress).map(|line| format!("snapshot     {line}")));
    let hanging = if job.state == JobState::Running { live::hanging(progress) } else { Vec::new() };
    text.extend(hanging.into_iter().map(|what| format!("waits for    {what}")));
    let delivered_at = progress.delivered_at.map(|at| format!("; the last at {} UTC", time(at))).unwrap_or_default();
    text.push(format!("delivered    {}{delivered_at}", live::delivered(progress)));
    let running = if job.state == JobState::Running { "running for " } else { "ran for     " };
    text.push(format!("{running} {}", span(progress.elapsed)));
    text.extend(summary::asides(progress).into_iter().map(|aside| format!("aside        {aside}")));
    text
}

fn state(progress: &Progress) -> String {
    let budget = match progress.memory_budget_bytes {
        0 => String::new(),
        budget => format!(" of {}", bytes(budget)),
    };
    format!("{}{budget} in memory, {} on disk", bytes(progress.state_bytes), bytes(progress.stored_bytes))
}

fn checkpoint(progress: &Progress) -> String {
    let mut text = live::checkpoint(progress);
    if progress.checkpoint_at.is_some() && progress.checkpoints > 0 {
        text.push_str(&format!(
            "; alignment {}, write {}, {}; {} since the start, one every {}",
            span(progress.checkpoint_alignment),
            span(progress.checkpoint_write),
            bytes(progress.checkpoint_bytes),
            count(progress.checkpoints),
            span(progress.checkpoint_interval)
        ));
    }
    text
}

fn snapshot(progress: &Progress) -> Option<String> {
    if let Some(failure) = &progress.snapshot_failure {
        return Some(format!("the last one failed: {failure}"));
    }
    let snapshot = progress.snapshot.as_ref()?;
    Some(format!(
        "{} at {} UTC (took {}), {}, of which {} uploaded",
        snapshot.checkpoint,
        time(snapshot.at),
        span(snapshot.took),
        bytes(snapshot.bytes),
        bytes(snapshot.uploaded_bytes)
    ))
}

/// Why there is no output, in lines.
pub fn explanation(findings: &[Finding]) -> Vec<String> {
    let mut lines = vec!["WHY IS THERE NO OUTPUT?".to_owned()];
    for finding in findings {
        lines.push(format!("  * {}", finding.message));
        lines.push(format!("    -> {}", finding.advice));
    }
    lines
}

/// The table of operators.
pub fn operators(progress: &Progress) -> String {
    let names = [
        "OPERATOR",
        "SUBTASKS",
        "ROWS IN",
        "ROWS OUT",
        "ROWS/S",
        "BYTES/S",
        "BUSY",
        "IDLE",
        "BLOCKED",
        "WATERMARK",
        "LAG",
        "STATE",
        "WHAT",
    ];
    let right = [false, true, true, true, true, true, true, true, true, true, true, true, false];
    let row = |operator: &Operator| {
        let (figures, rates) = (&operator.figures, &operator.rates);
        let [rows, size] = pace(operator);
        vec![
            operator.uid.clone(),
            operator.parallelism.to_string(),
            count(figures.rows_in()),
            count(figures.rows_out()),
            short(rows),
            bytes(size as u64),
            percent(rates.busy),
            percent(idle(rates)),
            percent(rates.blocked),
            figures.watermark().map_or("-".to_owned(), time),
            figures.lag().map_or("-".to_owned(), count),
            bytes(figures.state_bytes()),
            operator.description.clone(),
        ]
    };
    text_table(&names, &right, &progress.operators.iter().map(row).collect::<Vec<_>>())
}

/// What a job that has ended did, operator by operator: its rows, and where its time went.
pub fn analysis(job: &JobReport) -> String {
    let Some(progress) = &job.progress else { return String::new() };
    let names = ["OPERATOR", "SUBTASKS", "ROWS IN", "ROWS OUT", "BUSY", "BLOCKED", "LATE", "REJECTED"];
    let right = [false, true, true, true, true, true, true, true];
    let row = |operator: &Operator| {
        let figures = &operator.figures;
        vec![
            operator.uid.clone(),
            operator.parallelism.to_string(),
            count(figures.rows_in()),
            count(figures.rows_out()),
            // What a source does, its readers do.
            if operator.kind == OperatorKind::Source { "-".to_owned() } else { span(figures.busy()) },
            span(figures.blocked()),
            count(figures.late_rows()),
            count(figures.rejected_rows()),
        ]
    };
    let operators: Vec<Vec<String>> = progress.operators.iter().map(row).collect();
    let ran = format!("read {} in {}", counted(progress.rows_read, "row"), span(progress.elapsed));
    format!("Run\n{}{ran}\n", text_table(&names, &right, &operators))
}

/// Rows and bytes per second, at the end of an operator that tells most: what a source gives, what others take.
fn pace(operator: &Operator) -> [f64; 2] {
    match operator.kind {
        OperatorKind::Source => [operator.rates.rows_out, operator.rates.bytes_out],
        OperatorKind::Operator | OperatorKind::Sink | OperatorKind::SideSink => {
            [operator.rates.rows_in, operator.rates.bytes_in]
        }
    }
}

fn idle(rates: &OperatorRates) -> f64 {
    (1.0 - rates.busy - rates.blocked).max(0.0)
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn subtasks(progress: &Progress) -> String {
    let names = ["SUBTASK", "ROWS IN", "ROWS OUT", "BUSY", "BLOCKED", "ALIGNMENT", "WATERMARK", "LAG", "STATE"];
    let right = [false, true, true, true, true, true, true, true, true];
    let mut rows = Vec::new();
    for operator in &progress.operators {
        for (index, subtask) in operator.subtasks.iter().enumerate() {
            let figures = &subtask.figures;
            rows.push(vec![
                format!("{}/{index}", operator.uid),
                count(figures.rows_in()),
                count(figures.rows_out()),
                span(figures.busy()),
                span(figures.blocked()),
                span(figures.alignment()),
                figures.watermark().map_or("-".to_owned(), time),
                figures.lag().map_or("-".to_owned(), count),
                bytes(figures.state_bytes()),
            ]);
        }
    }
    text_table(&names, &right, &rows)
}

/// The table of what operators count beside what all do; empty without any.
fn declared(progress: &Progress) -> String {
    let mut rows = Vec::new();
    for operator in &progress.operators {
        for (name, value) in operator.figures.declared() {
            rows.push(vec![operator.uid.clone(), name.to_owned(), measured(name, value)]);
        }
    }
    match rows.is_empty() {
        true => String::new(),
        false => text_table(&["OPERATOR", "METRIC", "VALUE"], &[false, false, true], &rows),
    }
}

/// A value in the unit that its metric's name ends in.
fn measured(name: &str, value: i64) -> String {
    let amount = value.max(0) as u64;
    match name.rsplit('_').next() {
        Some("bytes") => bytes(amount),
        Some("us") => span(Duration::from_micros(amount)),
        Some("ms") => span(Duration::from_millis(amount)),
        _ => count(amount),
    }
}

/// The table of splits; empty without any.
fn splits(progress: &Progress) -> String {
    let mut rows = Vec::new();
    for operator in &progress.operators {
        for split in operator.subtasks.iter().flat_map(|subtask| &subtask.splits) {
            rows.push(vec![
                operator.uid.clone(),
                split.id.clone(),
                split.watermark.map_or("-".to_owned(), time),
                split.quiet_since.map_or("-".to_owned(), time),
                split_state(split).to_owned(),
            ]);
        }
    }
    match rows.is_empty() {
        true => String::new(),
        false => {
            let names = ["SOURCE", "SPLIT", "WATERMARK", "UNCHANGED SINCE", "IS"];
            text_table(&names, &[false, false, true, true, false], &rows)
        }
    }
}

fn split_state(split: &Split) -> &'static str {
    match split {
        Split { is_ended: true, .. } => "ended",
        Split { is_idle: true, .. } => "idle",
        Split { is_paused: true, .. } => "paused: too far ahead",
        _ => "read",
    }
}

#[cfg(test)]
mod tests {
    use coulee_model::Timestamp;
    use coulee_server::{Failure, Figures, FindingCode, Subtask};

    use super::*;
    use crate::live::tests::job;

    fn progress() -> Progress {
        let values = [("rows_in", 1_200), ("watermark_ms", 0), ("lag", 7), ("open_files", 3), ("cache_bytes", 2_048)];
        let figures: Figures = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let split = Split { id: "shard-00003".into(), is_idle: true, ..Split::default() };
        Progress {
            operators: vec![Operator {
                uid: "readings".into(),
                parallelism: 1,
                kind: OperatorKind::Source,
                subtasks: vec![Subtask { figures: figures.clone(), splits: vec![split], ..Subtask::default() }],
                figures,
                rates: OperatorRates { rows_out: 500.0, busy: 0.25, blocked: 0.5, ..OperatorRates::default() },
                ..Operator::default()
            }],
            ..Progress::default()
        }
    }

    #[test]
    fn operators_have_rates_shares_and_event_time() {
        let table = operators(&progress());
        let line = table.lines().nth(1).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let expected = "readings 1 1,200 0 500 0 B 25 % 25 % 50 % 1970-01-01 00:00:00 7 0 B";
        assert_eq!(words.join(" "), expected);
    }

    #[test]
    fn what_an_operator_counts_of_its_own_is_shown_in_its_unit() {
        let table = declared(&progress());
        let lines: Vec<String> =
            table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines, ["OPERATOR METRIC VALUE", "readings cache_bytes 2.00 KiB", "readings open_files 3"]);
        assert!(declared(&Progress::default()).is_empty());
    }

    #[test]
    fn silence_is_explained_and_failures_are_told() {
        let mut job = job(progress());
        assert!(!text(&job, false).contains("WHY IS THERE NO OUTPUT?"));
        job.findings = vec![Finding {
            code: FindingCode::NoData,
            operator: None,
            message: "nothing has come".into(),
            advice: "send something".into(),
        }];
        (job.attempts, job.restarts) = (3, 2);
        job.last_failure = Some(Failure { at: Timestamp(0), cause: "the disk is full".into() });
        let shown = text(&job, false);
        assert!(shown.contains("WHY IS THERE NO OUTPUT?\n  * nothing has come\n    -> send something\n"), "{shown}");
        let starts = "starts       3, of which 2 restarts after a failure; the last at 1970-01-01 00:00:00 UTC: the disk is full";
        assert!(shown.contains(starts), "{shown}");
        assert!(!shown.contains("shard-00003"));
        assert!(text(&job, true).lines().any(|line| line.contains("shard-00003") && line.ends_with("idle")));
    }

    #[test]
    fn what_hangs_is_told_while_it_does() {
        let mut progress = progress();
        progress.at = Some(Timestamp(20_000));
        progress.snapshot_since = Some(Timestamp(19_000));
        assert!(!text(&job(progress.clone()), false).contains("waits for"), "a second is nothing to speak of");
        progress.snapshot_since = Some(Timestamp(8_000));
        progress.snapshot_failure = Some("it did not answer".into());
        progress.operators[0].figures = [("delivering_ms".to_owned(), 7_000)].into_iter().collect();
        let shown = text(&job(progress), false);
        assert!(shown.contains("snapshot     the last one failed: it did not answer\n"), "{shown}");
        assert!(shown.contains("waits for    snapshot under way for 12.0 s\n"), "{shown}");
        assert!(shown.contains("waits for    readings delivering for 7.0 s\n"), "{shown}");
    }
}
