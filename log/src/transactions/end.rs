//! The end of a transaction: the markers are written to all its shards at once. When all markers are durable, the records
//! become visible in all shards together.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::batch::marker::TransactionOutcome;
use crate::error::{LogError, Result};
use crate::ids::ProducerId;
use crate::shard::append::AppendListener;
use crate::shard::shard::Shard;

/// Told when a transaction has its markers in all shards, or with the first error of a marker.
pub(crate) type Marked = Box<dyn FnOnce(Option<LogError>) + Send>;

/// The markers of one transaction, under way.
pub(crate) struct TransactionEnd {
    producer: ProducerId,
    shards: Vec<Arc<Shard>>,
    /// How many answers are missing.
    left: AtomicUsize,
    result: Mutex<MarkerResult>,
}

struct MarkerResult {
    error: Option<LogError>,
    /// Taken by the last answer.
    marked: Option<Marked>,
}

impl TransactionEnd {
    /// Queues the markers. Their committers sync side by side, so that many shards cost about one sync.
    pub(crate) fn begin(producer: ProducerId, outcome: TransactionOutcome, shards: Vec<Arc<Shard>>, marked: Marked) {
        let end = Arc::new(TransactionEnd {
            producer,
            // One for this function, so that it does not end before all are queued.
            left: AtomicUsize::new(shards.len() + 1),
            shards,
            result: Mutex::new(MarkerResult { error: None, marked: Some(marked) }),
        });
        for (i, shard) in end.shards.iter().enumerate() {
            match interrupt(i) {
                Ok(()) => shard.push_marker(producer, outcome, Arc::clone(&end) as Arc<dyn AppendListener>),
                Err(error) => end.appended(Some(&error)),
            }
        }
        end.appended(None);
    }
}

impl AppendListener for TransactionEnd {
    /// A marker is durable or was not needed; or failed.
    fn appended(&self, error: Option<&LogError>) {
        // A shard that was deleted needs no marker.
        if let Some(error) = error.filter(|error| !matches!(error, LogError::Deleted { .. })) {
            self.result.lock().error.get_or_insert_with(|| error.clone());
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let (error, marked) = {
            let mut result = self.result.lock();
            (result.error.take(), result.marked.take())
        };
        if error.is_none() {
            self.shards.iter().for_each(|shard| shard.publish(self.producer));
        }
        if let Some(marked) = marked {
            marked(error);
        }
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
