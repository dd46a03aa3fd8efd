//! A source and a sink in memory: for tests, examples, and programs that embed the runtime.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use coulee_model::{CheckpointId, SubtaskIndex};
use parking_lot::Mutex;

use crate::connector::{
    CommitOn, Enumeration, KnownSplits, Prepared, Sink, SinkCommitter, SinkContext, SinkWriter, Source, SourceContext,
    SourceEvent, SourceReader, SplitId, SplitStart,
};
use crate::metrics::SubtaskMetrics;
use crate::state::Facet;
use crate::{Batch, Error, Result};

/// Rows in memory, as one or more splits. Bounded.
#[derive(Debug, Clone)]
pub struct MemorySource {
    schema: SchemaRef,
    splits: Arc<Vec<Vec<Batch>>>,
    is_changelog: bool,
}

impl MemorySource {
    /// One split for each list of batches, which all have the schema.
    pub fn new(schema: SchemaRef, splits: Vec<Vec<RecordBatch>>) -> Self {
        let inserts = |batches: Vec<RecordBatch>| batches.into_iter().map(Batch::inserts).collect();
        MemorySource { schema, splits: Arc::new(splits.into_iter().map(inserts).collect()), is_changelog: false }
    }

    /// The same for batches of a changelog.
    pub fn changelog(schema: SchemaRef, splits: Vec<Vec<Batch>>) -> Self {
        MemorySource { schema, splits: Arc::new(splits), is_changelog: true }
    }
}

#[async_trait]
impl Source for MemorySource {
    fn describe(&self) -> String {
        format!("Memory: {} splits", self.splits.len())
    }

    fn identity(&self) -> Vec<Facet> {
        vec![Facet::new("reads", "memory")]
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn is_bounded(&self) -> bool {
        true
    }

    fn is_changelog(&self) -> bool {
        self.is_changelog
    }

    async fn enumerate(&self, known: KnownSplits) -> Result<Enumeration> {
        Ok(known.of((0..self.splits.len()).map(|split| SplitId(format!("{split:05}"))), "rows in memory")?.into())
    }

    async fn open(&self, splits: Vec<SplitStart>, context: SourceContext) -> Result<Box<dyn SourceReader>> {
        let mut open = Vec::new();
        for split in splits {
            let index: usize =
                split.id.0.parse().map_err(|_| Error::internal(format!("no split '{}' in memory", split.id.0)))?;
            let row = match split.position {
                Some(position) => u64::from_be_bytes(
                    position.as_ref().try_into().map_err(|_| Error::corrupt("a position in memory has not 8 bytes"))?,
                ),
                None => 0,
            };
            open.push(OpenSplit { index, row, ended: false, paused: false });
        }
        Ok(Box::new(MemoryReader {
            batches: self.splits.clone(),
            is_changelog: self.is_changelog,
            open,
            turn: 0,
            batch_rows: context.batch_rows,
        }))
    }
}

struct OpenSplit {
    index: usize,
    row: u64,
    ended: bool,
    paused: bool,
}

struct MemoryReader {
    batches: Arc<Vec<Vec<Batch>>>,
    is_changelog: bool,
    open: Vec<OpenSplit>,
    turn: usize,
    batch_rows: usize,
}

#[async_trait]
impl SourceReader for MemoryReader {
    async fn next(&mut self) -> Result<SourceEvent> {
        let count = self.open.len();
        let live = (0..count).map(|step| (self.turn + step) % count).find(|split| {
            let open = &self.open[*split];
            !open.ended && !open.paused
        });
        let Some(split) = live else { return std::future::pending().await };
        self.turn = split + 1;
        let open = &mut self.open[split];
        let mut skip = open.row as usize;
        for batch in &self.batches[open.index] {
            if skip < batch.len() {
                let part = batch.slice(skip, (batch.len() - skip).min(self.batch_rows));
                open.row += part.len() as u64;
                return Ok(match self.is_changelog {
                    true => SourceEvent::Changes { split, changes: part, rejected: None },
                    false => SourceEvent::Rows { split, rows: part.into_rows(), rejected: None },
                });
            }
            skip -= batch.len();
        }
        open.ended = true;
        Ok(SourceEvent::Ended { split })
    }

    fn set_paused(&mut self, split: usize, paused: bool) {
        self.open[split].paused = paused;
    }

    fn position(&self, split: usize) -> Bytes {
        Bytes::from(self.open[split].row.to_be_bytes().to_vec())
    }
}

/// Keeps what it is given: rows become visible when their checkpoint commits.
#[derive(Debug, Clone, Default)]
pub struct MemorySink {
    batches: Arc<Mutex<Batches>>,
    commit_on: CommitOn,
}

/// What each writer's checkpoints hold.
#[derive(Debug, Default)]
struct Batches {
    prepared: BTreeMap<(CheckpointId, SubtaskIndex), Vec<Batch>>,
    delivered: BTreeMap<(CheckpointId, SubtaskIndex), Vec<Batch>>,
}

impl Batches {
    /// Makes visible what is named by the checkpoint (u64) and the subtask (u32) that prepared it, unless it is already.
    fn deliver(&mut self, committables: &[Bytes]) -> Result<()> {
        for committable in committables {
            let damaged = || Error::corrupt("what a memory sink commits has not 12 bytes");
            let (checkpoint, subtask) = committable.split_first_chunk().ok_or_else(damaged)?;
            let subtask = subtask.try_into().map_err(|_| damaged())?;
            let key = (CheckpointId(u64::from_be_bytes(*checkpoint)), SubtaskIndex(u32::from_be_bytes(subtask)));
            if let Some(batches) = self.prepared.remove(&key) {
                self.delivered.insert(key, batches);
            }
        }
        Ok(())
    }
}

impl MemorySink {
    /// An empty one, whose rows become visible when `commit_on` is durable.
    pub fn committing_on(commit_on: CommitOn) -> Self {
        MemorySink { commit_on, ..MemorySink::default() }
    }

    /// The visible rows, in the order of checkpoints.
    pub fn rows(&self) -> Vec<RecordBatch> {
        self.batches().into_iter().map(Batch::into_rows).collect()
    }

    /// The same with what happened to them, when they are a changelog.
    pub fn batches(&self) -> Vec<Batch> {
        self.batches.lock().delivered.values().flatten().cloned().collect()
    }
}

#[async_trait]
impl Sink for MemorySink {
    fn describe(&self) -> String {
        "Memory".to_owned()
    }

    fn refuses_changelog(&self) -> Option<&'static str> {
        None
    }

    fn commit_on(&self) -> CommitOn {
        self.commit_on
    }

    async fn recover(&self, _: &SinkContext, _: &[Bytes], committables: &[Bytes]) -> Result<()> {
        let mut batches = self.batches.lock();
        batches.deliver(committables)?;
        batches.prepared.clear();
        Ok(())
    }

    async fn committer(&self, _: &SinkContext) -> Result<Box<dyn SinkCommitter>> {
        Ok(Box::new(MemoryCommitter(self.batches.clone())))
    }

    async fn open(
        &self,
        _: &SinkContext,
        subtask: SubtaskIndex,
        _: &[Bytes],
        metrics: Arc<SubtaskMetrics>,
    ) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(MemoryWriter { subtask, batches: self.batches.clone(), written: Vec::new(), metrics }))
    }
}

struct MemoryWriter {
    subtask: SubtaskIndex,
    batches: Arc<Mutex<Batches>>,
    written: Vec<Batch>,
    metrics: Arc<SubtaskMetrics>,
}

#[async_trait]
impl SinkWriter for MemoryWriter {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        self.written.push(batch);
        Ok(())
    }

    async fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Prepared> {
        let written = std::mem::take(&mut self.written);
        if written.is_empty() {
            return Ok(Prepared::default());
        }
        self.metrics.add_delivered_rows(written.iter().map(|batch| batch.len() as u64).sum());
        self.batches.lock().prepared.insert((checkpoint, self.subtask), written);
        let committable = [&checkpoint.0.to_be_bytes()[..], &self.subtask.0.to_be_bytes()].concat();
        Ok(Prepared { state: Bytes::new(), committables: vec![committable.into()] })
    }
}

struct MemoryCommitter(Arc<Mutex<Batches>>);

#[async_trait]
impl SinkCommitter for MemoryCommitter {
    async fn commit(&mut self, _: CheckpointId, committables: Vec<Bytes>) -> Result<()> {
        self.0.lock().deliver(&committables)
    }
}
