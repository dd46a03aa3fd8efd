//! Making JSON: `JSON_STRING`, `JSON_OBJECT`, `JSON_ARRAY`, `JSON_QUOTE`, `JSON_UNQUOTE`.

use std::fmt::Write as _;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::Datelike;
use datafusion_common::{DataFusionError, Result, exec_err};

use super::call::Call;
use super::definition::Kind::Text;
use super::definition::{Function, Nulls, Takes, gives};
use super::json::{Json, decimal_text, double_text, put, write_text};
use super::moment::Moment;

pub(crate) static JSON_BUILD: &[Function] = &[
    Function::new(
        "JSON_STRING",
        "JSON_STRING(value)",
        "a value as JSON: JSON_STRING(ARRAY[1, 2]) = '[1,2]'",
        Takes::Own(|types| if types.len() == 1 { values(types) } else { None }),
        gives::text,
        Nulls::Strict,
        |call| {
            let column = call.column(0)?;
            call.try_text_rows(|row, out| {
                if column.is_null(row) {
                    return Ok(None);
                }
                to_json(&column, row)?.write(out);
                Ok(Some(()))
            })
        },
    ),
    Function::new(
        "JSON_OBJECT",
        "JSON_OBJECT([KEY] key VALUE value, … [NULL | ABSENT ON NULL])",
        "an object, its keys in order: JSON_OBJECT('a' VALUE 1) = '{\"a\":1}'",
        Takes::Own(|types| {
            let (mode, rest) = types.split_first()?;
            let entries = rest.chunks(3).map(|entry| match entry {
                [key, form, value] => Some(vec![Text.convert(key)?, Text.convert(form)?, json_type(value)?]),
                _ => None,
            });
            Some([vec![Text.convert(mode)?], entries.collect::<Option<Vec<_>>>()?.concat()].concat())
        }),
        gives::text,
        Nulls::Never,
        object,
    ),
    Function::new(
        "JSON_ARRAY",
        "JSON_ARRAY(value, … [NULL | ABSENT ON NULL])",
        "an array: JSON_ARRAY(1, 'a') = '[1,\"a\"]'",
        Takes::Own(|types| {
            let (mode, rest) = types.split_first()?;
            let items = rest.chunks(2).map(|item| match item {
                [form, value] => Some(vec![Text.convert(form)?, json_type(value)?]),
                _ => None,
            });
            Some([vec![Text.convert(mode)?], items.collect::<Option<Vec<_>>>()?.concat()].concat())
        }),
        gives::text,
        Nulls::Never,
        array,
    ),
    Function::new(
        "JSON_QUOTE",
        "JSON_QUOTE(text)",
        "a text as a JSON string, in ASCII: JSON_QUOTE('é') = '\"\\u00e9\"'",
        Takes::These(1, &[Text]),
        gives::text,
        Nulls::Strict,
        quote,
    ),
    Function::new(
        "JSON_UNQUOTE",
        "JSON_UNQUOTE(text)",
        "the text of a JSON string; other text as it is: JSON_UNQUOTE('\"a\"') = 'a'",
        Takes::These(1, &[Text]),
        gives::text,
        Nulls::Strict,
        unquote,
    ),
];

fn values(types: &[DataType]) -> Option<Vec<DataType>> {
    types.iter().map(json_type).collect()
}

/// Types that JSON has values for. Dates and times of day are refused, as in Flink.
fn json_type(given: &DataType) -> Option<DataType> {
    let fits = match given {
        DataType::List(item) => json_type(item.data_type()).is_some(),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => {
                fields[0].data_type() == &DataType::Utf8 && json_type(fields[1].data_type()).is_some()
            }
            _ => false,
        },
        DataType::Struct(fields) => fields.iter().all(|field| json_type(field.data_type()).is_some()),
        DataType::Date32 | DataType::Time32(_) | DataType::Time64(_) => false,
        DataType::Null | DataType::Boolean | DataType::Utf8 | DataType::Binary | DataType::Timestamp(..) => true,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => true,
        DataType::Float32 | DataType::Float64 | DataType::Decimal128(..) => true,
        _ => false,
    };
    fits.then(|| given.clone())
}

/// A value of a column as JSON.
fn to_json(column: &ArrayRef, row: usize) -> Result<Json> {
    if column.is_null(row) {
        return Ok(Json::Null);
    }
    let number = |text: Option<String>| match text {
        Some(text) => Ok(Json::Number(text)),
        None => exec_err!("NaN and Infinity are no JSON"),
    };
    macro_rules! whole {
        ($type:ty) => {
            Ok(Json::Number(column.as_primitive::<$type>().value(row).to_string()))
        };
    }
    match column.data_type() {
        DataType::Null => Ok(Json::Null),
        DataType::Boolean => Ok(Json::Bool(column.as_boolean().value(row))),
        DataType::Utf8 => Ok(Json::Text(column.as_string::<i32>().value(row).to_owned())),
        DataType::Binary => Ok(Json::Text(STANDARD.encode(column.as_binary::<i32>().value(row)))),
        DataType::Int8 => whole!(Int8Type),
        DataType::Int16 => whole!(Int16Type),
        DataType::Int32 => whole!(Int32Type),
        DataType::Int64 => whole!(Int64Type),
        DataType::Float32 => {
            let value = column.as_primitive::<Float32Type>().value(row);
            number(double_text(f64::from(value), &format!("{value:e}")))
        }
        DataType::Float64 => {
            let value = column.as_primitive::<Float64Type>().value(row);
            number(double_text(value, &format!("{value:e}")))
        }
        DataType::Decimal128(_, scale) => {
            let value = column.as_primitive::<Decimal128Type>().value(row);
            Ok(Json::Number(decimal_text(value < 0, &value.unsigned_abs().to_string(), i64::from(*scale))))
        }
        DataType::Timestamp(unit, zone) => Ok(Json::Text(timestamp_text(column, *unit, row, zone.is_some()))),
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            Ok(Json::Array((0..items.len()).map(|at| to_json(&items, at)).collect::<Result<_>>()?))
        }
        DataType::Map(..) => {
            let entries = column.as_map().value(row);
            let (keys, values) = (entries.column(0).as_string::<i32>(), entries.column(1));
            let mut object = Vec::new();
            for at in 0..entries.len() {
                put(&mut object, keys.value(at).to_owned(), to_json(values, at)?);
            }
            Ok(Json::Object(object))
        }
        DataType::Struct(fields) => {
            let columns = column.as_struct().columns();
            let entry = |(field, column): (&arrow::datatypes::FieldRef, &ArrayRef)| {
                Ok((field.name().clone(), to_json(column, row)?))
            };
            Ok(Json::Object(fields.iter().zip(columns).map(entry).collect::<Result<_>>()?))
        }
        other => exec_err!("{other} has no JSON"),
    }
}

/// `2020-01-02T03:04:05.678`, with as many digits as there are.
fn timestamp_text(column: &ArrayRef, unit: TimeUnit, row: usize, is_instant: bool) -> String {
    let count = match unit {
        TimeUnit::Second => column.as_primitive::<TimestampSecondType>().value(row),
        TimeUnit::Millisecond => column.as_primitive::<TimestampMillisecondType>().value(row),
        TimeUnit::Microsecond => column.as_primitive::<TimestampMicrosecondType>().value(row),
        TimeUnit::Nanosecond => column.as_primitive::<TimestampNanosecondType>().value(row),
    };
    let moment = Moment::of(count, unit);
    let second = moment.second_of_day();
    let mut text = String::new();
    if let Some(date) = moment.date() {
        // Writing to a text cannot fail.
        let _ = write!(text, "{:04}-{:02}-{:02}", date.year(), date.month(), date.day());
    }
    let _ = write!(text, "T{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
    if moment.nanos > 0 {
        let fraction = format!("{:09}", moment.nanos);
        let _ = write!(text, ".{}", fraction.trim_end_matches('0'));
    }
    if is_instant {
        text.push('Z');
    }
    text
}

/// A value of a call, in the form that the text in front of it says.
fn formed(column: &ArrayRef, form: &str, row: usize) -> Result<Json> {
    if form == "VALUE" || column.is_null(row) {
        return to_json(column, row);
    }
    let Some(text) = column.as_string_opt::<i32>().map(|texts| texts.value(row)) else {
        return exec_err!("JSON(…) takes text");
    };
    Json::read(text).ok_or_else(|| DataFusionError::Execution(format!("'{text}' is no JSON")))
}

fn object(call: &Call<'_>) -> Result<ArrayRef> {
    let absent = call.texts(0)?.get(0) == Some("ABSENT");
    let entries: Vec<usize> = (1..call.len()).step_by(3).collect();
    let columns = entries.iter().map(|entry| call.column(entry + 2)).collect::<Result<Vec<_>>>()?;
    call.try_text_rows(|row, out| {
        let mut object = Vec::with_capacity(entries.len());
        for (entry, column) in entries.iter().zip(&columns) {
            let Some(key) = call.texts(*entry)?.get(row) else { return exec_err!("JSON_OBJECT: a key is null") };
            let form = call.texts(entry + 1)?.get(row).unwrap_or("VALUE");
            if !(absent && column.is_null(row)) {
                put(&mut object, key.to_owned(), formed(column, form, row)?);
            }
        }
        Json::Object(object).write(out);
        Ok(Some(()))
    })
}

fn array(call: &Call<'_>) -> Result<ArrayRef> {
    let absent = call.texts(0)?.get(0) == Some("ABSENT");
    let items: Vec<usize> = (1..call.len()).step_by(2).collect();
    let columns = items.iter().map(|item| call.column(item + 1)).collect::<Result<Vec<_>>>()?;
    call.try_text_rows(|row, out| {
        let mut array = Vec::with_capacity(items.len());
        for (item, column) in items.iter().zip(&columns) {
            let form = call.texts(*item)?.get(row).unwrap_or("VALUE");
            if !(absent && column.is_null(row)) {
                array.push(formed(column, form, row)?);
            }
        }
        Json::Array(array).write(out);
        Ok(Some(()))
    })
}

fn quote(call: &Call<'_>) -> Result<ArrayRef> {
    let texts = call.texts(0)?;
    call.text_rows(|row, out| {
        let mut quoted = String::new();
        write_text(&mut quoted, texts.get(row)?);
        for c in quoted.chars() {
            match c {
                '/' => out.push_str("\\/"),
                c if c.is_ascii() => out.push(c),
                c => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                    let _ = write!(out, "\\u{unit:04x}");
                }),
            }
        }
        Some(())
    })
}

fn unquote(call: &Call<'_>) -> Result<ArrayRef> {
    let texts = call.texts(0)?;
    call.text_rows(|row, out| {
        let text = texts.get(row)?;
        let is_quoted = text.len() > 1 && text.starts_with('"') && text.ends_with('"');
        match if is_quoted { Json::read(text) } else { None } {
            Some(Json::Text(inner)) => out.push_str(&inner),
            _ => out.push_str(text),
        }
        Some(())
    })
}
