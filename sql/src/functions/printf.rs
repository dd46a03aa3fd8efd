//! `PRINTF`: text by a format of Java's `String.format`. A format that does not fit its values gives null, as in Flink.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type};
use datafusion_common::{Result, exec_err};

use super::call::Call;
use super::definition::Kind::Text;
use super::definition::{Function, Nulls, Takes, gives, is_text};
use super::json::{decimal_text, double_text};

pub(crate) static PRINTF: &[Function] = &[Function::new(
    "PRINTF",
    "PRINTF(format, value, …)",
    "text by a format of Java's (%s, %d, %x, %f, %e, %b): PRINTF('%s has %05.1f', 'a', 2.25) = 'a has 002.3'",
    Takes::Own(|types| {
        let (format, values) = types.split_first()?;
        let fits = |given: &&DataType| {
            is_text(given)
                || given.is_integer()
                || given.is_floating()
                || matches!(given, DataType::Null | DataType::Boolean | DataType::Decimal128(..))
        };
        let values = values.iter().map(|given| Some(given).filter(fits).cloned()).collect::<Option<Vec<_>>>()?;
        Some([vec![Text.convert(format)?], values].concat())
    }),
    gives::text,
    Nulls::Own,
    printf,
)];

/// A value to be printed.
enum Value<'a> {
    Null,
    Text(&'a str),
    Bool(bool),
    /// With the number of bits of its type.
    Whole(i64, u32),
    /// Sign, digits, and how many of them stand behind the point; and its text for `%s`.
    Fraction(bool, String, i64, String),
}

fn value(column: &ArrayRef, at: usize) -> Result<Value<'_>> {
    if column.is_null(at) {
        return Ok(Value::Null);
    }
    macro_rules! whole {
        ($type:ty, $bits:literal) => {
            Value::Whole(i64::from(column.as_primitive::<$type>().value(at)), $bits)
        };
    }
    Ok(match column.data_type() {
        DataType::Utf8 => Value::Text(column.as_string::<i32>().value(at)),
        DataType::Boolean => Value::Bool(column.as_boolean().value(at)),
        DataType::Int8 => whole!(Int8Type, 8),
        DataType::Int16 => whole!(Int16Type, 16),
        DataType::Int32 => whole!(Int32Type, 32),
        DataType::Int64 => whole!(Int64Type, 64),
        DataType::Float32 => {
            let number = column.as_primitive::<Float32Type>().value(at);
            double(f64::from(number), &format!("{number:e}"))
        }
        DataType::Float64 => {
            let number = column.as_primitive::<Float64Type>().value(at);
            double(number, &format!("{number:e}"))
        }
        DataType::Decimal128(_, scale) => {
            let number = column.as_primitive::<Decimal128Type>().value(at);
            let (digits, scale) = (number.unsigned_abs().to_string(), i64::from(*scale));
            let text = decimal_text(number < 0, &digits, scale);
            Value::Fraction(number < 0, digits, scale, text)
        }
        other => return exec_err!("PRINTF does not take {other}"),
    })
}

fn double(number: f64, shortest: &str) -> Value<'static> {
    let (Some(text), Some((mantissa, exponent))) = (double_text(number, shortest), shortest.split_once('e')) else {
        // Without digits: only %s prints it.
        let text = if number.is_nan() {
            "NaN"
        } else if number > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        };
        return Value::Fraction(number < 0.0, String::new(), 0, text.to_owned());
    };
    let exponent: i64 = exponent.parse().unwrap_or(0);
    let mantissa = mantissa.trim_start_matches('-');
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    // Double.toString writes the exponent without a plus.
    let text = text.replace("E+", "E");
    Value::Fraction(number.is_sign_negative(), format!("{whole}{fraction}"), fraction.len() as i64 - exponent, text)
}

/// `%[index$][flags][width][.precision]conversion`.
struct Spec {
    index: Option<usize>,
    flags: String,
    width: usize,
    precision: Option<usize>,
    conversion: char,
}

impl Spec {
    fn has(&self, flag: char) -> bool {
        self.flags.contains(flag)
    }
}

/// Reads a specification behind its `%`, and gives what follows.
fn spec(text: &str) -> Option<(Spec, &str)> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let (mut index, mut rest) = (None, text);
    let length = digits(rest);
    if length > 0 && rest[length..].starts_with('$') {
        index = Some(rest[..length].parse().ok()?);
        rest = &rest[length + 1..];
    }
    let length = rest.bytes().take_while(|byte| b"-#+ 0,(".contains(byte)).count();
    let (flags, mut rest) = rest.split_at(length);
    let length = digits(rest);
    let width: usize = if length > 0 { rest[..length].parse().ok()? } else { 0 };
    rest = &rest[length..];
    let mut precision = None;
    if let Some(behind) = rest.strip_prefix('.') {
        let length = digits(behind);
        precision = Some(behind[..length].parse().ok()?);
        rest = &behind[length..];
    }
    let conversion = rest.chars().next()?;
    let spec = Spec { index, flags: flags.to_owned(), width, precision, conversion };
    // What a hostile format asks for is not made.
    let is_sane = width <= 10_000 && spec.precision.unwrap_or(0) <= 1_000;
    is_sane.then_some((spec, &rest[conversion.len_utf8()..]))
}

fn printf(call: &Call<'_>) -> Result<ArrayRef> {
    let formats = call.texts(0)?;
    let columns = (1..call.len()).map(|index| call.raw(index)).collect::<Result<Vec<_>>>()?;
    call.try_text_rows(|row, out| {
        let Some(format) = formats.get(row) else { return Ok(None) };
        let mut values = Vec::with_capacity(columns.len());
        for (index, column) in columns.iter().enumerate() {
            values.push(value(column, call.at(index + 1, row))?);
        }
        Ok(print(out, format, &values))
    })
}

fn print(out: &mut String, format: &str, values: &[Value<'_>]) -> Option<()> {
    let (mut rest, mut next) = (format, 0);
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let (spec, behind) = spec(&rest[at + 1..])?;
        rest = behind;
        let text = match spec.conversion {
            '%' => "%".to_owned(),
            'n' => "\n".to_owned(),
            _ => {
                let index = spec.index.map_or(next, |index| index.wrapping_sub(1));
                next += usize::from(spec.index.is_none());
                converted(&spec, values.get(index)?)?
            }
        };
        let missing = spec.width.saturating_sub(text.chars().count());
        if spec.has('-') {
            out.push_str(&text);
            out.push_str(&" ".repeat(missing));
        } else {
            out.push_str(&" ".repeat(missing));
            out.push_str(&text);
        }
    }
    out.push_str(rest);
    Some(())
}

fn converted(spec: &Spec, value: &Value<'_>) -> Option<String> {
    let text = match (spec.conversion, value) {
        ('b' | 'B', Value::Bool(value)) => cut(spec, &value.to_string()),
        ('b' | 'B', value) => cut(spec, if matches!(value, Value::Null) { "false" } else { "true" }),
        ('s' | 'S' | 'd' | 'x' | 'X' | 'o' | 'f' | 'e' | 'E', Value::Null) => cut(spec, "null"),
        ('s' | 'S', Value::Text(text)) => cut(spec, text),
        ('s' | 'S', Value::Bool(value)) => cut(spec, &value.to_string()),
        ('s' | 'S', Value::Whole(number, _)) => cut(spec, &number.to_string()),
        ('s' | 'S', Value::Fraction(.., text)) => cut(spec, text),
        ('d', Value::Whole(number, _)) if spec.precision.is_none() => {
            signed(spec, *number < 0, &grouped(spec, &number.unsigned_abs().to_string()))
        }
        ('x' | 'X' | 'o', Value::Whole(number, bits)) if spec.precision.is_none() => {
            let bits = if *bits == 64 { *number as u64 } else { (*number as u64) & ((1 << bits) - 1) };
            let (digits, mark) =
                if spec.conversion == 'o' { (format!("{bits:o}"), "0") } else { (format!("{bits:x}"), "0x") };
            let digits = if spec.has('#') { format!("{mark}{digits}") } else { digits };
            zeros(spec, digits, 0)
        }
        ('f', Value::Fraction(negative, digits, scale, _)) if !digits.is_empty() => {
            let precision = spec.precision.unwrap_or(6);
            signed(spec, *negative, &grouped(spec, &fixed(digits, *scale, precision)))
        }
        ('e' | 'E', Value::Fraction(negative, digits, scale, _)) if !digits.is_empty() => {
            signed(spec, *negative, &scientific(digits, *scale, spec.precision.unwrap_or(6)))
        }
        _ => return None,
    };
    Some(if spec.conversion.is_uppercase() { text.to_uppercase() } else { text })
}

/// The first characters of a text.
fn cut(spec: &Spec, text: &str) -> String {
    text.chars().take(spec.precision.unwrap_or(usize::MAX)).collect()
}

/// Thousands with commas, if asked for.
fn grouped(spec: &Spec, number: &str) -> String {
    if !spec.has(',') {
        return number.to_owned();
    }
    let (whole, fraction) = number.split_at(number.find('.').unwrap_or(number.len()));
    let mut out = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out + fraction
}

fn signed(spec: &Spec, negative: bool, number: &str) -> String {
    let (before, behind) = match negative {
        true if spec.has('(') => ("(", ")"),
        true => ("-", ""),
        false if spec.has('+') => ("+", ""),
        false if spec.has(' ') => (" ", ""),
        false => ("", ""),
    };
    format!("{before}{}{behind}", zeros(spec, number.to_owned(), before.len() + behind.len()))
}

/// Zeros in front, up to the width, if asked for.
fn zeros(spec: &Spec, number: String, around: usize) -> String {
    let missing = if spec.has('0') { spec.width.saturating_sub(number.len() + around) } else { 0 };
    "0".repeat(missing) + &number
}

/// So many of the digits, rounded half up: the digits, and whether there is one more in front.
fn kept(digits: &str, count: usize) -> (String, bool) {
    let round = digits.as_bytes().get(count).is_some_and(|next| *next >= b'5');
    let mut kept: Vec<u8> = digits.bytes().take(count).collect();
    if !round {
        return (String::from_utf8_lossy(&kept).into_owned(), false);
    }
    for digit in kept.iter_mut().rev() {
        if *digit < b'9' {
            *digit += 1;
            return (String::from_utf8_lossy(&kept).into_owned(), false);
        }
        *digit = b'0';
    }
    (format!("1{}", String::from_utf8_lossy(&kept)), true)
}

fn fixed(digits: &str, scale: i64, precision: usize) -> String {
    // As many digits in front of the point as there are, and one at least.
    let whole = (digits.len() as i64 - scale).max(0) as usize;
    let missing = (scale - digits.len() as i64).max(0) as usize;
    let padded = format!("{}{digits}", "0".repeat(missing.min(2_000)));
    let padded = format!("{padded:0<width$}", width = whole);
    let (number, more) = kept(&padded, whole + precision);
    let whole = whole + usize::from(more);
    let (front, behind) = number.split_at(whole.min(number.len()));
    let front = if front.is_empty() { "0" } else { front };
    if precision == 0 { front.to_owned() } else { format!("{front}.{behind:0<precision$}") }
}

fn scientific(digits: &str, scale: i64, precision: usize) -> String {
    let trimmed = digits.trim_start_matches('0');
    if trimmed.is_empty() {
        return if precision == 0 { "0e+00".to_owned() } else { format!("0.{}e+00", "0".repeat(precision)) };
    }
    let (number, more) = kept(trimmed, precision + 1);
    let exponent = trimmed.len() as i64 - 1 - scale + i64::from(more);
    let (first, rest) = number.split_at(1);
    let rest: String = rest.chars().take(precision).collect();
    let point = if precision == 0 { String::new() } else { format!(".{rest:0<precision$}") };
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{first}{point}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_half_up_by_their_digits() {
        assert_eq!(fixed("1005", 3, 2), "1.01");
        assert_eq!(fixed("995", 2, 1), "10.0");
        assert_eq!(fixed("5", 3, 2), "0.01");
        assert_eq!(fixed("15", -2, 1), "1500.0");
        assert_eq!(fixed("0", 0, 2), "0.00");
        assert_eq!(fixed("5", 1, 0), "1");
        assert_eq!(scientific("12345678", 3, 6), "1.234568e+04");
        assert_eq!(scientific("9999", 0, 1), "1.0e+04");
    }

    #[test]
    fn formats_fit_their_values_or_give_nothing() {
        let printed = |format: &str, values: &[Value<'_>]| {
            let mut out = String::new();
            print(&mut out, format, values).map(|()| out)
        };
        assert_eq!(printed("%2$s %1$s%%", &[Value::Text("a"), Value::Text("b")]).as_deref(), Some("b a%"));
        assert_eq!(printed("%5s|%-5s|", &[Value::Text("a"), Value::Text("b")]).as_deref(), Some("    a|b    |"));
        assert_eq!(
            printed("%05d %,d %+d", &[Value::Whole(-42, 32), Value::Whole(1_234_567, 32), Value::Whole(5, 32)])
                .as_deref(),
            Some("-0042 1,234,567 +5")
        );
        assert_eq!(printed("%x", &[Value::Whole(-1, 32)]).as_deref(), Some("ffffffff"));
        for wrong in ["%d", "%f", "%q", "%", "%s %s"] {
            assert_eq!(printed(wrong, &[Value::Text("a")]), None, "{wrong}");
        }
    }
}
