//! The contracts of sources and sinks, kept by those in memory; and splits that come while a job runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use coulee_model::{JobName, ManualClock, SystemClock, Timestamp};
use coulee_runtime::conformance::{SinkUnderTest, sink_is_exactly_once, source_is_repeatable};
use coulee_runtime::connector::{
    Enumeration, KnownSplits, Sink, SinkContext, Source, SourceContext, SourceEvent, SourceReader, SplitEnumerator,
    SplitId, SplitStart,
};
use coulee_runtime::flow::GraphBuilder;
use coulee_runtime::memory::{MemorySink, MemorySource};
use coulee_runtime::{Batch, Error, Result};
use tokio::sync::Notify;

use crate::{checkpoints, environment, finish, spec};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]))
}

fn rows(numbers: std::ops::Range<i64>) -> RecordBatch {
    RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from_iter_values(numbers))]).unwrap()
}

fn numbers(batches: &[RecordBatch]) -> Vec<i64> {
    let mut numbers: Vec<i64> =
        batches.iter().flat_map(|rows| rows.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
    numbers.sort_unstable();
    numbers
}

#[tokio::test]
async fn a_source_in_memory_keeps_the_contract() {
    let source = MemorySource::new(schema(), vec![vec![rows(0..7), rows(7..9)], Vec::new(), vec![rows(20..21)]]);
    source_is_repeatable(&source, Arc::new(SystemClock)).await;
}

struct Memory(MemorySink);

#[async_trait]
impl SinkUnderTest for Memory {
    fn sink(&self) -> Arc<dyn Sink> {
        Arc::new(self.0.clone())
    }

    fn context(&self) -> SinkContext {
        SinkContext {
            job: JobName::new("j").unwrap(),
            incarnation: "0123456789ab".to_owned(),
            uid: "out".to_owned(),
            spool: "/nonexistent".into(),
            clock: Arc::new(ManualClock::new(Timestamp(0))),
        }
    }

    fn input(&self, n: usize) -> Batch {
        Batch::inserts(rows(3 * n as i64..3 * n as i64 + 3))
    }

    fn expected(&self, n: usize) -> Vec<String> {
        (0..3 * n).map(|number| format!("{number:04}")).collect()
    }

    async fn visible(&mut self) -> Vec<String> {
        numbers(&self.0.rows()).iter().map(|number| format!("{number:04}")).collect()
    }
}

#[tokio::test]
async fn a_sink_in_memory_keeps_the_contract() {
    sink_is_exactly_once(|| Box::new(Memory(MemorySink::default()))).await;
}

/// Splits of ten rows that come one by one, as somebody allows them. Each is named by its number.
#[derive(Debug, Clone, Default)]
struct Growing {
    allowed: Arc<AtomicUsize>,
    more: Arc<Notify>,
    /// Whether splits end to come with those that are allowed.
    closed: bool,
}

const SPLIT_ROWS: i64 = 10;

impl Growing {
    fn allow(&self, splits: usize) {
        self.allowed.store(splits, Ordering::SeqCst);
        self.more.notify_waiters();
    }
}

#[async_trait]
impl Source for Growing {
    fn describe(&self) -> String {
        "Growing".to_owned()
    }

    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn is_bounded(&self) -> bool {
        false
    }

    async fn enumerate(&self, known: KnownSplits) -> Result<Enumeration> {
        let next = known.unfinished.len() + known.finished.len();
        let discovery = GrowingEnumerator { source: self.clone(), next };
        Ok(Enumeration { splits: known.unfinished, discovery: Some(Box::new(discovery)) })
    }

    async fn open(&self, splits: Vec<SplitStart>, _: SourceContext) -> Result<Box<dyn SourceReader>> {
        let mut reader = GrowingReader { splits: Vec::new() };
        reader.add_splits(splits)?;
        Ok(Box::new(reader))
    }
}

#[derive(Debug)]
struct GrowingEnumerator {
    source: Growing,
    next: usize,
}

#[async_trait]
impl SplitEnumerator for GrowingEnumerator {
    async fn discover(&mut self) -> Result<Option<Vec<SplitStart>>> {
        loop {
            let more = self.source.more.notified();
            if self.next < self.source.allowed.load(Ordering::SeqCst) {
                self.next += 1;
                return Ok(Some(vec![SplitStart::new(SplitId(format!("{:03}", self.next - 1)))]));
            }
            if self.source.closed {
                return Ok(None);
            }
            more.await;
        }
    }
}

/// The next row and the end of each split.
struct GrowingReader {
    splits: Vec<(i64, i64, bool)>,
}

#[async_trait]
impl SourceReader for GrowingReader {
    async fn next(&mut self) -> Result<SourceEvent> {
        let Some(split) = self.splits.iter().position(|(_, _, ended)| !ended) else {
            return std::future::pending().await;
        };
        let (next, end, ended) = &mut self.splits[split];
        if next == end {
            *ended = true;
            return Ok(SourceEvent::Ended { split });
        }
        *next += 1;
        Ok(SourceEvent::Rows { split, rows: rows(*next - 1..*next), rejected: None })
    }

    fn position(&self, split: usize) -> Bytes {
        Bytes::copy_from_slice(&self.splits[split].0.to_be_bytes())
    }

    fn add_splits(&mut self, splits: Vec<SplitStart>) -> Result<()> {
        for SplitStart { id, position } in splits {
            let first = id.0.parse::<i64>().map_err(|_| Error::internal("no number"))? * SPLIT_ROWS;
            let at = position.map(|position| i64::from_be_bytes(position.as_ref().try_into().expect("8 bytes")));
            self.splits.push((at.unwrap_or(first), first + SPLIT_ROWS, false));
        }
        Ok(())
    }
}

/// Splits come, are given to both subtasks and read, over restarts; each row is there once, and the job ends when none will come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn splits_that_come_while_a_job_runs_are_read_once() {
    let folder = tempfile::tempdir().unwrap();
    let sink = MemorySink::default();
    let mut source = Growing::default();
    let graph = |source: &Growing, parallelism| {
        let builder = GraphBuilder::new(parallelism);
        builder.source("in", Arc::new(source.clone())).unwrap().sink("out", Arc::new(sink.clone())).unwrap();
        builder.finish().unwrap()
    };
    for (splits, parallelism) in [(3, 2), (4, 1), (9, 3)] {
        let job = coulee_runtime::job::launch(spec(graph(&source, parallelism)), environment(folder.path())).unwrap();
        source.allow(splits);
        while numbers(&sink.rows()).len() < splits * SPLIT_ROWS as usize {
            assert!(!checkpoints(&job, 1).await, "it ended: {:?}", job.outcome().await);
        }
        job.cancel();
        job.outcome().await;
    }
    // The last ones are enumerated, and then the source says that it is complete.
    source.closed = true;
    source.allow(12);
    finish(graph(&source, 2), folder.path()).await;
    assert_eq!(numbers(&sink.rows()), (0..120).collect::<Vec<_>>());
}
