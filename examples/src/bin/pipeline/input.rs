//! The inputs: two streams whose every record is a function of the seed, the shard and the record's number.
//!
//! Appending them is idempotent without any bookkeeping: the end of a shard says which record is next.

use std::sync::Arc;
use std::time::Duration;

use coulee_connectors::log::{BatchBuilder, Log, LogError, Record, Shard};
use coulee_model::{Classify, ShardId, StreamName, Timestamp};
use coulee_runtime::{Error, Result};

use crate::settings::Settings;

/// The event time of the first records, in milliseconds: 2024-01-01.
const START_MS: i64 = 1_704_067_200_000;

/// A record's event time is at most this much, less one millisecond, behind that of a record before it in its shard.
pub const DISORDER: Duration = Duration::from_millis(500);

/// So many records are appended together at most.
const BATCH_RECORDS: u64 = 200;

/// How often a producer that is kept to a rate appends.
const TURN: Duration = Duration::from_millis(10);

/// One input stream.
#[derive(Debug, Clone, Copy)]
pub struct Input {
    pub name: &'static str,
    /// Tells its dice from those of the other.
    number: u64,
    pub shards: u32,
    /// Event time from one record of a shard to the next.
    step_ms: i64,
    /// One record for so many of `readings`.
    thinning: u64,
}

pub const READINGS: Input = Input { name: "readings", number: 1, shards: 3, step_ms: 10, thinning: 1 };
pub const COMMANDS: Input = Input { name: "commands", number: 2, shards: 2, step_ms: 50, thinning: 5 };

impl Input {
    /// How many records each of its shards has in the end.
    pub fn records_per_shard(&self, settings: &Settings) -> u64 {
        settings.records / self.thinning
    }

    /// The record's event time and JSON.
    fn record(&self, seed: u64, shard: u32, number: u64) -> (Timestamp, String) {
        let dice = mix(seed ^ mix(self.number << 56 | u64::from(shard) << 48 | number));
        let steps = number as i64 * self.step_ms;
        let jitter = (dice % DISORDER.as_millis() as u64) as i64;
        // Eight sensors speak for two seconds, then the next eight: so that there is silence, too.
        let sensor = (dice >> 16) % 8 + 8 * (steps as u64 / 2_000 % 4);
        let value = (dice >> 32) % 1_000;
        (Timestamp(START_MS + steps + jitter), format!("{{\"sensor\":\"s{sensor}\",\"value\":{value}}}"))
    }
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014): one step from `x`.
fn mix(x: u64) -> u64 {
    let z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Appends what is not there yet, at the rate of the settings.
///
/// # Errors
/// Those of the log.
pub async fn produce(log: &Log, settings: &Settings) -> Result<()> {
    let mut shards = Vec::new();
    for input in [READINGS, COMMANDS] {
        let name = StreamName::new(input.name).map_err(|error| Error::invalid(error.to_string()))?;
        let stream = log.stream(&name).map_err(log_error)?;
        for shard in 0..input.shards {
            shards.push((input, stream.shard(ShardId(shard)).map_err(log_error)?));
        }
    }
    let mut turns = tokio::time::interval(TURN);
    loop {
        let mut appends = Vec::new();
        for (input, shard) in &shards {
            let (from, until) = (shard.end().0, input.records_per_shard(settings));
            let count = turn_of(input, settings).min(until.saturating_sub(from));
            if count > 0 {
                appends.push(shard.append(batch(input, settings.seed, shard, from..from + count)));
            }
        }
        if appends.is_empty() {
            return Ok(());
        }
        for append in appends {
            append.await.map_err(log_error)?;
        }
        if settings.produce_rate > 0 {
            turns.tick().await;
        }
    }
}

/// How many records of a shard are appended at a time.
fn turn_of(input: &Input, settings: &Settings) -> u64 {
    match settings.produce_rate {
        0 => BATCH_RECORDS,
        rate => (rate * TURN.as_millis() as u64 / 1_000 / input.thinning).clamp(1, BATCH_RECORDS),
    }
}

fn batch(input: &Input, seed: u64, shard: &Arc<Shard>, numbers: std::ops::Range<u64>) -> BatchBuilder {
    let mut batch = BatchBuilder::new(coulee_connectors::log::Compression::None);
    for number in numbers {
        let (timestamp, json) = input.record(seed, shard.id().0, number);
        batch.push(&Record { key: None, value: Some(json.as_bytes()), timestamp, headers: &[] });
    }
    batch
}

/// An error of the log as one of the job.
pub fn log_error(error: LogError) -> Error {
    Error::new(error.kind(), error.to_string()).because(error)
}
