//! Flat values as bare text, without quotes and escapes: CSV fields, and the values in a partition's path.
//!
//! What [`PlainText`] writes, [`append_plain`] reads back as the same value.

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use coulee_runtime::Result;

use super::decimal::{parse_decimal, parse_whole};
use super::json::{Column, Values, quoted};
use super::sql_type;
use super::temporal::{
    TimestampStandard, in_unit, parse_date, parse_time, parse_timestamp, per_second, timestamp_of_millis, write_date,
    write_time, write_timestamp,
};

/// Appends a value from its bare text. After an error, `truncate` restores the column.
///
/// # Errors
/// What was expected and what was found.
pub fn append_plain(column: &mut Column, text: &str) -> Result<(), String> {
    let ty = &column.data_type;
    let expected = || format!("expected {}, found text \"{}\"", sql_type(ty), quoted(text.as_bytes()));
    let number = text.trim();
    match &mut column.values {
        Values::Boolean(values) => values.push(truth(number).ok_or_else(expected)?),
        Values::Int8(values) => values.push(whole_as(number).ok_or_else(expected)?),
        Values::Int16(values) => values.push(whole_as(number).ok_or_else(expected)?),
        Values::Int32(values) => values.push(whole_as(number).ok_or_else(expected)?),
        Values::Int64(values) => values.push(whole_as(number).ok_or_else(expected)?),
        Values::Float32(values) => values.push(parse_float32(number).ok_or_else(expected)?),
        Values::Float64(values) => values.push(parse_float64(number).ok_or_else(expected)?),
        Values::Decimal(values, precision, scale) => {
            values.push(parse_decimal(number.as_bytes(), *precision, *scale).ok_or_else(expected)?);
        }
        Values::Utf8(varied) => {
            varied.values.extend_from_slice(text.as_bytes());
            varied.offsets.push(i32::try_from(varied.values.len()).map_err(|_| expected())?);
        }
        Values::Binary(varied) => {
            BASE64_STANDARD.decode_vec(number, &mut varied.values).map_err(|_| expected())?;
            varied.offsets.push(i32::try_from(varied.values.len()).map_err(|_| expected())?);
        }
        Values::Date(values) => values.push(parse_date(number.as_bytes()).ok_or_else(expected)?),
        Values::Time(values, unit) => {
            let nanos = parse_time(number.as_bytes()).ok_or_else(expected)?;
            values.push(nanos / (1_000_000_000 / per_second(*unit)));
        }
        Values::Timestamp(values, unit) => {
            let time = parse_timestamp(number.as_bytes());
            let value = time.and_then(|(seconds, nanos)| in_unit(seconds, nanos, *unit));
            let value = value.or_else(|| timestamp_of_millis(parse_whole(number)?, *unit));
            values.push(value.ok_or_else(expected)?);
        }
        Values::List(..) | Values::Map(..) | Values::Struct(_) => return Err(expected()),
    }
    column.mark_valid();
    Ok(())
}

/// A whole number that fits `T`.
#[inline]
pub fn whole_as<T: TryFrom<i64>>(text: &str) -> Option<T> {
    parse_whole(text).and_then(|value| T::try_from(value).ok())
}

/// `true` or `false`, in any case.
pub fn truth(text: &str) -> Option<bool> {
    match text {
        text if text.eq_ignore_ascii_case("true") => Some(true),
        text if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// A number, `NaN` or `Infinity`. A number beyond the type's range is none: it must not become infinity.
#[inline]
pub fn parse_float64(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|value| !value.is_infinite() || !has_digit(text))
}

/// As [`parse_float64`].
#[inline]
pub fn parse_float32(text: &str) -> Option<f32> {
    text.parse::<f32>().ok().filter(|value| !value.is_infinite() || !has_digit(text))
}

fn has_digit(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit())
}

/// Writes the values of an array as bare text. Bytes are base64, as in JSON; timestamps have the digits of their type.
pub struct PlainText<'a> {
    array: &'a dyn Array,
    form: Form<'a>,
}

enum Form<'a> {
    Timestamp(PrimitiveArray<Int64Type>, TimeUnit, bool),
    Time(PrimitiveArray<Int64Type>, TimeUnit),
    Date(PrimitiveArray<Int64Type>),
    Bytes(&'a BinaryArray),
    Other(ArrayFormatter<'a>),
}

impl<'a> PlainText<'a> {
    /// For the values of a flat array.
    ///
    /// # Errors
    /// When the type has no text.
    pub fn new(array: &'a ArrayRef) -> Result<Self> {
        // A cast of these types to a number only renames them.
        let numbers = |through: &DataType| -> Result<PrimitiveArray<Int64Type>> {
            let numbers = cast(&cast(array, through)?, &DataType::Int64)?;
            Ok(numbers.as_primitive::<Int64Type>().clone())
        };
        let form = match array.data_type() {
            DataType::Timestamp(unit, zone) => Form::Timestamp(numbers(&DataType::Int64)?, *unit, zone.is_some()),
            DataType::Time32(unit) => Form::Time(numbers(&DataType::Int32)?, *unit),
            DataType::Time64(unit) => Form::Time(numbers(&DataType::Int64)?, *unit),
            DataType::Date32 => Form::Date(numbers(&DataType::Int32)?),
            DataType::Binary => Form::Bytes(array.as_binary()),
            _ => Form::Other(ArrayFormatter::try_new(array.as_ref(), &FormatOptions::new())?),
        };
        Ok(PlainText { array: array.as_ref(), form })
    }

    /// Whether there is no value.
    pub fn is_null(&self, row: usize) -> bool {
        self.array.is_null(row)
    }

    /// Appends the text of a value that is there.
    ///
    /// # Errors
    /// When the value has no text.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        match &self.form {
            Form::Timestamp(values, unit, utc) => {
                write_timestamp(values.value(row), *unit, *utc, TimestampStandard::Sql, out);
            }
            Form::Time(values, unit) => write_time(values.value(row), *unit, out),
            Form::Date(values) => write_date(values.value(row), out),
            Form::Bytes(values) => out.extend_from_slice(BASE64_STANDARD.encode(values.value(row)).as_bytes()),
            Form::Other(formatter) => {
                let text = formatter.value(row).try_to_string()?;
                // As Java and JSON say it.
                let text = match text.as_str() {
                    "inf" if self.array.data_type().is_floating() => "Infinity",
                    "-inf" if self.array.data_type().is_floating() => "-Infinity",
                    text => text,
                };
                out.extend_from_slice(text.as_bytes());
            }
        }
        Ok(())
    }
}
