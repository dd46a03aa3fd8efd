//! Times plus and minus intervals: months first, with the day no later than the month's last, then milliseconds. The result has the type of the time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{
    ArrowTimestampType, DataType, Date32Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
    Time32MillisecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use coulee_model::{Date, days_in_month};
use datafusion_common::{Result, exec_datafusion_err, exec_err};
use datafusion_expr::Operator;

use super::calendar::{DAY_MILLIS, per_second};
use crate::flink_types::type_name;

/// Whether a type is a time or an interval.
pub(crate) fn is_time(data_type: &DataType) -> bool {
    data_type.is_temporal() || matches!(data_type, DataType::Interval(_))
}

/// The type of a time plus or minus an interval, or of an interval plus a time; `None` for anything else.
pub(crate) fn result_type(op: Operator, left: &DataType, right: &DataType) -> Option<DataType> {
    let is_interval = |data_type: &DataType| matches!(data_type, DataType::Interval(_));
    match (op, is_interval(left), is_interval(right)) {
        (Operator::Plus | Operator::Minus, false, true) if left.is_temporal() => Some(left.clone()),
        (Operator::Plus, true, false) if right.is_temporal() => match right {
            // Flink takes the interval of a TIMESTAMP_LTZ at the right only.
            DataType::Timestamp(_, Some(_)) => None,
            _ => Some(right.clone()),
        },
        _ => None,
    }
}

/// The times shifted by the intervals.
///
/// # Errors
/// When a result is outside of its type.
pub(crate) fn shift(op: Operator, left: &ArrayRef, right: &ArrayRef, result: &DataType) -> Result<ArrayRef> {
    let (times, intervals) = if left.data_type() == result { (left, right) } else { (right, left) };
    let intervals = arrow::compute::cast(intervals, &DataType::Interval(IntervalUnit::MonthDayNano))?;
    let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>();
    let sign = if op == Operator::Minus { -1 } else { 1 };
    match result {
        DataType::Date32 => {
            let days = times.as_primitive::<Date32Type>();
            let shifted = shifted(days, intervals, |day, interval| {
                // Whole days only: DATE + INTERVAL '1' HOUR is the same day.
                let whole = i64::from(interval.days) + interval.nanoseconds / 1_000_000 / DAY_MILLIS;
                let days = IntervalMonthDayNano { days: i32::try_from(whole).ok()?, nanoseconds: 0, ..interval };
                let millis = shift_millis(i64::from(day).checked_mul(DAY_MILLIS)?, days, sign)?;
                i32::try_from(millis.div_euclid(DAY_MILLIS)).ok()
            })?;
            Ok(Arc::new(shifted))
        }
        DataType::Time32(TimeUnit::Millisecond) => {
            let times = times.as_primitive::<Time32MillisecondType>();
            let shifted = shifted(times, intervals, |time, interval| {
                let millis = shift_millis(i64::from(time), IntervalMonthDayNano { months: 0, ..interval }, sign)?;
                i32::try_from(millis.rem_euclid(DAY_MILLIS)).ok()
            })?;
            Ok(Arc::new(shifted))
        }
        DataType::Timestamp(TimeUnit::Second, _) => timestamps::<TimestampSecondType>(times, intervals, sign),
        DataType::Timestamp(TimeUnit::Millisecond, _) => timestamps::<TimestampMillisecondType>(times, intervals, sign),
        DataType::Timestamp(TimeUnit::Microsecond, _) => timestamps::<TimestampMicrosecondType>(times, intervals, sign),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => timestamps::<TimestampNanosecondType>(times, intervals, sign),
        other => exec_err!("an interval cannot be added to {}", type_name(other)),
    }
}

fn timestamps<T: ArrowTimestampType>(
    times: &ArrayRef,
    intervals: &PrimitiveArray<IntervalMonthDayNanoType>,
    sign: i64,
) -> Result<ArrayRef> {
    let per_millisecond = per_second(T::UNIT) / 1000;
    let typed = times.as_primitive::<T>();
    let shifted = shifted(typed, intervals, |time, interval| {
        if per_millisecond == 0 {
            return Some(shift_millis(time.checked_mul(1000)?, interval, sign)?.div_euclid(1000));
        }
        let (millis, rest) = (time.div_euclid(per_millisecond), time.rem_euclid(per_millisecond));
        shift_millis(millis, interval, sign)?.checked_mul(per_millisecond)?.checked_add(rest)
    })?;
    Ok(Arc::new(shifted.with_data_type(times.data_type().clone())))
}

fn shifted<T: arrow::datatypes::ArrowPrimitiveType>(
    times: &PrimitiveArray<T>,
    intervals: &PrimitiveArray<IntervalMonthDayNanoType>,
    shift: impl Fn(T::Native, IntervalMonthDayNano) -> Option<T::Native>,
) -> Result<PrimitiveArray<T>> {
    let mut out = PrimitiveArray::<T>::builder(times.len());
    for row in 0..times.len() {
        if times.is_null(row) || intervals.is_null(row) {
            out.append_null();
            continue;
        }
        match shift(times.value(row), intervals.value(row)) {
            Some(value) => out.append_value(value),
            None => {
                return Err(exec_datafusion_err!(
                    "{} overflow: the interval leads out of its range",
                    type_name(&T::DATA_TYPE)
                ));
            }
        }
    }
    Ok(out.finish())
}

fn shift_millis(millis: i64, interval: IntervalMonthDayNano, sign: i64) -> Option<i64> {
    let months = i64::from(interval.months) * sign;
    let moved = if months == 0 { millis } else { add_months(millis, months)? };
    let days = i64::from(interval.days).checked_mul(DAY_MILLIS)?;
    let rest = interval.nanoseconds / 1_000_000;
    moved.checked_add(days.checked_add(rest)?.checked_mul(sign)?)
}

fn add_months(millis: i64, months: i64) -> Option<i64> {
    let (days, of_day) = (millis.div_euclid(DAY_MILLIS), millis.rem_euclid(DAY_MILLIS));
    let Date { year, month, day } = Date::from_days(days);
    let index = year.checked_mul(12)?.checked_add(i64::from(month) - 1)?.checked_add(months)?;
    let (year, month) = (index.div_euclid(12), u32::try_from(index.rem_euclid(12)).ok()? + 1);
    let day = day.min(days_in_month(year, month));
    Date::new(year, month, day)?.days().checked_mul(DAY_MILLIS)?.checked_add(of_day)
}
