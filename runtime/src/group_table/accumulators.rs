//! The accumulators of several aggregates, over groups that are known by number.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use datafusion_expr::{EmitTo, GroupsAccumulator};
use datafusion_physical_expr::aggregate::AggregateFunctionExpr;

use super::Aggregate;
use super::by_groups::{accumulator, by_groups};
use crate::Result;
use crate::row_errors::Failure;

/// One accumulator per aggregate. Rows come with the number of their group each, and how many groups there are.
pub(crate) struct Accumulators {
    pub(super) accumulators: Vec<Box<dyn GroupsAccumulator>>,
    functions: Vec<Arc<AggregateFunctionExpr>>,
}

impl Accumulators {
    /// Accumulators without groups.
    ///
    /// # Errors
    /// When one cannot be made.
    pub(crate) fn new(aggregates: &[Aggregate]) -> Result<Self> {
        let accumulators =
            aggregates.iter().map(|aggregate| accumulator(&aggregate.function)).collect::<Result<_>>()?;
        let functions = aggregates.iter().map(|aggregate| aggregate.function.clone()).collect();
        Ok(Accumulators { accumulators, functions })
    }

    /// Bytes in memory, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.accumulators.iter().map(|accumulator| accumulator.size()).sum()
    }

    /// Aggregates rows: per aggregate its arguments, and which rows it sees (`None` is all).
    ///
    /// # Errors
    /// When an accumulator fails on the data.
    pub(crate) fn update(
        &mut self,
        arguments: &[Vec<ArrayRef>],
        filters: &[Option<BooleanArray>],
        (group_of_row, groups): (&[usize], usize),
    ) -> Result<()> {
        for (index, accumulator) in self.accumulators.iter_mut().enumerate() {
            accumulator.update_batch(&arguments[index], group_of_row, filters[index].as_ref(), groups)?;
        }
        Ok(())
    }

    /// Merges states: the state columns of every aggregate, of which each has `widths`.
    ///
    /// # Errors
    /// When an accumulator fails on the data.
    pub(crate) fn merge(
        &mut self,
        states: &[ArrayRef],
        widths: &[usize],
        (group_of_row, groups): (&[usize], usize),
    ) -> Result<()> {
        let mut next = 0;
        for (accumulator, width) in self.accumulators.iter_mut().zip(widths) {
            accumulator.merge_batch(&states[next..next + width], group_of_row, groups)?;
            next += width;
        }
        Ok(())
    }

    /// Gives the state columns of every aggregate, one row per group, and forgets the groups.
    ///
    /// # Errors
    /// When an accumulator cannot give its state.
    pub(crate) fn take_state(&mut self) -> Result<Vec<ArrayRef>> {
        let mut columns = Vec::with_capacity(self.accumulators.len());
        for accumulator in &mut self.accumulators {
            columns.extend(accumulator.state(EmitTo::All)?);
        }
        Ok(columns)
    }

    /// Gives the results, one column per aggregate and one row per group, and forgets the groups. Groups that a result fails for have null there, and are
    /// told with the first failure of each.
    ///
    /// # Errors
    /// When an accumulator fails for another reason than the data of a group, or when one that failed has lost its groups.
    pub(crate) fn take_results(&mut self, groups: usize) -> Result<(Vec<ArrayRef>, BTreeMap<usize, Failure>)> {
        let (mut columns, mut failures) = (Vec::with_capacity(self.accumulators.len()), BTreeMap::new());
        for (accumulator, function) in self.accumulators.iter_mut().zip(&self.functions) {
            columns.push(match accumulator.evaluate(EmitTo::All) {
                Ok(column) => column,
                Err(error) => by_groups(accumulator.as_mut(), function, groups, error, &mut failures)?,
            });
        }
        Ok((columns, failures))
    }
}
