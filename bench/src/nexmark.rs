//! Nexmark: a filter (q2) and a tumbling count per auction, from the generator and from the log as JSON, with a checkpoint every second.

use std::path::Path;
use std::sync::Arc;

use coulee_connectors::nexmark::{Generator, NexmarkSettings};
use coulee_log::{BatchBuilder, Compression, Log, LogSettings, Record, StreamSettings, SyncPolicy};
use coulee_model::{ShardId, StreamName, SystemClock, Timestamp};

use crate::Result;
use crate::process::{Cost, run as run_process};

/// Events of the runs from the generator.
const GENERATED: u64 = 20_000_000;
/// Events of the runs from the log: about 280 bytes each.
const STORED: u64 = 4_000_000;
const SHARDS: u32 = 4;

pub const BID: &str = "auction BIGINT, price BIGINT, `dateTime` TIMESTAMP(3),
  WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '4' SECOND";
const Q2: &str = "INSERT INTO q SELECT auction, price FROM bid WHERE auction % 123 = 0;";
pub const COUNT: &str = "INSERT INTO q SELECT auction, COUNT(*) FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '10' SECOND)) GROUP BY window_start, window_end, auction;";
pub const SINK: &str = "CREATE TABLE q (auction BIGINT, n BIGINT) WITH ('connector' = 'blackhole');";

pub fn run() -> Result<()> {
    println!("| query | input | parallelism | events | seconds | events/s | CPU-s per M events | peak MB |");
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    let generator = format!(
        "CREATE TABLE bid ({BID}) WITH ('connector' = 'nexmark', 'nexmark.event' = 'bid', 'events.num' = '{GENERATED}');"
    );
    for (name, query) in [("q2", Q2), ("tumbling count", COUNT)] {
        for parallelism in [1, 2] {
            let cost = job(None, &format!("{generator}\n{SINK}\n{query}"), parallelism)?;
            row(name, "generator", parallelism, GENERATED, cost);
        }
    }
    let data = tempfile::tempdir_in(".")?;
    // Makes it a data folder.
    let folder = data.path().canonicalize()?.join("data");
    run_process(&["stream", "create", "made", "--data-dir", &folder.display().to_string()], data.path())?;
    fill(&folder.join("log"))?;
    // Only bids are decoded to the end: other events have no `bid`.
    let stored = format!(
        "CREATE TABLE events (bid ROW<auction BIGINT, price BIGINT, `dateTime` TIMESTAMP(3)>, `dateTime` TIMESTAMP(3),
          WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '4' SECOND)
          WITH ('stream' = 'nexmark', 'shards' = '{SHARDS}', 'scan.bounded.mode' = 'latest-offset');
        CREATE VIEW bid AS SELECT events.bid.auction AS auction, events.bid.price AS price, `dateTime` FROM events WHERE bid IS NOT NULL;"
    );
    for (name, query) in [("q2", Q2), ("tumbling count", COUNT)] {
        for parallelism in [1, 2] {
            let cost = job(Some(&folder), &format!("{stored}\n{SINK}\n{query}"), parallelism)?;
            row(name, "log, JSON", parallelism, STORED, cost);
        }
    }
    Ok(())
}

fn row(query: &str, input: &str, parallelism: u32, events: u64, cost: Cost) {
    let seconds = cost.wall.as_secs_f64();
    let million = events as f64 / 1e6;
    println!(
        "| {query} | {input} | {parallelism} | {events} | {seconds:.2} | {:.0} | {:.2} | {:.0} |",
        events as f64 / seconds,
        cost.cpu.as_secs_f64() / million,
        cost.peak_bytes as f64 / 1e6
    );
}

/// Runs a script; each in a job of its own, so that none resumes another.
pub fn job(data: Option<&Path>, script: &str, parallelism: u32) -> Result<Cost> {
    let folder = tempfile::tempdir_in(".")?;
    std::fs::write(folder.path().join("q.sql"), script)?;
    let data = match data {
        Some(data) => data.canonicalize()?,
        None => folder.path().canonicalize()?.join("data"),
    };
    let (data, parallelism) = (data.display().to_string(), parallelism.to_string());
    run_process(&["run", "--data-dir", &data, "--fresh", "--parallelism", &parallelism, "q.sql"], folder.path())
}

/// Writes the events as JSON lines into the stream `nexmark`, shard by shard in turn.
fn fill(folder: &Path) -> Result<()> {
    let log = Log::open(folder, LogSettings::default(), Arc::new(SystemClock))?;
    let settings = StreamSettings { shards: SHARDS, sync: SyncPolicy::Os, ..StreamSettings::default() };
    let stream = log.create_stream(&StreamName::new("nexmark")?, settings)?;
    let generator = Generator::new(NexmarkSettings::default())?;
    let mut line = Vec::new();
    let mut last = Vec::new();
    for start in (0..STORED).step_by(500) {
        let shard = stream.shard(ShardId((start / 500) as u32 % SHARDS))?;
        let mut batch = BatchBuilder::new(Compression::None);
        for event in start..start + 500 {
            line.clear();
            generator.json_line(event, &mut line);
            batch.push(&Record { key: None, value: Some(&line), timestamp: Timestamp(event as i64), headers: &[] });
        }
        last.push(shard.append(batch));
        if last.len() >= 64 {
            for append in last.drain(..) {
                append.wait()?;
            }
        }
    }
    for append in last {
        append.wait()?;
    }
    log.close();
    Ok(())
}
