//! `'connector' = 'print'`: rows as lines of text, like Flink's: `+I[1, a, 2024-01-01T00:00:00]`.
//!
//! For people to look at: rows are printed when they are written, not when they are committed, so a job that recovers
//! prints the rows since its last checkpoint again.

use std::fmt::Debug;
use std::io::{self, Write};
use std::sync::Arc;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use bytes::Bytes;
use coulee_model::{CheckpointId, SubtaskIndex};
use coulee_runtime::connector::{Prepared, Sink, SinkContext, SinkWriter, Source};
use coulee_runtime::metrics::SubtaskMetrics;
use coulee_runtime::options::{OptionKind, OptionSpec};
use coulee_runtime::state::Facet;
use coulee_runtime::table::{Connector, TableSpec};
use coulee_runtime::{Batch, Error, Result};

const OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "print-identifier",
        OptionKind::Text,
        None,
        "A text that is put before every line: 'identifier> '.",
    ),
    OptionSpec::new("standard-error", OptionKind::Switch, Some("false"), "Print to the standard error."),
];

/// Where rows are printed: shared by all subtasks of all jobs.
pub trait PrintTarget: Send + Sync + Debug {
    /// Prints the rows of one batch, not interleaved with those of another. `identifier` is empty when there is none.
    ///
    /// # Errors
    /// When the target cannot be written; the job's attempt ends.
    fn print(&self, identifier: &str, batch: &Batch) -> Result<()>;
}

/// The process's standard output.
#[derive(Debug, Clone, Copy, Default)]
pub struct StandardOutput;

impl PrintTarget for StandardOutput {
    fn print(&self, identifier: &str, batch: &Batch) -> Result<()> {
        print_to(io::stdout().lock(), identifier, batch)
    }
}

/// The process's standard error.
#[derive(Debug, Clone, Copy, Default)]
pub struct StandardError;

impl PrintTarget for StandardError {
    fn print(&self, identifier: &str, batch: &Batch) -> Result<()> {
        print_to(io::stderr().lock(), identifier, batch)
    }
}

fn print_to(mut out: impl Write, identifier: &str, batch: &Batch) -> Result<()> {
    let mut text = Vec::new();
    write_lines(identifier, batch, &mut text)?;
    out.write_all(&text).and_then(|()| out.flush()).map_err(|cause| Error::io("cannot print", cause))
}

/// Appends the lines of a batch: kind and values of a row, or as much of it as Flink shows.
///
/// # Errors
/// When a column has a type that Arrow cannot show.
pub fn write_lines(identifier: &str, batch: &Batch, out: &mut Vec<u8>) -> Result<()> {
    let options = FormatOptions::default().with_null("null");
    let columns = batch.rows().columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    for row in 0..batch.len() {
        if !identifier.is_empty() {
            out.extend_from_slice(identifier.as_bytes());
            out.extend_from_slice(b"> ");
        }
        out.extend_from_slice(batch.kind(row).symbol().as_bytes());
        for (i, column) in columns.iter().enumerate() {
            out.extend_from_slice(if i == 0 { b"[" } else { b", " });
            write!(out, "{}", column.value(row)).map_err(|cause| Error::io("cannot print", cause))?;
        }
        out.extend_from_slice(if columns.is_empty() { b"[]\n" } else { b"]\n" });
    }
    Ok(())
}

/// `'connector' = 'print'`.
#[derive(Debug, Clone)]
pub struct PrintConnector {
    output: Arc<dyn PrintTarget>,
    error: Arc<dyn PrintTarget>,
}

impl PrintConnector {
    /// Prints to `target`, whether a table asks for the standard error or not.
    pub fn new(target: Arc<dyn PrintTarget>) -> Self {
        PrintConnector { output: Arc::clone(&target), error: target }
    }
}

impl Default for PrintConnector {
    /// Prints to the standard output, or to the standard error where a table asks for it.
    fn default() -> Self {
        PrintConnector { output: Arc::new(StandardOutput), error: Arc::new(StandardError) }
    }
}

impl Connector for PrintConnector {
    fn name(&self) -> &'static str {
        "print"
    }

    fn options(&self) -> Vec<OptionSpec> {
        OPTIONS.to_vec()
    }

    fn source(&self, table: &TableSpec, _projection: &[usize]) -> Result<Arc<dyn Source>> {
        Err(Error::invalid(format!("table '{}': 'print' keeps nothing and cannot be read", table.name)))
    }

    fn sink(&self, table: &TableSpec) -> Result<Arc<dyn Sink>> {
        let options = table.options(OPTIONS.iter().copied())?;
        let target = if options.switch("standard-error") { &self.error } else { &self.output };
        let identifier = options.get("print-identifier").unwrap_or_default().to_owned();
        Ok(Arc::new(PrintSink { target: Arc::clone(target), identifier }))
    }
}

#[derive(Debug, Clone)]
struct PrintSink {
    target: Arc<dyn PrintTarget>,
    identifier: String,
}

#[async_trait]
impl Sink for PrintSink {
    fn identity(&self) -> Vec<Facet> {
        vec![Facet::new("connector", "print")]
    }

    fn describe(&self) -> String {
        match self.identifier.as_str() {
            "" => "print".to_owned(),
            identifier => format!("print as '{identifier}'"),
        }
    }

    fn refuses_changelog(&self) -> Option<&'static str> {
        None
    }

    async fn recover(&self, _context: &SinkContext, _states: &[Bytes], _committables: &[Bytes]) -> Result<()> {
        Ok(())
    }

    async fn open(
        &self,
        _context: &SinkContext,
        _subtask: SubtaskIndex,
        _states: &[Bytes],
        metrics: Arc<SubtaskMetrics>,
    ) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(PrintWriter { sink: self.clone(), metrics }))
    }
}

struct PrintWriter {
    sink: PrintSink,
    metrics: Arc<SubtaskMetrics>,
}

#[async_trait]
impl SinkWriter for PrintWriter {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        self.sink.target.print(&self.sink.identifier, &batch)?;
        self.metrics.add_delivered_rows(batch.len() as u64);
        Ok(())
    }

    async fn prepare(&mut self, _checkpoint: CheckpointId) -> Result<Prepared> {
        Ok(Prepared::default())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::{Int8Array, Int64Array, StringArray, TimestampMillisecondArray};
    use arrow::record_batch::{RecordBatch, RecordBatchOptions};
    use coulee_model::{JobName, ManualClock, OperatorId, Timestamp};
    use parking_lot::Mutex;

    use super::*;

    #[derive(Debug, Default)]
    struct Memory(Mutex<Vec<u8>>);

    impl PrintTarget for Memory {
        fn print(&self, identifier: &str, batch: &Batch) -> Result<()> {
            write_lines(identifier, batch, &mut self.0.lock())
        }
    }

    fn rows() -> RecordBatch {
        RecordBatch::try_from_iter([
            ("a", Arc::new(Int64Array::from(vec![Some(1), None, Some(3), Some(4)])) as _),
            ("b", Arc::new(StringArray::from(vec!["x", "y", "z", ""])) as _),
            ("t", Arc::new(TimestampMillisecondArray::from(vec![1_357_035_420_000, 0, 1, 2])) as _),
        ])
        .expect("rows")
    }

    #[tokio::test]
    async fn lines_are_those_of_flink() {
        let memory = Arc::new(Memory::default());
        let table = TableSpec {
            name: "p".to_owned(),
            schema: rows().schema(),
            metadata_columns: BTreeMap::new(),
            primary_key: Vec::new(),
            partitioned_by: Vec::new(),
            options: BTreeMap::from([("print-identifier".to_owned(), "me".to_owned())]),
            created_by: "test".to_owned(),
        };
        let context = SinkContext {
            job: JobName::new("j").expect("a name"),
            incarnation: "0123456789ab".to_owned(),
            uid: "sink".to_owned(),
            spool: "/nonexistent".into(),
            clock: Arc::new(ManualClock::new(Timestamp(0))),
        };
        let metrics = Arc::new(SubtaskMetrics::new(OperatorId(0), SubtaskIndex(0)));
        let sink = PrintConnector::new(Arc::clone(&memory) as _).sink(&table).expect("a sink");
        let mut writer = sink.open(&context, SubtaskIndex(0), &[], Arc::clone(&metrics)).await.expect("a writer");
        writer.write(Batch::changes(rows(), Int8Array::from(vec![0, 1, 2, 3]))).await.expect("written");
        assert_eq!(
            String::from_utf8(memory.0.lock().clone()).expect("text"),
            "me> +I[1, x, 2013-01-01T10:17:00]\n\
             me> -U[null, y, 1970-01-01T00:00:00]\n\
             me> +U[3, z, 1970-01-01T00:00:00.001]\n\
             me> -D[4, , 1970-01-01T00:00:00.002]\n"
        );
        assert_eq!(metrics.figures().delivered_rows(), 4);
    }

    #[test]
    fn rows_without_columns_are_lines_too() {
        let options = RecordBatchOptions::new().with_row_count(Some(2));
        let empty = arrow::datatypes::Schema::empty();
        let rows = RecordBatch::try_new_with_options(Arc::new(empty), vec![], &options).expect("rows");
        let mut out = Vec::new();
        write_lines("", &Batch::inserts(rows), &mut out).expect("written");
        assert_eq!(out, b"+I[]\n+I[]\n");
    }
}
