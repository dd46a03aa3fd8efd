//! Time zones: the session's, and those that SQL names.

use chrono::{DateTime, NaiveDateTime, Offset, TimeDelta, TimeZone};
use chrono_tz::{OffsetName, Tz};

/// A time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Zone {
    /// So many seconds east of Greenwich.
    Fixed(i32),
    Named(Tz),
}

/// Java's three-letter names that the time zone database does not have (or has with another meaning).
const SHORT: &[(&str, &str)] = &[
    ("ACT", "Australia/Darwin"),
    ("AET", "Australia/Sydney"),
    ("AGT", "America/Argentina/Buenos_Aires"),
    ("ART", "Africa/Cairo"),
    ("AST", "America/Anchorage"),
    ("BET", "America/Sao_Paulo"),
    ("BST", "Asia/Dhaka"),
    ("CAT", "Africa/Harare"),
    ("CNT", "America/St_Johns"),
    ("CST", "America/Chicago"),
    ("CTT", "Asia/Shanghai"),
    ("EAT", "Africa/Addis_Ababa"),
    ("ECT", "Europe/Paris"),
    ("IET", "America/Indiana/Indianapolis"),
    ("IST", "Asia/Kolkata"),
    ("JST", "Asia/Tokyo"),
    ("MIT", "Pacific/Apia"),
    ("NET", "Asia/Yerevan"),
    ("NST", "Pacific/Auckland"),
    ("PLT", "Asia/Karachi"),
    ("PNT", "America/Phoenix"),
    ("PRT", "America/Puerto_Rico"),
    ("PST", "America/Los_Angeles"),
    ("SST", "Pacific/Guadalcanal"),
    ("VST", "Asia/Ho_Chi_Minh"),
];

impl Zone {
    pub const UTC: Zone = Zone::Fixed(0);

    /// A zone by a name that Java knows: `Europe/Berlin`, `PST`, `GMT+8`, `GMT-08:00`.
    pub fn named(name: &str) -> Option<Self> {
        if matches!(name, "UTC" | "GMT" | "Z" | "UT") {
            return Some(Zone::UTC);
        }
        if let Some(offset) = ["GMT", "UTC"].iter().find_map(|start| name.strip_prefix(start)) {
            return parse_offset(offset).map(Zone::Fixed);
        }
        let long = SHORT.iter().find(|(short, _)| *short == name).map_or(name, |(_, long)| long);
        long.parse().ok().map(Zone::Named)
    }

    /// `+08:00`.
    pub fn of_offset(text: &str) -> Option<Self> {
        parse_offset(text).map(Zone::Fixed)
    }

    /// Seconds that local time is ahead of UTC at an instant.
    pub fn offset_at(&self, seconds: i64) -> i64 {
        match self {
            Zone::Fixed(offset) => i64::from(*offset),
            Zone::Named(zone) => DateTime::from_timestamp(seconds, 0)
                .map_or(0, |at| i64::from(zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc())),
        }
    }

    /// The same at a local time: the earlier offset where clocks were put back, the one before where they were put forward.
    pub fn offset_of_local(&self, seconds: i64) -> i64 {
        self.local(seconds, true)
    }

    /// The same, but the later offset where clocks were put back: that of Java's `Calendar`.
    pub fn calendar_offset_of_local(&self, seconds: i64) -> i64 {
        self.local(seconds, false)
    }

    fn local(&self, seconds: i64, earlier: bool) -> i64 {
        let Zone::Named(zone) = self else { return self.offset_at(seconds) };
        let Some(local) = DateTime::from_timestamp(seconds, 0).map(|at| at.naive_utc()) else { return 0 };
        let found = zone.offset_from_local_datetime(&local);
        let offset = if earlier { found.earliest() } else { found.latest() };
        let before = || zone.offset_from_utc_datetime(&(local - TimeDelta::days(1)));
        i64::from(offset.unwrap_or_else(before).fix().local_minus_utc())
    }

    /// The zone's short name at an instant: `CET`, `GMT-08:00`.
    pub fn abbreviation(&self, seconds: i64) -> String {
        match self {
            Zone::Fixed(0) => "UTC".to_owned(),
            Zone::Fixed(offset) => format!("GMT{}", offset_text(*offset, true)),
            Zone::Named(zone) => {
                let at: NaiveDateTime =
                    DateTime::from_timestamp(seconds, 0).map(|at| at.naive_utc()).unwrap_or_default();
                let offset = zone.offset_from_utc_datetime(&at);
                offset.abbreviation().map_or_else(|| zone.name().to_owned(), str::to_owned)
            }
        }
    }
}

/// `+8`, `-08:00`, `+0530` in seconds.
pub(crate) fn parse_offset(text: &str) -> Option<i32> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+')?),
    };
    let (hours, minutes) = match digits.split_once(':') {
        Some((hours, minutes)) if minutes.len() == 2 => (hours, minutes),
        Some(_) => return None,
        None if digits.len() > 2 => digits.split_at(digits.len() - 2),
        None => (digits, "0"),
    };
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// `+0800`, or `+08:00`.
pub(crate) fn offset_text(offset: i32, colon: bool) -> String {
    let sign = if offset < 0 { '-' } else { '+' };
    let minutes = offset.abs() / 60;
    format!("{sign}{:02}{}{:02}", minutes / 60, if colon { ":" } else { "" }, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_have_javas_names() {
        assert_eq!(Zone::named("GMT-08:00"), Some(Zone::Fixed(-28_800)));
        assert_eq!(Zone::named("GMT+8"), Some(Zone::Fixed(28_800)));
        assert_eq!(Zone::named("PST"), Some(Zone::Named(Tz::America__Los_Angeles)));
        assert_eq!(Zone::named("nonsense"), None);
        assert_eq!(Zone::named("+08:00"), None);
    }

    #[test]
    fn gaps_and_overlaps_have_an_offset() {
        let berlin = Zone::named("Europe/Berlin").unwrap();
        // 2024-03-31 02:30 does not exist; 2024-10-27 02:30 is there twice.
        assert_eq!(berlin.calendar_offset_of_local(1_711_852_200), 3600);
        assert_eq!(berlin.calendar_offset_of_local(1_729_996_200), 3600);
        assert_eq!(berlin.offset_of_local(1_729_996_200), 7200);
    }
}
