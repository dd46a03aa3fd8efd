//! What an error asks of its caller. Each crate has its own rich error type and maps it to a kind.

use std::fmt;

/// What the caller should do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request is wrong: fix the input. Trying again cannot help.
    Invalid,
    /// The named thing does not exist.
    NotFound,
    /// Something that is needed does not answer, or a resource is full: try again later.
    Unavailable,
    /// Somebody else owns the resource now: stop.
    Fenced,
    /// Stored bytes are not what was written: restore from a good copy.
    Corrupt,
    /// A fault of Coulee's own: report it.
    Internal,
}

impl ErrorKind {
    /// Whether the same call may succeed later without any change of the input.
    pub fn is_retryable(self) -> bool {
        matches!(self, ErrorKind::Unavailable)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ErrorKind::Invalid => "invalid",
            ErrorKind::NotFound => "not found",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Fenced => "fenced",
            ErrorKind::Corrupt => "corrupt",
            ErrorKind::Internal => "internal",
        })
    }
}

/// An error that knows its [`ErrorKind`].
pub trait Classify {
    /// What the caller should do.
    fn kind(&self) -> ErrorKind;
}
