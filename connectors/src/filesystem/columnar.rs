//! Rows of a Parquet file, from any row on: only the needed columns, in the table's types.

use arrow::array::ArrayRef;
use arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use coulee_runtime::{Error, Result};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::location::Location;
use crate::format::sql_type;

/// An open Parquet file.
pub struct ColumnarFile {
    file: String,
    rows: ParquetRecordBatchReader,
    schema: SchemaRef,
    /// Where each column of `schema` stands in what is read.
    places: Vec<usize>,
    position: u64,
}

impl ColumnarFile {
    /// Opens `file` before its row number `position` (from 0), for the columns of `schema`. May block.
    ///
    /// # Errors
    /// When the file is not Parquet, lacks a column, or ends before the position.
    pub fn open(location: &Location, file: &str, schema: SchemaRef, batch_rows: usize, position: u64) -> Result<Self> {
        let input = location.open(file)?;
        let damaged = |error: parquet::errors::ParquetError| {
            Error::corrupt(format!("{file} is not a readable Parquet file: {error}")).because(error)
        };
        let builder = ParquetRecordBatchReaderBuilder::try_new(input).map_err(damaged)?;
        let roots = roots(file, &schema, builder.schema())?;
        let mut in_file = roots.clone();
        in_file.sort_unstable();
        let places = roots.iter().map(|root| in_file.partition_point(|other| other < root)).collect();
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
    /// When the file is damaged, or a value does not fit its column.
    pub fn next(&mut self) -> Result<Option<RecordBatch>> {
        let Some(rows) = self.rows.next() else { return Ok(None) };
        let rows = rows.map_err(|error| {
            Error::corrupt(format!("{} is damaged behind row {}: {error}", self.file, self.position)).because(error)
        })?;
        let typed = self.schema.fields().iter().zip(&self.places);
        let columns =
            typed.map(|(field, place)| adapt(&self.file, rows.column(*place), field)).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let adapted = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .map_err(|error| Error::invalid(format!("{}: {error}", self.file)).because(error))?;
        self.position += rows.num_rows() as u64;
        Ok(Some(adapted))
    }
}

fn roots(file: &str, wanted: &SchemaRef, found: &SchemaRef) -> Result<Vec<usize>> {
    let root = |field: &std::sync::Arc<Field>| {
        let (index, column) = found.column_with_name(field.name()).ok_or_else(|| {
            let names: Vec<&str> = found.fields().iter().map(|field| field.name().as_str()).collect();
            Error::invalid(format!("{file} has no column '{}'; it has: {}", field.name(), names.join(", ")))
        })?;
        if !comparable(column.data_type(), field.data_type()) {
            let (has, wants) = (sql_type(column.data_type()), sql_type(field.data_type()));
            return Err(Error::invalid(format!(
                "{file}: column '{}' is {has} in the file and {wants} in the table",
                field.name()
            )));
        }
        Ok(index)
    };
    wanted.fields().iter().map(root).collect()
}

/// Whether values of one type may mean the same in another. Whether each does is seen when it is read.
fn comparable(from: &DataType, to: &DataType) -> bool {
    let family = |data_type: &DataType| match data_type {
        float if float.is_floating() => 1,
        number if number.is_integer() => 2,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => 3,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => 4,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => 5,
        DataType::Timestamp(..) => 6,
        DataType::Date32 | DataType::Date64 => 7,
        DataType::Time32(_) | DataType::Time64(_) => 8,
        _ => 0,
    };
    if let DataType::Dictionary(_, values) = from {
        return comparable(values, to);
    }
    from == to
        || match (family(from), family(to)) {
            (0, _) | (_, 0) => from.is_nested() && to.is_nested() && can_cast_types(from, to),
            (2, 1 | 3) | (7, 6) => true,
            (from, to) => from == to,
        }
}

/// The column in the table's type. Every value must survive the way there and back.
fn adapt(file: &str, column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    let (from, to) = (column.data_type(), field.data_type());
    if from == to {
        return Ok(column.clone());
    }
    let strict = CastOptions { safe: false, ..Default::default() };
    let there = cast_with_options(column, to, &strict);
    let same = match &there {
        Ok(there) if !matches!(from, DataType::Dictionary(..)) && !from.is_nested() => {
            cast_with_options(there, from, &strict).is_ok_and(|back| back.to_data() == column.to_data())
        }
        Ok(_) => true,
        Err(_) => false,
    };
    match there {
        Ok(there) if same => Ok(there),
        _ => {
            let (name, has, wants) = (field.name(), sql_type(from), sql_type(to));
            Err(Error::invalid(format!(
                "{file}: column '{name}' is {has} in the file and {wants} in the table, and not every value fits: declare it as {has}"
            )))
        }
    }
}
