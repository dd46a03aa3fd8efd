//! Casts between DATE, TIME and timestamps. The session's time zone is UTC, so TIMESTAMP and TIMESTAMP_LTZ differ in their type only.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Time32MillisecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use datafusion_common::{Result, exec_err};

use super::Failing;
use super::print::{instant, print_value};
use crate::flink_types::calendar::{digits_of, per_second};
use crate::flink_types::type_name;

/// Casts between any two of them. Digits that the target does not have are cut off.
pub(super) fn between(array: &ArrayRef, to: &DataType, failing: Failing) -> Result<ArrayRef> {
    match to {
        DataType::Date32 => each::<Date32Type>(array, to, failing, |days, _| i32::try_from(days).ok()),
        DataType::Time32(TimeUnit::Millisecond) => {
            each::<Time32MillisecondType>(array, to, failing, |_, nanos| i32::try_from(nanos / 1_000_000).ok())
        }
        DataType::Timestamp(unit, _) => {
            let joined = |days, nanos| join(days, nanos, *unit);
            match unit {
                TimeUnit::Second => each::<TimestampSecondType>(array, to, failing, joined),
                TimeUnit::Millisecond => each::<TimestampMillisecondType>(array, to, failing, joined),
                TimeUnit::Microsecond => each::<TimestampMicrosecondType>(array, to, failing, joined),
                TimeUnit::Nanosecond => each::<TimestampNanosecondType>(array, to, failing, joined),
            }
        }
        other => exec_err!("there is no CAST from {} to {}", type_name(array.data_type()), type_name(other)),
    }
}

fn join(days: i64, nanos: i64, unit: TimeUnit) -> Option<i64> {
    let per_second = per_second(unit);
    let of_day = nanos / (1_000_000_000 / per_second);
    days.checked_mul(86_400)?.checked_mul(per_second)?.checked_add(of_day)
}

fn each<T: ArrowPrimitiveType>(
    array: &ArrayRef,
    to: &DataType,
    failing: Failing,
    convert: impl Fn(i64, i64) -> Option<T::Native>,
) -> Result<ArrayRef> {
    let mut out = PrimitiveArray::<T>::builder(array.len());
    for row in 0..array.len() {
        if array.is_null(row) {
            out.append_null();
            continue;
        }
        let (days, nanos) = split(array, row)?;
        let shown = || {
            let mut text = String::new();
            // A time has a text.
            let _ = print_value(array.as_ref(), row, &mut text);
            format!("'{text}'")
        };
        out.append_option(failing.settle(convert(days, nanos), shown, to)?);
    }
    Ok(Arc::new(out.finish().with_data_type(to.clone())))
}

/// Days since 1970-01-01 and nanoseconds of the day.
fn split(array: &ArrayRef, row: usize) -> Result<(i64, i64)> {
    Ok(match array.data_type() {
        DataType::Date32 => (i64::from(array.as_primitive::<Date32Type>().value(row)), 0),
        DataType::Time32(TimeUnit::Millisecond) => {
            (0, i64::from(array.as_primitive::<Time32MillisecondType>().value(row)) * 1_000_000)
        }
        DataType::Timestamp(unit, _) => {
            let (value, per_second) = (instant(array.as_ref(), *unit, row), per_second(*unit));
            let seconds = value.div_euclid(per_second);
            let nanos = value.rem_euclid(per_second) * (1_000_000_000 / per_second);
            (seconds.div_euclid(86_400), seconds.rem_euclid(86_400) * 1_000_000_000 + nanos)
        }
        other => return exec_err!("{} is no time", type_name(other)),
    })
}

/// Cuts the digits of a second off that a type of fewer digits does not have.
pub(super) fn cut_digits(array: &ArrayRef, unit: TimeUnit, digits: u8) -> Result<ArrayRef> {
    if let Some(times) = array.as_primitive_opt::<Time32MillisecondType>() {
        let step = 10_i32.pow(3 - u32::from(digits.min(3)));
        return Ok(Arc::new(times.unary::<_, Time32MillisecondType>(|value| value - value.rem_euclid(step))));
    }
    let held = digits_of(unit);
    let kept = usize::from(digits).min(held);
    if kept == held {
        return Ok(array.clone());
    }
    let step = 10_i64.pow(u32::try_from(held - kept).unwrap_or(0));
    let cut = |value: i64| value - value.rem_euclid(step);
    let data_type = array.data_type().clone();
    Ok(match unit {
        TimeUnit::Second => array.clone(),
        TimeUnit::Millisecond => Arc::new(
            array
                .as_primitive::<TimestampMillisecondType>()
                .unary::<_, TimestampMillisecondType>(cut)
                .with_data_type(data_type),
        ),
        TimeUnit::Microsecond => Arc::new(
            array
                .as_primitive::<TimestampMicrosecondType>()
                .unary::<_, TimestampMicrosecondType>(cut)
                .with_data_type(data_type),
        ),
        TimeUnit::Nanosecond => Arc::new(
            array
                .as_primitive::<TimestampNanosecondType>()
                .unary::<_, TimestampNanosecondType>(cut)
                .with_data_type(data_type),
        ),
    })
}
