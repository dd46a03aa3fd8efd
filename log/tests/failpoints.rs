//! The process ends between two steps of a commit, or the disk fails in one: what the next process finds.
//!
//! In a binary of their own, as failpoints are the process's.

use std::path::Path;
use std::sync::Arc;

use coulee_log::{
    BatchBuilder, Compression, Isolation, Log, LogError, LogSettings, Record, Shard, StreamSettings, Transaction,
    TransactionRef, TransactionalId,
};
use coulee_model::{Classify, ErrorKind, SequenceNumber, ShardId, StreamName, SystemClock, Timestamp};
use fail::FailScenario;

const SHARDS: u32 = 4;

/// A log with one stream, whose values are one byte each.
struct World {
    folder: tempfile::TempDir,
    log: Log,
    shards: Vec<Arc<Shard>>,
}

impl World {
    fn new() -> Self {
        Self::open(tempfile::tempdir().expect("a folder"))
    }

    fn open(folder: tempfile::TempDir) -> Self {
        let log = Log::open(folder.path(), LogSettings::default(), Arc::new(SystemClock)).expect("the log opens");
        let name = StreamName::new("s").expect("a name");
        let settings = StreamSettings { shards: SHARDS, ..StreamSettings::default() };
        let stream = log.stream(&name).or_else(|_| log.create_stream(&name, settings)).expect("a stream");
        let shards = (0..SHARDS).map(|shard| stream.shard(ShardId(shard)).expect("a shard")).collect();
        World { folder, log, shards }
    }

    /// The next process, after this one was killed.
    fn killed(&self) -> World {
        let folder = tempfile::tempdir().expect("a folder");
        copy(self.folder.path(), folder.path());
        Self::open(folder)
    }

    /// A transaction with one record in each shard.
    fn begin(&self, value: u8) -> Transaction {
        let transaction = self.log.transaction(&TransactionalId::new("t").expect("a name")).expect("begun");
        for shard in &self.shards {
            transaction.append(shard, batch(value)).wait().expect("appended");
        }
        transaction
    }

    fn prepared(&self, value: u8) -> TransactionRef {
        prepare(&mut self.begin(value)).expect("prepared")
    }

    /// What committed readers see, which must be the same in every shard.
    fn visible(&self) -> Vec<u8> {
        let all: Vec<_> = self.shards.iter().map(|shard| values(shard, Isolation::ReadCommitted)).collect();
        assert!(all.iter().all(|values| *values == all[0]), "a part of a transaction is visible: {all:?}");
        all[0].clone()
    }
}

fn prepare(transaction: &mut Transaction) -> coulee_log::Result<TransactionRef> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(transaction.prepare())
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

fn batch(value: u8) -> BatchBuilder {
    let mut batch = BatchBuilder::new(Compression::None);
    batch.push(&Record { key: None, value: Some(&[value]), timestamp: Timestamp(0), headers: &[] });
    batch
}

fn values(shard: &Shard, isolation: Isolation) -> Vec<u8> {
    let fetched = shard.read(SequenceNumber(0), 1 << 20, isolation).expect("a read");
    assert_eq!(fetched.next, shard.end_for(isolation));
    let batches = fetched.batches().map(|batch| batch.expect("a batch").decode().expect("records"));
    batches.flat_map(|batch| batch.records().map(|r| r.value.expect("a value")[0]).collect::<Vec<_>>()).collect()
}

#[test]
fn before_the_decision_nothing_is_decided() {
    let scenario = FailScenario::setup();
    let world = World::new();
    let one = world.prepared(1);
    fail::cfg("log.txn.before-decision", "return").expect("a failpoint");
    world.log.commit_transaction(&one).wait().expect_err("interrupted");
    fail::remove("log.txn.before-decision");
    assert!(world.visible().is_empty());
    // Whoever prepared it decides, in either way, in this process or the next.
    let next = world.killed();
    assert_eq!(next.log.open_transactions(""), std::slice::from_ref(&one));
    assert!(next.visible().is_empty());
    next.log.abort_transaction(&one).wait().expect("aborted");
    next.log.commit_transaction(&next.prepared(2)).wait().expect("committed");
    assert_eq!(next.visible(), [2]);
    world.log.commit_transaction(&one).wait().expect("committed");
    assert_eq!(world.visible(), [1]);
    scenario.teardown();
}

#[test]
fn what_was_decided_is_completed_by_the_next_process_before_anybody_reads() {
    let scenario = FailScenario::setup();
    for (point, markers) in [("log.txn.after-decision", 0), ("log.txn.between-markers", 1)] {
        for commit in [true, false] {
            let world = World::new();
            let before = world.prepared(1);
            world.log.commit_transaction(&before).wait().expect("committed");
            let one = world.prepared(2);
            fail::cfg(point, "return").expect("a failpoint");
            let end = |log: &Log| match commit {
                true => log.commit_transaction(&one),
                false => log.abort_transaction(&one),
            };
            end(&world.log).wait().expect_err("interrupted");
            fail::remove(point);
            // A record and a marker, then a record: of the second transaction, some shards have the marker.
            let written = world.shards.iter().filter(|shard| shard.end() == SequenceNumber(4)).count();
            assert_eq!(written, markers, "{point}");
            assert_eq!(world.visible(), [1], "{point}: no shard shows what others do not");
            assert!(world.log.open_transactions("").is_empty(), "{point}: it is decided");

            let next = world.killed();
            let expected: &[u8] = if commit { &[1, 2] } else { &[1] };
            assert!(next.shards.iter().all(|shard| shard.end() == SequenceNumber(4)), "one marker each");
            assert_eq!(next.visible(), expected, "{point}");
            end(&next.log).wait().expect("it was");
            // And by this process when it is asked again, or left to itself.
            if commit {
                end(&world.log).wait().expect("completed");
            } else {
                world.log.enforce_retention().expect("maintenance");
            }
            end(&world.log).wait().expect("it was");
            assert_eq!(world.visible(), expected, "{point}");
            assert!(world.shards.iter().all(|shard| shard.end() == SequenceNumber(4)), "one marker each");
        }
    }
    scenario.teardown();
}

#[test]
fn a_sync_that_fails_under_a_transaction_fails_its_preparation() {
    let scenario = FailScenario::setup();
    let world = World::new();
    let mut transaction = world.begin(1);
    fail::cfg("log.append.sync", "return").expect("a failpoint");
    // Nobody looks at the answer.
    drop(transaction.append(&world.shards[0], batch(2)));
    let error = prepare(&mut transaction).unwrap_err();
    fail::remove("log.append.sync");
    assert!(matches!(error, LogError::Poisoned { .. }), "{error}");
    let error = transaction.abort().wait().unwrap_err();
    assert!(matches!(error, LogError::Poisoned { .. }), "one shard takes no marker: {error}");
    let next = world.killed();
    assert!(next.log.open_transactions("").is_empty());
    assert!(next.visible().is_empty());
    assert!(next.shards.iter().all(|shard| shard.last_stable_offset() == shard.end()), "aborted");
    scenario.teardown();
}

#[test]
fn a_panic_of_the_journal_thread_leaves_nobody_waiting() {
    let scenario = FailScenario::setup();
    let world = World::new();
    let (one, two) = (world.prepared(1), world.prepared(2));
    let mut three = world.begin(3);
    fail::cfg("log.txn.test.journal-thread", "panic").expect("a failpoint");
    let error = world.log.commit_transaction(&one).wait().unwrap_err();
    assert!(matches!(error, LogError::Internal { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Internal);
    fail::remove("log.txn.test.journal-thread");
    // The thread is gone: whoever comes later is told so, too.
    for error in [
        world.log.commit_transaction(&one).wait().unwrap_err(),
        world.log.abort_transaction(&two).wait().unwrap_err(),
        prepare(&mut three).unwrap_err(),
        world.log.transaction(&TransactionalId::new("u").expect("a name")).unwrap_err(),
    ] {
        assert!(matches!(error, LogError::Internal { .. }), "{error}");
    }
    world.shards[0].append(batch(9)).wait().expect("the rest of the log can be used");
    world.log.enforce_retention().expect("maintenance");
    let next = world.killed();
    assert_eq!(next.log.open_transactions(""), [one.clone(), two.clone()]);
    next.log.commit_transaction(&one).wait().expect("committed");
    next.log.abort_transaction(&two).wait().expect("aborted");
    assert_eq!(values(&next.shards[1], Isolation::ReadCommitted), [1]);
    scenario.teardown();
}

#[test]
fn a_panic_of_a_committer_leaves_no_commit_waiting() {
    let scenario = FailScenario::setup();
    let world = World::new();
    let one = world.prepared(1);
    fail::cfg("log.append.sync", "1*panic").expect("a failpoint");
    let error = world.log.commit_transaction(&one).wait().unwrap_err();
    fail::remove("log.append.sync");
    assert!(matches!(error, LogError::Internal { .. } | LogError::Poisoned { .. }), "{error}");
    assert!(world.visible().is_empty(), "one marker is not known to be durable");
    let next = world.killed();
    assert_eq!(next.visible(), [1], "it was decided");
    scenario.teardown();
}

#[test]
fn a_marker_that_cannot_be_synced_leaves_the_decision_to_the_next_process() {
    let scenario = FailScenario::setup();
    let world = World::new();
    let one = world.prepared(1);
    fail::cfg("log.append.sync", "1*return").expect("a failpoint");
    let error = world.log.commit_transaction(&one).wait().unwrap_err();
    assert!(matches!(error, LogError::Poisoned { .. }), "{error}");
    fail::remove("log.append.sync");
    assert!(world.visible().is_empty(), "three of four markers are durable");
    let error = world.log.commit_transaction(&one).wait().unwrap_err();
    assert!(matches!(error, LogError::Poisoned { .. }), "{error}");
    let next = world.killed();
    assert_eq!(next.visible(), [1]);
    next.log.commit_transaction(&one).wait().expect("it was");
    scenario.teardown();
}
