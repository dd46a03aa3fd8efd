//! `CAST(… AS STRING)`: values in the form in which Flink prints them.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, StringArray, StringBuilder};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Time32MillisecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use coulee_model::Date;
use datafusion_common::Result;

use crate::flink_types::calendar::split_instant;

/// The text of every value; null stays null.
///
/// # Errors
/// When a type has no text.
pub(crate) fn print_array(array: &ArrayRef) -> Result<ArrayRef> {
    let mut out = StringBuilder::with_capacity(array.len(), array.len() * 8);
    let mut text = String::new();
    for row in 0..array.len() {
        if array.is_null(row) {
            out.append_null();
            continue;
        }
        text.clear();
        print_value(array.as_ref(), row, &mut text)?;
        out.append_value(&text);
    }
    Ok(Arc::new(out.finish()))
}

/// Appends the text of one value; a null within an array, map or row is `NULL`.
pub(crate) fn print_value(array: &dyn Array, row: usize, out: &mut String) -> Result<()> {
    if array.is_null(row) {
        out.push_str("NULL");
        return Ok(());
    }
    match array.data_type() {
        DataType::Utf8 => out.push_str(array.as_string::<i32>().value(row)),
        DataType::Boolean => out.push_str(if array.as_boolean().value(row) { "TRUE" } else { "FALSE" }),
        DataType::Int8 => show(out, array.as_primitive::<Int8Type>().value(row)),
        DataType::Int16 => show(out, array.as_primitive::<Int16Type>().value(row)),
        DataType::Int32 => show(out, array.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => show(out, array.as_primitive::<Int64Type>().value(row)),
        DataType::Float32 => {
            let value = array.as_primitive::<Float32Type>().value(row);
            print_float(f64::from(value), &format!("{value:e}"), &format!("{value:.1e}"), out);
        }
        DataType::Float64 => print_double(array.as_primitive::<Float64Type>().value(row), out),
        DataType::Decimal128(_, scale) => print_decimal(array.as_primitive::<Decimal128Type>().value(row), *scale, out),
        DataType::Date32 => print_date(array.as_primitive::<Date32Type>().value(row), out),
        DataType::Time32(TimeUnit::Millisecond) => {
            print_time(array.as_primitive::<Time32MillisecondType>().value(row), out);
        }
        DataType::Timestamp(unit, _) => print_timestamp(instant(array, *unit, row), *unit, out),
        DataType::Binary => out.push_str(&String::from_utf8_lossy(array.as_binary::<i32>().value(row))),
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            print_items(out, ['[', ']'], items.len(), |item, out| print_value(&items, item, out))?;
        }
        DataType::Struct(_) => {
            let columns = array.as_struct().columns();
            print_items(out, ['(', ')'], columns.len(), |item, out| print_value(&columns[item], row, out))?;
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            print_items(out, ['{', '}'], entries.len(), |item, out| {
                print_value(entries.column(0), item, out)?;
                out.push('=');
                print_value(entries.column(1), item, out)
            })?;
        }
        other => return datafusion_common::exec_err!("cannot cast {} to STRING", crate::flink_types::type_name(other)),
    }
    Ok(())
}

fn print_items(
    out: &mut String,
    brackets: [char; 2],
    count: usize,
    mut print: impl FnMut(usize, &mut String) -> Result<()>,
) -> Result<()> {
    out.push(brackets[0]);
    for item in 0..count {
        if item > 0 {
            out.push_str(", ");
        }
        print(item, out)?;
    }
    out.push(brackets[1]);
    Ok(())
}

fn show(out: &mut String, value: impl std::fmt::Display) {
    // Writing to a String does not fail.
    let _ = write!(out, "{value}");
}

/// The number of a timestamp in its unit.
pub(crate) fn instant(array: &dyn Array, unit: TimeUnit, row: usize) -> i64 {
    match unit {
        TimeUnit::Second => array.as_primitive::<TimestampSecondType>().value(row),
        TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().value(row),
        TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().value(row),
        TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().value(row),
    }
}

/// As Java's `Double.toString` prints it: `1.0`, `0.001`, `1.0E7`, `NaN`, `Infinity`.
pub(crate) fn print_double(value: f64, out: &mut String) {
    print_float(value, &format!("{value:e}"), &format!("{value:.1e}"), out);
}

/// `shortest` is the shortest scientific form that gives the number back, `two` the nearest with two digits: Java prints two digits at least.
fn print_float(value: f64, shortest: &str, two: &str, out: &mut String) {
    if value.is_nan() {
        return out.push_str("NaN");
    }
    if value.is_infinite() {
        return out.push_str(if value < 0.0 { "-Infinity" } else { "Infinity" });
    }
    if value == 0.0 {
        return out.push_str(if value.is_sign_negative() { "-0.0" } else { "0.0" });
    }
    let form = if shortest.contains('.') { shortest } else { two };
    let (mantissa, exponent) = form.split_once('e').unwrap_or((form, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    out.push_str(sign);
    if !(-3..7).contains(&exponent) {
        show(out, format_args!("{mantissa}E{exponent}"));
        return;
    }
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    let digits = digits.trim_end_matches('0');
    let digits = if digits.is_empty() { "0" } else { digits };
    if exponent < 0 {
        let zeros = usize::try_from(-exponent - 1).unwrap_or(0);
        show(out, format_args!("0.{}{digits}", "0".repeat(zeros)));
        return;
    }
    let whole = usize::try_from(exponent + 1).unwrap_or(1);
    if digits.len() <= whole {
        show(out, format_args!("{digits}{}.0", "0".repeat(whole - digits.len())));
    } else {
        show(out, format_args!("{}.{}", &digits[..whole], &digits[whole..]));
    }
}

/// All digits of the scale, without an exponent.
pub(crate) fn print_decimal(value: i128, scale: i8, out: &mut String) {
    let scale = usize::try_from(scale).unwrap_or(0);
    let sign = if value < 0 { "-" } else { "" };
    let digits = value.unsigned_abs().to_string();
    if scale == 0 {
        return show(out, format_args!("{sign}{digits}"));
    }
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    show(out, format_args!("{sign}{whole}.{fraction}"));
}

/// `2020-02-29`.
pub(crate) fn print_date(days: i32, out: &mut String) {
    let Date { year, month, day } = Date::from_days(i64::from(days));
    show(out, format_args!("{year:04}-{month:02}-{day:02}"));
}

/// `12:34:56`, with milliseconds when there are some.
pub(crate) fn print_time(millis: i32, out: &mut String) {
    let (seconds, fraction) = (millis.div_euclid(1000), millis.rem_euclid(1000));
    show(out, format_args!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60));
    if fraction != 0 {
        show(out, format_args!(".{fraction:03}"));
    }
}

/// `2020-02-29 12:34:56.789`: with the digits of its unit.
pub(crate) fn print_timestamp(value: i64, unit: TimeUnit, out: &mut String) {
    let (days, seconds, fraction, digits) = split_instant(value, unit);
    let Date { year, month, day } = Date::from_days(days);
    show(out, format_args!("{year:04}-{month:02}-{day:02} "));
    show(out, format_args!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60));
    if digits > 0 {
        show(out, format_args!(".{fraction:0digits$}"));
    }
}

/// Text cut to so many characters and bytes to so many bytes; filled up with blanks or zeros if `is_padded`.
pub(super) fn fit_length(array: &ArrayRef, length: usize, is_padded: bool) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Utf8 => {
            let texts = array.as_string::<i32>().iter().map(|text| {
                text.map(|text| {
                    let mut fitted: String = text.chars().take(length).collect();
                    let missing = if is_padded { length.saturating_sub(fitted.chars().count()) } else { 0 };
                    fitted.extend(std::iter::repeat_n(' ', missing));
                    fitted
                })
            });
            Ok(Arc::new(texts.collect::<StringArray>()))
        }
        DataType::Binary => {
            let bytes = array.as_binary::<i32>().iter().map(|bytes| {
                bytes.map(|bytes| {
                    let mut fitted = bytes[..length.min(bytes.len())].to_vec();
                    if is_padded {
                        fitted.resize(length, 0);
                    }
                    fitted
                })
            });
            Ok(Arc::new(bytes.collect::<BinaryArray>()))
        }
        _ => Ok(array.clone()),
    }
}
