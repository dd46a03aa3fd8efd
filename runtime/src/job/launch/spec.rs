//! What a job is launched with, and how it ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coulee_checkpoint::JobStore;
use coulee_model::{CheckpointId, Clock, JobName};
use serde::{Deserialize, Serialize};

use super::snapshots::Snapshots;
use crate::Error;
use crate::graph::Graph;

/// What to run.
#[derive(Debug, Clone)]
pub struct JobSpec {
    /// The job's name.
    pub name: JobName,
    /// See [`SinkContext::incarnation`](crate::connector::SinkContext::incarnation).
    pub incarnation: String,
    /// The graph.
    pub graph: Graph,
    /// How to run it.
    pub settings: JobSettings,
}

/// How to run a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSettings {
    /// How often a checkpoint is taken.
    pub checkpoint_interval: Duration,
    /// What the state of all operators together may take in memory, in bytes, before it is served from the disk.
    pub memory_budget_bytes: u64,
    /// The most rows of a batch between two operators, 1 or more. Absent: sources read 8,192 at a time, and what operators emit stays whole.
    pub batch_rows: Option<usize>,
    /// Whether stored state of operators that the job no longer has is dropped; otherwise it is an error.
    pub allow_non_restored_state: bool,
}

impl Default for JobSettings {
    fn default() -> Self {
        JobSettings {
            checkpoint_interval: Duration::from_secs(1),
            memory_budget_bytes: 256 << 20,
            batch_rows: None,
            allow_non_restored_state: false,
        }
    }
}

/// What a job is given to run on.
#[derive(Debug, Clone)]
pub struct Environment {
    /// The job's state; it resumes from its last checkpoint.
    pub store: Arc<JobStore>,
    /// A folder for the spools of its sinks.
    pub spool: PathBuf,
    /// A folder for the links of snapshots, on the file system of the state and the spool.
    pub scratch: PathBuf,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Snapshots, when they are wanted.
    pub snapshots: Option<Snapshots>,
}

/// How a job ended.
#[derive(Debug, Clone)]
pub enum JobOutcome {
    /// All input was processed and delivered.
    Finished,
    /// Stopped on request; it resumes from this checkpoint.
    Stopped(CheckpointId),
    /// Torn down on request, without a last checkpoint; it resumes from the one before.
    Cancelled,
    /// Failed; it resumes from its last checkpoint.
    Failed(Arc<Error>),
}
