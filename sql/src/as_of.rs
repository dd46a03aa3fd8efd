//! The node of DataFusion's plan that joins a table as of a time of each row; `table_as_of` makes it.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion_common::{DFSchema, DFSchemaRef, TableReference, internal_err};
use datafusion_expr::utils::split_conjunction;
use datafusion_expr::{BinaryExpr, Expr, Extension, LogicalPlan, Operator, TableScan, UserDefinedLogicalNodeCore, lit};
use sqlparser::ast::TableFactor;

use crate::join_time::side_of;

/// Whether a relation is a table as of a time.
pub(crate) fn is_as_of(relation: &TableFactor) -> bool {
    matches!(relation, TableFactor::Table { version: Some(_), .. })
}

/// Each row of the left side with the rows that the right one, a table, has for it: at an event time, or when the row is processed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct AsOf {
    pub left: Arc<LogicalPlan>,
    pub right: Arc<LogicalPlan>,
    /// Over the columns of both.
    pub condition: Expr,
    /// Whether a row that finds nothing stays.
    pub is_outer: bool,
    /// As of an event time: what the versions of the table are; `None` for the time of processing.
    pub versions: Option<Versions>,
    schema: DFSchemaRef,
}

/// The versions of a table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Versions {
    /// The event times of the left side and of the table.
    pub times: [Expr; 2],
    /// The columns of the table by which its rows replace each other.
    pub key: Vec<String>,
    /// Whether the table's rows are filtered before they are versions.
    pub may_filter: bool,
}

impl AsOf {
    pub fn new(
        left: Arc<LogicalPlan>,
        right: Arc<LogicalPlan>,
        condition: Expr,
        is_outer: bool,
        versions: Option<Versions>,
    ) -> datafusion_common::Result<Self> {
        let own = left.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone()));
        let found = right.schema().iter().map(|(qualifier, field)| {
            let nullable = field.is_nullable() || is_outer;
            (qualifier.cloned(), Arc::new(field.as_ref().clone().with_nullable(nullable)))
        });
        let fields: Vec<(Option<TableReference>, FieldRef)> = own.chain(found).collect();
        let schema = Arc::new(DFSchema::new_with_metadata(fields, left.schema().metadata().clone())?);
        Ok(AsOf { left, right, condition, is_outer, versions, schema })
    }

    pub fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }

    /// The node behind a plan, if it is one.
    pub fn of(plan: &LogicalPlan) -> Option<&Self> {
        let LogicalPlan::Extension(extension) = plan else { return None };
        extension.node.as_any().downcast_ref()
    }

    /// Whether a column is one of the left side.
    pub fn is_left(&self, column: usize) -> bool {
        column < self.left.schema().fields().len()
    }
}

impl PartialOrd for AsOf {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let of = |node: &'_ Self| (node.left.clone(), node.right.clone(), node.expressions(), node.is_outer);
        of(self).partial_cmp(&of(other))
    }
}

impl UserDefinedLogicalNodeCore for AsOf {
    fn name(&self) -> &str {
        "AsOf"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.versions.iter().flat_map(|versions| &versions.times).chain([&self.condition]).cloned().collect()
    }

    /// Conditions stay above: DataFusion would put them on both sides.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.schema.fields().iter().map(|field| field.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "AsOf: {}", self.condition)
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> datafusion_common::Result<Self> {
        let inputs: Result<[LogicalPlan; 2], _> = inputs.try_into();
        let condition = exprs.pop();
        let versions = match (&self.versions, exprs.try_into()) {
            (Some(versions), Ok(times)) => Some(Versions { times, ..versions.clone() }),
            _ => None,
        };
        match (condition, inputs) {
            (Some(condition), Ok([left, right])) if versions.is_some() == self.versions.is_some() => {
                AsOf::new(Arc::new(left), Arc::new(right), condition, self.is_outer, versions)
            }
            _ => internal_err!("a join as of a time has a condition and two inputs"),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.left.schema().fields().len();
        let exprs = self.expressions();
        let read = exprs.iter().flat_map(Expr::column_refs);
        let read = read.filter_map(|column| self.schema.maybe_index_of_column(column));
        let mut needed: Vec<usize> = output_columns.iter().copied().chain(read).collect();
        needed.sort_unstable();
        needed.dedup();
        let (left, right): (Vec<usize>, Vec<usize>) = needed.into_iter().partition(|column| *column < width);
        Some(vec![left, right.into_iter().map(|column| column - width).collect()])
    }
}

/// The only table that a plan reads, if nothing is done to its rows but to each alone; `may_filter`: also leaving some out.
pub(crate) fn table_of(plan: &LogicalPlan, may_filter: bool) -> Option<&TableScan> {
    match plan {
        LogicalPlan::TableScan(scan) => Some(scan),
        LogicalPlan::Projection(node) => table_of(&node.input, may_filter),
        LogicalPlan::Filter(node) if may_filter => table_of(&node.input, may_filter),
        LogicalPlan::SubqueryAlias(node) => table_of(&node.input, may_filter),
        _ => None,
    }
}

/// The terms of a condition that say that something of the left side equals something of the right one: both, and the term; and all other terms.
pub(crate) fn equalities(condition: &Expr, left: &DFSchema, right: &DFSchema) -> (Vec<(Expr, Expr, Expr)>, Vec<Expr>) {
    let (mut equal, mut rest) = (Vec::new(), Vec::new());
    for term in split_conjunction(condition) {
        let Expr::BinaryExpr(BinaryExpr { left: a, op: Operator::Eq, right: b }) = term else {
            rest.extend((*term != lit(true)).then(|| term.clone()));
            continue;
        };
        match (side_of(a, [left, right]), side_of(b, [left, right])) {
            (Some(0), Some(1)) => equal.push((a.as_ref().clone(), b.as_ref().clone(), term.clone())),
            (Some(1), Some(0)) => equal.push((b.as_ref().clone(), a.as_ref().clone(), term.clone())),
            _ => rest.push(term.clone()),
        }
    }
    (equal, rest)
}
