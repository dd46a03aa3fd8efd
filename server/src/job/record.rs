//! What is kept of a job on disk: `job.json`, replaced atomically whenever the job's life takes a turn.

use std::path::Path;

use coulee_model::{JobName, Timestamp};
use coulee_runtime::state::StateDescriptor;
use coulee_sql::Definitions;
use serde::{Deserialize, Serialize};

use super::Progress;
use crate::folder::write_json;
use crate::{Error, Result};

/// The version of the file that is written.
const VERSION: u32 = 1;

pub(crate) const RECORD_FILE: &str = "job.json";

/// What the user wants of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desired {
    /// It shall run, also after a restart of the server.
    Running,
    /// It shall rest at its last checkpoint.
    Stopped,
    /// It was ended at once.
    Cancelled,
}

/// Where a job is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum JobState {
    /// Known, not started yet.
    Created,
    /// Running, or waiting to be started again after a failure.
    Running,
    /// All input was processed and delivered.
    Finished,
    /// Stopped at a checkpoint; it can be started again.
    Stopped,
    /// Ended at once; it can be started again from its last checkpoint.
    Cancelled,
    /// Failed; it can be started again from its last checkpoint, once the cause is gone.
    Failed {
        /// What went wrong.
        cause: String,
    },
}

impl JobState {
    /// One word for it.
    pub fn word(&self) -> &'static str {
        match self {
            JobState::Created => "created",
            JobState::Running => "running",
            JobState::Finished => "finished",
            JobState::Stopped => "stopped",
            JobState::Cancelled => "cancelled",
            JobState::Failed { .. } => "failed",
        }
    }
}

/// The script that a job is planned from, each time it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredScript {
    /// All of the text.
    pub(crate) text: String,
    /// Where it was from.
    pub(crate) origin: String,
    /// The name that the script's jobs are called by, unless the script says otherwise.
    pub(crate) name: JobName,
    /// Subtasks per operator, unless the script says otherwise.
    pub(crate) parallelism: u32,
    /// The snapshot that jobs of the script begin with which are new: a name or a URL.
    #[serde(default)]
    pub(crate) from: Option<String>,
    /// The kept tables and views that it goes by: of a script that is still run, all that there were when it began; of a job, those that it needs.
    #[serde(default)]
    pub(crate) catalog: Definitions,
}

/// A table that a job writes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkTarget {
    /// The table.
    pub table: String,
    /// Its connector.
    pub connector: String,
    /// Its path, or the name of its stream where that is not the table's.
    pub path: String,
    /// Its format, where it has one.
    pub format: String,
}

/// A failure that was followed by another start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// When.
    pub at: Timestamp,
    /// What went wrong.
    pub cause: String,
}

/// A job as `job.json` has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct JobRecord {
    version: u32,
    pub(crate) name: JobName,
    /// 12 random hexadecimal digits, made with the job: tells its objects from those of a namesake.
    pub(crate) incarnation: String,
    pub(crate) script: StoredScript,
    /// Which statement of the script it is, from 0.
    pub(crate) statement: usize,
    pub(crate) sinks: Vec<SinkTarget>,
    pub(crate) created_at: Timestamp,
    pub(crate) desired: Desired,
    pub(crate) state: JobState,
    /// How many times it was started.
    pub(crate) attempts: u32,
    /// How many of those starts followed a failure by themselves.
    #[serde(default)]
    pub(crate) restarts: u32,
    /// The last failure that was followed by another start.
    #[serde(default)]
    pub(crate) last_failure: Option<Failure>,
    /// Where its savepoints are: URLs or folders; the first is where new ones go. Empty: in the data folder.
    #[serde(default)]
    pub(crate) places: Vec<String>,
    /// What its operators keep, as of its last start.
    #[serde(default)]
    pub(crate) states: Vec<StateDescriptor>,
    /// The figures when it last ended.
    pub(crate) progress: Option<Progress>,
}

impl JobRecord {
    /// A job that has not run.
    pub(crate) fn new(name: JobName, script: StoredScript, statement: usize, now: Timestamp) -> Self {
        JobRecord {
            version: VERSION,
            name,
            // The upper 48 bits.
            incarnation: format!("{:012x}", coulee_model::unique_u64() >> 16),
            script,
            statement,
            sinks: Vec::new(),
            created_at: now,
            desired: Desired::Running,
            state: JobState::Created,
            attempts: 0,
            restarts: 0,
            last_failure: None,
            places: Vec::new(),
            states: Vec::new(),
            progress: None,
        }
    }

    /// Makes it one that has done nothing yet, of the same script.
    pub(crate) fn begin_anew(&mut self) {
        let anew = JobRecord::new(self.name.clone(), self.script.clone(), self.statement, self.created_at);
        let former = std::mem::replace(self, anew);
        (self.sinks, self.places) = (former.sinks, former.places);
    }

    /// Reads the record in a job's folder.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::NewerFormat`], [`Error::Io`].
    pub(crate) fn load(folder: &Path) -> Result<Self> {
        let path = folder.join(RECORD_FILE);
        let text = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
        let damaged = |e: serde_json::Error| Error::Damaged { path: path.clone(), reason: e.to_string() };
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(damaged)?;
        // The version first: the rest of a newer record may not decode.
        let version = value.get("version").and_then(serde_json::Value::as_u64).unwrap_or(0) as u32;
        if version > VERSION {
            return Err(Error::NewerFormat { folder: folder.to_owned(), found: version, known: VERSION });
        }
        serde_json::from_value(value).map_err(damaged)
    }

    /// Writes it, durably.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn save(&self, folder: &Path) -> Result<()> {
        write_json(&folder.join(RECORD_FILE), self)
    }

    /// Whether a server that starts has to start it: it was meant to run, and neither finished nor failed for good.
    pub(crate) fn is_to_resume(&self) -> bool {
        self.desired == Desired::Running
            && matches!(self.state, JobState::Created | JobState::Running | JobState::Stopped)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn record() -> JobRecord {
        let script = StoredScript {
            text: "INSERT INTO b SELECT * FROM a".into(),
            origin: "x.sql".into(),
            name: JobName::new("x").unwrap(),
            parallelism: 2,
            from: None,
            catalog: Definitions::new(),
        };
        JobRecord::new(JobName::new("x").unwrap(), script, 3, Timestamp(1_700_000_000_000))
    }

    #[test]
    fn a_record_survives_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = record();
        record.state = JobState::Failed { cause: "the disk is full".into() };
        record.progress = Some(Progress { rows_read: 7, ..Progress::default() });
        record.save(dir.path()).unwrap();
        assert_eq!(JobRecord::load(dir.path()).unwrap(), record);
        assert_eq!(record.incarnation.len(), 12);
        assert!(!dir.path().join("job.json.tmp").exists());
    }

    #[test]
    fn a_newer_or_damaged_record_says_so() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(RECORD_FILE), r#"{"version": 9, "other": 1}"#).unwrap();
        assert!(matches!(JobRecord::load(dir.path()), Err(Error::NewerFormat { found: 9, .. })));
        std::fs::write(dir.path().join(RECORD_FILE), r#"{"version": 1"#).unwrap();
        let error = JobRecord::load(dir.path()).unwrap_err();
        assert!(error.to_string().contains("job.json is damaged"), "{error}");
    }

    #[test]
    fn a_server_resumes_what_was_meant_to_run() {
        let mut record = record();
        assert!(record.is_to_resume());
        record.state = JobState::Failed { cause: String::new() };
        assert!(!record.is_to_resume());
        (record.state, record.desired) = (JobState::Stopped, Desired::Stopped);
        assert!(!record.is_to_resume());
    }
}
