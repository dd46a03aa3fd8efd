//! What `SET` sets: Flink's keys where Flink has them, and their meaning for a job.

mod foreign;
mod job;

use std::collections::BTreeMap;
use std::time::Duration;

use coulee_runtime::options::{OptionKind, OptionSpec, Options, parse_span};

use crate::error::{Fault, Result};
use crate::zone::Zone;
use foreign::Answer;
pub use job::{JobOptions, RestartStrategy, SnapshotSettings};

/// The shortest time between two checkpoints: each is a synced write and a barrier through the whole job.
const CHECKPOINT_INTERVAL_MIN: Duration = Duration::from_millis(10);
/// The shortest time between two snapshots.
const SNAPSHOT_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// The least that state may take in memory, in bytes.
const MEMORY_BYTES_MIN: u64 = 1 << 20;

/// Every key that `SET` takes.
pub const SETTINGS: &[OptionSpec] = &[
    OptionSpec::new(
        "pipeline.name",
        OptionKind::Text,
        None,
        "The name of the next job: what its state is filed under. Absent: the script's name.",
    ),
    OptionSpec::new(
        "parallelism.default",
        OptionKind::Count,
        None,
        "How many subtasks an operator has. Absent: as the engine is set up.",
    ),
    OptionSpec::new(
        "execution.checkpointing.interval",
        OptionKind::Span,
        Some("1 s"),
        "How often a job's state, positions and deliveries become durable together; 10 ms or more.",
    ),
    OptionSpec::new(
        "execution.checkpointing.dir",
        OptionKind::Text,
        None,
        "A URL ('s3://bucket/...') or a folder that copies of the job's state go to (snapshots), below the job's name. Absent: the state is on this disk only.",
    ),
    OptionSpec::new(
        "execution.snapshot.interval",
        OptionKind::Span,
        Some("30 s"),
        "How often a snapshot is taken; 1 s or more.",
    ),
    OptionSpec::new(
        "execution.checkpointing.num-retained",
        OptionKind::Count,
        Some("3"),
        "How many snapshots are kept; savepoints are not counted.",
    ),
    OptionSpec::new(
        "execution.checkpointing.savepoint-dir",
        OptionKind::Text,
        None,
        "A URL or a folder that savepoints go to. Absent: with the snapshots.",
    ),
    OptionSpec::new(
        "execution.state-recovery.path",
        OptionKind::Text,
        None,
        "The snapshot or savepoint that a job begins with which has no state yet: a name, or a URL as `coulee savepoint list` shows it.",
    ),
    OptionSpec::new(
        "execution.state-recovery.ignore-unclaimed-state",
        OptionKind::Switch,
        Some("false"),
        "Whether stored state of operators that the job no longer has is dropped; otherwise the job is refused.",
    ),
    OptionSpec::new(
        "restart-strategy.type",
        OptionKind::Choice(&["none", "fixed-delay", "exponential-delay"]),
        None,
        "What follows a failure that may pass by itself. Absent: as the engine is set up. A new checkpoint begins the count of attempts anew.",
    ),
    OptionSpec::new(
        "restart-strategy.fixed-delay.attempts",
        OptionKind::Count,
        Some("1"),
        "How many times the job is started again.",
    ),
    OptionSpec::new(
        "restart-strategy.fixed-delay.delay",
        OptionKind::Span,
        Some("1 s"),
        "The pause before each such start.",
    ),
    OptionSpec::new(
        "restart-strategy.exponential-delay.initial-backoff",
        OptionKind::Span,
        Some("1 s"),
        "The pause before the first such start.",
    ),
    OptionSpec::new(
        "restart-strategy.exponential-delay.max-backoff",
        OptionKind::Span,
        Some("1 min"),
        "The longest pause.",
    ),
    OptionSpec::new(
        "restart-strategy.exponential-delay.backoff-multiplier",
        OptionKind::Number,
        Some("1.5"),
        "What each pause is multiplied by to give the next; 1 or more.",
    ),
    OptionSpec::new(
        "restart-strategy.exponential-delay.jitter-factor",
        OptionKind::Share,
        Some("0.1"),
        "How much of each pause is added or taken away by chance, 0 to 1, so that jobs that failed together do not start together.",
    ),
    OptionSpec::new(
        "restart-strategy.exponential-delay.attempts-before-reset-backoff",
        OptionKind::Count,
        None,
        "How many times the job is started again. Absent: without end.",
    ),
    OptionSpec::new(
        "taskmanager.memory.managed.size",
        OptionKind::Bytes,
        Some("256 mb"),
        "What the state of the job may take in memory; beyond it, it is served from the disk.",
    ),
    OptionSpec::new(
        "table.exec.mini-batch.size",
        OptionKind::Count,
        None,
        "The most rows that a source reads or an operator passes on at a time; 1 or more. Absent: 8192 for a source, all for an operator. It changes no result.",
    ),
    OptionSpec::new(
        "execution.runtime-mode",
        OptionKind::Choice(&["streaming", "batch", "automatic"]),
        Some("automatic"),
        "What an INSERT gives whose inputs all end and whose result changes on the way: 'streaming' every change, 'batch' the rows that are left in the end, 'automatic' the latter where the table takes no changes. A SELECT over inputs that end shows the rows that are left.",
    ),
    OptionSpec::new(
        "table.local-time-zone",
        OptionKind::Text,
        Some("UTC"),
        "The time zone in which a TIMESTAMP_LTZ is read and written as local time: a name such as 'Europe/Berlin', or an offset such as 'GMT+08:00'.",
    ),
    OptionSpec::new(
        "table.dml-sync",
        OptionKind::Switch,
        Some("false"),
        "Whether an INSERT waits until its job has finished before the next statement runs.",
    ),
    OptionSpec::new(
        "table.exec.source.idle-timeout",
        OptionKind::Span,
        None,
        "For tables that do not say 'scan.watermark.idle-timeout': how long a split may bring nothing before it stops holding back the watermark.",
    ),
    OptionSpec::new(
        "table.exec.state.ttl",
        OptionKind::Span,
        Some("0 ms"),
        "After how long without a change a row of a join or a key of a GROUP BY without a window is forgotten; 0 is never. Results are then those of what is remembered. Windows free their state themselves.",
    ),
    OptionSpec::new(
        "late-rows.stream",
        OptionKind::Text,
        None,
        "The built-in stream that rows go to which come after their window was emitted. Absent: they are counted and dropped.",
    ),
];

/// The settings of a session, checked one by one as they are set.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    values: BTreeMap<String, String>,
    /// What was set and has no effect.
    idle: BTreeMap<String, String>,
}

impl Settings {
    /// Sets a key. Answers why it has no effect, where it has none.
    ///
    /// # Errors
    /// For an unknown key (with the nearest known one), a key that is refused (why), and a value that is not of the key's form.
    pub fn set(&mut self, key: &str, value: &str) -> Result<Option<&'static str>, coulee_runtime::Error> {
        let key = match foreign::answer(key, value) {
            Some(Answer::NoEffect(why)) if !self.acts(key, value) => {
                self.values.remove(key);
                self.idle.insert(key.to_owned(), value.to_owned());
                return Ok(Some(why));
            }
            Some(Answer::Refused(why)) if !self.acts(key, value) => {
                return Err(coulee_runtime::Error::invalid(format!("SET: '{key}' cannot be '{value}': {why}")));
            }
            Some(Answer::Alias(own)) => own,
            _ => key,
        };
        let mut values = self.values.clone();
        values.insert(key.to_owned(), value.to_owned());
        let options = Options::new("SET", SETTINGS.iter().copied(), &values)?;
        check(key, value, &options)?;
        self.values = values;
        self.idle.remove(key);
        Ok(None)
    }

    /// Whether a key is one of Coulee's own, and takes the value.
    fn acts(&self, key: &str, value: &str) -> bool {
        let values = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        Options::new("SET", SETTINGS.iter().copied(), &values).is_ok()
    }

    /// Forgets a key, or all of them.
    pub(crate) fn reset(&mut self, key: Option<&str>) -> Result<()> {
        let Some(key) = key else {
            self.values.clear();
            self.idle.clear();
            return Ok(());
        };
        if self.idle.remove(key).is_some() {
            return Ok(());
        }
        let key = match foreign::answer(key, "") {
            Some(Answer::Alias(own)) => own,
            Some(_) if !SETTINGS.iter().any(|spec| spec.key == key) => return Ok(()),
            _ => key,
        };
        // Setting and forgetting tells an unknown key from one that is not set.
        let probe = BTreeMap::from([(key.to_owned(), String::new())]);
        match Options::new("RESET", SETTINGS.iter().copied(), &probe) {
            Err(error) if !SETTINGS.iter().any(|spec| spec.key == key) => Err(error.into()),
            _ => {
                self.values.remove(key);
                Ok(())
            }
        }
    }

    /// What was set, by key; what has no effect comes last.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().chain(&self.idle).map(|(key, value)| (key.as_str(), value.as_str()))
    }

    fn options(&self) -> Result<Options> {
        Options::new("SET", SETTINGS.iter().copied(), &self.values).map_err(Fault::from)
    }

    /// The settings of a job that is planned now.
    pub(crate) fn job(&self, parallelism: u32) -> Result<JobOptions> {
        Ok(JobOptions::new(&self.options()?, parallelism))
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// The zone of the session, if it is not UTC.
    pub(crate) fn zone(&self) -> Option<Zone> {
        self.get("table.local-time-zone").and_then(|zone| Zone::parse(zone).ok().flatten())
    }

    pub(crate) fn idle_timeout(&self) -> Option<Duration> {
        self.get("table.exec.source.idle-timeout").and_then(parse_span)
    }

    /// After how many milliseconds without a change state is forgotten that nothing else frees; `None` is never.
    pub(crate) fn state_ttl_millis(&self) -> Option<i64> {
        let ttl = self.get("table.exec.state.ttl").and_then(parse_span)?;
        i64::try_from(ttl.as_millis()).ok().filter(|millis| *millis > 0)
    }

    /// Whether an `INSERT` whose inputs all end gives only the rows that are left then, rather than every change; `takes_changes`: whether its table takes
    /// changes.
    pub(crate) fn gives_final_rows(&self, takes_changes: bool) -> bool {
        match self.get("execution.runtime-mode").map(str::to_lowercase).as_deref() {
            Some("batch") => true,
            Some("streaming") => false,
            _ => !takes_changes,
        }
    }
}

/// What the form of a value does not say.
fn check(key: &str, value: &str, options: &Options) -> Result<(), coulee_runtime::Error> {
    let wrong = |expected: &str| {
        Err(coulee_runtime::Error::invalid(format!("SET: option '{key}' is '{value}', expected {expected}")))
    };
    let shorter = |least: Duration| options.span(key).is_some_and(|span| span < least);
    let is_zero = options.count(key) == Some(0);
    match key {
        "parallelism.default" if is_zero => wrong("a whole number of 1 or more"),
        "execution.checkpointing.num-retained" if is_zero => wrong("a whole number of 1 or more"),
        "table.exec.mini-batch.size" if is_zero => wrong("a whole number of 1 or more"),
        "execution.checkpointing.interval" if shorter(CHECKPOINT_INTERVAL_MIN) => wrong(
            "10 ms or more: every checkpoint is a synced write to the disk and a barrier through the whole job; 100 ms is a good choice for low latency",
        ),
        "execution.snapshot.interval" if shorter(SNAPSHOT_INTERVAL_MIN) => wrong(
            "1 s or more: every snapshot uploads files to the object store; checkpoints are what makes deliveries frequent ('execution.checkpointing.interval')",
        ),
        "restart-strategy.exponential-delay.backoff-multiplier" if options.number(key).is_some_and(|by| by < 1.0) => {
            wrong("1 or more: pauses do not shrink")
        }
        "table.local-time-zone" if Zone::parse(value).is_err() => {
            wrong("a time zone such as 'UTC', 'Europe/Berlin' or 'GMT+08:00'")
        }
        "taskmanager.memory.managed.size" if options.bytes(key).is_some_and(|size| size < MEMORY_BYTES_MIN) => {
            wrong("1 mb or more")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(settings: &[(&str, &str)]) -> Result<JobOptions, String> {
        let mut all = Settings::default();
        for (key, value) in settings {
            all.set(key, value).map_err(|error| error.to_string())?;
        }
        all.job(2).map_err(|fault| fault.message)
    }

    #[test]
    fn nothing_set_means_the_documented_defaults() {
        let expected = JobOptions {
            parallelism: 2,
            checkpoint_interval: Duration::from_secs(1),
            wait: false,
            snapshots: None,
            savepoint_dir: None,
            recovery: None,
            ignore_unclaimed_state: false,
            restart: None,
            memory_budget_bytes: 256 << 20,
            batch_rows: None,
        };
        assert_eq!(job(&[]), Ok(expected));
    }

    #[test]
    fn a_folder_switches_snapshots_on() {
        let dir = ("execution.checkpointing.dir", "s3://b/state");
        let by_default =
            SnapshotSettings { dir: "s3://b/state".into(), interval: Duration::from_secs(30), retained: 3 };
        assert_eq!(job(&[dir]).unwrap().snapshots, Some(by_default.clone()));
        let set = [dir, ("execution.snapshot.interval", "5 s"), ("execution.checkpointing.num-retained", "7")];
        let expected = SnapshotSettings { interval: Duration::from_secs(5), retained: 7, ..by_default };
        assert_eq!(job(&set).unwrap().snapshots, Some(expected));
    }

    #[test]
    fn restart_strategies_are_flinks() {
        let strategy = |settings: &[(&str, &str)]| job(settings).unwrap().restart;
        assert_eq!(strategy(&[("restart-strategy.type", "none")]), Some(RestartStrategy::None));
        let fixed = [("restart-strategy.type", "fixed-delay"), ("restart-strategy.fixed-delay.attempts", "5")];
        let second = Duration::from_secs(1);
        assert_eq!(strategy(&fixed), Some(RestartStrategy::FixedDelay { attempts: 5, delay: second }));
        let growing = [
            ("restart-strategy.type", "exponential-delay"),
            ("restart-strategy.exponential-delay.backoff-multiplier", "2"),
        ];
        let max = Duration::from_secs(60);
        let expected = |jitter| RestartStrategy::ExponentialDelay {
            initial: second,
            max,
            multiplier: 2.0,
            jitter,
            attempts: None,
        };
        assert_eq!(strategy(&growing), Some(expected(0.1)));
        let steady = [growing[0], growing[1], ("restart-strategy.exponential-delay.jitter-factor", "0")];
        assert_eq!(strategy(&steady), Some(expected(0.0)));
    }

    /// Flink's default of -1 says that there is no such size.
    #[test]
    fn the_size_of_batches_is_taken_and_its_absence_too() {
        let rows = |size| job(&[("table.exec.mini-batch.size", size)]).unwrap().batch_rows;
        assert_eq!((rows("1"), rows("5000"), rows("-1")), (Some(1), Some(5000), None));
    }

    #[test]
    fn values_that_cannot_work_are_refused_with_advice() {
        for (key, value, part) in [
            ("execution.checkpointing.interval", "5 ms", "10 ms or more: every checkpoint is a synced write"),
            ("execution.snapshot.interval", "100 ms", "1 s or more"),
            ("execution.checkpointing.num-retained", "0", "1 or more"),
            ("parallelism.default", "0", "1 or more"),
            ("table.exec.mini-batch.size", "0", "1 or more"),
            ("restart-strategy.exponential-delay.backoff-multiplier", "0.5", "pauses do not shrink"),
            ("restart-strategy.exponential-delay.jitter-factor", "1.5", "a number from 0 to 1"),
            ("restart-strategy.type", "failure-rate", "one of 'none', 'fixed-delay', 'exponential-delay'"),
            ("taskmanager.memory.managed.size", "1 kb", "1 mb or more"),
            ("execution.checkpointing.dirr", "x", "did you mean 'execution.checkpointing.dir'?"),
        ] {
            let error = job(&[(key, value)]).unwrap_err();
            assert!(error.contains(part) && error.contains(key), "{error}");
        }
    }
}
