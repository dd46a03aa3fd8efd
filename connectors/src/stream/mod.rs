//! `'connector' = 'stream'`: the built-in log as source and sink. A table without a connector gets it.
//!
//! ```text
//! shard ─ read ─▶ record batches ─ decode ─▶ rows ─▶ SourceEvent           positions: next sequence number, and the stop
//! Batch ─ encode, key, route ─▶ transactional appends ─▶ shard ═ prepare ═ commit ═▶ markers: visible to committed readers
//! ```
//!
//! Reading waits on the tails of the shards instead of polling, and knows exactly when all has been read. Writing is
//! exactly once: what a writer appends between two checkpoints is one transaction of the log, prepared with the
//! checkpoint and committed once the checkpoint is durable; uncommitted readers see it at once. The checkpoint lists what is prepared; a recovery commits
//! that and aborts every other transaction of the sink.

mod accumulator;
mod connector;
mod dead_letters;
mod keys;
mod layout;
mod position;
mod reader;
mod rejected;
mod rows;
mod settings;
mod sink;
mod source;
mod state;
mod target;
mod upsert;
mod writer;

use coulee_log::LogError;
use coulee_model::Classify;
use coulee_runtime::Error;

pub use connector::StreamConnector;
pub use dead_letters::StreamDeadLetters;

/// An error of the log as one of a job: the log's messages name the stream and say what to do.
fn log_error(error: LogError) -> Error {
    Error::new(error.kind(), error.to_string()).because(error)
}

#[cfg(test)]
mod tests;
