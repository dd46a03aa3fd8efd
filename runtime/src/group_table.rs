//! Groups and their aggregates in columns: DataFusion's group values and group accumulators, fed vectorised.

mod repeated;
mod results;

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion_expr::{EmitTo, GroupsAccumulator};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::GroupsAccumulatorAdapter;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::aggregate::AggregateFunctionExpr;
use datafusion_physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion_physical_plan::aggregates::order::GroupOrdering;

use crate::Result;
use crate::row_errors::evaluate::{Failed, evaluate, evaluate_condition, evaluate_selected};

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
    /// `None` when there are no keys: one group, which exists once a row came.
    groups: Option<Box<dyn GroupValues>>,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    functions: Vec<Arc<AggregateFunctionExpr>>,
    group_of_row: Vec<usize>,
    single_group_exists: bool,
}

impl GroupTable {
    /// An empty table.
    ///
    /// # Errors
    /// When an accumulator cannot be made.
    pub fn new(grouping: &Grouping) -> Result<Self> {
        let groups = if grouping.keys.is_empty() {
            None
        } else {
            Some(new_group_values(Arc::new(Schema::new(grouping.keys.clone())), &GroupOrdering::None)?)
        };
        let accumulators =
            grouping.aggregates.iter().map(|aggregate| accumulator(&aggregate.function)).collect::<Result<_>>()?;
        let functions = grouping.aggregates.iter().map(|aggregate| aggregate.function.clone()).collect();
        Ok(GroupTable { groups, accumulators, functions, group_of_row: Vec::new(), single_group_exists: false })
    }

    /// How many groups.
    pub fn len(&self) -> usize {
        self.groups.as_ref().map_or(usize::from(self.single_group_exists), |groups| groups.len())
    }

    /// Whether there is no group.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes in memory, roughly.
    pub fn bytes(&self) -> usize {
        self.groups.as_ref().map_or(0, |groups| groups.size())
            + self.accumulators.iter().map(|accumulator| accumulator.size()).sum::<usize>()
    }

    /// The group of each row of the last [`GroupTable::update`].
    pub fn group_of_row(&self) -> &[usize] {
        &self.group_of_row
    }

    fn intern(&mut self, keys: &[ArrayRef], rows: usize) -> Result<usize> {
        match &mut self.groups {
            Some(groups) => {
                groups.intern(keys, &mut self.group_of_row)?;
                Ok(groups.len())
            }
            None => {
                self.group_of_row.clear();
                self.group_of_row.resize(rows, 0);
                self.single_group_exists |= rows > 0;
                Ok(usize::from(self.single_group_exists))
            }
        }
    }

    /// Aggregates `rows` input rows.
    ///
    /// # Errors
    /// When an accumulator fails on the data (an overflow).
    pub fn update(&mut self, inputs: &Inputs, rows: usize) -> Result<()> {
        let groups = self.intern(&inputs.keys, rows)?;
        for (index, accumulator) in self.accumulators.iter_mut().enumerate() {
            let filter = inputs.filters[index].as_ref();
            accumulator.update_batch(&inputs.arguments[index], &self.group_of_row, filter, groups)?;
        }
        Ok(())
    }

    /// Merges a partial result: columns as in [`Grouping::state_schema`].
    ///
    /// # Errors
    /// As [`GroupTable::update`].
    pub fn merge(&mut self, columns: &[ArrayRef], key_count: usize, widths: &[usize]) -> Result<()> {
        let rows = columns.first().map_or(0, |column| column.len());
        let groups = self.intern(&columns[..key_count], rows)?;
        let mut next = key_count;
        for (accumulator, width) in self.accumulators.iter_mut().zip(widths) {
            accumulator.merge_batch(&columns[next..next + width], &self.group_of_row, groups)?;
            next += width;
        }
        Ok(())
    }

    fn take_keys(&mut self) -> Result<Vec<ArrayRef>> {
        self.single_group_exists = false;
        let Some(groups) = &mut self.groups else { return Ok(Vec::new()) };
        let keys = groups.emit(EmitTo::All)?;
        // SUBTLE: emitting takes the values, but some implementations keep the hash table that points to them.
        groups.clear_shrink(0);
        Ok(keys)
    }

    /// Empties the table into a partial result: columns as in [`Grouping::state_schema`].
    ///
    /// # Errors
    /// When an accumulator cannot give its state.
    pub fn take_state(&mut self) -> Result<Vec<ArrayRef>> {
        let mut columns = self.take_keys()?;
        for accumulator in &mut self.accumulators {
            columns.extend(accumulator.state(EmitTo::All)?);
        }
        Ok(columns)
    }
}

fn accumulator(function: &Arc<AggregateFunctionExpr>) -> Result<Box<dyn GroupsAccumulator>> {
    if function.groups_accumulator_supported() {
        return Ok(function.create_groups_accumulator()?);
    }
    let function = function.clone();
    Ok(Box::new(GroupsAccumulatorAdapter::new(move || function.create_accumulator())))
}
