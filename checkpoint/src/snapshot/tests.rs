//! Snapshots against stores that work, fail, and lie about having failed; and what a random history leaves.

mod double;
mod history;

use std::path::Path;

use coulee_model::{CheckpointId, Classify, ErrorKind, JobName, KeyGroup, OperatorId};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;

use super::*;
use crate::{Changes, CheckpointRecord, JobStore, StateKey, StoreSettings, TableId};
use double::{Fault, Faulty};

const HOUR: std::time::Duration = std::time::Duration::from_secs(3600);

/// What the stores take for the present, so that objects which were put a moment ago can be looked at from the future.
fn now() -> Timestamp {
    coulee_model::Clock::now(&coulee_model::SystemClock)
}

fn hours_on(hours: i64) -> Timestamp {
    now().plus_millis(hours * 3_600_000)
}

fn request(id: u64) -> SnapshotRequest {
    SnapshotRequest {
        job: JobName::new("j").unwrap(),
        incarnation: "one".into(),
        kind: SnapshotKind::Periodic,
        record: CheckpointRecord { id: CheckpointId(id), at: Timestamp(id as i64), job: String::new() },
        at: Timestamp(id as i64),
    }
}

fn savepoint(id: u64, name: &str) -> SnapshotRequest {
    SnapshotRequest { kind: SnapshotKind::Savepoint { name: name.into(), note: Some("mine".into()) }, ..request(id) }
}

fn checkpoint(id: u64) -> SnapshotName {
    SnapshotName::Checkpoint(CheckpointId(id))
}

fn in_memory() -> SnapshotStore {
    SnapshotStore::new(Arc::new(InMemory::new()), ObjectPath::from("snap/j"))
}

/// Writes files, by path and content.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), files);
    dir
}

fn write(dir: &Path, files: &[(&str, &str)]) {
    for (path, content) in files {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

fn commit(store: &JobStore, id: u64, keys: std::ops::Range<u32>) {
    let mut changes = Changes::default();
    for i in keys {
        let key = StateKey::new(OperatorId(1), TableId(1), KeyGroup(3), &i.to_be_bytes());
        changes.put(key, format!("{i} {}", "x".repeat(300)).into_bytes());
    }
    store.commit(CheckpointRecord { id: CheckpointId(id), at: Timestamp(9), job: String::new() }, [changes]).unwrap();
}

#[tokio::test]
async fn a_snapshot_restores_the_state_on_another_disk_and_the_next_one_is_small() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = tempfile::tempdir().unwrap();
    let objects = Arc::new(LocalFileSystem::new_with_prefix(bucket.path()).unwrap());
    let snapshots = SnapshotStore::new(objects, ObjectPath::from("snap/j"));
    let store = JobStore::open(&dir.path().join("state"), &StoreSettings::default()).unwrap();
    commit(&store, 4, 0..10_000);
    store.link_to(&dir.path().join("4/state")).unwrap_err();
    std::fs::create_dir(dir.path().join("4")).unwrap();
    store.link_to(&dir.path().join("4/state")).unwrap();
    // What happens after the links were made is not part of the snapshot.
    commit(&store, 5, 10_000..10_010);
    let first = snapshots.upload(&request(4), &dir.path().join("4")).await.unwrap();
    assert!(first.bytes > 3_000_000 && first.uploaded_bytes == first.bytes, "{} {}", first.bytes, first.uploaded_bytes);

    std::fs::create_dir(dir.path().join("5")).unwrap();
    store.link_to(&dir.path().join("5/state")).unwrap();
    let second = snapshots.upload(&request(5), &dir.path().join("5")).await.unwrap();
    assert!(second.bytes > 3_000_000 && second.uploaded_bytes < 50_000, "{} {}", second.bytes, second.uploaded_bytes);

    for (id, entries) in [(4, 10_000), (5, 10_010)] {
        let other = dir.path().join(format!("other-{id}"));
        snapshots.restore(&checkpoint(id), &other).await.unwrap();
        let restored = JobStore::open(&other.join("state"), &StoreSettings::default()).unwrap();
        assert_eq!(restored.last_checkpoint().map(|c| c.id), Some(CheckpointId(id)));
        assert_eq!(restored.scan(OperatorId(1), TableId(1)).count(), entries);
    }
}

#[tokio::test]
async fn only_the_prefix_of_a_file_that_grows_is_taken() {
    let snapshots = in_memory();
    let dir = folder(&[("spool/open", "first")]);
    let linked = tempfile::tempdir_in(dir.path().parent().unwrap()).unwrap();
    std::fs::hard_link(dir.path().join("spool/open"), linked.path().join("open")).unwrap();
    let files = snapshots.contents(linked.path()).await.unwrap();
    // The sink writes on, between the moment when lengths were taken and that when bytes are.
    std::fs::write(dir.path().join("spool/open"), "first second").unwrap();
    let manifest = Manifest::new(&request(1), files);
    let object = snapshots.object_of(&manifest.files[0]);
    snapshots.publish(manifest, upload::FileOrigin::Folder(linked.path()), "x", false).await.unwrap();
    assert_eq!(snapshots.read(&object).await.unwrap().unwrap(), "first");
}

#[tokio::test]
async fn a_file_of_the_same_name_and_length_is_not_taken_for_the_known_one() {
    let snapshots = in_memory();
    let one = folder(&[("state/000012.sst", "aaaa")]);
    snapshots.upload(&request(1), one.path()).await.unwrap();
    // As after a restore of an older snapshot: RocksDB counts from there again.
    let other = folder(&[("state/000012.sst", "bbbb")]);
    snapshots.upload(&request(2), other.path()).await.unwrap();
    let target = one.path().join("restored");
    snapshots.restore(&checkpoint(2), &target).await.unwrap();
    assert_eq!(std::fs::read_to_string(target.join("state/000012.sst")).unwrap(), "bbbb");
}

#[tokio::test]
async fn known_files_are_not_read_again_and_none_is_uploaded_twice() {
    let snapshots = in_memory();
    let dir = folder(&[("state/000012.sst", "aaaa"), ("state/CURRENT", "cc")]);
    assert_eq!(snapshots.upload(&request(1), dir.path()).await.unwrap().uploaded_bytes, 6);
    assert_eq!(snapshots.known.lock().len(), 1, "only what cannot change is known");
    assert_eq!(snapshots.upload(&request(2), dir.path()).await.unwrap().uploaded_bytes, 0);
    // Another process knows nothing, hashes, and finds everything in the store.
    let restarted = SnapshotStore::new(snapshots.objects.clone(), snapshots.prefix.clone());
    assert_eq!(restarted.upload(&request(3), dir.path()).await.unwrap().uploaded_bytes, 0);
}

#[tokio::test]
async fn the_same_upload_again_succeeds_and_another_of_the_same_name_does_not() {
    let snapshots = in_memory();
    let dir = folder(&[("a", "1")]);
    snapshots.upload(&request(1), dir.path()).await.unwrap();
    snapshots.upload(&request(1), dir.path()).await.unwrap();
    let other = folder(&[("a", "2")]);
    let error = snapshots.upload(&request(1), other.path()).await.unwrap_err();
    assert!(matches!(error, Error::SnapshotExists { .. }), "{error}");
    assert_eq!(snapshots.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn who_goes_on_from_an_older_checkpoint_discards_what_came_after() {
    let snapshots = in_memory();
    let dir = folder(&[("a", "first history")]);
    for id in 1..=4 {
        snapshots.upload(&request(id), dir.path()).await.unwrap();
    }
    snapshots.upload(&savepoint(4, "mine"), dir.path()).await.unwrap();
    write(dir.path(), &[("a", "second history")]);
    assert!(matches!(snapshots.upload(&request(3), dir.path()).await, Err(Error::SnapshotExists { .. })));
    assert_eq!(snapshots.discard_after(CheckpointId(2)).await.unwrap(), 2);
    snapshots.upload(&request(3), dir.path()).await.unwrap();
    let names: Vec<String> = snapshots.list().await.unwrap().iter().map(|m| m.name().to_string()).collect();
    assert_eq!(names, ["checkpoint-1", "checkpoint-2", "checkpoint-3", "mine"]);
}

#[tokio::test]
async fn retention_spares_savepoints_and_garbage_goes_after_the_grace() {
    let snapshots = in_memory();
    let dir = folder(&[("kept", "k")]);
    for id in 1..=5 {
        write(dir.path(), &[("changes", &format!("content {id}"))]);
        if id == 2 {
            snapshots.upload(&savepoint(id, "mine"), dir.path()).await.unwrap();
        } else {
            snapshots.upload(&request(id), dir.path()).await.unwrap();
        }
    }
    assert_eq!(snapshots.retain(2).await.unwrap(), 2);
    let names: Vec<String> = snapshots.list().await.unwrap().iter().map(|m| m.name().to_string()).collect();
    assert_eq!(names, ["mine", "checkpoint-4", "checkpoint-5"]);

    // Seen unused for the first time; a little later; long enough, but by a process that has not seen them before; long enough.
    for at in [hours_on(2), hours_on(2).plus_millis(3_599_000)] {
        assert_eq!(snapshots.collect_garbage(HOUR, at).await.unwrap().deleted, 0);
    }
    let restarted = SnapshotStore::new(snapshots.objects.clone(), snapshots.prefix.clone());
    let report = restarted.collect_garbage(HOUR, hours_on(4)).await.unwrap();
    assert_eq!((report.objects, report.unused, report.deleted), (6, 2, 0));
    let report = snapshots.collect_garbage(HOUR, hours_on(4)).await.unwrap();
    assert_eq!((report.deleted, report.deleted_bytes), (2, 18));
    assert!(snapshots.listing(CONDEMNED).await.unwrap().is_empty());
    assert!(snapshots.listing(PINS).await.unwrap().is_empty());
    for manifest in snapshots.list().await.unwrap() {
        snapshots.restore(&manifest.name(), &dir.path().join("out").join(manifest.name().to_string())).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_put_lately_is_not_garbage_though_nobody_names_it() {
    let snapshots = in_memory();
    let dir = folder(&[("a", "1")]);
    snapshots.upload(&request(1), dir.path()).await.unwrap();
    snapshots.delete(&checkpoint(1)).await.unwrap();
    // Found unused long ago by this process's clock, but the store says that it is younger than the grace.
    snapshots.collect_garbage(HOUR, hours_on(-9)).await.unwrap();
    assert_eq!(snapshots.collect_garbage(HOUR, now()).await.unwrap().deleted, 0);
    assert_eq!(snapshots.collect_garbage(HOUR, hours_on(1).plus_millis(1)).await.unwrap().deleted, 1);
}

#[tokio::test]
async fn a_pin_protects_what_no_manifest_names_until_its_lease_ends() {
    let snapshots = in_memory();
    let dir = folder(&[("a", "1")]);
    let taken = snapshots.upload(&request(1), dir.path()).await.unwrap();
    let (_, pin) = snapshots.pin_snapshot(&checkpoint(1)).await.unwrap();
    snapshots.delete(&checkpoint(1)).await.unwrap();
    // Another process collects.
    let owner = SnapshotStore::new(snapshots.objects.clone(), snapshots.prefix.clone());
    for hours in [2, 4, 23] {
        let report = owner.collect_garbage(HOUR, hours_on(hours)).await.unwrap();
        assert_eq!((report.unused, report.deleted), (0, 0), "after {hours} hours");
    }
    assert!(snapshots.read(&snapshots.object_of(&taken.manifest.files[0])).await.unwrap().is_some());
    drop(pin);
    owner.collect_garbage(HOUR, hours_on(25)).await.unwrap();
    assert_eq!(owner.collect_garbage(HOUR, hours_on(27)).await.unwrap().deleted, 1);
}

#[tokio::test]
async fn an_upload_does_not_build_on_what_is_condemned() {
    let snapshots = in_memory();
    let dir = folder(&[("a", "1")]);
    let taken = snapshots.upload(&request(1), dir.path()).await.unwrap();
    let object = snapshots.object_of(&taken.manifest.files[0]);
    let list = snapshots.folder(CONDEMNED).join("x.json");
    snapshots.objects.put(&list, pin::names([&object]).into()).await.unwrap();
    let error = snapshots.upload(&request(2), dir.path()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    // The collection that condemned it died. The next one finds that it is in use, and lifts the sentence.
    assert_eq!(snapshots.collect_garbage(HOUR, hours_on(2)).await.unwrap().deleted, 0);
    snapshots.upload(&request(2), dir.path()).await.unwrap();
}

#[tokio::test]
async fn who_was_replaced_cannot_upload() {
    let snapshots = in_memory();
    let dir = folder(&[("a", "1")]);
    assert_eq!(snapshots.claim("one", Timestamp(1)).await.unwrap().number, 1);
    assert_eq!(snapshots.claim("one", Timestamp(2)).await.unwrap().number, 1);
    snapshots.upload(&request(1), dir.path()).await.unwrap();
    assert_eq!(snapshots.claim("two", Timestamp(3)).await.unwrap().number, 2);
    let error = snapshots.upload(&request(2), dir.path()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    for n in 3..40 {
        assert_eq!(snapshots.claim(&format!("later {n}"), Timestamp(3)).await.unwrap().number, n);
    }
    assert_eq!(snapshots.listing(GENERATIONS).await.unwrap().len(), 16);
}

#[tokio::test]
async fn claims_at_once_get_different_numbers() {
    let snapshots = in_memory();
    let claims = (0..20).map(|i| {
        let snapshots = snapshots.clone();
        async move { snapshots.claim(&i.to_string(), Timestamp(1)).await.unwrap().number }
    });
    let mut numbers = futures::future::join_all(claims).await;
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn damage_is_named() {
    let snapshots = in_memory();
    let dir = folder(&[("state/a.sst", "content"), ("spool/b", "other")]);
    let taken = snapshots.upload(&request(1), dir.path()).await.unwrap();
    let file = taken.manifest.files.iter().find(|file| file.path == "state/a.sst").unwrap();
    let object = snapshots.object_of(file);
    let target = dir.path().join("restored");
    let target_of_export = in_memory();
    for (damage, expected) in [(Some("cantent"), "bytes with hash"), (None, "is missing")] {
        match damage {
            Some(bytes) => drop(snapshots.objects.put(&object, bytes.into()).await.unwrap()),
            None => snapshots.remove(&object).await.unwrap(),
        }
        for error in [
            snapshots.restore(&checkpoint(1), &target).await.unwrap_err(),
            snapshots.export(&checkpoint(1), &target_of_export).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains("state/a.sst"), "{error}");
        }
        let error = snapshots.restore(&checkpoint(1), &target).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!target.exists());
        assert!(target_of_export.list().await.unwrap().is_empty());
    }
    let manifest = snapshots.manifest_path(&checkpoint(1));
    snapshots.objects.put(&manifest, "{\"format\": 2, ".into()).await.unwrap();
    let error = snapshots.list().await.unwrap_err();
    assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("manifest"), "{error}");
    assert_eq!(snapshots.collect_garbage(HOUR, hours_on(9)).await.unwrap_err().kind(), ErrorKind::Corrupt);
    snapshots.objects.put(&manifest, "{\"format\": 99}".into()).await.unwrap();
    assert!(matches!(snapshots.manifest(&checkpoint(1)).await, Err(Error::NewerSnapshot { found: 99, .. })));
    assert_eq!(snapshots.manifest(&checkpoint(7)).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_manifest_cannot_write_outside_its_folder() {
    let snapshots = in_memory();
    let dir = folder(&[("a", "1")]);
    let taken = snapshots.upload(&request(1), dir.path()).await.unwrap();
    for bad in ["../a", "/tmp/a", "x/../../a", ""] {
        let mut manifest = taken.manifest.clone();
        manifest.files[0].path = bad.into();
        let body = serde_json::to_vec(&manifest).unwrap();
        snapshots.objects.put(&snapshots.manifest_path(&checkpoint(1)), body.into()).await.unwrap();
        let error = snapshots.restore(&checkpoint(1), &dir.path().join("restored")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{bad}");
    }
}

#[tokio::test]
async fn an_export_is_complete() {
    let (snapshots, other) = (in_memory(), in_memory());
    let big = "0123456789abcdef".repeat(1 << 20);
    let dir = folder(&[("state/a.sst", &big), ("spool/b", "other")]);
    snapshots.upload(&savepoint(3, "mine"), dir.path()).await.unwrap();
    let name = SnapshotName::savepoint("mine").unwrap();
    let exported = snapshots.export(&name, &other).await.unwrap();
    assert_eq!(exported.uploaded_bytes, (16 << 20) + 5);
    assert_eq!(snapshots.export(&name, &other).await.unwrap().uploaded_bytes, 0);
    for manifest in snapshots.list().await.unwrap() {
        for file in &manifest.files {
            snapshots.remove(&snapshots.object_of(file)).await.unwrap();
        }
    }
    let target = dir.path().join("restored");
    assert_eq!(other.restore(&name, &target).await.unwrap(), exported.manifest);
    assert_eq!(std::fs::read_to_string(target.join("state/a.sst")).unwrap(), big);
}

#[tokio::test]
async fn a_restore_clears_what_an_earlier_one_left_and_refuses_an_existing_folder() {
    let snapshots = in_memory();
    let dir = folder(&[("a", "1")]);
    snapshots.upload(&request(1), dir.path()).await.unwrap();
    let out = folder(&[("new.partial/half", "x")]);
    snapshots.restore(&checkpoint(1), &out.path().join("new")).await.unwrap();
    assert!(!out.path().join("new/half").exists() && !out.path().join("new.partial").exists());
    assert!(matches!(snapshots.restore(&checkpoint(1), &out.path().join("new")).await, Err(Error::File { .. })));
}

#[tokio::test]
async fn every_step_may_fail_once_and_the_upload_succeeds_when_repeated() {
    for fault in [Fault::Refuse, Fault::LoseAnswer, Fault::LoseConnection] {
        // From the first request to beyond the last.
        for step in 0.. {
            let faulty = Arc::new(Faulty::new(Arc::new(InMemory::new())));
            let snapshots = SnapshotStore::new(faulty.clone(), ObjectPath::from("j"));
            let dir = folder(&[("state/a.sst", "aaa"), ("spool/b", "b")]);
            snapshots.claim("one", Timestamp(1)).await.unwrap();
            faulty.fail_at(step, fault);
            let first = snapshots.upload(&request(1), dir.path()).await;
            let through = faulty.disarm();
            let again = snapshots.upload(&request(1), dir.path()).await.unwrap();
            assert_eq!(snapshots.list().await.unwrap(), [again.manifest]);
            let target = dir.path().join("restored");
            snapshots.restore(&checkpoint(1), &target).await.unwrap();
            assert_eq!(std::fs::read_to_string(target.join("spool/b")).unwrap(), "b");
            if through {
                first.unwrap();
                assert!(step > 8, "an upload is {step} requests");
                break;
            }
            if let Err(error) = first {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{fault:?} at {step}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn a_manifest_put_whose_answer_is_lost_is_recognised() {
    let faulty = Arc::new(Faulty::new(Arc::new(InMemory::new())));
    let snapshots = SnapshotStore::new(faulty.clone(), ObjectPath::from("j"));
    let dir = folder(&[("a", "1")]);
    faulty.fail_put_of("snapshots/", Fault::LoseAnswer);
    snapshots.upload(&request(1), dir.path()).await.unwrap();
    // The same for a claim.
    faulty.fail_put_of("generations/", Fault::LoseAnswer);
    assert_eq!(snapshots.claim("one", Timestamp(1)).await.unwrap().number, 1);
}

/// A store that says of a put that it failed although it did not, as a proxy with a time limit does, keeps no contract: the test of stores must say so.
#[tokio::test]
#[should_panic(expected = "a put that is to create")]
async fn a_store_that_loses_an_answer_does_not_conform() {
    let faulty = Arc::new(Faulty::new(Arc::new(InMemory::new())));
    faulty.fail_put_of("manifest.json", Fault::LoseAnswer);
    super::conformance::object_store_conforms(faulty, "x").await;
}
