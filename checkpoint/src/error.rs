//! What can go wrong with stored state.

use std::path::PathBuf;

use coulee_model::{CheckpointId, Classify, ErrorKind, OperatorId};

use crate::TableId;

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
    /// An earlier commit failed, and nobody knows whether it was written.
    #[error("state in {}: a commit failed before; open the store again to see which checkpoint it holds", dir.display())]
    MustReopen {
        /// The store's folder.
        dir: PathBuf,
    },
    /// A value of an expiring table that does not begin with an expiry.
    #[error("operator {operator}, table {table}: a value of {bytes} bytes has no expiry of 8 bytes at its head")]
    ShortValue {
        /// Whose value.
        operator: OperatorId,
        /// Its table.
        table: TableId,
        /// The value's length.
        bytes: usize,
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
    #[error("snapshot store: {}{}", .0, root(.0))]
    ObjectStore(#[from] object_store::Error),
    /// There is no such snapshot.
    #[error("snapshot {name} does not exist under {prefix}")]
    NoSnapshot {
        /// The snapshot's name.
        name: String,
        /// Where it was looked for.
        prefix: String,
    },
    /// A snapshot of this name exists, and is another one.
    #[error("snapshot {name} exists already{detail}; choose another name, or delete it first")]
    SnapshotExists {
        /// The snapshot's name.
        name: String,
        /// Which one it is.
        detail: String,
    },
    /// A name that a savepoint cannot have.
    #[error("'{name}' is no name for a savepoint: {reason}")]
    SnapshotName {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A snapshot was written by a newer version.
    #[error("{object}: written in format {found}, this version reads up to {supported}; use a newer coulee")]
    NewerSnapshot {
        /// The object.
        object: String,
        /// The format found.
        found: u32,
        /// The newest format known.
        supported: u32,
    },
    /// A snapshot is not what its manifest says.
    #[error("snapshot {name} is damaged: {file}: {reason}; restore another snapshot")]
    DamagedSnapshot {
        /// The snapshot's name.
        name: String,
        /// Which of its files, or the manifest.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An object that a snapshot needs is just being deleted as unused.
    #[error("{object} is just being deleted, as no snapshot referred to it; take the snapshot again")]
    BeingCollected {
        /// The object.
        object: String,
    },
    /// A newer process owns the job's snapshots.
    #[error(
        "snapshots of {prefix}: {incarnation} was replaced by {owner} in generation {newest}; this process must stop"
    )]
    Fenced {
        /// Where.
        prefix: String,
        /// This process.
        incarnation: String,
        /// The highest claimed.
        newest: u64,
        /// Who claimed it.
        owner: String,
    },
}

/// What is at the bottom of an object store's error, where its own words leave that out: `: operation timed out`.
fn root(error: &object_store::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let (whole, root) = (error.to_string(), cause.to_string());
    if whole.contains(&root) { String::new() } else { format!(": {root}") }
}

/// What to do about an error of RocksDB, where that is known.
fn advice(error: &rocksdb::Error) -> &'static str {
    let text = error.as_ref();
    if text.contains("No space left") {
        "; free some space, then start the job again: the last checkpoint is intact"
    } else if text.contains("/LOCK: ") {
        "; this job is already running, here or in another process"
    } else if error.kind() == rocksdb::ErrorKind::Corruption {
        "; restore a snapshot, or start over with --fresh"
    } else if error.kind() == rocksdb::ErrorKind::IOError {
        "; see to the disk, then start the job again: the last checkpoint is intact"
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
            Error::NewerFormat { .. } | Error::NewerSnapshot { .. } => ErrorKind::Invalid,
            Error::SnapshotExists { .. } | Error::SnapshotName { .. } => ErrorKind::Invalid,
            Error::NoSnapshot { .. } => ErrorKind::NotFound,
            Error::Damaged { .. } | Error::DamagedSnapshot { .. } => ErrorKind::Corrupt,
            Error::OutOfOrder { .. } | Error::Fenced { .. } => ErrorKind::Fenced,
            Error::ShortValue { .. } => ErrorKind::Internal,
            Error::File { .. } | Error::ObjectStore(_) => ErrorKind::Unavailable,
            Error::MustReopen { .. } | Error::BeingCollected { .. } => ErrorKind::Unavailable,
        }
    }
}
