//! What flows between operators: rows in columns, and what happened to them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int8Array, Int64Array, StringArray};
use arrow::compute::{FilterBuilder, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;

use crate::Result;
use crate::origin::Origins;

/// The most rows of a batch that a source reads or a task gathers.
pub(crate) const BATCH_ROWS: usize = 8_192;

/// What a row of a changelog says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i8)]
pub enum RowKind {
    /// A new row.
    Insert = 0,
    /// The old value of a row that changes; the new one follows.
    UpdateBefore = 1,
    /// The new value of a row that changed.
    UpdateAfter = 2,
    /// A row that is gone.
    Delete = 3,
}

impl RowKind {
    const ALL: [RowKind; 4] = [RowKind::Insert, RowKind::UpdateBefore, RowKind::UpdateAfter, RowKind::Delete];

    /// Whether the row takes back one that came before: an update's old value, or a row that is gone.
    pub fn is_retraction(self) -> bool {
        matches!(self, RowKind::UpdateBefore | RowKind::Delete)
    }

    /// As Flink shows it: `+I`, `-U`, `+U`, `-D`.
    pub fn symbol(self) -> &'static str {
        match self {
            RowKind::Insert => "+I",
            RowKind::UpdateBefore => "-U",
            RowKind::UpdateAfter => "+U",
            RowKind::Delete => "-D",
        }
    }
}

/// A `RecordBatch` with, for a changelog, one row kind per row, and where its rows were read.
///
/// Without kinds every row is an insert: the fast path, which costs nothing.
#[derive(Debug, Clone)]
pub struct Batch {
    rows: RecordBatch,
    kinds: Option<Int8Array>,
    origins: Option<Origins>,
}

impl Batch {
    /// A batch of inserts.
    pub fn inserts(rows: RecordBatch) -> Self {
        Batch { rows, kinds: None, origins: None }
    }

    /// A batch of a changelog. `kinds` holds one [`RowKind`] (as `i8`) per row and no nulls.
    pub fn changes(rows: RecordBatch, kinds: Int8Array) -> Self {
        assert_eq!(rows.num_rows(), kinds.len(), "one kind per row");
        assert_eq!(kinds.null_count(), 0, "every row has a kind");
        assert!(kinds.values().iter().all(|kind| (0..=3).contains(kind)), "a row's kind is 0 to 3");
        Batch { rows, kinds: Some(kinds), origins: None }
    }

    /// The rows.
    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    /// The rows, when the kinds are known not to matter.
    pub fn into_rows(self) -> RecordBatch {
        self.rows
    }

    /// The same rows, which were read there.
    #[must_use]
    pub fn with_origins(self, origins: Origins) -> Self {
        Batch { origins: Some(origins), ..self }
    }

    /// Where the rows were read; `None` where that is not known (a result of an aggregation).
    pub fn origins(&self) -> Option<&Origins> {
        self.origins.as_ref()
    }

    /// One kind per row, or `None` when all are inserts.
    pub fn kinds(&self) -> Option<&Int8Array> {
        self.kinds.as_ref()
    }

    /// What a row says.
    pub fn kind(&self, row: usize) -> RowKind {
        self.kinds.as_ref().map_or(RowKind::Insert, |kinds| RowKind::ALL[kinds.value(row) as usize])
    }

    /// Some rows in a row, with their kinds and origins. Copies nothing.
    #[must_use]
    pub fn slice(&self, start: usize, rows: usize) -> Self {
        let kinds = self.kinds.as_ref().map(|kinds| kinds.slice(start, rows));
        let origins = self.origins.as_ref().map(|origins| origins.slice(start, rows));
        Batch { rows: self.rows.slice(start, rows), kinds, origins }
    }

    /// Of every row, what it adds to a count of such rows: 1, or -1 where it is taken back.
    pub(crate) fn signs(&self) -> Int64Array {
        match &self.kinds {
            None => Int64Array::from(vec![1; self.len()]),
            Some(kinds) => kinds.unary(|kind| if RowKind::ALL[kind as usize].is_retraction() { -1 } else { 1 }),
        }
    }

    /// The rows with their kinds as a first column `kind` of texts, for showing and comparing them.
    ///
    /// # Errors
    /// When Arrow cannot make the batch.
    pub fn with_kinds_shown(&self) -> Result<RecordBatch> {
        let kinds = StringArray::from_iter_values((0..self.len()).map(|row| self.kind(row).symbol()));
        let mut fields = vec![Arc::new(Field::new("kind", DataType::Utf8, false))];
        fields.extend(self.rows.schema().fields().iter().cloned());
        let mut columns: Vec<ArrayRef> = vec![Arc::new(kinds)];
        columns.extend(self.rows.columns().iter().cloned());
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }

    /// The same kinds and origins beside other columns: for an operator that maps rows one to one.
    #[must_use]
    pub fn with_rows(&self, rows: RecordBatch) -> Self {
        assert_eq!(rows.num_rows(), self.rows.num_rows(), "rows map one to one");
        Batch { rows, kinds: self.kinds.clone(), origins: self.origins.clone() }
    }

    /// The rows for which `keep` is true, with their kinds.
    ///
    /// # Errors
    /// When Arrow cannot select from a column's type.
    pub fn filter(&self, keep: &BooleanArray) -> Result<Self> {
        let origins = self.origins.as_ref().map(|origins| origins.filter(keep)).transpose()?;
        if self.kinds.is_none() {
            return Ok(Batch { rows: filter_record_batch(&self.rows, keep)?, kinds: None, origins });
        }
        let keep = FilterBuilder::new(keep).optimize().build();
        let (rows, kinds) = self.selected(|column| Ok(keep.filter(column)?))?;
        Ok(Batch { rows, kinds, origins })
    }

    /// Applies the same row selection to columns, kinds and origins.
    ///
    /// # Errors
    /// When Arrow cannot apply it to a column's type.
    pub fn select(&self, select: impl Fn(&dyn Array) -> Result<ArrayRef>) -> Result<Self> {
        let (rows, kinds) = self.selected(&select)?;
        let origins = self.origins.as_ref().map(|origins| origins.select(self.len(), &select)).transpose()?;
        Ok(Batch { rows, kinds, origins })
    }

    fn selected(&self, select: impl Fn(&dyn Array) -> Result<ArrayRef>) -> Result<(RecordBatch, Option<Int8Array>)> {
        let columns = self.rows.columns().iter().map(|c| select(c.as_ref())).collect::<Result<Vec<_>>>()?;
        let kinds = match &self.kinds {
            None => None,
            Some(kinds) => Some(Int8Array::from(select(kinds)?.to_data())),
        };
        let len = match (columns.first(), &kinds) {
            (Some(column), _) => column.len(),
            (None, Some(kinds)) => kinds.len(),
            // Without a column there is nothing to select from but the count, which a null-free dummy carries.
            (None, None) => select(&Int8Array::from(vec![0; self.rows.num_rows()]))?.len(),
        };
        let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(len));
        let rows = RecordBatch::try_new_with_options(self.rows.schema(), columns, &options)?;
        Ok((rows, kinds))
    }

    /// The rows of several batches, at least one, in their order. All have kinds or none has.
    pub(crate) fn concat(mut parts: Vec<Batch>) -> Result<Self> {
        if parts.len() == 1 {
            return Ok(parts.remove(0));
        }
        let rows = arrow::compute::concat_batches(&parts[0].schema(), parts.iter().map(|part| &part.rows))?;
        let kinds: Vec<&dyn Array> =
            parts.iter().filter_map(|part| part.kinds.as_ref().map(|kinds| kinds as _)).collect();
        let kinds = match kinds.is_empty() {
            true => None,
            false => Some(arrow::compute::concat(&kinds)?.as_primitive().clone()),
        };
        assert!(kinds.as_ref().is_none_or(|kinds| kinds.len() == rows.num_rows()), "one kind per row");
        let origins: Option<Vec<_>> = parts.iter().map(|part| Some((part.origins.clone()?, part.len()))).collect();
        let origins = origins.map(|origins| Origins::concat(&origins)).transpose()?;
        Ok(Batch { rows, kinds, origins })
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.rows.num_rows()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.num_rows() == 0
    }

    /// The columns' names and types.
    pub fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    /// Roughly the bytes of the rows in memory. A slice of a larger buffer counts only its own rows.
    pub fn bytes(&self) -> usize {
        self.rows.columns().iter().map(|c| c.to_data().get_slice_memory_size().unwrap_or(0)).sum()
    }
}
