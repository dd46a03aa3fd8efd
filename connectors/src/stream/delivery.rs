//! Delivery: appends the records of a staged file to the log, each exactly once however often it is tried.
//!
//! A writer is one idempotent producer, with an identity of its own that no other writer and no earlier attempt of the
//! job has used. It numbers the records it delivers to a shard from 0; the state in the checkpoint says which number the
//! first record of the first listed file has. The log knows the last number it took from each producer, durably and
//! atomically with the batch. So a delivery that was interrupted is completed by asking the log how far it came, and by
//! going on from there. This is exact because
//!
//! - nothing is delivered before the checkpoint that lists the file is durable: whatever was delivered can be found;
//! - a file is cut into batches in one way only, and a batch is stored whole or not at all: to go on is to skip batches;
//! - the last batch that the log seems to have is sent again. The log's answer for it, as for any append, waits for the
//!   disk: a batch that was only queued when the process gave up is not taken for stored.
//!
//! SUBTLE: the log forgets a producer once retention has removed its records, and takes no number but 0 from a producer
//! that it does not know. The numbering then begins again under an identity derived from the file's number, which
//! a repeated delivery derives, too. (If retention removes records within the time between a crash and the recovery,
//! those of the last, unfinished delivery are appended again.)

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coulee_log::{Append, BatchBuilder, Compression, ProducerId, Record, Shard, Stream};
use coulee_model::ShardId;
use coulee_runtime::{Error, Result};

use super::log_error;
use super::staged::{Staged, StagedReader, StagedRecord};
use super::state::{Numbering, Numberings};
use crate::random::mix;

/// A batch is closed before it would grow past either.
const BATCH_BYTES: usize = 256 << 10;
const BATCH_RECORDS: usize = 1000;
/// Producers' numbers are below this.
const NUMBERS: u64 = 1 << 31;

/// Appends what the log does not have yet of a staged file, and moves the numberings behind it.
///
/// # Errors
/// When the file is missing or damaged (unless the log has all of it), and those of appending. Nothing is lost then:
/// deliver it again.
pub(super) async fn deliver(
    stream: &Stream,
    spool: &Path,
    staged: &Staged,
    producer: ProducerId,
    numbering: &mut Numberings,
) -> Result<()> {
    let mut lanes = BTreeMap::new();
    for (shard, count) in &staged.records {
        let from = numbering.get(shard).copied().unwrap_or(Numbering { producer, next: 0 });
        let shard_of_log = stream.shard(ShardId(*shard)).map_err(log_error)?;
        lanes.insert(*shard, Lane::new(shard_of_log, from, staged.number, *count, stream.settings().compression));
    }
    let path = staged.path(spool);
    if path.exists() || !lanes.values().all(Lane::is_complete) {
        check(staged.clone(), spool.to_owned()).await?;
        let mut reader = StagedReader::open(staged, spool)?;
        while let Some(record) = reader.next()? {
            let lane = lanes.get_mut(&record.shard).ok_or_else(|| {
                Error::corrupt(format!("{} has records of a shard that the checkpoint does not list", path.display()))
            })?;
            if lane.push(&record) {
                lane.send().await;
            }
        }
        for lane in lanes.values_mut() {
            lane.send().await;
        }
    }
    // All or none: a delivery that fails halfway may be repeated by the same writer.
    let mut after = Numberings::new();
    for (shard, lane) in lanes {
        after.insert(shard, lane.finish().await?);
    }
    numbering.extend(after);
    Ok(())
}

async fn check(staged: Staged, spool: PathBuf) -> Result<()> {
    let checked = tokio::task::spawn_blocking(move || staged.check(&spool)).await;
    checked.map_err(|cause| Error::internal(format!("checking staged records failed: {cause}")))?
}

/// The records of a staged file that go to one shard.
struct Lane {
    shard: Arc<Shard>,
    /// The identity, and the number of the first record.
    from: Numbering,
    count: u64,
    /// How many records from the first one on the log seems to have. More than `count` when it has some of later files,
    /// whose delivery then confirms those of this one.
    stored: u64,
    /// How many records are in batches that are closed.
    closed: u64,
    compression: Compression,
    batch: BatchBuilder,
    under_way: Vec<Append>,
}

impl Lane {
    fn new(shard: Arc<Shard>, from: Numbering, file: u64, count: u64, compression: Compression) -> Self {
        let (from, stored) = resume(&shard, from, file);
        let batch = BatchBuilder::new(compression);
        Lane { shard, from, count, stored, closed: 0, compression, batch, under_way: Vec::new() }
    }

    fn is_complete(&self) -> bool {
        self.stored >= self.count
    }

    /// Whether the batch is full.
    fn push(&mut self, record: &StagedRecord<'_>) -> bool {
        let value = Some(record.value);
        self.batch.push(&Record { key: record.key, value, timestamp: record.timestamp, headers: &[] });
        self.batch.len() >= BATCH_RECORDS || self.batch.bytes() >= BATCH_BYTES
    }

    /// Closes the batch, and appends it unless the log has it and the one after it.
    async fn send(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let batch = std::mem::replace(&mut self.batch, BatchBuilder::new(self.compression));
        let first = self.closed;
        self.closed += batch.len() as u64;
        if self.closed < self.stored {
            return;
        }
        let number = (u64::from(self.from.next) + first) % NUMBERS;
        self.under_way.push(self.shard.append(batch.producer(self.from.producer, 0, number as i32)));
        self.shard.room().await;
    }

    /// Waits until all is stored: how the next file's records are numbered.
    async fn finish(self) -> Result<Numbering> {
        for append in self.under_way {
            append.await.map_err(log_error)?;
        }
        let next = (u64::from(self.from.next) + self.count) % NUMBERS;
        Ok(Numbering { producer: self.from.producer, next: next as u32 })
    }
}

/// Under which numbering a file is delivered, and how many of the records from there on the log seems to have: those
/// of later files, too.
fn resume(shard: &Shard, from: Numbering, file: u64) -> (Numbering, u64) {
    let renewed = Numbering { producer: renewed(from.producer, file), next: 0 };
    if let Some((_, last)) = shard.producer_sequence(renewed.producer) {
        return (renewed, last as u64 + 1);
    }
    match shard.producer_sequence(from.producer) {
        Some((_, last)) => {
            let stored = (last as u64 + 1 + NUMBERS - u64::from(from.next)) % NUMBERS;
            // More than half of the circle ahead is behind.
            if stored < NUMBERS / 2 {
                return (from, stored);
            }
            tracing::warn!(
                stream = %shard.stream(), shard = %shard.id(), producer = %from.producer,
                "the log has lost records that were delivered: did the machine fail while the stream's 'log.sync' was not 'group'?"
            );
            (renewed, 0)
        }
        None if from.next == 0 => (from, 0),
        None => (renewed, 0),
    }
}

/// The identity that replaces a producer from a file on, when the log has forgotten it.
fn renewed(producer: ProducerId, file: u64) -> ProducerId {
    ProducerId((mix(producer.0 as u64 ^ mix(file.wrapping_add(1))) & i64::MAX as u64) as i64)
}
