//! What people see of running jobs: a block on a terminal, a line elsewhere. Text is made here, drawn in `screen`.

use std::collections::BTreeMap;
use std::time::Duration;

use coulee_model::{Clock, JobName, SystemClock, Timestamp};
use coulee_server::{JobReport, Progress};
use tokio::time::Instant;

use crate::figures::{bar, bytes, count, counted, short, span, time};

/// How strongly a new rate replaces the one shown: figures that jump cannot be read.
const SMOOTHING: f64 = 0.2;
const BAR_CHARS: usize = 24;
/// Snapshots and deliveries that take less are not told while they are under way.
const WORTH_A_WORD: Duration = Duration::from_secs(2);
/// Lines are kept to a narrow terminal: a line that wraps would spoil the redrawing.
const LINE_CHARS_MAX: usize = 79;

/// Rows per second of each job, smoothed.
#[derive(Debug, Default)]
pub struct Rates(BTreeMap<JobName, Rate>);

#[derive(Debug)]
struct Rate {
    rows: u64,
    at: Instant,
    per_second: f64,
}

impl Rates {
    /// Takes a new count of rows; returns the rate.
    pub fn update(&mut self, name: &JobName, progress: &Progress, now: Instant) -> f64 {
        let rows = progress.rows_read;
        let Some(rate) = self.0.get_mut(name) else {
            let elapsed = progress.elapsed.as_secs_f64();
            let read = rows.saturating_sub(progress.rows_restored) as f64;
            let per_second = if elapsed > 0.0 { read / elapsed } else { 0.0 };
            self.0.insert(name.clone(), Rate { rows, at: now, per_second });
            return per_second;
        };
        let elapsed = now.duration_since(rate.at).as_secs_f64();
        // Counters move once per batch: too short a while says nothing.
        if elapsed >= 0.05 {
            let fresh = rows.saturating_sub(rate.rows) as f64 / elapsed;
            rate.per_second += (fresh - rate.per_second) * (SMOOTHING * elapsed * 10.0).min(1.0);
            (rate.rows, rate.at) = (rows, now);
        }
        rate.per_second
    }
}

/// The block of a job on a terminal.
pub fn block(job: &JobReport, rate: f64) -> Vec<String> {
    let Some(progress) = &job.progress else { return vec![format!("{}  {}", job.name, job.state.word())] };
    let mut lines = vec![head(job, progress, rate)];
    let mut facts = Vec::new();
    if let Some(watermark) = progress.watermark {
        facts.push(format!("watermark {}", time(watermark)));
    }
    facts.push(format!("state {}", bytes(progress.state_bytes.max(progress.stored_bytes))));
    facts.push(format!("checkpoint {}", checkpoint(progress)));
    lines.push(format!("  {}", facts.join(" · ")));
    lines.push(format!("  delivered {}", delivered(progress)));
    lines.extend(hanging(progress).into_iter().map(|what| format!("  {what}")));
    if let Some(aside) = aside(progress) {
        lines.push(format!("  {aside}"));
    }
    if let Some(retry) = &job.retry {
        lines.push(format!("  failed, starts again at {}: {}", time(retry.at), retry.cause));
    }
    lines.into_iter().map(shortened).collect()
}

fn head(job: &JobReport, progress: &Progress, rate: f64) -> String {
    let rows = format!("{} rows  {}/s", count(progress.rows_read), short(rate));
    let elapsed = span(progress.elapsed);
    match (progress.share_done(), progress.lag) {
        (Some(share), _) => {
            format!("{} ▕{}▏ {:3.0} %  {rows}  {elapsed}", job.name, bar(share, BAR_CHARS), (share * 100.0).floor())
        }
        (None, Some(lag)) => format!("{}  {rows}  lag {}  {elapsed}", job.name, count(lag)),
        (None, None) => format!("{}  {rows}  {elapsed}", job.name),
    }
}

/// The last checkpoint: its number, age and duration.
pub fn checkpoint(progress: &Progress) -> String {
    match progress.checkpoint_at {
        None => "none yet".to_owned(),
        Some(at) => {
            let age = (SystemClock.now().millis() - at.millis()).max(0) / 1_000;
            format!("{} ({age} s ago, took {})", progress.checkpoint, span(progress.checkpoint_took))
        }
    }
}

/// What sinks made visible.
pub fn delivered(progress: &Progress) -> String {
    match progress.objects {
        0 => counted(progress.rows_written, "row"),
        objects => format!(
            "{}, {} ({})",
            counted(progress.rows_written, "row"),
            counted(objects, "object"),
            bytes(progress.object_bytes)
        ),
    }
}

/// What did not go the usual way, if anything did.
fn aside(progress: &Progress) -> Option<String> {
    let parts =
        [("late", progress.late_rows), ("without time", progress.timeless_rows), ("rejected", progress.rejected_rows)];
    let told: Vec<String> =
        parts.iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{} {what}", count(*n))).collect();
    (!told.is_empty()).then(|| told.join(" · "))
}

/// Snapshots and deliveries that have been under way for long enough to be worth a word, each with its time.
pub fn hanging(progress: &Progress) -> Vec<String> {
    let worth_a_word = |took: &Duration| *took >= WORTH_A_WORD;
    let now = progress.at.map_or(0, Timestamp::millis);
    let since = |at: Timestamp| Duration::from_millis(now.saturating_sub(at.millis()).max(0) as u64);
    let snapshot = progress.snapshot_since.map(since).filter(worth_a_word);
    let mut told: Vec<String> =
        snapshot.map(|took| format!("snapshot under way for {}", span(took))).into_iter().collect();
    told.extend(progress.operators.iter().filter_map(|operator| {
        let took = operator.figures.delivering().filter(worth_a_word)?;
        Some(format!("{} delivering for {}", operator.uid, span(took)))
    }));
    told
}

/// A line that does not wrap.
pub fn shortened(line: String) -> String {
    if line.chars().count() <= LINE_CHARS_MAX {
        return line;
    }
    let mut text: String = line.chars().take(LINE_CHARS_MAX - 1).collect();
    text.push('…');
    text
}

/// The line of a job where there is no terminal.
pub fn line(job: &JobReport, rate: f64) -> String {
    let Some(progress) = &job.progress else { return format!("{}: {}", job.name, job.state.word()) };
    let mut facts = vec![format!("{} rows ({}/s)", count(progress.rows_read), short(rate))];
    if let Some(lag) = progress.lag {
        facts.push(format!("lag {}", count(lag)));
    }
    if let Some(watermark) = progress.watermark {
        facts.push(format!("watermark {}", time(watermark)));
    }
    facts.push(format!("state {}", bytes(progress.state_bytes.max(progress.stored_bytes))));
    facts.push(format!("checkpoint {}", checkpoint(progress)));
    facts.push(format!("delivered {}", delivered(progress)));
    facts.extend(hanging(progress));
    facts.extend(aside(progress));
    if let Some(retry) = &job.retry {
        facts.push(format!("failed, starts again at {}: {}", time(retry.at), retry.cause));
    }
    format!("{}: {}, {}", job.name, facts.join(", "), span(progress.elapsed))
}

#[cfg(test)]
pub mod tests {
    use coulee_server::JobState;

    use super::*;

    pub fn job(progress: Progress) -> JobReport {
        JobReport {
            name: JobName::new("delays").unwrap(),
            incarnation: String::new(),
            state: JobState::Running,
            retry: None,
            origin: String::new(),
            script: String::new(),
            statement: 0,
            created_at: Timestamp(0),
            attempts: 1,
            restarts: 0,
            last_failure: None,
            parallelism: 1,
            sinks: Vec::new(),
            progress: Some(progress),
            findings: Vec::new(),
            states: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn progress() -> Progress {
        Progress {
            bounded: true,
            elapsed: Duration::from_millis(2_500),
            rows_read: 13_502,
            lag: Some(13_502),
            watermark: Some(Timestamp(1_357_035_420_000)),
            rows_written: 300,
            objects: 4,
            object_bytes: 2_048,
            timeless_rows: 521,
            ..Progress::default()
        }
    }

    #[test]
    fn a_block_has_a_bar_where_the_end_is_known() {
        let lines = block(&job(progress()), 5_400.0);
        assert_eq!(lines[0], "delays ▕████████████            ▏  50 %  13,502 rows  5.40 K/s  2.5 s");
        assert_eq!(lines[1], "  watermark 2013-01-01 10:17:00 · state 0 B · checkpoint none yet");
        assert_eq!(lines[2], "  delivered 300 rows, 4 objects (2.00 KiB)");
        assert_eq!(lines[3], "  521 without time");
        let unbounded = Progress { bounded: false, ..progress() };
        assert_eq!(block(&job(unbounded), 5_400.0)[0], "delays  13,502 rows  5.40 K/s  lag 13,502  2.5 s");
    }

    #[test]
    fn what_hangs_is_in_the_block_and_in_the_line() {
        let at = |millis| Some(Timestamp(millis));
        let hangs = Progress { at: at(20_000), snapshot_since: at(15_000), ..progress() };
        assert_eq!(block(&job(hangs.clone()), 0.0)[3], "  snapshot under way for 5.0 s");
        assert!(line(&job(hangs), 0.0).contains(", snapshot under way for 5.0 s, "));
    }

    #[test]
    fn a_rate_starts_with_what_was_read_since_the_start() {
        let mut rates = Rates::default();
        let name = JobName::new("delays").unwrap();
        let restored = Progress { rows_restored: 12_502, ..progress() };
        let now = Instant::now();
        assert_eq!(rates.update(&name, &restored, now), 400.0);
        let later = rates.update(&name, &Progress { rows_read: 23_502, ..restored }, now + Duration::from_secs(1));
        assert_eq!(later, 10_000.0);
    }
}
