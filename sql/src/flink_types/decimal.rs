//! Decimals as 128-bit numbers with a scale: rescaling with rounding half up, and conversion to and from floating numbers.
//!
//! Every operation gives `None` when the result has more digits than its type.

use arrow::datatypes::i256;
use datafusion_expr::Operator;

/// The most digits a decimal has.
pub(crate) const PRECISION_MAX: u8 = 38;

/// 10 to the power of `exponent`, which is at most 38.
pub(crate) fn power(exponent: u32) -> i128 {
    10_i128.pow(exponent.min(38))
}

/// Whether a number has at most `precision` digits.
pub(crate) fn fits(value: i128, precision: u8) -> bool {
    value.unsigned_abs() < power(u32::from(precision)).unsigned_abs()
}

/// The quotient, rounded half away from zero.
pub(crate) fn divide_half_up(value: i128, divisor: i128) -> i128 {
    let (quotient, remainder) = (value / divisor, value % divisor);
    if remainder.unsigned_abs() >= divisor.unsigned_abs().div_ceil(2) {
        quotient + if (value < 0) == (divisor < 0) { 1 } else { -1 }
    } else {
        quotient
    }
}

/// A number of one scale in another scale, rounded half up.
pub(crate) fn rescale(value: i128, from: i8, to: i8, precision: u8) -> Option<i128> {
    let difference = i32::from(to) - i32::from(from);
    let rescaled = match u32::try_from(difference) {
        Ok(more) if more > 38 && value == 0 => 0,
        Ok(more) if more > 38 => return None,
        Ok(more) => value.checked_mul(power(more))?,
        Err(_) if difference < -38 => 0,
        Err(_) => divide_half_up(value, power(difference.unsigned_abs())),
    };
    fits(rescaled, precision).then_some(rescaled)
}

/// The same for a number of 256 bits: a product or a dividend.
pub(crate) fn rescale_wide(value: i256, from: i32, to: i32, precision: u8) -> Option<i128> {
    let rescaled = if to >= from {
        value.checked_mul(wide_power((to - from).unsigned_abs())?)?
    } else {
        match wide_power((from - to).unsigned_abs()) {
            Some(divisor) => divide_wide_half_up(value, divisor)?,
            None => i256::ZERO,
        }
    };
    rescaled.to_i128().filter(|value| fits(*value, precision))
}

/// 10 to the power of `exponent` in 256 bits.
pub(crate) fn wide_power(exponent: u32) -> Option<i256> {
    i256::from_i128(10).checked_pow(exponent)
}

/// The quotient, rounded half away from zero; `None` for a divisor of zero.
pub(crate) fn divide_wide_half_up(value: i256, divisor: i256) -> Option<i256> {
    let quotient = value.checked_div(divisor)?;
    let remainder = value.checked_rem(divisor)?;
    let twice = remainder.wrapping_abs().checked_mul(i256::from_i128(2))?;
    if twice >= divisor.wrapping_abs() {
        let step = if value.is_negative() == divisor.is_negative() { i256::ONE } else { i256::MINUS_ONE };
        return quotient.checked_add(step);
    }
    Some(quotient)
}

/// A number divided by a count, in another scale that is not smaller, rounded half up.
pub(crate) fn rescale_wide_quotient(value: i256, count: i64, from: i8, to: i8, precision: u8) -> Option<i128> {
    let raised = value.checked_mul(wide_power(u32::try_from(i32::from(to) - i32::from(from)).ok()?)?)?;
    let quotient = divide_wide_half_up(raised, i256::from_i128(i128::from(count)))?;
    quotient.to_i128().filter(|value| fits(*value, precision))
}

/// Why there is no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    DivisionByZero,
    /// The result has more digits than its type.
    Overflow,
}

/// An operator on two decimals, with what does not change from row to row.
#[derive(Debug)]
pub(crate) struct Operation {
    op: Operator,
    pub left_scale: i8,
    pub right_scale: i8,
    precision: u8,
    scale: i8,
    /// What raises each side to the result's scale.
    left_factor: i128,
    right_factor: i128,
    /// The first number with too many digits.
    limit: i128,
    /// Whether 128 bits do and nothing has to be rounded.
    is_quick: bool,
}

impl Operation {
    /// `result` is precision and scale.
    pub fn new(op: Operator, left_scale: i8, right_scale: i8, result: (u8, i8)) -> Self {
        let (precision, scale) = result;
        let factor = |from: i8| power(u32::from((scale.max(from) - from).unsigned_abs()));
        let is_quick = match op {
            Operator::Plus | Operator::Minus => scale >= left_scale && scale >= right_scale,
            Operator::Multiply => scale == left_scale + right_scale,
            _ => false,
        };
        Operation {
            op,
            left_scale,
            right_scale,
            precision,
            scale,
            left_factor: factor(left_scale),
            right_factor: factor(right_scale),
            limit: power(u32::from(precision)),
            is_quick,
        }
    }

    /// The result of one row.
    pub fn compute(&self, left: i128, right: i128) -> Result<i128, Failure> {
        if right == 0 && matches!(self.op, Operator::Divide | Operator::Modulo) {
            return Err(Failure::DivisionByZero);
        }
        let quick = if self.is_quick { self.quick(left, right) } else { None };
        quick.or_else(|| self.wide(left, right)).ok_or(Failure::Overflow)
    }

    fn quick(&self, left: i128, right: i128) -> Option<i128> {
        let value = match self.op {
            Operator::Plus => left.checked_mul(self.left_factor)?.checked_add(right.checked_mul(self.right_factor)?)?,
            Operator::Minus => {
                left.checked_mul(self.left_factor)?.checked_sub(right.checked_mul(self.right_factor)?)?
            }
            _ => left.checked_mul(right)?,
        };
        (value.unsigned_abs() < self.limit.unsigned_abs()).then_some(value)
    }

    /// In 256 bits, rounded half up at the end.
    fn wide(&self, left: i128, right: i128) -> Option<i128> {
        let (left_scale, right_scale) = (i32::from(self.left_scale), i32::from(self.right_scale));
        let (left, right) = (i256::from_i128(left), i256::from_i128(right));
        let both = left_scale.max(right_scale);
        let raised = |value: i256, from: i32| value.checked_mul(wide_power((both - from).unsigned_abs())?);
        let (value, from) = match self.op {
            Operator::Plus => (raised(left, left_scale)?.checked_add(raised(right, right_scale)?)?, both),
            Operator::Minus => (raised(left, left_scale)?.checked_sub(raised(right, right_scale)?)?, both),
            Operator::Multiply => (left.checked_mul(right)?, left_scale + right_scale),
            Operator::Divide => {
                let exponent = i32::from(self.scale) + right_scale - left_scale;
                let factor = wide_power(exponent.unsigned_abs())?;
                let quotient = if exponent >= 0 {
                    divide_wide_half_up(left.checked_mul(factor)?, right)?
                } else {
                    divide_wide_half_up(left, right.checked_mul(factor)?)?
                };
                (quotient, i32::from(self.scale))
            }
            _ => (raised(left, left_scale)?.checked_rem(raised(right, right_scale)?)?, both),
        };
        rescale_wide(value, from, i32::from(self.scale), self.precision)
    }
}

/// The nearest floating number.
pub(crate) fn to_double(value: i128, scale: i8) -> f64 {
    let scale = u32::try_from(scale).unwrap_or(0);
    // Both numbers are exact, so the one division rounds correctly.
    if value.unsigned_abs() < 1 << 53 && scale <= 22 {
        return value as f64 / 10_f64.powi(scale as i32);
    }
    format!("{value}e-{scale}").parse().unwrap_or(f64::NAN)
}

/// The decimal that a number's shortest text says, rounded half up; `None` for what is no number or has too many digits.
pub(crate) fn from_double(value: f64, precision: u8, scale: i8) -> Option<i128> {
    if !value.is_finite() {
        return None;
    }
    parse(&format!("{value:e}"), precision, scale)
}

/// Reads `[+-]digits[.digits][e[+-]digits]`, rounded half up to the scale.
pub(crate) fn parse(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (is_negative, mantissa) = match mantissa.as_bytes().first()? {
        b'-' => (true, &mantissa[1..]),
        b'+' => (false, &mantissa[1..]),
        _ => (false, mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.len() + fraction.len() == 0 || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|byte| byte - b'0').collect();
    // The digit at index `point` is the first behind the point.
    let point = i64::try_from(whole.len()).ok()? + i64::from(exponent);
    let end = point + i64::from(scale);
    let mut value: i128 = 0;
    for at in 0..end.max(0) {
        let digit = usize::try_from(at).ok().and_then(|at| digits.get(at)).copied();
        if digit.is_none() && value == 0 {
            break;
        }
        value = value.checked_mul(10)?.checked_add(i128::from(digit.unwrap_or(0)))?;
    }
    let next = usize::try_from(end).ok().and_then(|at| digits.get(at)).copied().unwrap_or(0);
    if next >= 5 {
        value += 1;
    }
    let value = if is_negative { -value } else { value };
    fits(value, precision).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_half_away_from_zero() {
        assert_eq!(rescale(1_995, 3, 2, 10), Some(200));
        assert_eq!(rescale(-1_995, 3, 2, 10), Some(-200));
        assert_eq!(rescale(1_994, 3, 2, 10), Some(199));
        assert_eq!(rescale(5, 0, 38, 38), None);
        assert_eq!(rescale(0, 0, 38, 38), Some(0));
        assert_eq!(rescale(99_995, 3, 2, 4), None);
        assert_eq!(divide_half_up(7, 3), 2);
        assert_eq!(divide_half_up(8, 3), 3);
    }

    #[test]
    fn text_is_read_to_the_scale() {
        assert_eq!(parse("1.005", 10, 2), Some(101));
        assert_eq!(parse("-1.005", 10, 2), Some(-101));
        assert_eq!(parse("12e-1", 10, 2), Some(120));
        assert_eq!(parse("1e9", 10, 2), None);
        assert_eq!(parse("0e99", 10, 2), Some(0));
        assert_eq!(parse(".5", 10, 0), Some(1));
        assert_eq!(parse("5.", 10, 0), Some(5));
        assert_eq!(parse("", 10, 0), None);
        assert_eq!(parse("1_0", 10, 0), None);
        assert_eq!(parse("0.00001", 10, 2), Some(0));
        assert_eq!(from_double(1.005, 10, 2), Some(101));
        assert_eq!(from_double(1e-7, 10, 7), Some(1));
    }

    #[test]
    fn the_nearest_double_is_found() {
        assert_eq!(to_double(1, 1), 0.1);
        assert_eq!(to_double(123_456_789_012_345_678_901_234_567_890, 10), 12345678901234567890.123456789);
    }
}
