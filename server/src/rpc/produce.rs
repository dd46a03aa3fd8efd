//! Appends what a client sends, and tells it what is durable. Appends are kept under way: one waits for the disk while the
//! next ones are received.

use std::collections::BTreeMap;
use std::sync::Arc;

use coulee_log::{Append, BatchBuilder, Log, LogError, Record, Stream, StreamSettings};
use coulee_model::{ShardId, StreamName, Timestamp};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::proto::{ProduceRequest, ProduceResponse, ShardEnd};
use crate::blocking::blocking;
use crate::engine::Engine;
use crate::key::KeyFields;
use crate::{Error, Result};

/// How many requests may be under way to the disk.
const UNDER_WAY: usize = 32;

/// The appends of one request.
struct Sent {
    appends: Vec<(ShardId, Append)>,
    records: u64,
    keyless: u64,
}

/// Serves one call.
///
/// # Errors
/// What the client is told: an unknown stream, a full disk. Records acknowledged before are durable.
pub(super) async fn produce(
    engine: &Engine,
    mut requests: Streaming<ProduceRequest>,
    answers: &mpsc::Sender<Result<ProduceResponse, Status>>,
) -> Result<(), Status> {
    let Some(first) = requests.message().await? else { return Ok(()) };
    let stream = find_or_create(engine, &first).await?;
    let keys = KeyFields::new(&first.key_fields, &stream.settings().properties);
    let (sent, received) = mpsc::channel(UNDER_WAY);
    let send = async {
        let mut request = Some(first);
        while let Some(next) = request {
            let appended = append(&stream, &next, &keys, engine.clock().now());
            for (shard, _) in &appended.appends {
                stream.shard(*shard).map_err(Error::from)?.room().await;
            }
            if sent.send(appended).await.is_err() {
                // The other half has failed and says why.
                break;
            }
            request = requests.message().await?;
        }
        drop(sent);
        Ok(())
    };
    let (sent, acknowledged) = tokio::join!(send, acknowledge(received, answers));
    acknowledged?;
    sent
}

async fn find_or_create(engine: &Engine, first: &ProduceRequest) -> Result<Arc<Stream>> {
    let name = StreamName::new(first.stream.clone())?;
    let (log, shards) = (engine.log().clone(), first.create_shards);
    blocking(move || {
        let stream = match log.stream(&name) {
            Err(LogError::NotFound { .. }) if shards > 0 => create(&log, &name, shards)?,
            found => found?,
        };
        // Opens the shards, which reads files, while it may block.
        for shard in stream.shards() {
            shard.open()?;
        }
        Ok(stream)
    })
    .await
}

fn create(log: &Log, name: &StreamName, shards: u32) -> Result<Arc<Stream>> {
    match log.create_stream(name, StreamSettings { shards, ..StreamSettings::default() }) {
        // Somebody else was faster.
        Err(LogError::AlreadyExists { .. }) => Ok(log.stream(name)?),
        made => Ok(made?),
    }
}

/// Sorts the records of a request by shard and queues them.
fn append(stream: &Stream, request: &ProduceRequest, keys: &KeyFields, now: Timestamp) -> Sent {
    let mut batches: BTreeMap<ShardId, BatchBuilder> = BTreeMap::new();
    let mut keyless = 0;
    let mut scratch = Vec::new();
    for record in &request.records {
        let key = match &record.key {
            Some(key) => Some(&key[..]),
            None => keys.of(&record.value, &mut scratch),
        };
        keyless += u64::from(key.is_none() && !keys.is_empty());
        let builder = batches.entry(stream.route(key));
        builder.or_insert_with(|| BatchBuilder::new(stream.settings().compression)).push(&Record {
            key,
            value: Some(&record.value),
            timestamp: record.timestamp_ms.map_or(now, Timestamp),
            headers: &[],
        });
    }
    let shards = stream.shards();
    let append = |(id, batch): (ShardId, BatchBuilder)| (id, shards[id.0 as usize].append(batch));
    Sent { appends: batches.into_iter().map(append).collect(), records: request.records.len() as u64, keyless }
}

async fn acknowledge(
    mut sent: mpsc::Receiver<Sent>,
    answers: &mpsc::Sender<Result<ProduceResponse, Status>>,
) -> Result<(), Status> {
    let mut ends: BTreeMap<ShardId, u64> = BTreeMap::new();
    let (mut records, mut keyless) = (0, 0);
    while let Some(request) = sent.recv().await {
        for (shard, append) in request.appends {
            let appended = append.await.map_err(Error::from)?;
            ends.insert(shard, appended.last.0 + 1);
        }
        records += request.records;
        keyless += request.keyless;
        let ends = ends.iter().map(|(shard, end)| ShardEnd { shard: shard.0, end: *end }).collect();
        // A client that does not listen has its records appended all the same.
        let _ = answers.send(Ok(ProduceResponse { records, keyless, ends })).await;
    }
    Ok(())
}
