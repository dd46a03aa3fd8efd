//! What the driver stores with a checkpoint.

use coulee_checkpoint::CheckpointRecord;
use serde::{Deserialize, Serialize};

use crate::metrics::{Figures, RowErrorFigures};
use crate::state::StateDescriptor;
use crate::{Error, Result};

/// What the coordinator stores with a checkpoint.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct StoredJob {
    /// The version of `states`; see [`fit`](super::fit).
    #[serde(default)]
    pub(super) format: u32,
    /// What every operator with state keeps.
    #[serde(default)]
    pub(super) states: Vec<StateDescriptor>,
    /// Counters as of the checkpoint: uid, subtask, values by name.
    pub(super) totals: Vec<(String, u32, Figures)>,
    /// Rows that failed on their way, as of the checkpoint: uid, subtask, by table and stage.
    #[serde(default)]
    pub(super) row_errors: Vec<(String, u32, Vec<RowErrorFigures>)>,
}

impl StoredJob {
    pub(super) fn parse(record: &CheckpointRecord) -> Result<Self> {
        serde_json::from_str(&record.job)
            .map_err(|e| Error::corrupt(format!("the record of checkpoint {} is damaged: {e}", record.id)))
    }
}

/// What the operators of a checkpoint keep, as its record says; nothing for one of a version that did not record it.
///
/// # Errors
/// `Corrupt` when the record is damaged.
pub fn stored_states(record: &CheckpointRecord) -> Result<Vec<StateDescriptor>> {
    Ok(StoredJob::parse(record)?.states)
}
