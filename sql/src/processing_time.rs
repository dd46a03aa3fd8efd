//! The node of DataFusion's plan that gives rows the time at which they are processed, as a column that windows can be made of.
//!
//! `PROCTIME()` is a function like any other, which is computed wherever the optimizer puts it. A window needs a time that follows a watermark: a window
//! function over a `PROCTIME()` column puts this node below itself, and takes the added column as its event time.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef};
use datafusion_common::{Column, DFSchema, DFSchemaRef, Result, TableReference, internal_err};
use datafusion_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};

use crate::types::timestamp_ltz;

/// The added column. No name in SQL begins like that.
const TIME: &str = "__processing_time";

/// Gives each row of the input its processing time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ProcessingTime {
    pub input: Arc<LogicalPlan>,
    pub steps: Steps,
    schema: DFSchemaRef,
}

/// When the watermark follows the clock: at the bounds of the windows, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Steps {
    pub step_millis: i64,
    pub offset_millis: i64,
}

impl ProcessingTime {
    pub fn new(input: Arc<LogicalPlan>, steps: Steps) -> Result<Self> {
        let own = input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone()));
        let mut fields: Vec<(Option<TableReference>, FieldRef)> = own.collect();
        fields.push((None, Arc::new(Field::new(TIME, timestamp_ltz(), false))));
        let schema = Arc::new(DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?);
        Ok(ProcessingTime { input, steps, schema })
    }

    /// The node behind a plan, if it is one.
    pub fn of(plan: &LogicalPlan) -> Option<&Self> {
        let LogicalPlan::Extension(extension) = plan else { return None };
        extension.node.as_any().downcast_ref()
    }

    /// The added column.
    pub fn time() -> Expr {
        Expr::Column(Column::new_unqualified(TIME))
    }

    /// Whether a column of the node is the added one.
    pub fn is_time(&self, column: usize) -> bool {
        column == self.input.schema().fields().len()
    }

    pub fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }
}

impl PartialOrd for ProcessingTime {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match self.input.partial_cmp(&other.input) {
            Some(Ordering::Equal) if self.steps != other.steps => None,
            order => order,
        }
    }
}

impl UserDefinedLogicalNodeCore for ProcessingTime {
    fn name(&self) -> &str {
        "ProcessingTime"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn prevent_predicate_push_down_columns(&self) -> std::collections::HashSet<String> {
        [TIME.to_owned()].into()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("ProcessingTime")
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        match inputs.pop() {
            Some(input) => ProcessingTime::new(Arc::new(input), self.steps),
            None => internal_err!("a processing time has an input"),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![output_columns.iter().copied().filter(|column| !self.is_time(*column)).collect()])
    }
}
