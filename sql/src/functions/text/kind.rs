//! What a text is made of: letters, digits, a number.

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use datafusion_common::Result;

use crate::functions::call::Call;
use crate::functions::definition::is_text;

/// Whether texts have a property; of other types, whether they have it as such. Null has it not.
pub(super) fn is_made_of(call: &Call<'_>, other: fn(&DataType) -> bool, of: fn(&str) -> bool) -> Result<ArrayRef> {
    let values = call.raw(0)?;
    if is_text(values.data_type()) {
        let texts = call.texts(0)?;
        return call.bool_rows(|row| Some(texts.get(row).is_some_and(of)));
    }
    let is = other(values.data_type());
    call.bool_rows(|row| Some(is && values.is_valid(call.at(0, row))))
}

/// Java's `Character.isLetter` of one UTF-16 unit: what lies beyond the first 65,536 characters is none.
pub(super) fn is_letter(c: char) -> bool {
    c.len_utf16() == 1 && c.is_alphabetic()
}

pub(super) fn is_decimal_digit(c: char) -> bool {
    c.len_utf16() == 1 && DIGITS.iter().any(|zero| (*zero..*zero + 10).contains(&u32::from(c)))
}

/// The zeros of Unicode's decimal digits (general category Nd) in the first 65,536 characters.
const DIGITS: &[u32] = &[
    0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50, 0xed0,
    0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620,
    0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10,
];

/// What one of Java's `Integer.parseInt`, `Long.parseLong` and `Double.parseDouble` reads.
pub(super) fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.is_empty() && digits.chars().count() < 10 && digits.chars().all(is_decimal_digit) {
        return true;
    }
    // Double.parseDouble trims what String.trim trims, and takes a suffix.
    let text = text.trim_matches(|c| c <= ' ');
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(text, "NaN" | "Infinity") {
        return true;
    }
    let text = text.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(text);
    if let Some(hex) = text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        return is_hex_float(hex);
    }
    let is_plain =
        !text.starts_with(['+', '-']) && text.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    is_plain && text.parse::<f64>().is_ok()
}

fn is_hex_float(text: &str) -> bool {
    let Some((mantissa, exponent)) = text.split_once(['p', 'P']) else { return false };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let has_exponent = !exponent.is_empty() && exponent.bytes().all(|byte| byte.is_ascii_digit());
    !(whole.is_empty() && fraction.is_empty()) && hex(whole) && hex(fraction) && has_exponent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_what_java_parses() {
        for text in ["1", "-1", "1e5", " 1 ", "NaN", "1d", "0x1p3", "+5", ".5", "5.", "١", "99999999999999999999"] {
            assert!(is_number(text), "{text}");
        }
        for text in ["", "abc", "1x", "0x1", "--1", "inf", "nan", "1e", "1 2", "."] {
            assert!(!is_number(text), "{text}");
        }
    }
}
