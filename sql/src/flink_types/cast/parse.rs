//! Casts from text. Blanks around a value do not count, but for BOOLEAN and timestamps.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanBuilder, PrimitiveArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, Time32MillisecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use coulee_model::{Date, days_in_month};
use datafusion_common::{Result, exec_err};

use super::Failing;
use crate::flink_types::calendar::per_second;
use crate::flink_types::decimal;
use crate::flink_types::type_name;

/// Text to numbers: what is behind the point is cut off for whole numbers and rounded half up for decimals.
pub(super) fn numbers(array: &ArrayRef, to: &DataType, failing: Failing) -> Result<ArrayRef> {
    match to {
        DataType::Int8 => each::<Int8Type>(array, to, failing, |text| whole(text)?.try_into().ok()),
        DataType::Int16 => each::<Int16Type>(array, to, failing, |text| whole(text)?.try_into().ok()),
        DataType::Int32 => each::<Int32Type>(array, to, failing, |text| whole(text)?.try_into().ok()),
        DataType::Int64 => each::<Int64Type>(array, to, failing, |text| whole(text)?.try_into().ok()),
        DataType::Float32 => each::<Float32Type>(array, to, failing, |text| floating(text)?.parse().ok()),
        DataType::Float64 => each::<Float64Type>(array, to, failing, |text| floating(text)?.parse().ok()),
        DataType::Decimal128(precision, scale) => {
            each::<Decimal128Type>(array, to, failing, |text| decimal::parse(text, *precision, *scale))
        }
        other => exec_err!("there is no CAST from STRING to {}", type_name(other)),
    }
}

/// `true`, `t`, `yes`, `y`, `1` and their opposites, in any case.
pub(super) fn booleans(array: &ArrayRef, failing: Failing) -> Result<ArrayRef> {
    let texts = array.as_string::<i32>();
    let mut out = BooleanBuilder::with_capacity(texts.len());
    for text in texts {
        let Some(text) = text else {
            out.append_null();
            continue;
        };
        let value = match text.to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "1" => Some(true),
            "false" | "f" | "no" | "n" | "0" => Some(false),
            _ => None,
        };
        out.append_option(failing.settle(value, || shown(text), &DataType::Boolean)?);
    }
    Ok(Arc::new(out.finish()))
}

/// Text to DATE, TIME and timestamps.
pub(super) fn times(array: &ArrayRef, to: &DataType, failing: Failing) -> Result<ArrayRef> {
    let instant = |text: &str, unit: TimeUnit| parse_timestamp(text, unit);
    match to {
        DataType::Date32 => each::<Date32Type>(array, to, failing, parse_date),
        DataType::Time32(TimeUnit::Millisecond) => each::<Time32MillisecondType>(array, to, failing, parse_time),
        DataType::Timestamp(unit, _) => match unit {
            TimeUnit::Second => each::<TimestampSecondType>(array, to, failing, |text| instant(text, *unit)),
            TimeUnit::Millisecond => each::<TimestampMillisecondType>(array, to, failing, |text| instant(text, *unit)),
            TimeUnit::Microsecond => each::<TimestampMicrosecondType>(array, to, failing, |text| instant(text, *unit)),
            TimeUnit::Nanosecond => each::<TimestampNanosecondType>(array, to, failing, |text| instant(text, *unit)),
        },
        other => exec_err!("there is no CAST from STRING to {}", type_name(other)),
    }
}

fn each<T: ArrowPrimitiveType>(
    array: &ArrayRef,
    to: &DataType,
    failing: Failing,
    parse: impl Fn(&str) -> Option<T::Native>,
) -> Result<ArrayRef> {
    let is_trimmed = !matches!(to, DataType::Timestamp(..));
    let texts = array.as_string::<i32>();
    let mut out = PrimitiveArray::<T>::builder(texts.len());
    for text in texts {
        match text {
            Some(text) => {
                let value = parse(if is_trimmed { text.trim() } else { text });
                out.append_option(failing.settle(value, || shown(text), to)?);
            }
            None => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish().with_data_type(to.clone())))
}

/// A value in an error: in quotes, and not longer than a line.
fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 60;
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("'{}…'", &text[..end]),
        None => format!("'{text}'"),
    }
}

/// The whole number in front of a point, `[+-]digits[.digits]`.
fn whole(text: &str) -> Option<i128> {
    let (is_negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if digits.is_empty() || !are_digits(whole) || !are_digits(fraction) || whole.len() > 38 {
        return None;
    }
    let number = if whole.is_empty() { 0 } else { whole.parse::<i128>().ok()? };
    Some(if is_negative { -number } else { number })
}

/// A floating number as Java reads it, in the form in which Rust does: `1.5e3`, `NaN`, `-Infinity`, and a trailing `f` or `d`.
fn floating(text: &str) -> Option<&str> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, "NaN" | "Infinity") {
        return Some(text);
    }
    let text = text.strip_suffix(['f', 'F', 'd', 'D']).unwrap_or(text);
    let starts = unsigned.as_bytes().first()?;
    (starts.is_ascii_digit() || *starts == b'.').then_some(text)
}

/// The day of `2020-2-29`, `2020-02` or `2020`, counted from 1970-01-01. What follows a blank does not count.
fn parse_date(text: &str) -> Option<i32> {
    let text = text.split_once(' ').map_or(text, |(date, _)| date);
    let mut parts = text.split('-');
    let year = unsigned(parts.next()?)?;
    let month = parts.next().map_or(Some(1), unsigned)?;
    let day = parts.next().map_or(Some(1), unsigned)?;
    if parts.next().is_some() || year > 9999 {
        return None;
    }
    i32::try_from(Date::new(i64::from(year), month, day)?.days()).ok()
}

/// The millisecond of the day of `12:34:56.789`, `12:34` or `12`.
fn parse_time(text: &str) -> Option<i32> {
    let nanos = time_nanos(text)?;
    i32::try_from(nanos / 1_000_000).ok()
}

/// The instant of `2020-02-29 12:34:56.789` or `2020-02-29`. Digits that the unit does not have are cut off, a day behind the month's last is the month's last,
/// and 24:00:00 is the next day.
fn parse_timestamp(text: &str, unit: TimeUnit) -> Option<i64> {
    let (date, time) = text.split_once(' ').map_or((text, None), |(date, time)| (date, Some(time)));
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, unsigned(parts.next()?)?, unsigned(parts.next()?)?);
    if parts.next().is_some() || year.len() != 4 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = i64::from(unsigned(year)?);
    let days = Date::new(year, month, day.min(days_in_month(year, month)))?.days();
    let nanos = match time {
        Some("24:00:00") => 86_400_000_000_000,
        Some(time) if time.matches(':').count() == 2 => {
            let digits = time.split_once('.').map_or(0, |(_, digits)| digits.len());
            if digits > 9 {
                return None;
            }
            time_nanos(time)?
        }
        Some(_) => return None,
        None => 0,
    };
    let per_second = per_second(unit);
    let seconds = days * 86_400 + nanos / 1_000_000_000;
    seconds.checked_mul(per_second)?.checked_add(nanos % 1_000_000_000 / (1_000_000_000 / per_second))
}

/// Nanoseconds of the day.
fn time_nanos(text: &str) -> Option<i64> {
    let (clock, fraction) = match text.split_once('.') {
        Some((clock, fraction)) => (clock, Some(fraction)),
        None => (text, None),
    };
    let mut parts = clock.split(':');
    let hour = unsigned(parts.next()?)?;
    let minute = parts.next().map_or(Some(0), unsigned)?;
    let second = parts.next().map_or(Some(0), unsigned)?;
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let nanos = fraction.map_or(Some(0), fraction_nanos)?;
    Some((i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second)) * 1_000_000_000 + nanos)
}

/// The nanoseconds of the digits behind a point; no more than nine count.
fn fraction_nanos(digits: &str) -> Option<i64> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nine: String = digits.chars().chain(std::iter::repeat('0')).take(9).collect();
    nine.parse().ok()
}

/// One to nine ASCII digits.
fn unsigned(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}
