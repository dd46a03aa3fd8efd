//! Writes a moment by a pattern of Java's (`java_pattern`), in English, with weeks as in the United States (from Sunday; the first has January 1).

use std::fmt::Write as _;

use chrono::{Datelike, NaiveDate, Weekday};

use super::java_pattern::{DAYS, Item, MONTHS, Notation};
use super::moment::Moment;
use super::zone::{Zone, offset_text};

/// The session's zone, for patterns that have one. Timestamps without a zone cannot be written with `Z` and its like.
pub(crate) struct Context {
    pub notation: Notation,
    pub zone: Option<Zone>,
}

/// Appends a local time.
///
/// # Errors
/// A field that the moment does not have.
pub(crate) fn write(out: &mut String, items: &[Item], moment: Moment, context: &Context) -> Result<(), String> {
    let date = moment.date().ok_or("the date is out of range")?;
    let mut width = 0;
    for item in items {
        match item {
            Item::Literal(text) => out.push_str(text),
            Item::Pad(count) => width = *count,
            Item::OptionalStart | Item::OptionalEnd => {}
            Item::Field(letter, count) => {
                let start = out.len();
                field(out, (*letter, *count), moment, date, context)?;
                let missing = width.saturating_sub(out.len() - start);
                out.insert_str(start, &" ".repeat(missing));
                width = 0;
            }
        }
    }
    Ok(())
}

/// A number with at least so many digits. Writing to a text cannot fail.
fn digits(out: &mut String, number: i64, count: usize) {
    let _ = write!(out, "{number:0count$}");
}

/// The name, its first three letters, or its first.
fn name(out: &mut String, name: &str, count: usize) {
    out.push_str(match count {
        1..=3 => &name[..3],
        5 => &name[..1],
        _ => name,
    });
}

fn year(out: &mut String, year: i64, count: usize) {
    match count {
        2 => digits(out, year.rem_euclid(100), 2),
        _ => digits(out, year, count),
    }
}

/// The week of a year, and the year that it belongs to.
fn week_of_year(date: NaiveDate) -> (i64, i64) {
    let first = |year: i32| {
        NaiveDate::from_ymd_opt(year, 1, 1).map_or(0, |first| i64::from(first.weekday().num_days_from_sunday()))
    };
    let year = date.year();
    let days = if date.leap_year() { 366 } else { 365 };
    let to_next = days - i64::from(date.ordinal0());
    if to_next <= first(year + 1) {
        return (1, i64::from(year) + 1);
    }
    ((i64::from(date.ordinal0()) + first(year)) / 7 + 1, i64::from(year))
}

fn week_of_month(date: NaiveDate) -> i64 {
    let first = date.with_day(1).map_or(Weekday::Sun, |first| first.weekday());
    (i64::from(date.day0()) + i64::from(first.num_days_from_sunday())) / 7 + 1
}

fn field(
    out: &mut String,
    (letter, count): (char, usize),
    moment: Moment,
    date: NaiveDate,
    context: &Context,
) -> Result<(), String> {
    let simple = context.notation == Notation::Simple;
    let second = moment.second_of_day();
    let hour = second / 3600;
    let twelve = |hour: i64| if hour % 12 == 0 { 12 } else { hour % 12 };
    let day = DAYS[date.weekday().num_days_from_monday() as usize];
    let from_sunday = i64::from(date.weekday().num_days_from_sunday()) + 1;
    let era_year = if date.year() > 0 { i64::from(date.year()) } else { 1 - i64::from(date.year()) };
    match letter {
        'G' => out.push_str(match (date.year() > 0, count) {
            (true, 4) if !simple => "Anno Domini",
            (true, 5) if !simple => "A",
            (true, _) => "AD",
            (false, 4) if !simple => "Before Christ",
            (false, 5) if !simple => "B",
            (false, _) => "BC",
        }),
        'u' if simple => digits(out, i64::from(date.weekday().number_from_monday()), count),
        'u' => year(out, i64::from(date.year()), count),
        'y' => year(out, era_year, count),
        'Y' => year(out, week_of_year(date).1, count),
        'Q' | 'q' => {
            let quarter = date.month0() / 3;
            match count {
                1 | 2 => digits(out, i64::from(quarter + 1), count),
                3 => out.extend(['Q', ['1', '2', '3', '4'][quarter as usize]]),
                4 => out.push_str(["1st quarter", "2nd quarter", "3rd quarter", "4th quarter"][quarter as usize]),
                _ => digits(out, i64::from(quarter + 1), 1),
            }
        }
        'M' | 'L' if count < 3 => digits(out, i64::from(date.month()), count),
        'M' | 'L' => name(out, MONTHS[date.month0() as usize], if simple && count > 4 { 4 } else { count }),
        'w' => digits(out, week_of_year(date).0, count),
        'W' => digits(out, week_of_month(date), count),
        'd' => digits(out, i64::from(date.day()), count),
        'D' => digits(out, i64::from(date.ordinal()), count),
        'F' if simple => digits(out, i64::from(date.day0() / 7 + 1), count),
        'F' => digits(out, i64::from(date.day0() % 7 + 1), count),
        'e' | 'c' if count < 3 => digits(out, from_sunday, count),
        'E' | 'e' | 'c' => name(out, day, if simple && count > 4 { 4 } else { count }),
        'a' => out.push_str(if hour < 12 { "AM" } else { "PM" }),
        'h' => digits(out, twelve(hour), count),
        'K' => digits(out, hour % 12, count),
        'H' => digits(out, hour, count),
        'k' => digits(out, if hour == 0 { 24 } else { hour }, count),
        'm' => digits(out, second / 60 % 60, count),
        's' => digits(out, second % 60, count),
        'S' if simple => digits(out, i64::from(moment.nanos / 1_000_000), count),
        'S' => {
            let start = out.len();
            digits(out, i64::from(moment.nanos), 9);
            out.truncate(start + count);
        }
        'A' => digits(out, second * 1000 + i64::from(moment.nanos / 1_000_000), count),
        'n' => digits(out, i64::from(moment.nanos), count),
        'N' => digits(out, second * 1_000_000_000 + i64::from(moment.nanos), count),
        'z' | 'Z' | 'X' | 'x' => zone(out, (letter, count), moment, context)?,
        other => return Err(format!("'{other}' cannot be written")),
    }
    Ok(())
}

fn zone(out: &mut String, (letter, count): (char, usize), moment: Moment, context: &Context) -> Result<(), String> {
    let Some(zone) = context.zone else {
        return Err(format!("a timestamp has no time zone, and the pattern asks for one with '{letter}'"));
    };
    let offset = zone.calendar_offset_of_local(moment.seconds);
    let text = |colon: bool| offset_text(offset as i32, colon);
    match (letter, count) {
        ('z', _) => out.push_str(&zone.abbreviation(moment.seconds - offset)),
        ('X', _) if offset == 0 => out.push('Z'),
        ('X', 1) => out.push_str(&text(false)[..3]),
        ('X', 2) | ('Z', _) => out.push_str(&text(false)),
        _ => out.push_str(&text(true)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::java_pattern::parse;

    fn written(pattern: &str, notation: Notation, seconds: i64, nanos: u32) -> String {
        let mut out = String::new();
        let items = parse(pattern, notation).unwrap();
        let context = Context { notation, zone: (notation == Notation::Simple).then_some(Zone::UTC) };
        write(&mut out, &items, Moment { seconds, nanos }, &context).unwrap();
        out
    }

    #[test]
    fn fields_are_those_of_the_two_notations() {
        let at = |pattern| written(pattern, Notation::Formatter, 1_709_214_479, 123_456_789);
        assert_eq!(at("yyyy-MM-dd'T'HH:mm:ss.SSS"), "2024-02-29T13:47:59.123");
        assert_eq!(at("EEE, d MMM yy h:mm a"), "Thu, 29 Feb 24 1:47 PM");
        assert_eq!(at("w W e F D QQQ n N A"), "9 5 5 1 60 Q1 123456789 49679123456789 49679123");
        assert_eq!(written("u Y w SSSS Z z X", Notation::Simple, 0, 0), "4 1970 1 0000 +0000 UTC Z");
        assert_eq!(written("yyyy-MM-dd", Notation::Formatter, -62_135_596_800, 0), "0001-01-01");
    }

    #[test]
    fn weeks_begin_on_sunday_and_belong_to_the_year_of_their_saturday() {
        // 2024-12-29 is a Sunday, and 2025-01-01 is in its week.
        assert_eq!(written("YYYY w", Notation::Formatter, 1_735_430_400, 0), "2025 1");
        assert_eq!(written("YYYY w", Notation::Formatter, 1_735_344_000, 0), "2024 52");
    }
}
