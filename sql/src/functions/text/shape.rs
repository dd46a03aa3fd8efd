//! The shape of a text: case, order, length, trimming, padding.

use arrow::array::ArrayRef;
use arrow::datatypes::Int32Type;
use datafusion_common::{Result, exec_err};

use crate::functions::call::Call;
use crate::functions::utf16;

pub(super) fn upper(call: &Call<'_>) -> Result<ArrayRef> {
    let texts = call.texts(0)?;
    call.text_rows(|row, out| {
        let text = texts.get(row)?;
        if text.is_ascii() {
            out.push_str(text);
            out.make_ascii_uppercase();
        } else {
            out.extend(text.chars().flat_map(char::to_uppercase));
        }
        Some(())
    })
}

pub(super) fn lower(call: &Call<'_>) -> Result<ArrayRef> {
    let texts = call.texts(0)?;
    call.text_rows(|row, out| {
        let text = texts.get(row)?;
        if text.is_ascii() {
            out.push_str(text);
            out.make_ascii_lowercase();
        } else {
            // As a whole: a sigma at the end of a word has a form of its own.
            out.push_str(&text.to_lowercase());
        }
        Some(())
    })
}

pub(super) fn initcap(call: &Call<'_>) -> Result<ArrayRef> {
    let texts = call.texts(0)?;
    call.text_rows(|row, out| {
        let mut starts = true;
        for c in texts.get(row)?.chars() {
            out.push(if starts { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() });
            starts = !c.is_ascii_alphanumeric();
        }
        Some(())
    })
}

pub(super) fn reverse(call: &Call<'_>) -> Result<ArrayRef> {
    let texts = call.texts(0)?;
    call.text_rows(|row, out| {
        out.extend(texts.get(row)?.chars().rev());
        Some(())
    })
}

pub(super) fn char_length(call: &Call<'_>) -> Result<ArrayRef> {
    let texts = call.texts(0)?;
    call.rows_of::<Int32Type>(|row| i32::try_from(texts.get(row)?.chars().count()).ok())
}

pub(super) fn ascii(call: &Call<'_>) -> Result<ArrayRef> {
    let texts = call.texts(0)?;
    call.rows_of::<Int32Type>(|row| {
        Some(texts.get(row)?.bytes().next().map_or(0, |byte| i32::from(byte.cast_signed())))
    })
}

pub(super) fn trim(call: &Call<'_>, start: bool, end: bool) -> Result<ArrayRef> {
    let texts = call.texts(0)?;
    let characters = if call.len() > 1 { Some(call.texts(1)?) } else { None };
    call.slices(|row| {
        let of = match &characters {
            Some(characters) => characters.get(row)?,
            None => " ",
        };
        let mut text = texts.get(row)?;
        if start {
            text = text.trim_start_matches(|c| of.contains(c));
        }
        if end {
            text = text.trim_end_matches(|c| of.contains(c));
        }
        Some(text)
    })
}

/// The longest text that a function makes of one row: what Java can hold is no reason to take two gigabytes for it.
const LENGTH_MAX: usize = 64 << 20;

fn checked(function: &str, length: usize) -> Result<usize> {
    if length <= LENGTH_MAX { Ok(length) } else { exec_err!("{function}: a text of {length} bytes is too long") }
}

pub(super) fn pad(call: &Call<'_>, start: bool) -> Result<ArrayRef> {
    let (texts, lengths, pads) = (call.texts(0)?, call.wholes(1)?, call.texts(2)?);
    call.try_text_rows(|row, out| {
        let (Some(text), Some(length), Some(pad)) = (texts.get(row), lengths.get(row), pads.get(row)) else {
            return Ok(None);
        };
        let Ok(length) = usize::try_from(length) else { return Ok(None) };
        if pad.is_empty() {
            return Ok(None);
        }
        checked(if start { "LPAD" } else { "RPAD" }, length)?;
        let (mut text, pad) = (utf16::units(text), utf16::units(pad));
        text.truncate(length);
        let missing = length - text.len();
        let padding: Vec<u16> = pad.iter().copied().cycle().take(missing).collect();
        let (first, second) = if start { (padding, text) } else { (text, padding) };
        utf16::push(out, &[first, second].concat());
        Ok(Some(()))
    })
}

pub(super) fn repeat(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, times) = (call.texts(0)?, call.wholes(1)?);
    call.try_text_rows(|row, out| {
        let (Some(text), Some(times)) = (texts.get(row), times.get(row)) else { return Ok(None) };
        let times = usize::try_from(times).unwrap_or(0);
        checked("REPEAT", text.len().saturating_mul(times))?;
        out.extend(std::iter::repeat_n(text, if text.is_empty() { 0 } else { times }));
        Ok(Some(()))
    })
}

pub(super) fn chr(call: &Call<'_>) -> Result<ArrayRef> {
    let codes = call.wholes(0)?;
    call.text_rows(|row, out| {
        let code = codes.get(row)?;
        if code >= 0 {
            out.push(char::from((code & 0xff) as u8));
        }
        Some(())
    })
}
