//! Java's view of a text: UTF-16 units. Some of Flink's functions count them, the others count characters.
//!
//! A half of a surrogate pair that is left over becomes `?`, as when Java encodes it in UTF-8.

/// The units of a text.
pub(crate) fn units(text: &str) -> Vec<u16> {
    text.encode_utf16().collect()
}

/// Appends units to a text.
pub(crate) fn push(out: &mut String, units: &[u16]) {
    out.extend(char::decode_utf16(units.iter().copied()).map(|unit| unit.unwrap_or('?')));
}

/// How many units a text has.
pub(crate) fn length(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.chars().map(char::len_utf16).sum() }
}
