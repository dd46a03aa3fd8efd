//! What a snapshot is called and what it consists of.

use std::fmt;
use std::str::FromStr;

use coulee_model::{CheckpointId, JobName, Timestamp};
use object_store::path::Path as ObjectPath;
use serde::{Deserialize, Serialize};

use super::{SAVEPOINTS, SNAPSHOTS, SnapshotStore};
use crate::{CheckpointRecord, Error, Result};

/// The version of [`Manifest`] that is written.
pub(super) const FORMAT: u32 = 2;

/// How the names of periodic snapshots begin.
const CHECKPOINT: &str = "checkpoint-";

/// What is to be snapshot.
#[derive(Debug, Clone)]
pub struct SnapshotRequest {
    /// Whose state it is.
    pub job: JobName,
    /// The process that takes it: what it gave to [`SnapshotStore::claim`].
    pub incarnation: String,
    /// Whether it is kept.
    pub kind: SnapshotKind,
    /// The checkpoint that the files hold.
    pub record: CheckpointRecord,
    /// When it is taken, by the wall clock.
    pub at: Timestamp,
}

/// Whether a snapshot comes and goes by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotKind {
    /// Taken every so often, and removed by [`SnapshotStore::retain`].
    Periodic,
    /// Asked for by the user, and kept until the user deletes it.
    Savepoint {
        /// 1 to 200 of the characters a-z A-Z 0-9 . _ -, not beginning with `.` or `checkpoint-`.
        name: String,
        /// What the user wants to remember.
        note: Option<String>,
    },
}

/// The name of a snapshot within its store: `checkpoint-12`, or a savepoint's own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SnapshotName {
    /// The periodic snapshot of a checkpoint.
    Checkpoint(CheckpointId),
    /// A savepoint.
    Savepoint(String),
}

impl SnapshotName {
    /// The name of a savepoint.
    ///
    /// # Errors
    /// [`Error::SnapshotName`].
    pub fn savepoint(name: &str) -> Result<Self> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let reason = if name.is_empty() || name.len() > 200 || name.starts_with('.') || !name.bytes().all(legal) {
            "expected 1 to 200 of the characters a-z A-Z 0-9 . _ -, and no '.' at the start"
        } else if name.starts_with(CHECKPOINT) {
            "names that begin with 'checkpoint-' are those of periodic snapshots"
        } else {
            return Ok(SnapshotName::Savepoint(name.to_owned()));
        };
        Err(Error::SnapshotName { name: name.to_owned(), reason: reason.into() })
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotName::Checkpoint(id) => write!(f, "{CHECKPOINT}{id}"),
            SnapshotName::Savepoint(name) => f.write_str(name),
        }
    }
}

impl FromStr for SnapshotName {
    type Err = Error;

    /// Reads what [`Display`](fmt::Display) writes.
    fn from_str(text: &str) -> Result<Self> {
        match text.strip_prefix(CHECKPOINT).map(str::parse) {
            Some(Ok(id)) => Ok(SnapshotName::Checkpoint(CheckpointId(id))),
            _ => Self::savepoint(text),
        }
    }
}

/// The XXH3-128 of a file's content. Written as 32 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContentHash(pub u128);

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl From<ContentHash> for String {
    fn from(hash: ContentHash) -> String {
        hash.to_string()
    }
}

impl TryFrom<String> for ContentHash {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let hash = (text.len() == 32).then(|| u128::from_str_radix(&text, 16).ok()).flatten();
        hash.map(ContentHash).ok_or_else(|| format!("'{text}' is no hash: expected 32 hex digits"))
    }
}

/// What a snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this description.
    pub format: u32,
    /// Whose state it is.
    pub job: JobName,
    /// The process that took it.
    pub incarnation: String,
    /// Whether it is kept.
    pub kind: SnapshotKind,
    /// When it was taken, by the wall clock.
    pub at: Timestamp,
    /// The checkpoint that the files hold.
    pub record: CheckpointRecord,
    /// Every file, by path.
    pub files: Vec<ManifestFile>,
}

/// One file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Its path within the snapshot, with `/`.
    pub path: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// What its content hashes to.
    pub hash: ContentHash,
}

impl Manifest {
    pub(super) fn new(request: &SnapshotRequest, files: Vec<ManifestFile>) -> Self {
        let SnapshotRequest { job, incarnation, kind, record, at } = request.clone();
        Manifest { format: FORMAT, job, incarnation, kind, at, record, files }
    }

    /// Which checkpoint it is of.
    pub fn checkpoint(&self) -> CheckpointId {
        self.record.id
    }

    /// Its name.
    pub fn name(&self) -> SnapshotName {
        match &self.kind {
            SnapshotKind::Periodic => SnapshotName::Checkpoint(self.record.id),
            SnapshotKind::Savepoint { name, .. } => SnapshotName::Savepoint(name.clone()),
        }
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

impl SnapshotStore {
    /// Where a manifest is.
    pub(super) fn manifest_path(&self, name: &SnapshotName) -> ObjectPath {
        match name {
            SnapshotName::Checkpoint(id) => self.folder(SNAPSHOTS).join(format!("{:020}.json", id.0)),
            SnapshotName::Savepoint(name) => self.folder(SAVEPOINTS).join(format!("{name}.json")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_what_they_write() {
        for name in [SnapshotName::Checkpoint(CheckpointId(12)), SnapshotName::savepoint("before_v2").unwrap()] {
            assert_eq!(name.to_string().parse::<SnapshotName>().unwrap(), name);
        }
        for bad in ["", ".hidden", "a/b", "ü", "checkpoint-x", "checkpoint-"] {
            assert!(bad.parse::<SnapshotName>().is_err(), "{bad}");
        }
    }
}
