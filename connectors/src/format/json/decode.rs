//! JSON objects to columns, in one pass over the bytes: a needed field is parsed straight into its column, any other is
//! checked and skipped.
//!
//! A record is one complete object, or an array of them, which are as many rows; a truncated one and one with anything
//! behind it are refused. Of fields with the same name the last wins, as in Jackson and `serde_json`. Numbers, booleans and
//! nested values are taken as text by a STRING column, and numbers in quotes by a numeric one, as Flink does.

use std::borrow::Cow;
use std::collections::HashMap;

use arrow::datatypes::{DataType, Fields as ArrowFields, SchemaRef, TimeUnit};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use coulee_runtime::{Batch, Error, Result};

use super::column::{Column, Leniency, Values, Varied};
use super::scan::{Scanner, Syntax, Text};
use crate::format::decimal::parse_decimal;
use crate::format::plain::{parse_float32, parse_float64, truth, whole_as};
use crate::format::temporal::{
    in_unit, parse_date, parse_time, parse_timestamp, per_second, range_of, timestamp_of_millis,
};
use crate::format::{Record, RecordDecoder, Reject, sql_type};

pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Up to so many columns, comparing a key with each of them (by length first) is cheaper than hashing it.
const SCANNED_COLUMNS_MAX: usize = 16;

/// How much of a wrong value an error quotes, in characters.
const QUOTED_CHARACTERS_MAX: usize = 40;

/// Why a record is refused.
#[derive(Debug)]
enum Fault {
    /// The text is not JSON.
    Syntax(Syntax),
    /// A value does not fit its column. The path grows on the way out.
    Value(Box<(String, String)>),
}

impl From<Syntax> for Fault {
    fn from(syntax: Syntax) -> Self {
        Fault::Syntax(syntax)
    }
}

#[cold]
fn wrong<T>(message: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Value(Box::new((String::new(), message.into()))))
}

/// The fields of an object and their columns.
#[derive(Debug)]
pub struct Fields {
    names: Vec<Box<[u8]>>,
    columns: Vec<Column>,
    by_name: HashMap<Box<[u8]>, usize>,
    leniency: Leniency,
    /// The column behind the one found last: records tend to have their keys in one order.
    next: usize,
    unescaped: Vec<u8>,
}

impl Fields {
    /// Empty columns for `fields`.
    ///
    /// # Errors
    /// `Invalid` when a type cannot be read from JSON.
    pub fn new(fields: &ArrowFields, leniency: Leniency) -> Result<Self> {
        let names: Vec<Box<[u8]>> = fields.iter().map(|field| field.name().as_bytes().into()).collect();
        let columns = fields.iter().map(|field| Column::new(field, leniency)).collect::<Result<Vec<_>>>()?;
        let mut by_name = HashMap::new();
        if names.len() > SCANNED_COLUMNS_MAX {
            by_name.extend(names.iter().enumerate().map(|(i, name)| (name.clone(), i)));
        }
        Ok(Fields { names, columns, by_name, leniency, next: 0, unescaped: Vec::new() })
    }

    /// The columns, in order.
    pub fn columns_mut(&mut self) -> impl Iterator<Item = &mut Column> {
        self.columns.iter_mut()
    }

    #[inline]
    fn find(&mut self, key: Text<'_>) -> Option<usize> {
        if key.escaped {
            return self.find_escaped(key);
        }
        let found = self.find_name(key.raw)?;
        self.next = found + 1;
        Some(found)
    }

    #[cold]
    fn find_escaped(&mut self, key: Text<'_>) -> Option<usize> {
        let mut name = std::mem::take(&mut self.unescaped);
        name.clear();
        let found = key.unescape(&mut name).ok().and_then(|()| self.find_name(&name));
        self.unescaped = name;
        found
    }

    #[inline]
    fn find_name(&self, name: &[u8]) -> Option<usize> {
        if self.names.get(self.next).is_some_and(|next| **next == *name) {
            return Some(self.next);
        }
        if self.names.len() > SCANNED_COLUMNS_MAX {
            return self.by_name.get(name).copied();
        }
        self.names.iter().position(|known| **known == *name)
    }

    /// Appends an object as row `row`; stands at its brace.
    fn append(&mut self, scanner: &mut Scanner<'_>, row: usize) -> Result<(), Fault> {
        scanner.take(b'{', "a JSON object")?;
        self.next = 0;
        let mut seen = 0;
        if !scanner.take_if(b'}') {
            loop {
                let key = scanner.key()?;
                match self.find(key) {
                    None => scanner.skip_value()?,
                    Some(found) => {
                        let column = &mut self.columns[found];
                        if column.len() > row {
                            column.truncate(row);
                            seen -= 1;
                        }
                        column.append(scanner).map_err(|fault| self.within(found, fault))?;
                        seen += 1;
                    }
                }
                if !scanner.take_if(b',') {
                    break;
                }
            }
            scanner.take(b'}', "',' or '}'")?;
        }
        if seen < self.columns.len() {
            self.append_missing(row)?;
        }
        Ok(())
    }

    fn append_missing(&mut self, row: usize) -> Result<(), Fault> {
        for i in 0..self.columns.len() {
            if self.columns[i].len() > row {
                continue;
            }
            if self.leniency.fail_on_missing || !self.columns[i].nullable {
                return wrong("is missing").map_err(|fault| self.within(i, fault));
            }
            self.columns[i].push_null();
        }
        Ok(())
    }

    #[cold]
    fn within(&self, column: usize, fault: Fault) -> Fault {
        match fault {
            Fault::Value(mut value) => {
                let name = String::from_utf8_lossy(&self.names[column]);
                value.0 = if value.0.is_empty() { name.into_owned() } else { format!("{name}.{}", value.0) };
                Fault::Value(value)
            }
            syntax => syntax,
        }
    }
}

impl Column {
    /// Appends the value that the scanner stands before, or null for one that does not fit when such errors are ignored.
    /// After an error, `truncate` restores the column.
    #[inline]
    fn append(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Fault> {
        let start = scanner.position();
        let appended = self.append_value(scanner);
        if self.ignore_parse_errors && appended.is_err() {
            return self.append_null_instead(appended, scanner, start);
        }
        appended
    }

    /// The scanner stopped somewhere within a value that begins at `start`: passes it over whole, and appends null.
    #[cold]
    fn append_null_instead(
        &mut self,
        appended: Result<(), Fault>,
        scanner: &mut Scanner<'_>,
        start: usize,
    ) -> Result<(), Fault> {
        match appended {
            Err(Fault::Value(_)) if self.nullable => {
                scanner.go_to(start);
                scanner.skip_value()?;
                self.truncate(self.len());
                self.push_null();
                Ok(())
            }
            other => other,
        }
    }

    #[inline(always)]
    fn append_value(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Fault> {
        let row = self.len();
        match scanner.peek() {
            Some(b'n') => return self.append_null(scanner),
            None => scanner.fail("a value")?,
            Some(_) => {}
        }
        let ty = &self.data_type;
        match &mut self.values {
            Values::Boolean(values) => values.push(boolean(scanner, ty)?),
            Values::Int8(values) => values.push(integer(scanner, ty)?),
            Values::Int16(values) => values.push(integer(scanner, ty)?),
            Values::Int32(values) => values.push(integer(scanner, ty)?),
            Values::Int64(values) => values.push(integer(scanner, ty)?),
            Values::Float32(values) => values.push(parsed(scanner, ty, |text| parse_float32(text.trim()))?),
            Values::Float64(values) => values.push(parsed(scanner, ty, |text| parse_float64(text.trim()))?),
            Values::Decimal(values, precision, scale) => {
                let (precision, scale) = (*precision, *scale);
                values.push(parsed(scanner, ty, |text| parse_decimal(text.trim().as_bytes(), precision, scale))?);
            }
            Values::Utf8(varied) => append_text(scanner, varied)?,
            Values::Binary(varied) => append_bytes(scanner, ty, varied)?,
            Values::Date(values) => values.push(temporal(scanner, ty, parse_date)?),
            Values::Time(values, unit) => {
                let unit = *unit;
                let nanos = temporal(scanner, ty, parse_time)?;
                values.push(nanos / (1_000_000_000 / per_second(unit)));
            }
            Values::Timestamp(values, unit) => values.push(timestamp(scanner, ty, *unit)?),
            Values::List(varied, _) => append_list(scanner, ty, varied)?,
            Values::Map(keys, values, _) => append_map(scanner, ty, keys, values)?,
            Values::Struct(fields) => {
                if scanner.peek() != Some(b'{') {
                    return mismatch(scanner, ty);
                }
                fields.append(scanner, row)?;
            }
        }
        self.mark_valid();
        Ok(())
    }

    fn append_null(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Fault> {
        scanner.literal("null")?;
        if !self.nullable {
            return wrong(format!("expected {} NOT NULL, found null", sql_type(&self.data_type)));
        }
        self.push_null();
        Ok(())
    }
}

/// Takes the value and says that it is not what the column expects.
#[cold]
fn mismatch<T>(scanner: &mut Scanner<'_>, ty: &DataType) -> Result<T, Fault> {
    let first = scanner.peek();
    let start = scanner.position();
    scanner.skip_value()?;
    let found = scanner.since(start);
    let found = match first {
        Some(b'{') => "an object".to_owned(),
        Some(b'[') => "an array".to_owned(),
        Some(b'"') => format!("text {}", quoted(found)),
        Some(b't' | b'f') => quoted(found),
        _ => format!("number {}", quoted(found)),
    };
    wrong(format!("expected {}, found {found}", sql_type(ty)))
}

pub fn quoted(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match text.char_indices().nth(QUOTED_CHARACTERS_MAX) {
        None => text.into_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// Reads a number or a text through its characters; what does not parse is quoted in the error.
#[inline]
fn parsed<T>(scanner: &mut Scanner<'_>, ty: &DataType, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Fault> {
    let start = scanner.position();
    let raw = match scanner.peek() {
        Some(b'"') => {
            let text = scanner.string()?;
            if text.escaped {
                return parsed_escaped(scanner.since(start), text, ty, parse);
            }
            text.raw
        }
        Some(b'-' | b'0'..=b'9') => scanner.number()?.0,
        _ => return mismatch(scanner, ty),
    };
    match std::str::from_utf8(raw).ok().and_then(parse) {
        Some(value) => Ok(value),
        None => unparsed(scanner.since(start), ty),
    }
}

#[cold]
fn parsed_escaped<T>(
    written: &[u8],
    text: Text<'_>,
    ty: &DataType,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, Fault> {
    match std::str::from_utf8(&unescaped(text)).ok().and_then(parse) {
        Some(value) => Ok(value),
        None => unparsed(written, ty),
    }
}

/// The characters of a text with escapes; not UTF-8, and so no value, when it has half of a surrogate pair.
#[cold]
fn unescaped(text: Text<'_>) -> Cow<'_, [u8]> {
    let mut characters = Vec::with_capacity(text.raw.len());
    match text.unescape(&mut characters) {
        Ok(()) => Cow::Owned(characters),
        Err(_) => Cow::Borrowed(b"\xff"),
    }
}

#[cold]
fn unparsed<T>(written: &[u8], ty: &DataType) -> Result<T, Fault> {
    let kind = if written.first() == Some(&b'"') { "text" } else { "number" };
    let range = match ty {
        DataType::Timestamp(unit, _) => format!(" from {}", range_of(*unit)),
        _ => String::new(),
    };
    wrong(format!("expected {}{range}, found {kind} {}", sql_type(ty), quoted(written)))
}

#[inline]
fn integer<T: TryFrom<i64>>(scanner: &mut Scanner<'_>, ty: &DataType) -> Result<T, Fault> {
    parsed(scanner, ty, |text| whole_as(text.trim()))
}

fn boolean(scanner: &mut Scanner<'_>, ty: &DataType) -> Result<bool, Fault> {
    match scanner.peek() {
        Some(b't') => Ok(scanner.literal("true").map(|()| true)?),
        Some(b'f') => Ok(scanner.literal("false").map(|()| false)?),
        Some(b'"') => parsed(scanner, ty, truth),
        _ => mismatch(scanner, ty),
    }
}

fn temporal<T>(scanner: &mut Scanner<'_>, ty: &DataType, parse: fn(&[u8]) -> Option<T>) -> Result<T, Fault> {
    match scanner.peek() {
        Some(b'"') => parsed(scanner, ty, |text| parse(text.as_bytes())),
        _ => mismatch(scanner, ty),
    }
}

/// A text in either standard, or a number of milliseconds since the epoch.
#[inline]
fn timestamp(scanner: &mut Scanner<'_>, ty: &DataType, unit: TimeUnit) -> Result<i64, Fault> {
    match scanner.peek() {
        Some(b'"') => parsed(scanner, ty, |text| {
            let (seconds, nanos) = parse_timestamp(text.as_bytes())?;
            in_unit(seconds, nanos, unit)
        }),
        _ => parsed(scanner, ty, |text| timestamp_of_millis(whole_as(text)?, unit)),
    }
}

#[inline]
fn append_text(scanner: &mut Scanner<'_>, varied: &mut Varied<Vec<u8>>) -> Result<(), Fault> {
    if scanner.peek() == Some(b'"') {
        let text = scanner.string()?;
        if !text.escaped {
            varied.values.extend_from_slice(text.raw);
        } else if let Err(reason) = text.unescape(&mut varied.values) {
            return wrong(format!("expected STRING, found {reason} in {}", quoted(text.raw)));
        }
    } else {
        let start = scanner.position();
        scanner.skip_value()?;
        varied.values.extend_from_slice(scanner.since(start));
    }
    end_value(varied)
}

fn append_bytes(scanner: &mut Scanner<'_>, ty: &DataType, varied: &mut Varied<Vec<u8>>) -> Result<(), Fault> {
    if scanner.peek() != Some(b'"') {
        return mismatch(scanner, ty);
    }
    let text = scanner.string()?;
    // Some writers escape '/' and '+'.
    let encoded = if text.escaped { unescaped(text) } else { Cow::Borrowed(text.raw) };
    if BASE64_STANDARD.decode_vec(encoded.as_ref(), &mut varied.values).is_err() {
        return wrong(format!("expected BYTES as base64, found text {}", quoted(text.raw)));
    }
    end_value(varied)
}

#[inline]
fn end_value(varied: &mut Varied<Vec<u8>>) -> Result<(), Fault> {
    match i32::try_from(varied.values.len()) {
        Ok(end) => varied.offsets.push(end),
        Err(_) => return wrong("the texts of one batch take more than 2 GB"),
    }
    Ok(())
}

fn append_list(scanner: &mut Scanner<'_>, ty: &DataType, varied: &mut Varied<Box<Column>>) -> Result<(), Fault> {
    if scanner.peek() != Some(b'[') {
        return mismatch(scanner, ty);
    }
    scanner.take(b'[', "'['")?;
    if !scanner.take_if(b']') {
        loop {
            varied.values.append(scanner)?;
            if !scanner.take_if(b',') {
                break;
            }
        }
        scanner.take(b']', "',' or ']'")?;
    }
    varied.offsets.push(varied.values.len() as i32);
    Ok(())
}

fn append_map(
    scanner: &mut Scanner<'_>,
    ty: &DataType,
    keys: &mut Varied<Box<Column>>,
    values: &mut Column,
) -> Result<(), Fault> {
    if scanner.peek() != Some(b'{') {
        return mismatch(scanner, ty);
    }
    scanner.take(b'{', "'{'")?;
    if !scanner.take_if(b'}') {
        loop {
            if scanner.peek() != Some(b'"') {
                scanner.fail("a field name in quotes")?;
            }
            keys.values.append(scanner)?;
            scanner.take(b':', "':'")?;
            values.append(scanner)?;
            if !scanner.take_if(b',') {
                break;
            }
        }
        scanner.take(b'}', "',' or '}'")?;
    }
    keys.offsets.push(keys.values.len() as i32);
    Ok(())
}

/// Decodes JSON objects into rows.
#[derive(Debug)]
pub struct JsonDecoder {
    schema: SchemaRef,
    fields: Fields,
    rows: usize,
}

impl JsonDecoder {
    /// For rows of `schema`.
    ///
    /// # Errors
    /// `Invalid` when a column's type cannot be read from JSON.
    pub fn new(schema: SchemaRef, leniency: Leniency) -> Result<Self> {
        let fields = Fields::new(schema.fields(), leniency)?;
        Ok(JsonDecoder { schema, fields, rows: 0 })
    }

    /// Appends an object, or each object of an array, and returns how many there were.
    #[inline]
    fn append(&mut self, record: &[u8]) -> Result<usize, Fault> {
        let mut scanner = Scanner::new(record);
        let rows = match scanner.peek() {
            Some(b'[') => self.append_array(&mut scanner)?,
            _ => {
                self.fields.append(&mut scanner, self.rows)?;
                1
            }
        };
        scanner.end()?;
        Ok(rows)
    }

    #[cold]
    fn append_array(&mut self, scanner: &mut Scanner<'_>) -> Result<usize, Fault> {
        scanner.take(b'[', "'['")?;
        let mut rows = 0;
        if !scanner.take_if(b']') {
            loop {
                self.fields.append(scanner, self.rows + rows)?;
                rows += 1;
                if !scanner.take_if(b',') {
                    break;
                }
            }
            scanner.take(b']', "',' or ']'")?;
        }
        Ok(rows)
    }
}

impl RecordDecoder for JsonDecoder {
    fn decode(&mut self, record: &Record<'_>) -> Result<usize, Reject> {
        let Some(value) = record.value else { return Ok(0) };
        let value = value.strip_prefix(BYTE_ORDER_MARK).unwrap_or(value);
        if let Err(error) = std::str::from_utf8(value) {
            return Err(Reject::new(format!("not UTF-8 at byte {}", error.valid_up_to())));
        }
        match self.append(value) {
            Ok(rows) => {
                self.rows += rows;
                Ok(rows)
            }
            Err(fault) => {
                let rows = self.rows;
                self.fields.columns_mut().for_each(|column| column.truncate(rows));
                Err(reject(value, fault))
            }
        }
    }

    fn len(&self) -> usize {
        self.rows
    }

    fn flush(&mut self) -> Result<Batch> {
        let rows = std::mem::take(&mut self.rows);
        let columns = self.fields.columns_mut().map(Column::take).collect::<Result<Vec<_>, _>>();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        columns
            .and_then(|columns| RecordBatch::try_new_with_options(self.schema.clone(), columns, &options))
            .map(Batch::inserts)
            .map_err(|error| Error::internal(format!("decoded JSON does not make a batch: {error}")).because(error))
    }
}

#[cold]
fn reject(record: &[u8], fault: Fault) -> Reject {
    match fault {
        Fault::Value(value) if value.1.starts_with("is missing") => {
            Reject::new(format!("field '{}' {}", value.0, value.1))
        }
        Fault::Value(value) => Reject::new(format!("field '{}': {}", value.0, value.1)),
        Fault::Syntax(syntax) => not_an_object(record, syntax),
    }
}

/// Where a record stops being a JSON object.
#[cold]
pub(super) fn not_an_object(record: &[u8], Syntax { at, expected }: Syntax) -> Reject {
    let rest = String::from_utf8_lossy(record.get(at..).unwrap_or_default());
    let found = match rest.chars().next() {
        None => "the end".to_owned(),
        Some(found) => format!("'{}'", found.escape_debug()),
    };
    Reject::new(format!("not a JSON object: expected {expected} at byte {at}, found {found}"))
}
