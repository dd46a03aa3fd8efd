//! Every connector there is: the only place that knows them all, and a wrapper that remembers what a plan writes to.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use coulee_connectors::{
    BlackholeConnector, DatagenConnector, DeadLetters, FilesystemConnector, NexmarkConnector, PrintConnector,
    PrintTarget, StreamConnector, StreamDeadLetters, WithDeadLetters,
};
use coulee_log::Log;
use coulee_runtime::connector::{Sink, Source};
use coulee_runtime::options::OptionSpec;
use coulee_runtime::row_errors::OnError;
use coulee_runtime::table::{Connector, Connectors, InferredTable, TableSpec};
use parking_lot::Mutex;

/// The connectors of an engine with this log. Relative paths begin at `base`.
pub(crate) fn connectors(log: &Arc<Log>, base: &Path, print: Arc<dyn PrintTarget>) -> Connectors {
    let dead_letters: Arc<dyn DeadLetters> = Arc::new(StreamDeadLetters::new(log.clone()));
    let keeping = |inner: Arc<dyn Connector>| Arc::new(WithDeadLetters::new(inner, dead_letters.clone()));
    Connectors::default()
        .with(keeping(Arc::new(StreamConnector::new(log.clone()))))
        .with(keeping(Arc::new(StreamConnector::upserting(log.clone()))))
        .with(keeping(Arc::new(FilesystemConnector::new(base, Some(dead_letters.clone())))))
        .with(keeping(Arc::new(NexmarkConnector)))
        .with(keeping(Arc::new(DatagenConnector)))
        .with(Arc::new(PrintConnector::new(print)))
        .with(Arc::new(BlackholeConnector))
}

/// The tables that sinks were made for, by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Written(Arc<Mutex<BTreeMap<String, TableSpec>>>);

impl Written {
    pub(crate) fn tables(&self) -> Vec<TableSpec> {
        self.0.lock().values().cloned().collect()
    }

    pub(crate) fn forget(&self) {
        self.0.lock().clear();
    }
}

/// The same connectors, which remember the tables that sinks are made for: the planner keeps those to itself.
pub(crate) fn remembering(connectors: &Connectors) -> (Connectors, Written) {
    let written = Written::default();
    let remember = |inner: &Arc<dyn Connector>| -> Arc<dyn Connector> {
        Arc::new(Remembering { inner: inner.clone(), written: written.clone() })
    };
    let wrapped = connectors.iter().fold(Connectors::default(), |all, inner| all.with(remember(inner)));
    (wrapped, written)
}

#[derive(Debug)]
struct Remembering {
    inner: Arc<dyn Connector>,
    written: Written,
}

impl Connector for Remembering {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn options(&self) -> Vec<OptionSpec> {
        self.inner.options()
    }

    fn check_source(&self, table: &TableSpec) -> coulee_runtime::Result<()> {
        self.inner.check_source(table)
    }

    fn infer(&self, path: &str) -> coulee_runtime::Result<Option<InferredTable>> {
        self.inner.infer(path)
    }

    fn takes_partitions(&self) -> bool {
        self.inner.takes_partitions()
    }

    fn source(&self, table: &TableSpec, projection: &[usize]) -> coulee_runtime::Result<Arc<dyn Source>> {
        self.inner.source(table, projection)
    }

    fn sink(&self, table: &TableSpec) -> coulee_runtime::Result<Arc<dyn Sink>> {
        let sink = self.inner.sink(table)?;
        let mut remembered = table.clone();
        remembered.options.insert("connector".to_owned(), self.name().to_owned());
        self.written.0.lock().insert(table.name.clone(), remembered);
        Ok(sink)
    }

    fn create(&self, table: &TableSpec) -> coulee_runtime::Result<()> {
        self.inner.create(table)
    }

    fn on_error(&self, table: &TableSpec) -> OnError {
        self.inner.on_error(table)
    }

    fn rejected_sink(&self, table: &TableSpec) -> coulee_runtime::Result<Option<Arc<dyn Sink>>> {
        self.inner.rejected_sink(table)
    }
}
