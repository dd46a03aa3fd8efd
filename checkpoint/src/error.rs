//! What can go wrong with stored state.

use std::path::PathBuf;

use coulee_model::{CheckpointId, Classify, ErrorKind};

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the state store or of a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// RocksDB refused.
    #[error("state in {}: {source}{}", dir.display(), advice(source))]
    Store {
        /// The store's folder.
        dir: PathBuf,
        /// RocksDB's own words.
        source: rocksdb::Error,
    },
    /// The state was written by a newer version.
    #[error("state in {}: written in format {found}, this version reads up to {supported}; use a newer coulee", dir.display())]
    NewerFormat {
        /// The store's folder.
        dir: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format known.
        supported: u32,
    },
    /// A record of the store does not decode.
    #[error("state in {}: {what} is damaged: {reason}; restore a snapshot, or start over with --fresh", dir.display())]
    Damaged {
        /// The store's folder.
        dir: PathBuf,
        /// Which record.
        what: String,
        /// Why it does not decode.
        reason: String,
    },
    /// Checkpoints must ascend.
    #[error("checkpoint {given} does not follow checkpoint {last}: another process writes this job's state")]
    OutOfOrder {
        /// The last durable checkpoint.
        last: CheckpointId,
        /// The one that was to be committed.
        given: CheckpointId,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// The object store refused or did not answer.
    #[error("snapshot store: {0}")]
    ObjectStore(#[from] object_store::Error),
    /// A snapshot that does not exist, or is not what its manifest says.
    #[error("snapshot {name}: {reason}")]
    Snapshot {
        /// The snapshot's name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// What to do about an error of RocksDB, where that is known.
fn advice(error: &rocksdb::Error) -> &'static str {
    let text = error.as_ref();
    if text.contains("No space left") {
        "; free some space, then start the job again: the last checkpoint is intact"
    } else if text.contains("/LOCK: ") {
        "; this job is already running, here or in another process"
    } else {
        ""
    }
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Error::Store { source, .. } => match source.kind() {
                rocksdb::ErrorKind::Corruption => ErrorKind::Corrupt,
                _ => ErrorKind::Unavailable,
            },
            Error::NewerFormat { .. } => ErrorKind::Invalid,
            Error::Damaged { .. } => ErrorKind::Corrupt,
            Error::OutOfOrder { .. } => ErrorKind::Fenced,
            Error::File { .. } | Error::ObjectStore(_) => ErrorKind::Unavailable,
            Error::Snapshot { .. } => ErrorKind::Invalid,
        }
    }
}
