//! Numbers from text, exactly: decimals rounded half up (away from zero) as Flink's `DecimalData.fromBigDecimal`, and whole
//! numbers in any notation.

/// A number as written: its digits and where its point is.
struct Written<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

impl<'a> Written<'a> {
    /// Splits `[+-] digits [. digits] [e [+-] digits]`, with at least one digit before the exponent.
    fn parse(text: &'a [u8]) -> Option<Self> {
        let (negative, text) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let (whole, rest) = digits(text);
        let (fraction, rest) = match rest {
            [b'.', rest @ ..] => digits(rest),
            rest => (&rest[..0], rest),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let exponent = match rest {
            [] => 0,
            [b'e' | b'E', rest @ ..] => exponent(rest)?,
            _ => return None,
        };
        Some(Written { negative, whole, fraction, exponent })
    }

    fn digit(&self, index: usize) -> Option<u8> {
        let digit = self.whole.get(index).or_else(|| self.fraction.get(index.checked_sub(self.whole.len())?));
        digit.map(|digit| digit - b'0')
    }

    fn len(&self) -> usize {
        self.whole.len() + self.fraction.len()
    }

    /// The number times ten to `scale`, without its sign: the whole part, and whether the rest is half or more, and not zero.
    /// `None` when the whole part has more than 38 digits.
    fn scaled(&self, scale: i64) -> Option<(u128, bool, bool)> {
        const LIMIT: u128 = 10u128.pow(38);
        let kept = (self.whole.len() as i64).saturating_add(self.exponent).saturating_add(scale);
        let mut value = 0u128;
        for index in 0..usize::try_from(kept).unwrap_or(0) {
            match self.digit(index) {
                Some(digit) => value = value * 10 + u128::from(digit),
                // Only zeros follow, and zero stays zero.
                None if value == 0 => break,
                None => value *= 10,
            }
            if value >= LIMIT {
                return None;
            }
        }
        let first = usize::try_from(kept).unwrap_or(0);
        let half = kept >= 0 && self.digit(first).is_some_and(|digit| digit >= 5);
        let rest = (first..self.len()).any(|index| self.digit(index) != Some(0));
        Some((value, half, rest))
    }
}

fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().take_while(|byte| byte.is_ascii_digit()).count())
}

fn exponent(text: &[u8]) -> Option<i64> {
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let all_digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let value = text.iter().fold(0i64, |value, digit| value.saturating_mul(10).saturating_add(i64::from(digit & 15)));
    // Far beyond any number that fits, and far from where sums overflow.
    let value = value.min(1 << 40);
    all_digits.then_some(if negative { -value } else { value })
}

/// The unscaled value of a `DECIMAL(precision, scale)`, further digits rounded half up, away from zero.
/// `None` for a text that is no number, and for a number with more digits than the precision.
pub fn parse_decimal(text: &[u8], precision: u8, scale: i8) -> Option<i128> {
    let written = Written::parse(text)?;
    let (value, half, _) = written.scaled(i64::from(scale))?;
    let value = value + u128::from(half);
    if value >= 10u128.pow(u32::from(precision.min(38))) {
        return None;
    }
    let value = i128::try_from(value).ok()?;
    Some(if written.negative { -value } else { value })
}

/// A whole number in any notation: `12`, `12.0`, `1.2e1`. `None` for any other, and for one that does not fit.
#[inline]
pub fn parse_whole(text: &str) -> Option<i64> {
    match text.parse() {
        Ok(value) => Some(value),
        Err(_) => whole_with_point(text.as_bytes()),
    }
}

#[cold]
fn whole_with_point(text: &[u8]) -> Option<i64> {
    let written = Written::parse(text)?;
    let (value, _, rest) = written.scaled(0)?;
    let value = i128::try_from(value).ok().filter(|_| !rest)?;
    i64::try_from(if written.negative { -value } else { value }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected by Python's `decimal` with `ROUND_HALF_UP`.
    #[test]
    fn digits_beyond_the_scale_are_rounded_half_up() {
        for (text, expected) in [
            ("19.999", Some(2000)),
            ("2.345", Some(235)),
            ("-2.345", Some(-235)),
            ("0.004", Some(0)),
            ("0.005", Some(1)),
            ("-0.005", Some(-1)),
            ("0.0049999", Some(0)),
            ("0.00499e1", Some(5)),
            ("1e-3", Some(0)),
            ("5e-3", Some(1)),
            ("5e-4", Some(0)),
            ("1.5E2", Some(15000)),
            ("+1.", Some(100)),
            (".5", Some(50)),
            ("-0", Some(0)),
            ("99999999.99", Some(9_999_999_999)),
            ("99999999.994", Some(9_999_999_999)),
            ("99999999.995", None),
            ("100000000", None),
            ("1e400", None),
            ("1e-400", Some(0)),
            ("0e999999999999999999999", Some(0)),
            ("1e999999999999999999999", None),
            ("1e-999999999999999999999", Some(0)),
            ("0000000000000000000000000000000000000000000001.1", Some(110)),
            ("", None),
            (".", None),
            ("-", None),
            ("1e", None),
            ("1e+", None),
            ("1.2.3", None),
            ("1 ", None),
            ("NaN", None),
            ("0x10", None),
        ] {
            assert_eq!(parse_decimal(text.as_bytes(), 10, 2), expected, "{text}");
        }
        let nines = "9".repeat(38);
        assert_eq!(parse_decimal(nines.as_bytes(), 38, 0), nines.parse().ok());
        assert_eq!(parse_decimal(format!("{nines}.5").as_bytes(), 38, 0), None);
        assert_eq!(parse_decimal(b"0.5", 1, 0), Some(1));
        assert_eq!(parse_decimal(b"0.05", 38, 38), Some(5 * 10i128.pow(36)));
    }

    #[test]
    fn whole_numbers_may_be_written_with_a_point_or_an_exponent() {
        for (text, expected) in [
            ("12", Some(12)),
            ("12.0", Some(12)),
            ("1.2e1", Some(12)),
            ("120e-1", Some(12)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("-9223372036854775808.000", Some(i64::MIN)),
            ("9.223372036854775807e18", Some(i64::MAX)),
            ("9.223372036854775808e18", None),
            ("1e18", Some(1_000_000_000_000_000_000)),
            ("1e19", None),
            ("-0.0", Some(0)),
            ("0.1", None),
            ("1e-1", None),
            ("", None),
            ("e1", None),
        ] {
            assert_eq!(parse_whole(text), expected, "{text}");
        }
    }
}
