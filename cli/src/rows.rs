//! Rows as text: aligned columns, JSON lines, CSV.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::{LineDelimitedWriter, WriterBuilder};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use coulee_server::NonFinite;

use crate::args::Output;
use crate::failure::Failure;

/// The widest that a column is made; longer values stand out of it.
const COLUMN_CHARS_MAX: usize = 40;
/// The narrowest, so that rows to come find room.
const COLUMN_CHARS_MIN: usize = 4;

const FORMAT: FormatOptions<'static> = FormatOptions::new()
    .with_null("NULL")
    .with_date_format(Some("%Y-%m-%d"))
    .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"))
    .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.fZ"));

/// Writes batch after batch of one schema.
#[derive(Debug)]
pub struct RowWriter {
    output: Output,
    /// The widths of the columns, from the first batch.
    widths: Option<Vec<usize>>,
    schema: Option<SchemaRef>,
}

impl RowWriter {
    /// Nothing is written before the first batch.
    pub fn new(output: Output) -> Self {
        RowWriter { output, widths: None, schema: None }
    }

    /// The text of a batch. A batch of another schema begins anew.
    ///
    /// # Errors
    /// For a type that the output cannot show.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<Vec<u8>, Failure> {
        let begins = self.schema.as_ref() != Some(rows.schema_ref());
        if begins {
            self.schema = Some(rows.schema());
            self.widths = None;
        }
        let written = match self.output {
            Output::Table => self.table(rows).map(String::into_bytes),
            Output::Json => json(rows),
            Output::Csv => csv(rows, begins),
        };
        written.map_err(|error| Failure::Input(format!("the rows cannot be shown: {error}; try another --output")))
    }

    fn table(&mut self, rows: &RecordBatch) -> Result<String, ArrowError> {
        let schema = rows.schema();
        let columns: Vec<Vec<String>> =
            rows.columns().iter().map(|column| texts(column.as_ref())).collect::<Result<_, _>>()?;
        let right: Vec<bool> = schema.fields().iter().map(|field| field.data_type().is_numeric()).collect();
        let mut text = String::new();
        let widths = self.widths.get_or_insert_with(|| {
            let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            let widths: Vec<usize> = names.iter().zip(&columns).map(|(name, column)| width(name, column)).collect();
            line(&mut text, &names, &widths, &right);
            let rules: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
            line(&mut text, &rules.iter().map(String::as_str).collect::<Vec<_>>(), &widths, &right);
            widths
        });
        for row in 0..rows.num_rows() {
            let values: Vec<&str> = columns.iter().map(|column| column[row].as_str()).collect();
            line(&mut text, &values, widths, &right);
        }
        Ok(text)
    }
}

/// Rows as a table of their own.
///
/// # Errors
/// As [`RowWriter::write`].
pub fn table(rows: &RecordBatch) -> Result<Vec<u8>, Failure> {
    RowWriter::new(Output::Table).write(rows)
}

/// Texts as a table with a header.
pub fn text_table(names: &[&str], right: &[bool], rows: &[Vec<String>]) -> String {
    let column = |index: usize| rows.iter().map(|row| row[index].clone()).collect::<Vec<_>>();
    let widths: Vec<usize> = names
        .iter()
        .enumerate()
        .map(|(index, name)| {
            column(index).iter().map(|text| text.chars().count()).fold(name.chars().count(), usize::max)
        })
        .collect();
    let mut text = String::new();
    line(&mut text, names, &widths, right);
    for row in rows {
        line(&mut text, &row.iter().map(String::as_str).collect::<Vec<_>>(), &widths, right);
    }
    text
}

fn texts(column: &dyn Array) -> Result<Vec<String>, ArrowError> {
    if *column.data_type() == DataType::Null {
        return Ok(vec!["NULL".to_owned(); column.len()]);
    }
    let formatter = ArrayFormatter::try_new(column, &FORMAT)?;
    (0..column.len()).map(|row| Ok(one_line(formatter.value(row).try_to_string()?))).collect()
}

/// A value with line breaks would tear the table.
fn one_line(text: String) -> String {
    if text.contains(['\n', '\r', '\t']) { text.replace(['\n', '\r', '\t'], " ") } else { text }
}

fn width(name: &str, column: &[String]) -> usize {
    let widest = column.iter().map(|text| text.chars().count()).max().unwrap_or(0).min(COLUMN_CHARS_MAX);
    widest.max(name.chars().count()).max(COLUMN_CHARS_MIN)
}

fn line(text: &mut String, values: &[&str], widths: &[usize], right: &[bool]) {
    let start = text.len();
    for (index, (value, width)) in values.iter().zip(widths).enumerate() {
        if index > 0 {
            text.push_str("  ");
        }
        let padding = " ".repeat(width.saturating_sub(value.chars().count()));
        let (before, after) = if right[index] { (padding.as_str(), "") } else { ("", padding.as_str()) };
        text.push_str(before);
        text.push_str(value);
        text.push_str(after);
    }
    text.truncate(start + text[start..].trim_end().len());
    text.push('\n');
}

fn json(rows: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut writer: LineDelimitedWriter<Vec<u8>> =
        WriterBuilder::new().with_explicit_nulls(true).with_encoder_factory(Arc::new(NonFinite)).build(Vec::new());
    writer.write(rows)?;
    writer.finish()?;
    Ok(writer.into_inner())
}

fn csv(rows: &RecordBatch, header: bool) -> Result<Vec<u8>, ArrowError> {
    let mut text = Vec::new();
    arrow::csv::WriterBuilder::new().with_header(header).build(&mut text).write(rows)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray, TimestampMillisecondArray};

    use super::*;

    fn rows(carriers: &[&str], counts: &[Option<i64>]) -> RecordBatch {
        let times: Vec<i64> = counts.iter().map(|_| 1_357_035_420_000).collect();
        // The batches of one query have one schema, whatever their values.
        RecordBatch::try_from_iter_with_nullable([
            ("carrier", Arc::new(StringArray::from(carriers.to_vec())) as ArrayRef, true),
            ("n", Arc::new(Int64Array::from(counts.to_vec())), true),
            ("at", Arc::new(TimestampMillisecondArray::from(times)), true),
        ])
        .unwrap()
    }

    fn written(writer: &mut RowWriter, rows: &RecordBatch) -> String {
        String::from_utf8(writer.write(rows).unwrap()).unwrap()
    }

    #[test]
    fn columns_are_aligned_and_the_first_batch_decides_their_widths() {
        let mut writer = RowWriter::new(Output::Table);
        let first = written(&mut writer, &rows(&["UA", "B6"], &[Some(12), None]));
        assert_eq!(
            first,
            "carrier     n  at\n───────  ────  ───────────────────\nUA         12  2013-01-01 10:17:00\nB6       NULL  2013-01-01 10:17:00\n"
        );
        assert_eq!(written(&mut writer, &rows(&["DL"], &[Some(123_456)])), "DL       123456  2013-01-01 10:17:00\n");
    }

    #[test]
    fn numbers_that_json_does_not_have_are_texts() {
        let values: ArrayRef = Arc::new(Float64Array::from(vec![1.5, f64::NAN, f64::NEG_INFINITY]));
        let rows = RecordBatch::try_from_iter([("x", values)]).unwrap();
        assert_eq!(
            written(&mut RowWriter::new(Output::Json), &rows),
            "{\"x\":1.5}\n{\"x\":\"NaN\"}\n{\"x\":\"-Infinity\"}\n"
        );
    }

    #[test]
    fn json_and_csv_are_for_machines() {
        let batch = rows(&["UA"], &[None]);
        assert_eq!(
            written(&mut RowWriter::new(Output::Json), &batch),
            "{\"carrier\":\"UA\",\"n\":null,\"at\":\"2013-01-01T10:17:00\"}\n"
        );
        let mut csv = RowWriter::new(Output::Csv);
        assert_eq!(written(&mut csv, &batch), "carrier,n,at\nUA,,2013-01-01T10:17:00\n");
        assert_eq!(written(&mut csv, &batch), "UA,,2013-01-01T10:17:00\n");
    }
}
