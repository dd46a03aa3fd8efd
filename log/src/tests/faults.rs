//! A disk that tears writes, fails syncs and fills up.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use coulee_model::{Classify, ErrorKind, Timestamp};
use parking_lot::Mutex;

use super::transactions::{id, open, prepare, seen};
use super::{Fixture, all_values, append, at, batch, from_producer, name};
use crate::files::storage::{Disk, SegmentFile, Storage};
use crate::settings::SyncPolicy;
use crate::shard::queue::GROUP_BYTES_MAX;
use crate::{BatchBuilder, Compression, Isolation, LogError, ProducerId, Record, StreamSettings};

/// What the next operations on the disk do.
#[derive(Debug, Default)]
struct Faults {
    /// How much space is left; `None` is plenty.
    space: Option<u64>,
    /// The next write stores only so many bytes and fails.
    torn_write: Option<usize>,
    failed_syncs: usize,
    /// So many syncs find that there is no space.
    full_syncs: usize,
    failed_truncates: usize,
    failed_opens: usize,
    /// How often a sync was asked for.
    syncs: usize,
    /// Held by a test that lets writes through and has syncs wait.
    sync_gate: Arc<Mutex<()>>,
}

#[derive(Debug, Default, Clone)]
struct FaultyDisk(Arc<Mutex<Faults>>);

struct FaultyFile {
    file: Box<dyn SegmentFile>,
    faults: Arc<Mutex<Faults>>,
}

impl Storage for FaultyDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        // The faults are those of segments and the journal, not of the drafts that replace small files.
        if path.extension().is_some_and(|extension| extension == "tmp") {
            return Disk.open(path);
        }
        let mut faults = self.0.lock();
        if faults.failed_opens > 0 {
            faults.failed_opens -= 1;
            // Unlike most failures, this one leaves the name behind.
            std::fs::write(path, b"")?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(Box::new(FaultyFile { file: Disk.open(path)?, faults: Arc::clone(&self.0) }))
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        Disk.create_folder(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        Disk.remove_file(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        Disk.remove_folder(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        Disk.sync_folder(path)
    }
}

impl SegmentFile for FaultyFile {
    fn write_all_at(&mut self, bytes: &[u8], position: u64) -> io::Result<()> {
        let mut faults = self.faults.lock();
        if let Some(length) = faults.torn_write.take() {
            self.file.write_all_at(&bytes[..length], position)?;
            return Err(io::Error::other("the cable was pulled"));
        }
        if let Some(space) = &mut faults.space {
            let written = bytes.len().min(*space as usize);
            *space -= written as u64;
            self.file.write_all_at(&bytes[..written], position)?;
            if written < bytes.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            return Ok(());
        }
        self.file.write_all_at(bytes, position)
    }

    fn sync(&mut self) -> io::Result<()> {
        let gate = Arc::clone(&self.faults.lock().sync_gate);
        drop(gate.lock());
        let mut faults = self.faults.lock();
        faults.syncs += 1;
        if faults.full_syncs > 0 {
            faults.full_syncs -= 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        if faults.failed_syncs > 0 {
            faults.failed_syncs -= 1;
            return Err(io::Error::other("the disk is on fire"));
        }
        self.file.sync()
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        let mut faults = self.faults.lock();
        if faults.failed_truncates > 0 {
            faults.failed_truncates -= 1;
            return Err(io::Error::other("not now"));
        }
        self.file.truncate(bytes)
    }
}

fn faulty() -> (Fixture, FaultyDisk) {
    let disk = FaultyDisk::default();
    let fixture = Fixture { storage: Arc::new(disk.clone()), ..Fixture::new() };
    (fixture, disk)
}

#[test]
fn a_full_disk_refuses_and_works_again_once_there_is_space() {
    let (fixture, disk) = faulty();
    let (log, shard) = fixture.open();
    append(&shard, 0..3);
    shard.append(from_producer(0, 0, 3)).wait().expect("an append");
    disk.0.lock().space = Some(40);
    let error = shard.append(from_producer(0, 3, 3)).wait().unwrap_err();
    assert!(matches!(&error, LogError::DiskFull { folder, .. } if *folder == fixture.shard_folder()), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!((shard.end(), all_values(&shard).len()), (at(6), 6));
    assert_eq!(shard.producer_sequence(ProducerId(7)), Some((0, 2)), "the failed batch is not remembered");

    disk.0.lock().space = None;
    let appended = shard.append(from_producer(0, 3, 3)).wait().expect("there is space");
    assert_eq!((appended.first, appended.duplicate), (at(6), false));
    drop((log, shard));
    fixture.forget_shortcuts();
    assert_eq!(all_values(&fixture.open().1).len(), 9);
}

#[test]
fn a_disk_that_is_full_when_a_segment_begins_leaves_no_trace() {
    let (fixture, disk) = faulty();
    let (log, shard) = fixture.open();
    append(&shard, 0..100);
    let end = shard.end();
    disk.0.lock().failed_opens = 1;
    let error = shard.append(batch(100..200)).wait().unwrap_err();
    assert!(matches!(error, LogError::DiskFull { .. }), "{error}");
    assert_eq!(fixture.segments().len(), 1);
    shard.append(batch(100..200)).wait().expect("there is space");
    assert_eq!((shard.end(), fixture.segments().len()), (end.plus(100), 2));
    drop((log, shard));
    fixture.forget_shortcuts();
    assert_eq!(all_values(&fixture.open().1), (0..200).collect::<Vec<_>>());
}

#[test]
fn after_a_failed_sync_nothing_is_taken_and_the_acknowledged_is_readable() {
    for failure in ["sync", "torn write", "full disk that cannot be cut back", "full sync that cannot be cut back"] {
        let (fixture, disk) = faulty();
        let (log, shard) = fixture.open();
        append(&shard, 0..3);
        {
            let mut faults = disk.0.lock();
            match failure {
                "sync" => faults.failed_syncs = 1,
                "torn write" => faults.torn_write = Some(30),
                "full sync that cannot be cut back" => (faults.full_syncs, faults.failed_truncates) = (1, 1),
                _ => (faults.space, faults.failed_truncates) = (Some(30), 1),
            }
        }
        let error = shard.append(batch(3..6)).wait().unwrap_err();
        assert!(matches!(error, LogError::Poisoned { .. }), "{failure}: {error}");
        assert!(shard.append(batch(3..6)).wait().unwrap_err().to_string().contains("takes no more appends"));
        assert_eq!(all_values(&shard), [0, 1, 2], "{failure}");
        drop((log, shard));

        disk.0.lock().space = None;
        let (_log, shard) = fixture.open();
        let values = all_values(&shard);
        // Whether what failed is there after a restart is undetermined, but it is there whole or not at all.
        assert!(
            values == [0, 1, 2] || (failure.contains("sync") && values == [0, 1, 2, 3, 4, 5]),
            "{failure}: {values:?}"
        );
        append(&shard, 0..1);
    }
}

#[test]
fn a_sync_that_finds_the_disk_full_is_made_good() {
    for held in [0, 3] {
        let (fixture, disk) = faulty();
        let (log, shard) = fixture.open();
        if held > 0 {
            shard.append(from_producer(0, 0, held)).wait().expect("stored");
        }
        disk.0.lock().full_syncs = 1;
        let error = shard.append(from_producer(0, held as i32, 3)).wait().unwrap_err();
        assert!(matches!(error, LogError::DiskFull { .. }), "{error}");
        assert_eq!((shard.end(), all_values(&shard).len() as u64), (at(held), held), "nothing of it");
        let crashed = fixture.crashed();
        assert_eq!(all_values(&crashed.open().1).len() as u64, held, "nor after a crash");

        let appended = shard.append(from_producer(0, held as i32, 3)).wait().expect("there is space");
        assert_eq!((appended.first, appended.duplicate), (at(held), false));
        let segments = if held > 0 { 2 } else { 1 };
        assert_eq!(fixture.segments().len(), segments, "the file that failed takes no more");
        append(&shard, 0..1);
        assert_eq!(fixture.segments().len(), segments);
        drop((log, shard));
        fixture.forget_shortcuts();
        assert_eq!(all_values(&fixture.open().1).len() as u64, held + 4);
    }
}

#[test]
fn a_sync_that_failed_in_the_background_is_not_forgiven_when_the_next_succeeds() {
    let (mut fixture, disk) = faulty();
    fixture.stream.sync = SyncPolicy::Interval { ms: 1 };
    let (log, shard) = fixture.open();
    disk.0.lock().failed_syncs = 1;
    append(&shard, 0..3);
    while disk.0.lock().syncs == 0 {
        std::thread::yield_now();
    }
    let error = shard.append(batch(3..6)).wait().unwrap_err();
    assert!(matches!(error, LogError::Poisoned { .. }), "{error}");
    assert_eq!(all_values(&shard), [0, 1, 2]);
    drop((log, shard));
    assert!(!fixture.segments()[0].with_extension("index").exists(), "no orderly stop: the next start has to check");
}

#[test]
fn a_write_torn_at_any_byte_is_cut_off_by_the_next_start() {
    for torn in (0..140).step_by(7) {
        let (fixture, disk) = faulty();
        let (log, shard) = fixture.open();
        append(&shard, 0..3);
        disk.0.lock().torn_write = Some(torn);
        assert!(shard.append(batch(3..9)).wait().is_err());
        drop((log, shard));
        let (_log, shard) = fixture.open();
        assert_eq!(all_values(&shard), [0, 1, 2], "torn after {torn} bytes");
    }
}

#[test]
fn only_group_streams_sync_before_they_answer() {
    for (sync, expected) in [(SyncPolicy::Group, 3), (SyncPolicy::Interval { ms: 3_600_000 }, 0), (SyncPolicy::Os, 0)] {
        let (mut fixture, disk) = faulty();
        fixture.stream.sync = sync;
        let (log, shard) = fixture.open();
        for _ in 0..3 {
            append(&shard, 0..1);
        }
        assert_eq!((disk.0.lock().syncs, shard.end()), (expected, at(3)), "{sync:?}");
        drop((log, shard));
        assert!(disk.0.lock().syncs >= 1, "{sync:?}: at the latest when it is closed");
        assert_eq!(all_values(&fixture.open().1).len(), 3);
    }
}

#[test]
fn an_interval_stream_syncs_by_itself() {
    let (mut fixture, disk) = faulty();
    fixture.stream.sync = SyncPolicy::Interval { ms: 1 };
    let (_log, shard) = fixture.open();
    append(&shard, 0..1);
    // Waits for the thing itself; the test runner's limit is the only clock.
    while disk.0.lock().syncs == 0 {
        std::thread::yield_now();
    }
}

#[test]
fn appends_that_wait_share_a_sync() {
    let (fixture, disk) = faulty();
    let (_log, shard) = fixture.open();
    append(&shard, 0..1);
    // The disk stands still while this lock is held, and the appends gather.
    let faults = disk.0.lock();
    let before = faults.syncs;
    let appends: Vec<_> = (0..20).map(|i| shard.append(batch(i..i + 1))).collect();
    drop(faults);
    appends.into_iter().for_each(|append| assert!(append.wait().is_ok()));
    let syncs = disk.0.lock().syncs - before;
    // The first may be alone; the others fit into the rest of this segment and the next ones.
    assert!(syncs <= 6, "{syncs} syncs for 20 appends");
}

#[test]
fn more_than_one_group_that_waits_is_written_without_another_append() {
    let (mut fixture, disk) = faulty();
    fixture.settings.segment_bytes = 1 << 30;
    let (_log, shard) = fixture.open();
    append(&shard, 0..1);
    let large = vec![b'1'; GROUP_BYTES_MAX / 2 + 1];
    let faults = disk.0.lock();
    let appends: Vec<_> = (0..4)
        .map(|_| {
            let mut batch = BatchBuilder::new(Compression::None);
            batch.push(&Record { key: None, value: Some(&large), timestamp: Timestamp(0), headers: &[] });
            shard.append(batch)
        })
        .collect();
    drop(faults);
    appends.into_iter().for_each(|append| assert!(append.wait().is_ok()));
    assert_eq!(shard.end(), at(5));
}

#[test]
fn what_nobody_waits_for_is_refused_at_a_limit() {
    let (mut fixture, disk) = faulty();
    fixture.settings.segment_bytes = 1 << 30;
    fixture.stream.sync = SyncPolicy::Os;
    let (_log, shard) = fixture.open();
    append(&shard, 0..1);
    let large = vec![b'1'; 16 << 20];
    let one = || {
        let mut batch = BatchBuilder::new(Compression::None);
        batch.push(&Record { key: None, value: Some(&large), timestamp: Timestamp(0), headers: &[] });
        shard.append(batch)
    };
    let faults = disk.0.lock();
    let mut appends: Vec<_> = (0..18).map(|_| one()).collect();
    drop(faults);
    let refused = appends.pop().expect("many").wait().unwrap_err();
    assert!(matches!(refused, LogError::Overloaded { limit, .. } if limit == 256 << 20), "{refused}");
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    let stored = appends.into_iter().map(|append| append.wait()).filter(Result::is_ok).count();
    assert!(stored >= 15, "{stored}");
    assert_eq!(shard.end(), at(stored as u64 + 1));
    one().wait().expect("there is room again");
}

#[test]
fn the_appends_of_all_shards_share_one_limit() {
    let (mut fixture, disk) = faulty();
    fixture.settings.segment_bytes = 1 << 30;
    fixture.settings.queued_bytes_max = 64 << 20;
    fixture.stream.sync = SyncPolicy::Os;
    let (log, shards) = open(&fixture, 4);
    let large = vec![b'1'; 15 << 20];
    let one = |shard: usize| {
        let mut batch = BatchBuilder::new(Compression::None);
        batch.push(&Record { key: None, value: Some(&large), timestamp: Timestamp(0), headers: &[] });
        shards[shard].append(batch)
    };
    let faults = disk.0.lock();
    let taken: Vec<_> = (0..4).map(one).collect();
    let refused = one(1).wait().unwrap_err();
    assert!(matches!(refused, LogError::Overloaded { bytes, .. } if bytes > 60 << 20), "{refused}");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let waits = |shard: usize| {
        let mut room = Box::pin(shards[shard].room());
        runtime.block_on(std::future::poll_fn(|c| std::task::Poll::Ready(room.as_mut().poll(c).is_pending())))
    };
    assert!((0..4).all(waits), "a shard with little of its own waits for the others");
    drop(faults);
    taken.into_iter().for_each(|append| assert!(append.wait().is_ok()));
    assert!(!waits(1));
    one(1).wait().expect("there is room again");
    drop((shards, log));
}

#[test]
fn written_comes_before_durable_and_readers_wait_for_what_the_policy_says() {
    let (fixture, disk) = faulty();
    let (_log, shard) = fixture.open();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let gate = Arc::clone(&disk.0.lock().sync_gate);
    let held = gate.lock();
    let mut one = shard.append(batch(0..3));
    let written = runtime.block_on(one.written()).expect("written");
    assert_eq!((written.first, written.last), (at(0), at(2)));
    assert_eq!((shard.end(), disk.0.lock().syncs), (at(0), 0), "not durable, and so not visible");
    let is_pending = |one: &mut crate::Append| {
        runtime.block_on(std::future::poll_fn(|c| std::task::Poll::Ready(Pin::new(&mut *one).poll(c).is_pending())))
    };
    assert!(is_pending(&mut one), "a group is acknowledged when it is durable");
    drop(held);
    assert_eq!(runtime.block_on(one.durable()).expect("durable"), written);
    assert_eq!((shard.end(), disk.0.lock().syncs), (at(3), 1));
    // All ways to wait can be taken again.
    assert_eq!(runtime.block_on(one.written()).expect("written"), written);
    assert_eq!(one.wait().expect("stored"), written);
}

#[test]
fn a_batch_that_was_written_may_still_fail_and_its_numbers_are_given_again() {
    let (fixture, disk) = faulty();
    let (_log, shard) = fixture.open();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let gate = Arc::clone(&disk.0.lock().sync_gate);
    let held = gate.lock();
    disk.0.lock().full_syncs = 1;
    let mut one = shard.append(batch(0..3));
    runtime.block_on(one.written()).expect("written");
    drop(held);
    let error = runtime.block_on(one.durable()).unwrap_err();
    assert!(matches!(error, LogError::DiskFull { .. }), "{error}");
    let mut two = shard.append(batch(7..9));
    assert_eq!(runtime.block_on(two.durable()).expect("there is space").first, at(0));
    let error = runtime.block_on(one.written()).unwrap_err();
    assert!(matches!(error, LogError::DiskFull { .. }), "the numbers are those of another batch: {error}");
    assert_eq!(all_values(&shard), [7, 8]);
}

#[test]
fn streams_that_do_not_sync_can_be_asked_for_durable_records() {
    let (mut fixture, disk) = faulty();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    fixture.stream.sync = SyncPolicy::Os;
    let (log, shard) = fixture.open();
    let mut one = shard.append(batch(0..3));
    runtime.block_on(&mut one).expect("acknowledged");
    assert_eq!((shard.end(), disk.0.lock().syncs), (at(3), 0));
    runtime.block_on(one.durable()).expect("durable");
    assert_eq!(disk.0.lock().syncs, 1);
    runtime.block_on(one.durable()).expect("still");
    assert_eq!(disk.0.lock().syncs, 1);

    let interval = StreamSettings { sync: SyncPolicy::Interval { ms: 1 }, ..fixture.stream.clone() };
    log.alter_stream(&name(), interval).expect("altered");
    let mut two = shard.append(batch(3..6));
    runtime.block_on(two.durable()).expect("after the next sync of the interval");
    // A sync that fails leaves open whether the records are durable.
    log.alter_stream(&name(), fixture.stream.clone()).expect("altered");
    // The sync that follows a change of settings is over when a later append is stored.
    append(&shard, 0..1);
    let mut three = shard.append(batch(6..9));
    runtime.block_on(&mut three).expect("acknowledged");
    disk.0.lock().failed_syncs = 1;
    let error = runtime.block_on(three.durable()).unwrap_err();
    assert!(matches!(error, LogError::Poisoned { .. }), "{error}");
    assert_eq!(runtime.block_on(three.written()).expect("it was").last, at(9));
    drop(log);
}

#[test]
fn what_a_killed_process_left_in_memory_is_synced_before_anybody_reads_it() {
    let mut fixture = Fixture::new();
    fixture.stream.sync = SyncPolicy::Os;
    let (_log, shard) = fixture.open();
    append(&shard, 0..3);
    let disk = FaultyDisk::default();
    let killed = Fixture { storage: Arc::new(disk.clone()), ..fixture.crashed() };
    disk.0.lock().failed_syncs = 1;
    let log = killed.try_open().expect("the journal is written anew by a draft");
    let error = log.stream(&name()).expect("the stream").shard(coulee_model::ShardId(0)).unwrap_err();
    assert!(matches!(error, LogError::Io { action: "sync", .. }), "{error}");
    drop(log);
    let (log, shard) = killed.open();
    assert_eq!((disk.0.lock().syncs, all_values(&shard)), (2, vec![0, 1, 2]));
    drop((log, shard));
    // After an orderly stop there is nothing to sync.
    let syncs = disk.0.lock().syncs;
    assert_eq!(all_values(&killed.open().1).len(), 3);
    assert_eq!(disk.0.lock().syncs, syncs);
}

#[test]
fn a_sync_policy_that_changes_takes_effect_at_once() {
    let (mut fixture, disk) = faulty();
    fixture.stream.sync = SyncPolicy::Os;
    let (log, shard) = fixture.open();
    append(&shard, 0..3);
    assert_eq!(disk.0.lock().syncs, 0);
    log.alter_stream(&name(), StreamSettings { sync: SyncPolicy::Group, ..fixture.stream.clone() }).expect("altered");
    // What was written under the former policy is synced by itself, without another append.
    while disk.0.lock().syncs == 0 {
        std::thread::yield_now();
    }
    append(&shard, 3..6);
    append(&shard, 6..9);
    assert_eq!(disk.0.lock().syncs, 3);
}

#[test]
fn a_batch_sent_again_is_confirmed_no_earlier_than_the_first_time() {
    let (fixture, disk) = faulty();
    let (_log, shard) = fixture.open();
    append(&shard, 0..1);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let faults = disk.0.lock();
    let (first, mut again) = (shard.append(from_producer(0, 0, 3)), shard.append(from_producer(0, 0, 3)));
    let waited = runtime.block_on(async {
        std::future::poll_fn(|c| std::task::Poll::Ready(Pin::new(&mut again).poll(c).is_pending())).await
    });
    assert!(waited, "the first is not stored yet");
    drop(faults);
    let (first, again) = (first.wait().expect("stored"), again.wait().expect("stored"));
    assert_eq!((first.duplicate, again.duplicate, first.first), (false, true, again.first));
    assert_eq!(shard.end(), at(4));
    // And if the first one fails, so does the second.
    disk.0.lock().failed_syncs = 1;
    let faults = disk.0.lock();
    let both = [shard.append(from_producer(0, 3, 3)), shard.append(from_producer(0, 3, 3))];
    drop(faults);
    both.into_iter().for_each(|append| assert!(append.wait().is_err()));
}

#[test]
fn readers_and_retention_do_not_disturb_each_other() {
    let mut fixture = Fixture::new();
    fixture.stream.retention_bytes = Some(1);
    fixture.stream.sync = SyncPolicy::Os;
    let (log, shard) = fixture.open();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0..150 {
                append(&shard, i * 5..i * 5 + 5);
                log.enforce_retention().expect("retention");
            }
            done.store(true, std::sync::atomic::Ordering::Release);
        });
        scope.spawn(|| {
            let mut next = at(0);
            while !done.load(std::sync::atomic::Ordering::Acquire) {
                match shard.read(next, 200, Isolation::ReadCommitted) {
                    Ok(fetched) => {
                        let found = super::records(&fetched);
                        found.iter().for_each(|(sequence, value)| assert_eq!(sequence, value));
                        // Now and then from where it began, so that retention is faster.
                        next = if fetched.next.0 % 3 == 0 { shard.earliest() } else { fetched.next };
                    }
                    Err(LogError::Trimmed { earliest, .. }) => next = earliest,
                    Err(other) => panic!("{other}"),
                }
                match shard.sequence_at(Timestamp(next.0 as i64), Isolation::ReadCommitted) {
                    Ok(_) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        });
    });
}

#[test]
fn a_full_disk_delays_the_end_of_a_transaction() {
    // The decision has 18 bytes: too little space for it, and too little for the marker behind it.
    for space in [0, 17, 18, 60] {
        let (fixture, disk) = faulty();
        let (log, shard) = fixture.open();
        let mut transaction = log.transaction(&id("t")).expect("begun");
        transaction.append(&shard, batch(0..3)).wait().expect("appended");
        let prepared = prepare(&mut transaction).expect("prepared");
        disk.0.lock().space = Some(space);
        let error = log.commit_transaction(&prepared).wait().unwrap_err();
        assert!(matches!(error, LogError::DiskFull { .. }), "{error}");
        assert_eq!(seen(&shard, 0, Isolation::ReadCommitted), [0; 0]);
        assert_eq!(log.open_transactions("").is_empty(), space >= 18, "decided once that is written");
        disk.0.lock().space = None;
        log.commit_transaction(&prepared).wait().expect("there is space");
        assert_eq!(seen(&shard, 0, Isolation::ReadCommitted), [0, 1, 2]);
        drop((log, shard));
        assert_eq!(seen(&fixture.open().1, 0, Isolation::ReadCommitted), [0, 1, 2]);
    }
}

#[test]
fn a_transaction_that_finds_the_disk_full_can_be_written_again() {
    let (fixture, disk) = faulty();
    let (log, shard) = fixture.open();
    let mut transaction = log.transaction(&id("t")).expect("begun");
    transaction.append(&shard, batch(0..3)).wait().expect("appended");
    disk.0.lock().space = Some(10);
    assert!(transaction.append(&shard, batch(3..6)).wait().is_err());
    disk.0.lock().space = None;
    // Later appends would leave a hole.
    assert!(matches!(transaction.append(&shard, batch(6..9)).wait(), Err(LogError::DiskFull { .. })));
    assert!(prepare(&mut transaction).is_err());
    drop(transaction);
    let mut again = log.transaction(&id("t")).expect("begun");
    again.append(&shard, batch(0..6)).wait().expect("appended");
    let prepared = prepare(&mut again).expect("prepared");
    log.commit_transaction(&prepared).wait().expect("committed");
    assert_eq!(seen(&shard, 0, Isolation::ReadCommitted), (0..6).collect::<Vec<_>>());
}

#[test]
fn a_journal_that_cannot_be_written_stops_transactions_and_nothing_else() {
    for failure in ["sync", "torn write"] {
        let (fixture, disk) = faulty();
        let (log, shard) = fixture.open();
        let mut transaction = log.transaction(&id("t")).expect("begun");
        transaction.append(&shard, batch(0..3)).wait().expect("appended");
        let prepared = prepare(&mut transaction).expect("prepared");
        match failure {
            "sync" => disk.0.lock().failed_syncs = 1,
            _ => disk.0.lock().torn_write = Some(11),
        }
        for _ in 0..2 {
            let error = log.commit_transaction(&prepared).wait().unwrap_err();
            assert!(matches!(error, LogError::TransactionsPoisoned { .. }), "{error}");
        }
        assert!(matches!(log.transaction(&id("u")), Err(LogError::TransactionsPoisoned { .. })));
        append(&shard, 3..5);
        assert_eq!(seen(&shard, 0, Isolation::ReadCommitted), [0; 0], "undetermined is not visible");
        assert_eq!(seen(&shard, 0, Isolation::ReadUncommitted), [0, 1, 2, 3, 4]);
        drop((log, shard));
        let (log, shard) = fixture.open();
        // Whether the decision was stored was undetermined; asking again makes it so.
        log.commit_transaction(&prepared).wait().expect("committed");
        assert_eq!(seen(&shard, 0, Isolation::ReadCommitted), [0, 1, 2, 3, 4]);
    }
}

#[test]
fn a_log_closes_on_a_disk_that_takes_nothing_more() {
    for failure in ["full", "failing"] {
        let (fixture, disk) = faulty();
        let (log, shard) = fixture.open();
        let mut transaction = log.transaction(&id("t")).expect("begun");
        transaction.append(&shard, batch(0..3)).wait().expect("appended");
        let prepared = prepare(&mut transaction).expect("prepared");
        // That the transaction is complete is written with what comes next: with the end of the log here.
        log.commit_transaction(&prepared).wait().expect("committed");
        let mut faults = disk.0.lock();
        match failure {
            "full" => faults.space = Some(0),
            _ => faults.torn_write = Some(3),
        }
        drop(faults);
        drop((log, shard));
        disk.0.lock().space = None;
        assert_eq!(seen(&fixture.open().1, 0, Isolation::ReadCommitted), [0, 1, 2], "{failure}");
    }
}

#[test]
fn nothing_is_added_to_a_journal_of_which_nobody_knows_what_it_holds() {
    let (fixture, disk) = faulty();
    let (log, shard) = fixture.open();
    let mut prepared = Vec::new();
    for name in ["a", "b", "c"] {
        let mut transaction = log.transaction(&id(name)).expect("begun");
        transaction.append(&shard, batch(0..3)).wait().expect("appended");
        prepared.push(prepare(&mut transaction).expect("prepared"));
    }
    log.commit_transaction(&prepared[0]).wait().expect("committed");
    // The decisions about the others are written, and nobody knows how much of them: the disk stands still while they gather.
    let mut faults = disk.0.lock();
    faults.failed_syncs = 1;
    let ended = [log.commit_transaction(&prepared[1]), log.commit_transaction(&prepared[2])];
    drop(faults);
    ended.into_iter().for_each(|ended| assert!(ended.wait().is_err()));
    let journal = fixture.folder.path().join("transactions.journal");
    let before = std::fs::read(&journal).expect("a journal");
    drop((log, shard));
    assert_eq!(std::fs::read(&journal).expect("a journal"), before, "what is there is left as it is");
    assert_eq!(seen(&fixture.open().1, 0, Isolation::ReadUncommitted).len(), 9, "and the log opens");
}
