//! Regular expressions: matching, extracting, replacing. They are Java's (`java_regex`).
//!
//! An invalid expression gives null, or false for `REGEXP`, as in Flink, where expressions may come from a column.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListBuilder, MapBuilder, MapFieldNames, StringBuilder};
use arrow::datatypes::{DataType, Field, Fields, Int32Type};
use datafusion_common::Result;

use super::call::{Call, Memo};
use super::definition::Kind::{Text, Whole};
use super::definition::{Function, Given, Nulls, Takes, gives};
use super::java_regex::{JavaRegex, all, following};
use super::utf16;

const TWO_TEXTS: Takes = Takes::These(2, &[Text, Text]);

pub(crate) static REGEX: &[Function] = &[
    Function::new(
        "REGEXP",
        "REGEXP(text, expression)",
        "whether a part of the text matches: REGEXP('foobar', 'o+')",
        TWO_TEXTS,
        gives::boolean,
        Nulls::Strict,
        regexp,
    ),
    Function::new(
        "REGEXP_REPLACE",
        "REGEXP_REPLACE(text, expression, replacement)",
        "with all matches replaced; the replacement is taken as it is: REGEXP_REPLACE('a1b2', '[0-9]', '*') = 'a*b*'",
        Takes::These(3, &[Text, Text, Text]),
        gives::text,
        Nulls::Own,
        replace,
    ),
    Function::new(
        "REGEXP_EXTRACT",
        "REGEXP_EXTRACT(text, expression[, group])",
        "the first match, or a group of it: REGEXP_EXTRACT('k=v', '(.)=(.)', 2) = 'v'",
        Takes::These(2, &[Text, Text, Whole]),
        gives::text,
        Nulls::Own,
        extract,
    ),
    Function::new(
        "REGEXP_EXTRACT_ALL",
        "REGEXP_EXTRACT_ALL(text, expression[, group])",
        "a group (the first) of all matches: `REGEXP_EXTRACT_ALL('a1b2', '[a-z]([0-9])') = ARRAY['1', '2']`",
        Takes::These(2, &[Text, Text, Whole]),
        gives::texts,
        Nulls::Own,
        extract_all,
    ),
    Function::new(
        "REGEXP_COUNT",
        "REGEXP_COUNT(text, expression)",
        "the number of matches: REGEXP_COUNT('a1b22', '[0-9]') = 3",
        TWO_TEXTS,
        gives::int,
        Nulls::Own,
        count,
    ),
    Function::new(
        "REGEXP_INSTR",
        "REGEXP_INSTR(text, expression)",
        "where the first match begins, from 1; 0 if nowhere: REGEXP_INSTR('ab1', '[0-9]') = 3",
        TWO_TEXTS,
        gives::int,
        Nulls::Own,
        position,
    ),
    Function::new(
        "REGEXP_SUBSTR",
        "REGEXP_SUBSTR(text, expression)",
        "the first match: REGEXP_SUBSTR('ab12', '[0-9]+') = '12'",
        TWO_TEXTS,
        gives::text,
        Nulls::Own,
        first,
    ),
    Function::new(
        "STR_TO_MAP",
        "STR_TO_MAP(text[, pairs, values])",
        "a map from text; the separators (',' and '=') are regular expressions: STR_TO_MAP('a=1,b=2')",
        Takes::Own(|types| {
            let is_call = matches!(types.len(), 1 | 3);
            if is_call { types.iter().map(|given| Text.convert(given)).collect() } else { None }
        }),
        text_map,
        Nulls::Strict,
        str_to_map,
    ),
];

/// `MAP<STRING, STRING>`.
pub(crate) fn text_map(_: &Given<'_>) -> DataType {
    let fields =
        Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)]);
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(fields), false)), false)
}

fn regexp(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, patterns) = (call.texts(0)?, call.texts(1)?);
    let mut memo = Memo::new();
    call.bool_rows(|row| {
        let (text, pattern) = (texts.get(row)?, patterns.get(row)?);
        if pattern.is_empty() {
            return Some(false);
        }
        let regex = memo.get(pattern, JavaRegex::new);
        Some(regex.as_ref().as_ref().is_some_and(|regex| regex.is_match(text)))
    })
}

fn replace(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, patterns, replacements) = (call.texts(0)?, call.texts(1)?, call.texts(2)?);
    let mut memo = Memo::new();
    call.text_rows(|row, out| {
        let (text, pattern, replacement) = (texts.get(row)?, patterns.get(row)?, replacements.get(row)?);
        let regex = memo.get(pattern, JavaRegex::new);
        let mut end = 0;
        for (start, stop) in all(regex.as_ref().as_ref()?, text) {
            out.push_str(&text[end..start]);
            out.push_str(replacement);
            end = stop;
        }
        out.push_str(&text[end..]);
        Some(())
    })
}

fn extract(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, patterns) = (call.texts(0)?, call.texts(1)?);
    let groups = if call.len() > 2 { Some(call.wholes(2)?) } else { None };
    let mut memo = Memo::new();
    call.slices(|row| {
        let (text, pattern) = (texts.get(row)?, patterns.get(row)?);
        let group = groups.as_ref().map_or(Some(0), |groups| groups.get(row))?;
        let regex = memo.get(pattern, JavaRegex::new);
        let regex = regex.as_ref().as_ref()?;
        let (start, end) = match usize::try_from(group).ok()? {
            0 => regex.find(text, 0)?,
            group => regex.captures(text, 0)?.get(group).map(|found| (found.start(), found.end()))?,
        };
        Some(&text[start..end])
    })
}

fn extract_all(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, patterns) = (call.texts(0)?, call.texts(1)?);
    let groups = if call.len() > 2 { Some(call.wholes(2)?) } else { None };
    let mut memo = Memo::new();
    let mut lists = ListBuilder::new(StringBuilder::new());
    for row in 0..call.rows {
        let mut fill = || {
            let (text, pattern) = (texts.get(row)?, patterns.get(row)?);
            let group = groups.as_ref().map_or(Some(1), |groups| groups.get(row))?;
            let regex = memo.get(pattern, JavaRegex::new);
            let regex = regex.as_ref().as_ref()?;
            let group = usize::try_from(group).ok().filter(|group| *group <= regex.groups())?;
            let mut next = Some(0);
            while let Some(captures) = next.and_then(|from| regex.captures(text, from)) {
                lists.values().append_option(captures.get(group).map(|found| found.as_str()));
                next = captures.get(0).and_then(|whole| following(text, whole.start(), whole.end()));
            }
            Some(())
        };
        let is_list = fill().is_some();
        lists.append(is_list);
    }
    Ok(Arc::new(lists.finish()))
}

fn count(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, patterns) = (call.texts(0)?, call.texts(1)?);
    let mut memo = Memo::new();
    call.rows_of::<Int32Type>(|row| {
        let (text, pattern) = (texts.get(row)?, patterns.get(row)?);
        let regex = memo.get(pattern, JavaRegex::new);
        i32::try_from(all(regex.as_ref().as_ref()?, text).count()).ok()
    })
}

fn position(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, patterns) = (call.texts(0)?, call.texts(1)?);
    let mut memo = Memo::new();
    call.rows_of::<Int32Type>(|row| {
        let (text, pattern) = (texts.get(row)?, patterns.get(row)?);
        let regex = memo.get(pattern, JavaRegex::new);
        match regex.as_ref().as_ref()?.find(text, 0) {
            // Java's index: in UTF-16 units.
            Some((start, _)) => i32::try_from(utf16::length(&text[..start]) + 1).ok(),
            None => Some(0),
        }
    })
}

fn first(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, patterns) = (call.texts(0)?, call.texts(1)?);
    let mut memo = Memo::new();
    call.slices(|row| {
        let (text, pattern) = (texts.get(row)?, patterns.get(row)?);
        let regex = memo.get(pattern, JavaRegex::new);
        let (start, end) = regex.as_ref().as_ref()?.find(text, 0)?;
        Some(&text[start..end])
    })
}

/// `String.split`: the parts between matches, at most so many (0: all, without empty ones at the end).
fn split<'t>(regex: &JavaRegex, text: &'t str, limit: usize) -> Vec<&'t str> {
    let mut parts = Vec::new();
    let mut end = 0;
    for (start, stop) in all(regex, text) {
        if limit > 0 && parts.len() + 1 == limit {
            break;
        }
        // No empty part in front of an empty match at the start.
        if stop == 0 {
            continue;
        }
        parts.push(&text[end..start]);
        end = stop;
    }
    parts.push(&text[end..]);
    if limit == 0 && parts.len() > 1 {
        while parts.last().is_some_and(|part| part.is_empty()) {
            parts.pop();
        }
    }
    parts
}

fn str_to_map(call: &Call<'_>) -> Result<ArrayRef> {
    let texts = call.texts(0)?;
    let separators = if call.len() > 1 { Some((call.texts(1)?, call.texts(2)?)) } else { None };
    let mut memo = Memo::new();
    let names = MapFieldNames { entry: "entries".into(), key: "key".into(), value: "value".into() };
    let mut maps = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    for row in 0..call.rows {
        let entries = (|| {
            let text = texts.get(row)?;
            let (pairs, values) = match &separators {
                Some((pairs, values)) => (pairs.get(row)?, values.get(row)?),
                None => (",", "="),
            };
            let (pairs, values) = (memo.get(pairs, JavaRegex::new), memo.get(values, JavaRegex::new));
            let (pairs, values) = (pairs.as_ref().as_ref()?, values.as_ref().as_ref()?);
            let mut entries: Vec<(&str, Option<&str>)> = Vec::new();
            for pair in if text.is_empty() { Vec::new() } else { split(pairs, text, 0) } {
                let entry = match split(values, pair, 2)[..] {
                    [key, value] => (key, Some(value)),
                    _ => (pair, None),
                };
                match entries.iter_mut().find(|(key, _)| *key == entry.0) {
                    Some(known) => known.1 = entry.1,
                    None => entries.push(entry),
                }
            }
            Some(entries)
        })();
        for (key, value) in entries.iter().flatten() {
            maps.keys().append_value(key);
            maps.values().append_option(*value);
        }
        maps.append(entries.is_some())?;
    }
    Ok(Arc::new(maps.finish()))
}
