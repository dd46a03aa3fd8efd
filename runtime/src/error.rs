//! The error of a running job: what happened, to which object, and what the caller should do.

use std::fmt;

use coulee_model::{Classify, ErrorKind};

/// The result of everything in this crate and of the connectors.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What an error is about, for whoever knows where that is named: the SQL that declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A table, view or stream, by its name.
    Table(String),
    /// A column.
    Column {
        /// Its table, where it is known.
        table: Option<String>,
        /// Its name.
        column: String,
    },
    /// An option of a table, or a setting.
    Option {
        /// The table; `None` for a setting.
        table: Option<String>,
        /// The key.
        key: String,
        /// Which side of `'key' = 'value'`.
        part: OptionPart,
    },
    /// A function, by its name.
    Function(String),
}

/// A side of `'key' = 'value'`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionPart {
    /// The key: it is not known, or does not belong there.
    Key,
    /// The value.
    Value,
}

/// An error with a kind and a message that names the object, what was expected, and what to do.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    subject: Option<Subject>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of the given kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), subject: None, source: None }
    }

    /// The request is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// Something needed does not answer or is full.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// Stored bytes are not what was written.
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// A fault of Coulee's own.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Says what it is about. The first to say so knows best.
    #[must_use]
    pub fn about(mut self, subject: Subject) -> Self {
        self.subject.get_or_insert(subject);
        self
    }

    /// What it is about, where that was said.
    pub fn subject(&self) -> Option<&Subject> {
        self.subject.as_ref()
    }

    /// Keeps the cause, for logs; the message should already say what matters of it.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(cause.into());
        self
    }

    /// Puts where it happened in front of the message: `sink 'out': the disk is full`.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// What an I/O error means: a full disk or a refused permission says so in plain words.
    pub fn io(doing: impl fmt::Display, cause: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let (kind, advice) = match cause.kind() {
            Io::StorageFull | Io::QuotaExceeded => {
                (ErrorKind::Unavailable, ": free some space, then start the job again; nothing acknowledged is lost")
            }
            Io::PermissionDenied | Io::ReadOnlyFilesystem => (ErrorKind::Invalid, ": check the permissions"),
            Io::NotFound | Io::NotADirectory | Io::IsADirectory | Io::InvalidFilename => (ErrorKind::Invalid, ""),
            _ => (ErrorKind::Unavailable, ""),
        };
        Self::new(kind, format!("{doing}: {cause}{advice}")).because(cause)
    }

    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|cause| cause as _)
    }
}

impl From<datafusion_common::DataFusionError> for Error {
    /// DataFusion fails on data (a cast, a division by zero) far more often than on a fault of ours.
    fn from(error: datafusion_common::DataFusionError) -> Self {
        let message = error.strip_backtrace();
        Error::invalid(message).because(error)
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Error::invalid(error.to_string()).because(error)
    }
}

impl From<coulee_checkpoint::Error> for Error {
    fn from(error: coulee_checkpoint::Error) -> Self {
        Error::new(error.kind(), error.to_string()).because(error)
    }
}
