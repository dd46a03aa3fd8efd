//! Delimited records to columns.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use coulee_runtime::{Batch, Error, Result};

use super::settings::{Settings, check_columns};
use super::split::Splitter;
use crate::format::json::Values;
use crate::format::{Column, Record, RecordDecoder, Reject, append_plain, sql_type};

/// Decodes delimited records into rows.
#[derive(Debug)]
pub(super) struct CsvDecoder {
    schema: SchemaRef,
    columns: Vec<Column>,
    /// Where each projected column stands in a record.
    places: Vec<usize>,
    /// How many fields a record has.
    width: usize,
    splitter: Splitter,
    null: Option<String>,
    element_delimiter: String,
    ignore_parse_errors: bool,
    rows: usize,
}

impl CsvDecoder {
    /// For records whose fields are `columns`, of which `projection` is wanted.
    ///
    /// # Errors
    /// `Invalid` when a column's type cannot be read from CSV.
    pub fn new(settings: Settings, columns: &SchemaRef, projection: &[usize]) -> Result<Self> {
        let schema = Arc::new(columns.project(projection)?);
        check_columns(&schema)?;
        let fresh =
            schema.fields().iter().map(|field| Column::new(field, Default::default())).collect::<Result<_>>()?;
        Ok(CsvDecoder {
            columns: fresh,
            places: projection.to_vec(),
            width: columns.fields().len(),
            splitter: Splitter::new(settings.dialect),
            null: settings.null,
            element_delimiter: settings.element_delimiter,
            ignore_parse_errors: settings.ignore_parse_errors,
            rows: 0,
            schema,
        })
    }

    fn append(&mut self) -> Result<(), String> {
        let found = self.splitter.len();
        let too_few = found < self.width && !self.ignore_parse_errors;
        if too_few || found > self.width {
            return Err(format!("expected {} fields, found {found}", self.width));
        }
        let parts = Parts { null: self.null.as_deref(), element_delimiter: &self.element_delimiter };
        for (i, column) in self.columns.iter_mut().enumerate() {
            let appended = match self.places[i] {
                place if place < found => parts.append(column, self.splitter.field(place)),
                _ => parts.append_null(column),
            };
            if let Err(reason) = appended {
                column.truncate(self.rows);
                if !(self.ignore_parse_errors && column.nullable) {
                    return Err(format!("column '{}': {reason}", self.schema.field(i).name()));
                }
                column.push_null();
            }
        }
        Ok(())
    }
}

/// How a field's text becomes a value.
struct Parts<'a> {
    null: Option<&'a str>,
    element_delimiter: &'a str,
}

impl Parts<'_> {
    /// # Errors
    /// What was expected and found; `truncate` restores the column.
    fn append(&self, column: &mut Column, raw: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(raw).map_err(|_| "not UTF-8".to_owned())?;
        let is_text = column.data_type == DataType::Utf8;
        if self.null == Some(text) || (text.is_empty() && !is_text) {
            return self.append_null(column);
        }
        let wrong =
            |column: &Column, found: usize| format!("expected {}, found {found} values", sql_type(&column.data_type));
        match &mut column.values {
            Values::List(items, _) => {
                for element in text.split(self.element_delimiter) {
                    self.append(&mut items.values, element.as_bytes())?;
                }
                items.offsets.push(items.values.len() as i32);
            }
            Values::Struct(fields) => {
                let mut elements = text.split(self.element_delimiter);
                let (mut found, wanted) = (0, fields.columns_mut().count());
                for (field, element) in fields.columns_mut().zip(&mut elements) {
                    self.append(field, element.as_bytes())?;
                    found += 1;
                }
                let found = found + elements.count();
                if found != wanted {
                    return Err(wrong(column, found));
                }
            }
            _ => return append_plain(column, text),
        }
        column.mark_valid();
        Ok(())
    }

    fn append_null(&self, column: &mut Column) -> Result<(), String> {
        if !column.nullable {
            return Err(format!("expected {} NOT NULL, found null", sql_type(&column.data_type)));
        }
        column.push_null();
        Ok(())
    }
}

impl RecordDecoder for CsvDecoder {
    fn decode(&mut self, record: &Record<'_>) -> Result<usize, Reject> {
        let Some(value) = record.value else { return Ok(0) };
        self.splitter.split(value).map_err(Reject::new)?;
        if let Err(reason) = self.append() {
            let rows = self.rows;
            self.columns.iter_mut().for_each(|column| column.truncate(rows));
            return Err(Reject::new(reason));
        }
        self.rows += 1;
        Ok(1)
    }

    fn header(&mut self, record: &[u8]) -> Result<()> {
        self.splitter.split(record).map_err(|reason| Error::invalid(format!("the header cannot be read: {reason}")))?;
        let names: Vec<String> = (0..self.splitter.len())
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

    fn flush(&mut self) -> Result<Batch> {
        let columns = self.columns.iter_mut().map(Column::take).collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(std::mem::take(&mut self.rows)));
        Ok(Batch::inserts(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?))
    }
}
