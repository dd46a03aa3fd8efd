//! A time as the last column of rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMillisecondArray};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use crate::{Batch, Result};

/// Rows with one time behind their columns, in milliseconds since 1970. `schema`: their columns, and behind them that of the time, with or without a zone.
///
/// # Errors
/// When the rows have other columns.
pub(crate) fn with_time(batch: &Batch, schema: &SchemaRef, millis: Option<i64>) -> Result<Batch> {
    let zone = match schema.fields().last().map(|field| field.data_type()) {
        Some(DataType::Timestamp(_, zone)) => zone.clone(),
        _ => None,
    };
    let times = TimestampMillisecondArray::from(vec![millis; batch.len()]).with_timezone_opt(zone);
    let mut columns: Vec<ArrayRef> = batch.rows().columns().to_vec();
    columns.push(Arc::new(times));
    let options = RecordBatchOptions::new().with_row_count(Some(batch.len()));
    Ok(batch.with_rows(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?))
}
