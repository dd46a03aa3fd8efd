//! The table of files that nobody has declared: the format by their names or their first bytes, the columns by a sample or by Parquet's footer.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use coulee_runtime::options::Options;
use coulee_runtime::table::InferredTable;
use coulee_runtime::{Error, Result};
use parquet::file::reader::Length;
use tokio::runtime::Runtime;

use super::columnar::metadata;
use super::lines::decompressed;
use super::listing::{Listed, list_some};
use super::location::{Input, Location};
use super::paths::unreadable;
use super::peek::Peeked;
use super::settings::{LineCompression, option_specs};
use crate::format::{FORMATS, Format, Inference};

/// How much of a file is looked at, decompressed, and of how many files: the first ones by name.
const SAMPLE_BYTES: u64 = 4 << 20;
const FILES_MAX: usize = 8;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What the standard input is called.
const STDIN: &str = "/dev/stdin";

/// The table at `path`, which begins at `base` if it is relative. `-` is the standard input. May block.
///
/// # Errors
/// `Invalid` when there is nothing to read, or nothing that has columns.
pub fn infer(base: &Path, path: &str, peeked: &Peeked) -> Result<InferredTable> {
    let path = if path == "-" { STDIN } else { path };
    let owner = format!("'{path}'");
    let mut values = BTreeMap::from([("path".to_owned(), path.to_owned())]);
    let location = Location::new(&Options::new(&owner, option_specs(), &values)?, base)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| Error::internal(format!("cannot start a runtime: {error}")))?;
    let files = runtime.block_on(list_some(&location, None))?;
    let sample = Sample { location: &location, runtime: &runtime, peeked };
    let known = files.iter().find_map(|file| by_name(&file.path).map(|kind| (kind, file)));
    let kind = match (known, files.first()) {
        (Some((kind, _)), _) => kind,
        (None, Some(file)) => by_bytes(&sample.bytes(file)?.0),
        (None, None) => return Err(Error::invalid(format!("{owner} has no file"))),
    };
    let is_of_kind = |file: &&Listed| by_name(&file.path).is_none_or(|own| own.name() == kind.name());
    if let Some(other) = files.iter().find(|file| !is_of_kind(file)) {
        let extension = kind.name();
        return Err(Error::invalid(format!(
            "{owner} has files of several formats, {extension} and {}: name those of one, for example '{}/*.{extension}'",
            other.path,
            path.trim_end_matches('/')
        )));
    }
    let mut notes = Vec::new();
    let (fields, seen) = match kind {
        Kind::Parquet => (sample.footers(&files, &mut notes)?, "the footer".to_owned()),
        Kind::Lines(format) => {
            let inference = format.inference().ok_or_else(|| Error::invalid(format!("{owner} has no columns")))?;
            let layout = sample.lines(&files, inference, &mut values).map_err(|error| error.at(&owner))?;
            values.extend(layout.options.into_iter().map(|(key, value)| (key.to_owned(), value)));
            (layout.fields, if layout.rows == 1 { "1 row".to_owned() } else { format!("{} rows", layout.rows) })
        }
    };
    if fields.is_empty() {
        return Err(Error::invalid(format!("{owner} has no column that a table can have")));
    }
    values.insert("format".to_owned(), kind.name().to_owned());
    let is_pipe = files.iter().any(|file| file.is_pipe);
    Ok(InferredTable { schema: Arc::new(Schema::new(fields)), options: values, sample: seen, notes, is_pipe })
}

/// What files hold.
#[derive(Clone, Copy)]
enum Kind {
    Parquet,
    Lines(&'static dyn Format),
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Parquet => "parquet",
            Kind::Lines(format) => format.name(),
        }
    }
}

/// The kind that a file's extension says.
fn by_name(path: &str) -> Option<Kind> {
    let lower = path.to_ascii_lowercase();
    let plain = [".gz", ".zst", ".zstd"].iter().find_map(|end| lower.strip_suffix(end)).unwrap_or(&lower);
    let extension = plain.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map(|(_, extension)| extension)?;
    match extension {
        "parquet" | "parq" => Some(Kind::Parquet),
        _ => FORMATS.iter().find(|format| format.extensions().contains(&extension)).map(|format| Kind::Lines(*format)),
    }
}

/// The kind that a file's beginning looks like: an object or a list is JSON, other text is delimited.
fn by_bytes(bytes: &[u8]) -> Kind {
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    let name = if matches!(first, Some(b'{' | b'[')) { "json" } else { "csv" };
    match FORMATS.iter().find(|format| format.name() == name) {
        Some(format) if !bytes.starts_with(b"PAR1") => Kind::Lines(*format),
        _ => Kind::Parquet,
    }
}

/// Reads the beginnings of files.
struct Sample<'a> {
    location: &'a Location,
    runtime: &'a Runtime,
    peeked: &'a Peeked,
}

impl Sample<'_> {
    fn open(&self, file: &Listed) -> Result<Input> {
        let _entered = self.runtime.enter();
        self.location.open(&file.path)
    }

    /// The first bytes of a file, decompressed and without a byte order mark; whether they are all; how it is compressed.
    fn bytes(&self, file: &Listed) -> Result<(Vec<u8>, bool, LineCompression)> {
        let refuse = |cause| unreadable(Path::new(&file.path), cause);
        let (raw, raw_is_whole, compression): (Box<dyn Read + Send>, bool, LineCompression) = if file.is_pipe {
            let (bytes, whole) = self.peeked.look(&file.path, self.runtime).map_err(refuse)?;
            let compression = match bytes.as_slice() {
                [0x1f, 0x8b, ..] => LineCompression::Gzip,
                [0x28, 0xb5, 0x2f, 0xfd, ..] => LineCompression::Zstd,
                _ => LineCompression::None,
            };
            (Box::new(std::io::Cursor::new(bytes)), whole, compression)
        } else {
            (Box::new(self.open(file)?.from(0)), true, LineCompression::of(None, &file.path))
        };
        let mut bytes = Vec::new();
        let mut reader = decompressed(BufReader::new(raw), compression).map_err(refuse)?;
        let read = reader.by_ref().take(SAMPLE_BYTES).read_to_end(&mut bytes);
        // What was read ahead of a pipe ends anywhere in its compressed bytes.
        if raw_is_whole {
            read.map_err(refuse)?;
        }
        let whole = raw_is_whole && (bytes.len() as u64) < SAMPLE_BYTES;
        if bytes.starts_with(BYTE_ORDER_MARK) {
            bytes.drain(..BYTE_ORDER_MARK.len());
        }
        Ok((bytes, whole, compression))
    }

    fn lines(
        &self,
        files: &[Listed],
        mut inference: Box<dyn Inference>,
        options: &mut BTreeMap<String, String>,
    ) -> Result<crate::format::Layout> {
        for file in files.iter().take(FILES_MAX) {
            let (bytes, whole, compression) = self.bytes(file)?;
            inference.add(&bytes, whole)?;
            let named = match compression {
                LineCompression::Gzip if file.is_pipe => Some("gzip"),
                LineCompression::Zstd if file.is_pipe => Some("zstd"),
                _ => None,
            };
            options.extend(named.map(|name| ("compression".to_owned(), name.to_owned())));
        }
        inference.finish()
    }

    /// The columns of Parquet files, in the order in which they come first.
    fn footers(&self, files: &[Listed], notes: &mut Vec<String>) -> Result<Vec<Field>> {
        let mut fields: Vec<Field> = Vec::new();
        for file in files.iter().take(FILES_MAX) {
            if file.is_pipe {
                return Err(Error::invalid(format!(
                    "{} is a pipe, and Parquet is read from its end: write it into a file first",
                    file.path
                )));
            }
            let input = self.open(file)?;
            let damaged =
                |error| Error::corrupt(format!("{} is not a readable Parquet file: {error}", file.path)).because(error);
            if input.len() == 0 {
                return Err(Error::invalid(format!("{} is empty, and no Parquet file", file.path)));
            }
            for field in metadata(&input).map_err(damaged)?.schema().fields() {
                if fields.iter().any(|known| known.name() == field.name()) {
                    continue;
                }
                match table_type(field.data_type()) {
                    Some(data_type) => fields.push(Field::new(field.name(), data_type, field.is_nullable())),
                    None => notes.push(format!(
                        "{}: column '{}' has type {}, which no column here can have, and is left out",
                        file.path,
                        field.name(),
                        field.data_type()
                    )),
                }
            }
        }
        Ok(fields)
    }
}

/// The type of a column that holds all values of a type of Parquet's; `None` if there is none.
fn table_type(data_type: &DataType) -> Option<DataType> {
    let field = |field: &Field| Some(Field::new(field.name(), table_type(field.data_type())?, field.is_nullable()));
    Some(match data_type {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Date32
        | DataType::Decimal128(..) => data_type.clone(),
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Date64 => DataType::Date32,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => DataType::Utf8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            DataType::Binary
        }
        DataType::Time32(_) => DataType::Time32(TimeUnit::Millisecond),
        DataType::Time64(unit) => DataType::Time64(*unit),
        DataType::Timestamp(TimeUnit::Second, zone) => DataType::Timestamp(TimeUnit::Millisecond, zone.clone()),
        DataType::Timestamp(..) => data_type.clone(),
        DataType::Dictionary(_, values) => table_type(values)?,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            DataType::List(Arc::new(field(item)?))
        }
        DataType::Struct(fields) if !fields.is_empty() => {
            DataType::Struct(fields.iter().map(|inner| field(inner)).collect::<Option<Fields>>()?)
        }
        DataType::Map(entries, sorted) => DataType::Map(Arc::new(field(entries)?), *sorted),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_formats() {
        for (path, expected) in [
            ("a.json.gz", Some("json")),
            ("s3://b/x/a.NDJSON", Some("json")),
            ("/x.csv/part", None),
            ("a.tsv.zst", Some("csv")),
            ("a.parquet", Some("parquet")),
            ("json", None),
        ] {
            assert_eq!(by_name(path).map(Kind::name), expected, "{path}");
        }
        assert_eq!(by_bytes(b" \n{\"a\":1}").name(), "json");
        assert_eq!(by_bytes(b"a,b\n").name(), "csv");
        assert_eq!(by_bytes(b"PAR1..").name(), "parquet");
    }
}
