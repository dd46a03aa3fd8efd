//! Reads text by a pattern of `SimpleDateFormat`, leniently as it does: month 13 is next January, and what follows the text is ignored.

use super::java_pattern::{DAYS, Item, MONTHS};
use super::moment::{Moment, date_of, days_of};
use super::zone::{Zone, parse_offset};
use chrono::NaiveDate;

/// What was read.
struct Fields {
    year: i64,
    month: i64,
    day: i64,
    day_of_year: Option<i64>,
    hour: i64,
    half_hour: Option<i64>,
    afternoon: bool,
    minute: i64,
    second: i64,
    millis: i64,
    /// Seconds ahead of UTC, if the text says so.
    offset: Option<i64>,
}

/// The instant that a text says at its front, in a zone unless it has its own; nothing if it does not fit.
pub(crate) fn read(items: &[Item], mut text: &str, zone: Zone) -> Option<Moment> {
    let mut fields = Fields {
        year: 1970,
        month: 1,
        day: 1,
        day_of_year: None,
        hour: 0,
        half_hour: None,
        afternoon: false,
        minute: 0,
        second: 0,
        millis: 0,
        offset: None,
    };
    for (at, item) in items.iter().enumerate() {
        text = match item {
            Item::Literal(literal) => text.strip_prefix(literal.as_str())?,
            Item::Field(letter, count) => {
                let joined = matches!(items.get(at + 1), Some(Item::Field(letter, _)) if is_number(*letter));
                read_field((*letter, *count), joined, text, &mut fields)?
            }
            _ => return None,
        };
    }
    let local = fields.local()?;
    let offset = fields.offset.unwrap_or_else(|| zone.calendar_offset_of_local(local.seconds));
    Some(local.shifted(-offset))
}

fn is_number(letter: char) -> bool {
    !"GEazZX".contains(letter)
}

/// A number at the front of a text, and how many digits it has.
fn number(text: &str, most: usize) -> Option<(i64, usize, &str)> {
    let (sign, unsigned) = text.strip_prefix('-').map_or((1, text), |unsigned| (-1, unsigned));
    let length = unsigned.bytes().take_while(u8::is_ascii_digit).count().min(most);
    let number: i64 = unsigned[..length].parse().ok()?;
    Some((sign * number, length, &unsigned[length..]))
}

fn named<'t>(text: &'t str, names: &[&str]) -> Option<(i64, &'t str)> {
    let starts = |name: &str| text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    let index = names.iter().position(|name| starts(&name[..3]))?;
    let length = if starts(names[index]) { names[index].len() } else { 3 };
    Some((index as i64, &text[length..]))
}

/// Reads one field; if another number follows directly, it takes no more digits than its letters.
fn read_field<'t>((letter, count): (char, usize), joined: bool, text: &'t str, fields: &mut Fields) -> Option<&'t str> {
    let text = text.trim_start_matches([' ', '\t']);
    if matches!(letter, 'M' | 'L') && count >= 3 {
        let (month, rest) = named(text, &MONTHS)?;
        fields.month = month + 1;
        return Some(rest);
    }
    match letter {
        'E' => return named(text, &DAYS).map(|(_, rest)| rest),
        'a' => {
            let (half, rest) = (text.get(..2)?, &text[2..]);
            fields.afternoon = half.eq_ignore_ascii_case("PM");
            return (fields.afternoon || half.eq_ignore_ascii_case("AM")).then_some(rest);
        }
        'G' => return text.strip_prefix("AD"),
        'z' | 'Z' | 'X' => return read_zone(letter, text, fields),
        _ => {}
    }
    let (value, length, rest) = number(text, if joined { count } else { 19 })?;
    match letter {
        // Two digits are a year of this century.
        'y' | 'Y' if count <= 2 && length == 2 => fields.year = 2000 + value,
        'y' | 'Y' => fields.year = value,
        'M' | 'L' => fields.month = value,
        'd' => fields.day = value,
        'D' => fields.day_of_year = Some(value),
        'H' => fields.hour = value,
        'k' => fields.hour = if value == 24 { 0 } else { value },
        'h' => fields.half_hour = Some(if value == 12 { 0 } else { value }),
        'K' => fields.half_hour = Some(value),
        'm' => fields.minute = value,
        's' => fields.second = value,
        'S' => fields.millis = value,
        _ => {}
    }
    Some(rest)
}

fn read_zone<'t>(letter: char, text: &'t str, fields: &mut Fields) -> Option<&'t str> {
    if letter == 'X'
        && let Some(rest) = text.strip_prefix('Z')
    {
        fields.offset = Some(0);
        return Some(rest);
    }
    if text.starts_with(['+', '-']) {
        let length = 1 + text[1..].bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b':').count();
        // `X` alone is a number of hours.
        let length = if letter == 'X' { length.min(3) } else { length };
        fields.offset = Some(i64::from(parse_offset(&text[..length])?));
        return Some(&text[length..]);
    }
    let length = text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || b"/_+-:".contains(byte)).count();
    let zone = Zone::named(&text[..length]).filter(|_| letter != 'X')?;
    fields.offset = Some(zone.offset_at(0));
    Some(&text[length..])
}

impl Fields {
    fn local(&self) -> Option<Moment> {
        let months = self.year.checked_mul(12)?.checked_add(self.month.checked_sub(1)?)?;
        let year = i32::try_from(months.div_euclid(12)).ok()?;
        let month = u32::try_from(months.rem_euclid(12)).ok()? + 1;
        let days = match self.day_of_year {
            Some(day) => {
                days_of(NaiveDate::from_ymd_opt(i32::try_from(self.year).ok()?, 1, 1)?).checked_add(day - 1)?
            }
            None => days_of(NaiveDate::from_ymd_opt(year, month, 1)?).checked_add(self.day.checked_sub(1)?)?,
        };
        date_of(days)?;
        let hour = self.half_hour.map_or(self.hour, |hour| hour + if self.afternoon { 12 } else { 0 });
        let part = |value: i64, seconds: i64| value.checked_mul(seconds);
        let seconds = part(days, 86_400)?
            .checked_add(part(hour, 3600)?)?
            .checked_add(part(self.minute, 60)?)?
            .checked_add(self.second)?;
        let fraction = Moment::of_millis(self.millis);
        Some(Moment { seconds: seconds.checked_add(fraction.seconds)?, nanos: fraction.nanos })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::java_pattern::{Notation, parse};

    fn read_by(pattern: &str, text: &str) -> Option<i64> {
        read(&parse(pattern, Notation::Simple).unwrap(), text, Zone::UTC).map(Moment::millis)
    }

    #[test]
    fn what_is_too_much_rolls_over() {
        assert_eq!(read_by("yyyy-MM-dd", "2024-02-30"), Some(1_709_251_200_000));
        assert_eq!(read_by("yyyy-MM-dd", "2024-13-01"), Some(1_735_689_600_000));
        assert_eq!(read_by("yyyy-MM-dd", "2024-02-29x"), Some(1_709_164_800_000));
        assert_eq!(read_by("yyyyDDD", "2024060"), Some(1_709_164_800_000));
        assert_eq!(read_by("yyyy-MM-dd", "nonsense"), None);
    }

    #[test]
    fn a_zone_in_the_text_counts() {
        assert_eq!(read_by("yyyy-MM-dd HH:mm:ss.SSS X", "1970-01-01 08:00:01.001 +0800"), Some(1_001));
        assert_eq!(read_by("yyyy-MM-dd HH:mm:ss Z", "1970-01-01 08:00:01 +0800"), Some(1_000));
        assert_eq!(read_by("yyyy-MM-dd HH:mm:ss.SSS X", "1970-01-01 08:00:01.001"), None);
    }
}
