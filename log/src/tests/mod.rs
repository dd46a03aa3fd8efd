//! Tests of the log through its public face, and what they share: a folder with one small stream in it.

mod batches;
mod faults;
mod layers;
mod lifecycle;
mod power;
mod reading;
mod recovery;
mod schedules;
mod shards;
mod transactions;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use coulee_model::{ManualClock, SequenceNumber, ShardId, StreamName, Timestamp};

use crate::files::storage::{Disk, Storage};
use crate::{
    BatchBuilder, Compression, Fetched, Isolation, Log, LogSettings, ProducerId, Record, Shard, StreamSettings,
};

/// A log in a folder of its own, which can be closed, crashed and opened again.
struct Fixture {
    folder: Arc<tempfile::TempDir>,
    clock: Arc<ManualClock>,
    settings: LogSettings,
    stream: StreamSettings,
    storage: Arc<dyn Storage>,
}

impl Fixture {
    fn new() -> Self {
        Fixture {
            folder: Arc::new(tempfile::tempdir().expect("a folder")),
            clock: Arc::new(ManualClock::new(Timestamp(1_000_000))),
            settings: LogSettings {
                segment_bytes: 1024,
                index_interval_bytes: 256,
                committer_threads: 2,
                ..Default::default()
            },
            stream: StreamSettings::default(),
            storage: Arc::new(Disk),
        }
    }

    /// In memory where the system has a folder there, for what kills processes and not machines.
    fn in_memory() -> Self {
        Fixture { folder: Arc::new(folder_in_memory()), ..Self::new() }
    }

    /// Segments so large that there is only one.
    fn with_one_segment() -> Self {
        let mut fixture = Self::new();
        fixture.settings.segment_bytes = 1 << 20;
        fixture
    }

    /// The same log with other settings.
    fn same(&self) -> Fixture {
        Fixture {
            folder: Arc::clone(&self.folder),
            clock: Arc::clone(&self.clock),
            settings: self.settings.clone(),
            stream: self.stream.clone(),
            storage: Arc::clone(&self.storage),
        }
    }

    /// A copy of the folder as it is now: what a process that is killed leaves behind.
    fn crashed(&self) -> Fixture {
        let is_in_memory = self.folder.path().starts_with(MEMORY);
        let folder = if is_in_memory { folder_in_memory() } else { tempfile::tempdir().expect("a folder") };
        let folder = Arc::new(folder);
        copy(self.folder.path(), folder.path());
        Fixture { folder, storage: Arc::new(Disk), ..self.same() }
    }

    fn try_open(&self) -> crate::Result<Log> {
        let storage = Arc::clone(&self.storage);
        Log::open_on(storage, self.folder.path(), self.settings.clone(), Arc::clone(&self.clock) as _)
    }

    /// The log and its one shard; the stream is made the first time.
    fn open(&self) -> (Log, Arc<Shard>) {
        let log = self.try_open().expect("the log opens");
        let stream = log.stream(&name()).or_else(|_| log.create_stream(&name(), self.stream.clone()));
        let shard = stream.expect("a stream").shard(ShardId(0)).expect("the shard opens");
        (log, shard)
    }

    fn shard_folder(&self) -> PathBuf {
        self.folder.path().join("streams").join(name().as_str()).join("00000")
    }

    /// The segment files, oldest first.
    fn segments(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.shard_folder()).expect("the shard's folder");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        let mut paths: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
        paths.sort();
        paths
    }

    /// Removes what an orderly shutdown or a roll leaves behind: the next start has to look at every batch.
    fn forget_shortcuts(&self) {
        let stream = self.folder.path().join("streams").join(name().as_str());
        let shards =
            std::fs::read_dir(stream).expect("the stream's folder").map(|entry| entry.expect("an entry").path());
        let files =
            shards.filter(|path| path.is_dir()).flat_map(|shard| std::fs::read_dir(shard).expect("a shard's folder"));
        for path in files.map(|entry| entry.expect("an entry").path()) {
            if path.extension().is_some_and(|e| e == "index" || e == "producers") {
                std::fs::remove_file(path).expect("remove");
            }
        }
    }
}

const MEMORY: &str = "/dev/shm";

fn folder_in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in(MEMORY).or_else(|_| tempfile::tempdir()).expect("a folder")
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            std::fs::create_dir(&target).expect("a folder");
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("copied");
        }
    }
}

fn name() -> StreamName {
    StreamName::new("flights").expect("a name")
}

fn at(sequence: u64) -> SequenceNumber {
    SequenceNumber(sequence)
}

/// A batch of records whose values are `values` as text, each with its number as timestamp.
fn batch(values: std::ops::Range<u64>) -> BatchBuilder {
    batch_as(Compression::None, values)
}

fn batch_as(compression: Compression, values: std::ops::Range<u64>) -> BatchBuilder {
    let mut batch = BatchBuilder::new(compression);
    for value in values {
        let text = value.to_string();
        let timestamp = Timestamp(value as i64);
        batch.push(&Record { key: Some(b"key"), value: Some(text.as_bytes()), timestamp, headers: &[] });
    }
    batch
}

fn from_producer(epoch: i16, first: i32, count: u64) -> BatchBuilder {
    batch(0..count).producer(ProducerId(7), epoch, first)
}

/// The values of all records that a read returned, with their sequence numbers.
fn records(fetched: &Fetched) -> Vec<(u64, u64)> {
    let mut records = Vec::new();
    for batch in fetched.batches() {
        let batch = batch.expect("a batch").decode().expect("decodes");
        for record in batch.records() {
            let text = std::str::from_utf8(record.value.expect("a value")).expect("text");
            records.push((record.sequence.0, text.parse().expect("a number")));
        }
    }
    records
}

/// The values of all records of a shard, after checking that their sequence numbers are dense.
fn all_values(shard: &Shard) -> Vec<u64> {
    let mut values = Vec::new();
    let mut next = shard.earliest();
    while next < shard.end() {
        let fetched = shard.read(next, 300, Isolation::ReadUncommitted).expect("a read");
        for (sequence, value) in records(&fetched) {
            assert_eq!(sequence, next.0, "dense");
            next = next.plus(1);
            values.push(value);
        }
        assert_eq!(fetched.next, next);
    }
    values
}

fn append(shard: &Arc<Shard>, values: std::ops::Range<u64>) {
    shard.append(batch(values)).wait().expect("an append");
}

fn flip_bit(path: &Path, position: u64) {
    let mut bytes = std::fs::read(path).expect("read");
    bytes[position as usize] ^= 0x10;
    std::fs::write(path, bytes).expect("write");
}
