//! Which columns of a table are in a record's body, and which beside it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryArray, Int64Array, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use coulee_runtime::options::nearest;
use coulee_runtime::table::TableSpec;
use coulee_runtime::{Error, Result};

use crate::format::timestamp_of_millis;

/// What a record has beside its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Metadata {
    Timestamp,
    Shard,
    Sequence,
    Key,
    Stream,
}

/// Metadata keys: Flink's for Kafka, and our own words for the same things.
const KEYS: [(&str, Metadata); 7] = [
    ("timestamp", Metadata::Timestamp),
    ("partition", Metadata::Shard),
    ("shard", Metadata::Shard),
    ("offset", Metadata::Sequence),
    ("sequence", Metadata::Sequence),
    ("key", Metadata::Key),
    ("topic", Metadata::Stream),
];

/// The metadata column of a key.
pub(super) fn metadata(table: &TableSpec, column: &str) -> Result<Option<Metadata>> {
    let Some(key) = table.metadata_columns.get(column) else { return Ok(None) };
    match KEYS.iter().find(|(known, _)| known == key) {
        Some((_, metadata)) => Ok(Some(*metadata)),
        None => {
            let known = KEYS.map(|(known, _)| known);
            let hint = nearest(key, &known).map(|near| format!("did you mean '{near}'? ")).unwrap_or_default();
            Err(Error::invalid(format!(
                "table '{}': column '{column}' asks for metadata '{key}'; {hint}a stream has {}",
                table.name,
                known.join(", ")
            )))
        }
    }
}

impl Metadata {
    fn fits(self, data_type: &DataType) -> bool {
        match self {
            Metadata::Timestamp => matches!(data_type, DataType::Timestamp(..)),
            Metadata::Shard | Metadata::Sequence => matches!(data_type, DataType::Int32 | DataType::Int64),
            Metadata::Key => is_text(data_type) || matches!(data_type, DataType::Binary | DataType::LargeBinary),
            Metadata::Stream => is_text(data_type),
        }
    }

    fn sql_type(self) -> &'static str {
        match self {
            Metadata::Timestamp => "TIMESTAMP_LTZ(3)",
            Metadata::Shard => "INT",
            Metadata::Sequence => "BIGINT",
            Metadata::Key => "STRING or BYTES",
            Metadata::Stream => "STRING",
        }
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Where a column of the output comes from.
#[derive(Debug, Clone)]
enum Column {
    /// The decoder's column of this index.
    Decoded(usize),
    /// The record's envelope, as this type.
    Metadata(Metadata, DataType),
}

/// What each record's envelope said, one entry per row; keys only where they are asked for.
#[derive(Debug, Default)]
pub(super) struct Envelopes {
    pub(super) timestamps: Vec<i64>,
    pub(super) sequences: Vec<u64>,
    pub(super) keys: Vec<Option<Vec<u8>>>,
}

/// The projected columns of a table.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    schema: SchemaRef,
    body: SchemaRef,
    decoded: Vec<usize>,
    columns: Vec<Column>,
}

impl Layout {
    /// # Errors
    /// `Invalid` for a metadata column that does not exist or has another type.
    pub(super) fn new(table: &TableSpec, projection: &[usize]) -> Result<Self> {
        let mut body = Vec::new();
        let (mut decoded, mut columns) = (Vec::new(), Vec::new());
        for (i, field) in table.schema.fields().iter().enumerate() {
            let is_read = projection.contains(&i);
            match metadata(table, field.name())? {
                Some(metadata) if !metadata.fits(field.data_type()) => {
                    return Err(Error::invalid(format!(
                        "table '{}': metadata column '{}' is {}, expected {}",
                        table.name,
                        field.name(),
                        field.data_type(),
                        metadata.sql_type()
                    )));
                }
                Some(metadata) if is_read => columns.push(Column::Metadata(metadata, field.data_type().clone())),
                None if is_read => {
                    columns.push(Column::Decoded(decoded.len()));
                    decoded.push(body.len());
                }
                _ => {}
            }
            if !table.metadata_columns.contains_key(field.name()) {
                body.push(Arc::clone(field));
            }
        }
        let schema = Arc::new(table.schema.project(projection)?);
        Ok(Layout { schema, body: Arc::new(Schema::new(body)), decoded, columns })
    }

    /// The same columns, where `changed` says what they are in the source's schema.
    pub(super) fn with_schema(self, changed: impl FnOnce(&Schema) -> SchemaRef) -> Self {
        Layout { schema: changed(&self.schema), ..self }
    }

    /// The columns that are read.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// All columns of the record's body.
    pub(super) fn body(&self) -> &SchemaRef {
        &self.body
    }

    /// Those of them that are read: indexes into [`body`](Self::body).
    pub(super) fn decoded(&self) -> &[usize] {
        &self.decoded
    }

    /// Whether keys are read.
    pub(super) fn has_key(&self) -> bool {
        self.columns.iter().any(|column| matches!(column, Column::Metadata(Metadata::Key, _)))
    }

    /// Puts the decoded columns and the envelopes of as many rows together.
    pub(super) fn assemble(
        &self,
        decoded: &RecordBatch,
        envelopes: &Envelopes,
        shard: &SourceShard,
    ) -> Result<RecordBatch> {
        let rows = envelopes.sequences.len();
        assert_eq!(decoded.num_rows(), rows, "one envelope per decoded row");
        let columns = self.columns.iter().map(|column| match column {
            Column::Decoded(index) => Ok(Arc::clone(decoded.column(*index))),
            Column::Metadata(metadata, as_type) => {
                let array = envelopes.column(*metadata, shard, as_type, rows);
                if array.data_type() == as_type { Ok(array) } else { Ok(arrow::compute::cast(&array, as_type)?) }
            }
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }
}

/// The shard that records come from.
#[derive(Debug, Clone)]
pub(super) struct SourceShard {
    pub(super) stream: String,
    pub(super) shard: u32,
}

impl Envelopes {
    pub(super) fn clear(&mut self) {
        self.timestamps.clear();
        self.sequences.clear();
        self.keys.clear();
    }

    fn column(&self, metadata: Metadata, origin: &SourceShard, as_type: &DataType, rows: usize) -> ArrayRef {
        match metadata {
            // A producer may say anything: a time outside the years that timestamps have is none.
            Metadata::Timestamp => Arc::new(TimestampMillisecondArray::from_iter(
                self.timestamps.iter().map(|millis| timestamp_of_millis(*millis, TimeUnit::Millisecond)),
            )),
            Metadata::Shard => Arc::new(Int64Array::from(vec![i64::from(origin.shard); rows])),
            Metadata::Sequence => Arc::new(Int64Array::from_iter_values(self.sequences.iter().map(|s| *s as i64))),
            Metadata::Stream => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&origin.stream, rows))),
            Metadata::Key if is_text(as_type) => {
                let text = |key: &Vec<u8>| String::from_utf8_lossy(key).into_owned();
                Arc::new(StringArray::from_iter(self.keys.iter().map(|key| key.as_ref().map(text))))
            }
            Metadata::Key => Arc::new(BinaryArray::from_iter(self.keys.iter().map(Option::as_deref))),
        }
    }
}
