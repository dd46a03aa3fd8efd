//! The memory that the state of a job may take, shared by all tables of all its subtasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::{Notify, watch};

/// What a job's state may take in memory.
///
/// A soft limit: a table that is over its share forgets what the store has, and asks for an early checkpoint when too much of it is only in
/// memory. Far over the limit, sources wait for a checkpoint before they read on.
#[derive(Debug)]
pub struct MemoryBudget {
    limit: usize,
    used: AtomicUsize,
    shares: AtomicUsize,
    early: Notify,
    /// How many checkpoints have become durable.
    durable: watch::Sender<u64>,
}

impl MemoryBudget {
    /// A budget of so many bytes.
    pub fn new(limit_bytes: usize) -> Arc<Self> {
        Arc::new(MemoryBudget {
            limit: limit_bytes.max(1 << 20),
            used: AtomicUsize::new(0),
            shares: AtomicUsize::new(0),
            early: Notify::new(),
            durable: watch::Sender::new(0),
        })
    }

    /// The limit, in bytes.
    pub fn limit_bytes(&self) -> usize {
        self.limit
    }

    /// What is used, in bytes.
    pub fn used_bytes(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// Asks for a checkpoint before its time.
    pub fn request_checkpoint(&self) {
        self.early.notify_one();
    }

    /// Waits until somebody asks for an early checkpoint. Cancel-safe.
    pub(crate) async fn checkpoint_requested(&self) {
        self.early.notified().await;
    }

    /// A checkpoint is durable: what it holds can be forgotten.
    pub(crate) fn checkpoint_durable(&self) {
        self.durable.send_modify(|count| *count += 1);
    }

    /// Returns at once unless the state has outgrown its limit by half; then waits for one checkpoint. Cancel-safe.
    ///
    /// SUBTLE: for one checkpoint and not until there is room: state that cannot be forgotten would stop the job for good.
    pub(crate) async fn room(&self) {
        if self.used_bytes() <= self.limit + self.limit / 2 {
            return;
        }
        let mut durable = self.durable.subscribe();
        self.request_checkpoint();
        let _ = durable.changed().await;
    }
}

/// One table's part of a [`MemoryBudget`]; given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<MemoryBudget>,
    bytes: usize,
}

impl Share {
    /// A part that uses nothing yet.
    pub fn new(budget: Arc<MemoryBudget>) -> Self {
        budget.shares.fetch_add(1, Relaxed);
        Share { budget, bytes: 0 }
    }

    /// Says how much the table uses now.
    pub fn set(&mut self, bytes: usize) {
        if bytes >= self.bytes {
            self.budget.used.fetch_add(bytes - self.bytes, Relaxed);
        } else {
            self.budget.used.fetch_sub(self.bytes - bytes, Relaxed);
        }
        self.bytes = bytes;
    }

    /// What the table may use when all others use theirs, in bytes.
    pub fn fair(&self) -> usize {
        self.budget.limit / self.budget.shares.load(Relaxed).max(1)
    }

    /// Whether the job is over its limit, and this table over its fair part of it.
    pub fn is_over(&self) -> bool {
        self.budget.used_bytes() > self.budget.limit && self.bytes > self.fair()
    }

    /// See [`MemoryBudget::request_checkpoint`].
    pub fn request_checkpoint(&self) {
        self.budget.request_checkpoint();
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
        self.budget.shares.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_table_above_its_part_is_over() {
        let budget = MemoryBudget::new(10 << 20);
        let (mut small, mut large) = (Share::new(budget.clone()), Share::new(budget.clone()));
        small.set(3 << 20);
        large.set(7 << 20);
        assert!(!large.is_over(), "the limit is not reached");
        large.set(8 << 20);
        assert!(large.is_over() && !small.is_over());
        drop(large);
        assert_eq!(budget.used_bytes(), 3 << 20);
        assert_eq!(small.fair(), 10 << 20);
    }

    #[tokio::test]
    async fn far_over_the_limit_one_checkpoint_is_waited_for() {
        let budget = MemoryBudget::new(1 << 20);
        let mut share = Share::new(budget.clone());
        share.set(1 << 20);
        budget.room().await;
        share.set(2 << 20);
        let mut room = Box::pin(budget.room());
        assert!(futures::poll!(&mut room).is_pending());
        budget.checkpoint_requested().await;
        budget.checkpoint_durable();
        room.await;
    }
}
