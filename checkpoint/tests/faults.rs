//! What a fault leaves: the previous checkpoint or the new one, complete, and an error that says what to do.
//!
//! Failpoints are the whole process's, so that these tests have a binary of their own and take turns.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use coulee_checkpoint::snapshot::{SnapshotKind, SnapshotRequest, SnapshotStore};
use coulee_checkpoint::{Changes, CheckpointRecord, Error, JobStore, StateKey, StoreSettings, TableId};
use coulee_model::{CheckpointId, Classify, ErrorKind, JobName, KeyGroup, OperatorId, Timestamp};
use object_store::memory::InMemory;

const OP: OperatorId = OperatorId(7);
/// Keys that every commit writes: its number, so that a mixture of two commits shows.
const KEYS: u32 = 1_000;

// Each test has a scenario, also those that plant no failure: the failures that others of this process plant are not for them.

fn record(id: u64) -> CheckpointRecord {
    CheckpointRecord { id: CheckpointId(id), at: Timestamp(1), job: String::new() }
}

fn open(dir: &Path) -> Result<JobStore, Error> {
    JobStore::open(dir, &StoreSettings::default())
}

fn commit(store: &JobStore, id: u64) -> Result<(), Error> {
    let mut changes = Changes::default();
    for i in 0..KEYS {
        let rest = i.to_be_bytes();
        changes.put(StateKey::new(OP, TableId(1), KeyGroup(1), &rest), id.to_be_bytes().repeat(40));
        changes.put(StateKey::new(OP, TableId(0x81), KeyGroup(1), &rest), [&[0x7f; 8][..], &id.to_be_bytes()].concat());
    }
    store.commit(record(id), [changes]).map(drop)
}

/// Which checkpoint the store is at. Every key must be of that one.
fn checkpoint_of(store: &JobStore) -> u64 {
    let id = store.last_checkpoint().map_or(0, |last| last.id.0);
    for table in [TableId(1), TableId(0x81)] {
        let mut entries = 0;
        for entry in store.scan(OP, table) {
            let (_, value) = entry.unwrap();
            assert_eq!(value[value.len() - 8..], id.to_be_bytes(), "an entry is not of checkpoint {id}");
            entries += 1;
        }
        assert_eq!(entries, if id == 0 { 0 } else { KEYS }, "checkpoint {id} is not complete");
    }
    id
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// The write-ahead log that is written to.
fn last_log(dir: &Path) -> PathBuf {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|ending| ending == "log")).max().unwrap()
}

/// A copy of a store as a crash would leave it, and the length of its log after each of `commits` commits.
fn crashed(dir: &Path, commits: u64) -> Vec<u64> {
    let store = open(&dir.join("live")).unwrap();
    let mut ends = vec![];
    for id in 1..=commits {
        commit(&store, id).unwrap();
        ends.push(std::fs::metadata(last_log(&dir.join("live"))).unwrap().len());
    }
    copy(&dir.join("live"), &dir.join("crashed"));
    ends
}

#[test]
fn a_torn_last_commit_never_was() {
    let scenario = fail::FailScenario::setup();
    let dir = tempfile::tempdir().unwrap();
    let ends = crashed(dir.path(), 3);
    let [.., before, end] = ends[..] else { unreachable!("three commits") };
    let length = end - before;
    assert!(length > 300_000);
    for kept in [0, 1, 6, 7, 100, 32_768, length / 2, length - 1] {
        let torn = dir.path().join(format!("torn-{kept}"));
        copy(&dir.path().join("crashed"), &torn);
        std::fs::OpenOptions::new().write(true).open(last_log(&torn)).unwrap().set_len(before + kept).unwrap();
        let store = open(&torn).unwrap();
        assert_eq!(checkpoint_of(&store), 2, "{kept} bytes of the last commit are left");
        // And it goes on from there.
        commit(&store, 3).unwrap();
        drop(store);
        assert_eq!(checkpoint_of(&open(&torn).unwrap()), 3);
    }
    assert_eq!(checkpoint_of(&open(&dir.path().join("crashed")).unwrap()), 3);
    scenario.teardown();
}

#[test]
fn a_flipped_byte_in_the_log_is_corruption() {
    let scenario = fail::FailScenario::setup();
    let dir = tempfile::tempdir().unwrap();
    let ends = crashed(dir.path(), 3);
    for at in [ends[0] / 2, ends[0] + 20, ends[1] - 100, (ends[1] + ends[2]) / 2] {
        let damaged = dir.path().join(format!("damaged-{at}"));
        copy(&dir.path().join("crashed"), &damaged);
        let log = last_log(&damaged);
        let mut bytes = std::fs::read(&log).unwrap();
        bytes[at as usize] ^= 0x10;
        std::fs::write(&log, bytes).unwrap();
        let error = open(&damaged).expect_err("silence");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains("restore a snapshot"), "{error}");
    }
    scenario.teardown();
}

#[test]
fn a_flipped_byte_in_a_file_is_corruption() {
    let scenario = fail::FailScenario::setup();
    let dir = tempfile::tempdir().unwrap();
    let linked = dir.path().join("linked");
    {
        let store = open(&dir.path().join("live")).unwrap();
        commit(&store, 1).unwrap();
        store.link_to(&linked).unwrap();
    }
    for ending in ["sst", "blob"] {
        let damaged = dir.path().join(ending);
        copy(&linked, &damaged);
        for entry in std::fs::read_dir(&damaged).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.extension().is_some_and(|e| e == ending) {
                let mut bytes = std::fs::read(&entry).unwrap();
                bytes[200] ^= 1;
                std::fs::write(&entry, bytes).unwrap();
            }
        }
        let failed = match open(&damaged) {
            Err(error) => Some(error),
            Ok(store) => [1, 0x81].into_iter().find_map(|table| store.scan(OP, TableId(table)).find_map(Result::err)),
        };
        let error = failed.expect("silence");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{ending}: {error}");
    }
    scenario.teardown();
}

#[test]
fn a_commit_that_fails_leaves_one_of_two_checkpoints() {
    let scenario = fail::FailScenario::setup();
    for (point, expected) in [("checkpoint.commit.before-write", 1), ("checkpoint.commit.after-write", 2)] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).unwrap();
        commit(&store, 1).unwrap();
        fail::cfg(point, "return").unwrap();
        let error = commit(&store, 2).unwrap_err();
        assert!(error.kind() == ErrorKind::Unavailable && error.to_string().contains(point), "{error}");
        fail::remove(point);
        // Nobody knows which until the store is opened again.
        let error = commit(&store, 2).unwrap_err();
        assert!(matches!(error, Error::MustReopen { .. }) && error.kind() == ErrorKind::Unavailable, "{error}");
        drop(store);
        assert_eq!(checkpoint_of(&open(dir.path()).unwrap()), expected, "{point}");
    }
    scenario.teardown();
}

#[test]
fn links_that_fail_leave_the_store_as_it_was() {
    let scenario = fail::FailScenario::setup();
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("live")).unwrap();
    commit(&store, 1).unwrap();
    for point in ["checkpoint.link.before", "checkpoint.link.after"] {
        fail::cfg(point, "return").unwrap();
        assert_eq!(store.link_to(&dir.path().join(point)).unwrap_err().kind(), ErrorKind::Unavailable);
        fail::remove(point);
    }
    commit(&store, 2).unwrap();
    store.link_to(&dir.path().join("linked")).unwrap();
    assert_eq!(checkpoint_of(&open(&dir.path().join("linked")).unwrap()), 2);
    scenario.teardown();
}

#[test]
fn an_upload_that_dies_at_any_step_can_be_repeated() {
    let scenario = fail::FailScenario::setup();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for (point, listed) in
        [("snapshot.object.before", 0), ("snapshot.manifest.before", 0), ("snapshot.manifest.after", 1)]
    {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir.path().join("live")).unwrap();
        commit(&store, 1).unwrap();
        std::fs::create_dir(dir.path().join("linked")).unwrap();
        store.link_to(&dir.path().join("linked/state")).unwrap();
        let snapshots = SnapshotStore::new(Arc::new(InMemory::new()), "snap/j".into());
        let request = SnapshotRequest {
            job: JobName::new("j").unwrap(),
            incarnation: "one".into(),
            kind: SnapshotKind::Periodic,
            record: record(1),
            at: Timestamp(1),
        };
        runtime.block_on(async {
            fail::cfg(point, "return").unwrap();
            let error = snapshots.upload(&request, &dir.path().join("linked")).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            assert_eq!(snapshots.list().await.unwrap().len(), listed, "{point}");
            fail::remove(point);
            let taken = snapshots.upload(&request, &dir.path().join("linked")).await.unwrap();
            snapshots.restore(&taken.manifest.name(), &dir.path().join("restored")).await.unwrap();
        });
        assert_eq!(checkpoint_of(&open(&dir.path().join("restored/state")).unwrap()), 1);
    }
    scenario.teardown();
}

/// Says to [`a_disk_that_is_full_keeps_the_last_checkpoint`] that it is the process with the limit, and where its store is.
const LIMITED: &str = "COULEE_TEST_LIMITED_DIR";

/// Files of a process can be limited in size, and its writes beyond that fail in the middle as on a full disk: the test runs itself so.
#[test]
fn a_disk_that_is_full_keeps_the_last_checkpoint() {
    if let Ok(dir) = std::env::var(LIMITED) {
        let store = open(Path::new(&dir)).unwrap();
        let failed = (1..).find_map(|id| commit(&store, id).err().map(|error| (id, error)));
        let (id, error) = failed.expect("a limit");
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{text}");
        assert!(text.contains("File too large") && text.contains("the last checkpoint is intact"), "{text}");
        assert!(matches!(commit(&store, id), Err(Error::MustReopen { .. })));
        std::fs::write(Path::new(&dir).with_extension("failed"), id.to_string()).unwrap();
        return;
    }
    let scenario = fail::FailScenario::setup();
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let own = std::env::current_exe().unwrap();
    // In blocks of 512 bytes (of 1,024 in some shells); a commit takes 0.4 MB of the log.
    let script = "trap '' XFSZ; ulimit -f 4000; exec \"$0\" --exact a_disk_that_is_full_keeps_the_last_checkpoint";
    let run = std::process::Command::new("sh").arg("-c").arg(script).arg(own).env(LIMITED, &state).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
    let failed: u64 = std::fs::read_to_string(state.with_extension("failed")).unwrap().parse().unwrap();
    assert!(failed > 2, "some commits succeeded");
    let store = open(&state).unwrap();
    assert_eq!(checkpoint_of(&store), failed - 1);
    commit(&store, failed).unwrap();
    scenario.teardown();
}
