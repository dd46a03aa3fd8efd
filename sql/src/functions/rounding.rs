//! `CEIL`, `FLOOR`, `ROUND` and `TRUNCATE` of numbers, and `CEIL` and `FLOOR` of times to a unit.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
};
use chrono::{Datelike, NaiveDate};
use datafusion_common::{Result, exec_err};

use super::call::Call;
use super::definition::Kind::{Moment as AMoment, Number, Text, Whole};
use super::definition::{Function, Given, Nulls, Takes};
use super::extract::Unit;
use super::moment::{Moment, date_of, days_of, moment_rows, moments};

pub(crate) static ROUNDING: &[Function] = &[
    Function::new(
        "CEIL",
        "CEIL(number) or CEIL(timestamp TO unit)",
        "rounded up: CEIL(1.2) = 2, CEIL(TIMESTAMP '2024-02-29 13:47:59' TO HOUR)",
        NUMBER_OR_TIME,
        whole_type,
        Nulls::Strict,
        |call| rounded(call, true),
    )
    .also(&["CEILING"])
    .checked(|given| Unit::check(given, 1)),
    Function::new(
        "FLOOR",
        "FLOOR(number) or FLOOR(timestamp TO unit)",
        "rounded down: FLOOR(1.8) = 1, FLOOR(TIMESTAMP '2024-02-29 13:47:59' TO HOUR)",
        NUMBER_OR_TIME,
        whole_type,
        Nulls::Strict,
        |call| rounded(call, false),
    )
    .checked(|given| Unit::check(given, 1)),
    Function::new(
        "ROUND",
        "ROUND(number[, digits])",
        "rounded half away from zero to so many digits behind the point: ROUND(2.345, 2) = 2.35",
        Takes::These(1, &[Number, Whole]),
        digits_type,
        Nulls::Strict,
        |call| to_digits(call, true),
    ),
    Function::new(
        "TRUNCATE",
        "TRUNCATE(number[, digits])",
        "cut to so many digits behind the point: TRUNCATE(42.324, 2) = 42.32",
        Takes::These(1, &[Number, Whole]),
        digits_type,
        Nulls::Strict,
        |call| to_digits(call, false),
    ),
];

const NUMBER_OR_TIME: Takes = Takes::Own(|types| match types {
    [number] => Some(vec![Number.convert(number)?]),
    [time @ (DataType::Time32(_) | DataType::Time64(_)), unit] => Some(vec![time.clone(), Text.convert(unit)?]),
    [time, unit] => Some(vec![AMoment.convert(time)?, Text.convert(unit)?]),
    _ => None,
});

/// A decimal loses its fraction and keeps its precision.
fn whole_type(given: &Given<'_>) -> DataType {
    match given.first() {
        DataType::Decimal128(precision, _) => DataType::Decimal128(precision, 0),
        other => other,
    }
}

/// The type of a decimal with so many digits; one more in front, for what is rounded up to.
fn digits_type(given: &Given<'_>) -> DataType {
    let DataType::Decimal128(precision, scale) = given.first() else { return given.first() };
    let digits = if given.types.len() == 1 { Some(0) } else { given.whole(1) };
    let Some(digits) = digits.filter(|digits| *digits < i64::from(scale)) else {
        return DataType::Decimal128(precision, scale);
    };
    let kept = i8::try_from(digits.max(0)).unwrap_or(0);
    let whole = i16::from(precision) - i16::from(scale) + 1 + i16::from(kept);
    DataType::Decimal128(u8::try_from(whole.clamp(1, 38)).unwrap_or(38), kept)
}

fn each<T: ArrowPrimitiveType>(array: &ArrayRef, of: impl Fn(T::Native) -> T::Native) -> ArrayRef {
    let array: &PrimitiveArray<T> = array.as_primitive();
    Arc::new(array.unary::<_, T>(of).with_data_type(array.data_type().clone()))
}

fn rounded(call: &Call<'_>, up: bool) -> Result<ArrayRef> {
    if call.len() == 2 {
        return rounded_to_unit(call, up);
    }
    let numbers = call.column(0)?;
    match numbers.data_type() {
        DataType::Float32 => Ok(each::<Float32Type>(&numbers, if up { f32::ceil } else { f32::floor })),
        DataType::Float64 => Ok(each::<Float64Type>(&numbers, if up { f64::ceil } else { f64::floor })),
        DataType::Decimal128(_, scale) => {
            let one = 10_i128.pow(u32::try_from(*scale).unwrap_or(0));
            let numbers = call.values::<Decimal128Type>(0)?;
            call.rows_of::<Decimal128Type>(|row| {
                let number = numbers.get(row)?;
                Some(if up { -(-number).div_euclid(one) } else { number.div_euclid(one) })
            })
        }
        _ => Ok(numbers),
    }
}

/// Rounds half away from zero, or cuts.
fn divided(number: i128, divisor: i128, round: bool) -> i128 {
    let (quotient, remainder) = (number / divisor, number % divisor);
    let is_half = remainder.unsigned_abs() >= divisor.unsigned_abs() - remainder.unsigned_abs();
    if round && is_half && remainder != 0 { quotient + number.signum() } else { quotient }
}

/// A whole number with its last `-digits` digits zero.
fn whole_to_digits(number: i128, digits: i64, round: bool) -> i128 {
    match u32::try_from(-digits.max(-38)) {
        Ok(0) | Err(_) => number,
        Ok(cut) => divided(number, 10_i128.pow(cut), round) * 10_i128.pow(cut),
    }
}

fn to_digits(call: &Call<'_>, round: bool) -> Result<ArrayRef> {
    let digits = if call.len() > 1 { Some(call.wholes(1)?) } else { None };
    let digits = |row: usize| digits.as_ref().map_or(Some(0), |digits| digits.get(row));
    macro_rules! wholes {
        ($type:ty) => {{
            let numbers = call.values::<$type>(0)?;
            call.try_rows_of::<$type>(|row| {
                let (Some(number), Some(digits)) = (numbers.get(row), digits(row)) else { return Ok(None) };
                match whole_to_digits(i128::from(number), digits, round).try_into() {
                    Ok(number) => Ok(Some(number)),
                    Err(_) => exec_err!("ROUND: {number} to {digits} digits is beyond its type"),
                }
            })
        }};
    }
    match call.raw(0)?.data_type() {
        DataType::Int8 => wholes!(Int8Type),
        DataType::Int16 => wholes!(Int16Type),
        DataType::Int32 => wholes!(Int32Type),
        DataType::Int64 => wholes!(Int64Type),
        DataType::Float32 => {
            let numbers = call.values::<Float32Type>(0)?;
            call.rows_of::<Float32Type>(|row| {
                Some(double_to_digits(f64::from(numbers.get(row)?), digits(row)?, round) as f32)
            })
        }
        DataType::Float64 => {
            let numbers = call.doubles(0)?;
            call.rows_of::<Float64Type>(|row| Some(double_to_digits(numbers.get(row)?, digits(row)?, round)))
        }
        DataType::Decimal128(_, scale) => {
            let scale = i64::from(*scale);
            let DataType::Decimal128(_, kept) = call.gives else { return exec_err!("ROUND of a decimal is a decimal") };
            let kept = i64::from(*kept);
            let numbers = call.values::<Decimal128Type>(0)?;
            call.rows_of::<Decimal128Type>(|row| {
                let (number, digits) = (numbers.get(row)?, digits(row)?);
                // The number in units of 10^-scale, with everything behind the digits zero, and then in units of the result.
                let number = whole_to_digits(number, digits - scale, round);
                Some(number / 10_i128.pow(u32::try_from(scale - kept).unwrap_or(0)))
            })
        }
        other => exec_err!("ROUND does not take {other}"),
    }
}

/// By the digits that the number's shortest text has, as Java's `BigDecimal.valueOf` does.
fn double_to_digits(number: f64, digits: i64, round: bool) -> f64 {
    if !number.is_finite() || number == 0.0 {
        return number;
    }
    let text = format!("{number:e}");
    let Some((mantissa, exponent)) = text.split_once('e') else { return number };
    let Ok(exponent) = exponent.parse::<i64>() else { return number };
    let mut mantissa: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    // The number is 0.MANTISSA · 10^point: so many of its digits are kept.
    let point = exponent + 1;
    let kept = point.saturating_add(digits);
    if kept >= mantissa.len() as i64 {
        return number;
    }
    let Ok(kept) = usize::try_from(kept) else { return 0.0 };
    let next = mantissa.as_bytes().get(kept).copied().unwrap_or(b'0');
    mantissa.truncate(kept);
    let whole: u128 = if mantissa.is_empty() { 0 } else { mantissa.parse().unwrap_or(0) };
    let whole = whole + u128::from(round && next >= b'5');
    let sign = if number < 0.0 && whole != 0 { "-" } else { "" };
    format!("{sign}{whole}e{}", -digits).parse().unwrap_or(number)
}

fn rounded_to_unit(call: &Call<'_>, up: bool) -> Result<ArrayRef> {
    let unit = Unit::of(call, 1)?;
    let data_type = call.raw(0)?.data_type();
    let is_time = matches!(data_type, DataType::Time32(_) | DataType::Time64(_));
    if is_time && !matches!(unit, Unit::Hour | Unit::Minute | Unit::Second | Unit::Millisecond) {
        return exec_err!("a TIME is rounded to HOUR, MINUTE, SECOND or MILLISECOND, not to {unit:?}");
    }
    let is_date = *data_type == DataType::Date32;
    let moments = moments(call, 0)?;
    moment_rows(call, |row| {
        let Some(moment) = moments.get(row) else { return Ok(None) };
        let rounded = match to_unit(moment, unit, up, is_date) {
            Some(rounded) => rounded,
            None => return exec_err!("a time cannot be rounded to {unit:?}"),
        };
        Ok(Some(moments.back(rounded)))
    })
}

/// Units of a day and less round what they get; longer ones look at its date only, as in Flink.
fn to_unit(moment: Moment, unit: Unit, up: bool, is_date: bool) -> Option<Moment> {
    let seconds = match unit {
        Unit::Day if is_date => return Some(Moment::of_days(moment.days() + i64::from(up))),
        Unit::Day => 86_400,
        Unit::Hour => 3600,
        Unit::Minute => 60,
        Unit::Second => 1,
        Unit::Millisecond => {
            let rest = moment.nanos % 1_000_000;
            let nanos = moment.nanos - rest + if up && rest > 0 { 1_000_000 } else { 0 };
            let carry = nanos / 1_000_000_000;
            return Some(Moment { seconds: moment.seconds + i64::from(carry), nanos: nanos % 1_000_000_000 });
        }
        _ => return Some(Moment::of_days(date_to_unit(date_of(moment.days())?, unit, up)?)),
    };
    let start = moment.seconds.div_euclid(seconds) * seconds;
    let is_start = start == moment.seconds && moment.nanos == 0;
    Some(Moment { seconds: if up && !is_start { start + seconds } else { start }, nanos: 0 })
}

fn date_to_unit(date: NaiveDate, unit: Unit, up: bool) -> Option<i64> {
    let (year, month) = (date.year(), date.month());
    let january = |year: i32| NaiveDate::from_ymd_opt(year, 1, 1).map(days_of);
    // The first of so many years, counted from the year 1 on.
    let first_of = |years: i32| years * ((year + years - 1) / years) - years + 1;
    let is_january_first = month == 1 && date.day() == 1;
    match unit {
        Unit::Millennium => january(first_of(1000) + if up { 1000 } else { 0 }),
        Unit::Century => january(first_of(100) + if up { 100 } else { 0 }),
        Unit::Decade => january(10 * (year / 10 + i32::from(up))),
        Unit::Year => january(year + i32::from(up && !is_january_first)),
        Unit::Quarter => {
            let quarter = (month - 1) / 3 + u32::from(up && !is_january_first);
            NaiveDate::from_ymd_opt(year + (quarter / 4) as i32, quarter % 4 * 3 + 1, 1).map(days_of)
        }
        Unit::Month => {
            let month = month - 1 + u32::from(up && date.day() > 1);
            NaiveDate::from_ymd_opt(year + (month / 12) as i32, month % 12 + 1, 1).map(days_of)
        }
        Unit::Week => {
            let from_sunday = i64::from(date.weekday().num_days_from_sunday());
            Some(days_of(date) - from_sunday + if up && from_sunday > 0 { 7 } else { 0 })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_round_by_their_shortest_text() {
        assert_eq!(double_to_digits(2.675, 2, true), 2.68);
        assert_eq!(double_to_digits(2.675, 2, false), 2.67);
        assert_eq!(double_to_digits(-0.5, 0, true), -1.0);
        assert_eq!(double_to_digits(0.4, 0, true), 0.0);
        assert_eq!(double_to_digits(1234.5678, -2, true), 1200.0);
        assert_eq!(double_to_digits(1234.5678, -5, true), 0.0);
        assert_eq!(double_to_digits(9.99, 1, true), 10.0);
        assert_eq!(double_to_digits(1e300, 2, true), 1e300);
    }

    #[test]
    fn times_before_1970_round_down() {
        let moment = Moment { seconds: -2, nanos: 500_000_000 };
        assert_eq!(to_unit(moment, Unit::Hour, false, false), Some(Moment { seconds: -3600, nanos: 0 }));
        assert_eq!(to_unit(moment, Unit::Second, true, false), Some(Moment { seconds: -1, nanos: 0 }));
        assert_eq!(to_unit(moment, Unit::Month, false, false), Some(Moment::of_days(-31)));
    }
}
