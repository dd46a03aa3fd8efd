//! Tables as connectors see them: columns and options in, sources and sinks out.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use crate::connector::{Sink, Source};
use crate::options::{OptionKind, OptionSpec, Options, nearest};
use crate::row_errors::OnError;
use crate::{Error, OptionPart, Result, Subject};

/// A table as `CREATE TABLE` described it, without what only the planner needs (computed columns, the watermark).
#[derive(Debug, Clone)]
pub struct TableSpec {
    /// The name.
    pub name: String,
    /// The physical columns, in order: what is stored or decoded.
    pub schema: SchemaRef,
    /// Columns of `schema` that come from the record's envelope instead of its body: column name to metadata key.
    pub metadata_columns: BTreeMap<String, String>,
    /// Columns of `PRIMARY KEY`, in order.
    pub primary_key: Vec<String>,
    /// Columns of `PARTITIONED BY`, in order.
    pub partitioned_by: Vec<String>,
    /// The `WITH` options, without those of [`COMMON_OPTIONS`].
    pub options: BTreeMap<String, String>,
    /// The job that declares the table: kept with what the table creates.
    pub created_by: String,
}

impl TableSpec {
    /// The options, checked against what the connector declares.
    ///
    /// # Errors
    /// `Invalid`, naming table and option.
    pub fn options(&self, specs: impl IntoIterator<Item = OptionSpec>) -> Result<Options> {
        Options::of_table(&self.name, specs, &self.options)
    }
}

/// A table that nobody has declared, as its files look.
#[derive(Debug, Clone)]
pub struct InferredTable {
    /// The columns, in order.
    pub schema: SchemaRef,
    /// The `WITH` options.
    pub options: BTreeMap<String, String>,
    /// What it was inferred from: `2,000 rows`, `the footer`.
    pub sample: String,
    /// What else there is to know, in whole sentences: a column that is left out.
    pub notes: Vec<String>,
    /// Whether it can be read once only: a pipe.
    pub is_pipe: bool,
}

/// Options of every table, whatever its connector; the planner applies them.
pub const COMMON_OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "connector",
        OptionKind::Text,
        None,
        "What the table reads from or writes to. Absent: a built-in stream of the table's name.",
    ),
    OptionSpec::new(
        "scan.rate-limit",
        OptionKind::Number,
        None,
        "The most rows per second that a job reads from the table, over all subtasks.",
    ),
    OptionSpec::new(
        "scan.parallelism",
        OptionKind::Count,
        None,
        "How many subtasks read the table. Absent: the job's parallelism.",
    ),
    OptionSpec::new(
        "sink.parallelism",
        OptionKind::Count,
        None,
        "How many subtasks write the table. Absent: the job's parallelism.",
    ),
    OptionSpec::new(
        "scan.watermark.idle-timeout",
        OptionKind::Span,
        Some("1 s"),
        "How long a shard may bring nothing before it stops holding back the watermark. A shard of a built-in stream is idle only when all of it has been read.",
    ),
    OptionSpec::new(
        "scan.watermark.max-future-skew",
        OptionKind::Span,
        None,
        "How far beyond the wall clock an event time may move the watermark. Absent: as far as it likes.",
    ),
    OptionSpec::new(
        "scan.watermark.alignment.max-drift",
        OptionKind::Span,
        None,
        "How far a shard or file may be ahead of the slowest one of its alignment group, in event time, before it is not read for a while. Absent: as far as it likes.",
    ),
    OptionSpec::new(
        "scan.watermark.alignment.group",
        OptionKind::Text,
        Some("default"),
        "The tables of one job that wait for each other under 'scan.watermark.alignment.max-drift'.",
    ),
    OptionSpec::new(
        LOOKUP_RELOAD,
        OptionKind::Span,
        None,
        "How often a lookup join reads a table that ends again. Absent: once, when the job starts. A stream is followed without it.",
    ),
];

/// The option that says how often the table of a lookup join is read again.
pub const LOOKUP_RELOAD: &str = "lookup.full-cache.periodic-reload.interval";

/// The option that says what happens to rejected records and rows.
pub const ON_ERROR: &str = "format.on-error";

/// The option that names the stream of dead letters.
pub const DEAD_LETTER_STREAM: &str = "format.dead-letter.stream";

/// Options of every table whose rows may be rejected, whatever its connector.
pub const ERROR_OPTIONS: [OptionSpec; 2] = [
    OptionSpec::new(
        ON_ERROR,
        OptionKind::Choice(&["fail", "skip", "dead-letter"]),
        Some("dead-letter"),
        "What happens to a record that cannot become a row, a row that an expression fails on, or a row that the sink cannot take: stop the job, count and drop it, or count it and keep it with the reason.",
    ),
    OptionSpec::new(
        DEAD_LETTER_STREAM,
        OptionKind::Text,
        None,
        "The stream that keeps such records. Absent: the table's name with '_dead_letter' behind it.",
    ),
];

/// Makes sources and sinks of one connector.
pub trait Connector: Send + Sync + Debug {
    /// The value of `'connector'`.
    fn name(&self) -> &'static str;

    /// Every option that it takes, including those of its formats.
    fn options(&self) -> Vec<OptionSpec>;

    /// A source of the columns `projection` (indexes into `table.schema`, ascending, may be empty) of the table.
    ///
    /// # Errors
    /// `Invalid` when the table cannot be read or an option is wrong.
    fn source(&self, table: &TableSpec, projection: &[usize]) -> Result<Arc<dyn Source>>;

    /// A sink for rows of `table.schema`.
    ///
    /// # Errors
    /// `Invalid` when the table cannot be written or an option is wrong.
    fn sink(&self, table: &TableSpec) -> Result<Arc<dyn Sink>>;

    /// Checks columns and options without opening anything: what `CREATE TABLE` can already say. May create what the
    /// statement asks for (a built-in stream).
    ///
    /// # Errors
    /// `Invalid`, naming the column or option.
    fn create(&self, table: &TableSpec) -> Result<()> {
        table.options(self.options()).map(drop)
    }

    /// Whether there is something to read, as far as it is known at once: for the statement that starts a job, so that the error can show its option.
    ///
    /// # Errors
    /// `Invalid` when there is nothing; about the option that says where.
    fn check_source(&self, table: &TableSpec) -> Result<()> {
        let _ = table;
        Ok(())
    }

    /// The table at a path that a query names instead of a table: `SELECT … FROM 'events.ndjson'`. `None` where paths mean nothing. May block.
    ///
    /// # Errors
    /// `Invalid` when there is nothing to read or it has no columns.
    fn infer(&self, path: &str) -> Result<Option<InferredTable>> {
        let _ = path;
        Ok(None)
    }

    /// Whether `PARTITIONED BY` means something to it.
    fn takes_partitions(&self) -> bool {
        false
    }

    /// What happens to the table's records that cannot become rows, to its rows that an expression fails on, and to rows that
    /// its sink cannot take: `'format.on-error'`.
    fn on_error(&self, table: &TableSpec) -> OnError {
        match table.options.get(ON_ERROR).map(String::as_str) {
            Some("fail") => OnError::Fail,
            Some("skip") => OnError::Skip,
            _ => OnError::DeadLetter,
        }
    }

    /// A sink for rejected records (in [`rejected_schema`](crate::rejected_schema)) of the table, when its options ask for one.
    ///
    /// # Errors
    /// `Invalid` when an option is wrong.
    fn rejected_sink(&self, table: &TableSpec) -> Result<Option<Arc<dyn Sink>>> {
        let _ = table;
        Ok(None)
    }
}

/// The connectors that an engine knows.
#[derive(Debug, Clone, Default)]
pub struct Connectors {
    by_name: BTreeMap<&'static str, Arc<dyn Connector>>,
}

impl Connectors {
    /// Adds a connector; one of the same name is replaced.
    #[must_use]
    pub fn with(mut self, connector: Arc<dyn Connector>) -> Self {
        self.by_name.insert(connector.name(), connector);
        self
    }

    /// The connector of a name.
    ///
    /// # Errors
    /// `Invalid`, with the nearest name or all of them.
    pub fn get(&self, name: &str) -> Result<&Arc<dyn Connector>> {
        self.by_name.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.by_name.keys().copied().collect();
            let hint = match nearest(name, &known) {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("known connectors: {}", known.join(", ")),
            };
            let subject = Subject::Option { table: None, key: "connector".to_owned(), part: OptionPart::Value };
            Error::invalid(format!("unknown connector '{name}'; {hint}")).about(subject)
        })
    }

    /// The table at a path, and the name of the connector that reads it.
    ///
    /// # Errors
    /// As [`Connector::infer`]; `Invalid` when no connector reads paths.
    pub fn infer(&self, path: &str) -> Result<(&'static str, InferredTable)> {
        for (name, connector) in &self.by_name {
            if let Some(table) = connector.infer(path)? {
                return Ok((name, table));
            }
        }
        Err(Error::invalid(format!("'{path}': no connector reads files here")))
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Connector>> {
        self.by_name.values()
    }
}
