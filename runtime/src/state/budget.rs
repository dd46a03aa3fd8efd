//! The memory that the state of a job may take, shared by all tables of all its subtasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures::FutureExt;
use tokio::sync::{Notify, watch};

/// What a job's state may take in memory.
///
/// A soft limit: a table that is over its share forgets what the store has, and asks for an early checkpoint when too much of it is only in
/// memory. Far over the limit, sources wait for a checkpoint before they read on.
#[derive(Debug)]
pub struct MemoryBudget {
    limit: usize,
    used: AtomicUsize,
    /// Of that, what only the memory has.
    unsaved: AtomicUsize,
    reservations: AtomicUsize,
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
            unsaved: AtomicUsize::new(0),
            reservations: AtomicUsize::new(0),
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
        // Whoever asked meanwhile did not know of this one, and asks again if need be.
        let _ = self.early.notified().now_or_never();
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

/// The part of the limit that changes may have, as one in so many, before a checkpoint is asked for.
const UNSAVED_PART: usize = 8;

/// Changes what one counts for in the sum of all.
fn replace(sum: &AtomicUsize, one: &mut usize, new: usize) {
    if new >= *one {
        sum.fetch_add(new - *one, Relaxed);
    } else {
        sum.fetch_sub(*one - new, Relaxed);
    }
    *one = new;
}

/// One table's part of a [`MemoryBudget`]; given back when dropped.
#[derive(Debug)]
pub struct MemoryReservation {
    budget: Arc<MemoryBudget>,
    bytes: usize,
    unsaved: usize,
}

impl MemoryReservation {
    /// A part that uses nothing yet.
    pub fn new(budget: Arc<MemoryBudget>) -> Self {
        budget.reservations.fetch_add(1, Relaxed);
        MemoryReservation { budget, bytes: 0, unsaved: 0 }
    }

    /// Says how much the table uses now.
    pub fn set(&mut self, bytes: usize) {
        replace(&self.budget.used, &mut self.bytes, bytes);
    }

    /// Says how much of that only the memory has. Asks for a checkpoint when this is much of a job that is near its limit: a checkpoint takes
    /// copies of it, and what is left of the budget is what makes the next batch fast.
    pub fn set_unsaved(&mut self, bytes: usize) {
        let budget = &self.budget;
        replace(&budget.unsaved, &mut self.unsaved, bytes);
        if budget.unsaved.load(Relaxed) > budget.limit / UNSAVED_PART && budget.used_bytes() > budget.limit / 2 {
            budget.request_checkpoint();
        }
    }

    /// What the table may use when all others use theirs, in bytes.
    pub fn fair(&self) -> usize {
        self.budget.limit / self.budget.reservations.load(Relaxed).max(1)
    }

    /// Whether the job is over its limit, and this table over its fair part of it.
    pub fn is_over(&self) -> bool {
        self.budget.used_bytes() > self.budget.limit && self.bytes > self.fair()
    }

    /// How much the table is to forget, in bytes: of what brings the job somewhat below its limit, the part that is the table's.
    pub fn excess(&self) -> usize {
        if !self.is_over() {
            return 0;
        }
        let (used, below) = (self.budget.used_bytes(), self.budget.limit / 8 * 7);
        (used.saturating_sub(below) as u128 * self.bytes as u128 / used.max(1) as u128) as usize
    }

    /// See [`MemoryBudget::request_checkpoint`].
    pub fn request_checkpoint(&self) {
        self.budget.request_checkpoint();
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        self.set(0);
        self.set_unsaved(0);
        self.budget.reservations.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_table_above_its_part_is_over() {
        let budget = MemoryBudget::new(10 << 20);
        let (mut small, mut large) = (MemoryReservation::new(budget.clone()), MemoryReservation::new(budget.clone()));
        small.set(3 << 20);
        large.set(7 << 20);
        assert!(!large.is_over(), "the limit is not reached");
        large.set(8 << 20);
        assert!(large.is_over() && !small.is_over());
        drop(large);
        assert_eq!(budget.used_bytes(), 3 << 20);
        assert_eq!(small.fair(), 10 << 20);
    }

    #[test]
    fn the_excess_is_shared_out_by_size() {
        let budget = MemoryBudget::new(8 << 20);
        let (mut small, mut large) = (MemoryReservation::new(budget.clone()), MemoryReservation::new(budget.clone()));
        let _empty: Vec<MemoryReservation> = (0..6).map(|_| MemoryReservation::new(budget.clone())).collect();
        small.set(2 << 20);
        large.set(6 << 20);
        assert_eq!(large.excess(), 0, "the limit is not passed");
        large.set(8 << 20);
        // 3 MiB above seven eighths of the limit.
        assert_eq!(large.excess(), (3 << 20) * 8 / 10);
        assert_eq!(small.excess(), (3 << 20) * 2 / 10);
    }

    #[tokio::test]
    async fn many_changes_bring_a_checkpoint_early_when_memory_is_short() {
        let budget = MemoryBudget::new(8 << 20);
        let mut reservation = MemoryReservation::new(budget.clone());
        reservation.set(3 << 20);
        reservation.set_unsaved(2 << 20);
        assert!(futures::poll!(Box::pin(budget.checkpoint_requested())).is_pending(), "there is room");
        reservation.set(5 << 20);
        reservation.set_unsaved(2 << 20);
        budget.checkpoint_requested().await;
        reservation.set_unsaved(2 << 20);
        budget.checkpoint_durable();
        assert!(futures::poll!(Box::pin(budget.checkpoint_requested())).is_pending(), "that one was enough");
    }

    #[tokio::test]
    async fn far_over_the_limit_one_checkpoint_is_waited_for() {
        let budget = MemoryBudget::new(1 << 20);
        let mut reservation = MemoryReservation::new(budget.clone());
        reservation.set(1 << 20);
        budget.room().await;
        reservation.set(2 << 20);
        let mut room = Box::pin(budget.room());
        assert!(futures::poll!(&mut room).is_pending());
        budget.checkpoint_requested().await;
        budget.checkpoint_durable();
        room.await;
    }
}
