//! The sink under a driver that crashes between every two steps, against what was written.

use std::collections::BTreeMap;
use std::path::PathBuf;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use coulee_model::{CheckpointId, ErrorKind, JobName, ManualClock, OperatorId, Timestamp};
use coulee_runtime::Batch;
use coulee_runtime::conformance::{SinkAttempt, SinkCheckpoint, SinkUnderTest, sink_is_exactly_once};
use coulee_runtime::connector::{KnownSplits, Prepared, Source as _, SourceContext, SourceEvent};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

use super::*;
use crate::filesystem::OPEN_FILES;
use crate::filesystem::settings::option_specs;
use crate::filesystem::source::FilesystemSource;

/// A sink of `day STRING, n BIGINT`, partitioned by day, with its spool, its target and its clock.
struct Rig {
    folder: tempfile::TempDir,
    target: Location,
    options: Vec<(String, String)>,
    partitioned: bool,
    clock: Arc<ManualClock>,
    sink: Arc<FilesystemSink>,
    metrics: Arc<SubtaskMetrics>,
}

const INCARNATION: &str = "0123456789ab";

impl Rig {
    fn new(target: Option<Location>, options: &[(&str, &str)], partitioned: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let target = target.unwrap_or_else(|| Location::Local(folder.path().join("out")));
        let mut options: Vec<_> = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        options.push(("path".to_owned(), "out".to_owned()));
        if !options.iter().any(|(key, _)| key == "format") {
            options.push(("format".to_owned(), "parquet".to_owned()));
        }
        let (table, checked) = table(&options, partitioned);
        let sink = Arc::new(FilesystemSink::new(target.clone(), &table, &checked).unwrap());
        let metrics = Arc::new(SubtaskMetrics::new(OperatorId(1), SubtaskIndex(0)));
        Rig { folder, target, options, partitioned, clock: Arc::new(ManualClock::new(Timestamp(0))), sink, metrics }
    }

    fn context(&self) -> SinkContext {
        SinkContext {
            job: JobName::new("job").unwrap(),
            incarnation: INCARNATION.to_owned(),
            uid: "out".to_owned(),
            spool: self.folder.path().join("spool"),
            clock: self.clock.clone(),
        }
    }

    async fn writer(&self, subtask: u32, states: &[Bytes]) -> Box<dyn SinkWriter> {
        self.sink.open(&self.context(), SubtaskIndex(subtask), states, self.metrics.clone()).await.unwrap()
    }

    async fn commit(&self, checkpoint: u64, prepared: Prepared) {
        let mut committer = self.sink.committer(&self.context()).await.unwrap();
        committer.commit(CheckpointId(checkpoint), prepared.committables).await.unwrap();
    }

    /// Resumes with one writer.
    async fn begin(&self, from: &SinkCheckpoint) -> SinkAttempt {
        SinkAttempt::begin(self.sink.as_ref(), &self.context(), from, 1).await.unwrap()
    }

    fn spooled(&self) -> Vec<PathBuf> {
        let folders = std::fs::read_dir(self.folder.path().join("spool")).unwrap();
        let files = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
        files.map(|file| file.unwrap().path()).collect()
    }

    /// Every object below the target, by key.
    async fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        match &self.target {
            Location::Local(root) => {
                let files = crate::filesystem::listing::list(&self.target, None).await.unwrap_or_default();
                let key = |file: &str| file[root.to_str().unwrap().len() + 1..].to_owned();
                files.iter().map(|file| (key(&file.path), std::fs::read(&file.path).unwrap())).collect()
            }
            Location::Object { store, .. } => {
                let mut objects = BTreeMap::new();
                for meta in store.list(None).try_collect::<Vec<_>>().await.unwrap() {
                    let bytes = store.get(&meta.location).await.unwrap().bytes().await.unwrap();
                    objects.insert(meta.location.to_string(), bytes.to_vec());
                }
                objects
            }
        }
    }

    /// All rows below the target, as the source reads them: `(day, n)`, sorted.
    async fn rows(&self) -> Vec<(Option<String>, i64)> {
        let (table, checked) = table(&self.options, self.partitioned);
        let source = FilesystemSource::new(self.target.clone(), &table, &checked, &[0, 1]).unwrap();
        let Ok(found) = source.enumerate(KnownSplits::default()).await else { return Vec::new() };
        let (splits, count) = (found.splits.clone(), found.splits.len());
        let context = SourceContext { batch_rows: 1000, clock: self.clock.clone(), metrics: self.metrics.clone() };
        let mut reader = source.open(splits, context).await.unwrap();
        let (mut rows, mut ended) = (Vec::new(), 0);
        while ended < count {
            match reader.next().await.unwrap() {
                SourceEvent::Rows { rows: batch, .. } => {
                    let days = batch.column(0).as_any().downcast_ref::<StringArray>().unwrap();
                    let numbers = batch.column(1).as_any().downcast_ref::<Int64Array>().unwrap();
                    rows.extend(days.iter().zip(numbers.values()).map(|(day, n)| (day.map(str::to_owned), *n)));
                }
                SourceEvent::Ended { .. } => ended += 1,
                SourceEvent::CaughtUp { .. } | SourceEvent::Moved { .. } => {}
                SourceEvent::Changes { .. } => panic!("files are not a changelog"),
            }
        }
        rows.sort();
        rows
    }
}

fn table(options: &[(String, String)], partitioned: bool) -> (TableSpec, Options) {
    let schema = Schema::new(vec![Field::new("day", DataType::Utf8, true), Field::new("n", DataType::Int64, false)]);
    let table = TableSpec {
        name: "out".to_owned(),
        schema: Arc::new(schema),
        metadata_columns: BTreeMap::new(),
        primary_key: Vec::new(),
        partitioned_by: if partitioned { vec!["day".to_owned()] } else { Vec::new() },
        options: options.iter().cloned().collect(),
        created_by: "job".to_owned(),
    };
    let checked = table.options(option_specs()).unwrap();
    (table, checked)
}

/// Five rows numbered from `5 * i`, over the days `a`, `b:c` and null.
fn input(i: usize) -> Batch {
    let numbers: Vec<i64> = (5 * i as i64..5 * (i as i64 + 1)).collect();
    let day = |n: &i64| [Some("a"), Some("b:c"), None][*n as usize % 3];
    let days: StringArray = numbers.iter().map(day).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(days), Arc::new(Int64Array::from(numbers))];
    Batch::inserts(RecordBatch::try_new(table(&[("path".to_owned(), String::new())], false).0.schema, columns).unwrap())
}

fn expected(inputs: usize) -> Vec<(Option<String>, i64)> {
    let day = |n: i64| [Some("a".to_owned()), Some("b:c".to_owned()), None][n as usize % 3].clone();
    let mut rows: Vec<_> = (0..5 * inputs as i64).map(|n| (day(n), n)).collect();
    rows.sort();
    rows
}

const INPUTS: usize = 12;

/// Runs all inputs to the end, with a checkpoint every two of them, and crashes once, after event `crash_at`. Returns how many
/// events there were.
async fn run(rig: &Rig, crash_at: usize) -> usize {
    let (mut durable, mut durable_position) = (SinkCheckpoint::default(), 0);
    let mut events = 0;
    let mut listed: Vec<String> = Vec::new();
    'attempt: loop {
        let mut attempt = rig.begin(&durable).await;
        let mut position = durable_position;
        macro_rules! event {
            () => {
                events += 1;
                if events == crash_at {
                    continue 'attempt;
                }
            };
        }
        loop {
            let last = position == INPUTS;
            if last {
                attempt.finish().await.unwrap();
            } else {
                attempt.writer(0).write(input(position)).await.unwrap();
                position += 1;
                rig.clock.advance(1_000);
            }
            event!();
            if !last && position % 2 == 1 {
                continue;
            }
            let checkpoint = attempt.prepare().await.unwrap();
            event!();
            let committables = checkpoint.committables.iter().map(|bytes| Committable::decode(bytes).unwrap());
            listed.extend(committables.map(|committable| committable.ready.key));
            let id = checkpoint.id;
            (durable, durable_position) = (checkpoint, position);
            event!();
            // The word that a checkpoint is durable comes late: rows behind the barrier are written before it.
            if position < INPUTS {
                attempt.writer(0).write(input(position)).await.unwrap();
                position += 1;
            }
            attempt.commit(id).await.unwrap();
            let visible = rig.objects().await;
            assert!(visible.keys().all(|key| listed.iter().any(|known| key.ends_with(known))), "{:?}", visible.keys());
            event!();
            if last {
                return events;
            }
        }
    }
}

/// Crashes after every event in turn; the result must never differ.
fn crash_everywhere(make: impl Fn() -> Rig) {
    let mut events = usize::MAX;
    let mut crash_at = 0;
    while crash_at <= events {
        let rig = make();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let happened = runtime.block_on(run(&rig, crash_at));
        events = events.min(happened);
        assert_eq!(runtime.block_on(rig.rows()), expected(INPUTS), "crash after event {crash_at}");
        let objects = runtime.block_on(rig.objects());
        assert!(objects.keys().all(|key| !key.contains(".tmp")), "{objects:?}");
        // Waits for threads of writers that were dropped.
        drop(runtime);
        assert_eq!(rig.spooled(), Vec::<PathBuf>::new(), "crash after event {crash_at}");
        crash_at += 1;
    }
    assert!(events > 20, "the script has {events} events");
}

#[test]
fn a_crash_anywhere_changes_nothing() {
    let policy = [("sink.rolling-policy.rollover-interval", "4 s"), ("sink.rolling-policy.row-count", "2")];
    crash_everywhere(|| Rig::new(None, &policy, true));
}

#[test]
fn a_crash_anywhere_changes_nothing_in_an_object_store() {
    let policy = [("sink.rolling-policy.rollover-interval", "3 s"), ("sink.partition.max-open", "2")];
    crash_everywhere(|| Rig::new(Some(memory()), &policy, true));
}

#[test]
fn a_crash_anywhere_changes_nothing_in_lines() {
    // One row per file: rolls are waited for in the middle of a checkpoint.
    for (format, rows) in [("json", "1"), ("csv", "20")] {
        let policy = [("sink.rolling-policy.row-count", rows), ("format", format)];
        crash_everywhere(|| Rig::new(None, &policy, true));
    }
}

fn memory() -> Location {
    Location::Object { store: Arc::new(InMemory::new()), key: "lake/out".to_owned(), root: "s3://bucket".to_owned() }
}

#[tokio::test]
async fn nothing_is_visible_before_commit_and_keys_are_as_documented() {
    let rig = Rig::new(None, &[], true);
    rig.sink.recover(&rig.context(), &[], &[]).await.unwrap();
    let mut writer = rig.writer(3, &[]).await;
    writer.write(input(0)).await.unwrap();
    let prepared = writer.prepare(CheckpointId(1)).await.unwrap();
    rig.commit(1, prepared).await;
    assert!(rig.objects().await.is_empty(), "the buffers outlive a checkpoint");
    assert_eq!(writer.next_delivery(), Some(Timestamp(300_000)));
    writer.finish().await.unwrap();
    let prepared = writer.prepare(CheckpointId(2)).await.unwrap();
    assert!(rig.objects().await.is_empty(), "prepared is not committed");
    rig.commit(2, prepared).await;
    let objects = rig.objects().await;
    let keys: Vec<&str> = objects.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "day=__HIVE_DEFAULT_PARTITION__/part-0123456789ab-3-00000000.parquet",
            "day=a/part-0123456789ab-3-00000001.parquet",
            "day=b%3Ac/part-0123456789ab-3-00000002.parquet",
        ]
    );
    let counted = rig.metrics.figures();
    assert_eq!(counted.get(&OPEN_FILES), Some(0), "all are delivered");
    assert_eq!((counted.delivered_objects(), counted.delivered_rows()), (3, 5));
    assert_eq!(counted.delivered_bytes(), objects.values().map(|bytes| bytes.len() as u64).sum::<u64>());
}

/// One checkpoint with one ready object that was not committed.
async fn prepared(rig: &Rig) -> Prepared {
    rig.sink.recover(&rig.context(), &[], &[]).await.unwrap();
    let mut writer = rig.writer(0, &[]).await;
    writer.write(input(0)).await.unwrap();
    writer.finish().await.unwrap();
    writer.prepare(CheckpointId(1)).await.unwrap()
}

#[tokio::test]
async fn an_object_that_is_there_is_ours_or_a_fence() {
    for target in [None, Some(memory())] {
        let rig = Rig::new(target, &[], false);
        let Prepared { state, committables } = prepared(&rig).await;
        let ready = Committable::decode(&committables[0]).unwrap().ready;
        let context = rig.context();
        let states = [state];

        // Somebody else's object of the same length.
        let foreign = vec![7; ready.bytes as usize];
        let put = |bytes: Vec<u8>| {
            let (target, key) = (rig.target.clone(), ready.key.clone());
            async move {
                match target {
                    Location::Local(root) => std::fs::write(root.join(key), bytes).unwrap(),
                    Location::Object { store, key: prefix, .. } => {
                        let attribute = object_store::Attribute::Metadata("coulee-crc32c".into());
                        let attributes = object_store::Attributes::from_iter([(attribute, "00000000")]);
                        let options = object_store::PutOptions { attributes, ..Default::default() };
                        store
                            .put_opts(&format!("{prefix}/{key}").into(), bytes.into(), options)
                            .await
                            .map(drop)
                            .unwrap();
                    }
                }
            }
        };
        put(foreign).await;
        let error = rig.sink.recover(&context, &states, &committables).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
        put(vec![1, 2, 3]).await;
        let error = rig.sink.recover(&context, &states, &committables).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");

        // Gone again: ours is delivered, and found when it is delivered again without the spool file.
        match &rig.target {
            Location::Local(root) => std::fs::remove_file(root.join(&ready.key)).unwrap(),
            Location::Object { store, key, .. } => {
                store.delete(&format!("{key}/{}", ready.key).into()).await.unwrap();
            }
        }
        rig.sink.recover(&context, &states, &committables).await.unwrap();
        assert!(rig.spooled().is_empty());
        rig.sink.recover(&context, &states, &committables).await.unwrap();
        assert_eq!(rig.rows().await, expected(1));
    }
}

#[tokio::test]
async fn what_is_lost_is_said() {
    let rig = Rig::new(None, &[], false);
    let Prepared { state, committables } = prepared(&rig).await;
    rig.spooled().iter().for_each(|file| std::fs::remove_file(file).unwrap());
    let error = rig.sink.recover(&rig.context(), &[state], &committables).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");

    let rig = Rig::new(None, &[], false);
    rig.sink.recover(&rig.context(), &[], &[]).await.unwrap();
    let mut writer = rig.writer(0, &[]).await;
    writer.write(input(0)).await.unwrap();
    let state = writer.prepare(CheckpointId(1)).await.unwrap().state;
    drop(writer);
    rig.spooled().iter().for_each(|file| std::fs::write(file, "x").unwrap());
    let opened = rig.sink.open(&rig.context(), SubtaskIndex(0), &[state], rig.metrics.clone()).await;
    let error = opened.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("has 1 bytes, expected"), "{error}");
}

#[tokio::test]
async fn buffers_follow_a_change_of_parallelism() {
    let rig = Rig::new(None, &[], true);
    // (subtasks, which states each continues)
    let lives: [&[&[usize]]; 3] = [&[&[], &[]], &[&[0, 1]], &[&[0], &[]]];
    let mut states: Vec<Bytes> = Vec::new();
    let (mut next, mut checkpoint) = (0, CheckpointId(1));
    for (life, subtasks) in lives.into_iter().enumerate() {
        rig.sink.recover(&rig.context(), &states, &[]).await.unwrap();
        let mut new_states = Vec::new();
        for (subtask, from) in subtasks.iter().enumerate() {
            let from: Vec<Bytes> = from.iter().map(|i| states[*i].clone()).collect();
            let mut writer = rig.writer(subtask as u32, &from).await;
            // What the first life delivers, and what it leaves open.
            for last in [false, true] {
                writer.write(input(next)).await.unwrap();
                next += 1;
                if !last || life == 2 {
                    writer.finish().await.unwrap();
                }
                let prepared = writer.prepare(checkpoint).await.unwrap();
                if last {
                    new_states.push(prepared.state.clone());
                }
                rig.commit(checkpoint.0, prepared).await;
                checkpoint = checkpoint.next();
            }
        }
        states = new_states;
    }
    assert_eq!(rig.rows().await, expected(next));
    rig.sink.recover(&rig.context(), &states, &[]).await.unwrap();
    assert!(rig.spooled().is_empty());
}

#[tokio::test]
async fn a_target_that_cannot_be_written_is_refused_at_the_start() {
    let rig = Rig::new(None, &[], false);
    let out = rig.folder.path().join("out");
    std::fs::write(&out, "a file").unwrap();
    let error = rig.sink.recover(&rig.context(), &[], &[]).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot write to {}: it is a file, expected a folder", out.display()));
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn updates_are_refused() {
    let rig = Rig::new(None, &[], false);
    let mut writer = rig.writer(0, &[]).await;
    let rows = input(0).into_rows();
    let kinds = |kind| arrow::array::Int8Array::from(vec![kind; 5]);
    writer.write(Batch::changes(rows.clone(), kinds(0))).await.unwrap();
    let error = writer.write(Batch::changes(rows, kinds(2))).await.unwrap_err();
    assert!(error.to_string().contains("files cannot take a row back"), "{error}");
    assert!(rig.sink.refuses_changelog().is_some());
}

#[tokio::test]
async fn a_large_file_rolls_in_the_background_and_is_not_lost_meanwhile() {
    let rig = Rig::new(None, &[("sink.rolling-policy.file-size", "12 mb")], false);
    rig.sink.recover(&rig.context(), &[], &[]).await.unwrap();
    let mut writer = rig.writer(0, &[]).await;
    let numbers: Vec<i64> = (0..1_000_000).collect();
    let days: StringArray = numbers.iter().map(|_| Some("a")).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(days), Arc::new(Int64Array::from(numbers))];
    let rows = RecordBatch::try_new(input(0).schema(), columns).unwrap();
    writer.write(Batch::inserts(rows)).await.unwrap();
    // Whether the roll is done by now or not, the state has all rows, once.
    let Prepared { state, committables } = writer.prepare(CheckpointId(1)).await.unwrap();
    let open: u64 = WriterState::decode(&state).unwrap().open.iter().map(|open| open.rows).sum();
    let ready: u64 = committables.iter().map(|bytes| Committable::decode(bytes).unwrap().ready.rows).sum();
    assert_eq!(open + ready, 1_000_000);
    drop(writer);
    rig.sink.recover(&rig.context(), std::slice::from_ref(&state), &committables).await.unwrap();
    let mut writer = rig.writer(0, &[state]).await;
    writer.finish().await.unwrap();
    let prepared = writer.prepare(CheckpointId(2)).await.unwrap();
    rig.commit(2, prepared).await;
    assert_eq!(rig.rows().await.len(), 1_000_000);
}

#[async_trait]
impl SinkUnderTest for Rig {
    fn sink(&self) -> Arc<dyn Sink> {
        self.sink.clone()
    }

    fn context(&self) -> SinkContext {
        Rig::context(self)
    }

    fn input(&self, n: usize) -> Batch {
        input(n)
    }

    fn expected(&self, n: usize) -> Vec<String> {
        expected(n).iter().map(|row| format!("{row:?}")).collect()
    }

    async fn visible(&mut self) -> Vec<String> {
        self.rows().await.iter().map(|row| format!("{row:?}")).collect()
    }

    fn crashed(&mut self) {
        let (table, checked) = table(&self.options, self.partitioned);
        self.sink = Arc::new(FilesystemSink::new(self.target.clone(), &table, &checked).unwrap());
    }

    fn is_buffered(&self) -> bool {
        self.options.iter().all(|(key, _)| key != "sink.rolling-policy.row-count")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn files_keep_the_contract_of_sinks() {
    for options in
        [&[("sink.rolling-policy.row-count", "1")][..], &[("format", "json")], &[("sink.commit-on", "snapshot")]]
    {
        for target in [None, Some(memory())] {
            sink_is_exactly_once(|| Box::new(Rig::new(target.as_ref().map(|_| memory()), options, true))).await;
        }
    }
}
