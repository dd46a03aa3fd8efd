//! Rows to delimited records.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, SchemaRef};
use coulee_runtime::{Batch, Result};

use super::settings::{Settings, check_columns};
use crate::format::{EncodedRows, PlainText, RecordEncoder};

/// Encodes rows as delimited records.
#[derive(Debug)]
pub(super) struct CsvEncoder {
    settings: Settings,
    header: Option<Vec<u8>>,
}

impl CsvEncoder {
    /// For rows of `schema`; with a header if files begin with one.
    ///
    /// # Errors
    /// `Invalid` when a column's type has no form in CSV.
    pub fn new(settings: Settings, schema: &SchemaRef, header: bool) -> Result<Self> {
        check_columns(schema)?;
        let mut encoder = CsvEncoder { settings, header: None };
        if header {
            let mut line = Vec::new();
            for (i, field) in schema.fields().iter().enumerate() {
                if i > 0 {
                    line.push(encoder.settings.dialect.delimiter);
                }
                encoder.append(field.name().as_bytes(), i == 0, &mut line);
            }
            encoder.header = Some(line);
        }
        Ok(encoder)
    }

    fn null(&self) -> &[u8] {
        self.settings.null.as_deref().unwrap_or_default().as_bytes()
    }

    /// Appends a field, quoted if its text needs it.
    fn append(&self, text: &[u8], first: bool, out: &mut Vec<u8>) {
        let dialect = &self.settings.dialect;
        let is_special = |byte: &u8| {
            matches!(*byte, b'\n' | b'\r')
                || *byte == dialect.delimiter
                || Some(*byte) == dialect.quote
                || Some(*byte) == dialect.escape
        };
        let is_comment = first && dialect.comments && text.first() == Some(&b'#');
        match dialect.quote {
            Some(quote) if is_comment || text.iter().any(is_special) => {
                out.push(quote);
                for byte in text {
                    if *byte == quote || Some(*byte) == dialect.escape {
                        out.push(if Some(*byte) == dialect.escape { *byte } else { quote });
                    }
                    out.push(*byte);
                }
                out.push(quote);
            }
            _ => out.extend_from_slice(text),
        }
    }
}

/// One column, by the form that its values have in a field.
enum Fields<'a> {
    Flat(PlainText<'a>),
    Items(&'a ArrayRef, PlainText<'a>),
    Parts(&'a ArrayRef, Vec<PlainText<'a>>),
}

impl<'a> Fields<'a> {
    fn new(column: &'a ArrayRef) -> Result<Self> {
        Ok(match column.data_type() {
            DataType::List(_) => Fields::Items(column, PlainText::new(column.as_list::<i32>().values())?),
            DataType::Struct(_) => {
                let parts = column.as_struct().columns().iter().map(PlainText::new).collect::<Result<_>>()?;
                Fields::Parts(column, parts)
            }
            _ => Fields::Flat(PlainText::new(column)?),
        })
    }

    /// Appends the text of a value; `false` when it is null.
    fn write(&self, row: usize, settings: &Settings, out: &mut Vec<u8>) -> Result<bool> {
        let null = settings.null.as_deref().unwrap_or_default().as_bytes();
        let delimiter = settings.element_delimiter.as_bytes();
        let part = |index: usize, text: &PlainText<'_>, row: usize, out: &mut Vec<u8>| {
            if index > 0 {
                out.extend_from_slice(delimiter);
            }
            if text.is_null(row) {
                out.extend_from_slice(null);
                return Ok(());
            }
            text.write(row, out)
        };
        match self {
            Fields::Flat(text) if text.is_null(row) => return Ok(false),
            Fields::Flat(text) => text.write(row, out)?,
            Fields::Items(column, _) | Fields::Parts(column, _) if column.is_null(row) => return Ok(false),
            Fields::Items(column, items) => {
                let offsets = column.as_list::<i32>().value_offsets();
                for (index, item) in (offsets[row] as usize..offsets[row + 1] as usize).enumerate() {
                    part(index, items, item, out)?;
                }
            }
            Fields::Parts(_, parts) => {
                for (index, text) in parts.iter().enumerate() {
                    part(index, text, row, out)?;
                }
            }
        }
        Ok(true)
    }
}

impl RecordEncoder for CsvEncoder {
    fn encode(&mut self, rows: &Batch) -> Result<EncodedRows> {
        let rows = rows.rows();
        let columns = rows.columns().iter().map(Fields::new).collect::<Result<Vec<_>>>()?;
        let mut encoded = EncodedRows::with_capacity(rows.num_rows());
        let mut text = Vec::new();
        for row in 0..rows.num_rows() {
            for (i, column) in columns.iter().enumerate() {
                if i > 0 {
                    encoded.bytes.push(self.settings.dialect.delimiter);
                }
                text.clear();
                match column.write(row, &self.settings, &mut text)? {
                    true => self.append(&text, i == 0, &mut encoded.bytes),
                    false => encoded.bytes.extend_from_slice(self.null()),
                }
            }
            // An empty line would be no record.
            if let ([_], Some(quote)) = (columns.as_slice(), self.settings.dialect.quote)
                && encoded.offsets.last() == Some(&encoded.bytes.len())
            {
                encoded.bytes.extend_from_slice(&[quote, quote]);
            }
            encoded.offsets.push(encoded.bytes.len());
        }
        Ok(encoded)
    }

    fn header(&self) -> Option<Vec<u8>> {
        self.header.clone()
    }
}
