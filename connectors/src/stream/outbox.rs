//! Records on their way to the log: collected into a batch for each shard, appended when a batch is full, or when its records have waited
//! for a while: who reads what is not committed yet wants to see it.
//!
//! Under exactly once they go into a transaction, which begins with the first of them. Under at least once they are
//! appended as they are, at once.

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
/// All batches are, so long after the first record of any, in milliseconds.
const BATCH_AGE_MS: i64 = 500;

/// The records that one writer has on their way.
pub(super) struct Outbox {
    log: Arc<Log>,
    guarantee: Guarantee,
    names: Names,
    subtask: SubtaskIndex,
    /// Of the next transaction.
    number: u64,
    /// Exactly once: what was appended since the last `prepare`.
    transaction: Option<Transaction>,
    /// At least once: what nobody knows to be stored yet.
    under_way: VecDeque<Append>,
    /// Not appended yet, by shard.
    batches: BTreeMap<ShardId, BatchBuilder>,
    batched_bytes: usize,
    /// Of the first record that is not appended yet.
    batched_at: Option<Timestamp>,
    /// Shards that may have to be waited for.
    appended_to: Vec<Arc<Shard>>,
    /// Since the last `prepare`.
    records: u64,
    bytes: u64,
}

/// What [`Outbox::prepare`] has made durable.
pub(super) struct Prepared {
    /// To be committed. `None` when nothing was written, or it is visible already.
    pub(super) transaction: Option<TransactionRef>,
    pub(super) records: u64,
    pub(super) bytes: u64,
}

impl Outbox {
    pub(super) fn new(log: Arc<Log>, guarantee: Guarantee, names: Names, subtask: SubtaskIndex) -> Self {
        Outbox {
            log,
            guarantee,
            names,
            subtask,
            number: 0,
            transaction: None,
            under_way: VecDeque::new(),
            batches: BTreeMap::new(),
            batched_bytes: 0,
            batched_at: None,
            appended_to: Vec::new(),
            records: 0,
            bytes: 0,
        }
    }

    /// Adds a record to the batch of its shard, and appends what is full. `now` is the wall clock.
    ///
    /// # Errors
    /// When no transaction can begin.
    pub(super) fn push(&mut self, stream: &Stream, shard: ShardId, record: &Record<'_>, now: Timestamp) -> Result<()> {
        self.batched_at.get_or_insert(now);
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

    /// After the records of a call: waits until the log has room for more. Under at least once, appends all.
    ///
    /// # Errors
    /// Those of appending, also of earlier calls.
    pub(super) async fn pause(&mut self, stream: &Stream) -> Result<()> {
        if self.guarantee == Guarantee::AtLeastOnce {
            self.append_all(stream)?;
        }
        for shard in std::mem::take(&mut self.appended_to) {
            shard.room().await;
        }
        while let Some(append) = self.under_way.front_mut()
            && let Some(stored) = append.now_or_never()
        {
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
        while let Some(append) = self.under_way.pop_front() {
            append.await.map_err(log_error)?;
        }
        let (records, bytes) = (std::mem::take(&mut self.records), std::mem::take(&mut self.bytes));
        Ok(Prepared { transaction, records, bytes })
    }

    /// When what is collected is to be appended although it is not full.
    pub(super) fn due_at(&self) -> Option<Timestamp> {
        self.batched_at.map(|at| at.plus_millis(BATCH_AGE_MS))
    }

    /// Appends what is collected.
    ///
    /// # Errors
    /// When no transaction can begin.
    pub(super) fn append_all(&mut self, stream: &Stream) -> Result<()> {
        self.batched_at = None;
        while let Some((&shard, _)) = self.batches.first_key_value() {
            self.append(stream, shard)?;
        }
        Ok(())
    }

    fn append(&mut self, stream: &Stream, id: ShardId) -> Result<()> {
        let Some(batch) = self.batches.remove(&id) else { return Ok(()) };
        self.batched_bytes -= batch.bytes();
        self.bytes += batch.bytes() as u64;
        let shard = stream.shard(id).map_err(log_error)?;
        self.append_to(&shard, batch)?;
        if !self.appended_to.iter().any(|known| Arc::ptr_eq(known, &shard)) {
            self.appended_to.push(shard);
        }
        Ok(())
    }

    fn append_to(&mut self, shard: &Arc<Shard>, batch: BatchBuilder) -> Result<()> {
        if self.guarantee == Guarantee::AtLeastOnce {
            self.under_way.push_back(shard.append(batch));
            return Ok(());
        }
        if self.transaction.is_none() {
            let name = self.names.of(self.subtask, self.number)?;
            self.number += 1;
            self.transaction = Some(self.log.transaction(&name).map_err(log_error)?);
        }
        if let Some(transaction) = &self.transaction {
            // Preparing the transaction waits for it, and fails if it did.
            drop(transaction.append(shard, batch));
        }
        Ok(())
    }
}
