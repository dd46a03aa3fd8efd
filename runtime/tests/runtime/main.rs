//! The runtime from outside: operators in the harness, and whole jobs over sources and sinks in memory.

mod changelogs;
mod jobs;
mod keyed;
mod savepoints;
mod windows;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coulee_checkpoint::{JobStore, StoreSettings};
use coulee_model::{JobName, SystemClock};
use coulee_runtime::graph::{Graph, NodeKind};
use coulee_runtime::job::{Environment, JobHandle, JobSettings, JobSpec, Outcome, launch};

fn environment(folder: &Path) -> Environment {
    let store = JobStore::open(&folder.join("state"), &StoreSettings::default()).unwrap();
    Environment {
        store: Arc::new(store),
        spool: folder.join("spool"),
        scratch: folder.join("scratch"),
        clock: Arc::new(SystemClock),
        snapshots: None,
    }
}

fn spec(graph: Graph) -> JobSpec {
    JobSpec {
        name: JobName::new("windows").unwrap(),
        incarnation: "0123456789ab".into(),
        graph,
        settings: JobSettings { checkpoint_interval: Duration::from_millis(1), ..JobSettings::default() },
    }
}

/// Keeps every source to so many rows per second, so that a job is in mid-stream when it is ended.
fn paced(mut graph: Graph, rows_per_second: f64) -> Graph {
    for node in &mut graph.nodes {
        if let NodeKind::Source(source) = &mut node.kind {
            source.rate_limit = Some(rows_per_second);
        }
    }
    graph
}

async fn finish(graph: Graph, folder: &Path) -> JobHandle {
    let job = launch(spec(graph), environment(folder)).unwrap();
    let outcome = job.outcome().await;
    assert!(matches!(outcome, Outcome::Finished), "{outcome:?}");
    job
}

/// Waits until a job has ended or has taken so many checkpoints. Whether it has ended.
async fn checkpoints(job: &JobHandle, count: u64) -> bool {
    let target = job.status().checkpoint.0 + count;
    while job.status().checkpoint.0 < target {
        tokio::select! {
            _ = job.outcome() => return true,
            () = tokio::task::yield_now() => {}
        }
    }
    false
}
