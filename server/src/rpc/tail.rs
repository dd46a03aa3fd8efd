//! Reads a stream for a client: from a place in every shard to the end, or on and on.

use std::sync::Arc;

use coulee_log::{Isolation, Shard, Stream};
use coulee_model::{SequenceNumber, Timestamp};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tonic::Status;

use super::proto::tail_request::From;
use super::proto::{TailRecord, TailRequest, TailResponse};
use crate::blocking::blocking;
use crate::{Error, Result};

/// Bytes read from a shard at a time.
const READ_BYTES: usize = 256 << 10;

type Answers = mpsc::Sender<Result<TailResponse, Status>>;

/// Where a shard is read from, and to where unless the call follows.
#[derive(Debug, Clone)]
struct Cursor {
    shard: Arc<Shard>,
    next: SequenceNumber,
    end: SequenceNumber,
    /// Whether records of transactions that are still open are seen.
    isolation: Isolation,
}

/// How many records may still be sent.
#[derive(Debug, Clone, Copy)]
struct Budget(u64);

impl Budget {
    fn take(&mut self, mut records: Vec<TailRecord>) -> Vec<TailRecord> {
        records.truncate(usize::try_from(self.0).unwrap_or(usize::MAX));
        self.0 -= records.len() as u64;
        records
    }
}

/// Serves one call.
///
/// # Errors
/// [`Error::Log`]: a trimmed position, a deleted stream.
pub(super) async fn tail(stream: &Arc<Stream>, request: &TailRequest, answers: &Answers) -> Result<()> {
    let from = request.from.unwrap_or(From::Latest(true));
    let mut budget = Budget(if request.limit == 0 { u64::MAX } else { request.limit });
    let isolation = if request.uncommitted { Isolation::ReadUncommitted } else { Isolation::ReadCommitted };
    let (owned, place) = (stream.clone(), from);
    let cursors =
        move || owned.shards().iter().map(|shard| cursor(shard, place, isolation)).collect::<Result<Vec<_>>>();
    let mut cursors = blocking(cursors).await?;
    match from {
        From::Newest(count) => newest(&mut cursors, count, &mut budget, answers).await?,
        _ => to_the_end(&mut cursors, &mut budget, answers).await?,
    }
    if request.follow && budget.0 > 0 {
        follow(cursors, budget, answers).await?;
    }
    Ok(())
}

/// Blocks: it opens the shard, and may look for a time in it.
fn cursor(shard: &Arc<Shard>, from: From, isolation: Isolation) -> Result<Cursor> {
    shard.open()?;
    let (earliest, end) = (shard.earliest(), shard.end_for(isolation));
    let next = match from {
        From::Earliest(_) => earliest,
        From::Latest(_) => end,
        From::Newest(count) => SequenceNumber(end.0.saturating_sub(count)).max(earliest),
        From::Sequence(sequence) => SequenceNumber(sequence).clamp(earliest, end),
        From::TimestampMs(at) => shard.sequence_at(Timestamp(at), isolation)?,
    };
    Ok(Cursor { shard: shard.clone(), next, end, isolation })
}

/// The newest records over all shards, in order of their times.
async fn newest(cursors: &mut [Cursor], count: u64, budget: &mut Budget, answers: &Answers) -> Result<()> {
    let mut records = Vec::new();
    for cursor in cursors {
        while cursor.next < cursor.end {
            records.extend(read(cursor).await?);
        }
    }
    // Stable: records of one shard stay in order when their times are equal.
    records.sort_by_key(|record| record.timestamp_ms);
    let surplus = records.len().saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
    send(budget.take(records.split_off(surplus)), answers).await;
    Ok(())
}

/// Shard by shard up to where each ended at the start.
async fn to_the_end(cursors: &mut [Cursor], budget: &mut Budget, answers: &Answers) -> Result<()> {
    for cursor in cursors {
        while cursor.next < cursor.end && budget.0 > 0 {
            let records = budget.take(read(cursor).await?);
            if !send(records, answers).await {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// What comes, from whichever shard it comes.
async fn follow(cursors: Vec<Cursor>, mut budget: Budget, answers: &Answers) -> Result<()> {
    async fn wait(mut cursor: Cursor) -> Result<Cursor> {
        cursor.end = cursor.shard.tail(cursor.isolation).changed(cursor.next).await?;
        Ok(cursor)
    }
    let mut waiting: FuturesUnordered<_> = cursors.into_iter().map(wait).collect();
    while let Some(moved) = waiting.next().await {
        let mut cursor = moved?;
        let records = budget.take(read(&mut cursor).await?);
        if !send(records, answers).await || budget.0 == 0 {
            return Ok(());
        }
        waiting.push(wait(cursor));
    }
    Ok(())
}

/// The next records of a shard, and moves on behind them.
async fn read(cursor: &mut Cursor) -> Result<Vec<TailRecord>> {
    let (shard, from, end, isolation) = (cursor.shard.clone(), cursor.next, cursor.end, cursor.isolation);
    let (records, next) = blocking(move || {
        let fetched = shard.read(from, READ_BYTES, isolation)?;
        let mut records = Vec::new();
        for batch in fetched.batches() {
            let decoded = batch.and_then(|batch| batch.decode()).map_err(|error| shard.locate(error))?;
            let wanted = decoded.records().filter(|record| record.sequence >= from && record.sequence < end);
            records.extend(wanted.map(|record| TailRecord {
                shard: shard.id().0,
                sequence: record.sequence.0,
                timestamp_ms: record.timestamp.millis(),
                key: record.key.map(|key| decoded.buffer().slice_ref(key)),
                value: record.value.map(|value| decoded.buffer().slice_ref(value)),
            }));
        }
        // What came meanwhile is read when its turn comes.
        Ok((records, fetched.next.min(end)))
    })
    .await?;
    if next <= from {
        return Err(Error::Internal(format!("shard {} gave nothing at {from}", cursor.shard.id())));
    }
    cursor.next = next;
    Ok(records)
}

/// Says whether anybody listens.
async fn send(records: Vec<TailRecord>, answers: &Answers) -> bool {
    records.is_empty() || answers.send(Ok(TailResponse { records })).await.is_ok()
}
