//! Parts of a text by position, and positions of parts; replacing.

use arrow::array::ArrayRef;
use arrow::datatypes::Int32Type;
use datafusion_common::{Result, exec_err};

use crate::functions::call::{Call, Wholes};
use crate::functions::utf16;

/// The characters from one place (from 0) to another, or to the end.
fn characters(text: &str, from: usize, length: usize) -> &str {
    let at = |text: &str, count: usize| {
        if text.is_ascii() {
            return count.min(text.len());
        }
        text.char_indices().nth(count).map_or(text.len(), |(at, _)| at)
    };
    let rest = &text[at(text, from)..];
    &rest[..at(rest, length)]
}

pub(super) fn substring(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, starts) = (call.texts(0)?, call.wholes(1)?);
    let lengths = if call.len() > 2 { Some(call.wholes(2)?) } else { None };
    call.slices(|row| {
        let (text, start) = (texts.get(row)?, starts.get(row)?);
        let length = match &lengths {
            Some(lengths) => usize::try_from(lengths.get(row)?).ok()?,
            None => usize::MAX,
        };
        let from = match start {
            0 => 0,
            1.. => usize::try_from(start - 1).unwrap_or(usize::MAX),
            _ => {
                let count = text.chars().count() as i64;
                // A start before the first character gives nothing, not what is left of the length.
                let Ok(from) = usize::try_from(count.saturating_add(start)) else { return Some("") };
                from
            }
        };
        Some(characters(text, from, length))
    })
}

pub(super) fn left(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, lengths) = (call.texts(0)?, call.wholes(1)?);
    call.slices(|row| Some(characters(texts.get(row)?, 0, usize::try_from(lengths.get(row)?).unwrap_or(0))))
}

pub(super) fn right(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, lengths) = (call.texts(0)?, call.wholes(1)?);
    call.slices(|row| {
        let (text, length) = (texts.get(row)?, usize::try_from(lengths.get(row)?).unwrap_or(0));
        Some(characters(text, text.chars().count().saturating_sub(length), usize::MAX))
    })
}

/// Where a part begins at or after a character (from 0): its character from 1, or 0. The empty part is found at 1.
fn find(text: &str, part: &str, from: i64) -> i64 {
    if part.is_empty() {
        return 1;
    }
    let skipped = usize::try_from(from).unwrap_or(0);
    let rest = characters(text, skipped, usize::MAX);
    match rest.find(part) {
        Some(at) => (skipped + rest[..at].chars().count()) as i64 + 1,
        None => 0,
    }
}

pub(super) fn locate(call: &Call<'_>) -> Result<ArrayRef> {
    let (parts, texts) = (call.texts(0)?, call.texts(1)?);
    let from = if call.len() > 2 { Some(call.wholes(2)?) } else { None };
    call.rows_of::<Int32Type>(|row| {
        let from = match &from {
            Some(from) => from.get(row)?.saturating_sub(1),
            None => 0,
        };
        i32::try_from(find(texts.get(row)?, parts.get(row)?, from)).ok()
    })
}

pub(super) fn instr(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, parts) = (call.texts(0)?, call.texts(1)?);
    let from = if call.len() > 2 { Some(call.wholes(2)?) } else { None };
    let occurrences = if call.len() > 3 { Some(call.wholes(3)?) } else { None };
    let or_one = |values: &Option<Wholes<'_>>, row| values.as_ref().map_or(Some(1), |values| values.get(row));
    call.try_rows_of::<Int32Type>(|row| {
        let (Some(text), Some(part)) = (texts.get(row), parts.get(row)) else { return Ok(None) };
        let (Some(from), Some(occurrence)) = (or_one(&from, row), or_one(&occurrences, row)) else { return Ok(None) };
        if occurrence <= 0 {
            return exec_err!("INSTR: the occurrence is {occurrence}, expected 1 or more");
        }
        Ok(i32::try_from(nth(text, part, from, occurrence)).ok())
    })
}

/// Where a part occurs for the nth time, from a character on (from 1), or backwards from the end (from -1).
fn nth(text: &str, part: &str, from: i64, occurrence: i64) -> i64 {
    if from == 0 {
        return 0;
    }
    if from < 0 {
        let (text, part): (String, String) = (text.chars().rev().collect(), part.chars().rev().collect());
        return match nth(&text, &part, from.saturating_neg(), occurrence) {
            0 => 0,
            at => text.chars().count() as i64 + 2 - at - part.chars().count() as i64,
        };
    }
    let mut start = from;
    let mut found = 0;
    for _ in 0..occurrence {
        found = find(text, part, start - 1);
        if found == 0 {
            return 0;
        }
        start = found + 1;
        if part.is_empty() {
            break;
        }
    }
    found
}

pub(super) fn overlay(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, parts, starts) = (call.texts(0)?, call.texts(1)?, call.wholes(2)?);
    let lengths = if call.len() > 3 { Some(call.wholes(3)?) } else { None };
    call.text_rows(|row, out| {
        let (text, part, start) = (texts.get(row)?, parts.get(row)?, starts.get(row)?);
        let length = match &lengths {
            Some(lengths) => lengths.get(row)?,
            None => utf16::length(part) as i64,
        };
        let units = utf16::units(text);
        let Some(before) = usize::try_from(start).ok().filter(|start| (1..=units.len()).contains(start)) else {
            out.push_str(text);
            return Some(());
        };
        utf16::push(out, &units[..before - 1]);
        out.push_str(part);
        if length > 0
            && let Ok(length) = usize::try_from(length)
            && before.saturating_add(length) <= units.len()
        {
            utf16::push(out, &units[before - 1 + length..]);
        }
        Some(())
    })
}

pub(super) fn replace(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, old, new) = (call.texts(0)?, call.texts(1)?, call.texts(2)?);
    call.text_rows(|row, out| {
        let (text, old, new) = (texts.get(row)?, old.get(row)?, new.get(row)?);
        let mut end = 0;
        for (at, found) in text.match_indices(old) {
            out.push_str(&text[end..at]);
            out.push_str(new);
            end = at + found.len();
        }
        out.push_str(&text[end..]);
        Some(())
    })
}

pub(super) fn translate(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, from, to) = (call.texts(0)?, call.texts(1)?, call.texts(2)?);
    call.text_rows(|row, out| {
        let text = texts.get(row)?;
        let Some(from) = from.get(row) else {
            out.push_str(text);
            return Some(());
        };
        let to = to.get(row).unwrap_or_default();
        for c in text.chars() {
            match from.chars().position(|known| known == c) {
                Some(at) => out.extend(to.chars().nth(at)),
                None => out.push(c),
            }
        }
        Some(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters() {
        assert_eq!(characters("a𝄞bé", 1, 2), "𝄞b");
        assert_eq!(characters("abc", 5, 1), "");
        assert_eq!(find("a𝄞b", "b", 0), 3);
        assert_eq!(nth("abcbcb", "b", -1, 2), 4);
    }
}
