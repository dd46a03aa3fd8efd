//! Delimited records (RFC 4180): columns by position, or by the names in a file's header.
//!
//! What ends a record is the caller's business: a record may hold line ends within quotes, but none at its end. Text is taken
//! as it stands; an empty field is null in any column that is not text.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, StringArray};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use coulee_runtime::{Error, Result};
use csv_core::ReadRecordResult;

use super::json::{Column, append_plain};
use super::{EncodedRows, FormatSettings, RecordDecoder, RecordEncoder, Reject, sql_type};

/// Decodes delimited records into rows.
#[derive(Debug)]
pub struct CsvDecoder {
    schema: SchemaRef,
    columns: Vec<Column>,
    /// Where each projected column stands in a record.
    places: Vec<usize>,
    /// How many fields a record has.
    width: usize,
    splitter: Splitter,
    null: Option<String>,
    rows: usize,
}

impl CsvDecoder {
    /// For records whose fields are `columns`, of which `projection` is wanted.
    ///
    /// # Errors
    /// `Invalid` when a column's type cannot be read from CSV.
    pub fn new(settings: &FormatSettings, columns: &SchemaRef, projection: &[usize]) -> Result<Self> {
        let schema = Arc::new(columns.project(projection)?);
        check_flat(&schema)?;
        let fresh = schema.fields().iter().map(|field| Column::new(field, false)).collect::<Result<_>>()?;
        Ok(CsvDecoder {
            columns: fresh,
            places: projection.to_vec(),
            width: columns.fields().len(),
            splitter: Splitter::new(settings),
            null: settings.csv_null.clone(),
            rows: 0,
            schema,
        })
    }

    fn append(&mut self) -> Result<(), String> {
        let found = self.splitter.count;
        if found != self.width {
            return Err(format!("expected {} fields, found {found}", self.width));
        }
        for (i, column) in self.columns.iter_mut().enumerate() {
            let name = || self.schema.field(i).name();
            let raw = self.splitter.field(self.places[i]);
            let text = std::str::from_utf8(raw).map_err(|_| format!("column '{}': not UTF-8", name()))?;
            let is_text = column.data_type == DataType::Utf8;
            if self.null.as_deref() == Some(text) || (text.is_empty() && !is_text) {
                if !column.nullable {
                    return Err(format!(
                        "column '{}': expected {} NOT NULL, found null",
                        name(),
                        sql_type(&column.data_type)
                    ));
                }
                column.push_null();
            } else {
                append_plain(column, text).map_err(|reason| format!("column '{}': {reason}", name()))?;
            }
        }
        Ok(())
    }
}

/// Only flat values have a form in CSV.
fn check_flat(schema: &Schema) -> Result<()> {
    match schema.fields().iter().find(|field| field.data_type().is_nested()) {
        None => Ok(()),
        Some(field) => {
            let (name, ty) = (field.name(), sql_type(field.data_type()));
            Err(Error::invalid(format!("column '{name}' has type {ty}, which has no form in CSV; use format 'json'")))
        }
    }
}

impl RecordDecoder for CsvDecoder {
    fn decode(&mut self, record: &[u8]) -> Result<(), Reject> {
        self.splitter.split(record);
        let result = self.append();
        if let Err(reason) = result {
            let rows = self.rows;
            self.columns.iter_mut().for_each(|column| column.truncate(rows));
            return Err(Reject::new(reason));
        }
        self.rows += 1;
        Ok(())
    }

    fn header(&mut self, record: &[u8]) -> Result<()> {
        self.splitter.split(record);
        let names: Vec<String> = (0..self.splitter.count)
            .map(|i| String::from_utf8_lossy(self.splitter.field(i)).trim().to_owned())
            .collect();
        for (place, field) in self.places.iter_mut().zip(self.schema.fields()) {
            *place = names.iter().position(|name| name == field.name()).ok_or_else(|| {
                Error::invalid(format!(
                    "the header has no column '{}'; it has: {}. If the file has no header, set 'csv.header' = 'false'",
                    field.name(),
                    names.join(", ")
                ))
            })?;
        }
        self.width = names.len();
        Ok(())
    }

    fn len(&self) -> usize {
        self.rows
    }

    fn flush(&mut self) -> Result<RecordBatch> {
        let columns = self.columns.iter_mut().map(Column::take).collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(std::mem::take(&mut self.rows)));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

/// Splits one record into fields, in buffers that are kept.
#[derive(Debug)]
struct Splitter {
    reader: csv_core::Reader,
    fields: Vec<u8>,
    ends: Vec<usize>,
    count: usize,
}

impl Splitter {
    fn new(settings: &FormatSettings) -> Self {
        let mut builder = csv_core::ReaderBuilder::new();
        builder.delimiter(settings.csv_delimiter);
        match settings.csv_quote {
            Some(quote) => builder.quote(quote),
            None => builder.quoting(false),
        };
        Splitter { reader: builder.build(), fields: vec![0; 1024], ends: vec![0; 32], count: 0 }
    }

    fn split(&mut self, record: &[u8]) {
        self.reader.reset();
        // Fields are never longer than the record.
        if self.fields.len() < record.len() {
            self.fields.resize(record.len(), 0);
        }
        let (mut read, mut written, mut ends) = (0, 0, 0);
        loop {
            let (result, consumed, filled, ended) =
                self.reader.read_record(&record[read..], &mut self.fields[written..], &mut self.ends[ends..]);
            read += consumed;
            written += filled;
            ends += ended;
            match result {
                // The end of the input, said by an empty one, ends the record.
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => self.fields.resize(self.fields.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record | ReadRecordResult::End => break,
            }
        }
        self.count = ends;
    }

    fn field(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.fields[start..self.ends[i]]
    }
}

/// Encodes rows as delimited records.
#[derive(Debug)]
pub struct CsvEncoder {
    delimiter: u8,
    quote: Option<u8>,
    null: String,
}

impl CsvEncoder {
    /// For rows of `schema`.
    ///
    /// # Errors
    /// `Invalid` when a column's type has no form in CSV.
    pub fn new(settings: &FormatSettings, schema: &SchemaRef) -> Result<Self> {
        check_flat(schema)?;
        let null = settings.csv_null.clone().unwrap_or_default();
        Ok(CsvEncoder { delimiter: settings.csv_delimiter, quote: settings.csv_quote, null })
    }

    /// The line of column names that a file begins with, without a line end.
    pub fn header(&self, schema: &Schema) -> Vec<u8> {
        let mut line = Vec::new();
        for (i, field) in schema.fields().iter().enumerate() {
            if i > 0 {
                line.push(self.delimiter);
            }
            self.append(field.name(), &mut line);
        }
        line
    }

    fn append(&self, text: &str, out: &mut Vec<u8>) {
        let special = |byte: u8| byte == self.delimiter || byte == b'\n' || byte == b'\r' || Some(byte) == self.quote;
        match self.quote {
            Some(quote) if text.bytes().any(special) => {
                out.push(quote);
                for byte in text.bytes() {
                    if byte == quote {
                        out.push(quote);
                    }
                    out.push(byte);
                }
                out.push(quote);
            }
            _ => out.extend_from_slice(text.as_bytes()),
        }
    }
}

/// Bytes are written as base64, as in JSON.
fn printable(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Binary => {
            let bytes: &BinaryArray = column.as_binary();
            Arc::new(bytes.iter().map(|value| value.map(|v| BASE64_STANDARD.encode(v))).collect::<StringArray>())
        }
        _ => column.clone(),
    }
}

impl RecordEncoder for CsvEncoder {
    fn encode(&mut self, rows: &RecordBatch) -> Result<EncodedRows> {
        let options = FormatOptions::new()
            .with_null(&self.null)
            .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.3f"))
            .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.3fZ"));
        let columns: Vec<ArrayRef> = rows.columns().iter().map(printable).collect();
        let formatters =
            columns.iter().map(|column| ArrayFormatter::try_new(column, &options)).collect::<Result<Vec<_>, _>>()?;
        let mut encoded = EncodedRows::with_capacity(rows.num_rows());
        let mut text = String::new();
        for row in 0..rows.num_rows() {
            for (i, formatter) in formatters.iter().enumerate() {
                if i > 0 {
                    encoded.bytes.push(self.delimiter);
                }
                if columns[i].is_null(row) {
                    encoded.bytes.extend_from_slice(self.null.as_bytes());
                    continue;
                }
                text.clear();
                formatter.value(row).write(&mut text)?;
                self.append(&text, &mut encoded.bytes);
            }
            encoded.offsets.push(encoded.bytes.len());
        }
        Ok(encoded)
    }
}
