//! Sources and sinks, and the formats of their records.
//!
//! Each connector implements the traits that `coulee-runtime` owns ([`Connector`](coulee_runtime::table::Connector),
//! [`Source`](coulee_runtime::connector::Source), [`Sink`](coulee_runtime::connector::Sink)); nothing here knows SQL or
//! another connector. Bytes become rows and rows become bytes in [`format`](mod@format), which all connectors share.
//! Records that cannot become rows leave a source beside its rows and go where [`DeadLetters`] says.

mod blackhole;
mod datagen;
mod dead_letter;
pub mod filesystem;
pub mod format;
pub mod nexmark;
mod print;
mod random;
pub mod stream;

/// The log that [`StreamConnector`] reads and writes, for programs that embed both.
pub use coulee_log as log;

pub use blackhole::BlackholeConnector;
pub use datagen::DatagenConnector;
pub use dead_letter::{DeadLetters, WithDeadLetters};
pub use filesystem::FilesystemConnector;
pub use nexmark::NexmarkConnector;
pub use print::{PrintConnector, PrintTarget, StandardError, StandardOutput};
pub use stream::{StreamConnector, StreamDeadLetters};
