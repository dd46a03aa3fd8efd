//! The options of CSV, and what they decide.

use arrow::datatypes::{DataType, Schema};
use coulee_runtime::options::{OptionKind, OptionSpec, Options};
use coulee_runtime::{Error, Result};

use super::split::Dialect;
use crate::format::sql_type;

pub(super) const OPTIONS: &[OptionSpec] = &[
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
        "csv.escape-character",
        OptionKind::Text,
        None,
        "The one character that makes the next one ordinary. Absent: there is none; a quote within quotes is doubled.",
    ),
    OptionSpec::new(
        "csv.null-literal",
        OptionKind::Text,
        None,
        "The text that means null. An empty field is null in any column that is not text.",
    ),
    OptionSpec::new(
        "csv.array-element-delimiter",
        OptionKind::Text,
        Some(";"),
        "What stands between the elements of an array and the fields of a row, within one field.",
    ),
    OptionSpec::new(
        "csv.allow-comments",
        OptionKind::Switch,
        Some("false"),
        "Whether lines that begin with '#' are passed over.",
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
        "Whether a field that does not parse or is not there is null and the row stays, as in Flink. A record with too many fields is dropped and counted.",
    ),
];

/// How records are read and written, from the options.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) dialect: Dialect,
    pub(super) null: Option<String>,
    pub(super) element_delimiter: String,
    pub(super) ignore_parse_errors: bool,
}

impl Settings {
    pub(super) fn new(options: &Options) -> Result<Self> {
        let quotes = !options.switch("csv.disable-quote-character");
        let dialect = Dialect {
            delimiter: one_character(options, "csv.field-delimiter")?,
            quote: quotes.then(|| one_character(options, "csv.quote-character")).transpose()?,
            escape: match options.is_given("csv.escape-character") {
                true => Some(one_character(options, "csv.escape-character")?),
                false => None,
            },
            comments: options.switch("csv.allow-comments"),
        };
        for (key, other) in [("csv.quote-character", dialect.quote), ("csv.escape-character", dialect.escape)] {
            if other == Some(dialect.delimiter) {
                return Err(Error::invalid(format!(
                    "{}: '{key}' and 'csv.field-delimiter' are the same character",
                    options.owner()
                )));
            }
        }
        let element_delimiter = options.require("csv.array-element-delimiter")?.to_owned();
        if element_delimiter.is_empty() {
            return Err(options.invalid("csv.array-element-delimiter", "'csv.array-element-delimiter' is empty"));
        }
        Ok(Settings {
            dialect,
            null: options.get("csv.null-literal").map(str::to_owned),
            element_delimiter,
            ignore_parse_errors: options.switch("csv.ignore-parse-errors"),
        })
    }
}

fn one_character(options: &Options, key: &str) -> Result<u8> {
    match options.require(key)? {
        "\\t" => Ok(b'\t'),
        text if text.len() == 1 && !matches!(text, "\n" | "\r") => Ok(text.as_bytes()[0]),
        text => Err(options.invalid(key, format_args!("option '{key}' is '{text}', expected one ASCII character"))),
    }
}

/// A field holds a flat value, or an array or a row of such.
pub(super) fn check_columns(schema: &Schema) -> Result<()> {
    let has_form = |data_type: &DataType| match data_type {
        DataType::List(item) => !item.data_type().is_nested(),
        DataType::Struct(fields) => fields.iter().all(|field| !field.data_type().is_nested()),
        other => !other.is_nested(),
    };
    match schema.fields().iter().find(|field| !has_form(field.data_type())) {
        None => Ok(()),
        Some(field) => {
            let (name, ty) = (field.name(), sql_type(field.data_type()));
            Err(Error::invalid(format!("column '{name}' has type {ty}, which has no form in CSV; use format 'json'")))
        }
    }
}
