//! Keys whose result fails.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use coulee_model::SubtaskIndex;
use coulee_runtime::RowKind::{self, Delete, Insert};
use coulee_runtime::flow::{Flow, col};
use coulee_runtime::graph::{OperatorFactory, Port};
use coulee_runtime::harness::{Harness, Input, changelog_lines};
use coulee_runtime::memory::MemorySource;
use coulee_runtime::{Batch, Result};
use datafusion_common::{Result as DataFusionResult, exec_err};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility};

use super::{operator, texts};
use crate::windows::rows;

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

impl GroupsAccumulator for Sums {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        _: Option<&BooleanArray>,
        count: usize,
    ) -> DataFusionResult<()> {
        self.0.resize(count, 0);
        values[0].as_primitive::<Int64Type>().values().iter().zip(groups).for_each(|(v, group)| self.0[*group] += v);
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
        self.update_batch(values, groups, None, count)
    }

    fn convert_to_state(&self, values: &[ArrayRef], _: Option<&BooleanArray>) -> DataFusionResult<Vec<ArrayRef>> {
        Ok(values.to_vec())
    }

    fn size(&self) -> usize {
        0
    }
}

fn by_key(flow: Flow<'_>) -> Result<Flow<'_>> {
    let small_sum = AggregateUDF::new_from_impl(SmallSum(Signature::any(1, Volatility::Immutable)));
    flow.key_by(["key"])?.aggregate("a", [small_sum.call(vec![col("value")]).alias("s")])
}

/// Pushes a batch and restarts the operator; gives its changes, and `key: reason` of what it rejected.
fn pushed(harness: &mut Harness, batch: Batch) -> (Vec<String>, Vec<String>) {
    harness.push(Input::Rows(batch)).unwrap();
    harness.checkpoint().unwrap();
    harness.restart(SubtaskIndex(0), 1).unwrap();
    let rejected = harness.take(Port::REJECTED);
    let letters = rejected.iter().flat_map(|letters| {
        let raw = letters.column_by_name("raw").unwrap().as_binary::<i32>();
        let raw = raw.iter().map(|raw| String::from_utf8(raw.unwrap_or_default().to_vec()).unwrap());
        raw.zip(texts(letters, "reason")).map(|(raw, reason)| format!("{raw}: {reason}")).collect::<Vec<_>>()
    });
    (changelog_lines(&harness.take_batches(Port::MAIN)).unwrap(), letters.collect())
}

fn inserts(values: &[(&'static str, i64)]) -> Batch {
    Batch::inserts(rows(&values.iter().map(|(key, value)| (None, Some(*key), Some(*value))).collect::<Vec<_>>()))
}

#[test]
fn a_key_whose_result_fails_has_none_until_other_rows_change_that() {
    let folder = tempfile::tempdir().unwrap();
    let factory = operator(MemorySource::new(rows(&[]).schema(), vec![]), by_key);
    let mut harness = Harness::new(factory, folder.path()).unwrap();
    let none: Vec<String> = Vec::new();
    let failed = vec![r#"{"key":"a"}: overflow"#.to_owned()];
    let (changes, rejected) = pushed(&mut harness, inserts(&[("a", 60), ("b", 1)]));
    assert_eq!((changes, rejected), (vec!["+I | a | 60".to_owned(), "+I | b | 1".to_owned()], none.clone()));
    let (changes, rejected) = pushed(&mut harness, inserts(&[("b", 2), ("a", 70)]));
    assert_eq!(changes, ["-U | b | 1", "+U | b | 3", "-D | a | 60"]);
    assert_eq!(rejected, failed);
    assert_eq!(pushed(&mut harness, inserts(&[("a", 1)])), (none.clone(), failed));
    assert_eq!(pushed(&mut harness, inserts(&[("a", -51)])), (vec!["+I | a | 80".to_owned()], none));
}

fn changes(kind: RowKind, values: &[(&'static str, i64)]) -> Batch {
    let rows = inserts(values).into_rows();
    let kinds = arrow::array::Int8Array::from(vec![kind as i8; rows.num_rows()]);
    Batch::changes(rows, kinds)
}

#[test]
fn a_failed_result_that_is_computed_from_values_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let factory: Arc<dyn OperatorFactory> = operator(MemorySource::changelog(rows(&[]).schema(), vec![]), by_key);
    let mut harness = Harness::new(factory, folder.path()).unwrap();
    let none: Vec<String> = Vec::new();
    let failed = vec![r#"{"key":"a"}: overflow"#.to_owned()];
    let (found, rejected) = pushed(&mut harness, changes(Insert, &[("a", 60), ("b", 1)]));
    assert_eq!((found, rejected), (vec!["+I | a | 60".to_owned(), "+I | b | 1".to_owned()], none.clone()));
    assert_eq!(pushed(&mut harness, changes(Insert, &[("a", 70)])), (vec!["-D | a | 60".to_owned()], failed.clone()));
    assert_eq!(pushed(&mut harness, changes(Insert, &[("a", 2)])), (none.clone(), failed));
    assert_eq!(pushed(&mut harness, changes(Delete, &[("a", 70)])), (vec!["+I | a | 62".to_owned()], none.clone()));
    let deleted = vec!["-D | a | 62".to_owned()];
    assert_eq!(pushed(&mut harness, changes(Delete, &[("a", 2), ("a", 60)])), (deleted, none));
}
