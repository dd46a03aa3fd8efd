//! Flink's types and Arrow's: reading, writing, and which convert without being asked.
//!
//! A timestamp or a time is held in the coarsest unit that has the digits of its precision: milliseconds, microseconds or
//! nanoseconds. `TIMESTAMP_LTZ` is one in UTC.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use sqlparser::ast;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use crate::error::{Fault, Result};
pub(crate) use crate::flink_types::type_name;
use crate::flink_types::{DIGITS, LENGTH, PADDED};
use crate::words::{Words, ident};

const DECIMAL_PRECISION_MAX: u64 = 38;
/// Digits of a second.
const TIME_PRECISION_MAX: u64 = 9;
/// The precision of a timestamp that has none written, as in Flink; a time has 0.
const TIMESTAMP_PRECISION: u64 = 6;
/// Types nest, and so does the parser: deeper than this is no table but an attack.
const DEPTH_MAX: usize = 32;

/// `TIMESTAMP(3)`: what Flink's functions of time return, and windows begin and end with.
pub(crate) const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

/// `TIMESTAMP_LTZ(3)`.
pub(crate) fn timestamp_ltz() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()))
}

/// The types that there are.
pub(crate) const NAMES: &[&str] = &[
    "STRING",
    "VARCHAR",
    "CHAR",
    "BOOLEAN",
    "TINYINT",
    "SMALLINT",
    "INT",
    "INTEGER",
    "BIGINT",
    "FLOAT",
    "DOUBLE",
    "DECIMAL",
    "NUMERIC",
    "DATE",
    "TIME",
    "TIMESTAMP",
    "TIMESTAMP_LTZ",
    "BYTES",
    "VARBINARY",
    "BINARY",
    "ROW",
    "ARRAY",
    "MAP",
];

/// Reads a type in Flink's notation.
pub(crate) fn parse_type(words: &mut Words<'_>) -> Result<DataType> {
    nested_type(words, 0)
}

fn nested_type(words: &mut Words<'_>, depth: usize) -> Result<DataType> {
    if depth > DEPTH_MAX {
        return Err(Fault::new(format!("the type is nested more than {DEPTH_MAX} deep")).at(words.peek_span()));
    }
    let name = ident(words, "a type")?;
    let upper = name.value.to_uppercase();
    Ok(match upper.as_str() {
        "STRING" | "TEXT" => DataType::Utf8,
        "VARCHAR" | "CHAR" => sized(words, DataType::Utf8)?,
        "BYTES" => DataType::Binary,
        "VARBINARY" | "BINARY" => sized(words, DataType::Binary)?,
        "BOOLEAN" => DataType::Boolean,
        "TINYINT" => DataType::Int8,
        "SMALLINT" => DataType::Int16,
        "INT" | "INTEGER" => DataType::Int32,
        "BIGINT" => DataType::Int64,
        "FLOAT" => DataType::Float32,
        "DOUBLE" => {
            words.accept("PRECISION");
            DataType::Float64
        }
        "DECIMAL" | "NUMERIC" | "DEC" => decimal(words, name.span)?,
        "DATE" => DataType::Date32,
        "TIME" => time_of_precision(time_precision(words)?.unwrap_or(0)),
        "TIMESTAMP" => timestamp(words)?,
        "TIMESTAMP_LTZ" => timestamp_of_precision(time_precision(words)?.unwrap_or(TIMESTAMP_PRECISION), true),
        "ROW" => row(words, depth)?,
        "ARRAY" => {
            words.expect(&Token::Lt)?;
            let item = nested_type(words, depth + 1)?;
            let nullable = !not_null(words);
            words.expect(&Token::Gt)?;
            DataType::List(Arc::new(Field::new("item", item, nullable)))
        }
        "MAP" => map(words, depth)?,
        _ => {
            let near = coulee_runtime::options::nearest(&upper, NAMES);
            let help = near.map_or(format!("types: {}", NAMES.join(", ")), |near| format!("did you mean {near}?"));
            return Err(Fault::new(format!("unknown type '{}'", name.value)).at(name.span).help(help));
        }
    })
}

/// Skips `(n)`: a length or precision that does not change how values are held.
fn sized(words: &mut Words<'_>, data_type: DataType) -> Result<DataType> {
    if words.accept_token(&Token::LParen) {
        words.number()?;
        words.expect(&Token::RParen)?;
    }
    Ok(data_type)
}

fn timestamp(words: &mut Words<'_>) -> Result<DataType> {
    let precision = time_precision(words)?.unwrap_or(TIMESTAMP_PRECISION);
    let is_local = words.accept_all(&["WITH", "LOCAL", "TIME", "ZONE"]);
    if !is_local {
        words.accept_all(&["WITHOUT", "TIME", "ZONE"]);
    }
    Ok(timestamp_of_precision(precision, is_local))
}

/// Reads `(p)`: how many digits of a second there are.
fn time_precision(words: &mut Words<'_>) -> Result<Option<u64>> {
    if !words.accept_token(&Token::LParen) {
        return Ok(None);
    }
    let span = words.peek_span();
    let precision = words.number()?;
    words.expect(&Token::RParen)?;
    if precision > TIME_PRECISION_MAX {
        let message = format!("a second has no {precision} digits: expected a precision of 0 to {TIME_PRECISION_MAX}");
        return Err(Fault::new(message).at(span));
    }
    Ok(Some(precision))
}

/// The coarsest unit that has so many digits of a second.
fn unit_of_precision(precision: u64) -> TimeUnit {
    match precision {
        0..=3 => TimeUnit::Millisecond,
        4..=6 => TimeUnit::Microsecond,
        _ => TimeUnit::Nanosecond,
    }
}

/// `TIMESTAMP(p)` or `TIMESTAMP_LTZ(p)`.
pub(crate) fn timestamp_of_precision(precision: u64, is_local: bool) -> DataType {
    DataType::Timestamp(unit_of_precision(precision), is_local.then(|| "+00:00".into()))
}

/// `TIME(p)`.
fn time_of_precision(precision: u64) -> DataType {
    match unit_of_precision(precision) {
        unit @ (TimeUnit::Second | TimeUnit::Millisecond) => DataType::Time32(unit),
        unit => DataType::Time64(unit),
    }
}

fn decimal(words: &mut Words<'_>, span: sqlparser::tokenizer::Span) -> Result<DataType> {
    let (mut precision, mut scale) = (10, 0);
    if words.accept_token(&Token::LParen) {
        precision = words.number()?;
        if words.accept_token(&Token::Comma) {
            scale = words.number()?;
        }
        words.expect(&Token::RParen)?;
    }
    if precision == 0 || precision > DECIMAL_PRECISION_MAX || scale > precision {
        let message = format!(
            "DECIMAL({precision}, {scale}) does not exist: expected a precision of 1 to {DECIMAL_PRECISION_MAX} and a scale up to it"
        );
        return Err(Fault::new(message).at(span));
    }
    Ok(DataType::Decimal128(precision as u8, scale as i8))
}

fn row(words: &mut Words<'_>, depth: usize) -> Result<DataType> {
    let close = if words.accept_token(&Token::LParen) { Token::RParen } else { Token::Gt };
    if close == Token::Gt {
        words.expect(&Token::Lt)?;
    }
    let mut fields = Vec::new();
    loop {
        let name = ident(words, "a field's name")?;
        let data_type = nested_type(words, depth + 1)?;
        fields.push(Field::new(name.value, data_type, !not_null(words)));
        words.comment_text();
        if !words.accept_token(&Token::Comma) {
            break;
        }
    }
    words.expect(&close)?;
    Ok(DataType::Struct(Fields::from(fields)))
}

fn map(words: &mut Words<'_>, depth: usize) -> Result<DataType> {
    words.expect(&Token::Lt)?;
    let key = nested_type(words, depth + 1)?;
    not_null(words);
    words.expect(&Token::Comma)?;
    let value = nested_type(words, depth + 1)?;
    let nullable = !not_null(words);
    words.expect(&Token::Gt)?;
    let entries = vec![Field::new("keys", key, false), Field::new("values", value, nullable)];
    Ok(DataType::Map(Arc::new(Field::new("entries", DataType::Struct(Fields::from(entries)), false)), false))
}

/// Reads `NOT NULL` or `NULL`.
pub(crate) fn not_null(words: &mut Words<'_>) -> bool {
    if words.accept_all(&["NOT", "NULL"]) {
        return true;
    }
    words.accept("NULL");
    false
}

/// The type of `CAST(… AS type)`, where Flink means something else by it than DataFusion.
pub(crate) fn cast_type(parsed: &ast::DataType) -> Option<DataType> {
    match parsed {
        ast::DataType::Timestamp(precision, zone) => {
            let is_local = !matches!(zone, ast::TimezoneInfo::None | ast::TimezoneInfo::WithoutTimeZone);
            Some(timestamp_of_precision(precision.unwrap_or(TIMESTAMP_PRECISION), is_local))
        }
        ast::DataType::Time(precision, _) => Some(time_of_precision(precision.unwrap_or(0))),
        ast::DataType::Float(_) => Some(DataType::Float32),
        ast::DataType::Decimal(ast::ExactNumberInfo::None) | ast::DataType::Numeric(ast::ExactNumberInfo::None) => {
            Some(DataType::Decimal128(10, 0))
        }
        ast::DataType::Custom(name, modifiers) => {
            let word = name.to_string().to_uppercase();
            let number = modifiers.first().and_then(|precision| precision.parse().ok());
            match word.as_str() {
                "TIMESTAMP_LTZ" => Some(timestamp_of_precision(number.unwrap_or(TIMESTAMP_PRECISION), true)),
                "STRING" => Some(DataType::Utf8),
                _ => None,
            }
        }
        ast::DataType::Bytes(_) | ast::DataType::Binary(_) | ast::DataType::Varbinary(_) => Some(DataType::Binary),
        ast::DataType::Varchar(_) | ast::DataType::Char(_) => Some(DataType::Utf8),
        _ => None,
    }
}

/// The field of `CAST(… AS type)`: its metadata says what the type of values does not hold, see `flink_types::cast`.
pub(crate) fn cast_field(parsed: &ast::DataType, data_type: DataType) -> Field {
    let mut said: Vec<(&str, String)> = Vec::new();
    let length = |length: &Option<ast::CharacterLength>| match length {
        Some(ast::CharacterLength::IntegerLength { length, .. }) => Some(*length),
        _ => None,
    };
    let sized = match parsed {
        ast::DataType::Varchar(size) => length(size).map(|length| (length, false)),
        ast::DataType::Char(size) => Some((length(size).unwrap_or(1), true)),
        ast::DataType::Binary(size) => Some((size.unwrap_or(1), true)),
        ast::DataType::Varbinary(Some(ast::BinaryLength::IntegerLength { length })) => Some((*length, false)),
        _ => None,
    };
    if let Some((length, is_padded)) = sized {
        said.push((LENGTH, length.to_string()));
        said.extend(is_padded.then(|| (PADDED, String::new())));
    }
    let digits = match parsed {
        ast::DataType::Timestamp(digits, _) => digits.map(|digits| digits.to_string()),
        ast::DataType::Time(digits, _) => Some(digits.unwrap_or(0).to_string()),
        ast::DataType::Custom(_, modifiers) if data_type.is_temporal() => modifiers.first().cloned(),
        _ => None,
    };
    said.extend(digits.map(|digits| (DIGITS, digits)));
    let metadata = said.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Field::new("", data_type, true).with_metadata(metadata)
}

/// A message of Arrow's or DataFusion's with Flink's names of types in place of Arrow's: `Utf8` is STRING, `Timestamp(ms)` TIMESTAMP(3).
pub(crate) fn with_sql_types(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        if length == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        let (word, behind) = rest.split_at(length);
        let arguments = behind.strip_prefix('(').and_then(|inner| Some(&inner[..closing(inner)?]));
        let (name, taken) = sql_type(word, arguments.unwrap_or_default());
        out.push_str(&name);
        let skipped = if taken { arguments.map_or(0, |arguments| arguments.len() + 2) } else { 0 };
        rest = &behind[skipped..];
    }
    out
}

/// Where the bracket closes that stands open in front of a text.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 1_usize;
    text.char_indices().find_map(|(at, c)| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        (depth == 0).then_some(at)
    })
}

/// Flink's name for a type of Arrow's, and whether it replaces the arguments too; any other word as it is.
fn sql_type(word: &str, arguments: &str) -> (String, bool) {
    let plain = match word {
        "Utf8" | "LargeUtf8" | "Utf8View" => "STRING",
        "Binary" | "LargeBinary" | "BinaryView" => "BYTES",
        "Boolean" => "BOOLEAN",
        "Int8" => "TINYINT",
        "Int16" => "SMALLINT",
        "Int32" => "INT",
        "Int64" | "UInt64" | "UInt32" => "BIGINT",
        "Float32" => "FLOAT",
        "Float64" => "DOUBLE",
        "Date32" | "Date64" => "DATE",
        "Decimal32" | "Decimal64" | "Decimal128" | "Decimal256" => "DECIMAL",
        "Time32" | "Time64" if !arguments.is_empty() => return ("TIME".into(), true),
        "Interval" if !arguments.is_empty() => return ("INTERVAL".into(), true),
        "Timestamp" if !arguments.is_empty() => {
            let unit = arguments.split(',').next().unwrap_or_default().trim();
            let digits = match unit {
                "s" | "Second" => 0,
                "µs" | "us" | "Microsecond" => 6,
                "ns" | "Nanosecond" => 9,
                _ => 3,
            };
            let zone = if arguments.contains('"') { "_LTZ" } else { "" };
            return (format!("TIMESTAMP{zone}({digits})"), true);
        }
        other => other,
    };
    (plain.into(), false)
}

/// Whether a value of one type goes into a column of another by itself: Flink's implicit casts, which lose nothing but (from exact to
/// floating numbers) digits, and the other direction of nothing.
pub(crate) fn converts(from: &DataType, to: &DataType) -> bool {
    use DataType::*;
    if from == to || *from == Null {
        return true;
    }
    match (from, to) {
        (Int8, Int16 | Int32 | Int64) | (Int16, Int32 | Int64) | (Int32, Int64) => true,
        (UInt8, Int16 | Int32 | Int64) | (UInt16, Int32 | Int64) | (UInt32 | UInt64, Int64) => true,
        (Decimal128(p, s), Decimal128(to_p, to_s)) => {
            s <= to_s && i16::from(*p) - i16::from(*s) <= i16::from(*to_p) - i16::from(*to_s)
        }
        (_, Decimal128(p, s)) if from.is_integer() => integer_digits(from) <= i16::from(*p) - i16::from(*s),
        (_, Float32 | Float64) if from.is_integer() => true,
        (Float32 | Decimal128(..), Float64) | (Decimal128(..), Float32) => true,
        (Utf8 | LargeUtf8 | Utf8View, Utf8) | (Binary | LargeBinary | BinaryView | FixedSizeBinary(_), Binary) => true,
        (Timestamp(..) | Date32, Timestamp(..)) => true,
        (Time32(_) | Time64(_), Time32(_) | Time64(_)) => true,
        (Struct(from), Struct(to)) => {
            from.len() == to.len() && from.iter().zip(to).all(|(a, b)| converts(a.data_type(), b.data_type()))
        }
        (List(from), List(to)) => converts(from.data_type(), to.data_type()),
        (Map(from, _), Map(to, _)) => converts(from.data_type(), to.data_type()),
        _ => false,
    }
}

fn integer_digits(data_type: &DataType) -> i16 {
    match data_type {
        DataType::Int8 | DataType::UInt8 => 3,
        DataType::Int16 | DataType::UInt16 => 5,
        DataType::Int32 | DataType::UInt32 => 10,
        _ => 19,
    }
}

/// Parses an expression, leaving the cursor behind it.
pub(crate) fn parse_expr(words: &mut Words<'_>) -> Result<ast::Expr> {
    words.parse(Parser::parse_expr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_sql_types() {
        for (from, to) in [
            ("Int32 + Utf8 to valid types", "INT + STRING to valid types"),
            ("'Timestamp(ms)' and Timestamp(ns, \"+00:00\")", "'TIMESTAMP(3)' and TIMESTAMP_LTZ(9)"),
            ("Timestamp(Millisecond, None)", "TIMESTAMP(3)"),
            ("Decimal128(10, 2), Interval(MonthDayNano)", "DECIMAL(10, 2), INTERVAL"),
            ("the column Utf8x of Binary_1 (Int64)", "the column Utf8x of Binary_1 (BIGINT)"),
            ("ä Utf8(", "ä STRING("),
        ] {
            assert_eq!(with_sql_types(from), to);
        }
    }
}
