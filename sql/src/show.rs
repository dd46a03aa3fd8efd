//! What `SHOW` and `DESCRIBE` answer: tables of text.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::compute::filter_record_batch;
use arrow::compute::kernels::comparison::{ilike, like, nilike, nlike};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;

use crate::catalog::{Entry, Table};
use crate::error::{Fault, Result};
use crate::statement::NamePattern;
use crate::types::type_name;

/// Rows of text under these names.
pub(crate) fn text_table(names: &[&str], rows: &[Vec<String>]) -> Result<RecordBatch> {
    let schema = Schema::new(names.iter().map(|name| Field::new(*name, DataType::Utf8, false)).collect::<Vec<_>>());
    let column = |index: usize| -> ArrayRef {
        Arc::new(rows.iter().map(|row| row.get(index).map(String::as_str)).collect::<StringArray>())
    };
    let columns = (0..names.len()).map(column).collect();
    RecordBatch::try_new(Arc::new(schema), columns).map_err(|error| Fault::new(error.to_string()))
}

/// The rows whose first column is like a pattern (`%` is any text, `_` any character); all of them without one.
pub(crate) fn named_like(rows: RecordBatch, pattern: Option<&NamePattern>) -> Result<RecordBatch> {
    let Some(NamePattern { pattern, is_negated, ignores_case }) = pattern else { return Ok(rows) };
    let pattern = StringArray::new_scalar(pattern);
    let is_like = match (ignores_case, is_negated) {
        (false, false) => like,
        (false, true) => nlike,
        (true, false) => ilike,
        (true, true) => nilike,
    };
    let likeness = is_like(rows.column(0), &pattern);
    let kept = likeness.and_then(|likeness| filter_record_batch(&rows, &likeness));
    kept.map_err(|error| Fault::new(error.to_string()))
}

/// The columns of a table or view, as Flink's `DESCRIBE` shows them.
pub(crate) fn describe(entry: &Entry) -> Result<RecordBatch> {
    let mut names = vec!["name", "type", "null", "key", "extras", "watermark"];
    let row = |name: &str, data_type: &DataType, nullable: bool| {
        vec![name.to_owned(), type_name(data_type), if nullable { "TRUE" } else { "FALSE" }.to_owned()]
    };
    let mut rows: Vec<Vec<String>> = match entry {
        Entry::View(view) => view
            .plan
            .schema()
            .fields()
            .iter()
            .map(|field| {
                let mut row = row(field.name(), field.data_type(), field.is_nullable());
                row.extend([String::new(), String::new(), String::new()]);
                row
            })
            .collect(),
        Entry::Table(table) => table
            .columns
            .iter()
            .map(|column| {
                let mut row = row(&column.name, &column.data_type, column.nullable);
                row.extend([key(table, &column.name), column.extras.clone(), watermark(table, &column.name)]);
                row
            })
            .collect(),
    };
    if let Entry::Table(table) = entry
        && table.create.columns.iter().any(|column| column.comment.is_some())
    {
        names.push("comment");
        // The columns of a table stand in the order of its declaration.
        for (row, column) in rows.iter_mut().zip(&table.create.columns) {
            row.push(column.comment.clone().unwrap_or_default());
        }
    }
    text_table(&names, &rows)
}

fn key(table: &Table, column: &str) -> String {
    if !table.spec.primary_key.iter().any(|key| key == column) {
        return String::new();
    }
    format!("PRI({})", table.spec.primary_key.join(", "))
}

fn watermark(table: &Table, column: &str) -> String {
    let time = table.event_time.as_ref().filter(|time| time.column == column);
    time.map(|time| time.text.clone()).unwrap_or_default()
}
