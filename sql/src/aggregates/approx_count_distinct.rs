//! `APPROX_COUNT_DISTINCT(x)`: how many different values there are, within about a percent, from a sketch of a bounded size (HyperLogLog).
//!
//! DataFusion's, with the type of `COUNT`, and of floating numbers by their bits. Values of types that have few are counted exactly.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Float64Type, Int64Type};
use datafusion_common::{Result, ScalarValue, plan_err};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use datafusion_functions_aggregate::approx_distinct::approx_distinct_udaf;

#[derive(Debug, PartialEq, Eq, Hash)]
struct ApproxCountDistinct {
    signature: Signature,
}

pub(super) fn function() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::new_from_impl(ApproxCountDistinct {
        signature: Signature::user_defined(Volatility::Immutable),
    }))
}

impl AggregateUDFImpl for ApproxCountDistinct {
    fn name(&self) -> &'static str {
        "approx_count_distinct"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [DataType::Boolean] => plan_err!("'APPROX_COUNT_DISTINCT' takes no BOOLEAN\nwrite COUNT(DISTINCT x)"),
            [_] => Ok(types.to_vec()),
            _ => plan_err!("write APPROX_COUNT_DISTINCT(x)"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn default_value(&self, _: &DataType) -> Result<ScalarValue> {
        Ok(ScalarValue::Int64(Some(0)))
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return plan_err!("'APPROX_COUNT_DISTINCT' takes no DISTINCT");
        }
        let fields = counted_fields(args.expr_fields);
        let sketch = approx_distinct_udaf().accumulator(AccumulatorArgs { expr_fields: &fields, ..args })?;
        Ok(Box::new(Counted(sketch)))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let fields = counted_fields(args.input_fields);
        approx_distinct_udaf().state_fields(StateFieldsArgs { input_fields: &fields, ..args })
    }
}

/// What is counted of arguments: whole numbers in the place of floating ones.
fn counted_fields(fields: &[FieldRef]) -> Vec<FieldRef> {
    let counted = |field: &FieldRef| match field.data_type().is_floating() {
        true => Arc::new(field.as_ref().clone().with_data_type(DataType::Int64)),
        false => field.clone(),
    };
    fields.iter().map(counted).collect()
}

/// The bits of floating numbers, those of 0 for -0.
fn bits(column: &ArrayRef) -> Result<ArrayRef> {
    if !column.data_type().is_floating() {
        return Ok(column.clone());
    }
    let numbers = cast(column, &DataType::Float64)?;
    let bits = numbers.as_primitive::<Float64Type>().unary::<_, Int64Type>(|number| (number + 0.0).to_bits() as i64);
    Ok(Arc::new(bits))
}

/// A sketch, whose count is a `BIGINT`.
#[derive(Debug)]
struct Counted(Box<dyn Accumulator>);

impl Accumulator for Counted {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.update_batch(&values.iter().map(bits).collect::<Result<Vec<_>>>()?)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.0.evaluate()?.cast_to(&DataType::Int64)
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge_batch(states)
    }
}
