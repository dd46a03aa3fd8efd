//! Dates of the proleptic Gregorian calendar, for every year that an `i64` of days reaches.
//!
//! The algorithms are Howard Hinnant's, "chrono-Compatible Low-Level Date Algorithms".

/// Days of 400 years, after which the calendar repeats.
const ERA_DAYS: i64 = 146_097;
/// Days from 0000-03-01, where the algorithms count from, to 1970-01-01.
const EPOCH_DAYS: i64 = 719_468;

/// A date that the calendar has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    /// The astronomical year: 0 is 1 BC.
    pub year: i64,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
}

impl Date {
    /// `None` when the calendar has no such date.
    pub fn new(year: i64, month: u32, day: u32) -> Option<Self> {
        let exists = (1..=12).contains(&month) && (1..=days_in_month(year, month)).contains(&day);
        exists.then_some(Date { year, month, day })
    }

    /// The date so many days after 1970-01-01.
    pub fn from_days(days: i64) -> Self {
        let shifted = days + EPOCH_DAYS;
        let era = shifted.div_euclid(ERA_DAYS);
        let day_of_era = shifted.rem_euclid(ERA_DAYS);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let months_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * months_from_march + 2) / 5 + 1;
        let month = if months_from_march < 10 { months_from_march + 3 } else { months_from_march - 9 };
        Date { year: year_of_era + era * 400 + i64::from(month <= 2), month: month as u32, day: day as u32 }
    }

    /// Days from 1970-01-01 to it.
    pub fn days(&self) -> i64 {
        let shifted = self.year - i64::from(self.month <= 2);
        let (era, year_of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
        let months_from_march = i64::from(if self.month > 2 { self.month - 3 } else { self.month + 9 });
        let day_of_year = (153 * months_from_march + 2) / 5 + i64::from(self.day) - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        era * ERA_DAYS + day_of_era - EPOCH_DAYS
    }
}

/// How many days a month (1 to 12) has.
pub fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_are_each_others_inverse() {
        // Days of `date -u -d 2020-02-29 +%s` / 86400, and of the first day of the calendar's year 1 (ISO 8601).
        for (days, (year, month, day)) in [
            (0, (1970, 1, 1)),
            (-1, (1969, 12, 31)),
            (18_321, (2020, 2, 29)),
            (-719_162, (1, 1, 1)),
            (2_932_896, (9999, 12, 31)),
        ] {
            assert_eq!(Date::from_days(days), Date { year, month, day });
            assert_eq!(Date::new(year, month, day).map(|date| date.days()), Some(days));
        }
        for days in (-3_000_000..3_000_000).step_by(17) {
            let date = Date::from_days(days);
            assert_eq!(Date::new(date.year, date.month, date.day), Some(date));
            assert_eq!(date.days(), days);
        }
    }

    #[test]
    fn what_the_calendar_does_not_have_is_no_date() {
        for (year, month, day) in
            [(2021, 2, 29), (1900, 2, 29), (2020, 13, 1), (2020, 0, 1), (2020, 4, 31), (2020, 1, 0)]
        {
            assert_eq!(Date::new(year, month, day), None, "{year}-{month}-{day}");
        }
        assert!(Date::new(2000, 2, 29).is_some());
    }
}
