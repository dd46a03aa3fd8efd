//! The results of an accumulator where those of some groups fail.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, new_null_array};
use arrow::compute::concat;
use datafusion_common::DataFusionError;
use datafusion_expr::{EmitTo, GroupsAccumulator};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::GroupsAccumulatorAdapter;
use datafusion_physical_expr::aggregate::AggregateFunctionExpr;

use crate::row_errors::{Failure, reason, shortened};
use crate::{Error, Result};

/// An accumulator of a function, vectorised where the function can be.
pub(super) fn accumulator(function: &Arc<AggregateFunctionExpr>) -> Result<Box<dyn GroupsAccumulator>> {
    if function.groups_accumulator_supported() {
        return Ok(function.create_groups_accumulator()?);
    }
    let function = function.clone();
    Ok(Box::new(GroupsAccumulatorAdapter::new(move || function.create_accumulator())))
}

/// The results of an accumulator that failed, with null for the groups that it fails for: found by halves, over its state.
pub(super) fn by_groups(
    failing: &mut dyn GroupsAccumulator,
    function: &Arc<AggregateFunctionExpr>,
    groups: usize,
    error: DataFusionError,
    failures: &mut BTreeMap<usize, Failure>,
) -> Result<ArrayRef> {
    // SUBTLE: an accumulator that takes its groups out before it fails has nothing to look at any more; then the job fails.
    let Ok(state) = failing.state(EmitTo::All) else { return Err(Error::from(error)) };
    if state.first().is_none_or(|column| column.len() != groups) {
        return Err(Error::from(error));
    }
    let (mut parts, mut pending) = (Vec::new(), vec![(0, groups)]);
    while let Some((start, count)) = pending.pop() {
        let part: Vec<ArrayRef> = state.iter().map(|column| column.slice(start, count)).collect();
        let mut fresh = accumulator(function)?;
        fresh.merge_batch(&part, &(0..count).collect::<Vec<_>>(), count)?;
        match fresh.evaluate(EmitTo::All) {
            Ok(column) => parts.push(column),
            Err(error) if count == 1 => {
                let expression = Some(shortened(function.name()).into_owned());
                let failure = Failure { expression, reason: shortened(&reason(&error)).into_owned() };
                failures.entry(start).or_insert(failure);
                parts.push(new_null_array(function.field().data_type(), 1));
            }
            Err(_) => {
                let half = count / 2;
                pending.push((start + half, count - half));
                pending.push((start, half));
            }
        }
    }
    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    Ok(concat(&parts)?)
}
