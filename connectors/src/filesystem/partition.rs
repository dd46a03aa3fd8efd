//! Hive-style partitions: rows to folders such as `day=2013-01-01/hour=5`, and folders back to values.
//!
//! Partition columns live in the path only, not in the files. Values are escaped as Hive (and Flink) does; null and the
//! empty text are `__HIVE_DEFAULT_PARTITION__`. Bytes are their own text, with `%XX` for each that is no printable ASCII.
//! Every other value has the text that CSV has for it.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, UInt32Array, new_null_array};
use arrow::compute::{take, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::row::{RowConverter, SortField};
use coulee_runtime::table::TableSpec;
use coulee_runtime::{Error, Result};

use crate::format::{Column, PlainText, append_plain, sql_type};

const NULL: &str = "__HIVE_DEFAULT_PARTITION__";
/// The text of that name, which is a value.
const NULL_TEXT: &str = "%5F_HIVE_DEFAULT_PARTITION__";

/// The most bytes of a folder's name: what file systems take.
const FOLDER_BYTES_MAX: usize = 255;

/// The most bytes of all folders of a partition: an object's key may have 1,024 with prefix and name, a local path 4,096.
const FOLDERS_BYTES_MAX: usize = 800;

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

/// Escapes bytes for a path: as text where they are printable ASCII.
fn escape_bytes(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        match byte {
            b' '..=b'~' => escape(char::from(*byte).encode_utf8(&mut [0; 4]), out),
            other => write!(out, "%{other:02X}").expect("writing to a String"),
        }
    }
}

/// Escapes the value of a column at a row: null and what is empty are [`NULL`].
fn escape_value(column: &ArrayRef, row: usize, out: &mut String) -> Result<()> {
    let before = out.len();
    if column.is_valid(row) {
        if let DataType::Binary = column.data_type() {
            escape_bytes(column.as_binary::<i32>().value(row), out);
        } else {
            let mut text = Vec::new();
            PlainText::new(column)?.write(row, &mut text)?;
            escape(&String::from_utf8_lossy(&text), out);
        }
    }
    if out.len() == before {
        out.push_str(NULL);
    } else if &out[before..] == NULL {
        out.truncate(before);
        out.push_str(NULL_TEXT);
    }
    Ok(())
}

fn unescape(text: &str) -> Vec<u8> {
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
    bytes
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

/// The rows of a batch, sorted into partitions.
#[derive(Debug, Default)]
pub struct Routed {
    /// The rows of each partition, in order; partitions in the order of their first row.
    pub parts: Vec<(Arc<str>, RecordBatch)>,
    /// The rows that no folder can be made for, ascending, and why.
    pub refused: Vec<(u32, String)>,
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
    /// How many paths were made.
    paths: u64,
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
            paths: 0,
        })
    }

    /// The rows of each partition of the batch.
    ///
    /// # Errors
    /// `Invalid` when the rows do not have the table's types, or a null where none may be.
    pub fn route(&mut self, rows: &RecordBatch) -> Result<Routed> {
        let columns = self.files.iter().map(|index| rows.column(*index).clone()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let file_rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        if self.partitions.is_empty() {
            return Ok(Routed { parts: vec![("".into(), file_rows)], refused: Vec::new() });
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
        let mut routed = Routed::default();
        for (first, indexes) in groups {
            let path = match self.path(converted.row(first).data(), &keys, first)? {
                Ok(path) => path,
                Err(reason) => {
                    routed.refused.extend(indexes.into_iter().map(|row| (row, reason.clone())));
                    continue;
                }
            };
            let part = match indexes.len() {
                all if all == rows.num_rows() => file_rows.clone(),
                _ => take_record_batch(&file_rows, &UInt32Array::from(indexes))?,
            };
            routed.parts.push((path, part));
        }
        routed.refused.sort_by_key(|(row, _)| *row);
        Ok(routed)
    }

    /// How many partitions there were; roughly, once there are thousands.
    pub fn partitions(&self) -> u64 {
        self.paths
    }

    /// The folders of a row, or why there can be none.
    fn path(&mut self, key: &[u8], columns: &[ArrayRef], row: usize) -> Result<Result<Arc<str>, String>> {
        if let Some(known) = self.known.get(key) {
            return Ok(Ok(known.clone()));
        }
        let mut path = String::new();
        for (name, column) in self.names.iter().zip(columns) {
            if !path.is_empty() {
                path.push('/');
            }
            let start = path.len();
            escape(name, &mut path);
            path.push('=');
            if let Err(error) = escape_value(column, row, &mut path) {
                return Ok(Err(format!("the value of partition column '{name}' has no text: {error}")));
            }
            if let Some(reason) = too_long(name, path.len() - start, path.len()) {
                return Ok(Err(reason));
            }
        }
        let path: Arc<str> = path.into();
        if self.known.len() >= KNOWN_PATHS_MAX {
            self.known.clear();
        }
        self.known.insert(key.into(), path.clone());
        self.paths += 1;
        Ok(Ok(path))
    }
}

/// Why a partition's folders cannot be made: `folder` bytes in the last one's name, `folders` in all of them.
fn too_long(column: &str, folder: usize, folders: usize) -> Option<String> {
    if folder > FOLDER_BYTES_MAX {
        return Some(format!(
            "the value of partition column '{column}' is too long: its folder would have a name of {folder} bytes, and may \
             have {FOLDER_BYTES_MAX}"
        ));
    }
    (folders > FOLDERS_BYTES_MAX).then(|| {
        format!(
            "the values of the partition columns are too long: up to '{column}', their folders have {folders} bytes, and may \
             have {FOLDERS_BYTES_MAX}"
        )
    })
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
    if value == NULL {
        return Ok(new_null_array(field.data_type(), 1));
    }
    let bytes = unescape(value);
    if *field.data_type() == DataType::Binary {
        return Ok(Arc::new(BinaryArray::from(vec![bytes.as_slice()])));
    }
    let mut column = Column::new(field, Default::default())?;
    let text = std::str::from_utf8(&bytes).map_err(|_| "not UTF-8".to_owned());
    text.and_then(|text| append_plain(&mut column, text))
        .map_err(|reason| Error::invalid(format!("{file}: partition '{name}': {reason}")))?;
    Ok(column.take()?)
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
    use arrow::array::{BooleanArray, Float64Array, Int32Array, Int64Array, StringArray};
    use arrow::datatypes::{Int32Type, TimeUnit};

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
            assert_eq!(unescape(&escaped), value.as_bytes());
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
            .parts
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
    fn values_of_every_type_come_back_from_their_path() {
        let time = |unit, zone: Option<&str>| DataType::Timestamp(unit, zone.map(Into::into));
        let cast = |column: ArrayRef, to: DataType| arrow::compute::cast(&column, &to).unwrap();
        let whole: ArrayRef = Arc::new(Int64Array::from(vec![Some(-1), Some(0), Some(86_399), None]));
        let texts = vec![Some("a/b=c"), Some(NULL), Some("100%5F"), None];
        let bytes = vec![Some(&b"\x00\xff/%a b"[..]), Some(b"abc"), Some(NULL.as_bytes()), None];
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(texts)),
            Arc::new(BinaryArray::from(bytes)),
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, None])),
            Arc::new(Float64Array::from(vec![Some(f64::NEG_INFINITY), Some(-0.0), Some(1e-300), None])),
            cast(whole.clone(), DataType::Int8),
            cast(whole.clone(), DataType::Decimal128(38, 10)),
            cast(cast(whole.clone(), DataType::Int32), DataType::Date32),
            cast(whole.clone(), time(TimeUnit::Millisecond, None)),
            cast(whole.clone(), time(TimeUnit::Microsecond, Some("+00:00"))),
            cast(whole, time(TimeUnit::Nanosecond, None)),
        ];
        for column in columns {
            let field = Field::new("p", column.data_type().clone(), true);
            for row in 0..column.len() {
                let mut path = "/x/p=".to_owned();
                escape_value(&column, row, &mut path).unwrap();
                path.push_str("/f");
                assert_eq!(path.matches('/').count(), 3, "{path}");
                let value = value_in_path(&path, &field).unwrap();
                assert_eq!(value.to_data(), column.slice(row, 1).to_data(), "{path}");
            }
        }
    }

    #[test]
    fn a_value_without_a_folder_refuses_its_rows_alone() {
        let table = Schema::new(vec![Field::new("url", DataType::Utf8, true), Field::new("n", DataType::Int32, false)]);
        let mut router = Router::new(&table, &[1], &[0], Arc::new(table.project(&[1]).unwrap())).unwrap();
        // `url=` and 251 bytes are 255; a slash takes 3 bytes, a letter with an accent 2.
        let (fits, long) = ("u".repeat(251), "u".repeat(252));
        let (slashes, accents) = ("/".repeat(84), "é".repeat(126));
        let urls = StringArray::from(vec!["a", &long, &fits, &slashes, &long, &accents]);
        let columns: Vec<ArrayRef> = vec![Arc::new(urls), Arc::new(Int32Array::from_iter_values(0..6))];
        let routed = router.route(&RecordBatch::try_new(Arc::new(table), columns).unwrap()).unwrap();
        assert_eq!(routed.parts.len(), 2);
        assert_eq!(routed.refused.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1, 3, 4, 5]);
        let reason = &routed.refused[0].1;
        assert!(reason.contains("'url'") && reason.contains("256 bytes"), "{reason}");
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
