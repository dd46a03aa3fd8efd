//! Raw records: the whole record is the one column's value.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryBuilder, StringBuilder};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use coulee_runtime::options::{OptionSpec, Options};
use coulee_runtime::{Batch, Error, Result};

use super::{EncodedRows, Format, Framer, LineFramer, Record, RecordDecoder, RecordEncoder, Reject, sql_type};

/// `'format' = 'raw'`.
#[derive(Debug)]
pub struct Raw;

impl Format for Raw {
    fn name(&self) -> &'static str {
        "raw"
    }

    fn options(&self) -> &'static [OptionSpec] {
        &[]
    }

    fn extension(&self) -> &'static str {
        "txt"
    }

    fn framer(&self, _: &Options) -> Result<Box<dyn Framer>> {
        Ok(Box::new(LineFramer { skips_white_space: false }))
    }

    fn decoder(&self, _: &Options, columns: &SchemaRef, projection: &[usize]) -> Result<Box<dyn RecordDecoder>> {
        Ok(Box::new(RawDecoder::new(columns, projection)?))
    }

    fn encoder(&self, _: &Options, schema: &SchemaRef) -> Result<Box<dyn RecordEncoder>> {
        Ok(Box::new(RawEncoder::new(schema)?))
    }
}

fn only_column(schema: &SchemaRef) -> Result<&DataType> {
    match schema.fields().as_ref() {
        [column] if matches!(column.data_type(), DataType::Utf8 | DataType::Binary) => Ok(column.data_type()),
        fields => {
            let found: Vec<String> =
                fields.iter().map(|field| format!("{} {}", field.name(), sql_type(field.data_type()))).collect();
            let found = found.join(", ");
            Err(Error::invalid(format!("format 'raw' takes one column of type STRING or BYTES, found ({found})")))
        }
    }
}

/// Takes each record as it is.
#[derive(Debug)]
pub struct RawDecoder {
    schema: SchemaRef,
    text: bool,
    rows: usize,
    bytes: BinaryBuilder,
    texts: StringBuilder,
}

impl RawDecoder {
    /// For the one column in `columns`, or for none of it.
    ///
    /// # Errors
    /// `Invalid` when there is another number of columns or another type.
    pub fn new(columns: &SchemaRef, projection: &[usize]) -> Result<Self> {
        let text = *only_column(columns)? == DataType::Utf8;
        let schema = Arc::new(columns.project(projection)?);
        Ok(RawDecoder { schema, text, rows: 0, bytes: BinaryBuilder::new(), texts: StringBuilder::new() })
    }
}

impl RecordDecoder for RawDecoder {
    fn decode(&mut self, record: &Record<'_>) -> Result<usize, Reject> {
        let Some(record) = record.value else { return Ok(0) };
        if self.text {
            let text = std::str::from_utf8(record)
                .map_err(|error| Reject::new(format!("not UTF-8 at byte {}", error.valid_up_to())))?;
            self.texts.append_value(text);
        } else {
            self.bytes.append_value(record);
        }
        self.rows += 1;
        Ok(1)
    }

    fn len(&self) -> usize {
        self.rows
    }

    fn flush(&mut self) -> Result<Batch> {
        let column: ArrayRef = if self.text { Arc::new(self.texts.finish()) } else { Arc::new(self.bytes.finish()) };
        let options = RecordBatchOptions::new().with_row_count(Some(std::mem::take(&mut self.rows)));
        let columns = self.schema.fields().iter().map(|_| column.clone()).collect();
        Ok(Batch::inserts(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?))
    }
}

/// Gives each value as it is; null becomes an empty record.
#[derive(Debug)]
pub struct RawEncoder;

impl RawEncoder {
    /// For the one column of `schema`.
    ///
    /// # Errors
    /// `Invalid` when there is another number of columns or another type.
    pub fn new(schema: &SchemaRef) -> Result<Self> {
        only_column(schema).map(|_| RawEncoder)
    }
}

impl RecordEncoder for RawEncoder {
    fn encode(&mut self, rows: &Batch) -> Result<EncodedRows> {
        let rows = rows.rows();
        let mut encoded = EncodedRows::with_capacity(rows.num_rows());
        let column = arrow::compute::cast(rows.column(0), &DataType::Binary)?;
        for value in column.as_binary::<i32>() {
            encoded.bytes.extend_from_slice(value.unwrap_or_default());
            encoded.offsets.push(encoded.bytes.len());
        }
        Ok(encoded)
    }
}
