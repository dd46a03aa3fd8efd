//! Rows of a Parquet file, from any row on: only the needed columns, in the table's types.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, new_null_array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use arrow::json::LineDelimitedWriter;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use coulee_runtime::{Error, Result};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Type as PhysicalType;
use parquet::errors::ParquetError;
use parquet::schema::types::SchemaDescriptor;

use super::adapt::{Misfit, adapt, can_adapt, find};
use super::location::Input;
use crate::format::sql_type;

/// An open Parquet file.
pub struct ColumnarFile {
    file: String,
    rows: ParquetRecordBatchReader,
    schema: SchemaRef,
    /// Where each column of `schema` stands in what is read; `None` when the file does not have it.
    places: Vec<Option<usize>>,
    position: u64,
}

/// Some rows of a file.
#[derive(Debug)]
pub struct Rows {
    /// Those that fit the table.
    pub rows: RecordBatch,
    /// The others.
    pub rejected: Vec<RejectedRow>,
}

/// A row with a value that does not fit its column.
#[derive(Debug)]
pub struct RejectedRow {
    /// Its number in the file, from 1.
    pub number: u64,
    /// The column, what was expected and what was found.
    pub reason: String,
    /// The columns that were read of it, as JSON.
    pub raw: Vec<u8>,
}

impl ColumnarFile {
    /// Opens `input`, called `file` in messages, before its row number `position` (from 0), for the columns `projection` of `columns`, which
    /// are all that the table has in its files. A column that the file does not have is null. May block.
    ///
    /// # Errors
    /// When the file is not Parquet, has none of the table's columns or one of another kind, or ends before the position.
    pub fn open(
        input: Input,
        file: &str,
        columns: &SchemaRef,
        projection: &[usize],
        batch_rows: usize,
        position: u64,
    ) -> Result<Self> {
        let damaged = |error: ParquetError| {
            Error::corrupt(format!("{file} is not a readable Parquet file: {error}")).because(error)
        };
        let metadata = metadata(&input).map_err(damaged)?;
        let schema = Arc::new(columns.project(projection)?);
        check_any(file, columns, metadata.schema())?;
        let roots = roots(file, &schema, metadata.schema())?;
        let mut in_file: Vec<usize> = roots.iter().copied().flatten().collect();
        in_file.sort_unstable();
        let place = |root: &Option<usize>| root.map(|root| in_file.partition_point(|other| *other < root));
        let places = roots.iter().map(place).collect();
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(input, metadata);
        let mask = ProjectionMask::roots(builder.parquet_schema(), in_file);

        // Row groups before the position are not even opened; the rest of the way is skipped within one.
        let groups = builder.metadata().row_groups();
        let (mut first, mut skipped) = (0, 0);
        while let Some(group) = groups.get(first).filter(|group| skipped + group.num_rows() as u64 <= position) {
            skipped += group.num_rows() as u64;
            first += 1;
        }
        if first == groups.len() && skipped < position {
            return Err(Error::corrupt(format!(
                "{file} has {skipped} rows, but {position} were read of it before the restart: files must not change while a job reads them"
            )));
        }
        let rest = (first..groups.len()).collect();
        let rows = builder
            .with_projection(mask)
            .with_row_groups(rest)
            .with_offset((position - skipped) as usize)
            .with_batch_size(batch_rows)
            .build()
            .map_err(damaged)?;
        Ok(ColumnarFile { file: file.to_owned(), rows, schema, places, position })
    }

    /// How many rows are before the next one.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next rows.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn next(&mut self) -> Result<Option<Rows>> {
        let Some(read) = self.rows.next() else { return Ok(None) };
        let read = read.map_err(|error| {
            Error::corrupt(format!("{} is damaged behind row {}: {error}", self.file, self.position)).because(error)
        })?;
        let mut misfits: Vec<Misfit> = Vec::new();
        let mut columns = Vec::with_capacity(self.places.len());
        for (field, place) in self.schema.fields().iter().zip(&self.places) {
            let Some(place) = place else {
                columns.push(new_null_array(field.data_type(), read.num_rows()));
                continue;
            };
            let adapted = adapt(read.column(*place), field).map_err(|error| error.at(&self.file))?;
            columns.push(adapted.column);
            misfits.extend(
                adapted
                    .misfits
                    .into_iter()
                    .map(|misfit| Misfit { reason: format!("column '{}': {}", field.name(), misfit.reason), ..misfit }),
            );
        }
        let rows = self.kept(columns, &read, &misfits)?;
        let rejected = self.rejected(&read, misfits);
        self.position += read.num_rows() as u64;
        Ok(Some(Rows { rows, rejected }))
    }

    /// The rows without misfits.
    fn kept(&self, columns: Vec<ArrayRef>, read: &RecordBatch, misfits: &[Misfit]) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(read.num_rows()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .map_err(|error| Error::internal(format!("{}: {error}", self.file)).because(error))?;
        if misfits.is_empty() {
            return Ok(rows);
        }
        let mut keep = vec![true; read.num_rows()];
        for misfit in misfits {
            keep[misfit.row] = false;
        }
        Ok(filter_record_batch(&rows, &BooleanArray::from(keep))?)
    }

    /// The rows with misfits, in order, each with the reason of its first.
    fn rejected(&self, read: &RecordBatch, mut misfits: Vec<Misfit>) -> Vec<RejectedRow> {
        misfits.sort_by_key(|misfit| misfit.row);
        misfits.dedup_by_key(|misfit| misfit.row);
        let rejected = |misfit: Misfit| {
            let number = self.position + misfit.row as u64 + 1;
            RejectedRow { number, reason: misfit.reason, raw: as_json(&read.slice(misfit.row, 1)) }
        };
        misfits.into_iter().map(rejected).collect()
    }
}

/// A row as JSON, without a line end; nothing when it has a type without a form in JSON.
fn as_json(row: &RecordBatch) -> Vec<u8> {
    let mut writer = LineDelimitedWriter::new(Vec::new());
    let written = writer.write(row).and_then(|()| writer.finish());
    let mut json = writer.into_inner();
    match written {
        Ok(()) => json.truncate(json.trim_ascii_end().len()),
        Err(_) => json.clear(),
    }
    json
}

/// The metadata of a file, with INT96 read as microseconds: in nanoseconds, which are Arrow's choice, the year 9999 is a time
/// of the 19th century. Spark writes whole microseconds.
///
/// # Errors
/// When the file is no Parquet file.
pub fn metadata(input: &super::location::Input) -> Result<ArrowReaderMetadata, ParquetError> {
    let loaded = ArrowReaderMetadata::load(input, ArrowReaderOptions::new())?;
    let parquet = loaded.metadata().file_metadata().schema_descr_ptr();
    let has_int96 = parquet.columns().iter().any(|column| column.physical_type() == PhysicalType::INT96);
    if !has_int96 {
        return Ok(loaded);
    }
    let mut leaf = 0;
    let fields = with_int96_in_micros(loaded.schema().fields(), &parquet, &mut leaf);
    let schema = Schema::new_with_metadata(fields, loaded.schema().metadata().clone());
    ArrowReaderMetadata::try_new(loaded.metadata().clone(), ArrowReaderOptions::new().with_schema(Arc::new(schema)))
}

/// The fields, whose leaves are those of the file from `leaf` on, in their order.
fn with_int96_in_micros(fields: &Fields, parquet: &SchemaDescriptor, leaf: &mut usize) -> Fields {
    let mut inner = |field: &Arc<Field>| -> Arc<Field> {
        let nested = |field: &Arc<Field>, leaf: &mut usize| {
            let only = Fields::from(vec![field.clone()]);
            with_int96_in_micros(&only, parquet, leaf)[0].clone()
        };
        let data_type = match field.data_type() {
            DataType::List(item) => DataType::List(nested(item, leaf)),
            DataType::LargeList(item) => DataType::LargeList(nested(item, leaf)),
            DataType::FixedSizeList(item, length) => DataType::FixedSizeList(nested(item, leaf), *length),
            DataType::Map(entries, sorted) => DataType::Map(nested(entries, leaf), *sorted),
            DataType::Struct(fields) => DataType::Struct(with_int96_in_micros(fields, parquet, leaf)),
            flat => {
                let is_int96 = parquet.column(*leaf).physical_type() == PhysicalType::INT96;
                *leaf += 1;
                if is_int96 { DataType::Timestamp(TimeUnit::Microsecond, None) } else { flat.clone() }
            }
        };
        Arc::new(field.as_ref().clone().with_data_type(data_type))
    };
    fields.iter().map(&mut inner).collect()
}

fn names(fields: &Fields) -> String {
    let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
    names.join(", ")
}

/// A file without any of the table's columns is another table's.
fn check_any(file: &str, wanted: &SchemaRef, found: &SchemaRef) -> Result<()> {
    let has = |field: &Arc<Field>| !matches!(find(found.fields(), field.name()), Ok(None));
    if wanted.fields().is_empty() || wanted.fields().iter().any(has) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{file} has none of the table's columns {}; it has: {}",
        names(wanted.fields()),
        names(found.fields())
    )))
}

/// Where each wanted column is in the file.
fn roots(file: &str, wanted: &SchemaRef, found: &SchemaRef) -> Result<Vec<Option<usize>>> {
    let root = |field: &Arc<Field>| {
        let name = field.name();
        let index = find(found.fields(), name).map_err(|reason| Error::invalid(format!("{file}: {reason}")))?;
        let Some(index) = index else {
            return match field.is_nullable() {
                true => Ok(None),
                false => Err(Error::invalid(format!(
                    "{file} has no column '{name}', which is NOT NULL; it has: {}",
                    names(found.fields())
                ))),
            };
        };
        let column = found.field(index);
        if !can_adapt(column.data_type(), field.data_type()) {
            let (has, wants) = (sql_type(column.data_type()), sql_type(field.data_type()));
            return Err(Error::invalid(format!(
                "{file}: column '{name}' is {has} in the file and {wants} in the table"
            )));
        }
        Ok(Some(index))
    };
    wanted.fields().iter().map(root).collect()
}
