//! A job whose state is larger than its memory: random keyed updates, checkpoints, snapshots, restarts.
//!
//! Each scenario is a process of its own, so that its memory is its own and it can be killed: this binary with `keyed:<scenario>`.

mod feed;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coulee_checkpoint::snapshot::SnapshotStore;
use coulee_checkpoint::{JobStore, StoreSettings};
use coulee_model::{JobName, SystemClock};
use coulee_runtime::Result as JobResult;
use coulee_runtime::flow::GraphBuilder;
use coulee_runtime::graph::Graph;
use coulee_runtime::job::{Environment, JobHandle, JobSettings, JobSpec, launch, restore};
use coulee_runtime::keyed::{KeyContext, KeyedFunction};
use coulee_runtime::memory::MemorySink;
use coulee_runtime::row::Row;
use object_store::local::LocalFileSystem;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::process::Cost;
use feed::Feed;

/// 4 GB of state, and 1 GB.
const MANY_KEYS: u64 = 10_000_000;
const FEW_KEYS: u64 = 2_500_000;
const SECONDS: u64 = 30;
/// 512 MB in all: what the job's state may take, two write buffers, and the block cache.
const BUDGET_BYTES: u64 = 320 << 20;
const STORE: StoreSettings = StoreSettings { write_buffer_bytes: 64 << 20, block_cache_bytes: 64 << 20 };

pub fn run() -> Result<()> {
    let folder = tempfile::tempdir_in(".")?;
    println!("| what | figure | goal |\n| --- | ---: | ---: |");
    child("many", &folder.path().join("many"))?;
    std::fs::remove_dir_all(folder.path().join("many"))?;
    let few = folder.path().join("few");
    child("few", &few)?;
    child("restart", &few)?;
    child("restore", &few)
}

/// Runs a scenario to its end, which may be its death, and shows what it says.
fn child(scenario: &str, folder: &Path) -> Result<()> {
    let mut child = Command::new(std::env::current_exe()?);
    let child = child.args([&format!("keyed:{scenario}"), &*folder.to_string_lossy()]).stderr(Stdio::inherit());
    let output = child.output()?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

/// What runs in the process of a scenario.
pub fn scenario(name: &str, folder: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let folder = PathBuf::from(folder);
    runtime.block_on(async {
        match name {
            "many" => many(&folder).await,
            "few" => few(&folder).await,
            "restart" => restart(&folder, "after kill -9, on the same disk", "1 s").await,
            "restore" => from_snapshot(&folder).await,
            other => Err(format!("no scenario '{other}'").into()),
        }
    })
}

/// Counts the rows of a key, in a state of about 400 bytes.
struct Count;

#[derive(Serialize, Deserialize)]
struct Counted {
    rows: u64,
    padding: ([u64; 20], [u64; 20]),
}

impl Default for Counted {
    fn default() -> Self {
        // Ten bytes each in postcard's encoding.
        Counted { rows: 0, padding: ([u64::MAX - 7; 20], [u64::MAX - 9; 20]) }
    }
}

impl KeyedFunction for Count {
    type State = Counted;

    fn process(&mut self, _: Row<'_>, state: &mut Counted, _: &mut KeyContext<'_>) -> JobResult<()> {
        state.rows += 1;
        state.padding.0[(state.rows % 20) as usize] ^= state.rows;
        Ok(())
    }
}

fn graph(feed: &Feed) -> JobResult<Graph> {
    let builder = GraphBuilder::new(2);
    let flow = builder.source("feed", Arc::new(feed.clone()))?;
    let schema = flow.schema().clone();
    flow.key_by(["key"])?.process("count", schema, || Count)?.sink("none", Arc::new(MemorySink::default()))?;
    builder.finish()
}

fn open(folder: &Path, feed: &Feed, interval: Duration) -> Result<JobHandle> {
    let environment = Environment {
        store: Arc::new(JobStore::open(&folder.join("state"), &STORE)?),
        spool: folder.join("spool"),
        scratch: folder.join("scratch"),
        clock: Arc::new(SystemClock),
        snapshots: None,
    };
    let spec = JobSpec {
        name: JobName::new("keyed")?,
        incarnation: "0123456789ab".into(),
        graph: graph(feed)?,
        settings: JobSettings {
            checkpoint_interval: interval,
            memory_budget_bytes: BUDGET_BYTES,
            ..JobSettings::default()
        },
    };
    Ok(launch(spec, environment)?)
}

/// Rows that the function has taken.
fn updates(job: &JobHandle) -> u64 {
    job.status()
        .subtasks
        .iter()
        .filter(|figures| figures.operator.0 == 1)
        .map(|figures| figures.figures.rows_in())
        .sum()
}

/// Waits until the function has taken so many rows.
async fn settled(job: &JobHandle, rows: u64) {
    while updates(job) < rows {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What this process has cost so far.
fn own() -> Cost {
    crate::process::sample(std::process::id()).unwrap_or_default()
}

/// Bytes that this process has sent to the disk.
fn written_bytes() -> Result<u64> {
    let io = std::fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.ok_or("/proc/self/io has no write_bytes")?.parse()?)
}

/// The physical limit: bytes per second into a plain file.
fn disk_rate(folder: &Path) -> Result<f64> {
    use std::io::Write;
    let (piece, pieces, started) = (vec![7; 4 << 20], 256, Instant::now());
    let mut file = tempfile::tempfile_in(folder)?;
    for _ in 0..pieces {
        file.write_all(&piece)?;
    }
    file.sync_all()?;
    Ok((piece.len() * pieces) as f64 / started.elapsed().as_secs_f64())
}

async fn many(folder: &Path) -> Result<()> {
    let feed = Feed::new(MANY_KEYS);
    let job = open(folder, &feed, Duration::from_secs(1))?;
    let started = Instant::now();
    feed.allow(MANY_KEYS);
    settled(&job, MANY_KEYS).await;
    println!("| {MANY_KEYS} new keys | {:.0} /s | |", MANY_KEYS as f64 / started.elapsed().as_secs_f64());
    feed.allow(u64::MAX);
    for keys in ["uniformly random", "Zipfian"] {
        if keys == "Zipfian" {
            feed.skew();
        }
        let (started, before, cpu, written) = (Instant::now(), updates(&job), own().cpu, written_bytes()?);
        tokio::time::sleep(Duration::from_secs(SECONDS)).await;
        let done = (updates(&job) - before) as f64;
        let (rate, each) = (done / started.elapsed().as_secs_f64(), (own().cpu - cpu).as_secs_f64() * 1e6 / done);
        println!("| {keys} updates of them, checkpoint each second, {SECONDS} s | {rate:.0} /s | 200,000 /s |");
        println!("| processor time of each | {each:.1} µs | |");
        let written = (written_bytes()? - written) as f64 / started.elapsed().as_secs_f64();
        println!("| written meanwhile | {:.0} MB/s | |", written / 1e6);
    }
    let (stored, peak) = (job.status().stored_bytes, own().peak_bytes);
    job.cancel();
    job.outcome().await;
    drop(job);
    println!("| what the disk takes of one file, with a sync at its end | {:.0} MB/s | |", disk_rate(folder)? / 1e6);
    println!("| state on disk | {:.1} GB | 4 GB |", stored as f64 / 1e9);
    println!("| resident at most | {:.0} MB | bounded |", peak as f64 / 1e6);
    Ok(())
}

fn snapshots(folder: &Path) -> Result<SnapshotStore> {
    let bucket = folder.join("bucket");
    std::fs::create_dir_all(&bucket)?;
    Ok(SnapshotStore::new(Arc::new(LocalFileSystem::new_with_prefix(bucket)?), "keyed".into()))
}

/// 1 GB of state, of which 1 % changes five times, and 10 % at last; ends by killing itself.
async fn few(folder: &Path) -> Result<()> {
    let feed = Feed::new(FEW_KEYS);
    let store = snapshots(folder)?;
    // Only savepoints, and the memory budget, take checkpoints.
    let job = open(folder, &feed, Duration::from_secs(3600))?;
    feed.allow(FEW_KEYS);
    settled(&job, FEW_KEYS).await;
    let first = Instant::now();
    let whole = job.savepoint(store.clone(), "whole".into(), None).await?;
    println!("| snapshot of {:.2} GB, whole | {:.1} s | |", whole.bytes() as f64 / 1e9, first.elapsed().as_secs_f64());
    let (changed, mut slowest, mut part) = (FEW_KEYS / 100, Duration::ZERO, 0.0_f64);
    for round in 0..5 {
        let before = bucket_bytes(&folder.join("bucket"))?;
        feed.allow(changed);
        settled(&job, FEW_KEYS + (round + 1) * changed).await;
        job.savepoint(store.clone(), format!("round-{round}"), None).await?;
        slowest = slowest.max(job.status().checkpoint_took);
        part = part.max((bucket_bytes(&folder.join("bucket"))? - before) as f64 / whole.bytes() as f64);
    }
    println!("| checkpoint when 1 % changed, slowest of 5 | {:.0} ms | 300 ms |", slowest.as_secs_f64() * 1e3);
    println!("| its incremental snapshot, largest of 5 | {:.1} % | 3 % |", part * 100.0);
    // What follows is in no file yet but RocksDB's log, which the restart has to read: 100 MB, in several checkpoints.
    let (last, rows) = (job.status().checkpoints, FEW_KEYS / 10);
    let before = updates(&job);
    feed.allow(rows);
    settled(&job, before + rows).await;
    while job.status().checkpoints < last + 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    std::process::abort()
}

fn bucket_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() { bucket_bytes(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(bytes)
}

/// From the start of the process to the first rows that were processed and to the first checkpoint of them.
async fn restart(folder: &Path, how: &str, goal: &str) -> Result<()> {
    let started = Instant::now();
    let feed = Feed::new(FEW_KEYS);
    feed.allow(u64::MAX);
    let job = open(folder, &feed, Duration::from_millis(200))?;
    let before = updates(&job);
    while updates(&job) == before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("| restart {how} | {:.2} s | {goal} |", started.elapsed().as_secs_f64());
    job.cancel();
    job.outcome().await;
    Ok(())
}

async fn from_snapshot(folder: &Path) -> Result<()> {
    let started = Instant::now();
    let other = folder.join("other");
    std::fs::create_dir_all(&other)?;
    let name = coulee_checkpoint::snapshot::SnapshotName::savepoint("round-4")?;
    restore(&snapshots(folder)?, &name, &other.join("state"), &other.join("spool")).await?;
    println!("| download of that snapshot from a folder | {:.2} s | |", started.elapsed().as_secs_f64());
    restart(&other, "from it, after the download", "10 s with the download").await
}
