//! Dates, times and timestamps of all precisions as one thing: local seconds since 1970 and a fraction.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType,
    TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use chrono::{Datelike, NaiveDate};
use datafusion_common::{Result, exec_err};

use super::call::Call;
use super::zone::Zone;

pub(crate) const DAY_SECONDS: i64 = 86_400;

/// A point in local time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Moment {
    /// Whole seconds since 1970-01-01 00:00:00, rounded down.
    pub seconds: i64,
    /// What is beyond them.
    pub nanos: u32,
}

impl Moment {
    pub fn of_days(days: i64) -> Self {
        Moment { seconds: days * DAY_SECONDS, nanos: 0 }
    }

    pub fn of_millis(millis: i64) -> Self {
        Moment { seconds: millis.div_euclid(1000), nanos: millis.rem_euclid(1000) as u32 * 1_000_000 }
    }

    /// From a count of a unit.
    pub fn of(count: i64, unit: TimeUnit) -> Self {
        let per_second = per_second(unit);
        let nanos = count.rem_euclid(per_second) * (1_000_000_000 / per_second);
        Moment { seconds: count.div_euclid(per_second), nanos: nanos as u32 }
    }

    /// As a count of a unit, rounded down; nothing beyond what 64 bits hold.
    pub fn count(self, unit: TimeUnit) -> Option<i64> {
        let per_second = per_second(unit);
        let fraction = i64::from(self.nanos) / (1_000_000_000 / per_second);
        self.seconds.checked_mul(per_second)?.checked_add(fraction)
    }

    pub fn millis(self) -> i64 {
        self.seconds.saturating_mul(1000).saturating_add(i64::from(self.nanos / 1_000_000))
    }

    pub fn days(self) -> i64 {
        self.seconds.div_euclid(DAY_SECONDS)
    }

    pub fn second_of_day(self) -> i64 {
        self.seconds.rem_euclid(DAY_SECONDS)
    }

    /// The date in the proleptic Gregorian calendar; nothing beyond a quarter of a million years.
    pub fn date(self) -> Option<NaiveDate> {
        date_of(self.days())
    }

    pub fn shifted(self, seconds: i64) -> Self {
        Moment { seconds: self.seconds.saturating_add(seconds), nanos: self.nanos }
    }
}

fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// The date of a day counted from 1970-01-01.
pub(crate) fn date_of(days: i64) -> Option<NaiveDate> {
    NaiveDate::from_num_days_from_ce_opt(i32::try_from(days.checked_add(719_163)?).ok()?)
}

/// The day of a date, counted from 1970-01-01.
pub(crate) fn days_of(date: NaiveDate) -> i64 {
    i64::from(date.num_days_from_ce()) - 719_163
}

/// An argument of dates, times or timestamps; `TIMESTAMP_LTZ` in the session's time zone.
pub(crate) struct Moments<'a> {
    array: &'a ArrayRef,
    zone: Option<Zone>,
    unit: Unit,
    call: &'a Call<'a>,
    index: usize,
}

#[derive(Clone, Copy)]
enum Unit {
    Days,
    Time(TimeUnit),
    Timestamp(TimeUnit),
}

pub(crate) fn moments<'a>(call: &'a Call<'a>, index: usize) -> Result<Moments<'a>> {
    let array = call.raw(index)?;
    let (unit, zone) = match array.data_type() {
        DataType::Date32 => (Unit::Days, None),
        DataType::Time32(unit) | DataType::Time64(unit) => (Unit::Time(*unit), None),
        DataType::Timestamp(unit, zone) => {
            let zone = if zone.is_some() { Some(call.zone) } else { None };
            (Unit::Timestamp(*unit), zone)
        }
        other => return exec_err!("{other} is no date and no time"),
    };
    Ok(Moments { array, zone, unit, call, index })
}

impl Moments<'_> {
    pub fn get(&self, row: usize) -> Option<Moment> {
        let at = self.call.at(self.index, row);
        if self.array.is_null(at) {
            return None;
        }
        let moment = match self.unit {
            Unit::Days => Moment::of_days(i64::from(self.array.as_primitive::<Date32Type>().value(at))),
            Unit::Time(unit) => Moment::of(
                match unit {
                    TimeUnit::Second => i64::from(self.array.as_primitive::<Time32SecondType>().value(at)),
                    TimeUnit::Millisecond => i64::from(self.array.as_primitive::<Time32MillisecondType>().value(at)),
                    TimeUnit::Microsecond => self.array.as_primitive::<Time64MicrosecondType>().value(at),
                    TimeUnit::Nanosecond => self.array.as_primitive::<Time64NanosecondType>().value(at),
                },
                unit,
            ),
            Unit::Timestamp(unit) => Moment::of(
                match unit {
                    TimeUnit::Second => self.array.as_primitive::<TimestampSecondType>().value(at),
                    TimeUnit::Millisecond => self.array.as_primitive::<TimestampMillisecondType>().value(at),
                    TimeUnit::Microsecond => self.array.as_primitive::<TimestampMicrosecondType>().value(at),
                    TimeUnit::Nanosecond => self.array.as_primitive::<TimestampNanosecondType>().value(at),
                },
                unit,
            ),
        };
        match &self.zone {
            Some(zone) => Some(moment.shifted(zone.offset_at(moment.seconds))),
            None => Some(moment),
        }
    }

    /// A local time as an instant again: that of `TIMESTAMP_LTZ`, itself for all others.
    pub fn back(&self, moment: Moment) -> Moment {
        match &self.zone {
            Some(zone) => moment.shifted(-zone.offset_of_local(moment.seconds)),
            None => moment,
        }
    }
}

/// A column of moments in the type that the call gives: DATE, TIME or a timestamp. What a type cannot hold is an error.
pub(crate) fn moment_rows(call: &Call<'_>, mut value: impl FnMut(usize) -> Result<Option<Moment>>) -> Result<ArrayRef> {
    let too_far = |count: Option<i64>| match count {
        Some(count) => Ok(Some(count)),
        None => exec_err!("the time is out of range"),
    };
    let day_nanos = |moment: Moment| Moment { seconds: moment.second_of_day(), nanos: moment.nanos };
    macro_rules! timestamps {
        ($unit:expr, $type:ty) => {
            call.try_rows_of::<$type>(|row| match value(row)? {
                Some(moment) => too_far(moment.count($unit)),
                None => Ok(None),
            })
        };
    }
    match call.gives {
        DataType::Date32 => call.try_rows_of::<Date32Type>(|row| match value(row)? {
            Some(moment) => match i32::try_from(moment.days()) {
                Ok(days) => Ok(Some(days)),
                Err(_) => exec_err!("the date is out of range"),
            },
            None => Ok(None),
        }),
        DataType::Time32(TimeUnit::Millisecond) => call.try_rows_of::<Time32MillisecondType>(|row| {
            Ok(value(row)?.and_then(|moment| i32::try_from(day_nanos(moment).millis()).ok()))
        }),
        DataType::Time64(TimeUnit::Microsecond) => call.try_rows_of::<Time64MicrosecondType>(|row| {
            Ok(value(row)?.and_then(|moment| day_nanos(moment).count(TimeUnit::Microsecond)))
        }),
        DataType::Time64(TimeUnit::Nanosecond) => call.try_rows_of::<Time64NanosecondType>(|row| {
            Ok(value(row)?.and_then(|moment| day_nanos(moment).count(TimeUnit::Nanosecond)))
        }),
        DataType::Timestamp(TimeUnit::Second, _) => timestamps!(TimeUnit::Second, TimestampSecondType),
        DataType::Timestamp(TimeUnit::Millisecond, _) => timestamps!(TimeUnit::Millisecond, TimestampMillisecondType),
        DataType::Timestamp(TimeUnit::Microsecond, _) => timestamps!(TimeUnit::Microsecond, TimestampMicrosecondType),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => timestamps!(TimeUnit::Nanosecond, TimestampNanosecondType),
        other => exec_err!("{other} is no date and no time"),
    }
}
