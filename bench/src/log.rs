//! The log: appending and reading 200-byte records, beside a plain file that is written with the same fsyncs and read through.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coulee_log::{BatchBuilder, Compression, Isolation, Log, LogSettings, Record, StreamSettings};
use coulee_model::{SequenceNumber, ShardId, StreamName, SystemClock, Timestamp};

use crate::Result;

const RECORD_BYTES: usize = 200;
const RECORDS: usize = 4_000_000;
const BATCH: usize = 100;
/// Batches that wait to be acknowledged: what one producer keeps in flight.
const IN_FLIGHT: usize = 64;

pub fn run() -> Result<()> {
    let folder = tempfile::tempdir_in(".")?;
    println!(
        "{RECORDS} records of {RECORD_BYTES} bytes; {BATCH} in a batch, {IN_FLIGHT} batches in flight, one shard, one producer\n"
    );
    println!("| what | seconds | records/s | MB/s |\n| --- | ---: | ---: | ---: |");
    let log = Log::open(&folder.path().join("log"), LogSettings::default(), Arc::new(SystemClock))?;
    let stream = log.create_stream(&StreamName::new("bench")?, StreamSettings::default())?;
    let appended = tokio::runtime::Builder::new_current_thread().build()?.block_on(append(&stream))?;
    row("log: append, acknowledged when synced", appended);
    let written = plain_write(&folder.path().join("plain"))?;
    row("peer: plain file, fdatasync per 64 batches", written);
    let read = read(&stream)?;
    row("log: read and decode", read);
    let plain = plain_read(&folder.path().join("plain"))?;
    row("peer: plain file, read", plain);
    println!(
        "\nappend is {:.2} of the plain write, read {:.2} of the plain read",
        ratio(written, appended),
        ratio(plain, read)
    );
    Ok(())
}

fn ratio(peer: Duration, ours: Duration) -> f64 {
    peer.as_secs_f64() / ours.as_secs_f64()
}

fn row(what: &str, took: Duration) {
    let per_second = RECORDS as f64 / took.as_secs_f64();
    let mega = per_second * RECORD_BYTES as f64 / 1e6;
    println!("| {what} | {:.2} | {per_second:.0} | {mega:.0} |", took.as_secs_f64());
}

async fn append(stream: &coulee_log::Stream) -> Result<Duration> {
    let shard = stream.shard(ShardId(0))?;
    let payload = [b'x'; RECORD_BYTES];
    let started = Instant::now();
    let mut pending = VecDeque::new();
    for _ in 0..RECORDS / BATCH {
        let mut batch = BatchBuilder::new(Compression::None);
        for _ in 0..BATCH {
            batch.push(&Record { key: None, value: Some(&payload), timestamp: Timestamp(1), headers: &[] });
        }
        pending.push_back(shard.append(batch));
        if pending.len() >= IN_FLIGHT
            && let Some(first) = pending.pop_front()
        {
            first.await?;
        }
    }
    for last in pending {
        last.await?;
    }
    Ok(started.elapsed())
}

fn plain_write(path: &Path) -> Result<Duration> {
    let chunk = vec![b'x'; RECORD_BYTES * BATCH * IN_FLIGHT];
    let started = Instant::now();
    let mut file = std::fs::File::create(path)?;
    for _ in 0..RECORDS / BATCH / IN_FLIGHT {
        file.write_all(&chunk)?;
        file.sync_data()?;
    }
    Ok(started.elapsed())
}

fn read(stream: &coulee_log::Stream) -> Result<Duration> {
    let shard = stream.shard(ShardId(0))?;
    let started = Instant::now();
    let (mut next, mut bytes) = (SequenceNumber(0), 0);
    while next < shard.end() {
        let fetched = shard.read(next, 1 << 20, Isolation::ReadCommitted)?;
        for batch in fetched.batches() {
            for record in batch?.decode()?.records() {
                bytes += record.value.map_or(0, <[u8]>::len);
            }
        }
        next = fetched.next;
    }
    assert_eq!(bytes, RECORDS * RECORD_BYTES, "every byte was read");
    Ok(started.elapsed())
}

fn plain_read(path: &Path) -> Result<Duration> {
    let started = Instant::now();
    let mut file = std::fs::File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => bytes += read,
        }
    }
    assert!(bytes > 0, "the file was read");
    Ok(started.elapsed())
}
