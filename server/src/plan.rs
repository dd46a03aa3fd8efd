//! From a script to a job that can be started: one SQL session per script, and again from the stored script for each start.

use std::sync::Arc;

use coulee_runtime::table::{Connectors, TableSpec};
use coulee_sql::{
    CatalogChange, Definitions, Effect, PlannedJob, QuerySink, Session, SessionDefaults, Statement, parse_script,
};

use crate::job::{SinkTarget, StoredScript};
use crate::registry::{Written, remembering};
use crate::{Error, Result};

/// A session of one script.
pub(crate) struct Planner {
    session: Session,
    written: Written,
}

impl Planner {
    pub(crate) fn new(connectors: &Connectors, script: &StoredScript, query_sink: Option<QuerySink>) -> Self {
        let (connectors, written) = remembering(connectors);
        let defaults =
            SessionDefaults { job_name: script.name.as_str().to_owned(), parallelism: script.parallelism, query_sink };
        Planner { session: Session::new(connectors, defaults, Arc::new(script.catalog.clone())), written }
    }

    /// Runs a statement, up to the start of its job. Blocks: it may make streams and list files.
    ///
    /// # Errors
    /// The statement's, with its place.
    pub(crate) fn execute(&mut self, statement: &Statement) -> Result<Effect> {
        self.written.forget();
        Ok(self.session.execute(statement)?)
    }

    /// What the last statement changes of the kept tables and views.
    pub(crate) fn catalog_changes(&mut self) -> Vec<CatalogChange> {
        self.session.take_catalog_changes()
    }

    /// The kept tables and views that the script needs to be planned again, as far as it has run.
    pub(crate) fn taken_over(&self) -> Definitions {
        self.session.taken_over().clone()
    }

    /// What the last statement leaves to be said beside its effect.
    pub(crate) fn notes(&mut self) -> Vec<String> {
        self.session.take_notes()
    }

    /// The tables that the last statement writes to.
    pub(crate) fn outputs(&self) -> Vec<TableSpec> {
        self.written.tables()
    }
}

/// What is kept of the tables that a job writes to.
pub(crate) fn targets(outputs: &[TableSpec]) -> Vec<SinkTarget> {
    let option = |table: &TableSpec, key: &str| table.options.get(key).cloned().unwrap_or_default();
    let target = |table: &TableSpec| SinkTarget {
        table: table.name.clone(),
        connector: option(table, "connector"),
        path: match option(table, "path") {
            path if path.is_empty() => option(table, "stream"),
            path => path,
        },
        format: option(table, "format"),
    };
    outputs.iter().map(target).collect()
}

/// Plans a stored job again, without those before it: its name is the record's to know. Blocks.
///
/// # Errors
/// The script's, and [`Error::Invalid`] when the statement is not a job any more.
pub(crate) fn replan(
    connectors: &Connectors,
    script: &StoredScript,
    index: usize,
) -> Result<(PlannedJob, Vec<TableSpec>)> {
    let mut planner = Planner::new(connectors, script, None);
    let statements = parse_script(&script.text, &script.origin)?;
    for (at, statement) in statements.iter().enumerate().take(index + 1) {
        if at == index {
            if let Effect::Insert(planned) = planner.execute(statement)? {
                return Ok((planned, planner.outputs()));
            }
        } else if statement.defines() {
            planner.execute(statement)?;
        }
    }
    let StoredScript { origin, .. } = script;
    Err(Error::Invalid(format!("{origin}: statement {} does not make a job: submit the script again", index + 1)))
}
