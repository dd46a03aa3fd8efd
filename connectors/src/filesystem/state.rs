//! What a sink's writer leaves in a checkpoint: its state, and what is to be committed. The encodings are described in `docs/formats/spool.md`.

use bytes::Bytes;
use coulee_runtime::{Error, Result};
use serde::{Deserialize, Serialize};

/// A spool file that is, or was, filled with the rows of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFile {
    /// The partition's path below the table's, such as `day=2013-01-01`; empty without partitions.
    pub partition: String,
    /// The spool file, relative to the sink's spool folder.
    pub file: String,
    /// How many of its bytes count. What is behind them was written after the checkpoint.
    pub length: u64,
    /// How many rows those are.
    pub rows: u64,
    /// When the first row came, in milliseconds since the epoch.
    pub opened_at: i64,
    /// Whether nothing more is to be appended: it was being made into an object.
    pub sealed: bool,
}

/// A finished file that becomes visible when the checkpoint is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyFile {
    /// Where it becomes visible, relative to the table's path.
    pub key: String,
    /// The finished file, relative to the sink's spool folder.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// The CRC-32C of its bytes.
    pub crc32c: u32,
    /// How many rows it has.
    pub rows: u64,
}

/// All that one writer leaves in a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WriterState {
    /// [`WriterState::VERSION`].
    pub version: u32,
    /// The number of the next spool file.
    pub next_open: u64,
    /// The number of the next object.
    pub next_part: u64,
    /// Bytes of an object per byte of spool, as far as seen.
    pub ratio: f64,
    /// Spool files whose rows are not in an object yet.
    pub open: Vec<OpenFile>,
    /// Objects to make visible: of version 1, which had no committables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ready: Vec<ReadyFile>,
}

/// A finished file that the committer makes visible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committable {
    /// [`Committable::VERSION`].
    pub version: u32,
    /// The file.
    pub ready: ReadyFile,
    /// The spool file that it was made of, relative to the sink's spool folder: removed with it, as the checkpoint before still refers to it.
    pub spool: String,
}

impl Committable {
    /// The version that is written.
    pub const VERSION: u32 = 1;

    /// As bytes.
    pub fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("texts and numbers have a form in JSON").into()
    }

    /// From the bytes of `prepare`.
    ///
    /// # Errors
    /// `Corrupt` when they are not of a version that this one knows.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let committable: Committable = serde_json::from_slice(bytes)
            .map_err(|error| Error::corrupt(format!("what a filesystem sink commits: {error}")).because(error))?;
        if committable.version != Self::VERSION {
            let version = committable.version;
            return Err(Error::corrupt(format!("what a filesystem sink commits has version {version}, expected 1")));
        }
        Ok(committable)
    }
}

impl WriterState {
    /// The version that is written.
    pub const VERSION: u32 = 2;

    /// As bytes.
    pub fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("texts and finite numbers have a form in JSON").into()
    }

    /// From the bytes of `prepare`.
    ///
    /// # Errors
    /// `Corrupt` when they are not a state that this version knows.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let state: WriterState = serde_json::from_slice(bytes)
            .map_err(|error| Error::corrupt(format!("the state of a filesystem sink: {error}")).because(error))?;
        if !(1..=Self::VERSION).contains(&state.version) {
            let version = state.version;
            return Err(Error::corrupt(format!(
                "the state of a filesystem sink has version {version}, expected 1 or 2"
            )));
        }
        Ok(state)
    }
}
