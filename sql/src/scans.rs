//! The scans of a job: a table is read once, with all the columns that anybody of the job needs.
//!
//! So a source's name does not depend on who reads which columns, and its positions are those of all who read it. Flink reuses sources in the same way.

use std::sync::Arc;

use coulee_model::OperatorId;
use coulee_runtime::Subject;
use coulee_runtime::connector::Source;
use datafusion_expr::{LogicalPlan, TableScan};

use crate::as_of::AsOf;
use crate::catalog::{ScanSource, Table};
use crate::error::{Fault, Result};

/// A table that a job reads.
#[derive(Debug)]
struct Shared {
    table: Arc<Table>,
    /// Indexes into the table's physical columns, ascending.
    columns: Vec<usize>,
    node: Option<OperatorId>,
    /// What gives its upserts the rows before them.
    normalized: Option<OperatorId>,
}

/// All tables that a job reads.
#[derive(Debug, Default)]
pub(crate) struct Scans(Vec<Shared>);

impl Scans {
    /// Notes what a plan reads. To be called for all plans of a job before the first is translated.
    pub fn collect(&mut self, plan: &LogicalPlan) {
        if let LogicalPlan::TableScan(scan) = plan
            && let Some(ScanSource(table)) = scan.source.downcast_ref::<ScanSource>()
        {
            self.add(table, needed(scan, table));
        }
        // A table that is looked up has no source in the graph: whether it ends is of no account.
        let is_lookup = AsOf::of(plan).is_some_and(|node| node.versions.is_none());
        let inputs = if is_lookup { 1 } else { usize::MAX };
        plan.inputs().into_iter().take(inputs).for_each(|input| self.collect(input));
    }

    /// Whether all tables end, so that the job finishes by itself.
    ///
    /// # Errors
    /// What the connector says of a table.
    pub fn end(&self) -> Result<bool> {
        for Shared { table, columns, .. } in &self.0 {
            if !source(table, columns)?.is_bounded() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn add(&mut self, table: &Arc<Table>, columns: Vec<usize>) {
        let shared = match self.0.iter_mut().position(|shared| Arc::ptr_eq(&shared.table, table)) {
            Some(at) => &mut self.0[at],
            None => {
                self.0.push(Shared { table: table.clone(), columns: Vec::new(), node: None, normalized: None });
                let last = self.0.len() - 1;
                &mut self.0[last]
            }
        };
        shared.columns.extend(columns);
        shared.columns.sort_unstable();
        shared.columns.dedup();
    }

    /// The columns that are read of a table; those of this scan alone where its plan was not collected.
    pub fn columns(&mut self, scan: &TableScan, table: &Arc<Table>) -> Vec<usize> {
        self.add(table, needed(scan, table));
        self.find(table).map(|shared| shared.columns.clone()).unwrap_or_default()
    }

    /// The source of a table, once there is one.
    pub fn node(&self, table: &Arc<Table>) -> Option<OperatorId> {
        self.find(table)?.node
    }

    pub fn set_node(&mut self, table: &Arc<Table>, node: OperatorId) {
        if let Some(shared) = self.0.iter_mut().find(|shared| Arc::ptr_eq(&shared.table, table)) {
            shared.node = Some(node);
        }
    }

    /// The operator behind the source of a table that gives upserts, once there is one.
    pub fn normalized(&self, table: &Arc<Table>) -> Option<OperatorId> {
        self.find(table)?.normalized
    }

    pub fn set_normalized(&mut self, table: &Arc<Table>, node: OperatorId) {
        if let Some(shared) = self.0.iter_mut().find(|shared| Arc::ptr_eq(&shared.table, table)) {
            shared.normalized = Some(node);
        }
    }

    fn find(&self, table: &Arc<Table>) -> Option<&Shared> {
        self.0.iter().find(|shared| Arc::ptr_eq(&shared.table, table))
    }
}

/// The source of what a scan needs of a table.
///
/// # Errors
/// What the connector says of the table.
pub(crate) fn source_of(scan: &TableScan, table: &Table) -> Result<Arc<dyn Source>> {
    source(table, &needed(scan, table))
}

fn source(table: &Table, columns: &[usize]) -> Result<Arc<dyn Source>> {
    let about = |error| Fault::from(error).about(Subject::Table(table.name().to_owned()));
    table.connector.source(&table.spec, columns).map_err(about)
}

/// The columns of a scan, of its table's watermark, and of the key by which its rows replace each other.
fn needed(scan: &TableScan, table: &Table) -> Vec<usize> {
    let mut columns: Vec<usize> =
        scan.projection.clone().unwrap_or_else(|| (0..table.spec.schema.fields().len()).collect());
    if let Some(event_time) = &table.event_time {
        let used = event_time.watermark.column_refs();
        columns.extend(used.iter().filter_map(|column| table.spec.schema.index_of(&column.name).ok()));
    }
    if !table.spec.primary_key.is_empty() && source(table, &columns).is_ok_and(|source| source.is_upsert()) {
        columns.extend(table.spec.primary_key.iter().filter_map(|column| table.spec.schema.index_of(column).ok()));
    }
    columns
}
