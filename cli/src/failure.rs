//! Why a command ended early, and which exit code says so.

use std::io;

use coulee_model::{Classify, ErrorKind};

/// The end of a command before its purpose.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The arguments, the settings, the script or the data are wrong.
    #[error("{0}")]
    Input(String),
    /// A job, a server or the machine failed.
    #[error("{0}")]
    Failed(String),
    /// The user interrupted it.
    #[error("interrupted")]
    Interrupted,
    /// Nobody reads the standard output any more: there is nothing left to do.
    #[error("the output is closed")]
    Closed,
}

impl Failure {
    /// What to tell the user.
    pub fn message(&self) -> Option<&str> {
        match self {
            Failure::Input(message) | Failure::Failed(message) => Some(message),
            Failure::Interrupted | Failure::Closed => None,
        }
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Closed => 0,
            Failure::Failed(_) => 1,
            Failure::Input(_) => 2,
            Failure::Interrupted => 130,
        }
    }

    /// An error of the system with what was being done.
    pub fn io(doing: &str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::Closed,
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::IsADirectory => {
                Failure::Input(format!("{doing}: {error}"))
            }
            _ => Failure::Failed(format!("{doing}: {error}")),
        }
    }
}

impl From<coulee_server::Error> for Failure {
    fn from(error: coulee_server::Error) -> Self {
        match error.kind() {
            ErrorKind::Invalid | ErrorKind::NotFound => Failure::Input(error.to_string()),
            ErrorKind::Unavailable | ErrorKind::Fenced | ErrorKind::Corrupt | ErrorKind::Internal => {
                Failure::Failed(error.to_string())
            }
        }
    }
}
