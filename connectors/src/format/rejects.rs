//! Collects records that could not become rows, in the runtime's schema for them.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryBuilder, StringArray, StringBuilder, new_null_array};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use coulee_runtime::row_errors::{REJECTED_RAW_BYTES_MAX, Stage, shortened};
use coulee_runtime::{Result, rejected_schema};

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
        self.reason.append_value(shortened(reason));
        self.raw.append_value(&raw[..raw.len().min(REJECTED_RAW_BYTES_MAX)]);
        self.last_reason = shortened(reason).into_owned();
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
        let stages = std::iter::repeat_n(Stage::Decode.name(), self.len());
        let (stages, expressions) =
            (StringArray::from_iter_values(stages), new_null_array(&DataType::Utf8, self.len()));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.origin.finish()),
            Arc::new(self.reason.finish()),
            Arc::new(self.raw.finish()),
            Arc::new(stages),
            expressions,
        ];
        Ok(Some(RecordBatch::try_new(rejected_schema(), columns)?))
    }
}
