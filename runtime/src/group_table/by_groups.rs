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

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, BooleanArray, Int64Array};
    use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema};
    use arrow::record_batch::RecordBatch;
    use datafusion_common::{Result as DataFusionResult, exec_err};
    use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
    use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
    use datafusion_physical_expr::PhysicalExpr;
    use datafusion_physical_expr::aggregate::AggregateExprBuilder;
    use datafusion_physical_expr::expressions::Column;

    use super::*;
    use crate::group_table::{Aggregate, GroupTable, Grouping, Inputs};

    /// The sum of small numbers: above 100 it fails, with its groups in place.
    #[derive(Debug, PartialEq, Eq, Hash)]
    struct SmallSum(Signature);

    impl AggregateUDFImpl for SmallSum {
        fn name(&self) -> &str {
            "small_sum"
        }

        fn signature(&self) -> &Signature {
            &self.0
        }

        fn return_type(&self, _: &[DataType]) -> DataFusionResult<DataType> {
            Ok(DataType::Int64)
        }

        fn accumulator(&self, _: AccumulatorArgs) -> DataFusionResult<Box<dyn Accumulator>> {
            exec_err!("only by groups")
        }

        fn state_fields(&self, _: StateFieldsArgs) -> DataFusionResult<Vec<FieldRef>> {
            Ok(vec![Arc::new(Field::new("total", DataType::Int64, true))])
        }

        fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
            true
        }

        fn create_groups_accumulator(&self, _: AccumulatorArgs) -> DataFusionResult<Box<dyn GroupsAccumulator>> {
            Ok(Box::new(Sums(Vec::new())))
        }
    }

    #[derive(Debug)]
    struct Sums(Vec<i64>);

    impl Sums {
        fn add(&mut self, values: &ArrayRef, groups: &[usize], count: usize) {
            self.0.resize(count, 0);
            for (value, group) in values.as_primitive::<Int64Type>().values().iter().zip(groups) {
                self.0[*group] += value;
            }
        }
    }

    impl GroupsAccumulator for Sums {
        fn update_batch(
            &mut self,
            values: &[ArrayRef],
            groups: &[usize],
            _: Option<&BooleanArray>,
            count: usize,
        ) -> DataFusionResult<()> {
            self.add(&values[0], groups, count);
            Ok(())
        }

        fn evaluate(&mut self, emit_to: EmitTo) -> DataFusionResult<ArrayRef> {
            if self.0.iter().any(|total| *total > 100) {
                return exec_err!("overflow");
            }
            Ok(Arc::new(Int64Array::from(emit_to.take_needed(&mut self.0))))
        }

        fn state(&mut self, emit_to: EmitTo) -> DataFusionResult<Vec<ArrayRef>> {
            Ok(vec![Arc::new(Int64Array::from(emit_to.take_needed(&mut self.0)))])
        }

        fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], count: usize) -> DataFusionResult<()> {
            self.add(&values[0], groups, count);
            Ok(())
        }

        fn convert_to_state(&self, values: &[ArrayRef], _: Option<&BooleanArray>) -> DataFusionResult<Vec<ArrayRef>> {
            Ok(values.to_vec())
        }

        fn size(&self) -> usize {
            0
        }
    }

    #[test]
    fn a_group_whose_result_fails_does_not_take_the_others_with_it() {
        let field = |name: &str| Field::new(name, DataType::Int64, false);
        let schema = Arc::new(Schema::new(vec![field("k"), field("x")]));
        let x: Arc<dyn PhysicalExpr> = Arc::new(Column::new("x", 1));
        let udaf = AggregateUDF::new_from_impl(SmallSum(Signature::any(1, Volatility::Immutable)));
        let function = AggregateExprBuilder::new(Arc::new(udaf), vec![x]).schema(schema.clone()).alias("small_sum(x)");
        let aggregate = Aggregate { function: Arc::new(function.build().unwrap()), filter: None };
        let grouping = Grouping { keys: vec![Arc::new(field("k"))], aggregates: vec![aggregate.clone()] };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![1, 2, 3, 2, 4, 5])),
            Arc::new(Int64Array::from(vec![10, 60, 30, 60, 200, 50])),
        ];
        let rows = RecordBatch::try_new(schema, columns).unwrap();
        let keys: Vec<Arc<dyn PhysicalExpr>> = vec![Arc::new(Column::new("k", 0))];
        let Ok(inputs) = Inputs::evaluate(&keys, &[aggregate], &rows) else { panic!("columns are read") };
        let mut table = GroupTable::new(&grouping).unwrap();
        table.update(&inputs, rows.num_rows()).unwrap();
        let results = table.take_results().unwrap();
        let values = |column: &ArrayRef| column.as_primitive::<Int64Type>().values().to_vec();
        assert_eq!(results.columns.iter().map(values).collect::<Vec<_>>(), [[1, 3, 5], [10, 30, 50]]);
        let failed = results.failed.expect("two groups fail");
        assert_eq!(values(&failed.keys[0]), [2, 4]);
        let failure = Failure { expression: Some("small_sum(x)".to_owned()), reason: "overflow".to_owned() };
        assert_eq!(failed.failures, [failure.clone(), failure]);
        assert!(table.is_empty());
    }
}
