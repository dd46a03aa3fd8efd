//! Texts put together and taken apart.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListBuilder, StringBuilder};
use arrow::datatypes::DataType;
use datafusion_common::{Result, exec_err};

use crate::functions::call::{Call, Texts};
use crate::functions::definition::{Kind, is_text};
use crate::functions::utf16;

fn all_texts<'a>(call: &'a Call<'_>, from: usize) -> Result<Vec<Texts<'a>>> {
    (from..call.len()).map(|index| call.texts(index)).collect()
}

pub(super) fn concat(call: &Call<'_>) -> Result<ArrayRef> {
    let parts = all_texts(call, 0)?;
    call.text_rows(|row, out| parts.iter().try_for_each(|part| part.get(row).map(|part| out.push_str(part))))
}

pub(super) fn concat_ws(call: &Call<'_>) -> Result<ArrayRef> {
    let (separators, parts) = (call.texts(0)?, all_texts(call, 1)?);
    call.text_rows(|row, out| {
        let separator = separators.get(row)?;
        for (index, part) in parts.iter().filter_map(|part| part.get(row)).enumerate() {
            if index > 0 {
                out.push_str(separator);
            }
            out.push_str(part);
        }
        Some(())
    })
}

pub(super) fn split_index(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, indices) = (call.texts(0)?, call.wholes(2)?);
    let index = |row: usize| usize::try_from(indices.get(row)?).ok();
    if call.raw(1)?.data_type().is_integer() {
        let codes = call.wholes(1)?;
        return call.slices(|row| {
            let (text, code) = (texts.get(row)?, u8::try_from(codes.get(row)?).ok()?);
            if code == 0 || text.is_empty() {
                return None;
            }
            text.split(char::from(code)).nth(index(row)?)
        });
    }
    let separators = call.texts(1)?;
    call.slices(|row| {
        let (text, separator) = (texts.get(row)?, separators.get(row)?);
        match (text, separator) {
            ("", _) => None,
            (_, "") => text.split(char::is_whitespace).nth(index(row)?),
            _ => text.split(separator).nth(index(row)?),
        }
    })
}

pub(super) fn split(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, separators) = (call.texts(0)?, call.texts(1)?);
    let mut lists = ListBuilder::new(StringBuilder::new());
    for row in 0..call.rows {
        let (Some(text), Some(separator)) = (texts.get(row), separators.get(row)) else {
            lists.append_null();
            continue;
        };
        if separator.is_empty() {
            for unit in utf16::units(text) {
                let mut part = String::new();
                utf16::push(&mut part, &[unit]);
                lists.values().append_value(part);
            }
        } else if !text.is_empty() {
            text.split(separator).for_each(|part| lists.values().append_value(part));
        }
        lists.append(true);
    }
    Ok(Arc::new(lists.finish()))
}

pub(super) fn elt(call: &Call<'_>) -> Result<ArrayRef> {
    let (indices, texts) = (call.wholes(0)?, all_texts(call, 1)?);
    call.try_text_rows(|row, out| {
        let Some(index) = indices.get(row) else { return Ok(None) };
        let Ok(index) = usize::try_from(index) else {
            return exec_err!("ELT: the index is {index}, expected 0 or more");
        };
        let text = index.checked_sub(1).and_then(|index| texts.get(index)).and_then(|texts| texts.get(row));
        Ok(text.map(|text| out.push_str(text)))
    })
}

pub(super) fn two_of_a_kind(types: &[DataType]) -> Option<Vec<DataType>> {
    let [text, part] = types else { return None };
    let kind = if Kind::Bytes.convert(text).is_some() && *text != DataType::Null { Kind::Bytes } else { Kind::Text };
    Some(vec![kind.convert(text)?, kind.convert(part)?])
}

pub(super) fn affix(call: &Call<'_>, of: fn(&str) -> &[u8], has: fn(&[u8], &[u8]) -> bool) -> Result<ArrayRef> {
    if is_text(call.raw(0)?.data_type()) {
        let (texts, parts) = (call.texts(0)?, call.texts(1)?);
        return call.bool_rows(|row| Some(has(of(texts.get(row)?), of(parts.get(row)?))));
    }
    let (texts, parts) = (call.bytes(0)?, call.bytes(1)?);
    call.bool_rows(|row| Some(has(texts.get(row)?, parts.get(row)?)))
}
