//! JSON records: one object each, or an array of objects; columns found by name.

mod column;
mod decode;
mod encode;
mod framing;
mod infer;
mod members;
mod scan;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use coulee_runtime::options::{OptionKind, OptionSpec, Options};
use coulee_runtime::{Error, Result};

use super::temporal::TimestampStandard;
use super::{Format, Framer, Inference, RecordDecoder, RecordEncoder};
pub(super) use column::Leniency;
pub use column::{Column, Values};
pub(super) use decode::JsonDecoder;
pub use decode::quoted;
use encode::Forms;
pub(super) use encode::JsonEncoder;
pub use encode::NonFinite;
pub(super) use framing::JsonFramer;
use infer::JsonInference;
pub(super) use members::members;

/// `'format' = 'json'`.
#[derive(Debug)]
pub struct Json;

const OPTIONS: &[OptionSpec] = &[
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
        "Whether a field that does not parse is null and the row stays, as in Flink. What is no JSON object is dropped and counted.",
    ),
    OptionSpec::new(
        "json.fail-on-missing-field",
        OptionKind::Switch,
        Some("false"),
        "Whether a record without a column's field is malformed. Otherwise the column is null.",
    ),
    OptionSpec::new(
        "json.map-null-key.mode",
        OptionKind::Choice(&["FAIL", "DROP", "LITERAL"]),
        Some("FAIL"),
        "What to do with a null key when a map is written. The keys of a map are never null here, so that all three write the same.",
    ),
    OptionSpec::new(
        "json.map-null-key.literal",
        OptionKind::Text,
        Some("null"),
        "The key that stands for null with 'json.map-null-key.mode' = 'LITERAL'. The keys of a map are never null here.",
    ),
    OptionSpec::new(
        "json.encode.decimal-as-plain-number",
        OptionKind::Switch,
        Some("false"),
        "Whether decimals are never written with an exponent. Otherwise 0.00000002 is written as 2E-8, as in Flink.",
    ),
    OptionSpec::new(
        "json.encode.ignore-null-fields",
        OptionKind::Switch,
        Some("false"),
        "Whether fields that are null are left out when writing.",
    ),
];

impl Format for Json {
    fn name(&self) -> &'static str {
        "json"
    }

    fn options(&self) -> &'static [OptionSpec] {
        OPTIONS
    }

    fn extension(&self) -> &'static str {
        "json"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["json", "jsonl", "ndjson"]
    }

    fn inference(&self) -> Option<Box<dyn Inference>> {
        Some(Box::new(JsonInference::default()))
    }

    fn check(&self, options: &Options) -> Result<()> {
        if options.switch("json.fail-on-missing-field") && options.switch("json.ignore-parse-errors") {
            return Err(Error::invalid(format!(
                "{}: 'json.fail-on-missing-field' and 'json.ignore-parse-errors' contradict each other; keep one of them",
                options.owner()
            )));
        }
        Ok(())
    }

    fn framer(&self, _: &Options) -> Result<Box<dyn Framer>> {
        Ok(Box::new(JsonFramer::default()))
    }

    fn decoder(&self, options: &Options, columns: &SchemaRef, projection: &[usize]) -> Result<Box<dyn RecordDecoder>> {
        let schema = Arc::new(columns.project(projection)?);
        let leniency = Leniency {
            fail_on_missing: options.switch("json.fail-on-missing-field"),
            ignore_parse_errors: options.switch("json.ignore-parse-errors"),
        };
        Ok(Box::new(JsonDecoder::new(schema, leniency)?))
    }

    fn encoder(&self, options: &Options, schema: &SchemaRef) -> Result<Box<dyn RecordEncoder>> {
        let forms =
            forms(options.get("json.timestamp-format.standard"), options.switch("json.encode.decimal-as-plain-number"));
        Ok(Box::new(JsonEncoder::new(schema, forms, options.switch("json.encode.ignore-null-fields"))?))
    }
}

/// The forms that a format's options choose.
pub(super) fn forms(timestamps: Option<&str>, plain_decimals: bool) -> Forms {
    let timestamps = match timestamps {
        Some("ISO-8601") => TimestampStandard::Iso8601,
        _ => TimestampStandard::Sql,
    };
    Forms { timestamps, plain_decimals }
}
