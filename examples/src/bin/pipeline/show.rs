//! What is in the log, as a committed reader sees it.

use std::io::Write;
use std::sync::Arc;

use coulee_connectors::log::{Isolation, Log, LogSettings};
use coulee_model::{StreamName, SystemClock};
use coulee_runtime::{Error, Result};

use crate::input::log_error;
use crate::settings::Settings;

fn open(settings: &Settings) -> Result<Log> {
    Log::open(&settings.data.join("log"), LogSettings::default(), Arc::new(SystemClock)).map_err(log_error)
}

/// Prints every committed record of a stream: shard, sequence number, timestamp in milliseconds, value; between tabs.
///
/// # Errors
/// When there is no such stream, or it cannot be read.
pub fn read(settings: &Settings) -> Result<()> {
    let name = settings.stream.as_deref().ok_or_else(|| Error::invalid("--stream is missing"))?;
    let name = StreamName::new(name).map_err(|error| Error::invalid(error.to_string()))?;
    let log = open(settings)?;
    let stream = log.stream(&name).map_err(log_error)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let refuse = |cause| Error::io("cannot print", cause);
    for shard in stream.shards() {
        shard.open().map_err(log_error)?;
        let mut next = shard.earliest();
        while next < shard.last_stable_offset() {
            let fetched = shard.read(next, 1 << 20, Isolation::ReadCommitted).map_err(log_error)?;
            for batch in fetched.batches() {
                let batch = batch.and_then(|batch| batch.decode()).map_err(|error| log_error(shard.locate(error)))?;
                for record in batch.records() {
                    let value = String::from_utf8_lossy(record.value.unwrap_or_default());
                    let (shard, sequence, timestamp) = (shard.id(), record.sequence, record.timestamp.millis());
                    writeln!(out, "{shard}\t{sequence}\t{timestamp}\t{value}").map_err(refuse)?;
                }
            }
            next = fetched.next;
        }
        if shard.last_stable_offset() != shard.end() {
            return Err(Error::invalid(format!("stream '{name}' shard {}: a transaction is open", shard.id())));
        }
    }
    out.flush().map_err(refuse)
}

/// Prints the names of the transactions that are neither committed nor aborted.
///
/// # Errors
/// When the log cannot be opened.
pub fn transactions(settings: &Settings) -> Result<()> {
    for transaction in open(settings)?.open_transactions("") {
        println!("{}", transaction.id.as_str());
    }
    Ok(())
}
