//! Where rejected records are kept: in streams of a log.

use std::sync::Arc;

use coulee_log::Log;
use coulee_model::StreamName;
use coulee_runtime::connector::Sink;
use coulee_runtime::table::TableSpec;
use coulee_runtime::{Error, Result};

use super::settings::dead_letter_settings;
use super::sink::StreamSink;
use crate::dead_letter::DeadLetters;

/// Keeps rejected records in streams of a log. A stream is made when its first record is written.
#[derive(Debug, Clone)]
pub struct StreamDeadLetters {
    log: Arc<Log>,
}

impl StreamDeadLetters {
    /// Keeps them in this log.
    pub fn new(log: Arc<Log>) -> Self {
        StreamDeadLetters { log }
    }
}

impl DeadLetters for StreamDeadLetters {
    fn sink(&self, table: &TableSpec, stream: &str) -> Result<Arc<dyn Sink>> {
        let name = StreamName::new(stream).map_err(|error| {
            Error::invalid(format!("table '{}': {error}; set 'format.dead-letter.stream'", table.name))
        })?;
        Ok(Arc::new(StreamSink::of_rejected(Arc::clone(&self.log), name, dead_letter_settings(table))))
    }
}
