//! What a table's `'format.on-error'` makes of rejected rows, decided where they were rejected.
//!
//! A row belongs to the table that it was read from, if its origin says so. A row without an origin (a result of an
//! aggregation) belongs to the only table upstream, or to the strictest one of several.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{BinaryBuilder, StringBuilder};
use arrow::record_batch::RecordBatch;
use coulee_model::OperatorId;

use super::json::row_json;
use super::{OnError, REJECTED_RAW_BYTES_MAX, RejectedRows, beginning};
use crate::graph::{Graph, NodeKind, Port};
use crate::metrics::SubtaskMetrics;
use crate::{Batch, Error, Result, Subject, rejected_schema};

/// What the rows of one table become when they fail.
#[derive(Debug, Clone)]
struct TablePolicy {
    /// The source that reads the table; `None` for the table of a sink.
    source: Option<OperatorId>,
    table: String,
    on_error: OnError,
    /// The sink of the table's dead letters; `None` where there is none: the rows are counted only.
    kept_by: Option<OperatorId>,
}

/// The policies of the tables whose rows one operator may meet.
#[derive(Debug, Clone, Default)]
pub(crate) struct RowPolicies {
    /// The operator, for the origin of a row that was not read but computed.
    uid: String,
    tables: Vec<TablePolicy>,
}

/// Dead letters on their way to a sink, in [`rejected_schema`].
pub(crate) type Letters = (OperatorId, Batch);

impl RowPolicies {
    /// Those of a node: of a sink its own table's, else those of every source upstream.
    pub(crate) fn of_node(graph: &Graph, id: OperatorId) -> Self {
        let node = graph.node(id);
        let policy = |table: OperatorId, source| {
            let errors = graph.node(table).row_errors.as_ref()?;
            let mut edges = graph.edges.iter().filter(|edge| edge.from == table && edge.port == Port::REJECTED);
            let kept_by = edges.next().map(|edge| edge.to);
            Some(TablePolicy { source, table: errors.table.clone(), on_error: errors.on_error, kept_by })
        };
        let tables = match node.kind {
            NodeKind::Sink(_) => policy(id, None).into_iter().collect(),
            NodeKind::Source(_) | NodeKind::Operator(_) => {
                sources(graph, id).into_iter().filter_map(|source| policy(source, Some(source))).collect()
            }
        };
        RowPolicies { uid: node.uid.clone(), tables }
    }

    /// Counts the rows, and says which dead letters they become.
    ///
    /// # Errors
    /// `Invalid`, naming the first row whose table says that the job fails, or whose table is not known.
    pub(crate) fn apply(&self, rejected: &RejectedRows, metrics: &SubtaskMetrics) -> Result<Vec<Letters>> {
        let mut rows_of = vec![Vec::new(); self.tables.len()];
        for row in 0..rejected.failures.len() {
            match self.table_of(rejected, row) {
                Some(table) if self.tables[table].on_error != OnError::Fail => rows_of[table].push(row),
                Some(table) => return Err(self.failure(rejected, row, Some(&self.tables[table].table))),
                None => return Err(self.failure(rejected, row, None)),
            }
        }
        let mut letters = Vec::new();
        for (policy, rows) in self.tables.iter().zip(rows_of) {
            let Some(last) = rows.last() else { continue };
            let reason = self.sentence(rejected, *last);
            metrics.add_row_errors(&policy.table, rejected.stage, rows.len() as u64, &reason);
            if let (OnError::DeadLetter, Some(sink)) = (policy.on_error, policy.kept_by) {
                letters.push((sink, Batch::inserts(self.letters(rejected, &rows)?)));
            }
        }
        Ok(letters)
    }

    /// An error of a source or a sink itself: about its table, if it has one, else at its name.
    pub(crate) fn about_table(&self, error: Error) -> Error {
        match &self.tables[..] {
            [policy] => error.about(Subject::Table(policy.table.clone())),
            _ => error.at(format!("operator '{}'", self.uid)),
        }
    }

    fn table_of(&self, rejected: &RejectedRows, row: usize) -> Option<usize> {
        let source = rejected.rows.origins().map(|origins| origins.place(row).source);
        let own = source.and_then(|source| self.tables.iter().position(|policy| policy.source == Some(source)));
        let strictest = || (0..self.tables.len()).rev().max_by_key(|table| self.tables[*table].on_error);
        own.or_else(strictest)
    }

    fn origin(&self, rejected: &RejectedRows, row: usize) -> String {
        let read = rejected.rows.origins().map(|origins| origins.show(row));
        read.unwrap_or_else(|| format!("a row of '{}'", self.uid))
    }

    /// Expression and reason in one line.
    fn sentence(&self, rejected: &RejectedRows, row: usize) -> String {
        let failure = &rejected.failures[row];
        match &failure.expression {
            Some(expression) => format!("{expression}: {}", failure.reason),
            None => failure.reason.clone(),
        }
    }

    fn failure(&self, rejected: &RejectedRows, row: usize, table: Option<&str>) -> Error {
        let mut message = format!("{}: {}", self.origin(rejected, row), self.sentence(rejected, row));
        let Some(table) = table else { return Error::invalid(message) };
        message = format!("table '{table}', {message}; 'format.on-error' = 'skip' or 'dead-letter' would go on");
        Error::invalid(message).about(Subject::Table(table.to_owned()))
    }

    fn letters(&self, rejected: &RejectedRows, rows: &[usize]) -> Result<RecordBatch> {
        let (mut origin, mut reason) = (StringBuilder::new(), StringBuilder::new());
        let (mut raw, mut stage, mut expression) = (BinaryBuilder::new(), StringBuilder::new(), StringBuilder::new());
        for row in rows.iter().copied() {
            let failure = &rejected.failures[row];
            origin.append_value(self.origin(rejected, row));
            reason.append_value(&failure.reason);
            raw.append_value(beginning(&row_json(rejected.rows.rows(), row), REJECTED_RAW_BYTES_MAX));
            stage.append_value(rejected.stage.name());
            expression.append_option(failure.expression.as_deref());
        }
        Ok(RecordBatch::try_new(
            rejected_schema(),
            vec![
                Arc::new(origin.finish()),
                Arc::new(reason.finish()),
                Arc::new(raw.finish()),
                Arc::new(stage.finish()),
                Arc::new(expression.finish()),
            ],
        )?)
    }
}

/// The sources that a node's rows come from: itself, if it is one. Rejected records that flow into a node are not its rows.
fn sources(graph: &Graph, id: OperatorId) -> BTreeSet<OperatorId> {
    let mut found = BTreeSet::new();
    let (mut pending, mut seen) = (vec![id], BTreeSet::from([id]));
    while let Some(at) = pending.pop() {
        if matches!(graph.node(at).kind, NodeKind::Source(_)) {
            found.insert(at);
        }
        let inputs = graph.edges.iter().filter(|edge| edge.to == at && edge.port != Port::REJECTED);
        pending.extend(inputs.map(|edge| edge.from).filter(|from| seen.insert(*from)));
    }
    found
}

impl Graph {
    /// Leads the rejected rows of everything that may reject some to the sinks of dead letters. `kept_by` names the sink of
    /// each table whose rejected rows are kept; sinks are nodes that were added last, as edges go to later nodes.
    ///
    /// # Errors
    /// `Invalid` when a sink was added before something that leads to it.
    pub fn connect_dead_letters(&mut self, kept_by: &[(String, OperatorId)]) -> Result<()> {
        let sink_of = |table: &str| kept_by.iter().find(|(kept, _)| kept == table).map(|(_, sink)| *sink);
        let mut wanted: Vec<(OperatorId, OperatorId)> = Vec::new();
        for node in &self.nodes {
            let tables = match &node.kind {
                NodeKind::Operator(_) if self.may_reject(node.id) => sources(self, node.id),
                NodeKind::Operator(_) => BTreeSet::new(),
                NodeKind::Source(_) | NodeKind::Sink(_) => BTreeSet::from([node.id]),
            };
            for table in tables {
                let Some(errors) = &self.node(table).row_errors else { continue };
                let sink = sink_of(&errors.table).filter(|_| errors.on_error == OnError::DeadLetter);
                wanted.extend(sink.map(|sink| (node.id, sink)));
            }
        }
        wanted.sort_unstable();
        wanted.dedup();
        for (from, to) in wanted {
            self.connect(from, Port::REJECTED, to, crate::graph::Partitioning::Rebalance)?;
        }
        Ok(())
    }

    /// Whether an operator, or the expressions that its rows are shuffled by, may fail on a row.
    fn may_reject(&self, id: OperatorId) -> bool {
        let NodeKind::Operator(factory) = &self.node(id).kind else { return true };
        factory.may_reject() || self.edges.iter().any(|edge| edge.from == id && edge.partitioning.may_fail())
    }
}

/// Rejected rows as the dead letters that they become, whatever a table says: for the operator harness.
///
/// # Errors
/// When Arrow refuses the columns: a fault of ours.
pub(crate) fn all_letters(rejected: &RejectedRows) -> Result<Batch> {
    let rows: Vec<usize> = (0..rejected.failures.len()).collect();
    Ok(Batch::inserts(RowPolicies::default().letters(rejected, &rows)?))
}
