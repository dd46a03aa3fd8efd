//! The results of a table, where the result of a group may fail: a total that its type does not hold.
//!
//! Such a failure is of no single row: which one would come last depends on the order. So the group is told, and the other groups
//! have their results.

use arrow::array::{ArrayRef, BooleanArray, UInt32Array};
use arrow::compute::{filter, take};

use super::GroupTable;
use crate::Result;
use crate::row_errors::Failure;

/// What a table gives at its end.
#[derive(Debug)]
pub struct Results {
    /// The keys, then one column per aggregate: of the groups that have a result.
    pub columns: Vec<ArrayRef>,
    /// The groups that have none.
    pub failed: Option<FailedGroups>,
}

/// Groups without a result.
#[derive(Debug)]
pub struct FailedGroups {
    /// Their keys.
    pub keys: Vec<ArrayRef>,
    /// Which aggregate failed, and why: one per group.
    pub failures: Vec<Failure>,
}

impl GroupTable {
    /// Empties the table into its result.
    ///
    /// # Errors
    /// When an accumulator fails for another reason than the data of a group, or when one that failed has lost its groups.
    pub fn take_results(&mut self) -> Result<Results> {
        let groups = self.len();
        let mut columns = self.groups.take_keys()?;
        let key_count = columns.len();
        let (results, failures) = self.accumulators.take_results(groups)?;
        columns.extend(results);
        if failures.is_empty() {
            return Ok(Results { columns, failed: None });
        }
        let keep: BooleanArray = (0..groups).map(|group| Some(!failures.contains_key(&group))).collect();
        let indexes: UInt32Array = failures.keys().map(|group| *group as u32).collect();
        let keys = columns[..key_count].iter().map(|key| Ok(take(key, &indexes, None)?)).collect::<Result<_>>()?;
        let kept = columns.iter().map(|column| Ok(filter(column, &keep)?)).collect::<Result<_>>()?;
        let failed = FailedGroups { keys, failures: failures.into_values().collect() };
        Ok(Results { columns: kept, failed: Some(failed) })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema};
    use arrow::record_batch::RecordBatch;
    use datafusion_common::{Result as DataFusionResult, exec_err};
    use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
    use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
    use datafusion_physical_expr::PhysicalExpr;
    use datafusion_physical_expr::aggregate::AggregateExprBuilder;
    use datafusion_physical_expr::expressions::Column;

    use super::*;
    use crate::group_table::{Aggregate, Grouping, Inputs};

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
