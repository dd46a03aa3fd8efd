//! Tests of the stream connector: a log in a temporary folder, and tables of `id BIGINT, name STRING`.

mod sink;
mod source;
mod tables;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use bytes::Bytes;
use coulee_log::{BatchBuilder, Compression, Isolation, Log, LogSettings, Record};
use coulee_model::{JobName, ManualClock, OperatorId, SequenceNumber, ShardId, StreamName, SubtaskIndex, Timestamp};
use coulee_runtime::Batch;
use coulee_runtime::connector::{
    KnownSplits, SinkContext, Source, SourceContext, SourceEvent, SourceReader, SplitId, SplitStart,
};
use coulee_runtime::metrics::SubtaskMetrics;
use coulee_runtime::table::{Connector, TableSpec};

use super::StreamConnector;

/// A log in a folder that lasts as long as the test.
struct Place {
    folder: tempfile::TempDir,
    log: Option<Arc<Log>>,
}

impl Place {
    fn new() -> Self {
        let mut place = Place { folder: folder(), log: None };
        place.reopen();
        place
    }

    /// What a process that is killed now leaves behind, opened by the next one.
    fn crashed(&self) -> Place {
        // Again if something changed meanwhile: the log removes and renames files on threads of its own, and a copy is no instant.
        loop {
            let mut place = Place { folder: folder(), log: None };
            let before = listing(self.folder.path());
            if copy(self.folder.path(), place.folder.path()).is_ok() && listing(self.folder.path()) == before {
                place.reopen();
                return place;
            }
        }
    }

    /// Closes the log, as the end of the process would, and opens it again.
    fn reopen(&mut self) {
        drop(self.log.take());
        // Small segments, so that retention has something to remove.
        let settings = LogSettings { segment_bytes: 1 << 10, ..Default::default() };
        let log = Log::open(&self.folder.path().join("log"), settings, Arc::new(ManualClock::new(Timestamp(0))));
        self.log = Some(Arc::new(log.expect("an open log")));
    }

    fn log(&self) -> &Arc<Log> {
        self.log.as_ref().expect("it is open")
    }

    fn connector(&self) -> StreamConnector {
        StreamConnector::new(Arc::clone(self.log()))
    }

    /// Appends values to a shard of the stream "t", one batch per call.
    fn append(&self, shard: u32, values: &[&[u8]]) {
        let stream = self.log().stream(&StreamName::new("t").expect("a name")).expect("the stream");
        let shard = stream.shard(ShardId(shard)).expect("the shard");
        let mut batch = BatchBuilder::new(Compression::None);
        for (i, value) in values.iter().enumerate() {
            let value = (!value.is_empty()).then_some(*value);
            batch.push(&Record { key: Some(b"k"), value, timestamp: Timestamp(1000 + i as i64), headers: &[] });
        }
        shard.append(batch).now();
    }

    /// The values of every committed record of a stream, by shard.
    fn values(&self, stream: &str) -> Vec<Vec<String>> {
        let stream = self.log().stream(&StreamName::new(stream).expect("a name")).expect("the stream");
        let shard = |shard: u32| {
            let shard = stream.shard(ShardId(shard)).expect("the shard");
            let (mut values, mut next) = (Vec::new(), shard.earliest());
            while next < shard.last_stable_offset() {
                let fetched = shard.read(next, 1 << 20, Isolation::ReadCommitted).expect("read");
                for batch in fetched.batches() {
                    let batch = batch.expect("a batch").decode().expect("records");
                    let text = |value: &[u8]| String::from_utf8(value.to_vec()).expect("text");
                    values.extend(batch.records().map(|record| text(record.value.unwrap_or_default())));
                }
                next = fetched.next;
            }
            values
        };
        (0..stream.shard_count()).map(shard).collect()
    }

    fn sink_context(&self) -> SinkContext {
        SinkContext {
            job: JobName::new("j").expect("a name"),
            incarnation: "0123456789ab".to_owned(),
            uid: "sink".to_owned(),
            spool: self.folder.path().join("spool"),
            clock: Arc::new(ManualClock::new(Timestamp(5000))),
        }
    }
}

/// In memory where the system has a folder there: processes die here, not machines, and syncing takes its time.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            std::fs::create_dir(&target)?;
            copy(&path, &target)?;
        } else {
            std::fs::copy(&path, &target)?;
        }
    }
    Ok(())
}

/// All files below a folder, each with its length and when it was changed; what vanishes meanwhile is left out.
fn listing(folder: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let mut found = BTreeMap::new();
    for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            found.extend(listing(&path));
        } else if let Ok(metadata) = path.metadata() {
            found.insert(path, (metadata.len(), metadata.modified().expect("a time")));
        }
    }
    found
}

/// Waits for an append within an asynchronous test, whose thread must not block.
trait Now {
    fn now(self);
}

impl Now for coulee_log::Append {
    fn now(self) {
        std::thread::scope(|scope| scope.spawn(|| self.wait().expect("appended")).join().expect("no panic"));
    }
}

fn columns() -> SchemaRef {
    let fields = [Field::new("id", DataType::Int64, true), Field::new("name", DataType::Utf8, true)];
    Arc::new(Schema::new(fields.to_vec()))
}

fn table(options: &[(&str, &str)]) -> TableSpec {
    TableSpec {
        name: "t".to_owned(),
        schema: columns(),
        metadata_columns: BTreeMap::new(),
        primary_key: Vec::new(),
        partitioned_by: Vec::new(),
        options: options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        created_by: "test".to_owned(),
    }
}

fn metrics() -> Arc<SubtaskMetrics> {
    Arc::new(SubtaskMetrics::new(OperatorId(0), SubtaskIndex(0)))
}

fn source_context(batch_rows: usize) -> SourceContext {
    SourceContext { batch_rows, clock: Arc::new(ManualClock::new(Timestamp(0))), metrics: metrics() }
}

fn rows(ids: &[i64]) -> Batch {
    let names: Vec<String> = ids.iter().map(|id| format!("n{id}")).collect();
    let columns = vec![Arc::new(Int64Array::from(ids.to_vec())) as _, Arc::new(StringArray::from(names)) as _];
    Batch::inserts(RecordBatch::try_new(self::columns(), columns).expect("rows"))
}

async fn open(source: &dyn Source, splits: &[(&str, Option<Bytes>)], batch_rows: usize) -> Box<dyn SourceReader> {
    let starts =
        splits.iter().map(|(id, position)| SplitStart { id: SplitId((*id).into()), position: position.clone() });
    source.open(starts.collect(), source_context(batch_rows)).await.expect("a reader")
}

fn ids(rows: &RecordBatch) -> Vec<i64> {
    rows.column(0).as_primitive::<Int64Type>().values().to_vec()
}

/// A source of both columns.
fn source(place: &Place, options: &[(&str, &str)]) -> Arc<dyn Source> {
    place.connector().source(&table(options), &[0, 1]).expect("a source")
}

fn json(id: i64) -> Vec<u8> {
    format!("{{\"id\":{id},\"name\":\"n{id}\"}}").into_bytes()
}

/// Appends records to a shard, `per_batch` to a batch.
fn append_ids(place: &Place, shard: u32, ids: impl IntoIterator<Item = i64>, per_batch: usize) {
    let values: Vec<Vec<u8>> = ids.into_iter().map(json).collect();
    for part in values.chunks(per_batch) {
        place.append(shard, &part.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
}

fn end(place: &Place, stream: &str, shard: u32) -> SequenceNumber {
    let stream = place.log().stream(&StreamName::new(stream).expect("a name")).expect("the stream");
    stream.shard(ShardId(shard)).expect("the shard").end()
}

fn is_rows(event: &SourceEvent) -> bool {
    matches!(event, SourceEvent::Rows { .. })
}
