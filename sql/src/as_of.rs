//! The node of DataFusion's plan that joins a table as of the time at which rows are processed; `table_as_of` makes it.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion_common::{DFSchema, DFSchemaRef, TableReference, internal_err};
use datafusion_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use sqlparser::ast::TableFactor;

/// Whether a relation is a table as of a time.
pub(crate) fn is_as_of(relation: &TableFactor) -> bool {
    matches!(relation, TableFactor::Table { version: Some(_), .. })
}

/// Each row of the left side with the rows that the right one, a table, has for it when it is processed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct AsOf {
    pub left: Arc<LogicalPlan>,
    pub right: Arc<LogicalPlan>,
    /// Over the columns of both.
    pub condition: Expr,
    /// Whether a row that finds nothing stays.
    pub is_outer: bool,
    schema: DFSchemaRef,
}

impl AsOf {
    pub fn new(
        left: Arc<LogicalPlan>,
        right: Arc<LogicalPlan>,
        condition: Expr,
        is_outer: bool,
    ) -> datafusion_common::Result<Self> {
        let own = left.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone()));
        let found = right.schema().iter().map(|(qualifier, field)| {
            let nullable = field.is_nullable() || is_outer;
            (qualifier.cloned(), Arc::new(field.as_ref().clone().with_nullable(nullable)))
        });
        let fields: Vec<(Option<TableReference>, FieldRef)> = own.chain(found).collect();
        let schema = Arc::new(DFSchema::new_with_metadata(fields, left.schema().metadata().clone())?);
        Ok(AsOf { left, right, condition, is_outer, schema })
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
        let of = |node: &'_ Self| (node.left.clone(), node.right.clone(), node.condition.clone(), node.is_outer);
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
        vec![self.condition.clone()]
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
        match (exprs.pop(), inputs) {
            (Some(condition), Ok([left, right])) => {
                AsOf::new(Arc::new(left), Arc::new(right), condition, self.is_outer)
            }
            _ => internal_err!("a join as of a time has a condition and two inputs"),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.left.schema().fields().len();
        let read = self.condition.column_refs();
        let read = read.iter().filter_map(|column| self.schema.maybe_index_of_column(column));
        let mut needed: Vec<usize> = output_columns.iter().copied().chain(read).collect();
        needed.sort_unstable();
        needed.dedup();
        let (left, right): (Vec<usize>, Vec<usize>) = needed.into_iter().partition(|column| *column < width);
        Some(vec![left, right.into_iter().map(|column| column - width).collect()])
    }
}
