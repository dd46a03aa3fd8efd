//! The first page of what a job has delivered, read back from where it was delivered to: not what the job believes it wrote.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use coulee_connectors::format::{self, FormatSettings};
use coulee_log::{Isolation, Log, Shard, Stream};
use coulee_model::{SequenceNumber, StreamName};
use coulee_runtime::options::Options;
use coulee_runtime::table::TableSpec;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::blocking::blocking;
use crate::engine::Engine;
use crate::{Error, Result};

/// Bytes of a stream's shard that are read for a page.
const PAGE_BYTES: usize = 256 << 10;

/// How many files of others are counted at most: it is the same to know of 1,000 and of more.
const OTHERS_MAX: usize = 1_000;

/// The first rows of a table that a job wrote to.
#[derive(Debug, Clone)]
pub struct Page {
    /// The table.
    pub table: String,
    /// Where the rows are.
    pub place: String,
    /// The rows.
    pub rows: RecordBatch,
    /// How many rows there are in all.
    pub total: u64,
}

impl Engine {
    /// The first `rows` rows of every table that a job wrote to, where they can be read back: Parquet in a local folder, and
    /// built-in streams. The job must have been planned in this process.
    ///
    /// # Errors
    /// [`Error::NoJob`], [`Error::Io`], and for what was delivered but does not decode.
    pub async fn first_pages(&self, job: &str, rows: usize) -> Result<Vec<Page>> {
        let job = self.find(job)?;
        let (outputs, incarnation) = (job.outputs(), job.record().incarnation);
        let log = self.log().clone();
        blocking(move || {
            let mut pages = Vec::new();
            for table in outputs {
                let option = |key: &str| table.options.get(key).map(String::as_str).unwrap_or_default();
                let page = match (option("connector"), option("format"), local_path(option("path"))) {
                    ("filesystem", "parquet", Some(root)) => parquet_page(&table, &root, &incarnation, rows)?,
                    ("stream", ..) => match stream_of(&log, &table) {
                        Some(stream) => stream_page(&table, &stream, rows)?,
                        None => None,
                    },
                    _ => None,
                };
                pages.extend(page);
            }
            Ok(pages)
        })
        .await
    }
}

impl Engine {
    /// The local folders that a job delivers to and that hold files of somebody else's, with how many (1,000 at most are counted): their
    /// readers will see both. Files that begin with `.` or `_` are no data.
    ///
    /// # Errors
    /// [`Error::NoJob`], [`Error::Io`].
    pub fn files_of_others(&self, job: &str) -> Result<Vec<(PathBuf, usize)>> {
        let job = self.find(job)?;
        let incarnation = job.record().incarnation;
        let is_files = |table: &TableSpec| table.options.get("connector").is_some_and(|name| name == "filesystem");
        let mut found = Vec::new();
        for table in job.outputs().iter().filter(|table| is_files(table)) {
            let root = table.options.get("path").and_then(|path| local_path(path)).filter(|root| root.is_dir());
            let Some(root) = root else { continue };
            match count_others(&root, &incarnation, OTHERS_MAX)? {
                0 => {}
                files => found.push((root, files)),
            }
        }
        Ok(found)
    }
}

/// How many data files below a folder do not bear the incarnation, up to `max`.
fn count_others(folder: &Path, incarnation: &str, max: usize) -> Result<usize> {
    let io = |e| Error::io("list", folder, e);
    let mut count = 0;
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if count >= max || name.starts_with(['.', '_']) || name.contains(incarnation) {
            continue;
        }
        match entry.file_type().map_err(io)? {
            kind if kind.is_dir() => count += count_others(&entry.path(), incarnation, max - count)?,
            kind => count += usize::from(kind.is_file()),
        }
    }
    Ok(count)
}

/// The folder of a path option, unless it is in a remote store.
pub(crate) fn local_path(option: &str) -> Option<PathBuf> {
    let path = option.strip_prefix("file://").unwrap_or(option);
    (!path.is_empty() && !path.contains("://")).then(|| PathBuf::from(path))
}

/// The job's objects below a folder, in the order of their paths.
fn objects(folder: &Path, incarnation: &str, found: &mut Vec<PathBuf>) -> Result<()> {
    let list = || -> std::io::Result<Vec<PathBuf>> {
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()
    };
    let mut paths = list().map_err(|e| Error::io("list", folder, e))?;
    paths.sort();
    for path in paths {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() {
            objects(&path, incarnation, found)?;
        } else if name.contains(incarnation) && name.ends_with(".parquet") {
            found.push(path);
        }
    }
    Ok(())
}

fn parquet_page(table: &TableSpec, root: &Path, incarnation: &str, rows: usize) -> Result<Option<Page>> {
    let mut found = Vec::new();
    if root.is_dir() {
        objects(root, incarnation, &mut found)?;
    }
    let (mut batches, mut total, mut missing) = (Vec::new(), 0, rows);
    for path in &found {
        let unreadable =
            |e: parquet::errors::ParquetError| Error::Damaged { path: path.clone(), reason: e.to_string() };
        let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(unreadable)?;
        total += reader.metadata().file_metadata().num_rows().unsigned_abs();
        if missing == 0 {
            continue;
        }
        for batch in reader.with_limit(missing).build().map_err(unreadable)? {
            let batch = batch.map_err(|e| Error::Damaged { path: path.clone(), reason: e.to_string() })?;
            missing -= batch.num_rows().min(missing);
            batches.push(with_partition(table, root, path, &batch)?);
        }
    }
    let Some(first) = batches.first() else { return Ok(None) };
    let rows = concat_batches(&first.schema(), &batches).map_err(coulee_runtime::Error::from)?;
    Ok(Some(Page { table: table.name.clone(), place: root.display().to_string(), rows, total }))
}

/// Puts the columns that only the path holds (`day=2013-01-01/`) back to where the table has them.
fn with_partition(table: &TableSpec, root: &Path, path: &Path, batch: &RecordBatch) -> Result<RecordBatch> {
    let below = path.strip_prefix(root).unwrap_or(path);
    let parts: Vec<(String, String)> = below
        .components()
        .filter_map(|part| {
            let (key, value) = part.as_os_str().to_str()?.split_once('=')?;
            Some((key.to_owned(), value.to_owned()))
        })
        .collect();
    let mut columns: Vec<(Field, ArrayRef)> = Vec::new();
    for field in table.schema.fields() {
        if let Some((index, stored)) = batch.schema().column_with_name(field.name()) {
            columns.push((stored.clone(), batch.column(index).clone()));
        } else if let Some((key, value)) = parts.iter().find(|(key, _)| key == field.name()) {
            let values = StringArray::from(vec![value.as_str(); batch.num_rows()]);
            columns.push((Field::new(key, DataType::Utf8, true), Arc::new(values)));
        }
    }
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(coulee_runtime::Error::from)?)
}

fn stream_of(log: &Log, table: &TableSpec) -> Option<Arc<Stream>> {
    let name = table.options.get("stream").unwrap_or(&table.name);
    log.stream(&StreamName::new(name.clone()).ok()?).ok()
}

fn stream_page(table: &TableSpec, stream: &Stream, rows: usize) -> Result<Option<Page>> {
    let (mut values, mut total) = (Vec::new(), 0);
    for shard in stream.shards() {
        shard.open()?;
        let (earliest, end) = (shard.earliest(), shard.last_stable_offset());
        total += shard.record_count();
        if values.len() < rows && end > earliest {
            take_values(shard, earliest, rows, &mut values)?;
        }
    }
    if values.is_empty() {
        return Ok(None);
    }
    let is_json = table.options.get("format").is_none_or(|format| format == "json");
    let decoded = if is_json { decode_json(&table.schema, &values) } else { None };
    let rows = match decoded {
        Some(rows) => rows,
        None => as_text(&values)?,
    };
    Ok(Some(Page { table: table.name.clone(), place: format!("stream '{}'", stream.name()), rows, total }))
}

fn take_values(shard: &Shard, from: SequenceNumber, rows: usize, values: &mut Vec<Vec<u8>>) -> Result<()> {
    let fetched = shard.read(from, PAGE_BYTES, Isolation::ReadCommitted)?;
    for batch in fetched.batches() {
        let decoded = batch.and_then(|batch| batch.decode()).map_err(|error| shard.locate(error))?;
        for record in decoded.records().filter(|record| record.sequence >= from) {
            if values.len() == rows {
                return Ok(());
            }
            values.push(record.value.unwrap_or_default().to_vec());
        }
    }
    Ok(())
}

/// The records as rows; `None` when they are not JSON of the table's columns.
fn decode_json(schema: &SchemaRef, values: &[Vec<u8>]) -> Option<RecordBatch> {
    let specs = [format::format_option()].into_iter().chain(format::option_specs());
    let settings = FormatSettings::new(&Options::new("the page", specs, &BTreeMap::new()).ok()?).ok()?;
    let all: Vec<usize> = (0..schema.fields().len()).collect();
    let mut decoder = format::decoder(&settings, schema, &all).ok()?;
    for value in values {
        decoder.decode(&format::Record::of(value)).ok()?;
    }
    decoder.flush().ok().map(coulee_runtime::Batch::into_rows)
}

fn as_text(values: &[Vec<u8>]) -> Result<RecordBatch> {
    let lines: Vec<String> = values.iter().map(|value| String::from_utf8_lossy(value).into_owned()).collect();
    let schema = Arc::new(Schema::new(vec![Field::new("value", DataType::Utf8, false)]));
    let column: ArrayRef = Arc::new(StringArray::from(lines));
    Ok(RecordBatch::try_new(schema, vec![column]).map_err(coulee_runtime::Error::from)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_paths_are_read_back() {
        assert_eq!(local_path("out/x"), Some(PathBuf::from("out/x")));
        assert_eq!(local_path("file:///tmp/x"), Some(PathBuf::from("/tmp/x")));
        assert_eq!(local_path("s3://bucket/x"), None);
        assert_eq!(local_path(""), None);
    }

    #[test]
    fn values_become_columns_or_stay_text() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        let rows = decode_json(&schema, &[b"{\"a\": 1}".to_vec(), b"{\"b\": 2}".to_vec()]).unwrap();
        assert_eq!((rows.num_rows(), rows.num_columns()), (2, 1));
        assert!(decode_json(&schema, &[b"not json".to_vec()]).is_none());
        assert_eq!(as_text(&[b"not json".to_vec()]).unwrap().num_rows(), 1);
    }
}
