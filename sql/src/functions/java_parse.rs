//! Reads text by a pattern of `DateTimeFormatter`, as its "smart" resolver does: April 31 is April 30, April 32 is an error.

use chrono::{Datelike, NaiveDate};

use super::java_pattern::{DAYS, Item, MONTHS};
use super::moment::{Moment, days_of};

/// What was read, field by field.
#[derive(Default, Clone)]
struct Fields {
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    /// From Monday = 0.
    day_of_week: Option<i64>,
    hour: Option<i64>,
    /// From 0 to 11.
    half_hour: Option<i64>,
    afternoon: Option<bool>,
    minute: Option<i64>,
    second: Option<i64>,
    nanos: Option<i64>,
}

/// The moment that a text says; nothing if it does not fit the pattern.
pub(crate) fn read(items: &[Item], text: &str) -> Option<Moment> {
    let mut fields = Fields::default();
    let rest = read_items(items, text, &mut fields)?;
    if rest.is_empty() { fields.resolve() } else { None }
}

/// Reads the items from the front of a text and gives what is left.
fn read_items<'t>(items: &[Item], mut text: &'t str, fields: &mut Fields) -> Option<&'t str> {
    let mut at = 0;
    while let Some(item) = items.get(at) {
        match item {
            Item::Literal(literal) => text = text.strip_prefix(literal.as_str())?,
            Item::Pad(_) => text = text.trim_start_matches(' '),
            Item::OptionalEnd => {}
            Item::OptionalStart => {
                let length = optional_length(&items[at + 1..]);
                let mut inner = fields.clone();
                if let Some(rest) = read_items(&items[at + 1..at + 1 + length], text, &mut inner) {
                    *fields = inner;
                    text = rest;
                }
                at += length;
            }
            Item::Field(letter, count) => text = read_field((*letter, *count), &items[at + 1..], text, fields)?,
        }
        at += 1;
    }
    Some(text)
}

/// How many items there are up to the end of the optional part.
fn optional_length(items: &[Item]) -> usize {
    let mut depth = 1;
    for (at, item) in items.iter().enumerate() {
        depth += match item {
            Item::OptionalStart => 1,
            Item::OptionalEnd => -1,
            _ => 0,
        };
        if depth == 0 {
            return at;
        }
    }
    items.len()
}

/// The width of a field whose number of digits is fixed.
fn fixed_width(item: &Item) -> Option<usize> {
    match item {
        Item::Field('y' | 'u' | 'M' | 'L' | 'd' | 'h' | 'H' | 'k' | 'K' | 'm' | 's', 2) => Some(2),
        Item::Field('D', 3) => Some(3),
        Item::Field('S', count) => Some(*count),
        _ => None,
    }
}

/// A number of `least` to `most` digits, of which a field directly behind gets its own.
fn number<'t>(text: &'t str, least: usize, most: usize, behind: &[Item]) -> Option<(i64, &'t str)> {
    let reserved: usize = if least == most { 0 } else { behind.iter().map_while(fixed_width).sum() };
    let available = text.bytes().take_while(u8::is_ascii_digit).count();
    let length = available.min(most).min(available.saturating_sub(reserved).max(least));
    if length < least || length == 0 {
        return None;
    }
    Some((text[..length].parse().ok()?, &text[length..]))
}

/// A name at the front of a text, as a number from 0.
fn named<'t>(text: &'t str, names: &[&str], length: Option<usize>) -> Option<(i64, &'t str)> {
    names.iter().enumerate().find_map(|(index, name)| {
        let name = length.map_or(*name, |length| &name[..length]);
        Some((index as i64, text.strip_prefix(name)?))
    })
}

fn within(number: i64, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
    range.contains(&number).then_some(number)
}

fn read_field<'t>(
    (letter, count): (char, usize),
    behind: &[Item],
    text: &'t str,
    fields: &mut Fields,
) -> Option<&'t str> {
    let digits = |least, most| number(text, least, most, behind);
    // One letter reads as many digits as there are, two read two.
    let plain = |range| {
        let (value, rest) = if count == 1 { digits(1, 19)? } else { digits(count, count)? };
        Some((within(value, range)?, rest))
    };
    let (value, rest) = match letter {
        'y' | 'u' => year(text, count, behind)?,
        'M' | 'L' if count < 3 => plain(1..=12)?,
        'M' | 'L' => {
            let (month, rest) = named(text, &MONTHS, (count == 3).then_some(3))?;
            (month + 1, rest)
        }
        'd' => plain(1..=31)?,
        'D' => {
            let (value, rest) = digits(count, 3)?;
            (within(value, 1..=366)?, rest)
        }
        'E' => named(text, &DAYS, (count < 4).then_some(3))?,
        'a' => named(text, &["AM", "PM"], None)?,
        'h' => plain(1..=12)?,
        'H' => plain(0..=23)?,
        'k' => plain(1..=24)?,
        'K' => plain(0..=11)?,
        'm' | 's' => plain(0..=59)?,
        'S' => {
            let (value, rest) = digits(count, count)?;
            (value * 10_i64.pow(9 - u32::try_from(count).ok()?), rest)
        }
        'n' => {
            let (value, rest) = digits(1, 19)?;
            (within(value, 0..=999_999_999)?, rest)
        }
        // A zone is read and has no effect: the result is a local time.
        'X' | 'x' | 'Z' => (0, offset((letter, count), text)?),
        _ => return None,
    };
    let field = match letter {
        'y' | 'u' => &mut fields.year,
        'M' | 'L' => &mut fields.month,
        'd' => &mut fields.day,
        'D' => &mut fields.day_of_year,
        'E' => &mut fields.day_of_week,
        'h' | 'K' => &mut fields.half_hour,
        'H' | 'k' => &mut fields.hour,
        'm' => &mut fields.minute,
        's' => &mut fields.second,
        'S' | 'n' => &mut fields.nanos,
        'a' => {
            fields.afternoon = Some(value == 1);
            return Some(rest);
        }
        _ => return Some(rest),
    };
    let value = match letter {
        'h' => value % 12,
        'k' => value % 24,
        _ => value,
    };
    // A field that is there twice must say the same.
    if field.is_some_and(|known| known != value) {
        return None;
    }
    *field = Some(value);
    Some(rest)
}

/// Two digits are a year from 2000 on. More than four digits need a sign.
fn year<'t>(text: &'t str, count: usize, behind: &[Item]) -> Option<(i64, &'t str)> {
    if count == 2 {
        let (year, rest) = number(text, 2, 2, behind)?;
        return Some((2000 + year, rest));
    }
    let (sign, unsigned) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' if count >= 4 => (1, &text[1..]),
        _ => (1, text),
    };
    let (year, rest) = number(unsigned, count, 19, behind)?;
    let length = unsigned.len() - rest.len();
    let is_longer = length > count;
    let has_plus = text.starts_with('+');
    if count >= 4 && ((is_longer && sign == 1 && !has_plus) || (has_plus && !is_longer)) {
        return None;
    }
    Some((sign * year, rest))
}

/// `+08`, `+0800`, `+08:00` or `Z`, by the pattern's letters.
fn offset<'t>((letter, count): (char, usize), text: &'t str) -> Option<&'t str> {
    if (letter == 'X' || (letter == 'Z' && count == 5))
        && let Some(rest) = text.strip_prefix('Z')
    {
        return Some(rest);
    }
    let unsigned = text.strip_prefix(['+', '-'])?;
    let two = |text: &'t str| {
        let digits = text.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        (digits.parse::<u8>().ok()? < 60).then_some(&text[2..])
    };
    let rest = two(unsigned)?;
    let colon = matches!((letter, count), ('X' | 'x', 3 | 5) | ('Z', 5));
    match (letter, count) {
        ('X' | 'x', 1) => Some(two(rest).unwrap_or(rest)),
        _ if colon => two(rest.strip_prefix(':')?),
        _ => two(rest),
    }
}

impl Fields {
    fn resolve(&self) -> Option<Moment> {
        let date = self.date()?;
        if self.day_of_week.is_some_and(|day| i64::from(date.weekday().num_days_from_monday()) != day) {
            return None;
        }
        let hour = match (self.hour, self.half_hour, self.afternoon) {
            (None, Some(hour), Some(afternoon)) => hour + if afternoon { 12 } else { 0 },
            (hour, ..) => hour.unwrap_or(0),
        };
        let second = hour * 3600 + self.minute.unwrap_or(0) * 60 + self.second.unwrap_or(0);
        Some(Moment { seconds: days_of(date) * 86_400 + second, nanos: u32::try_from(self.nanos.unwrap_or(0)).ok()? })
    }

    /// What is missing of a date is 1970, January, 1.
    fn date(&self) -> Option<NaiveDate> {
        let year = i32::try_from(self.year.unwrap_or(1970)).ok()?;
        if let Some(day) = self.day_of_year {
            return NaiveDate::from_yo_opt(year, u32::try_from(day).ok()?);
        }
        let month = u32::try_from(self.month.unwrap_or(1)).ok()?;
        let first = NaiveDate::from_ymd_opt(year, month, 1)?;
        let day = u32::try_from(self.day.unwrap_or(1)).ok()?;
        first.with_day(day.min(u32::from(first.num_days_in_month())))
    }
}

/// Reads Flink's default form: `yyyy-M-d[ H:m:s[.fraction]]`, with one or two digits; 24:00:00 is the next day's start.
pub(crate) fn read_default(text: &str) -> Option<Moment> {
    let pair = |text: &str| -> Option<u32> {
        let is_number = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        if is_number { text.parse().ok() } else { None }
    };
    let (date, time) = match text.split_once(' ') {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, pair(parts.next()?)?, pair(parts.next()?)?);
    let is_year = year.len() == 4 && year.bytes().all(|byte| byte.is_ascii_digit());
    if parts.next().is_some() || !is_year || !(1..=31).contains(&day) {
        return None;
    }
    let first = NaiveDate::from_ymd_opt(year.parse().ok()?, month, 1)?;
    let date = first.with_day(day.min(u32::from(first.num_days_in_month())))?;
    let days = days_of(date);
    let Some(time) = time else { return Some(Moment::of_days(days)) };
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut parts = time.split(':');
    let (hour, minute, second) = (pair(parts.next()?)?, pair(parts.next()?)?, pair(parts.next()?)?);
    let is_fraction = fraction.len() <= 9 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    if parts.next().is_some() || !is_fraction || minute > 59 || second > 59 {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}").parse().ok()?;
    let is_midnight = hour == 24 && minute == 0 && second == 0 && nanos == 0;
    if hour > 23 && !is_midnight {
        return None;
    }
    Some(Moment { seconds: days * 86_400 + i64::from(hour * 3600 + minute * 60 + second), nanos })
}

/// What Flink reads when a pattern does not fit: `yyyy-M-d H:m:s[.fraction]` or `yyyy-M-d` (`java.sql.Timestamp.valueOf`).
pub(crate) fn read_fallback(text: &str) -> Option<Moment> {
    let text = text.trim_matches(|c| c <= ' ');
    let (date, time) = match text.split_once(' ') {
        Some((date, time)) => (date, Some(time.trim())),
        None => (text, None),
    };
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let is_date = year.len() == 4 && (1..=2).contains(&month.len()) && (1..=2).contains(&day.len());
    if !is_date || parts.next().is_some() {
        return None;
    }
    let (month, day): (u32, i64) = (month.parse().ok()?, day.parse().ok()?);
    if !(1..=31).contains(&day) {
        return None;
    }
    let first = NaiveDate::from_ymd_opt(year.parse().ok()?, month, 1)?;
    let Some(time) = time else {
        return Some(Moment::of_days(days_of(first.with_day(u32::try_from(day).ok()?)?)));
    };
    // Days and hours that are too many roll over.
    let start = Moment::of_days(days_of(first) + day - 1);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut parts = time.split(':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}").parse().ok()?;
    Some(Moment { seconds: start.seconds + hour * 3600 + minute * 60 + second, nanos })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::java_pattern::{Notation, parse};

    fn read_by(pattern: &str, text: &str) -> Option<i64> {
        read(&parse(pattern, Notation::Formatter).unwrap(), text).map(Moment::millis)
    }

    #[test]
    fn numbers_without_anything_between_share_their_digits() {
        assert_eq!(read_by("yyyyMMddHHmmss", "20240229134759"), Some(1_709_214_479_000));
        assert_eq!(read_by("yyyyMMddHHmmssSSS", "20240229134759123"), Some(1_709_214_479_123));
        assert_eq!(read_by("yyyyDDD", "2024060"), Some(1_709_164_800_000));
    }

    #[test]
    fn texts_fit_or_not() {
        assert_eq!(read_by("MMM d, yyyy h:mm a", "Feb 29, 2024 1:05 PM"), Some(1_709_211_900_000));
        assert_eq!(read_by("yyyy-MM-dd HH[:mm]", "2024-02-29 13"), Some(1_709_211_600_000));
        assert_eq!(read_by("EEE yyyy-MM-dd", "Fri 2024-02-29"), None);
        assert_eq!(read_by("yyyy-MM-dd", "2024-02-30"), Some(1_709_164_800_000));
        assert_eq!(read_by("yyyy-MM-dd", "2024-02-32"), None);
        assert_eq!(read_by("yyyy-MM-dd hh:mm", "2024-02-29 13:05"), None);
        assert_eq!(read_by("yyyy", "12024"), None);
    }

    #[test]
    fn the_default_form_is_read() {
        assert_eq!(read_default("2024-2-9 1:2:3.5").map(Moment::millis), Some(1_707_440_523_500));
        assert_eq!(read_default("2024-02-29 24:00:00").map(Moment::millis), Some(1_709_251_200_000));
        for wrong in
            ["2024-02-29T13:47:59", "2024-02-29 13:47", "2024-02-32", "", "12024-01-01", " 2024-02-29", "2024-02-29 "]
        {
            assert_eq!(read_default(wrong), None, "{wrong}");
        }
    }
}
