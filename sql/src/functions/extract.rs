//! Parts of dates and times: `EXTRACT` and the functions named after a unit.

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Int64Type};
use chrono::Datelike;
use datafusion_common::{Result, exec_err};

use super::call::Call;
use super::definition::Kind::{Moment as AMoment, Text};
use super::definition::{Function, Given, Nulls, Takes, gives};
use super::moment::{DAY_SECONDS, Moment, moments};

/// A unit of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unit {
    Millennium,
    Century,
    Decade,
    Year,
    IsoYear,
    Quarter,
    Month,
    Week,
    Day,
    DayOfYear,
    DayOfWeek,
    IsoDayOfWeek,
    Hour,
    Minute,
    Second,
    Millisecond,
    Microsecond,
    Nanosecond,
    Epoch,
}

const UNITS: &[(&str, Unit)] = &[
    ("MILLENNIUM", Unit::Millennium),
    ("CENTURY", Unit::Century),
    ("DECADE", Unit::Decade),
    ("YEAR", Unit::Year),
    ("ISOYEAR", Unit::IsoYear),
    ("QUARTER", Unit::Quarter),
    ("MONTH", Unit::Month),
    ("WEEK", Unit::Week),
    ("DAY", Unit::Day),
    ("DOY", Unit::DayOfYear),
    ("DOW", Unit::DayOfWeek),
    ("ISODOW", Unit::IsoDayOfWeek),
    ("HOUR", Unit::Hour),
    ("MINUTE", Unit::Minute),
    ("SECOND", Unit::Second),
    ("MILLISECOND", Unit::Millisecond),
    ("MICROSECOND", Unit::Microsecond),
    ("NANOSECOND", Unit::Nanosecond),
    ("EPOCH", Unit::Epoch),
];

impl Unit {
    pub fn named(name: &str) -> Option<Unit> {
        UNITS.iter().find(|(known, _)| *known == name).map(|(_, unit)| *unit)
    }

    /// The unit of a call, a literal in its first place.
    pub fn of(call: &Call<'_>, index: usize) -> Result<Unit> {
        let name = call.texts(index)?.get(0).unwrap_or_default();
        match Unit::named(name) {
            Some(unit) => Ok(unit),
            None => exec_err!("{}", unknown_unit(name)),
        }
    }

    /// Whether a literal unit is one.
    pub fn check(given: &Given<'_>, index: usize) -> std::result::Result<(), String> {
        match given.text(index) {
            Some(name) if Unit::named(name).is_none() => Err(unknown_unit(name)),
            _ => Ok(()),
        }
    }

    /// Whether it is a part of the time of day.
    fn is_of_day(self) -> bool {
        matches!(self, Unit::Hour | Unit::Minute | Unit::Second | Unit::Millisecond)
    }
}

const A_MOMENT: Takes = Takes::Own(|types| match types {
    [given] => Some(vec![point(given)?]),
    _ => None,
});

fn unknown_unit(name: &str) -> String {
    let known: Vec<&str> = UNITS.iter().map(|(name, _)| *name).collect();
    format!("unknown unit of time '{name}', expected {}", known.join(", "))
}

/// A date, a time or a timestamp.
fn point(given: &DataType) -> Option<DataType> {
    if matches!(given, DataType::Time32(_) | DataType::Time64(_)) {
        return Some(given.clone());
    }
    AMoment.convert(given)
}

/// A function that gives one part.
macro_rules! part {
    ($name:literal, $about:literal, $unit:expr) => {
        Function::new($name, concat!($name, "(timestamp)"), $about, A_MOMENT, gives::bigint, Nulls::Strict, |call| {
            parts(call, 0, $unit)
        })
    };
}

pub(crate) static EXTRACT: &[Function] = &[
    Function::new(
        "EXTRACT",
        "EXTRACT(unit FROM timestamp)",
        "a part: EXTRACT(HOUR FROM TIMESTAMP '2024-02-29 13:47:59') = 13; units from NANOSECOND to MILLENNIUM, EPOCH, DOY, DOW (Sunday = 1), ISODOW, ISOYEAR",
        Takes::Own(|types| match types {
            [unit, given] => Some(vec![Text.convert(unit)?, point(given)?]),
            _ => None,
        }),
        gives::bigint,
        Nulls::Strict,
        |call| parts(call, 1, Unit::of(call, 0)?),
    )
    .checked(|given| Unit::check(given, 0)),
    part!("YEAR", "the year", Unit::Year),
    part!("QUARTER", "the quarter, 1 to 4", Unit::Quarter),
    part!("MONTH", "the month, 1 to 12", Unit::Month),
    part!("WEEK", "the ISO week, 1 to 53", Unit::Week),
    part!("DAYOFYEAR", "the day of the year, from 1", Unit::DayOfYear),
    part!("DAYOFMONTH", "the day of the month, from 1", Unit::Day),
    part!("DAYOFWEEK", "the day of the week, Sunday = 1", Unit::DayOfWeek),
    part!("HOUR", "the hour, 0 to 23", Unit::Hour),
    part!("MINUTE", "the minute, 0 to 59", Unit::Minute),
    part!("SECOND", "the second, 0 to 59", Unit::Second),
];

fn parts(call: &Call<'_>, index: usize, unit: Unit) -> Result<ArrayRef> {
    let is_time = matches!(call.raw(index)?.data_type(), DataType::Time32(_) | DataType::Time64(_));
    if is_time && !unit.is_of_day() {
        return exec_err!("a TIME has no {unit:?}: expected HOUR, MINUTE, SECOND or MILLISECOND");
    }
    let moments = moments(call, index)?;
    call.rows_of::<Int64Type>(|row| part_of(moments.get(row)?, unit))
}

fn part_of(moment: Moment, unit: Unit) -> Option<i64> {
    let (second, nanos) = (moment.second_of_day(), i64::from(moment.nanos));
    match unit {
        Unit::Hour => return Some(second / 3600),
        Unit::Minute => return Some(second / 60 % 60),
        Unit::Second => return Some(second % 60),
        Unit::Millisecond => return Some(nanos / 1_000_000),
        Unit::Microsecond => return Some(nanos / 1_000),
        Unit::Nanosecond => return Some(nanos),
        Unit::Epoch => return Some(moment.days() * DAY_SECONDS + second),
        _ => {}
    }
    let date = moment.date()?;
    let year = i64::from(date.year());
    // There is no year 0 in these counts: the first century is that of the years 1 to 100.
    let counted = |years: i64| if year > 0 { (year + years - 1) / years } else { (year - years + 1) / years };
    Some(match unit {
        Unit::Millennium => counted(1000),
        Unit::Century => counted(100),
        Unit::Decade => year / 10,
        Unit::Year => year,
        Unit::IsoYear => i64::from(date.iso_week().year()),
        Unit::Quarter => i64::from(date.month0() / 3 + 1),
        Unit::Month => i64::from(date.month()),
        Unit::Week => i64::from(date.iso_week().week()),
        Unit::DayOfYear => i64::from(date.ordinal()),
        Unit::DayOfWeek => i64::from(date.weekday().num_days_from_sunday() + 1),
        Unit::IsoDayOfWeek => i64::from(date.weekday().number_from_monday()),
        _ => i64::from(date.day()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_before_1970_are_those_of_the_calendar() {
        // 1969-12-31 23:59:58.5
        let moment = Moment { seconds: -2, nanos: 500_000_000 };
        let expected = [
            (Unit::Year, 1969),
            (Unit::Month, 12),
            (Unit::Day, 31),
            (Unit::Hour, 23),
            (Unit::Second, 58),
            (Unit::Millisecond, 500),
            (Unit::Epoch, -2),
            (Unit::DayOfWeek, 4),
            (Unit::Week, 1),
            (Unit::IsoYear, 1970),
        ];
        for (unit, part) in expected {
            assert_eq!(part_of(moment, unit), Some(part), "{unit:?}");
        }
    }
}
