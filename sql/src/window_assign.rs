//! The node of DataFusion's plan that gives rows their windows, where a row may be in several: `HOP`, `CUMULATE` and sessions.
//!
//! The windows of `TUMBLE` are columns that a projection computes, as each row has one. Here a row has many windows, or one that other rows decide about. The
//! node adds the columns `window_start`, `window_end` and `window_time` for the planner; which operators give rows their windows is decided in the
//! [stream plan](crate::stream_plan), where the aggregation behind it is known.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use coulee_runtime::window::assign::{Bound, millisecond_of};
use coulee_runtime::window::{WindowKind, Windows};
use datafusion_common::{Column, DFSchema, DFSchemaRef, Result, TableReference, internal_err};
use datafusion_expr::{
    Cast, Expr, ExprSchemable, Extension, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNodeCore,
};

use crate::types::timestamp_ltz;

/// The columns that are added, and what they are.
pub(crate) const ADDED: [(&str, Bound); 3] =
    [("window_start", Bound::Start), ("window_end", Bound::End), ("window_time", Bound::Time)];

/// Which windows rows are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Assigned {
    /// Windows that overlap, at fixed times.
    Overlapping(Windows),
    /// A window of the rows of a key that follow each other within a gap. The keys are those of the aggregation.
    Sessions {
        /// How long a key must be without rows.
        gap_millis: i64,
    },
}

impl Assigned {
    /// How long each of them is, if they begin at fixed times and have one length.
    pub fn size_millis(self) -> Option<i64> {
        match self {
            Assigned::Overlapping(windows) => match windows.kind() {
                WindowKind::Tumbling { size_millis } | WindowKind::Hopping { size_millis, .. } => Some(size_millis),
                WindowKind::Cumulating { .. } => None,
            },
            Assigned::Sessions { .. } => None,
        }
    }
}

/// Gives each row of the input its windows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct WindowAssign {
    pub input: Arc<LogicalPlan>,
    /// The rows' event time, over the input.
    pub time: Expr,
    pub windows: Assigned,
    /// By which columns sessions are apart, if that is said; else they are those of the keys of the aggregation.
    pub partition: Option<Vec<Expr>>,
    schema: DFSchemaRef,
}

impl WindowAssign {
    pub fn new(input: Arc<LogicalPlan>, time: Expr, windows: Assigned) -> Result<Self> {
        let schema = input.schema();
        let is_ltz = matches!(time.get_type(schema)?, DataType::Timestamp(_, Some(_)));
        let mut fields: Vec<(Option<TableReference>, FieldRef)> =
            schema.iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone())).collect();
        for (name, bound) in ADDED {
            let instant = DataType::Timestamp(TimeUnit::Millisecond, None);
            let data_type = if is_ltz && bound == Bound::Time { timestamp_ltz() } else { instant };
            fields.push((None, Arc::new(Field::new(name, data_type, true))));
        }
        let schema = Arc::new(DFSchema::new_with_metadata(fields, schema.metadata().clone())?);
        Ok(WindowAssign { input, time, windows, partition: None, schema })
    }

    /// The same with sessions by these columns.
    #[must_use]
    pub fn partitioned(self, by: Vec<Expr>) -> Self {
        WindowAssign { partition: Some(by), ..self }
    }

    pub fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }

    /// The node behind a plan, if it is one.
    pub fn of(plan: &LogicalPlan) -> Option<&Self> {
        let LogicalPlan::Extension(extension) = plan else { return None };
        extension.node.as_any().downcast_ref()
    }

    /// What a column of the node is of a window; `None` for a column of the input.
    pub fn bound(&self, column: usize) -> Option<Bound> {
        let added = column.checked_sub(self.input.schema().fields().len())?;
        ADDED.get(added).map(|(_, bound)| *bound)
    }

    /// The input, with what an aggregation needs of a row's time in the place of the bounds: the end of its slice, or for sessions the time itself.
    pub fn sliced(&self) -> Result<LogicalPlan> {
        let mut columns: Vec<Expr> = self.input.schema().columns().into_iter().map(Expr::Column).collect();
        let entry = match self.windows {
            Assigned::Overlapping(windows) => windows.slice_end(self.time.clone()),
            Assigned::Sessions { .. } => millisecond_of(self.time.clone()),
        };
        for (index, (name, _)) in ADDED.iter().enumerate() {
            let field = self.schema.field(self.input.schema().fields().len() + index);
            let column = match field.data_type() {
                DataType::Timestamp(_, None) => entry.clone(),
                other => Expr::Cast(Cast::new(Box::new(entry.clone()), other.clone())),
            };
            columns.push(column.alias(*name));
        }
        LogicalPlanBuilder::new(self.input.as_ref().clone()).project(columns)?.build()
    }
}

impl PartialOrd for WindowAssign {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (&self.input, &self.time, &self.partition).partial_cmp(&(&other.input, &other.time, &other.partition)) {
            Some(Ordering::Equal) if self.windows != other.windows => None,
            order => order,
        }
    }
}

impl UserDefinedLogicalNodeCore for WindowAssign {
    fn name(&self) -> &str {
        "WindowAssign"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.partition.iter().flatten().chain([&self.time]).cloned().collect()
    }

    /// A condition on the bounds stays above; where a table function gives sessions, so does one on rows, as these hold sessions together.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let bounds = ADDED.iter().map(|(name, _)| (*name).to_owned());
        let Some(partition) = &self.partition else { return bounds.collect() };
        let is_of_partition = |name: &&String| {
            partition.iter().any(|column| column.try_as_col().is_some_and(|column| column.name == **name))
        };
        let fields = self.schema.fields().iter().map(|field| field.name());
        fields.filter(|name| !is_of_partition(name)).cloned().chain(bounds).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.windows {
            Assigned::Overlapping(windows) => write!(f, "WindowAssign: {}", windows.kind()),
            Assigned::Sessions { gap_millis } => write!(f, "WindowAssign: session {gap_millis} ms"),
        }
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        match (exprs.pop(), inputs.pop()) {
            (Some(time), Some(input)) => {
                let assign = WindowAssign::new(Arc::new(input), time, self.windows)?;
                Ok(WindowAssign { partition: self.partition.is_some().then_some(exprs), ..assign })
            }
            _ => internal_err!("a window assignment has a time and an input"),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let input = self.input.schema();
        let exprs = self.expressions();
        let read = exprs.iter().flat_map(Expr::column_refs);
        let read = read.filter_map(|column: &Column| input.maybe_index_of_column(column));
        let own = output_columns.iter().copied().filter(|column| self.bound(*column).is_none());
        let mut needed: Vec<usize> = own.chain(read).collect();
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}
