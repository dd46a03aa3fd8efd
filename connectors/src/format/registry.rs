//! The formats that tables may name, and the options that tables of every format have.

use std::sync::LazyLock;

use coulee_runtime::options::{OptionKind, OptionSpec, Options};
use coulee_runtime::row_errors::OnError;
use coulee_runtime::table::ERROR_OPTIONS;
use coulee_runtime::{Error, Result};

use super::Format;
use super::csv::Csv;
use super::debezium::DebeziumJson;
use super::json::Json;
use super::raw::Raw;

/// Every format of one record at a time.
pub static FORMATS: &[&dyn Format] = &[&Json, &Csv, &Raw, &DebeziumJson];

/// The option that names the format of records, with a default. `Choice` wants words that live as long as the program.
pub fn format_option() -> OptionSpec {
    static NAMES: LazyLock<Vec<&'static str>> = LazyLock::new(|| FORMATS.iter().map(|format| format.name()).collect());
    OptionSpec::new("format", OptionKind::Choice(NAMES.as_slice()), Some("json"), "How a record is laid out.")
}

/// Every option of every format, without the one that names it.
pub fn option_specs() -> Vec<OptionSpec> {
    let own = FORMATS.iter().flat_map(|format| format.options());
    ERROR_OPTIONS.iter().chain(own).copied().collect()
}

/// The format of a table and its options, checked.
#[derive(Debug, Clone)]
pub struct FormatSettings {
    /// How a record is laid out.
    pub format: &'static dyn Format,
    /// The options that the format reads.
    pub options: Options,
    /// What happens to a malformed record.
    pub rejects: RejectSettings,
}

/// What happens to what cannot become a row.
#[derive(Debug, Clone)]
pub struct RejectSettings {
    /// Whether it is kept, and whether the job goes on.
    pub on_error: OnError,
    /// The stream that keeps it; `None` means `<table>_dead_letter`.
    stream: Option<String>,
}

impl FormatSettings {
    /// Reads the options that [`option_specs`] and [`format_option`] declare.
    ///
    /// # Errors
    /// `Invalid` when two options contradict or a character option is not one ASCII character.
    pub fn new(options: &Options) -> Result<Self> {
        let name = options.require("format")?;
        let format = FORMATS.iter().find(|format| format.name() == name).ok_or_else(|| {
            let owner = options.owner();
            Error::invalid(format!("{owner}: format '{name}' does not hold one record at a time"))
        })?;
        format.check(options)?;
        Ok(FormatSettings { format: *format, options: options.clone(), rejects: RejectSettings::new(options)? })
    }
}

impl RejectSettings {
    /// Reads the options that tables of every format have.
    ///
    /// # Errors
    /// `Invalid` when two options contradict.
    pub fn new(options: &Options) -> Result<Self> {
        let stream = options.get("format.dead-letter.stream").map(str::to_owned);
        Ok(RejectSettings { on_error: on_error(options)?, stream })
    }

    /// The stream for the rejected records of `table`, when that is what should happen to them.
    pub fn dead_letter_stream(&self, table: &str) -> Option<String> {
        (self.on_error == OnError::DeadLetter)
            .then(|| self.stream.clone().unwrap_or_else(|| format!("{table}_dead_letter")))
    }
}

/// With `<format>.ignore-parse-errors`, what is no record at all is dropped, as in Flink, unless the table asks to keep it.
fn on_error(options: &Options) -> Result<OnError> {
    let format = FORMATS.iter().find(|format| options.get("format") == Some(format.name()));
    let mut own = format.into_iter().flat_map(|format| format.options()).map(|spec| spec.key);
    let ignore = own.find(|key| key.ends_with(".ignore-parse-errors") && options.switch(key));
    let asked = match options.get("format.on-error") {
        Some("fail") => OnError::Fail,
        Some("skip") => OnError::Skip,
        _ => OnError::DeadLetter,
    };
    match ignore {
        Some(_) if !options.is_given("format.on-error") => Ok(OnError::Skip),
        Some(option) if asked == OnError::Fail => Err(Error::invalid(format!(
            "{}: '{option}' = 'true' and 'format.on-error' = 'fail' contradict each other; keep one of them",
            options.owner()
        ))),
        _ => Ok(asked),
    }
}
