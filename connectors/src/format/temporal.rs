//! Dates and times as text, read and written by hand: a timestamp per record is too common to go through a general parser.
//!
//! Read are `2013-01-01 10:17[:00[.fraction]]` and the same with a `T`, each with an optional `Z` or offset (`+01:00`, `+0100`,
//! `+01`), which is converted to UTC; and a date alone, which is midnight. `chrono` is the oracle in the tests.

use arrow::datatypes::TimeUnit;
use coulee_model::Date;

const NANOS: i64 = 1_000_000_000;

/// The seconds of the years 0 to 9999, which are those that have a text: Flink's range of TIMESTAMP.
const SECONDS: std::ops::RangeInclusive<i64> = -62_167_219_200..=253_402_300_799;

/// How timestamps are written. Both forms are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampStandard {
    /// `2013-01-01 10:17:00.000`
    Sql,
    /// `2013-01-01T10:17:00.000`
    Iso8601,
}

/// A reader of fixed digits; `None` at the first byte that does not fit.
struct Digits<'a>(&'a [u8]);

impl Digits<'_> {
    fn number<const N: usize>(&mut self) -> Option<i64> {
        let (digits, rest) = self.0.split_first_chunk::<N>()?;
        let value = digits
            .iter()
            .try_fold(0, |value, digit| digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0')))?;
        self.0 = rest;
        Some(value)
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        self.0 = self.0.strip_prefix(&[byte])?;
        Some(())
    }

    /// Days since 1970-01-01.
    fn date(&mut self) -> Option<i64> {
        let year = self.number::<4>()?;
        self.take(b'-')?;
        let month = self.number::<2>()?;
        self.take(b'-')?;
        let day = self.number::<2>()?;
        Some(Date::new(year, month as u32, day as u32)?.days())
    }

    /// Seconds of the day, and nanoseconds. Digits beyond the ninth of a fraction are dropped.
    fn time(&mut self) -> Option<(i64, i64)> {
        let hour = self.number::<2>()?;
        self.take(b':')?;
        let minute = self.number::<2>()?;
        let (mut second, mut nanos) = (0, 0);
        if self.take(b':').is_some() {
            second = self.number::<2>()?;
            if self.take(b'.').or_else(|| self.take(b',')).is_some() {
                nanos = self.fraction()?;
            }
        }
        (hour < 24 && minute < 60 && second < 60).then_some((hour * 3600 + minute * 60 + second, nanos))
    }

    fn fraction(&mut self) -> Option<i64> {
        let length = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.0.split_at(length);
        self.0 = rest;
        let value = digits.iter().take(9).fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
        (length > 0).then(|| value * 10_i64.pow(9 - length.min(9) as u32))
    }

    /// Seconds east of UTC; 0 at the end of the text.
    fn offset(&mut self) -> Option<i64> {
        let sign = match self.0.first() {
            None => return Some(0),
            Some(b'Z' | b'z') => 0,
            Some(b'+') => 1,
            Some(b'-') => -1,
            Some(b' ') => {
                self.0 = &self.0[1..];
                return if self.0.is_empty() { None } else { self.offset() };
            }
            Some(_) => return None,
        };
        self.0 = &self.0[1..];
        if sign == 0 {
            return Some(0);
        }
        let hours = self.number::<2>()?;
        let minutes = match self.0 {
            [] => 0,
            _ => {
                self.take(b':');
                self.number::<2>()?
            }
        };
        (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
    }
}

/// A timestamp as seconds since the epoch (UTC) and nanoseconds.
pub fn parse_timestamp(text: &[u8]) -> Option<(i64, i64)> {
    let mut digits = Digits(text);
    let midnight = digits.date()? * 86_400;
    if digits.0.is_empty() {
        return Some((midnight, 0));
    }
    digits.take(b' ').or_else(|| digits.take(b'T')).or_else(|| digits.take(b't'))?;
    let (seconds, nanos) = digits.time()?;
    let offset = digits.offset()?;
    digits.0.is_empty().then_some((midnight + seconds - offset, nanos))
}

/// A date as days since the epoch.
pub fn parse_date(text: &[u8]) -> Option<i32> {
    let mut digits = Digits(text);
    let days = digits.date()?;
    digits.0.is_empty().then_some(days as i32)
}

/// A time of day as nanoseconds.
pub fn parse_time(text: &[u8]) -> Option<i64> {
    let mut digits = Digits(text);
    let (seconds, nanos) = digits.time()?;
    digits.0.is_empty().then_some(seconds * NANOS + nanos)
}

/// How many of `unit` make a second.
pub fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => NANOS,
    }
}

/// Seconds and nanoseconds in a unit, finer digits dropped, as Flink does. `None` outside the years 0 to 9999, and in
/// nanoseconds outside 1677-09-21 to 2262-04-11.
pub fn in_unit(seconds: i64, nanos: i64, unit: TimeUnit) -> Option<i64> {
    if !SECONDS.contains(&seconds) {
        return None;
    }
    let factor = per_second(unit);
    let fraction = nanos / (NANOS / factor);
    // The first nanoseconds of all are in a second that begins before them.
    match seconds.checked_mul(factor) {
        Some(whole) => whole.checked_add(fraction),
        None => (seconds + 1).checked_mul(factor)?.checked_add(fraction - factor),
    }
}

/// Milliseconds since the epoch in a unit; `None` as [`in_unit`].
pub fn timestamp_of_millis(millis: i64, unit: TimeUnit) -> Option<i64> {
    rescale_timestamp(millis, TimeUnit::Millisecond, unit)
}

/// A timestamp of one unit in another; `None` as [`in_unit`].
pub fn rescale_timestamp(value: i64, from: TimeUnit, to: TimeUnit) -> Option<i64> {
    let factor = per_second(from);
    in_unit(value.div_euclid(factor), value.rem_euclid(factor) * (NANOS / factor), to)
}

/// The first and the last date whose timestamps have a value in the unit, for messages.
pub fn range_of(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Nanosecond => "1677-09-21 to 2262-04-11",
        _ => "0000-01-01 to 9999-12-31",
    }
}

/// Appends a timestamp as text; with a `Z` behind it when it is a point in time rather than a wall-clock reading.
pub fn write_timestamp(value: i64, unit: TimeUnit, utc: bool, standard: TimestampStandard, out: &mut Vec<u8>) {
    let factor = per_second(unit);
    let (seconds, fraction) = (value.div_euclid(factor), value.rem_euclid(factor));
    write_date(seconds.div_euclid(86_400), out);
    out.push(if standard == TimestampStandard::Sql { b' ' } else { b'T' });
    write_clock(seconds.rem_euclid(86_400), fraction, factor, out);
    if utc {
        out.push(b'Z');
    }
}

/// Appends a time of day as text, with the digits of its unit.
pub fn write_time(value: i64, unit: TimeUnit, out: &mut Vec<u8>) {
    let factor = per_second(unit);
    write_clock(value.div_euclid(factor), value.rem_euclid(factor), factor, out);
}

fn write_clock(seconds: i64, fraction: i64, factor: i64, out: &mut Vec<u8>) {
    two(seconds / 3_600, out);
    out.push(b':');
    two(seconds / 60 % 60, out);
    out.push(b':');
    two(seconds % 60, out);
    let mut digit = factor / 10;
    if digit > 0 {
        out.push(b'.');
    }
    while digit > 0 {
        out.push(b'0' + (fraction / digit % 10) as u8);
        digit /= 10;
    }
}

/// Appends a date (days since the epoch) as text.
pub fn write_date(days: i64, out: &mut Vec<u8>) {
    let Date { year, month, day } = Date::from_days(days);
    if (0..10_000).contains(&year) {
        two(year / 100, out);
        two(year % 100, out);
    } else {
        out.extend_from_slice(year.to_string().as_bytes());
    }
    out.push(b'-');
    two(i64::from(month), out);
    out.push(b'-');
    two(i64::from(day), out);
}

fn two(number: i64, out: &mut Vec<u8>) {
    out.push(b'0' + (number / 10) as u8);
    out.push(b'0' + (number % 10) as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, NaiveDateTime};
    use proptest::prelude::*;

    fn millis(text: &str) -> Option<i64> {
        let (seconds, nanos) = parse_timestamp(text.as_bytes())?;
        in_unit(seconds, nanos, TimeUnit::Millisecond)
    }

    #[test]
    fn timestamps_are_read_in_both_standards() {
        let ten_seventeen = 1_357_035_420_000;
        for (text, expected) in [
            ("2013-01-01 10:17:00", ten_seventeen),
            ("2013-01-01T10:17:00", ten_seventeen),
            ("2013-01-01 10:17", ten_seventeen),
            ("2013-01-01 10:17:00.5", ten_seventeen + 500),
            ("2013-01-01T10:17:00.123456789Z", ten_seventeen + 123),
            ("2013-01-01T10:17:00.1234567891234", ten_seventeen + 123),
            ("2013-01-01T11:17:00+01:00", ten_seventeen),
            ("2013-01-01T11:17:00+0100", ten_seventeen),
            ("2013-01-01T05:17:00.000-05", ten_seventeen),
            ("2013-01-01 11:17:00 +01:00", ten_seventeen),
            ("2013-01-01", 1_356_998_400_000),
            ("1969-12-31 23:59:59.999", -1),
        ] {
            assert_eq!(millis(text), Some(expected), "{text}");
        }
        for bad in [
            "",
            "2013",
            "2013-13-01",
            "2013-02-29",
            "2013-01-01 ",
            "2013-01-01 24:00:00",
            "2013-01-01 10:17:00.",
            "2013-01-01 10:17:00 ",
            "2013-01-01 10:17:00+1",
            "2013-01-01 10:17:00Zx",
            "13-01-01",
            "2013-01-01x10:17",
        ] {
            assert_eq!(millis(bad), None, "{bad}");
        }
        // Years without a text, and nanoseconds beyond 64 bits.
        let nanos =
            |text: &str| parse_timestamp(text.as_bytes()).and_then(|(s, n)| in_unit(s, n, TimeUnit::Nanosecond));
        assert_eq!(millis("9999-12-31 23:59:59.999"), Some(253_402_300_799_999));
        assert_eq!(millis("9999-12-31 23:59:59-01:00"), None);
        assert_eq!(nanos("2262-04-11 23:47:16.854775807"), Some(i64::MAX));
        assert_eq!(nanos("2262-04-11 23:47:16.854775808"), None);
        assert_eq!(nanos("1677-09-21 00:12:43.145224192"), Some(i64::MIN));
        assert_eq!(nanos("1677-09-21 00:12:43.145224191"), None);
        assert_eq!(timestamp_of_millis(1_714_564_800_000_000, TimeUnit::Millisecond), None);
        assert_eq!(timestamp_of_millis(-1, TimeUnit::Microsecond), Some(-1_000));
        assert_eq!(parse_time(b"10:17:00.250"), Some(37_020_250_000_000));
        assert_eq!(parse_date(b"2000-02-29"), Some(11_016));
        assert_eq!(parse_date(b"2000-02-29 "), None);
    }

    proptest! {
        #[test]
        fn agrees_with_chrono(ms in -62_135_596_800_000i64..253_402_300_799_999) {
            let oracle = DateTime::from_timestamp_millis(ms).unwrap().naive_utc();
            let mut text = Vec::new();
            write_timestamp(ms, TimeUnit::Millisecond, false, TimestampStandard::Sql, &mut text);
            let text = String::from_utf8(text).unwrap();
            prop_assert_eq!(NaiveDateTime::parse_from_str(&text, "%Y-%m-%d %H:%M:%S%.3f").unwrap(), oracle);
            prop_assert_eq!(millis(&text), Some(ms));
        }
    }
}
