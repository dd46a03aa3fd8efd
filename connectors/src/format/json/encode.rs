//! Rows to JSON objects: Arrow's encoders, with Flink's forms for timestamps (`json.timestamp-format.standard`) and bytes (base64).

use std::sync::Arc;

use arrow::array::{Array, BinaryArray, PrimitiveArray, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::json::writer::{Encoder, EncoderFactory, EncoderOptions, NullableEncoder, make_encoder};
use arrow::record_batch::RecordBatch;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use coulee_runtime::{Error, Result};

use crate::format::temporal::write_timestamp;
use crate::format::{EncodedRows, RecordEncoder, TimestampStandard};

/// Encodes each row as one JSON object on one line.
#[derive(Debug)]
pub struct JsonEncoder {
    row: FieldRef,
    options: EncoderOptions,
}

impl JsonEncoder {
    /// For rows of `schema`.
    ///
    /// # Errors
    /// `Invalid` when a column's type has no form in JSON.
    pub fn new(schema: &SchemaRef, timestamps: TimestampStandard, ignore_null_fields: bool) -> Result<Self> {
        let options = EncoderOptions::default()
            .with_explicit_nulls(!ignore_null_fields)
            .with_encoder_factory(Arc::new(FlinkForms { timestamps }));
        for field in schema.fields() {
            let empty = arrow::array::new_empty_array(field.data_type());
            make_encoder(field, &empty, &options).map_err(|error| {
                let (name, ty) = (field.name(), field.data_type());
                Error::invalid(format!("column '{name}' has type {ty}, which cannot be written as JSON")).because(error)
            })?;
        }
        Ok(JsonEncoder { row: Arc::new(Field::new_struct("row", schema.fields().clone(), false)), options })
    }
}

impl RecordEncoder for JsonEncoder {
    fn encode(&mut self, rows: &RecordBatch) -> Result<EncodedRows> {
        let mut encoded = EncodedRows::with_capacity(rows.num_rows());
        if rows.num_columns() == 0 {
            for _ in 0..rows.num_rows() {
                encoded.bytes.extend_from_slice(b"{}");
                encoded.offsets.push(encoded.bytes.len());
            }
            return Ok(encoded);
        }
        let array = StructArray::from(rows.clone());
        let mut encoder = make_encoder(&self.row, &array, &self.options)?;
        for row in 0..rows.num_rows() {
            encoder.encode(row, &mut encoded.bytes);
            encoded.offsets.push(encoded.bytes.len());
        }
        Ok(encoded)
    }
}

/// What Arrow writes differently from Flink.
#[derive(Debug)]
struct FlinkForms {
    timestamps: TimestampStandard,
}

impl EncoderFactory for FlinkForms {
    fn make_default_encoder<'a>(
        &self,
        _field: &'a FieldRef,
        array: &'a dyn Array,
        _options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let encoder: Box<dyn Encoder + 'a> = match array.data_type() {
            DataType::Timestamp(unit, zone) => {
                // Whatever the unit, the numbers are 64-bit integers: a cast that only renames.
                let values = cast(array, &DataType::Int64)?;
                let values = arrow::array::AsArray::as_primitive::<Int64Type>(values.as_ref()).clone();
                Box::new(Timestamps { values, unit: *unit, utc: zone.is_some(), standard: self.timestamps })
            }
            DataType::Binary => Box::new(Bytes(arrow::array::AsArray::as_binary::<i32>(array))),
            _ => return Ok(None),
        };
        Ok(Some(NullableEncoder::new(encoder, array.nulls().cloned())))
    }
}

struct Timestamps {
    values: PrimitiveArray<Int64Type>,
    unit: TimeUnit,
    utc: bool,
    standard: TimestampStandard,
}

impl Encoder for Timestamps {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        out.push(b'"');
        write_timestamp(self.values.value(row), self.unit, self.utc, self.standard, out);
        out.push(b'"');
    }
}

struct Bytes<'a>(&'a BinaryArray);

impl Encoder for Bytes<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        out.push(b'"');
        out.extend_from_slice(BASE64_STANDARD.encode(self.0.value(row)).as_bytes());
        out.push(b'"');
    }
}
