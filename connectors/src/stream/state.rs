//! What a writer leaves in a checkpoint: which files are staged, and how its records are numbered.
//!
//! JSON: `{"version":1,"producer":812,"numbering":{"0":{"producer":812,"next":500}},"staged":[{"subtask":0,"number":7,
//! "bytes":2048,"records":{"0":20}}]}`. `numbering` says what the log has got of the files that are not listed any more.

use std::collections::BTreeMap;

use bytes::Bytes;
use coulee_log::ProducerId;
use coulee_runtime::{Error, Result};
use serde::{Deserialize, Serialize};

use super::staged::Staged;

const VERSION: u32 = 1;

/// How a writer numbers its records in one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Numbering {
    /// Under which identity.
    pub(super) producer: ProducerId,
    /// The number of the next record, from 0 to 2³¹ − 1 and then from 0 again.
    pub(super) next: u32,
}

/// Numberings by shard; a shard that is not there begins at 0.
pub(super) type Numberings = BTreeMap<u32, Numbering>;

/// The state of one writer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WriterState {
    version: u32,
    /// The writer's identity in the log.
    pub(super) producer: ProducerId,
    /// After everything that was delivered before the first of `staged`.
    pub(super) numbering: Numberings,
    /// Staged and, as far as this state knows, not delivered; oldest first.
    pub(super) staged: Vec<Staged>,
}

impl WriterState {
    pub(super) fn new(producer: ProducerId, numbering: Numberings, staged: Vec<Staged>) -> Self {
        WriterState { version: VERSION, producer, numbering, staged }
    }

    pub(super) fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("numbers and lists of them have a JSON form").into()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let damaged = |cause: String| Error::corrupt(format!("the state of a stream's writer is damaged: {cause}"));
        let state: WriterState = serde_json::from_slice(bytes).map_err(|cause| damaged(cause.to_string()))?;
        if state.version != VERSION {
            return Err(damaged(format!("version {}, expected {VERSION}", state.version)));
        }
        Ok(state)
    }
}
