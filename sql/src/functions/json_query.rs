//! Looking into JSON: `JSON_VALUE`, `JSON_QUERY`, `JSON_EXISTS`, `IS JSON`.
//!
//! Behaviours `ON EMPTY` and `ON ERROR` come as texts (`json_syntax`).

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Float64Type, Int32Type};
use datafusion_common::{Result, exec_err};

use super::call::{Call, Memo};
use super::definition::Kind::{Any, Text};
use super::definition::{Function, Nulls, Takes, gives};
use super::json::Json;
use super::json_path::Path;

/// One of the functions that `JSON_VALUE` is, by what it returns.
macro_rules! json_value {
    ($name:literal, $type:expr, $gives:path, $eval:expr) => {
        Function::new(
            $name,
            "JSON_VALUE(text, path [RETURNING type] [… ON EMPTY] [… ON ERROR])",
            "a scalar in JSON: JSON_VALUE('{\"a\": 1}', '$.a' RETURNING INT) = 1",
            Takes::Own(|types| value_types(types, $type)),
            $gives,
            Nulls::Own,
            $eval,
        )
    };
}

pub(crate) static JSON_QUERY: &[Function] = &[
    json_value!("JSON_VALUE", DataType::Utf8, gives::text, value_text),
    json_value!("JSON_VALUE BOOLEAN", DataType::Boolean, gives::boolean, value_boolean),
    json_value!("JSON_VALUE INT", DataType::Int32, gives::int, value_int),
    json_value!("JSON_VALUE DOUBLE", DataType::Float64, gives::double, value_double),
    Function::new(
        "JSON_QUERY",
        "JSON_QUERY(text, path [wrapper] [… ON EMPTY] [… ON ERROR])",
        "an array or object in JSON: JSON_QUERY('{\"a\": [1]}', '$.a') = '[1]'",
        Takes::These(5, &[Text, Text, Text, Text, Text]),
        gives::text,
        Nulls::Own,
        query,
    ),
    Function::new(
        "JSON_EXISTS",
        "JSON_EXISTS(text, path [… ON ERROR])",
        "whether a path leads to a value: JSON_EXISTS('{\"a\": 1}', '$.a')",
        Takes::These(3, &[Text, Text, Text]),
        gives::boolean,
        Nulls::Own,
        exists,
    ),
    Function::new(
        "IS JSON",
        "text IS JSON [VALUE | SCALAR | ARRAY | OBJECT]",
        "whether it is JSON (of a kind)",
        Takes::These(2, &[Text, Text]),
        gives::boolean,
        Nulls::Never,
        is_json,
    ),
];

/// Document, path, and the two behaviours with their defaults, which have the type that is returned.
fn value_types(types: &[DataType], returned: DataType) -> Option<Vec<DataType>> {
    let [document, path, on_empty, default_on_empty, on_error, default_on_error] = types else { return None };
    let default = |given: &DataType| {
        let fits = Any.convert(given).is_some();
        fits.then(|| returned.clone())
    };
    Some(vec![
        Text.convert(document)?,
        Text.convert(path)?,
        Text.convert(on_empty)?,
        default(default_on_empty)?,
        Text.convert(on_error)?,
        default(default_on_error)?,
    ])
}

/// What a path led to.
enum Lookup {
    Found(Json),
    Empty,
    Failed(String),
}

/// A document's value at a path.
fn looked_up<'a>(
    document: &str,
    path: &'a str,
    memo: &mut Memo<'a, std::result::Result<Path, String>>,
) -> (Lookup, bool) {
    let path = memo.get(path, Path::new);
    match path.as_ref() {
        Err(why) => (Lookup::Failed(why.clone()), false),
        Ok(path) => {
            let Some(root) = Json::read(document) else {
                return (Lookup::Failed(format!("'{}' is no JSON", shortened(document))), path.is_lax);
            };
            let outcome = match path.find(&root) {
                Ok(Some(Json::Null) | None) => Lookup::Empty,
                Ok(Some(found)) => Lookup::Found(found),
                Err(why) => Lookup::Failed(why),
            };
            (outcome, path.is_lax)
        }
    }
}

fn shortened(text: &str) -> &str {
    text.char_indices().nth(60).map_or(text, |(end, _)| &text[..end])
}

/// A value that was found, or which default stands for it.
enum Answer {
    Null,
    Found(Json),
    Default(usize),
}

/// The scalar of each row.
fn answers<'a>(call: &'a Call<'_>) -> Result<impl FnMut(usize) -> Result<Answer> + 'a> {
    let (documents, paths) = (call.texts(0)?, call.texts(1)?);
    let (on_empty, on_error) = (call.texts(2)?, call.texts(4)?);
    let mut memo = Memo::new();
    Ok(move |row: usize| {
        let (Some(document), Some(path)) = (documents.get(row), paths.get(row)) else { return Ok(Answer::Null) };
        let (outcome, is_lax) = looked_up(document, path, &mut memo);
        let outcome = match outcome {
            Lookup::Found(found) if found.is_scalar() => return Ok(Answer::Found(found)),
            Lookup::Found(_) if is_lax => Lookup::Empty,
            Lookup::Found(_) => Lookup::Failed(format!("'{path}' leads to an array or object, not to a scalar")),
            other => other,
        };
        let (mode, default, why) = match outcome {
            Lookup::Failed(why) => (on_error.get(row), 5, why),
            _ => (on_empty.get(row), 3, format!("'{path}' leads to nothing")),
        };
        match mode {
            Some("ERROR") => exec_err!("JSON_VALUE: {why}"),
            Some("DEFAULT") => Ok(Answer::Default(default)),
            _ => Ok(Answer::Null),
        }
    })
}

fn value_text(call: &Call<'_>) -> Result<ArrayRef> {
    let mut answer = answers(call)?;
    call.try_text_rows(|row, out| {
        match answer(row)? {
            Answer::Null => return Ok(None),
            Answer::Found(Json::Text(text)) => out.push_str(&text),
            Answer::Found(other) => other.write(out),
            Answer::Default(index) => match call.texts(index)?.get(row) {
                Some(text) => out.push_str(text),
                None => return Ok(None),
            },
        }
        Ok(Some(()))
    })
}

fn is_not<T>(found: &Json, what: &str) -> Result<T> {
    let mut text = String::new();
    found.write(&mut text);
    exec_err!("JSON_VALUE: {} is no {what}", shortened(&text))
}

fn value_boolean(call: &Call<'_>) -> Result<ArrayRef> {
    let mut answer = answers(call)?;
    let values = (0..call.rows).map(|row| match answer(row)? {
        Answer::Null => Ok(None),
        Answer::Found(Json::Bool(value)) => Ok(Some(value)),
        Answer::Found(other) => is_not(&other, "BOOLEAN"),
        Answer::Default(index) => Ok(call.bools(index)?.get(row)),
    });
    Ok(std::sync::Arc::new(values.collect::<Result<arrow::array::BooleanArray>>()?))
}

fn value_int(call: &Call<'_>) -> Result<ArrayRef> {
    let mut answer = answers(call)?;
    call.try_rows_of::<Int32Type>(|row| match answer(row)? {
        Answer::Null => Ok(None),
        Answer::Found(Json::Number(number)) if number.parse::<i32>().is_ok() => Ok(number.parse().ok()),
        Answer::Found(other) => is_not(&other, "INT"),
        Answer::Default(index) => Ok(call.values::<Int32Type>(index)?.get(row)),
    })
}

fn value_double(call: &Call<'_>) -> Result<ArrayRef> {
    let mut answer = answers(call)?;
    call.try_rows_of::<Float64Type>(|row| match answer(row)? {
        Answer::Null => Ok(None),
        Answer::Found(Json::Number(number)) => Ok(number.parse().ok()),
        Answer::Found(other) => is_not(&other, "DOUBLE"),
        Answer::Default(index) => Ok(call.doubles(index)?.get(row)),
    })
}

fn query(call: &Call<'_>) -> Result<ArrayRef> {
    let (documents, paths, wrappers) = (call.texts(0)?, call.texts(1)?, call.texts(2)?);
    let (on_empty, on_error) = (call.texts(3)?, call.texts(4)?);
    let mut memo = Memo::new();
    call.try_text_rows(|row, out| {
        let (Some(document), Some(path)) = (documents.get(row), paths.get(row)) else { return Ok(None) };
        let (outcome, is_lax) = looked_up(document, path, &mut memo);
        let outcome = match (outcome, wrappers.get(row)) {
            (Lookup::Found(found @ Json::Array(_)), Some("CONDITIONAL")) => Lookup::Found(found),
            (Lookup::Found(found), Some("CONDITIONAL" | "UNCONDITIONAL")) => Lookup::Found(Json::Array(vec![found])),
            (Lookup::Found(found), _) if found.is_scalar() && is_lax => Lookup::Empty,
            (Lookup::Found(found), _) if found.is_scalar() => {
                Lookup::Failed(format!("'{path}' leads to a scalar, not to an array or object"))
            }
            (other, _) => other,
        };
        let (mode, why) = match outcome {
            Lookup::Found(found) => {
                found.write(out);
                return Ok(Some(()));
            }
            Lookup::Failed(why) => (on_error.get(row), why),
            Lookup::Empty => (on_empty.get(row), format!("'{path}' leads to nothing")),
        };
        match mode {
            Some("ERROR") => return exec_err!("JSON_QUERY: {why}"),
            Some("EMPTY ARRAY") => out.push_str("[]"),
            Some("EMPTY OBJECT") => out.push_str("{}"),
            _ => return Ok(None),
        }
        Ok(Some(()))
    })
}

fn exists(call: &Call<'_>) -> Result<ArrayRef> {
    let (documents, paths, on_error) = (call.texts(0)?, call.texts(1)?, call.texts(2)?);
    let mut memo = Memo::new();
    let values = (0..call.rows).map(|row| {
        let (Some(document), Some(path)) = (documents.get(row), paths.get(row)) else { return Ok(None) };
        match looked_up(document, path, &mut memo).0 {
            Lookup::Found(_) => Ok(Some(true)),
            Lookup::Empty => Ok(Some(false)),
            Lookup::Failed(why) => match on_error.get(row) {
                Some("TRUE") => Ok(Some(true)),
                Some("UNKNOWN") => Ok(None),
                Some("ERROR") => exec_err!("JSON_EXISTS: {why}"),
                _ => Ok(Some(false)),
            },
        }
    });
    Ok(std::sync::Arc::new(values.collect::<Result<arrow::array::BooleanArray>>()?))
}

fn is_json(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, kinds) = (call.texts(0)?, call.texts(1)?);
    call.bool_rows(|row| {
        let Some(value) = texts.get(row).and_then(Json::read) else { return Some(false) };
        Some(match kinds.get(row) {
            Some("SCALAR") => value.is_scalar(),
            Some("ARRAY") => matches!(value, Json::Array(_)),
            Some("OBJECT") => matches!(value, Json::Object(_)),
            _ => true,
        })
    })
}
