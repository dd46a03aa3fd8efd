//! Rows that are there several times, aggregated without being written out where the aggregate allows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, UInt32Array};
use arrow::compute::take;
use datafusion_physical_expr::aggregate::AggregateFunctionExpr;

use super::{Accumulators, Aggregate, GroupTable, Inputs};
use crate::Result;

/// Rows that are written out at a time.
const ROWS_AT_ONCE: usize = 8_192;

/// What an aggregate makes of a row that is there several times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeats {
    /// The same as of one: `MIN`, `MAX`, anything `DISTINCT`.
    Once,
    /// It counts them: a partial count is how often they are there.
    Count,
    /// It must see each.
    Each,
}

impl Repeats {
    fn of(function: &AggregateFunctionExpr) -> Self {
        const ONCE: [&str; 6] = ["min", "max", "bool_and", "bool_or", "bit_and", "bit_or"];
        let name = function.fun().name();
        match name {
            _ if function.is_distinct() || ONCE.contains(&name) => Repeats::Once,
            "count" => Repeats::Count,
            _ => Repeats::Each,
        }
    }
}

impl GroupTable {
    /// Aggregates rows of which each is there `times` times, at least once. `aggregates` are those of the table.
    ///
    /// # Errors
    /// As [`GroupTable::update`].
    pub fn update_repeated(&mut self, aggregates: &[Aggregate], inputs: &Inputs, times: &Int64Array) -> Result<()> {
        let groups = self.groups.intern(&inputs.keys, times.len())?;
        self.accumulators.update_repeated(aggregates, inputs, times, (self.groups.of_row(), groups))
    }
}

impl Accumulators {
    /// Aggregates rows of which each is there `times` times, at least once. `aggregates` are those that the accumulators were made of.
    ///
    /// # Errors
    /// When an accumulator fails on the data.
    pub(crate) fn update_repeated(
        &mut self,
        aggregates: &[Aggregate],
        inputs: &Inputs,
        times: &Int64Array,
        (group_of_row, groups): (&[usize], usize),
    ) -> Result<()> {
        let mut each = Vec::new();
        for (index, aggregate) in aggregates.iter().enumerate() {
            let (arguments, filter) = (&inputs.arguments[index], inputs.filters[index].as_ref());
            let accumulator = &mut self.accumulators[index];
            match Repeats::of(&aggregate.function) {
                Repeats::Once => accumulator.update_batch(arguments, group_of_row, filter, groups)?,
                Repeats::Count => {
                    let counts: ArrayRef = Arc::new(counted(times, arguments, filter));
                    accumulator.merge_batch(&[counts], group_of_row, groups)?;
                }
                Repeats::Each => each.push(index),
            }
        }
        if each.is_empty() {
            return Ok(());
        }
        let mut rows = Vec::with_capacity(ROWS_AT_ONCE);
        for (row, times) in times.values().iter().enumerate() {
            for _ in 0..*times {
                rows.push(row as u32);
                if rows.len() == ROWS_AT_ONCE {
                    self.update_rows(&each, inputs, std::mem::take(&mut rows), (group_of_row, groups))?;
                }
            }
        }
        self.update_rows(&each, inputs, rows, (group_of_row, groups))
    }

    /// Has some accumulators see these rows, in which one may be several times.
    fn update_rows(
        &mut self,
        accumulators: &[usize],
        inputs: &Inputs,
        rows: Vec<u32>,
        (group_of_row, groups): (&[usize], usize),
    ) -> Result<()> {
        let group_of_row: Vec<usize> = rows.iter().map(|row| group_of_row[*row as usize]).collect();
        let rows = UInt32Array::from(rows);
        for index in accumulators {
            let taken = |column: &ArrayRef| Ok(take(column, &rows, None)?);
            let arguments = inputs.arguments[*index].iter().map(taken).collect::<Result<Vec<_>>>()?;
            // SUBTLE: without a filter and without nulls, DataFusion's accumulators take every group for one that has a value, and some groups may have no row here.
            let filter = match &inputs.filters[*index] {
                Some(filter) => take(filter, &rows, None)?.as_boolean().clone(),
                None => BooleanArray::from(vec![true; rows.len()]),
            };
            self.accumulators[*index].update_batch(&arguments, &group_of_row, Some(&filter), groups)?;
        }
        Ok(())
    }
}

/// How often each row counts: not at all where an argument is null or the filter is not true.
fn counted(times: &Int64Array, arguments: &[ArrayRef], filter: Option<&BooleanArray>) -> Int64Array {
    let counts = |row: usize| {
        arguments.iter().all(|argument| argument.is_valid(row))
            && filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
    };
    times.values().iter().enumerate().map(|(row, times)| if counts(row) { *times } else { 0 }).collect()
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use datafusion_functions_aggregate::sum::sum_udaf;
    use datafusion_physical_expr::aggregate::AggregateExprBuilder;
    use datafusion_physical_expr::expressions::Column;

    use super::*;
    use crate::group_table::Grouping;

    #[test]
    fn a_group_of_nulls_has_no_sum_behind_many_rows_of_another_group() {
        let key = Field::new("k", DataType::Int64, false);
        let schema = Arc::new(Schema::new(vec![key.clone(), Field::new("x", DataType::Int64, true)]));
        let sum = AggregateExprBuilder::new(sum_udaf(), vec![Arc::new(Column::new("x", 1))]).schema(schema).alias("s");
        let aggregates = [Aggregate { function: Arc::new(sum.build().unwrap()), filter: None }];
        let grouping = Grouping { keys: vec![Arc::new(key)], aggregates: aggregates.to_vec() };
        let column = |values: Vec<Option<i64>>| Arc::new(Int64Array::from(values)) as ArrayRef;
        let inputs = Inputs {
            keys: vec![column(vec![Some(1), Some(2)])],
            arguments: vec![vec![column(vec![Some(3), None])]],
            filters: vec![None],
        };
        let mut table = GroupTable::new(&grouping).unwrap();
        let times = Int64Array::from(vec![ROWS_AT_ONCE as i64, 1]);
        table.update_repeated(&aggregates, &inputs, &times).unwrap();
        let results = table.take_results().unwrap();
        let sums = results.columns[1].as_primitive::<Int64Type>();
        assert_eq!(sums.iter().collect::<Vec<_>>(), [Some(3 * ROWS_AT_ONCE as i64), None]);
    }
}
