//! Hive-style partitions: rows to folders such as `day=2013-01-01/hour=5`, and folders back to values.
//!
//! Partition columns live in the path only, not in the files. Values are escaped as Hive (and Flink) does; null and the
//! empty text are `__HIVE_DEFAULT_PARTITION__`.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray, UInt32Array};
use arrow::compute::{take, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::row::{RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use coulee_runtime::table::TableSpec;
use coulee_runtime::{Error, Result};

use crate::format::sql_type;

const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// How many partition values are remembered with their paths.
const KNOWN_PATHS_MAX: usize = 10_000;

/// Escapes a name or a value for a path, as Hive's `FileUtils.escapePathName`.
pub fn escape(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '\0'..='\x1f'
            | '\x7f'
            | '"'
            | '#'
            | '%'
            | '\''
            | '*'
            | '/'
            | ':'
            | '='
            | '?'
            | '\\'
            | '{'
            | '['
            | ']'
            | '^' => {
                write!(out, "%{:02X}", character as u32).expect("writing to a String");
            }
            plain => out.push(plain),
        }
    }
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let escaped = behind.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The table's columns that are in the files, and the indexes of those and of the partition columns.
///
/// # Errors
/// `Invalid` when a partition column is unknown or nested, or when no other column is left.
pub fn split_columns(table: &TableSpec) -> Result<(Vec<usize>, Vec<usize>)> {
    let mut partitions = Vec::new();
    for name in &table.partitioned_by {
        let Ok(index) = table.schema.index_of(name) else {
            return Err(Error::invalid(format!(
                "table '{}': PARTITIONED BY names '{name}', which is not a column",
                table.name
            )));
        };
        let data_type = table.schema.field(index).data_type();
        if data_type.is_nested() {
            let ty = sql_type(data_type);
            return Err(Error::invalid(format!(
                "table '{}': column '{name}' of type {ty} cannot be a partition",
                table.name
            )));
        }
        partitions.push(index);
    }
    let files: Vec<usize> = (0..table.schema.fields().len()).filter(|index| !partitions.contains(index)).collect();
    if files.is_empty() {
        return Err(Error::invalid(format!(
            "table '{}': a column must be left that is not in PARTITIONED BY",
            table.name
        )));
    }
    Ok((files, partitions))
}

/// Sorts rows into partitions.
#[derive(Debug)]
pub struct Router {
    files: Vec<usize>,
    partitions: Vec<usize>,
    schema: SchemaRef,
    names: Vec<String>,
    converter: RowConverter,
    known: HashMap<Box<[u8]>, Arc<str>>,
}

impl Router {
    /// For rows of `table`; what it gives has the columns `files` in the schema `schema`.
    ///
    /// # Errors
    /// `Invalid` when a partition column has a type without an order.
    pub fn new(table: &Schema, files: &[usize], partitions: &[usize], schema: SchemaRef) -> Result<Self> {
        let field = |index: &usize| SortField::new(table.field(*index).data_type().clone());
        Ok(Router {
            files: files.to_vec(),
            partitions: partitions.to_vec(),
            schema,
            names: partitions.iter().map(|index| table.field(*index).name().clone()).collect(),
            converter: RowConverter::new(partitions.iter().map(field).collect())?,
            known: HashMap::new(),
        })
    }

    /// The rows of each partition of the batch, in order; partitions in the order of their first row.
    ///
    /// # Errors
    /// `Invalid` when the rows do not have the table's types, or a null where none may be.
    pub fn route(&mut self, rows: &RecordBatch) -> Result<Vec<(Arc<str>, RecordBatch)>> {
        let columns = self.files.iter().map(|index| rows.column(*index).clone()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let file_rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        if self.partitions.is_empty() {
            return Ok(vec![("".into(), file_rows)]);
        }
        let keys: Vec<ArrayRef> = self.partitions.iter().map(|index| rows.column(*index).clone()).collect();
        let converted = self.converter.convert_columns(&keys)?;
        let mut groups: Vec<(usize, Vec<u32>)> = Vec::new();
        let mut by_key: HashMap<&[u8], usize> = HashMap::new();
        let mut last: Option<(&[u8], usize)> = None;
        for (row, key) in converted.iter().enumerate() {
            let key = key.data();
            let group = match last {
                Some((last, group)) if last == key => group,
                _ => *by_key.entry(key).or_insert_with(|| {
                    groups.push((row, Vec::new()));
                    groups.len() - 1
                }),
            };
            groups[group].1.push(row as u32);
            last = Some((key, group));
        }
        let mut routed = Vec::with_capacity(groups.len());
        for (first, indexes) in groups {
            let path = self.path(converted.row(first).data(), &keys, first)?;
            let part = match indexes.len() {
                all if all == rows.num_rows() => file_rows.clone(),
                _ => take_record_batch(&file_rows, &UInt32Array::from(indexes))?,
            };
            routed.push((path, part));
        }
        Ok(routed)
    }

    fn path(&mut self, key: &[u8], columns: &[ArrayRef], row: usize) -> Result<Arc<str>> {
        if let Some(known) = self.known.get(key) {
            return Ok(known.clone());
        }
        let options = FormatOptions::new()
            .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.3f"))
            .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.3fZ"));
        let mut path = String::new();
        for (name, column) in self.names.iter().zip(columns) {
            if !path.is_empty() {
                path.push('/');
            }
            escape(name, &mut path);
            path.push('=');
            let value = match column.is_null(row) {
                true => String::new(),
                false => ArrayFormatter::try_new(column, &options)?.value(row).try_to_string()?,
            };
            if value.is_empty() { path.push_str(NULL) } else { escape(&value, &mut path) }
        }
        let path: Arc<str> = path.into();
        if self.known.len() >= KNOWN_PATHS_MAX {
            self.known.clear();
        }
        self.known.insert(key.into(), path.clone());
        Ok(path)
    }
}

/// The value that a file's path gives a partition column, as an array of one.
///
/// # Errors
/// `Invalid` when the path has no such folder or its value is not of the column's type.
pub fn value_in_path(file: &str, field: &Field) -> Result<ArrayRef> {
    let mut name = String::new();
    escape(field.name(), &mut name);
    let prefix = format!("{name}=");
    let Some(value) = file.rsplit('/').skip(1).find_map(|folder| folder.strip_prefix(&prefix)) else {
        return Err(Error::invalid(format!(
            "{file}: the table is PARTITIONED BY ({name}), but the path has no folder '{name}=...'"
        )));
    };
    let value = (value != NULL).then(|| unescape(value));
    let text: ArrayRef = Arc::new(StringArray::from(vec![value.clone()]));
    let strict = arrow::compute::CastOptions { safe: false, ..Default::default() };
    let typed = match field.data_type() {
        DataType::Utf8 => Ok(text),
        other => arrow::compute::cast_with_options(&text, other, &strict),
    };
    typed.map_err(|error| {
        let (value, ty) = (value.unwrap_or_default(), sql_type(field.data_type()));
        Error::invalid(format!("{file}: partition '{name}' is '{value}', expected {ty}")).because(error)
    })
}

/// A column of one value, `rows` times.
///
/// # Errors
/// When Arrow cannot repeat the type: a fault of ours.
pub fn repeat(value: &ArrayRef, rows: usize) -> Result<ArrayRef> {
    Ok(take(value, &UInt32Array::from_value(0, rows), None)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Int32Array};
    use arrow::datatypes::Int32Type;

    #[test]
    fn values_are_escaped_as_hive_does_and_come_back() {
        for (value, expected) in [
            ("2013-01-01", "2013-01-01"),
            ("10:17", "10%3A17"),
            ("a/b=c%d", "a%2Fb%3Dc%25d"),
            ("x y ü", "x y ü"),
            ("\n", "%0A"),
        ] {
            let mut escaped = String::new();
            escape(value, &mut escaped);
            assert_eq!(escaped, expected);
            assert_eq!(unescape(&escaped), value);
        }
    }

    #[test]
    fn rows_keep_their_order_within_a_partition() {
        let table = Schema::new(vec![
            Field::new("day", DataType::Utf8, true),
            Field::new("n", DataType::Int32, false),
            Field::new("h", DataType::Int32, true),
        ]);
        let files: SchemaRef = Arc::new(table.project(&[1]).unwrap());
        let mut router = Router::new(&table, &[1], &[0, 2], files).unwrap();
        let days = StringArray::from(vec![Some("b"), Some("a:"), None, Some("b"), Some("")]);
        let hours = Int32Array::from(vec![Some(1), None, Some(2), Some(1), Some(2)]);
        let columns: Vec<ArrayRef> =
            vec![Arc::new(days), Arc::new(Int32Array::from_iter_values(0..5)), Arc::new(hours)];
        let rows = RecordBatch::try_new(Arc::new(table), columns).unwrap();
        let routed: Vec<(String, Vec<i32>)> = router
            .route(&rows)
            .unwrap()
            .into_iter()
            .map(|(path, rows)| (path.to_string(), rows.column(0).as_primitive::<Int32Type>().values().to_vec()))
            .collect();
        let null = |h: &str| format!("day={NULL}/h={h}");
        assert_eq!(
            routed,
            [
                ("day=b/h=1".to_owned(), vec![0, 3]),
                (format!("day=a%3A/h={NULL}"), vec![1]),
                (null("2"), vec![2]),
                (null("2"), vec![4]),
            ]
        );
    }

    #[test]
    fn paths_give_values() {
        let value = value_in_path("/x/day=2013-01-01/h=7/f.parquet", &Field::new("h", DataType::Int32, true)).unwrap();
        assert_eq!(value.as_primitive::<Int32Type>().value(0), 7);
        assert_eq!(repeat(&value, 3).unwrap().len(), 3);
        let message = value_in_path("/x/f.parquet", &Field::new("h", DataType::Int32, true)).unwrap_err().to_string();
        assert_eq!(message, "/x/f.parquet: the table is PARTITIONED BY (h), but the path has no folder 'h=...'");
        assert!(value_in_path("/x/h=q/f", &Field::new("h", DataType::Int32, true)).is_err());
    }
}
