//! Where records that could not become rows go: the seam between a connector that rejects and one that keeps.

use std::fmt::Debug;
use std::sync::Arc;

use coulee_runtime::Result;
use coulee_runtime::connector::{Sink, Source};
use coulee_runtime::options::OptionSpec;
use coulee_runtime::row_errors::OnError;
use coulee_runtime::table::{Connector, DEAD_LETTER_STREAM, ERROR_OPTIONS, InferredTable, ON_ERROR, TableSpec};

/// Keeps rejected records.
///
/// **Operations** `sink` makes the sink that one table's rejected records are written to.
/// **Guarantees** The sink takes rows of [`rejected_schema`](coulee_runtime::rejected_schema), exactly once like any sink.
/// **Non-guarantees** Several tables may name the same stream; their records then mix.
/// **Failure** `Invalid` when the name cannot be used.
pub trait DeadLetters: Send + Sync + Debug {
    /// A sink for the rejected records of `table`, kept in `stream`.
    ///
    /// # Errors
    /// `Invalid` when the name cannot be used.
    fn sink(&self, table: &TableSpec, stream: &str) -> Result<Arc<dyn Sink>>;
}

/// A connector whose tables keep rejected rows even if it has no records to decode: an expression may fail on a row of any table.
#[derive(Debug)]
pub struct WithDeadLetters {
    inner: Arc<dyn Connector>,
    dead_letters: Arc<dyn DeadLetters>,
}

impl WithDeadLetters {
    /// The same connector, with the options of rejected rows if it does not have them.
    pub fn new(inner: Arc<dyn Connector>, dead_letters: Arc<dyn DeadLetters>) -> Self {
        WithDeadLetters { inner, dead_letters }
    }

    fn knows_errors(&self) -> bool {
        self.inner.options().iter().any(|option| option.key == ON_ERROR)
    }

    /// The table as the connector knows it.
    fn known(&self, table: &TableSpec) -> TableSpec {
        let mut known = table.clone();
        if !self.knows_errors() {
            known.options.retain(|key, _| ERROR_OPTIONS.iter().all(|option| option.key != key));
        }
        known
    }
}

impl Connector for WithDeadLetters {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn options(&self) -> Vec<OptionSpec> {
        let mut options = self.inner.options();
        if !self.knows_errors() {
            options.extend(ERROR_OPTIONS);
        }
        options
    }

    fn source(&self, table: &TableSpec, projection: &[usize]) -> Result<Arc<dyn Source>> {
        self.inner.source(&self.known(table), projection)
    }

    fn sink(&self, table: &TableSpec) -> Result<Arc<dyn Sink>> {
        self.inner.sink(&self.known(table))
    }

    fn create(&self, table: &TableSpec) -> Result<()> {
        table.options(self.options())?;
        self.inner.create(&self.known(table))
    }

    fn infer(&self, path: &str) -> Result<Option<InferredTable>> {
        self.inner.infer(path)
    }

    fn takes_partitions(&self) -> bool {
        self.inner.takes_partitions()
    }

    fn on_error(&self, table: &TableSpec) -> OnError {
        self.inner.on_error(table)
    }

    fn rejected_sink(&self, table: &TableSpec) -> Result<Option<Arc<dyn Sink>>> {
        if self.on_error(table) != OnError::DeadLetter {
            return Ok(None);
        }
        if let Some(sink) = self.inner.rejected_sink(&self.known(table))? {
            return Ok(Some(sink));
        }
        let stream = table.options.get(DEAD_LETTER_STREAM).cloned();
        let stream = stream.unwrap_or_else(|| format!("{}_dead_letter", table.name));
        self.dead_letters.sink(table, &stream).map(Some)
    }
}
