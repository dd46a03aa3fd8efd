//! From a record's append to its result's visibility: a SQL job between two streams of the log, in this process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use coulee_log::{BatchBuilder, Compression, Isolation, Record};
use coulee_model::{SequenceNumber, ShardId, StreamName, Timestamp};
use coulee_server::{Closing, Engine, EngineSettings, Script};
use parking_lot::Mutex;

use crate::Result;

const RECORDS: usize = 2_000;
const PAUSE: Duration = Duration::from_millis(5);

pub fn run() -> Result<()> {
    println!(
        "| delivery | reader | checkpoint | p50 | p99 | max | goal |\n| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        measure("exactly-once", Isolation::ReadCommitted, 100, "p99 250 ms").await?;
        measure("exactly-once", Isolation::ReadCommitted, 1_000, "").await?;
        measure("exactly-once", Isolation::ReadUncommitted, 100, "p99 10 ms").await?;
        measure("at-least-once", Isolation::ReadCommitted, 100, "p99 10 ms").await
    })
}

async fn measure(guarantee: &str, isolation: Isolation, interval_ms: u64, goal: &str) -> Result<()> {
    let folder = tempfile::tempdir_in(".")?;
    let engine = Engine::open(&folder.path().join("data"), EngineSettings::default())?;
    let text = format!(
        "SET 'execution.checkpointing.interval' = '{interval_ms} ms';
        CREATE TABLE a (n BIGINT);
        CREATE TABLE b (n BIGINT) WITH ('sink.delivery-guarantee' = '{guarantee}');
        INSERT INTO b SELECT n FROM a;"
    );
    let (events, _kept) = tokio::sync::mpsc::unbounded_channel();
    let script = Script { text, origin: "latency.sql".into(), ..Script::default() };
    engine.run_script(script, events).await?;
    let appended = Arc::new(Mutex::new(vec![None; RECORDS]));
    let reader = tokio::spawn(read(engine.clone(), isolation, appended.clone()));
    let shard = engine.log().stream(&StreamName::new("a")?)?.shard(ShardId(0))?;
    // The first records find everything cold: a job that has just started is not what is measured.
    for n in 0..RECORDS {
        let mut batch = BatchBuilder::new(Compression::None);
        let line = format!("{{\"n\":{n}}}");
        batch.push(&Record { key: None, value: Some(line.as_bytes()), timestamp: Timestamp(0), headers: &[] });
        appended.lock()[n] = Some(Instant::now());
        shard.append(batch).await?;
        tokio::time::sleep(PAUSE).await;
    }
    let mut took = reader.await?.map_err(|error| error.to_string())?;
    took.drain(..RECORDS / 10);
    took.sort();
    let at = |share: usize| took[(took.len() - 1) * share / 100].as_secs_f64() * 1e3;
    let reads = if isolation == Isolation::ReadCommitted { "committed" } else { "uncommitted" };
    let (half, most, all) = (at(50), at(99), at(100));
    println!("| {guarantee} | {reads} | {interval_ms} ms | {half:.1} ms | {most:.1} ms | {all:.1} ms | {goal} |");
    engine.close(Closing::Stop).await;
    Ok(())
}

/// For every record, in their order, how long it took.
async fn read(
    engine: Arc<Engine>,
    isolation: Isolation,
    appended: Arc<Mutex<Vec<Option<Instant>>>>,
) -> Result<Vec<Duration>, coulee_log::LogError> {
    let stream = engine.log().stream(&StreamName::new("b").expect("a name"))?;
    let shard = stream.shard(ShardId(0))?;
    let (mut tail, mut next, mut took) = (shard.tail(isolation), SequenceNumber(0), Vec::new());
    while took.len() < RECORDS {
        tail.changed(next).await?;
        let fetched = shard.read(next, 1 << 20, isolation)?;
        let now = Instant::now();
        for batch in fetched.batches() {
            for _ in batch?.decode()?.records() {
                let at = appended.lock()[took.len()].expect("appended before it was read");
                took.push(now - at);
            }
        }
        next = fetched.next;
    }
    Ok(took)
}
