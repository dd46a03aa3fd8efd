//! Rows to JSON objects: Arrow's encoders, with Flink's forms where they differ: timestamps and times
//! (`json.timestamp-format.standard`), bytes (base64), decimals with an exponent, and NaN and infinities as texts.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BinaryArray, Decimal128Array, PrimitiveArray, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, FieldRef, Float32Type, Float64Type, Int64Type, SchemaRef, TimeUnit,
};
use arrow::error::ArrowError;
use arrow::json::writer::{Encoder, EncoderFactory, EncoderOptions, NullableEncoder, make_encoder};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use coulee_runtime::{Batch, Error, Result};

use crate::format::temporal::{TimestampStandard, write_date, write_time, write_timestamp};
use crate::format::{EncodedRows, RecordEncoder};

/// The forms that options choose.
#[derive(Debug, Clone, Copy)]
pub struct Forms {
    /// How timestamps are written.
    pub timestamps: TimestampStandard,
    /// Whether decimals are never written with an exponent.
    pub plain_decimals: bool,
}

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
    pub fn new(schema: &SchemaRef, forms: Forms, ignore_null_fields: bool) -> Result<Self> {
        let options =
            EncoderOptions::default().with_explicit_nulls(!ignore_null_fields).with_encoder_factory(Arc::new(forms));
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
    fn encode(&mut self, rows: &Batch) -> Result<EncodedRows> {
        let rows = rows.rows();
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
impl EncoderFactory for Forms {
    fn make_default_encoder<'a>(
        &self,
        field: &'a FieldRef,
        array: &'a dyn Array,
        options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        // A cast of these types to a number only renames them.
        let numbers = |through: &DataType| -> Result<PrimitiveArray<Int64Type>, ArrowError> {
            let numbers = cast(&cast(array, through)?, &DataType::Int64)?;
            Ok(numbers.as_primitive::<Int64Type>().clone())
        };
        let encoder: Box<dyn Encoder + 'a> = match array.data_type() {
            DataType::Timestamp(unit, zone) => {
                let values = numbers(&DataType::Int64)?;
                Box::new(Timestamps { values, unit: *unit, utc: zone.is_some(), standard: self.timestamps })
            }
            DataType::Time32(unit) => Box::new(Times(numbers(&DataType::Int32)?, *unit)),
            DataType::Time64(unit) => Box::new(Times(numbers(&DataType::Int64)?, *unit)),
            DataType::Date32 => Box::new(Dates(numbers(&DataType::Int32)?)),
            DataType::Binary => Box::new(Bytes(array.as_binary::<i32>())),
            DataType::Decimal128(_, scale) if *scale > 6 && !self.plain_decimals => {
                Box::new(Decimals(array.as_primitive(), i32::from(*scale)))
            }
            _ => return NonFinite.make_default_encoder(field, array, options),
        };
        Ok(Some(NullableEncoder::new(encoder, array.nulls().cloned())))
    }
}

/// Writes NaN and infinities as the texts `"NaN"`, `"Infinity"` and `"-Infinity"`, as Jackson does, and so Flink. Arrow writes null.
#[derive(Debug, Clone, Copy)]
pub struct NonFinite;

impl EncoderFactory for NonFinite {
    fn make_default_encoder<'a>(
        &self,
        field: &'a FieldRef,
        array: &'a dyn Array,
        _: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        match array.data_type() {
            DataType::Float64 => floats::<Float64Type>(field, array),
            DataType::Float32 => floats::<Float32Type>(field, array),
            _ => Ok(None),
        }
    }
}

/// `None` when all values are finite: Arrow writes those.
fn floats<'a, T>(field: &'a FieldRef, array: &'a dyn Array) -> Result<Option<NullableEncoder<'a>>, ArrowError>
where
    T: ArrowPrimitiveType<Native: Into<f64>>,
{
    static ARROWS: std::sync::LazyLock<EncoderOptions> = std::sync::LazyLock::new(EncoderOptions::default);
    let values = array.as_primitive::<T>();
    if values.values().iter().all(|value| (*value).into().is_finite()) {
        return Ok(None);
    }
    let finite = make_encoder(field, array, &ARROWS)?;
    Ok(Some(NullableEncoder::new(Box::new(Floats { values, finite }), array.nulls().cloned())))
}

struct Floats<'a, T: ArrowPrimitiveType> {
    values: &'a PrimitiveArray<T>,
    finite: NullableEncoder<'a>,
}

impl<T: ArrowPrimitiveType<Native: Into<f64>>> Encoder for Floats<'_, T> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let value: f64 = self.values.value(row).into();
        match value {
            value if value.is_nan() => out.extend_from_slice(b"\"NaN\""),
            f64::INFINITY => out.extend_from_slice(b"\"Infinity\""),
            f64::NEG_INFINITY => out.extend_from_slice(b"\"-Infinity\""),
            _ => self.finite.encode(row, out),
        }
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

struct Times(PrimitiveArray<Int64Type>, TimeUnit);

impl Encoder for Times {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        out.push(b'"');
        write_time(self.0.value(row), self.1, out);
        out.push(b'"');
    }
}

struct Dates(PrimitiveArray<Int64Type>);

impl Encoder for Dates {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        out.push(b'"');
        write_date(self.0.value(row), out);
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

/// Decimals with more than six digits behind the point, as Java's `BigDecimal.toString`: one whose first digit is further
/// behind the point than the sixth has an exponent.
struct Decimals<'a>(&'a Decimal128Array, i32);

impl Encoder for Decimals<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let digits = self.0.value(row).unsigned_abs().to_string();
        let exponent = digits.len() as i32 - 1 - self.1;
        if exponent >= -6 {
            out.extend_from_slice(self.0.value_as_string(row).as_bytes());
            return;
        }
        if self.0.value(row) < 0 {
            out.push(b'-');
        }
        let (first, rest) = digits.split_at(1);
        out.extend_from_slice(first.as_bytes());
        if !rest.is_empty() {
            out.push(b'.');
            out.extend_from_slice(rest.as_bytes());
        }
        out.extend_from_slice(format!("E{exponent}").as_bytes());
    }
}
