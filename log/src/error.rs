//! What can go wrong in the log, with the stream, shard, file or position it happened at.
//!
//! One error reaches every append that was waiting in the same group, so it is cheap to clone.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coulee_model::{Classify, ErrorKind, SequenceNumber, ShardId, StreamName};

use crate::ids::{Place, ProducerId, TransactionRef, TransactionalIdError};

/// The result of an operation of the log.
pub type Result<T, E = LogError> = std::result::Result<T, E>;

/// How many names a "not found" message lists at most.
const LISTED_NAMES_MAX: usize = 10;

/// An error of the log.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// No stream has this name.
    #[error("there is no stream '{stream}'; {}", listed(existing))]
    NotFound {
        /// What was asked for.
        stream: StreamName,
        /// Every stream there is.
        existing: Vec<StreamName>,
    },
    /// The stream has fewer shards.
    #[error("{place} does not exist: the stream has shards 0 to {}", shards.saturating_sub(1))]
    NoShard {
        /// What was asked for.
        place: Place,
        /// How many shards the stream has.
        shards: u32,
    },
    /// The shard was split or merged, and nothing follows its end.
    #[error(
        "{place} was split or merged, and takes no records after sequence number {end}: go on in {}",
        listed_shards(children)
    )]
    ShardSealed {
        /// What was used.
        place: Place,
        /// The sequence number after its last record.
        end: SequenceNumber,
        /// The shards that took over its keys.
        children: Vec<ShardId>,
    },
    /// A stream of this name exists.
    #[error(
        "stream '{stream}' exists already: use it, choose another name, or delete it with `coulee stream delete {stream}`"
    )]
    AlreadyExists {
        /// The name.
        stream: StreamName,
    },
    /// The name of a transaction cannot be used.
    #[error(transparent)]
    InvalidTransactionalId(#[from] TransactionalIdError),
    /// A setting has a value that cannot work.
    #[error("{setting} is {found}: expected {expected}")]
    InvalidSetting {
        /// The setting.
        setting: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A batch that a client sent, or that was built, cannot be appended.
    #[error("not a valid record batch: {reason}")]
    InvalidBatch {
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// A batch is larger than the log takes.
    #[error("a batch of {bytes} bytes is too large: the log takes up to {limit}; send fewer records in one batch")]
    BatchTooLarge {
        /// Its encoded size.
        bytes: u64,
        /// The largest size.
        limit: u64,
    },
    /// The records asked for were removed by retention.
    #[error(
        "{place}: sequence number {requested} was removed by retention; the earliest left is {earliest}: read from there"
    )]
    Trimmed {
        /// Where.
        place: Place,
        /// What was asked for.
        requested: SequenceNumber,
        /// The first that can be read.
        earliest: SequenceNumber,
    },
    /// The position asked for has not been written.
    #[error("{place}: sequence number {requested} is past the end {end}; was the stream deleted and made again?")]
    OutOfRange {
        /// Where.
        place: Place,
        /// What was asked for.
        requested: SequenceNumber,
        /// The next sequence number to be assigned.
        end: SequenceNumber,
    },
    /// An idempotent producer skipped or went back.
    #[error("{place}: producer {producer} sent sequence {found}, expected {expected}: a batch before it was lost")]
    OutOfOrderSequence {
        /// Where.
        place: Place,
        /// Who.
        producer: ProducerId,
        /// The sequence of the batch's first record.
        found: i32,
        /// The sequence that had to follow.
        expected: i32,
    },
    /// A newer instance of the producer has taken over.
    #[error("{place}: producer {producer} with epoch {found} was replaced by one with epoch {current}: stop this one")]
    FencedProducer {
        /// Where.
        place: Place,
        /// Who.
        producer: ProducerId,
        /// The epoch of the refused batch.
        found: i16,
        /// The epoch that is in force.
        current: i16,
    },
    /// More waits to be written than the log takes.
    #[error(
        "{place}: {bytes} bytes wait to be written in all shards, and no more than {limit} may (queued_bytes_max): wait for the appends under way, then send again"
    )]
    Overloaded {
        /// Where.
        place: Place,
        /// How much waits.
        bytes: usize,
        /// How much may.
        limit: usize,
    },
    /// The transaction cannot take what was asked for, since it has ended or is about to.
    #[error("transaction {transaction} takes no more: {reason}; begin another")]
    TransactionEnded {
        /// Which one.
        transaction: TransactionRef,
        /// How it ended.
        reason: &'static str,
    },
    /// A newer owner of the transaction's name has begun one.
    #[error("transaction {transaction} was aborted, since a newer owner of its name has begun one: stop this one")]
    TransactionFenced {
        /// Which one.
        transaction: TransactionRef,
    },
    /// The transaction was aborted, so it cannot be committed.
    #[error("transaction {transaction} was aborted, and cannot be committed: what it held has to be written again")]
    TransactionAborted {
        /// Which one.
        transaction: TransactionRef,
    },
    /// The transaction was committed, so it cannot be aborted.
    #[error("transaction {transaction} was committed, and cannot be aborted")]
    TransactionCommitted {
        /// Which one.
        transaction: TransactionRef,
    },
    /// The transaction is open, but was not prepared.
    #[error("transaction {transaction} was not prepared: prepare it before it is committed")]
    TransactionNotPrepared {
        /// Which one.
        transaction: TransactionRef,
    },
    /// The log never had this transaction.
    #[error("transaction {transaction} is not one of this log: was the log's folder replaced or restored from a copy?")]
    UnknownTransaction {
        /// Which one.
        transaction: TransactionRef,
    },
    /// Transactions begin faster than their producer ids can be set aside.
    #[error("no producer ids are left until the disk has taken in more: try again")]
    TransactionIdsExhausted,
    /// The log of transactions could not be written. Whether what failed holds is undetermined until the restart.
    #[error(
        "no transaction can begin or end, since writing to {} failed ({source}): check the disk, then restart",
        path.display()
    )]
    TransactionsPoisoned {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The log was closed while a transaction was about to begin or to end.
    #[error("the log is closed")]
    LogClosed,
    /// A thread of the log panicked. Whether what it was doing holds is undetermined until the restart.
    #[error("an internal fault of the log: {fault}; restart, and please report this with the log file")]
    Internal {
        /// Which thread it was.
        fault: &'static str,
    },
    /// The stream was deleted while it was in use.
    #[error("stream '{stream}' was deleted")]
    Deleted {
        /// The name it had.
        stream: StreamName,
    },
    /// The log was closed while it was in use.
    #[error("{place}: the log is closed")]
    Closed {
        /// What was used.
        place: Place,
    },
    /// The disk is full. What failed was not written, and appends work again once there is space.
    #[error("the disk that holds {} is full: free some space or shorten the retention, then try again", folder.display())]
    DiskFull {
        /// The folder that could not grow.
        folder: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A write or a sync failed, so nobody knows what the disk holds. Whether the refused append was written is
    /// undetermined; what was acknowledged before can be read.
    #[error(
        "{place} takes no more appends, since writing to {} failed ({source}): check the disk, then restart",
        path.display()
    )]
    Poisoned {
        /// Where.
        place: Place,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Stored bytes are not what was written. Nothing was changed.
    #[error("{} is damaged at byte {position}: {reason}; restore the file from a good copy", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where the damage begins, in bytes from the start of the file.
        position: u64,
        /// What is wrong.
        reason: String,
    },
    /// A batch that was read is not what was written.
    #[error("the stored batch at sequence number {base} is damaged: {reason}; restore its segment from a good copy")]
    DamagedBatch {
        /// The first sequence number of the batch.
        base: SequenceNumber,
        /// What is wrong.
        reason: &'static str,
    },
    /// Another process has the log open.
    #[error("the log in {} is in use by {}: stop that one, or use another folder", folder.display(), owner(*pid))]
    Locked {
        /// The log's folder.
        folder: PathBuf,
        /// The process that holds the lock, if it said so.
        pid: Option<u32>,
    },
    /// A newer Coulee wrote this folder.
    #[error(
        "the log in {} has format {found}, and this version of Coulee knows up to {known}: use a newer Coulee",
        folder.display()
    )]
    NewerFormat {
        /// The log's folder.
        folder: PathBuf,
        /// The version found.
        found: u32,
        /// The newest version that this build knows.
        known: u32,
    },
    /// The system refused something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
}

impl LogError {
    /// An error of the system, told apart into "disk full" and the rest.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let source = Arc::new(source);
        if is_disk_full(&source) {
            return LogError::DiskFull { folder: path.parent().unwrap_or(path).to_owned(), source };
        }
        LogError::Io { action, path: path.to_owned(), source }
    }

    pub(crate) fn corrupt(path: &Path, position: u64, reason: impl Into<String>) -> Self {
        LogError::Corrupt { path: path.to_owned(), position, reason: reason.into() }
    }
}

impl Classify for LogError {
    fn kind(&self) -> ErrorKind {
        match self {
            LogError::NotFound { .. } | LogError::NoShard { .. } | LogError::Deleted { .. } => ErrorKind::NotFound,
            LogError::AlreadyExists { .. }
            | LogError::InvalidSetting { .. }
            | LogError::InvalidTransactionalId(_)
            | LogError::InvalidBatch { .. }
            | LogError::BatchTooLarge { .. }
            | LogError::Trimmed { .. }
            | LogError::OutOfRange { .. }
            | LogError::OutOfOrderSequence { .. }
            | LogError::TransactionAborted { .. }
            | LogError::TransactionCommitted { .. }
            | LogError::TransactionNotPrepared { .. }
            | LogError::UnknownTransaction { .. }
            | LogError::NewerFormat { .. } => ErrorKind::Invalid,
            LogError::FencedProducer { .. } | LogError::TransactionFenced { .. } => ErrorKind::Fenced,
            LogError::Closed { .. }
            | LogError::DiskFull { .. }
            | LogError::Poisoned { .. }
            | LogError::TransactionsPoisoned { .. }
            | LogError::LogClosed
            | LogError::TransactionEnded { .. }
            | LogError::TransactionIdsExhausted
            | LogError::Overloaded { .. }
            | LogError::ShardSealed { .. }
            | LogError::Locked { .. }
            | LogError::Io { .. } => ErrorKind::Unavailable,
            LogError::Corrupt { .. } | LogError::DamagedBatch { .. } => ErrorKind::Corrupt,
            LogError::Internal { .. } => ErrorKind::Internal,
        }
    }
}

/// Whether there was no space, on the device or in the user's quota.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn listed(existing: &[StreamName]) -> String {
    match existing.len() {
        0 => "the log has no streams yet".to_owned(),
        1..=LISTED_NAMES_MAX => {
            let names: Vec<&str> = existing.iter().map(StreamName::as_str).collect();
            format!("the log has {}", names.join(", "))
        }
        more => format!("the log has {more} others"),
    }
}

fn listed_shards(shards: &[ShardId]) -> String {
    let shards: Vec<String> = shards.iter().map(|shard| format!("shard {shard}")).collect();
    shards.join(" and ")
}

fn owner(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> StreamName {
        StreamName::new(text).expect("a valid name")
    }

    #[test]
    fn a_missing_stream_is_answered_with_the_ones_there_are() {
        let error = LogError::NotFound { stream: name("fligths"), existing: vec![name("flights"), name("planes")] };
        assert_eq!(error.to_string(), "there is no stream 'fligths'; the log has flights, planes");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_full_disk_is_told_apart_from_other_failures() {
        let full = LogError::io("write", Path::new("/data/s/0/1.log"), io::ErrorKind::StorageFull.into());
        assert_eq!(
            full.to_string(),
            "the disk that holds /data/s/0 is full: free some space or shorten the retention, then try again"
        );
        assert!(full.kind().is_retryable());
        let other = LogError::io("write", Path::new("/data/x"), io::ErrorKind::PermissionDenied.into());
        assert!(matches!(other, LogError::Io { .. }));
    }
}
