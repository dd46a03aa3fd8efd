//! Ways out of a job that end in this process: the rows of a `SELECT` through a channel, and what `print` prints.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use coulee_connectors::{PrintTarget, StandardOutput};
use coulee_model::{CheckpointId, SubtaskIndex};
use coulee_runtime::connector::{Prepared, Sink, SinkContext, SinkWriter};
use coulee_runtime::metrics::SubtaskMetrics;
use coulee_runtime::{Batch, Error, Result};
use coulee_sql::QuerySink;
use tokio::sync::mpsc;

/// How many batches wait for a slow reader before the query waits for it.
const QUEUED_BATCHES: usize = 4;

/// A sink for `SELECT`s, and where its rows come out, batch by batch. Rows come as they are made: a query that is started
/// again gives them again. Those of one query have a schema of their own: its metadata say which query they are of. Those of a changelog have what happened to them in front, as a column `kind`.
pub fn query_rows() -> (QuerySink, mpsc::Receiver<RecordBatch>) {
    let (rows, received) = mpsc::channel(QUEUED_BATCHES);
    let queries = AtomicU64::new(0);
    let sink = move |_: SchemaRef, is_changelog: bool| -> Arc<dyn Sink> {
        let query = queries.fetch_add(1, Ordering::Relaxed);
        Arc::new(ChannelSink { rows: rows.clone(), is_changelog, query })
    };
    (Arc::new(sink), received)
}

#[derive(Debug)]
struct ChannelSink {
    rows: mpsc::Sender<RecordBatch>,
    /// Then each row has what happened to it in front, as a column `kind`.
    is_changelog: bool,
    /// Its number.
    query: u64,
}

#[tonic::async_trait]
impl Sink for ChannelSink {
    fn describe(&self) -> String {
        "print the rows".to_owned()
    }

    fn refuses_changelog(&self) -> Option<&'static str> {
        (!self.is_changelog).then_some("the query's rows were taken to be appended only")
    }

    async fn recover(&self, _: &SinkContext, _: &[Bytes], _: &[Bytes]) -> Result<()> {
        Ok(())
    }

    async fn open(
        &self,
        _: &SinkContext,
        _: SubtaskIndex,
        _: &[Bytes],
        metrics: Arc<SubtaskMetrics>,
    ) -> Result<Box<dyn SinkWriter>> {
        let (rows, is_changelog, query) = (self.rows.clone(), self.is_changelog, self.query);
        Ok(Box::new(ChannelWriter { rows, is_changelog, query, metrics }))
    }
}

struct ChannelWriter {
    rows: mpsc::Sender<RecordBatch>,
    is_changelog: bool,
    query: u64,
    metrics: Arc<SubtaskMetrics>,
}

#[tonic::async_trait]
impl SinkWriter for ChannelWriter {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        self.metrics.add_delivered_rows(batch.len() as u64);
        let gone = |_| Error::invalid("nobody reads the query's rows any more");
        let rows = if self.is_changelog { batch.with_kinds_shown()? } else { batch.into_rows() };
        let number = HashMap::from([("query".to_owned(), self.query.to_string())]);
        let schema = rows.schema().as_ref().clone().with_metadata(number);
        self.rows.send(rows.with_schema(Arc::new(schema))?).await.map_err(gone)
    }

    async fn prepare(&mut self, _: CheckpointId) -> Result<Prepared> {
        Ok(Prepared::default())
    }
}

/// What the connector `print` prints through, on the standard output.
pub trait PrintGuard: Send + Sync {
    /// Something is about to be printed: whatever is drawn on the terminal must make room.
    fn before(&self);

    /// Nobody reads the standard output any more.
    fn closed(&self);
}

/// The standard output for the connector `print`, behind a guard.
pub fn print_behind(guard: impl PrintGuard + 'static) -> Arc<dyn PrintTarget> {
    Arc::new(Guarded(Box::new(guard)))
}

struct Guarded(Box<dyn PrintGuard>);

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guarded(StandardOutput)")
    }
}

impl PrintTarget for Guarded {
    fn print(&self, identifier: &str, batch: &Batch) -> Result<()> {
        self.0.before();
        StandardOutput.print(identifier, batch).inspect_err(|error| {
            let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
            if cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe) {
                self.0.closed();
            }
        })
    }
}
