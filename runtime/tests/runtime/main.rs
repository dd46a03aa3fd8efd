//! The runtime from outside: operators in the harness, and whole jobs over sources and sinks in memory.

mod changelogs;
mod contracts;
mod current_watermark;
mod final_rows;
mod group_aggregate;
mod identity;
mod interval_joins;
mod jobs;
mod joins;
mod keyed;
mod op_codes;
mod over;
mod overlapping_windows;
mod processing_time;
mod random;
mod ranks;
mod row_errors;
mod savepoints;
mod sessions;
mod temporal_joins;
mod time;
mod timed_rows;
mod upserts;
mod windows;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coulee_checkpoint::{JobStore, StoreSettings};
use coulee_model::{JobName, SystemClock};
use coulee_runtime::graph::{Graph, NodeKind};
use coulee_runtime::job::{Environment, JobHandle, JobOutcome, JobSettings, JobSpec, launch};

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
    assert!(matches!(outcome, JobOutcome::Finished), "{outcome:?}");
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

/// Lets the sources of a graph that are paced bring so many times fewer rows: however slow the machine, a few checkpoints are taken before they end.
fn slow_down(graph: &mut Graph, times: f64) {
    for node in &mut graph.nodes {
        if let NodeKind::Source(source) = &mut node.kind {
            source.rate_limit = source.rate_limit.map(|rate| rate / times);
        }
    }
}

/// Runs a graph to its end in attempts: lets each come some checkpoints further, then ends it, in turn gently and at once. The graph is
/// that of an attempt's number, from 1. Asserts that there were several.
async fn finish_in_attempts(folder: &Path, graph: impl Fn(u32) -> Graph) {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let mut graph = graph(attempts);
        if attempts <= 3 {
            slow_down(&mut graph, 20.0);
        }
        let job = launch(spec(graph), environment(folder)).unwrap();
        checkpoints(&job, 3).await;
        if attempts % 2 == 0 {
            job.stop()
        } else {
            job.cancel()
        }
        match job.outcome().await {
            JobOutcome::Finished => break,
            JobOutcome::Stopped(_) | JobOutcome::Cancelled => {}
            JobOutcome::Failed(error) => panic!("{error}"),
        }
    }
    assert!(attempts > 3, "the job was interrupted {} times", attempts - 1);
}
