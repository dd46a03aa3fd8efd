//! Collects records that could not become rows, in the runtime's schema for them.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryBuilder, StringBuilder};
use arrow::record_batch::RecordBatch;
use coulee_runtime::{Result, rejected_schema};

/// The most bytes of a rejected record that are kept: enough to see what it was, whatever it was.
const RAW_BYTES_MAX: usize = 1 << 20;

/// The rejected records since the last [`take`](Rejects::take).
#[derive(Debug, Default)]
pub struct Rejects {
    origin: StringBuilder,
    reason: StringBuilder,
    raw: BinaryBuilder,
    last_reason: String,
}

impl Rejects {
    /// Adds a record: where it was read, why it was refused, and its bytes (of a very long one, the beginning).
    pub fn push(&mut self, origin: &str, reason: &str, raw: &[u8]) {
        self.origin.append_value(origin);
        self.reason.append_value(reason);
        self.raw.append_value(&raw[..raw.len().min(RAW_BYTES_MAX)]);
        reason.clone_into(&mut self.last_reason);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        arrow::array::ArrayBuilder::len(&self.origin)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Why the last one was refused.
    pub fn last_reason(&self) -> &str {
        &self.last_reason
    }

    /// All of them as a batch of [`rejected_schema`], or `None` when there is none; empties the collection.
    ///
    /// # Errors
    /// When Arrow refuses the columns: a fault of ours.
    pub fn take(&mut self) -> Result<Option<RecordBatch>> {
        if self.is_empty() {
            return Ok(None);
        }
        let columns: Vec<ArrayRef> =
            vec![Arc::new(self.origin.finish()), Arc::new(self.reason.finish()), Arc::new(self.raw.finish())];
        Ok(Some(RecordBatch::try_new(rejected_schema(), columns)?))
    }
}
