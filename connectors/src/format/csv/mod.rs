//! Delimited records (RFC 4180) with Flink's options: columns by position, or by the names in a file's header.
//!
//! A quote opens a quoted field only at the field's beginning; elsewhere it is a character. Text is taken as it stands; an
//! empty field is null in any column that is not text. Arrays and rows are one field, with a delimiter of their own.

mod decode;
mod encode;
mod framing;
mod infer;
mod settings;
mod split;

use arrow::datatypes::SchemaRef;
use coulee_runtime::Result;
use coulee_runtime::options::{OptionSpec, Options};

use super::{Format, Framer, Inference, RecordDecoder, RecordEncoder};
use decode::CsvDecoder;
use encode::CsvEncoder;
use framing::CsvFramer;
use infer::CsvInference;
use settings::{OPTIONS, Settings};

/// `'format' = 'csv'`.
#[derive(Debug)]
pub struct Csv;

impl Format for Csv {
    fn name(&self) -> &'static str {
        "csv"
    }

    fn options(&self) -> &'static [OptionSpec] {
        OPTIONS
    }

    fn extension(&self) -> &'static str {
        "csv"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["csv", "tsv", "psv"]
    }

    fn inference(&self) -> Option<Box<dyn Inference>> {
        Some(Box::new(CsvInference::default()))
    }

    fn has_header(&self, options: &Options) -> bool {
        options.switch("csv.header")
    }

    fn check(&self, options: &Options) -> Result<()> {
        Settings::new(options).map(drop)
    }

    fn framer(&self, options: &Options) -> Result<Box<dyn Framer>> {
        Ok(Box::new(CsvFramer::new(Settings::new(options)?.dialect)))
    }

    fn decoder(&self, options: &Options, columns: &SchemaRef, projection: &[usize]) -> Result<Box<dyn RecordDecoder>> {
        Ok(Box::new(CsvDecoder::new(Settings::new(options)?, columns, projection)?))
    }

    fn encoder(&self, options: &Options, schema: &SchemaRef) -> Result<Box<dyn RecordEncoder>> {
        let header = self.has_header(options);
        Ok(Box::new(CsvEncoder::new(Settings::new(options)?, schema, header)?))
    }
}
