//! Records on their way to the log: collected into a batch for each shard, appended a moment later at the latest.
//!
//! Under exactly once they go into a transaction, which begins with the first of them; uncommitted readers see them before
//! it is committed. Under at least once they are appended as they are. Either way nobody waits for an append before
//! `prepare`, unless too much is under way.
//!
//! Appends go out in rounds: all batches at once, and then none for a few milliseconds, as each of them may cost a sync. So
//! a record that comes alone leaves at once, and those of a busy job share batches and syncs. The log groups what waits in
//! a shard, and adds no delay of its own.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use coulee_log::{Append, BatchBuilder, Log, Record, Shard, Stream, Transaction, TransactionRef};
use coulee_model::{ShardId, SubtaskIndex, Timestamp};
use coulee_runtime::Result;
use futures::FutureExt;

use super::log_error;
use super::settings::Guarantee;
use super::state::Names;

/// A batch is appended once it has this many bytes.
const BATCH_BYTES: usize = 512 << 10;
/// All batches are, once they have this many together.
const ALL_BATCHES_BYTES: usize = 16 << 20;
/// From one round of appends to the next: long enough that syncs are few, short enough for the latency of a moment.
const ROUND_MS_MIN: i64 = 3;
/// For rounds of many shards.
const ROUND_MS_MAX: i64 = 10;
/// How many appends a writer may ask for in a millisecond, as long as `ROUND_MS_MAX` allows.
const APPENDS_PER_MS: i64 = 2;
/// With more than this under way, the oldest appends are waited for.
pub(super) const UNDER_WAY_BYTES_MAX: usize = 32 << 20;
/// What an append costs beside its records, so that small ones are bounded as well.
const APPEND_BYTES: usize = 1 << 10;

/// The records that one writer has on their way.
pub(super) struct RecordAccumulator {
    log: Arc<Log>,
    guarantee: Guarantee,
    names: Names,
    subtask: SubtaskIndex,
    /// Of the next transaction.
    number: u64,
    /// Exactly once: what was appended since the last `prepare`.
    transaction: Option<Transaction>,
    /// What nobody knows to be stored yet, with its bytes; oldest first.
    under_way: VecDeque<(Append, usize)>,
    under_way_bytes: usize,
    /// Not appended yet, by shard.
    batches: BTreeMap<ShardId, BatchBuilder>,
    batched_bytes: usize,
    /// When they are to be appended.
    next_round: Timestamp,
    /// Shards that may have to be waited for.
    appended_to: Vec<Arc<Shard>>,
    /// Since the last `prepare`.
    records: u64,
    bytes: u64,
}

/// What [`RecordAccumulator::prepare`] has made durable.
pub(super) struct Prepared {
    /// To be committed. `None` when nothing was written, or it is visible already.
    pub(super) transaction: Option<TransactionRef>,
    pub(super) records: u64,
    pub(super) bytes: u64,
}

impl RecordAccumulator {
    pub(super) fn new(log: Arc<Log>, guarantee: Guarantee, names: Names, subtask: SubtaskIndex) -> Self {
        RecordAccumulator {
            log,
            guarantee,
            names,
            subtask,
            number: 0,
            transaction: None,
            under_way: VecDeque::new(),
            under_way_bytes: 0,
            batches: BTreeMap::new(),
            batched_bytes: 0,
            next_round: Timestamp::MIN,
            appended_to: Vec::new(),
            records: 0,
            bytes: 0,
        }
    }

    /// Adds a record to the batch of its shard, and appends what is full.
    ///
    /// # Errors
    /// When no transaction can begin.
    pub(super) fn push(&mut self, stream: &Stream, shard: ShardId, record: &Record<'_>) -> Result<()> {
        let batch = self.batches.entry(shard).or_insert_with(|| BatchBuilder::new(stream.settings().compression));
        let before = if batch.is_empty() { 0 } else { batch.bytes() };
        batch.push(record);
        let bytes = batch.bytes();
        self.batched_bytes += bytes - before;
        self.records += 1;
        if self.batched_bytes >= ALL_BATCHES_BYTES {
            self.append_all(stream)
        } else if bytes >= BATCH_BYTES {
            self.append(stream, shard)
        } else {
            Ok(())
        }
    }

    /// When what was pushed is to be appended, by [`send_due`](Self::send_due); `None` when all is.
    pub(super) fn next_round(&self) -> Option<Timestamp> {
        (!self.batches.is_empty()).then_some(self.next_round)
    }

    /// Appends what was pushed, if it is time to; and waits until there is room for more.
    ///
    /// # Errors
    /// Those of appending, also of earlier calls.
    pub(super) async fn send_due(&mut self, stream: &Stream, now: Timestamp) -> Result<()> {
        // A clock that was set back must not hold records up.
        let is_due = now >= self.next_round || now.plus_millis(ROUND_MS_MAX) < self.next_round;
        if is_due && !self.batches.is_empty() {
            let pause = (self.batches.len() as i64 / APPENDS_PER_MS).clamp(ROUND_MS_MIN, ROUND_MS_MAX);
            self.next_round = now.plus_millis(pause);
            self.append_all(stream)?;
        }
        for shard in std::mem::take(&mut self.appended_to) {
            shard.room().await;
        }
        while let Some((append, bytes)) = self.under_way.front_mut() {
            let is_much = self.under_way_bytes > UNDER_WAY_BYTES_MAX;
            let stored = if is_much { Some(append.await) } else { append.now_or_never() };
            let Some(stored) = stored else { break };
            self.under_way_bytes -= *bytes;
            self.under_way.pop_front();
            stored.map_err(log_error)?;
        }
        Ok(())
    }

    /// Appends what is left, and waits until all is durable.
    ///
    /// # Errors
    /// Those of appending and of preparing a transaction. What was written will not become visible then, or under at least
    /// once may be visible in part.
    pub(super) async fn prepare(&mut self, stream: Option<&Stream>) -> Result<Prepared> {
        if let Some(stream) = stream {
            self.append_all(stream)?;
        }
        let transaction = match self.transaction.take() {
            Some(mut transaction) => Some(transaction.prepare().await.map_err(log_error)?),
            None => None,
        };
        // Those of a transaction are stored by now.
        while let Some((append, bytes)) = self.under_way.pop_front() {
            self.under_way_bytes -= bytes;
            append.await.map_err(log_error)?;
        }
        let (records, bytes) = (std::mem::take(&mut self.records), std::mem::take(&mut self.bytes));
        Ok(Prepared { transaction, records, bytes })
    }

    fn append_all(&mut self, stream: &Stream) -> Result<()> {
        while let Some((&shard, _)) = self.batches.first_key_value() {
            self.append(stream, shard)?;
        }
        Ok(())
    }

    fn append(&mut self, stream: &Stream, id: ShardId) -> Result<()> {
        let Some(batch) = self.batches.remove(&id) else { return Ok(()) };
        let bytes = batch.bytes();
        self.batched_bytes -= bytes;
        self.bytes += bytes as u64;
        let shard = stream.shard(id).map_err(log_error)?;
        let append = self.append_to(&shard, batch)?;
        self.under_way.push_back((append, bytes + APPEND_BYTES));
        self.under_way_bytes += bytes + APPEND_BYTES;
        if !self.appended_to.iter().any(|known| Arc::ptr_eq(known, &shard)) {
            self.appended_to.push(shard);
        }
        Ok(())
    }

    fn append_to(&mut self, shard: &Arc<Shard>, batch: BatchBuilder) -> Result<Append> {
        if self.guarantee == Guarantee::AtLeastOnce {
            return Ok(shard.append(batch));
        }
        let transaction = match self.transaction.take() {
            Some(transaction) => transaction,
            None => {
                let name = self.names.of(self.subtask, self.number)?;
                self.number += 1;
                self.log.transaction(&name).map_err(log_error)?
            }
        };
        Ok(self.transaction.insert(transaction).append(shard, batch))
    }
}
