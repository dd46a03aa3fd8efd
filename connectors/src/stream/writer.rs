//! The writer: rows become records in a staged file, and staged files become appends once their checkpoint is durable.
//!
//! A staged file is removed when a durable checkpoint does not list it any more, and not as soon as it is delivered: as
//! long as a restart may ask for it, it is there.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, TimeUnit, TimestampMillisecondType};
use async_trait::async_trait;
use bytes::Bytes;
use coulee_log::{ProducerId, Stream};
use coulee_model::{CheckpointId, Clock, ShardId, SubtaskIndex, Timestamp};
use coulee_runtime::connector::{SinkContext, SinkWriter};
use coulee_runtime::metrics::SubtaskMetrics;
use coulee_runtime::{Batch, Error, Result, RowKind};

use super::delivery::deliver;
use super::keys::Keys;
use super::sink::{Recipe, Target, blocking};
use super::staged::{self, Staged, StagedRecord, StagedWriter};
use super::state::{Numberings, WriterState};
use crate::format::RecordEncoder;

pub(super) struct StreamWriter {
    target: Arc<Target>,
    /// Found when the first row is written.
    stream: Option<Arc<Stream>>,
    recipe: Arc<Recipe>,
    encoder: Box<dyn RecordEncoder>,
    spool: PathBuf,
    clock: Arc<dyn Clock>,
    metrics: Arc<SubtaskMetrics>,
    producer: ProducerId,
    /// After everything delivered.
    numbering: Numberings,
    /// What was written since the last `prepare`.
    current: StagedWriter,
    /// Prepared, not delivered; oldest first.
    prepared: VecDeque<(CheckpointId, Staged)>,
    /// Delivered, but the last state lists them.
    delivered: Vec<PathBuf>,
    /// Not listed from this checkpoint on.
    obsolete: Vec<(CheckpointId, PathBuf)>,
}

impl StreamWriter {
    /// `first_file` is the number of its first file; `inherited` are the files of former writers, which recovery has delivered.
    pub(super) fn new(
        target: Arc<Target>,
        recipe: Arc<Recipe>,
        context: &SinkContext,
        subtask: SubtaskIndex,
        first_file: u64,
        inherited: Vec<PathBuf>,
        metrics: Arc<SubtaskMetrics>,
    ) -> Result<Self> {
        Ok(StreamWriter {
            encoder: recipe.encoder()?,
            target,
            stream: None,
            recipe,
            spool: context.spool.clone(),
            clock: Arc::clone(&context.clock),
            metrics,
            producer: new_producer(),
            numbering: Numberings::new(),
            current: StagedWriter::first(&context.spool, subtask.0, first_file),
            prepared: VecDeque::new(),
            delivered: inherited,
            obsolete: Vec::new(),
        })
    }

    fn stream(&mut self) -> Result<Arc<Stream>> {
        if self.stream.is_none() {
            self.stream = Some(self.target.stream()?);
        }
        Ok(Arc::clone(self.stream.as_ref().expect("it was just found")))
    }

    fn check_kinds(&self, batch: &Batch) -> Result<()> {
        let Some(kinds) = batch.kinds() else { return Ok(()) };
        if kinds.values().iter().all(|kind| *kind == RowKind::Insert as i8) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{}: a stream keeps inserts only, but the query changes or deletes rows: aggregate in windows, or write to a \
             table that can be updated",
            self.recipe.owner
        )))
    }

    /// Adds the records of a batch to the current file.
    fn stage(&mut self, batch: &Batch, stream: &Stream) -> Result<()> {
        let rows = batch.rows();
        let records = match &self.recipe.body {
            None => self.encoder.encode(rows)?,
            Some(body) => self.encoder.encode(&rows.project(body)?)?,
        };
        let mut keys = Keys::new(rows, &self.recipe.key)?;
        let timestamps = self
            .recipe
            .timestamp
            .map(|column| arrow::compute::cast(rows.column(column), &DataType::Timestamp(TimeUnit::Millisecond, None)));
        let timestamps = timestamps.transpose()?;
        let timestamps = timestamps.as_ref().map(|array| array.as_primitive::<TimestampMillisecondType>());
        let now = self.clock.now();
        let has_shards = stream.shard_count() > 1;
        for (row, value) in records.iter().enumerate() {
            let key = keys.of(row)?;
            // Hashing a key is dear, and one shard needs no choice.
            let ShardId(shard) = if has_shards { stream.route(key) } else { ShardId(0) };
            let timestamp =
                timestamps.filter(|array| array.is_valid(row)).map_or(now, |array| Timestamp(array.value(row)));
            self.current.push(&StagedRecord { shard, timestamp, key, value })?;
        }
        Ok(())
    }
}

#[async_trait]
impl SinkWriter for StreamWriter {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        self.check_kinds(&batch)?;
        let stream = self.stream()?;
        self.stage(&batch, &stream)
    }

    async fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Bytes> {
        if !self.current.is_empty() {
            let next = self.current.next();
            let finished = std::mem::replace(&mut self.current, next);
            let staged = blocking(self.spool.clone(), move |_| finished.finish()).await?;
            // Counted here rather than at the delivery, as the counters are part of the same checkpoint.
            self.metrics.add_delivered_rows(staged.records.values().sum());
            self.metrics.add_delivered_bytes(staged.bytes);
            self.prepared.push_back((checkpoint, staged));
        }
        self.obsolete.extend(self.delivered.drain(..).map(|path| (checkpoint, path)));
        let staged = self.prepared.iter().map(|(_, staged)| staged.clone()).collect();
        Ok(WriterState::new(self.producer, self.numbering.clone(), staged).encode())
    }

    async fn commit(&mut self, checkpoint: CheckpointId) -> Result<()> {
        while let Some((_, staged)) = self.prepared.front().filter(|(of, _)| *of <= checkpoint) {
            let staged = staged.clone();
            let stream = self.stream()?;
            deliver(&stream, &self.spool, &staged, self.producer, &mut self.numbering).await?;
            self.delivered.push(staged.path(&self.spool));
            self.prepared.pop_front();
        }
        let (done, kept) = std::mem::take(&mut self.obsolete).into_iter().partition(|(since, _)| *since <= checkpoint);
        self.obsolete = kept;
        let done: Vec<(CheckpointId, PathBuf)> = done;
        if done.is_empty() {
            return Ok(());
        }
        blocking(self.spool.clone(), move |_| done.iter().try_for_each(|(_, path)| staged::remove(path))).await
    }
}

/// An identity that nobody has used: 63 random bits.
fn new_producer() -> ProducerId {
    ProducerId((uuid::Uuid::new_v4().as_u128() & i64::MAX as u128) as i64)
}
