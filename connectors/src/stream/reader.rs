//! The reader: takes turns between its shards, and waits on all their tails when it has read them all.
//!
//! SUBTLE: a committed reader that waits for an open transaction has read all that it may see, but does not say that it
//! caught up: records are there whose turn comes when the transaction ends. A shard is idle only when it has none, or event
//! time would pass them by and make them late. The wait is as long as the writer's checkpoint interval.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use coulee_log::{EncodedBatch, Isolation, Shard, Tail};
use coulee_model::SequenceNumber;
use coulee_runtime::Result;
use coulee_runtime::connector::{SourceContext, SourceEvent, SourceReader};
use coulee_runtime::origin::{PositionKind, RowNumbers, RowPositions};
use futures::future::select_all;

use super::layout::SourceShard;
use super::log_error;
use super::position::Position;
use super::rows::{Chunk, Rows};

/// How much is read from a shard at once.
const FETCH_BYTES: usize = 1 << 20;

/// One shard that is being read.
pub(super) struct ShardReader {
    shard: Arc<Shard>,
    isolation: Isolation,
    tail: Tail,
    origin: SourceShard,
    /// Behind the last row that was returned.
    position: Position,
    /// Behind the last record that was decoded.
    decoded: u64,
    /// Fetched and not decoded.
    fetched: VecDeque<EncodedBatch>,
    /// Behind all that was fetched, with what has no records to read.
    fetched_to: u64,
    /// Decoded and not returned.
    chunk: Option<Chunk>,
    /// The sequence numbers of the rows that were returned last.
    last_sequences: RowNumbers,
    said_caught_up: bool,
    ended: bool,
    /// Not read for now.
    paused: bool,
}

impl ShardReader {
    pub(super) fn new(shard: Arc<Shard>, origin: SourceShard, position: Position, isolation: Isolation) -> Self {
        let tail = shard.tail(isolation);
        ShardReader {
            shard,
            isolation,
            tail,
            origin,
            position,
            decoded: position.next,
            fetched: VecDeque::new(),
            fetched_to: position.next,
            chunk: None,
            last_sequences: RowNumbers::default(),
            said_caught_up: false,
            ended: false,
            paused: false,
        }
    }

    fn stop(&self) -> u64 {
        self.position.stop.unwrap_or(u64::MAX)
    }

    /// The next rows, or what there is to say without any.
    fn step(&mut self, split: usize, rows: &mut Rows, context: &SourceContext) -> Result<Option<SourceEvent>> {
        while !self.ended {
            if let Some(chunk) = &mut self.chunk {
                let portion = chunk.take(context.batch_rows);
                if chunk.is_done() {
                    self.chunk = None;
                }
                self.position.next = portion.next;
                self.last_sequences = portion.sequences;
                self.said_caught_up = false;
                return Ok(Some(SourceEvent::of(split, portion.rows, portion.rejected)));
            }
            if self.decoded >= self.stop() {
                self.ended = true;
                return Ok(Some(SourceEvent::Ended { split }));
            }
            if self.fetched.is_empty() && !self.fetch()? {
                if self.said_caught_up || self.has_undecided() {
                    return Ok(None);
                }
                self.said_caught_up = true;
                return Ok(Some(SourceEvent::CaughtUp { split }));
            }
            self.decode(rows, context)?;
            if self.chunk.is_none() {
                // Nothing of it is a row: the position moves without one.
                self.position.next = self.decoded;
                return Ok(Some(SourceEvent::Moved { split }));
            }
        }
        Ok(None)
    }

    /// Whether there was anything to read.
    fn fetch(&mut self) -> Result<bool> {
        let fetched = self.shard.read(SequenceNumber(self.decoded), FETCH_BYTES, self.isolation).map_err(log_error)?;
        let batches: coulee_log::Result<_> = fetched.batches().collect();
        self.fetched = batches.map_err(|error| log_error(self.shard.locate(error)))?;
        self.fetched_to = fetched.next.0;
        Ok(self.fetched_to > self.decoded)
    }

    /// Whether records are there that may become readable.
    fn has_undecided(&self) -> bool {
        self.shard.end_for(self.isolation) < self.shard.end()
    }

    /// Decodes what was fetched, until there are rows enough.
    fn decode(&mut self, rows: &mut Rows, context: &SourceContext) -> Result<()> {
        let stop = self.stop();
        while rows.len() < context.batch_rows && self.decoded < stop {
            let Some(batch) = self.fetched.pop_front() else { break };
            let records = batch.decode().map_err(|error| log_error(self.shard.locate(error)))?;
            rows.decode(&records, self.decoded, stop, &self.origin)?;
            self.decoded = batch.last_sequence().plus(1).0.min(stop);
        }
        if self.fetched.is_empty() {
            // Past markers, and past what was aborted.
            self.decoded = self.fetched_to.min(stop);
        }
        self.chunk = rows.take(self.decoded, &self.origin, &context.metrics)?;
        Ok(())
    }

    fn lag(&self) -> u64 {
        self.shard.end_for(self.isolation).0.min(self.stop()).saturating_sub(self.position.next)
    }
}

pub(super) struct StreamReader {
    shards: Vec<ShardReader>,
    rows: Rows,
    context: SourceContext,
    next_split: usize,
    /// The shard whose rows were returned last.
    last_split: usize,
}

impl StreamReader {
    pub(super) fn new(shards: Vec<ShardReader>, rows: Rows, context: SourceContext) -> Self {
        StreamReader { shards, rows, context, next_split: 0, last_split: 0 }
    }
}

#[async_trait]
impl SourceReader for StreamReader {
    /// Cancel-safe: nothing is changed between the last wait and the answer.
    async fn next(&mut self) -> Result<SourceEvent> {
        loop {
            for _ in 0..self.shards.len() {
                let split = self.next_split % self.shards.len();
                self.next_split = split + 1;
                if self.shards[split].paused {
                    continue;
                }
                if let Some(event) = self.shards[split].step(split, &mut self.rows, &self.context)? {
                    self.last_split = split;
                    return Ok(event);
                }
            }
            let open = self.shards.iter_mut().filter(|shard| !shard.ended && !shard.paused);
            let tails: Vec<_> = open.map(|shard| Box::pin(shard.tail.changed(SequenceNumber(shard.decoded)))).collect();
            if tails.is_empty() {
                // A reader without shards, or whose shards are all paused, has nothing to say.
                std::future::pending::<()>().await;
            }
            select_all(tails).await.0.map_err(log_error)?;
        }
    }

    fn row_positions(&mut self) -> RowPositions {
        let numbers = self.shards.get_mut(self.last_split).map(|shard| std::mem::take(&mut shard.last_sequences));
        RowPositions { counts: PositionKind::Sequence, numbers: numbers.unwrap_or_default() }
    }

    fn split_name(&self, split: usize) -> Option<String> {
        let origin = &self.shards[split].origin;
        Some(format!("{}/{}", origin.stream, origin.shard))
    }

    fn set_paused(&mut self, split: usize, paused: bool) {
        self.shards[split].paused = paused;
    }

    fn position(&self, split: usize) -> Bytes {
        self.shards[split].position.encode()
    }

    fn lag(&self) -> Option<u64> {
        Some(self.shards.iter().map(ShardReader::lag).sum())
    }
}
