//! Units of time, and instants taken apart; dates are [`coulee_model::Date`].

use arrow::datatypes::TimeUnit;

/// Milliseconds of a day.
pub(crate) const DAY_MILLIS: i64 = 86_400_000;

/// How many digits a fraction of a second has in a unit.
pub(crate) fn digits_of(unit: TimeUnit) -> usize {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

/// How many of a unit a second has.
pub(crate) fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// An instant as day, second of the day, fraction of the second in the unit, and the digits of the fraction.
pub(crate) fn split_instant(value: i64, unit: TimeUnit) -> (i64, i64, i64, usize) {
    let per_second = per_second(unit);
    let seconds = value.div_euclid(per_second);
    (seconds.div_euclid(86_400), seconds.rem_euclid(86_400), value.rem_euclid(per_second), digits_of(unit))
}
