//! Numbers, sizes, spans and bars as people read them.

use coulee_model::Timestamp;
pub use coulee_server::span;

/// `1234567` as `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `2 rows`, `1 row`.
pub fn counted(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(n), if n == 1 { "" } else { "s" })
}

/// Three digits and a unit of thousands: `950`, `12.3 K`, `1.25 M`.
pub fn short(n: f64) -> String {
    let (scaled, unit) = match n.abs() {
        large if large >= 999_500_000.0 => (n / 1e9, " G"),
        large if large >= 999_500.0 => (n / 1e6, " M"),
        large if large >= 999.5 => (n / 1e3, " K"),
        _ => return format!("{n:.0}"),
    };
    format!("{scaled:.*}{unit}", decimals(scaled))
}

/// A size, in powers of 1024: `512 B`, `1.5 MiB`.
pub fn bytes(n: u64) -> String {
    let mut scaled = n as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if scaled < 999.5 {
            let decimals = if unit == "B" { 0 } else { decimals(scaled) };
            return format!("{scaled:.decimals$} {unit}");
        }
        scaled /= 1024.0;
    }
    format!("{scaled:.*} TiB", decimals(scaled))
}

fn decimals(scaled: f64) -> usize {
    match scaled.abs() {
        small if small < 9.995 => 2,
        medium if medium < 99.95 => 1,
        _ => 0,
    }
}

/// A time to the second, in UTC.
pub fn time(at: Timestamp) -> String {
    match at {
        Timestamp::MAX => "end".to_owned(),
        Timestamp::MIN => "none".to_owned(),
        at => at.to_string().chars().take(19).collect(),
    }
}

/// A bar of `width` characters, filled to `share` (0 to 1) in eighths.
pub fn bar(share: f64, width: usize) -> String {
    const PARTS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let eighths = (share.clamp(0.0, 1.0) * width as f64 * 8.0).round() as usize;
    let mut text = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        text.push(PARTS[eighths % 8 - 1]);
    }
    let missing = width - text.chars().count();
    text.push_str(&" ".repeat(missing));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_shortened() {
        let counts = [0, 999, 1_000, 1_234_567].map(count);
        assert_eq!(counts, ["0", "999", "1,000", "1,234,567"]);
        let shortened = [0.0, 999.4, 999.5, 12_345.0, 999_600.0, 1_250_000.0, 3.5e9].map(short);
        assert_eq!(shortened, ["0", "999", "1.00 K", "12.3 K", "1.00 M", "1.25 M", "3.50 G"]);
        assert_eq!([0, 999, 1_536, 5 << 30].map(bytes), ["0 B", "999 B", "1.50 KiB", "5.00 GiB"]);
        assert_eq!(counted(1, "row"), "1 row");
    }

    #[test]
    fn times_are_as_precise_as_they_matter() {
        assert_eq!(time(Timestamp(1_357_035_420_123)), "2013-01-01 10:17:00");
        assert_eq!(time(Timestamp::MAX), "end");
    }

    #[test]
    fn a_bar_keeps_its_width() {
        assert_eq!(bar(0.0, 4), "    ");
        assert_eq!(bar(0.5, 4), "██  ");
        assert_eq!(bar(0.53, 4), "██▏ ");
        assert_eq!(bar(1.7, 4), "████");
    }
}
