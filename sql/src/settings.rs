//! What `SET` sets: Flink's keys where Flink has them, and their meaning for a job.

use std::collections::BTreeMap;
use std::time::Duration;

use coulee_runtime::options::{OptionKind, OptionSpec, Options};

use crate::error::{Fault, Result};

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
        "How often a job's state, positions and deliveries become durable together.",
    ),
    OptionSpec::new(
        "execution.runtime-mode",
        OptionKind::Choice(&["streaming"]),
        Some("streaming"),
        "Flink's key; Coulee always streams, and a bounded input ends.",
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
}

impl Settings {
    /// Sets a key.
    ///
    /// # Errors
    /// For an unknown key (with the nearest known one) and for a value that is not of the key's form.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), coulee_runtime::Error> {
        if key == "parallelism.default" && value.trim() == "0" {
            let message = "SET: option 'parallelism.default' is '0', expected a whole number of 1 or more";
            return Err(coulee_runtime::Error::invalid(message));
        }
        let mut values = self.values.clone();
        values.insert(key.to_owned(), value.to_owned());
        Options::new("SET", SETTINGS.iter().copied(), &values)?;
        self.values = values;
        Ok(())
    }

    /// Forgets a key, or all of them.
    pub(crate) fn reset(&mut self, key: Option<&str>) -> Result<()> {
        let Some(key) = key else {
            self.values.clear();
            return Ok(());
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

    /// What was set, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    fn options(&self) -> Result<Options> {
        Options::new("SET", SETTINGS.iter().copied(), &self.values).map_err(Fault::from)
    }

    /// The settings of a job that is planned now.
    pub(crate) fn job(&self, parallelism: u32) -> Result<JobSettings> {
        let options = self.options()?;
        let given = options.count("parallelism.default").and_then(|count| u32::try_from(count).ok());
        Ok(JobSettings {
            parallelism: given.unwrap_or(parallelism).max(1),
            checkpoint_interval: options.span("execution.checkpointing.interval").unwrap_or(Duration::from_secs(1)),
            wait: options.switch("table.dml-sync"),
        })
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    pub(crate) fn idle_timeout(&self) -> Option<Duration> {
        self.get("table.exec.source.idle-timeout").and_then(coulee_runtime::options::parse_span)
    }
}

/// What a job takes from the session's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSettings {
    /// Subtasks per operator, unless a table says otherwise. 1 or more.
    pub parallelism: u32,
    /// The time between two checkpoints.
    pub checkpoint_interval: Duration,
    /// Whether the statement waits for the job's end.
    pub wait: bool,
}
