//! Snapshots and savepoints: a job moves to another disk, and sinks that wait for snapshots are exact even there.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coulee_checkpoint::snapshot::{SnapshotKind, SnapshotName, SnapshotStore};
use coulee_runtime::connector::CommitOn;
use coulee_runtime::harness::sorted_lines;
use coulee_runtime::job::{Environment, JobOutcome, Snapshots, launch, restore, savepoint_at_rest};
use coulee_runtime::memory::MemorySink;

use super::windows::{graph, naive, random_rows, splits};
use super::{checkpoints, environment, finish, paced, spec};

fn bucket() -> SnapshotStore {
    SnapshotStore::new(Arc::new(object_store::memory::InMemory::new()), "snapshots/windows".into())
}

fn with_snapshots(folder: &Path, store: &SnapshotStore) -> Environment {
    let snapshots = Snapshots { store: store.clone(), interval: Duration::ZERO, keep: 2, grace: Duration::ZERO };
    Environment { snapshots: Some(snapshots), ..environment(folder) }
}

async fn restored(from: &SnapshotStore, name: &SnapshotName) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    restore(from, name, &folder.path().join("state"), &folder.path().join("spool")).await.unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_lost_loses_and_doubles_nothing_of_sinks_that_commit_on_snapshots() {
    let input = random_rows(17, 12_000);
    let snapshots = bucket();
    let sink = MemorySink::committing_on(CommitOn::Snapshot);
    let mut folder = tempfile::tempdir().unwrap();
    let mut lost = 0;
    for round in 0..6 {
        let graph = paced(graph(1 + round % 3, splits(&input, 4), &sink), 40_000.0);
        let job = launch(spec(graph), with_snapshots(folder.path(), &snapshots)).unwrap();
        let before = snapshots.list().await.unwrap().last().map(|manifest| manifest.checkpoint());
        loop {
            let now = snapshots.list().await.unwrap().last().map(|manifest| manifest.checkpoint());
            if now > before && job.status().checkpoint > now.unwrap() {
                break;
            }
            if checkpoints(&job, 1).await {
                break;
            }
        }
        job.cancel();
        match job.outcome().await {
            JobOutcome::Cancelled => lost += 1,
            // A machine that is slow to look sees it done.
            JobOutcome::Finished => break,
            other => panic!("{other:?}"),
        }
        drop(job);
        // The disk is lost, with checkpoints that no snapshot has.
        let kept = snapshots.list().await.unwrap();
        assert!(kept.len() <= 2, "{} snapshots are kept", kept.len());
        folder = restored(&snapshots, &kept.last().unwrap().name()).await;
    }
    assert!(lost > 0, "no disk was lost in mid-stream");
    let graph = graph(2, splits(&input, 4), &sink);
    let job = launch(spec(graph), with_snapshots(folder.path(), &snapshots)).unwrap();
    let outcome = job.outcome().await;
    assert!(matches!(outcome, JobOutcome::Finished), "{outcome:?}");
    assert!(sorted_lines(&sink.rows()).unwrap() == naive(&input), "the result differs");
    let last = job.status().snapshot.unwrap();
    assert_eq!(last.checkpoint, job.status().checkpoint, "the end is in a snapshot");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_waits_for_snapshots_is_refused_without_them() {
    let sink = MemorySink::committing_on(CommitOn::Snapshot);
    let folder = tempfile::tempdir().unwrap();
    let graph = graph(1, splits(&random_rows(1, 10), 1), &sink);
    let error = launch(spec(graph), environment(folder.path())).unwrap_err().to_string();
    assert!(error.contains("sink 'out'") && error.contains("execution.checkpointing.dir"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_savepoint_of_a_running_or_resting_job_starts_another_one() {
    let input = random_rows(19, 3_000);
    let (saved, folder) = (bucket(), tempfile::tempdir().unwrap());
    let first = MemorySink::default();
    let job = launch(spec(paced(graph(2, splits(&input, 4), &first), 20_000.0)), environment(folder.path())).unwrap();
    assert!(!checkpoints(&job, 5).await);
    let manifest = job.savepoint(saved.clone(), "running".into(), Some("a note".into())).await.unwrap();
    assert_eq!(manifest.kind, SnapshotKind::Savepoint { name: "running".into(), note: Some("a note".into()) });
    job.stop();
    job.outcome().await;
    drop(job);
    let state = environment(folder.path());
    let at = (folder.path().join("spool"), folder.path().join("scratch"));
    let resting = savepoint_at_rest(
        (spec(graph(1, splits(&input, 4), &first)).name, state.store.clone()),
        (&at.0, &at.1),
        &saved,
        ("resting".into(), None),
        state.clock.clone(),
    );
    let resting = resting.await.unwrap();
    assert!(resting.checkpoint() > manifest.checkpoint());
    assert_eq!(saved.list().await.unwrap().len(), 2);

    for name in ["running", "resting"] {
        let restored = restored(&saved, &SnapshotName::savepoint(name).unwrap()).await;
        let sink = MemorySink::default();
        finish(graph(3, splits(&input, 4), &sink), restored.path()).await;
        // What the sink of the second job gets is what the savepoint had not fired yet: whole windows.
        let (expected, rest) = (naive(&input), sorted_lines(&sink.rows()).unwrap());
        assert!(!rest.is_empty() && rest.iter().all(|line| expected.contains(line)), "{name}: windows are whole");
    }
    // What the first job delivered and what it would still deliver are everything, once.
    let restored = restored(&saved, &SnapshotName::savepoint("resting").unwrap()).await;
    finish(graph(1, splits(&input, 4), &first), restored.path()).await;
    assert!(sorted_lines(&first.rows()).unwrap() == naive(&input), "the result differs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_process_was_linking_is_gone_when_the_job_runs_again() {
    let folder = tempfile::tempdir().unwrap();
    let left = folder.path().join("scratch/snapshot-7");
    std::fs::create_dir_all(left.join("state")).unwrap();
    std::fs::write(left.join("state/000007.sst"), "x").unwrap();
    let sink = MemorySink::default();
    finish(graph(1, splits(&random_rows(31, 100), 1), &sink), folder.path()).await;
    assert!(!left.exists(), "links hold on to files of the state that nobody needs");
}
