//! The writer: rows become records in a transaction per checkpoint, which is committed once the checkpoint is durable.

use std::sync::Arc;

use arrow::array::Array;
use async_trait::async_trait;
use bytes::Bytes;
use coulee_log::{BATCH_BYTES_MAX, Record, Stream};
use coulee_model::{CheckpointId, Clock, ShardId, SubtaskIndex, Timestamp};
use coulee_runtime::connector::{Prepared, SinkContext, SinkWriter};
use coulee_runtime::event_time::floor_to_millis;
use coulee_runtime::metrics::SubtaskMetrics;
use coulee_runtime::row_errors::RejectedRows;
use coulee_runtime::{Batch, Error, Result, RowKind};

use super::accumulator::RecordAccumulator;
use super::keys::{Keys, Texts};
use super::state::{Names, Transactions};
use super::target::{Recipe, RecordKey, Target};
use crate::format::RecordEncoder;

/// Why a changelog is refused.
pub(super) const APPEND_ONLY: &str = "a stream cannot take a record back: aggregate in windows, whose results are final, or write to a table that takes \
                                      changes ('upsert-stream' with a PRIMARY KEY, 'format' = 'debezium-json', 'print')";

/// The most bytes of a record's key and value: a batch of the log must hold it beside what was collected before.
const RECORD_BYTES_MAX: usize = BATCH_BYTES_MAX - (8 << 20);

pub(super) struct StreamWriter {
    target: Arc<Target>,
    /// Found when the first row is written.
    stream: Option<Arc<Stream>>,
    recipe: Arc<Recipe>,
    encoder: Box<dyn RecordEncoder>,
    clock: Arc<dyn Clock>,
    metrics: Arc<SubtaskMetrics>,
    accumulator: RecordAccumulator,
    /// Rows of the last `write` that the log cannot take.
    rejected: Option<RejectedRows>,
}

impl StreamWriter {
    pub(super) fn new(
        target: Arc<Target>,
        recipe: Arc<Recipe>,
        context: &SinkContext,
        subtask: SubtaskIndex,
        metrics: Arc<SubtaskMetrics>,
    ) -> Result<Self> {
        Ok(StreamWriter {
            encoder: recipe.encoder()?,
            accumulator: RecordAccumulator::new(
                Arc::clone(target.log()),
                recipe.guarantee,
                Names::new(context),
                subtask,
            ),
            target,
            stream: None,
            recipe,
            clock: Arc::clone(&context.clock),
            metrics,
            rejected: None,
        })
    }

    async fn stream(&mut self) -> Result<Arc<Stream>> {
        if let Some(stream) = &self.stream {
            return Ok(Arc::clone(stream));
        }
        let stream = self.target.open().await?;
        self.stream = Some(Arc::clone(&stream));
        Ok(stream)
    }

    fn check_kinds(&self, batch: &Batch) -> Result<()> {
        let Some(kinds) = batch.kinds().filter(|_| !self.recipe.takes_changes()) else { return Ok(()) };
        if kinds.values().iter().all(|kind| *kind == RowKind::Insert as i8) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{} takes only rows that are appended, and was given updates or deletes: {APPEND_ONLY}",
            self.recipe.owner
        )))
    }

    /// Puts the records of a batch into the accumulator. Returns the rows whose record the log cannot take, and why.
    fn collect(&mut self, batch: &Batch, stream: &Stream, now: Timestamp) -> Result<Vec<(u32, String)>> {
        let mut refused = Vec::new();
        let rows = batch.rows();
        let records = match &self.recipe.body {
            None => self.encoder.encode(batch)?,
            Some(body) => self.encoder.encode(&batch.with_rows(rows.project(body)?))?,
        };
        let mut keys = match &self.recipe.key {
            RecordKey::Text(columns) => Keys::Texts(Texts::new(rows, columns)?),
            RecordKey::Upsert(key) => {
                Keys::Encoded(key.encoder()?.encode(&Batch::inserts(rows.project(&key.columns)?))?)
            }
        };
        let is_upsert = matches!(self.recipe.key, RecordKey::Upsert(_));
        let timestamps = self.recipe.timestamp.map(|column| floor_to_millis(rows.column(column))).transpose()?;
        let has_shards = stream.shard_count() > 1;
        for (row, value) in records.iter().enumerate() {
            let value = match batch.kind(row) {
                // The row that comes behind it has the same key.
                RowKind::UpdateBefore if is_upsert => continue,
                RowKind::Delete if is_upsert => None,
                _ => Some(value),
            };
            let key = keys.of(row)?;
            let bytes = value.map_or(0, <[u8]>::len) + key.map_or(0, <[u8]>::len);
            if bytes > RECORD_BYTES_MAX {
                let limit = RECORD_BYTES_MAX >> 20;
                refused
                    .push((row as u32, format!("the record has {bytes} bytes, and the log takes up to {limit} MiB")));
                continue;
            }
            // Hashing a key is dear, and one shard needs no choice.
            let shard = if has_shards { stream.route(key) } else { ShardId(0) };
            let timestamp = timestamps
                .as_ref()
                .filter(|array| array.is_valid(row))
                .map_or(now, |array| Timestamp(array.value(row)));
            let record = Record { key, value, timestamp, headers: &[] };
            self.accumulator.push(stream, shard, &record)?;
        }
        Ok(refused)
    }
}

#[async_trait]
impl SinkWriter for StreamWriter {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        self.check_kinds(&batch)?;
        let stream = self.stream().await?;
        let now = self.clock.now();
        let refused = self.collect(&batch, &stream, now)?;
        self.rejected = RejectedRows::undelivered(&batch, refused)?;
        self.accumulator.send_due(&stream, now).await
    }

    fn next_flush(&self) -> Option<Timestamp> {
        self.accumulator.next_round()
    }

    async fn flush(&mut self, now: Timestamp) -> Result<()> {
        match &self.stream {
            Some(stream) => self.accumulator.send_due(stream, now).await,
            None => Ok(()),
        }
    }

    fn take_rejected(&mut self) -> Option<RejectedRows> {
        self.rejected.take()
    }

    async fn prepare(&mut self, _: CheckpointId) -> Result<Prepared> {
        let prepared = self.accumulator.prepare(self.stream.as_deref()).await?;
        // Counted here rather than at the commit, as the counters are part of the same checkpoint.
        self.metrics.add_delivered_rows(prepared.records);
        self.metrics.add_delivered_bytes(prepared.bytes);
        let committables = prepared.transaction.map(|transaction| Transactions::new(vec![transaction]).encode());
        Ok(Prepared { state: Bytes::new(), committables: committables.into_iter().collect() })
    }
}
