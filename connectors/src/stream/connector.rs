//! The connector: makes streams, and sources and sinks of them.

use std::sync::Arc;

use coulee_log::{Log, LogError, Stream};
use coulee_runtime::connector::{Sink, Source};
use coulee_runtime::options::OptionSpec;
use coulee_runtime::table::{Connector, TableSpec};
use coulee_runtime::{Error, Result};

use super::dead_letters::StreamDeadLetters;
use super::layout::Layout;
use super::log_error;
use super::settings::{self, TableOptions};
use super::sink::StreamSink;
use super::source::StreamSource;
use crate::dead_letter::DeadLetters;
use crate::format;

/// `'connector' = 'stream'`, and `'connector' = 'upsert-stream'`.
#[derive(Debug, Clone)]
pub struct StreamConnector {
    log: Arc<Log>,
    /// Whether records replace each other by key.
    upsert: bool,
}

impl StreamConnector {
    /// Reads and writes the streams of a log.
    pub fn new(log: Arc<Log>) -> Self {
        StreamConnector { log, upsert: false }
    }

    /// The same, where records replace each other by the primary key, and records without a value delete.
    pub fn upserting(log: Arc<Log>) -> Self {
        StreamConnector { log, upsert: true }
    }

    fn table_options(&self, table: &TableSpec) -> Result<TableOptions> {
        if self.upsert { TableOptions::upserting(table) } else { TableOptions::new(table) }
    }
}

impl Connector for StreamConnector {
    fn name(&self) -> &'static str {
        if self.upsert { "upsert-stream" } else { "stream" }
    }

    fn options(&self) -> Vec<OptionSpec> {
        if self.upsert { settings::upsert_options() } else { settings::options() }
    }

    fn source(&self, table: &TableSpec, projection: &[usize]) -> Result<Arc<dyn Source>> {
        let options = self.table_options(table)?;
        let stream = existing(&self.log, table, &options)?;
        Ok(Arc::new(StreamSource::new(table, projection, options, stream)?))
    }

    fn sink(&self, table: &TableSpec) -> Result<Arc<dyn Sink>> {
        let options = self.table_options(table)?;
        let stream = existing(&self.log, table, &options)?;
        Ok(Arc::new(StreamSink::of_table(table, &options, Arc::clone(&self.log), stream)?))
    }

    /// Makes the stream unless it exists.
    ///
    /// # Errors
    /// `Invalid` when the stream exists with another number of shards than the table asks for.
    fn create(&self, table: &TableSpec) -> Result<()> {
        let options = self.table_options(table)?;
        let all: Vec<usize> = (0..table.schema.fields().len()).collect();
        let layout = Layout::new(table, &all)?;
        format::decoder(&options.format, layout.body(), layout.decoded())?;
        match self.log.create_stream(&options.stream, options.settings.clone()) {
            Ok(_) => Ok(()),
            Err(LogError::AlreadyExists { .. }) => existing(&self.log, table, &options).map(drop),
            Err(error) => Err(log_error(error)),
        }
    }

    fn rejected_sink(&self, table: &TableSpec) -> Result<Option<Arc<dyn Sink>>> {
        let stream = self.table_options(table)?.format.rejects.dead_letter_stream(&table.name);
        let sink = |stream: String| StreamDeadLetters::new(Arc::clone(&self.log)).sink(table, &stream);
        stream.map(sink).transpose()
    }
}

/// The table's stream, if it is as the table says.
fn existing(log: &Log, table: &TableSpec, options: &TableOptions) -> Result<Arc<Stream>> {
    let stream = log.stream(&options.stream).map_err(|error| log_error(error).at(format!("table '{}'", table.name)))?;
    match options.shards {
        Some(asked) if asked != stream.shard_count() => Err(Error::invalid(format!(
            "table '{}': 'shards' is {asked}, but stream '{}' exists with {}: leave the option out, or name another stream",
            table.name,
            options.stream,
            stream.shard_count()
        ))),
        _ => Ok(stream),
    }
}
