//! Records as bytes, rows as columns: the formats that all connectors share.
//!
//! A [`Format`] makes decoders and encoders for the columns of a table and declares its own options. A [`RecordDecoder`]
//! appends records to columns of the projected schema: one record may give no, one or several rows, with row kinds where
//! the format has them. A [`RecordEncoder`] turns the rows of a batch into records, all in one buffer. A [`Framer`] finds
//! the records in a file of text; a log frames its records itself. A record that cannot become rows is a [`Reject`]; what
//! then happens to it is the table's [`OnError`].
//!
//! A new format is a file that implements [`Format`], and a line in [`registry`].

mod csv;
mod debezium;
mod decimal;
mod framing;
mod infer;
mod json;
mod plain;
mod raw;
mod registry;
mod rejects;
mod temporal;

use std::fmt::Debug;

use arrow::datatypes::SchemaRef;
use coulee_model::Timestamp;
use coulee_runtime::options::{OptionSpec, Options};
use coulee_runtime::{Batch, Result};

pub use coulee_runtime::row_errors::OnError;
pub use framing::{Frame, Framer, LineFramer};
pub use infer::{Inference, Layout};
pub use json::NonFinite;
pub use registry::{FORMATS, FormatSettings, RejectSettings, format_option, option_specs};
pub use rejects::Rejects;

pub(crate) use coulee_runtime::sql_type::sql_type;
pub(crate) use decimal::parse_decimal;
pub(crate) use json::Column;
pub(crate) use plain::{PlainText, append_plain};
pub(crate) use temporal::{rescale_timestamp, timestamp_of_millis};

/// A way to lay out records.
///
/// **Operations** `decoder` and `encoder` are made once per reader and writer; `framer` once per file.
/// **Guarantees** asked of an implementation: what an encoder writes for the columns of a schema, its decoder reads back as
/// the same values, whatever batches the rows came in and whatever columns are projected. `conformance_tests` holds it to that.
/// **Failure** A column's type without a form in the format is refused when the decoder or the encoder is made.
pub trait Format: Send + Sync + Debug {
    /// The value of the option `format`.
    fn name(&self) -> &'static str;

    /// The options that only this format has; their keys begin with its name and a dot.
    fn options(&self) -> &'static [OptionSpec];

    /// The extension of files that are written, without a dot.
    fn extension(&self) -> &'static str;

    /// The extensions, without dots, by which files of this format are told from others when nobody says the format.
    fn extensions(&self) -> &'static [&'static str] {
        &[]
    }

    /// What finds the columns of files that nobody has declared; `None` for a format whose files do not tell.
    fn inference(&self) -> Option<Box<dyn Inference>> {
        None
    }

    /// Whether decoders give row kinds, so that a table of this format is a changelog.
    fn is_changelog(&self) -> bool {
        false
    }

    /// Whether the first record of a file names the columns: see [`RecordDecoder::header`] and [`RecordEncoder::header`].
    fn has_header(&self, options: &Options) -> bool {
        let _ = options;
        false
    }

    /// Checks the options against each other.
    ///
    /// # Errors
    /// `Invalid`, naming the option.
    fn check(&self, options: &Options) -> Result<()> {
        let _ = options;
        Ok(())
    }

    /// What finds the records in a file.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    fn framer(&self, options: &Options) -> Result<Box<dyn Framer>>;

    /// A decoder of records that hold `columns`, in that order, for the columns `projection` (indexes into `columns`).
    /// The batches have the projected columns, in the order of `projection`.
    ///
    /// # Errors
    /// `Invalid` when a column's type cannot be read from the format.
    fn decoder(&self, options: &Options, columns: &SchemaRef, projection: &[usize]) -> Result<Box<dyn RecordDecoder>>;

    /// An encoder of rows of `schema`.
    ///
    /// # Errors
    /// `Invalid` when a column's type cannot be written in the format.
    fn encoder(&self, options: &Options, schema: &SchemaRef) -> Result<Box<dyn RecordEncoder>>;
}

/// A record as its carrier holds it. A line of a file has a value only.
#[derive(Debug, Clone, Copy, Default)]
pub struct Record<'a> {
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The data; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Names and values beside the data; empty unless [`RecordDecoder::reads_headers`].
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
    /// When the record was made, as its producer says.
    pub timestamp: Option<Timestamp>,
}

impl<'a> Record<'a> {
    /// A record of data alone.
    pub fn of(value: &'a [u8]) -> Self {
        Record { value: Some(value), ..Record::default() }
    }
}

/// Why a record could not become rows: the column or the byte, what was expected and what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// One line for a person.
    pub reason: String,
}

impl Reject {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Reject { reason: reason.into() }
    }
}

/// Turns record bytes into rows of a projected schema.
pub trait RecordDecoder: Send {
    /// Appends a record, and says how many rows it gave. A tombstone gives none in a format that does not know deletions.
    ///
    /// # Errors
    /// [`Reject`] when the record is malformed; nothing was appended then.
    fn decode(&mut self, record: &Record<'_>) -> Result<usize, Reject>;

    /// The names of the columns, for a format whose files begin with them. Call before the first `decode`.
    ///
    /// # Errors
    /// `Invalid` when a column of the table is not among them.
    fn header(&mut self, record: &[u8]) -> Result<()> {
        let _ = record;
        Ok(())
    }

    /// Whether `decode` looks at headers.
    fn reads_headers(&self) -> bool {
        false
    }

    /// How many rows were decoded since the last `flush`.
    fn len(&self) -> usize;

    /// Whether no row was decoded since the last `flush`.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows so far, in the projected schema, with kinds if the format has them; empties the decoder.
    ///
    /// # Errors
    /// `Internal` when the columns do not make a batch: a fault of the decoder.
    fn flush(&mut self) -> Result<Batch>;
}

/// Turns rows into records.
pub trait RecordEncoder: Send {
    /// Encodes each row as one record, without a line end. What happened to the rows matters to a format that
    /// [is a changelog](Format::is_changelog) alone; others are given inserts.
    ///
    /// # Errors
    /// `Invalid` when a value has no form in the format.
    fn encode(&mut self, rows: &Batch) -> Result<EncodedRows>;

    /// The record that a file begins with, without a line end, for a format with a header.
    fn header(&self) -> Option<Vec<u8>> {
        None
    }
}

/// The records of a batch: row `i` is `bytes[offsets[i]..offsets[i + 1]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedRows {
    /// All records, one behind the other.
    pub bytes: Vec<u8>,
    /// One more than there are rows; ascending, from 0.
    pub offsets: Vec<usize>,
}

impl EncodedRows {
    /// No rows, with room for some.
    pub(crate) fn with_capacity(rows: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        EncodedRows { bytes: Vec::with_capacity(rows * 64), offsets }
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The record of row `i`.
    pub fn row(&self, i: usize) -> &[u8] {
        &self.bytes[self.offsets[i]..self.offsets[i + 1]]
    }

    /// All records, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.offsets.windows(2).map(|ends| &self.bytes[ends[0]..ends[1]])
    }
}

/// A decoder as [`Format::decoder`] makes it, with the format and the options of a table.
///
/// # Errors
/// `Invalid` when a column's type cannot be read from the format.
pub fn decoder(settings: &FormatSettings, columns: &SchemaRef, projection: &[usize]) -> Result<Box<dyn RecordDecoder>> {
    settings.format.decoder(&settings.options, columns, projection)
}

/// An encoder as [`Format::encoder`] makes it, with the format and the options of a table.
///
/// # Errors
/// `Invalid` when a column's type cannot be written in the format.
pub fn encoder(settings: &FormatSettings, schema: &SchemaRef) -> Result<Box<dyn RecordEncoder>> {
    settings.format.encoder(&settings.options, schema)
}

#[cfg(test)]
mod conformance_tests;
#[cfg(test)]
mod flink_tests;
#[cfg(test)]
mod tests;
