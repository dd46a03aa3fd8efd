//! The node of DataFusion's plan that gives rows a time as a further column: the one at which they are processed, for windows over it, or the watermark
//! (`CURRENT_WATERMARK(ts)`).
//!
//! `PROCTIME()` is a function like any other, which is computed wherever the optimizer puts it. A window needs a time that follows a watermark: a window
//! function over a `PROCTIME()` column puts this node below itself, and takes the added column as its event time.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{Column, DFSchema, DFSchemaRef, Result, TableReference, internal_err};
use datafusion_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};

use crate::types::{TIMESTAMP, timestamp_ltz};

/// Which time is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Added {
    /// That of processing; the watermark follows the clock in these steps.
    ProcessingTime(Steps),
    /// The watermark when the row comes; null before there is one.
    Watermark {
        /// Whether it is a TIMESTAMP_LTZ.
        is_ltz: bool,
    },
}

/// When the watermark follows the clock: at the bounds of the windows, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Steps {
    pub step_millis: i64,
    pub offset_millis: i64,
}

impl Added {
    /// The added column. No name in SQL begins like that.
    fn name(self) -> &'static str {
        match self {
            Added::ProcessingTime(_) => "__processing_time",
            Added::Watermark { .. } => "__watermark",
        }
    }

    /// The added column.
    pub fn column(self) -> Expr {
        Expr::Column(Column::new_unqualified(self.name()))
    }

    fn field(self) -> Field {
        let data_type: DataType = match self {
            Added::ProcessingTime(_) | Added::Watermark { is_ltz: true } => timestamp_ltz(),
            Added::Watermark { is_ltz: false } => TIMESTAMP,
        };
        Field::new(self.name(), data_type, matches!(self, Added::Watermark { .. }))
    }
}

/// Gives each row of the input a time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct AddedTime {
    pub input: Arc<LogicalPlan>,
    pub added: Added,
    schema: DFSchemaRef,
}

impl AddedTime {
    pub fn new(input: Arc<LogicalPlan>, added: Added) -> Result<Self> {
        let own = input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone()));
        let mut fields: Vec<(Option<TableReference>, FieldRef)> = own.collect();
        fields.push((None, Arc::new(added.field())));
        let schema = Arc::new(DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?);
        Ok(AddedTime { input, added, schema })
    }

    /// The node behind a plan, if it is one.
    pub fn of(plan: &LogicalPlan) -> Option<&Self> {
        let LogicalPlan::Extension(extension) = plan else { return None };
        extension.node.as_any().downcast_ref()
    }

    /// Whether a column of the node is the added one.
    pub fn is_time(&self, column: usize) -> bool {
        column == self.input.schema().fields().len()
    }

    /// Whether the watermark behind the node is that of the added column.
    pub fn is_event_time(&self) -> bool {
        matches!(self.added, Added::ProcessingTime(_))
    }

    pub fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }
}

impl PartialOrd for AddedTime {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match self.input.partial_cmp(&other.input) {
            Some(Ordering::Equal) if self.added != other.added => None,
            order => order,
        }
    }
}

impl UserDefinedLogicalNodeCore for AddedTime {
    fn name(&self) -> &str {
        "AddedTime"
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
        [self.added.name().to_owned()].into()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "AddedTime: {}", self.added.name())
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        match inputs.pop() {
            Some(input) => AddedTime::new(Arc::new(input), self.added),
            None => internal_err!("an added time has an input"),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![output_columns.iter().copied().filter(|column| !self.is_time(*column)).collect()])
    }
}
