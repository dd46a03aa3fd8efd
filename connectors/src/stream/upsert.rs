//! `'connector' = 'upsert-stream'`: a stream whose records replace each other by key, as Flink's `upsert-kafka` reads and writes them.
//!
//! The columns of the primary key are the record's key, all columns are its value, and a record without a value (a tombstone) deletes the row of its key.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int8Array, new_null_array};
use arrow::compute::interleave;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use coulee_runtime::options::{OptionKind, OptionSpec, Options};
use coulee_runtime::table::TableSpec;
use coulee_runtime::{Batch, Error, Result, RowKind};

use crate::format::{self, FormatSettings, Record, RecordDecoder, RecordEncoder, Reject, format_option, option_specs};

const KEY_FORMAT: &str = "key.format";
const VALUE_FORMAT: &str = "value.format";

/// The options that only such a table has.
pub(super) const OPTIONS: [OptionSpec; 2] = [
    OptionSpec::new(
        KEY_FORMAT,
        OptionKind::Choice(&["json", "csv", "raw"]),
        Some("json"),
        "How the columns of the primary key are laid out in a record's key. 'raw' is for one column, a STRING or BYTES.",
    ),
    OptionSpec::new(VALUE_FORMAT, OptionKind::Text, None, "Flink's name for 'format'."),
];

/// The table as a plain stream's options describe it.
///
/// # Errors
/// `Invalid` when it has no primary key, or options contradict.
pub(super) fn plain(table: &TableSpec) -> Result<TableSpec> {
    let invalid = |message: String| Error::invalid(format!("table '{}': {message}", table.name));
    if table.primary_key.is_empty() {
        return Err(invalid(
            "the rows of an 'upsert-stream' replace each other by a primary key, and it has none; declare PRIMARY KEY (column, …) NOT ENFORCED".to_owned(),
        ));
    }
    if let Some(column) = table.primary_key.iter().find(|column| table.metadata_columns.contains_key(*column)) {
        return Err(invalid(format!("column '{column}' of the primary key is METADATA, expected a column of the row")));
    }
    let mut plain = table.clone();
    plain.options.remove(KEY_FORMAT);
    if let Some(format) = plain.options.remove(VALUE_FORMAT)
        && plain.options.insert("format".to_owned(), format).is_some()
    {
        return Err(invalid(format!("'format' and '{VALUE_FORMAT}' say the same; keep one of them")));
    }
    Ok(plain)
}

/// The key of a table's records.
#[derive(Debug, Clone)]
pub(super) struct UpsertKey {
    /// Its columns, by index in the table.
    pub(super) columns: Vec<usize>,
    schema: SchemaRef,
    format: Box<FormatSettings>,
}

impl UpsertKey {
    /// # Errors
    /// `Invalid` when a column's type has no form in the key's format, or when the value's format has row kinds of its own.
    pub(super) fn new(table: &TableSpec, value: &FormatSettings) -> Result<Self> {
        if value.format.is_changelog() {
            return Err(Error::invalid(format!(
                "table '{}': format '{}' says itself what happens to a row: use it with 'connector' = 'stream'",
                table.name,
                value.format.name()
            )));
        }
        let columns =
            table.primary_key.iter().map(|column| Ok(table.schema.index_of(column)?)).collect::<Result<Vec<_>>>()?;
        let schema = Arc::new(table.schema.project(&columns)?);
        let name = table.options.get(KEY_FORMAT).map_or("json", String::as_str);
        let options = BTreeMap::from([("format".to_owned(), name.to_owned())]);
        let owner = format!("{}, {KEY_FORMAT}", table.name);
        let options = Options::of_table(&owner, option_specs().into_iter().chain([format_option()]), &options)?;
        let key = UpsertKey { columns, schema, format: Box::new(FormatSettings::new(&options)?) };
        let invalid = |error: Error| error.at(format!("table '{}': '{KEY_FORMAT}'", table.name));
        key.encoder().map_err(invalid)?;
        Ok(key)
    }

    /// What lays out the key columns of a batch that has them alone.
    pub(super) fn encoder(&self) -> Result<Box<dyn RecordEncoder>> {
        format::encoder(&self.format, &self.schema)
    }

    /// The columns of a source: those that are not of the key are null where a row is deleted.
    pub(super) fn nullable(&self, columns: &Schema) -> SchemaRef {
        let field = |field: &Arc<Field>| match self.schema.field_with_name(field.name()) {
            Ok(_) => field.clone(),
            Err(_) => Arc::new(field.as_ref().clone().with_nullable(true)),
        };
        Arc::new(Schema::new(columns.fields().iter().map(field).collect::<Vec<_>>()))
    }

    /// What reads records whose value has the columns `body`, of which `projection` are asked for.
    pub(super) fn decoder(
        &self,
        value: Box<dyn RecordDecoder>,
        body: &SchemaRef,
        projection: &[usize],
    ) -> Result<Box<dyn RecordDecoder>> {
        let asked: Vec<Option<usize>> =
            projection.iter().map(|index| self.schema.index_of(body.field(*index).name()).ok()).collect();
        let of_key: Vec<usize> = asked.iter().copied().flatten().collect();
        let mut next = 0;
        let places = asked
            .iter()
            .map(|of_key| {
                of_key.map(|_| {
                    next += 1;
                    next - 1
                })
            })
            .collect();
        let key = format::decoder(&self.format, &self.schema, &of_key)?;
        let schema = self.nullable(&body.project(projection)?);
        Ok(Box::new(UpsertDecoder { value, key, places, schema, kinds: Vec::new() }))
    }
}

/// Reads values as rows, and tombstones as deletes of rows of which the key is known.
struct UpsertDecoder {
    value: Box<dyn RecordDecoder>,
    /// Gives the columns of the key that are asked for.
    key: Box<dyn RecordDecoder>,
    /// Of each column that is asked for, which one of the key it is.
    places: Vec<Option<usize>>,
    schema: SchemaRef,
    /// Of each row since the last `flush`.
    kinds: Vec<RowKind>,
}

impl RecordDecoder for UpsertDecoder {
    fn decode(&mut self, record: &Record<'_>) -> Result<usize, Reject> {
        let (rows, kind) = match (record.value, record.key) {
            (Some(_), _) => (self.value.decode(record)?, RowKind::UpdateAfter),
            (None, Some(key)) => {
                let within = |reject: Reject| Reject::new(format!("key: {}", reject.reason));
                (self.key.decode(&Record::of(key)).map_err(within)?, RowKind::Delete)
            }
            (None, None) => return Err(Reject::new("the record has neither a key nor a value")),
        };
        self.kinds.extend(std::iter::repeat_n(kind, rows));
        Ok(rows)
    }

    fn reads_headers(&self) -> bool {
        self.value.reads_headers()
    }

    fn len(&self) -> usize {
        self.kinds.len()
    }

    fn flush(&mut self) -> Result<Batch> {
        let kinds = std::mem::take(&mut self.kinds);
        let (values, keys) = (self.value.flush()?.into_rows(), self.key.flush()?.into_rows());
        let (mut next_value, mut next_key) = (0, 0);
        let from = kinds.iter().map(|kind| {
            let (source, next) = if *kind == RowKind::Delete { (1, &mut next_key) } else { (0, &mut next_value) };
            *next += 1;
            (source, *next - 1)
        });
        let from: Vec<(usize, usize)> = from.collect();
        let column = |(index, place): (usize, &Option<usize>)| -> Result<ArrayRef> {
            let value = values.column(index);
            let deleted = match place {
                Some(of_key) => keys.column(*of_key).clone(),
                None => new_null_array(value.data_type(), keys.num_rows()),
            };
            Ok(interleave(&[value.as_ref(), deleted.as_ref()], &from)?)
        };
        let columns = self.places.iter().enumerate().map(column).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(kinds.len()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        Ok(Batch::changes(rows, Int8Array::from_iter_values(kinds.iter().map(|kind| *kind as i8))))
    }
}
