//! Groups and their aggregates in columns: DataFusion's group values and group accumulators, fed vectorised.

mod accumulators;
mod by_groups;
mod interner;
mod repeated;
mod results;

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::aggregate::AggregateFunctionExpr;

use crate::Result;
use crate::row_errors::evaluate::{Failed, evaluate, evaluate_condition, evaluate_selected};

pub(crate) use accumulators::Accumulators;
pub(crate) use interner::Interner;
pub use results::{FailedGroups, Results};

/// One aggregate of a query: the function over its arguments, and the rows that it sees.
#[derive(Debug, Clone)]
pub struct Aggregate {
    /// The function, its arguments (over the operator's input), its name and type.
    pub function: Arc<AggregateFunctionExpr>,
    /// `FILTER (WHERE …)`.
    pub filter: Option<Arc<dyn PhysicalExpr>>,
}

/// The columns that groups are made by, and what is computed for each.
#[derive(Debug, Clone)]
pub struct Grouping {
    /// The key columns' names and types; none means a single group.
    pub keys: Vec<FieldRef>,
    /// The aggregates.
    pub aggregates: Vec<Aggregate>,
}

impl Grouping {
    /// The columns of a partial result: the keys, then the state columns of every aggregate.
    ///
    /// # Errors
    /// When an aggregate cannot say what its state is.
    pub fn state_schema(&self) -> Result<SchemaRef> {
        let mut fields = self.keys.clone();
        for (index, aggregate) in self.aggregates.iter().enumerate() {
            for field in aggregate.function.state_fields()? {
                // Two aggregates over the same columns would give equal names.
                let name = format!("{index}:{}", field.name());
                fields.push(Arc::new(Field::new(name, field.data_type().clone(), true)));
            }
        }
        Ok(Arc::new(Schema::new(fields)))
    }

    /// How many state columns each aggregate has.
    ///
    /// # Errors
    /// As [`Grouping::state_schema`].
    pub fn state_widths(&self) -> Result<Vec<usize>> {
        self.aggregates.iter().map(|aggregate| Ok(aggregate.function.state_fields()?.len())).collect()
    }
}

/// The rows of one batch as a table takes them: key columns, and for each aggregate its arguments and its filter.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// The key columns.
    pub keys: Vec<ArrayRef>,
    /// Per aggregate, its arguments.
    pub arguments: Vec<Vec<ArrayRef>>,
    /// Per aggregate, which rows it sees; `None` is all.
    pub filters: Vec<Option<BooleanArray>>,
}

impl Inputs {
    /// Evaluates keys, arguments and filters over a batch. An argument is computed of the rows that its filter passes: it may
    /// fail on others.
    ///
    /// # Errors
    /// [`Failed::Rows`] when an expression fails on the data.
    pub(crate) fn evaluate(
        keys: &[Arc<dyn PhysicalExpr>],
        aggregates: &[Aggregate],
        rows: &RecordBatch,
    ) -> Result<Self, Failed> {
        let mut arguments = Vec::with_capacity(aggregates.len());
        let mut filters = Vec::with_capacity(aggregates.len());
        for aggregate in aggregates {
            let filter = match &aggregate.filter {
                Some(filter) => Some(evaluate_condition(filter, rows)?),
                None => None,
            };
            let argument = |expr: &Arc<dyn PhysicalExpr>| match (evaluate(expr, rows), &filter) {
                (Err(Failed::Rows(..)), Some(filter)) => evaluate_selected(expr, rows, filter),
                (computed, _) => computed,
            };
            arguments.push(aggregate.function.expressions().iter().map(argument).collect::<Result<_, Failed>>()?);
            filters.push(filter);
        }
        let keys = keys.iter().map(|key| evaluate(key, rows)).collect::<Result<_, Failed>>()?;
        Ok(Inputs { keys, arguments, filters })
    }

    /// The same for some of the rows.
    ///
    /// # Errors
    /// When Arrow cannot select from a column's type.
    pub fn take(&self, rows: &arrow::array::UInt32Array) -> Result<Self> {
        let take = |column: &ArrayRef| -> Result<ArrayRef> { Ok(arrow::compute::take(column, rows, None)?) };
        let mut filters = Vec::with_capacity(self.filters.len());
        for filter in &self.filters {
            filters.push(match filter {
                Some(filter) => Some(arrow::compute::take(filter, rows, None)?.as_boolean().clone()),
                None => None,
            });
        }
        Ok(Inputs {
            keys: self.keys.iter().map(take).collect::<Result<_>>()?,
            arguments: self
                .arguments
                .iter()
                .map(|columns| columns.iter().map(take).collect::<Result<_>>())
                .collect::<Result<_>>()?,
            filters,
        })
    }
}

/// A hash table of groups with their accumulators.
pub struct GroupTable {
    groups: Interner,
    accumulators: Accumulators,
}

impl GroupTable {
    /// An empty table.
    ///
    /// # Errors
    /// When an accumulator cannot be made.
    pub fn new(grouping: &Grouping) -> Result<Self> {
        let groups = Interner::new(&grouping.keys)?;
        Ok(GroupTable { groups, accumulators: Accumulators::new(&grouping.aggregates)? })
    }

    /// How many groups.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there is no group.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes in memory, roughly.
    pub fn bytes(&self) -> usize {
        self.groups.bytes() + self.accumulators.bytes()
    }

    /// The group of each row of the last [`GroupTable::update`].
    pub fn group_of_row(&self) -> &[usize] {
        self.groups.of_row()
    }

    /// Aggregates `rows` input rows.
    ///
    /// # Errors
    /// When an accumulator fails on the data (an overflow).
    pub fn update(&mut self, inputs: &Inputs, rows: usize) -> Result<()> {
        let groups = self.groups.intern(&inputs.keys, rows)?;
        self.accumulators.update(&inputs.arguments, &inputs.filters, (self.groups.of_row(), groups))
    }

    /// Merges a partial result: columns as in [`Grouping::state_schema`].
    ///
    /// # Errors
    /// As [`GroupTable::update`].
    pub fn merge(&mut self, columns: &[ArrayRef], key_count: usize, widths: &[usize]) -> Result<()> {
        let rows = columns.first().map_or(0, |column| column.len());
        let groups = self.groups.intern(&columns[..key_count], rows)?;
        self.accumulators.merge(&columns[key_count..], widths, (self.groups.of_row(), groups))
    }

    /// Empties the table into a partial result: columns as in [`Grouping::state_schema`].
    ///
    /// # Errors
    /// When an accumulator cannot give its state.
    pub fn take_state(&mut self) -> Result<Vec<ArrayRef>> {
        let mut columns = self.groups.take_keys()?;
        columns.extend(self.accumulators.take_state()?);
        Ok(columns)
    }
}
