//! `'connector' = 'stream'`: the built-in log as source and sink. A table without a connector gets it.
//!
//! ```text
//! shard ─ read ─▶ record batches ─ decode ─▶ rows ─▶ SourceEvent           positions: next sequence number, and the stop
//! Batch ─ encode, key, route ─▶ staged file ═ prepare ═ commit ═▶ appends, numbered by an idempotent producer ─▶ shard
//! ```
//!
//! Reading waits on the tails of the shards instead of polling, and knows exactly when all has been read. Writing is
//! exactly once: until a checkpoint is durable its records are in a file beside the job's state, and what makes a
//! repeated delivery harmless is the log's own memory of each producer (see [`delivery`]).

mod connector;
mod dead_letters;
mod delivery;
mod keys;
mod layout;
mod position;
mod reader;
mod rows;
mod settings;
mod sink;
mod source;
mod staged;
mod state;
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
