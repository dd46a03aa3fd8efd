//! The operator: a synchronous function over batches, with state that is handed over at barriers.

use std::sync::Arc;

use coulee_checkpoint::{Changes, JobStore, TableId};
use coulee_model::{CheckpointId, Clock, KeyGroup, OperatorId, SubtaskIndex, Timestamp};
use futures::future::BoxFuture;

use crate::graph::Port;
use crate::job::executor::Executor;
use crate::metrics::SubtaskMetrics;
use crate::row_errors::RejectedRows;
use crate::state::{Backend, MemoryBudget};
use crate::{Batch, Result};

/// What an operator is given when it starts: who it is and what was stored.
pub struct OpenContext<'a> {
    /// Which operator.
    pub operator: OperatorId,
    /// Which of its instances.
    pub subtask: SubtaskIndex,
    /// How many instances there are.
    pub parallelism: u32,
    /// The state of the job at the checkpoint it resumes from.
    pub store: &'a Arc<JobStore>,
    /// Where the operator counts.
    pub metrics: Arc<SubtaskMetrics>,
    /// What the state of the whole job may take in memory.
    pub budget: &'a Arc<MemoryBudget>,
    /// The wall clock: for timers of processing time, and for state that expires.
    pub clock: &'a Arc<dyn Clock>,
    /// What runs beside the tasks of the job.
    pub(crate) executor: &'a Arc<dyn Executor>,
}

/// Which of an operator's inputs: 0, unless it has several (the sides of a join, say).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct InputIndex(pub u8);

impl InputIndex {
    /// The only input of most operators.
    pub const FIRST: InputIndex = InputIndex(0);
    /// The other input of an operator with two.
    pub const SECOND: InputIndex = InputIndex(1);
}

impl OpenContext<'_> {
    /// Every entry `(key group, rest of the key, value)` of a table, over all key groups, in key order.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn entries(&self, table: TableId) -> impl Iterator<Item = Result<(KeyGroup, bytes::Bytes, bytes::Bytes)>> + '_ {
        self.store.scan(self.operator, table).map(|entry| {
            let (key, value) = entry?;
            let group = KeyGroup(u16::from_be_bytes([key[0], key[1]]));
            Ok((group, key.slice(2..), value))
        })
    }

    /// What tables of state are opened with: they read the store also later, when they need what is not in memory.
    pub fn backend(&self) -> Backend {
        Backend::new(
            self.operator,
            self.subtask,
            self.parallelism,
            self.store.clone(),
            self.budget.clone(),
            self.clock.clone(),
        )
    }

    /// Whether this subtask owns a key group.
    pub fn owns(&self, group: KeyGroup) -> bool {
        group.owner(self.parallelism) == self.subtask
    }
}

/// Where an operator puts what it produces: collected, and passed on when it returns.
#[derive(Debug, Default)]
pub struct Output {
    pub(crate) items: Vec<Emitted>,
}

/// Something an operator produced.
#[derive(Debug)]
pub(crate) enum Emitted {
    Batch(Port, Batch),
    Rejected(RejectedRows),
    Watermark(Timestamp),
}

impl Output {
    /// Emits rows on the main port. Empty batches are dropped.
    pub fn emit(&mut self, batch: Batch) {
        self.emit_to(Port::MAIN, batch);
    }

    /// Emits rows on a port. Empty batches are dropped.
    pub fn emit_to(&mut self, port: Port, batch: Batch) {
        if !batch.is_empty() {
            self.items.push(Emitted::Batch(port, batch));
        }
    }

    /// Hands over rows that an expression failed on: their table's `'format.on-error'` says what becomes of them. An operator
    /// that calls it says so in `OperatorFactory::may_reject`.
    pub fn reject(&mut self, rejected: RejectedRows) {
        self.items.push(Emitted::Rejected(rejected));
    }

    /// Passes on a watermark: everything emitted before it counts as before it.
    pub fn watermark(&mut self, watermark: Timestamp) {
        self.items.push(Emitted::Watermark(watermark));
    }
}

/// An operator of one subtask.
///
/// **Operations** `open` once; then `process`, `watermark`, `time`, `checkpoint` as elements arrive; `end` when all inputs have ended. Inputs are already merged:
/// watermarks ascend and barriers are aligned.
/// **Guarantees** asked of an implementation: it is deterministic in its inputs, and opened from the store as of checkpoint `n` it behaves as it did after `checkpoint(n)`.
/// **Non-guarantees** where batches begin and end; an operator must not depend on it.
/// **Failure** an error ends the job's attempt; the operator is dropped and made anew from the last checkpoint.
pub trait Operator: Send {
    /// Takes its state from the store.
    ///
    /// # Errors
    /// When the store cannot be read or holds what this operator does not understand.
    fn open(&mut self, context: &OpenContext<'_>) -> Result<()> {
        let _ = context;
        Ok(())
    }

    /// What is still to be done after `open` before there are rows: waited for, of all operators, before the first task of the job runs.
    fn loading(&mut self) -> Option<BoxFuture<'static, Result<()>>> {
        None
    }

    /// Takes rows of one of its inputs.
    ///
    /// # Errors
    /// When an expression fails on the data.
    fn process(&mut self, input: InputIndex, batch: Batch, out: &mut Output) -> Result<()>;

    /// No later row has an event time at or below `watermark`. Must pass it on (perhaps later, never higher).
    ///
    /// # Errors
    /// As `process`.
    fn watermark(&mut self, watermark: Timestamp, out: &mut Output) -> Result<()> {
        out.watermark(watermark);
        Ok(())
    }

    /// Goes on with what a call of another method began: called again and again after each of them, each time when what was emitted has been passed on,
    /// until it says that there is no more. So a result that is larger than the memory leaves in parts.
    ///
    /// # Errors
    /// As `process`.
    fn more(&mut self, out: &mut Output) -> Result<bool> {
        let _ = out;
        Ok(false)
    }

    /// When, by the wall clock, it wants `time` to be called; `None` for never. Asked after every call of another method.
    fn next_time(&self) -> Option<Timestamp> {
        None
    }

    /// The wall clock has reached `now`, which is at or after `next_time`. Called also while no rows come.
    ///
    /// # Errors
    /// As `process`.
    fn time(&mut self, now: Timestamp, out: &mut Output) -> Result<()> {
        let _ = (now, out);
        Ok(())
    }

    /// A barrier: first emits what must be downstream before it, then hands over every change since the last one.
    ///
    /// # Errors
    /// When state cannot be encoded.
    fn checkpoint(&mut self, id: CheckpointId, out: &mut Output, changes: &mut Changes) -> Result<()> {
        let _ = (id, out, changes);
        Ok(())
    }

    /// The input has ended (after a watermark of [`Timestamp::MAX`]): emits what is left.
    ///
    /// # Errors
    /// As `process`.
    fn end(&mut self, out: &mut Output) -> Result<()> {
        let _ = out;
        Ok(())
    }

    /// Bytes of state in memory.
    fn state_bytes(&self) -> usize {
        0
    }
}
