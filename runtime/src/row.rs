//! Rows, for user functions that think in rows: typed views of a batch's rows, and a writer that makes batches of them.

use arrow::array::{Array, ArrayRef, AsArray, Int8Array};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, SchemaRef};
use arrow::record_batch::RecordBatch;
use coulee_model::Timestamp;
use datafusion_common::ScalarValue;

use crate::event_time::floor_to_millis;
use crate::{Batch, Error, Result, RowKind};

/// One row of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    batch: &'a Batch,
    index: usize,
}

impl<'a> Row<'a> {
    pub(crate) fn new(batch: &'a Batch, index: usize) -> Self {
        Row { batch, index }
    }

    /// What the row says: always an insert, unless the input is a changelog.
    pub fn kind(&self) -> RowKind {
        self.batch.kind(self.index)
    }

    fn column(&self, name: &str) -> Result<Option<&'a ArrayRef>> {
        let column = self.batch.rows().column_by_name(name).ok_or_else(|| {
            let schema = self.batch.schema();
            let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            Error::invalid(format!("no column '{name}'; the row has {}", known.join(", ")))
        })?;
        Ok(column.is_valid(self.index).then_some(column))
    }

    /// A whole number of any width.
    ///
    /// # Errors
    /// When there is no such column, or it has another type.
    pub fn integer(&self, name: &str) -> Result<Option<i64>> {
        let Some(column) = self.column(name)? else { return Ok(None) };
        let at = self.index;
        Ok(Some(match column.data_type() {
            DataType::Int8 => i64::from(column.as_primitive::<Int8Type>().value(at)),
            DataType::Int16 => i64::from(column.as_primitive::<Int16Type>().value(at)),
            DataType::Int32 => i64::from(column.as_primitive::<Int32Type>().value(at)),
            DataType::Int64 => column.as_primitive::<Int64Type>().value(at),
            other => return Err(other_type(name, other, "a whole number")),
        }))
    }

    /// A number: a float, or a whole number as one.
    ///
    /// # Errors
    /// As [`Row::integer`].
    pub fn number(&self, name: &str) -> Result<Option<f64>> {
        let Some(column) = self.column(name)? else { return Ok(None) };
        match column.data_type() {
            DataType::Float32 => Ok(Some(f64::from(column.as_primitive::<Float32Type>().value(self.index)))),
            DataType::Float64 => Ok(Some(column.as_primitive::<Float64Type>().value(self.index))),
            _ => Ok(self.integer(name)?.map(|number| number as f64)),
        }
    }

    /// A text.
    ///
    /// # Errors
    /// As [`Row::integer`].
    pub fn text(&self, name: &str) -> Result<Option<&'a str>> {
        let Some(column) = self.column(name)? else { return Ok(None) };
        match column.data_type() {
            DataType::Utf8 => Ok(Some(column.as_string::<i32>().value(self.index))),
            DataType::Utf8View => Ok(Some(column.as_string_view().value(self.index))),
            other => Err(other_type(name, other, "a text")),
        }
    }

    /// The millisecond that a timestamp of any precision is in.
    ///
    /// # Errors
    /// As [`Row::integer`].
    pub fn timestamp(&self, name: &str) -> Result<Option<Timestamp>> {
        let Some(column) = self.column(name)? else { return Ok(None) };
        match column.data_type() {
            DataType::Timestamp(..) => Ok(Some(Timestamp(floor_to_millis(&column.slice(self.index, 1))?.value(0)))),
            other => Err(other_type(name, other, "a timestamp")),
        }
    }
}

fn other_type(name: &str, found: &DataType, expected: &str) -> Error {
    Error::invalid(format!("column '{name}' is {found}, not {expected}"))
}

/// Collects rows into a batch.
#[derive(Debug)]
pub struct RowWriter {
    schema: SchemaRef,
    columns: Vec<Vec<ScalarValue>>,
    /// One per row, from the first row on that is not an insert; empty as long as there is none.
    kinds: Vec<i8>,
}

impl RowWriter {
    pub(crate) fn new(schema: SchemaRef) -> Self {
        let columns = schema.fields().iter().map(|_| Vec::new()).collect();
        RowWriter { schema, columns, kinds: Vec::new() }
    }

    /// Emits a row: one value per column of the schema.
    ///
    /// # Errors
    /// `Invalid` when the number of values or a value's type is not the schema's.
    pub fn emit(&mut self, row: impl IntoIterator<Item = ScalarValue>) -> Result<()> {
        self.push(row)?;
        if !self.kinds.is_empty() {
            self.kinds.push(RowKind::Insert as i8);
        }
        Ok(())
    }

    /// Emits a row of a changelog.
    ///
    /// # Errors
    /// As [`RowWriter::emit`].
    pub fn emit_change(&mut self, kind: RowKind, row: impl IntoIterator<Item = ScalarValue>) -> Result<()> {
        if kind == RowKind::Insert {
            return self.emit(row);
        }
        let before = self.columns.first().map_or(0, Vec::len);
        self.push(row)?;
        self.kinds.resize(before, RowKind::Insert as i8);
        self.kinds.push(kind as i8);
        Ok(())
    }

    fn push(&mut self, row: impl IntoIterator<Item = ScalarValue>) -> Result<()> {
        let row: Vec<ScalarValue> = row.into_iter().collect();
        if row.len() != self.columns.len() {
            return Err(Error::invalid(format!("a row of {} values for {} columns", row.len(), self.columns.len())));
        }
        for (value, field) in row.iter().zip(self.schema.fields()) {
            if &value.data_type() != field.data_type() {
                return Err(other_type(field.name(), &value.data_type(), &field.data_type().to_string()));
            }
        }
        for (column, value) in self.columns.iter_mut().zip(row) {
            column.push(value);
        }
        Ok(())
    }

    /// The rows emitted so far, as a batch; `None` when there are none.
    pub(crate) fn take(&mut self) -> Result<Option<Batch>> {
        if self.columns.first().is_none_or(Vec::is_empty) {
            return Ok(None);
        }
        let mut arrays = Vec::with_capacity(self.columns.len());
        for column in &mut self.columns {
            arrays.push(ScalarValue::iter_to_array(std::mem::take(column))?);
        }
        let rows = RecordBatch::try_new(self.schema.clone(), arrays)?;
        let kinds = std::mem::take(&mut self.kinds);
        Ok(Some(if kinds.is_empty() { Batch::inserts(rows) } else { Batch::changes(rows, Int8Array::from(kinds)) }))
    }
}
