//! `TIMESTAMPADD` and `TIMESTAMPDIFF`: times that many units later, and units between two times.

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Int32Type, TimeUnit};
use chrono::{Datelike, Months, NaiveDate};
use datafusion_common::{Result, exec_err};

use super::call::Call;
use super::definition::Kind::{Moment as AMoment, Text, Whole};
use super::definition::{Function, Given, Nulls, Takes, gives};
use super::extract::Unit;
use super::moment::{Moment, days_of, moment_rows, moments};

pub(crate) static TIMESTAMP_MATH: &[Function] = &[
    Function::new(
        "TIMESTAMPADD",
        "TIMESTAMPADD(unit, number, timestamp)",
        "so many units later: TIMESTAMPADD(MONTH, 1, DATE '2024-01-31') = DATE '2024-02-29'",
        Takes::Own(|types| match types {
            [unit, number, time @ (DataType::Time32(_) | DataType::Time64(_))] => {
                Some(vec![Text.convert(unit)?, Whole.convert(number)?, time.clone()])
            }
            [unit, number, time] => Some(vec![Text.convert(unit)?, Whole.convert(number)?, AMoment.convert(time)?]),
            _ => None,
        }),
        added_type,
        Nulls::Strict,
        add,
    )
    .checked(|given| Unit::check(given, 0)),
    Function::new(
        "TIMESTAMPDIFF",
        "TIMESTAMPDIFF(unit, from, to)",
        "the whole units between two times: TIMESTAMPDIFF(HOUR, TIMESTAMP '2024-02-29 13:00:00', TIMESTAMP '2024-03-01 00:00:00') = 11",
        Takes::Own(|types| match types {
            [unit, from, to] => Some(vec![Text.convert(unit)?, AMoment.convert(from)?, AMoment.convert(to)?]),
            _ => None,
        }),
        gives::int,
        Nulls::Strict,
        difference,
    )
    .checked(|given| Unit::check(given, 0)),
];

/// A date to which hours are added becomes a timestamp.
fn added_type(given: &Given<'_>) -> DataType {
    let is_of_day = given.text(0).is_some_and(|unit| matches!(unit, "HOUR" | "MINUTE" | "SECOND"));
    match given.last() {
        DataType::Date32 if is_of_day => DataType::Timestamp(TimeUnit::Microsecond, None),
        other => other,
    }
}

/// A unit as a number of months, or of milliseconds.
enum Step {
    Months(i64),
    Millis(i64),
}

fn step(function: &str, unit: Unit) -> Result<Step> {
    Ok(match unit {
        Unit::Year => Step::Months(12),
        Unit::Quarter => Step::Months(3),
        Unit::Month => Step::Months(1),
        Unit::Week => Step::Millis(7 * 86_400_000),
        Unit::Day => Step::Millis(86_400_000),
        Unit::Hour => Step::Millis(3_600_000),
        Unit::Minute => Step::Millis(60_000),
        Unit::Second => Step::Millis(1000),
        Unit::Millisecond => Step::Millis(1),
        other => {
            return exec_err!(
                "{function} does not take {other:?}, expected YEAR, QUARTER, MONTH, WEEK, DAY, HOUR, MINUTE, SECOND or MILLISECOND"
            );
        }
    })
}

fn add(call: &Call<'_>) -> Result<ArrayRef> {
    let unit = Unit::of(call, 0)?;
    let step = step("TIMESTAMPADD", unit)?;
    if *call.raw(2)?.data_type() == DataType::Date32 && unit == Unit::Millisecond {
        return exec_err!("TIMESTAMPADD: milliseconds cannot be added to a DATE: CAST it to TIMESTAMP(3)");
    }
    let (numbers, moments) = (call.wholes(1)?, moments(call, 2)?);
    moment_rows(call, |row| {
        let (Some(number), Some(moment)) = (numbers.get(row), moments.get(row)) else { return Ok(None) };
        let later = match step {
            Step::Months(months) => number.checked_mul(months).and_then(|months| add_months(moment, months)),
            Step::Millis(millis) => number.checked_mul(millis).and_then(|millis| add_millis(moment, millis)),
        };
        match later {
            Some(later) => Ok(Some(moments.back(later))),
            None => exec_err!("TIMESTAMPADD: {number} units later is out of range"),
        }
    })
}

fn add_millis(moment: Moment, millis: i64) -> Option<Moment> {
    let nanos = i64::from(moment.nanos) + millis.rem_euclid(1000) * 1_000_000;
    let seconds = moment.seconds.checked_add(millis.div_euclid(1000))?.checked_add(nanos.div_euclid(1_000_000_000))?;
    Some(Moment { seconds, nanos: u32::try_from(nanos.rem_euclid(1_000_000_000)).ok()? })
}

/// The same day of another month, or its last.
fn add_months(moment: Moment, months: i64) -> Option<Moment> {
    let date = later(moment.date()?, months)?;
    Some(Moment { seconds: days_of(date) * 86_400 + moment.second_of_day(), nanos: moment.nanos })
}

fn later(date: NaiveDate, months: i64) -> Option<NaiveDate> {
    let count = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
    if months < 0 { date.checked_sub_months(count) } else { date.checked_add_months(count) }
}

fn difference(call: &Call<'_>) -> Result<ArrayRef> {
    let unit = Unit::of(call, 0)?;
    let step = if unit == Unit::Microsecond { None } else { Some(step("TIMESTAMPDIFF", unit)?) };
    let (from, to) = (moments(call, 1)?, moments(call, 2)?);
    call.try_rows_of::<Int32Type>(|row| {
        let (Some(from), Some(to)) = (from.get(row), to.get(row)) else { return Ok(None) };
        let units = match step {
            None => micros_between(from, to),
            Some(Step::Months(months)) => months_between(from, to).map(|between| between / months),
            Some(Step::Millis(millis)) => to.millis().checked_sub(from.millis()).map(|between| between / millis),
        };
        match units.and_then(|units| i32::try_from(units).ok()) {
            Some(units) => Ok(Some(units)),
            None => exec_err!("TIMESTAMPDIFF: the difference is beyond INT, take a longer unit"),
        }
    })
}

/// Whole microseconds.
fn micros_between(from: Moment, to: Moment) -> Option<i64> {
    let nanos = i64::from(to.nanos) - i64::from(from.nanos);
    let seconds = to.seconds.checked_sub(from.seconds)?;
    i64::try_from((i128::from(seconds) * 1_000_000_000 + i128::from(nanos)) / 1000).ok()
}

/// Whole months: as many as fit between the times, the day of the month cut to the month's last.
fn months_between(from: Moment, to: Moment) -> Option<i64> {
    if (from.seconds, from.nanos) > (to.seconds, to.nanos) {
        return months_between(to, from).map(|months| -months);
    }
    let (start, end) = (from.date()?, to.date()?);
    let year_months = |date: NaiveDate| i64::from(date.year()) * 12 + i64::from(date.month0());
    let mut months = year_months(end) - year_months(start);
    let of_day = |moment: Moment| moment.second_of_day() * 1000 + i64::from(moment.nanos / 1_000_000);
    let reached = later(start, months)?;
    if reached > end || (reached == end && of_day(from) > of_day(to)) {
        months -= 1;
    }
    Some(months)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(year: i32, month: u32, day: u32) -> Moment {
        Moment::of_days(days_of(NaiveDate::from_ymd_opt(year, month, day).unwrap()))
    }

    #[test]
    fn months_are_whole() {
        assert_eq!(months_between(day(2024, 1, 31), day(2024, 2, 29)), Some(1));
        assert_eq!(months_between(day(2024, 2, 29), day(2023, 2, 28)), Some(-12));
        assert_eq!(months_between(day(2024, 1, 31), day(2024, 2, 28)), Some(0));
        assert_eq!(months_between(day(2024, 1, 31).shifted(43_200), day(2024, 2, 29).shifted(43_199)), Some(0));
        assert_eq!(add_months(day(2024, 1, 31), 1), Some(day(2024, 2, 29)));
        assert_eq!(add_months(day(2024, 2, 29), -12), Some(day(2023, 2, 28)));
    }

    #[test]
    fn milliseconds_carry() {
        let moment = Moment { seconds: 0, nanos: 999_456_789 };
        assert_eq!(add_millis(moment, 1), Some(Moment { seconds: 1, nanos: 456_789 }));
        assert_eq!(add_millis(moment, -1000), Some(Moment { seconds: -1, nanos: 999_456_789 }));
    }
}
