//! Records as bytes, rows as columns: the formats that all connectors share.
//!
//! A [`RecordDecoder`] appends records, one by one, to columns of the projected schema; a [`RecordEncoder`] turns the
//! rows of a batch into records, all in one buffer. What frames a record (a line, a log record) is the connector's
//! business. A record that cannot become a row is a [`Reject`]; what then happens to it is the table's [`OnError`].

mod csv;
mod json;
mod raw;
mod rejects;
mod sql_type;
mod temporal;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use coulee_runtime::options::{OptionKind, OptionSpec, Options};
use coulee_runtime::{Error, Result};

pub use rejects::Rejects;

pub(crate) use csv::CsvEncoder;
pub(crate) use sql_type::sql_type;

/// Why a record could not become a row: the column or the byte, what was expected and what was found.
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
    /// Appends one record as one row.
    ///
    /// # Errors
    /// [`Reject`] when the record is malformed; nothing was appended then.
    fn decode(&mut self, record: &[u8]) -> Result<(), Reject>;

    /// The names of the columns, for a format whose files begin with them. Call before the first `decode`.
    ///
    /// # Errors
    /// `Invalid` when a column of the table is not among them.
    fn header(&mut self, record: &[u8]) -> Result<()> {
        let _ = record;
        Ok(())
    }

    /// How many rows were decoded since the last `flush`.
    fn len(&self) -> usize;

    /// Whether no row was decoded since the last `flush`.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows so far, in the projected schema; empties the decoder.
    ///
    /// # Errors
    /// `Internal` when the columns do not make a batch: a fault of the decoder.
    fn flush(&mut self) -> Result<RecordBatch>;
}

/// Turns rows into records.
pub trait RecordEncoder: Send {
    /// Encodes each row as one record, without a line end.
    ///
    /// # Errors
    /// `Invalid` when a value has no form in the format.
    fn encode(&mut self, rows: &RecordBatch) -> Result<EncodedRows>;
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

/// How a record is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormatKind {
    /// One JSON object; columns are found by name.
    Json,
    /// One line of delimited fields; columns are found by position, or by the header's names.
    Csv,
    /// The record is the one column.
    Raw,
}

/// What happens to a record that cannot become a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The job stops with an error that names the record.
    Fail,
    /// It is counted and dropped.
    Skip,
    /// It is counted and kept beside the table, with the reason.
    DeadLetter,
}

/// How timestamps are written in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampStandard {
    /// `2013-01-01 10:17:00.000`
    Sql,
    /// `2013-01-01T10:17:00.000`
    Iso8601,
}

/// The format options of a table, read once.
#[derive(Debug, Clone)]
pub struct FormatSettings {
    /// How a record is laid out.
    pub kind: FormatKind,
    /// What happens to a malformed record.
    pub on_error: OnError,
    /// The stream that keeps malformed records; `None` means `<table>_dead_letter`.
    pub dead_letter_stream: Option<String>,
    /// How JSON timestamps are written. Both forms are read.
    pub timestamps: TimestampStandard,
    /// Whether a JSON record without a column's field is malformed. Otherwise the column is null.
    pub fail_on_missing_field: bool,
    /// Whether JSON leaves out fields that are null.
    pub ignore_null_fields: bool,
    /// What separates CSV fields.
    pub csv_delimiter: u8,
    /// What quotes CSV fields; `None` when quotes have no meaning.
    pub csv_quote: Option<u8>,
    /// The CSV text that means null, besides an empty unquoted field of a column that is not text.
    pub csv_null: Option<String>,
    /// Whether CSV files begin with the columns' names. Streams never do.
    pub csv_header: bool,
}

/// Every option of every record format; Flink's names where Flink has them.
pub const FORMAT_OPTIONS: &[OptionSpec] = &[
    OptionSpec::new("format", OptionKind::Choice(&["json", "csv", "raw"]), Some("json"), "How a record is laid out."),
    OptionSpec::new(
        "format.on-error",
        OptionKind::Choice(&["fail", "skip", "dead-letter"]),
        Some("dead-letter"),
        "What happens to a record that cannot become a row: stop the job, count and drop it, or count it and keep it with the reason.",
    ),
    OptionSpec::new(
        "format.dead-letter.stream",
        OptionKind::Text,
        None,
        "The stream that keeps such records. Absent: the table's name with '_dead_letter' behind it.",
    ),
    OptionSpec::new(
        "json.timestamp-format.standard",
        OptionKind::Choice(&["SQL", "ISO-8601"]),
        Some("SQL"),
        "How timestamps are written: '2013-01-01 10:17:00.000' or '2013-01-01T10:17:00.000'. Both are read.",
    ),
    OptionSpec::new(
        "json.ignore-parse-errors",
        OptionKind::Switch,
        Some("false"),
        "Flink's word for 'format.on-error' = 'skip'.",
    ),
    OptionSpec::new(
        "json.fail-on-missing-field",
        OptionKind::Switch,
        Some("false"),
        "Whether a record without a column's field is malformed. Otherwise the column is null.",
    ),
    OptionSpec::new(
        "json.encode.ignore-null-fields",
        OptionKind::Switch,
        Some("false"),
        "Whether fields that are null are left out when writing.",
    ),
    OptionSpec::new(
        "csv.field-delimiter",
        OptionKind::Text,
        Some(","),
        "The one character between fields; '\\t' for a tab.",
    ),
    OptionSpec::new("csv.quote-character", OptionKind::Text, Some("\""), "The one character around quoted fields."),
    OptionSpec::new(
        "csv.disable-quote-character",
        OptionKind::Switch,
        Some("false"),
        "Whether quotes are ordinary characters.",
    ),
    OptionSpec::new(
        "csv.null-literal",
        OptionKind::Text,
        None,
        "The text that means null. An empty field is null in any column that is not text.",
    ),
    OptionSpec::new(
        "csv.header",
        OptionKind::Switch,
        Some("true"),
        "Whether files begin with a line of column names: columns are then found by name when reading, and the line is written when writing. Streams have none.",
    ),
    OptionSpec::new(
        "csv.ignore-parse-errors",
        OptionKind::Switch,
        Some("false"),
        "Flink's word for 'format.on-error' = 'skip'.",
    ),
];

impl FormatSettings {
    /// Reads the options that [`FORMAT_OPTIONS`] declares.
    ///
    /// # Errors
    /// `Invalid` when two options contradict or a character option is not one ASCII character.
    pub fn new(options: &Options) -> Result<Self> {
        let kind = match options.require("format")? {
            "json" => FormatKind::Json,
            "csv" => FormatKind::Csv,
            "raw" => FormatKind::Raw,
            other => {
                let owner = options.owner();
                return Err(Error::invalid(format!("{owner}: format '{other}' does not hold one record at a time")));
            }
        };
        let quotes = !options.switch("csv.disable-quote-character");
        let timestamps = match options.get("json.timestamp-format.standard") {
            Some("ISO-8601") => TimestampStandard::Iso8601,
            _ => TimestampStandard::Sql,
        };
        Ok(FormatSettings {
            kind,
            on_error: on_error(options)?,
            dead_letter_stream: options.get("format.dead-letter.stream").map(str::to_owned),
            timestamps,
            fail_on_missing_field: options.switch("json.fail-on-missing-field"),
            ignore_null_fields: options.switch("json.encode.ignore-null-fields"),
            csv_delimiter: one_character(options, "csv.field-delimiter")?,
            csv_quote: quotes.then(|| one_character(options, "csv.quote-character")).transpose()?,
            csv_null: options.get("csv.null-literal").map(str::to_owned),
            csv_header: options.switch("csv.header"),
        })
    }

    /// The stream for the rejected records of `table`, when that is what should happen to them.
    pub fn dead_letter_stream(&self, table: &str) -> Option<String> {
        (self.on_error == OnError::DeadLetter)
            .then(|| self.dead_letter_stream.clone().unwrap_or_else(|| format!("{table}_dead_letter")))
    }
}

fn on_error(options: &Options) -> Result<OnError> {
    let ignore =
        ["json.ignore-parse-errors", "csv.ignore-parse-errors"].into_iter().find(|option| options.switch(option));
    let asked = match options.get("format.on-error") {
        Some("fail") => OnError::Fail,
        Some("skip") => OnError::Skip,
        _ => OnError::DeadLetter,
    };
    match ignore {
        None => Ok(asked),
        Some(_) if !options.is_given("format.on-error") || asked == OnError::Skip => Ok(OnError::Skip),
        Some(option) => Err(Error::invalid(format!(
            "{}: '{option}' = 'true' and 'format.on-error' = '{}' contradict each other; keep one of them",
            options.owner(),
            options.get("format.on-error").unwrap_or_default()
        ))),
    }
}

fn one_character(options: &Options, key: &str) -> Result<u8> {
    match options.require(key)? {
        "\\t" => Ok(b'\t'),
        text if text.len() == 1 => Ok(text.as_bytes()[0]),
        text => Err(Error::invalid(format!(
            "{}: option '{key}' is '{text}', expected one ASCII character",
            options.owner()
        ))),
    }
}

/// A decoder of records whose body holds `columns`, in that order, for the columns `projection` (indexes into `columns`).
/// The batches have the projected columns, in the order of `projection`.
///
/// # Errors
/// `Invalid` when a column's type cannot be read from the format.
pub fn decoder(settings: &FormatSettings, columns: &SchemaRef, projection: &[usize]) -> Result<Box<dyn RecordDecoder>> {
    Ok(match settings.kind {
        FormatKind::Json => {
            let schema = SchemaRef::new(columns.project(projection)?);
            Box::new(json::JsonDecoder::new(schema, settings.fail_on_missing_field)?)
        }
        FormatKind::Csv => Box::new(csv::CsvDecoder::new(settings, columns, projection)?),
        FormatKind::Raw => Box::new(raw::RawDecoder::new(columns, projection)?),
    })
}

/// An encoder of rows of `schema`.
///
/// # Errors
/// `Invalid` when a column's type cannot be written in the format.
pub fn encoder(settings: &FormatSettings, schema: &SchemaRef) -> Result<Box<dyn RecordEncoder>> {
    Ok(match settings.kind {
        FormatKind::Json => Box::new(json::JsonEncoder::new(schema, settings.timestamps, settings.ignore_null_fields)?),
        FormatKind::Csv => Box::new(csv::CsvEncoder::new(settings, schema)?),
        FormatKind::Raw => Box::new(raw::RawEncoder::new(schema)?),
    })
}

#[cfg(test)]
mod tests;
