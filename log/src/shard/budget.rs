//! The memory that appends may hold while they wait: one budget for all shards of a log.
//!
//! A bound for each shard would multiply by the number of shards. So every queued batch reserves its bytes here, and
//! frees them when it has been written or has failed. Above the limit appends are refused; above the *room* limit, a
//! quarter of it, [`AppendBudget::room`] makes polite callers wait (backpressure).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The bytes of all appends that wait.
#[derive(Debug)]
pub(crate) struct AppendBudget {
    limit: usize,
    used: AtomicUsize,
    /// Told when `used` falls below the room limit.
    room: Notify,
}

/// The bytes of one append. Dropping it frees them.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Arc<AppendBudget>,
    bytes: usize,
}

impl AppendBudget {
    /// `limit` is in bytes, and holds at least one batch of any size.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(AppendBudget { limit, used: AtomicUsize::new(0), room: Notify::new() })
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Sets bytes aside for an append.
    ///
    /// # Errors
    /// How many bytes are in use, when they leave too few.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: usize) -> Result<Reservation, usize> {
        let fits = |used: usize| (used == 0 || used.saturating_add(bytes) <= self.limit).then(|| used + bytes);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits)?;
        Ok(Reservation { budget: Arc::clone(self), bytes })
    }

    /// Waits until less than the room limit is in use.
    pub(crate) async fn room(&self) {
        loop {
            // SUBTLE: made before the look at `used`: a notification between the two is not missed.
            let freed = self.room.notified();
            if self.used.load(Ordering::Acquire) < self.room_limit() {
                return;
            }
            freed.await;
        }
    }

    fn room_limit(&self) -> usize {
        self.limit / 4
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let before = self.budget.used.fetch_sub(self.bytes, Ordering::AcqRel);
        let limit = self.budget.room_limit();
        if before >= limit && before - self.bytes < limit {
            self.budget.room.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_share_one_limit_and_a_large_one_fits_alone() {
        let budget = AppendBudget::new(100);
        let large = budget.reserve(1000).expect("alone");
        assert_eq!(budget.reserve(1).expect_err("no room beside it"), 1000);
        drop(large);
        let held: Vec<_> = (0..10).map(|_| budget.reserve(10).expect("fits")).collect();
        assert_eq!(budget.reserve(1).expect_err("full"), 100);
        drop(held);
        assert_eq!(budget.used.load(Ordering::Acquire), 0);
    }

    #[tokio::test]
    async fn room_is_pushed_when_a_quarter_is_left() {
        let budget = AppendBudget::new(100);
        let (first, second) = (budget.reserve(20).expect("fits"), budget.reserve(20).expect("fits"));
        let waiting = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.room().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "40 of 100 bytes are in use");
        drop(first);
        // Without a push this would wait forever.
        waiting.await.expect("20 are left");
        drop(second);
        budget.room().await;
    }
}
