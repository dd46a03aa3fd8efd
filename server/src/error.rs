//! What can go wrong in an engine. Most of it is passed on from below, unchanged; what is new here is about folders and jobs.

use std::fmt;
use std::path::{Path, PathBuf};

use coulee_model::{Classify, ErrorKind, JobName};

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// How many names a "not found" message lists at most.
const LISTED_NAMES_MAX: usize = 10;

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process uses the data folder.
    #[error(
        "data folder {} is in use by {}: stop that process or choose another --data-dir; if it is a server, give it scripts with `coulee job submit`, and ask it with the other commands without --data-dir",
        folder.display(), owner(*pid)
    )]
    Locked {
        /// The folder.
        folder: PathBuf,
        /// The process, if it left its id.
        pid: Option<u32>,
    },
    /// The data folder was written by a newer version.
    #[error("data folder {} has format {found}, this version reads up to {known}: use a newer coulee", folder.display())]
    NewerFormat {
        /// The folder.
        folder: PathBuf,
        /// The format found.
        found: u32,
        /// The newest known.
        known: u32,
    },
    /// The folder holds something else.
    #[error("{} is not empty and not a data folder of coulee: choose a new or an empty folder", folder.display())]
    ForeignFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// A file of the engine's own does not decode.
    #[error("{} is damaged: {reason}; restore it from a good copy, or remove it to give up what it describes", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why it does not decode.
        reason: String,
    },
    /// The system refused something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No job has this name.
    #[error("there is no job '{name}'; {}", listed(existing))]
    NoJob {
        /// What was asked for.
        name: String,
        /// Every job there is.
        existing: Vec<JobName>,
    },
    /// The job is not in a state in which this can be done.
    #[error("job '{name}' {state}: {advice}")]
    JobState {
        /// The job.
        name: JobName,
        /// What it is.
        state: &'static str,
        /// What to do.
        advice: String,
    },
    /// A job that the caller waited for failed.
    #[error("job '{name}' failed: {cause}")]
    JobFailed {
        /// The job.
        name: JobName,
        /// Why.
        cause: String,
    },
    /// A request that makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A fault of Coulee's own.
    #[error("{0}; please report this")]
    Internal(String),
    /// A name that cannot be used.
    #[error(transparent)]
    Name(#[from] coulee_model::NameError),
    /// A statement is wrong.
    #[error(transparent)]
    Sql(#[from] coulee_sql::SqlError),
    /// From the log.
    #[error(transparent)]
    Log(#[from] coulee_log::LogError),
    /// From the state store.
    #[error(transparent)]
    State(#[from] coulee_checkpoint::Error),
    /// From the runtime or a connector.
    #[error(transparent)]
    Runtime(#[from] coulee_runtime::Error),
    /// From a server, through a client.
    #[error("{message}")]
    Remote {
        /// What the caller should do.
        kind: ErrorKind,
        /// The server's words.
        message: String,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Error::Io { action, path: path.to_owned(), source }
    }
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Error::Locked { .. } => ErrorKind::Unavailable,
            Error::NewerFormat { .. } | Error::ForeignFolder { .. } => ErrorKind::Invalid,
            Error::Damaged { .. } => ErrorKind::Corrupt,
            Error::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::NotFound
                | std::io::ErrorKind::PermissionDenied
                | std::io::ErrorKind::NotADirectory
                | std::io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Invalid,
                _ => ErrorKind::Unavailable,
            },
            Error::NoJob { .. } => ErrorKind::NotFound,
            Error::JobState { .. } | Error::Invalid(_) | Error::Name(_) => ErrorKind::Invalid,
            Error::JobFailed { .. } => ErrorKind::Unavailable,
            Error::Internal(_) => ErrorKind::Internal,
            Error::Sql(error) => error.kind(),
            Error::Log(error) => error.kind(),
            Error::State(error) => error.kind(),
            Error::Runtime(error) => error.kind(),
            Error::Remote { kind, .. } => *kind,
        }
    }
}

fn owner(pid: Option<u32>) -> String {
    pid.map_or("another process".to_owned(), |pid| format!("process {pid}"))
}

fn listed(existing: &[JobName]) -> impl fmt::Display {
    match existing.len() {
        0 => "there are no jobs yet".to_owned(),
        1..=LISTED_NAMES_MAX => {
            let names: Vec<&str> = existing.iter().map(JobName::as_str).collect();
            format!("there are {}", names.join(", "))
        }
        more => format!("there are {more} others; list them with `coulee job ls`"),
    }
}
