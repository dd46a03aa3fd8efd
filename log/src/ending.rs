//! The end of a transaction: its markers, written to all its shards at once, and published together once all are durable.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::coordinator::Coordinator;
use crate::marker::Outcome;
use crate::shard::Shard;
use crate::{LogError, ProducerId, Result};

/// The markers of one transaction, under way.
pub(crate) struct Ending {
    coordinator: Arc<Coordinator>,
    producer: ProducerId,
    outcome: Outcome,
    shards: Vec<Arc<Shard>>,
    /// How many answers are missing.
    left: AtomicUsize,
    error: Mutex<Option<LogError>>,
}

impl Ending {
    /// Queues the markers. Their committers sync side by side, so that many shards cost about one sync.
    pub(crate) fn begin(
        coordinator: &Arc<Coordinator>,
        producer: ProducerId,
        outcome: Outcome,
        shards: Vec<Arc<Shard>>,
    ) {
        let ending = Arc::new(Ending {
            coordinator: Arc::clone(coordinator),
            producer,
            outcome,
            // One for this function, so that it does not end before all are queued.
            left: AtomicUsize::new(shards.len() + 1),
            shards,
            error: Mutex::new(None),
        });
        for (i, shard) in ending.shards.iter().enumerate() {
            match interrupt(i) {
                Ok(()) => shard.push_marker(producer, outcome, &ending),
                Err(error) => ending.answered(Some(error)),
            }
        }
        ending.answered(None);
    }

    /// A marker is durable or was not needed; or failed.
    pub(crate) fn answered(&self, error: Option<LogError>) {
        // What was deleted needs no marker.
        if let Some(error) = error.filter(|error| !matches!(error, LogError::Deleted { .. })) {
            self.error.lock().get_or_insert(error);
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let error = self.error.lock().take();
        if error.is_none() {
            self.shards.iter().for_each(|shard| shard.publish(self.producer));
        }
        self.coordinator.ended(self.producer, self.outcome, error);
    }
}

/// Where a test ends the process between two markers.
fn interrupt(marker: usize) -> Result<()> {
    fail::fail_point!("log.txn.between-markers", marker > 0, |_| {
        Err(LogError::io("write a marker to", Path::new("failpoint"), io::Error::other("failed by a failpoint")))
    });
    let _ = marker;
    Ok(())
}
