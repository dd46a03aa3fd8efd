//! `VAR_POP`, `VAR_SAMP` (`VARIANCE`), `STDDEV_POP` and `STDDEV_SAMP` (`STDDEV`) with Flink's types: the argument's for whole and floating numbers,
//! DECIMAL(38, s) with six digits behind the point at least for decimals.
//!
//! DataFusion's accumulators compute in DOUBLE; this file converts what goes in and what comes out.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::{DataType, FieldRef};
use datafusion_common::{Result, ScalarValue, plan_err};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility};
use datafusion_functions_aggregate::{stddev, variance};

use super::distinct::{DistinctAccumulator, distinct_state};
use crate::flink_types::{Failing, PRECISION_MAX, Target, cast_array};
use crate::types::type_name;

const SCALE_MIN: i8 = 6;

/// One of the functions.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Variance {
    name: &'static str,
    of_doubles: Arc<AggregateUDF>,
    signature: Signature,
}

pub(super) fn functions() -> Vec<Arc<AggregateUDF>> {
    let named = [
        ("var_pop", variance::var_pop_udaf()),
        ("var_samp", variance::var_samp_udaf()),
        ("variance", variance::var_samp_udaf()),
        ("stddev_pop", stddev::stddev_pop_udaf()),
        ("stddev_samp", stddev::stddev_udaf()),
        ("stddev", stddev::stddev_udaf()),
    ];
    let function = |(name, of_doubles)| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(AggregateUDF::new_from_impl(Variance { name, of_doubles, signature }))
    };
    named.into_iter().map(function).collect()
}

fn double() -> FieldRef {
    Arc::new(arrow::datatypes::Field::new("x", DataType::Float64, true))
}

impl AggregateUDFImpl for Variance {
    fn name(&self) -> &'static str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.return_type(types).map(|_| types.to_vec())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [DataType::Decimal128(_, scale)] => Ok(DataType::Decimal128(PRECISION_MAX, (*scale).max(SCALE_MIN))),
            [data_type] if data_type.is_integer() || data_type.is_floating() => Ok(data_type.clone()),
            [other] => plan_err!("'{}' takes numbers, not {}", self.name.to_uppercase(), type_name(other)),
            _ => plan_err!("'{}' takes one argument", self.name.to_uppercase()),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let fields = [double()];
        let inner = self.of_doubles.accumulator(as_doubles(&args, &fields))?;
        let result = args.return_field.data_type().clone();
        let of_all = Box::new(Converted { inner, result });
        match args.is_distinct {
            true => Ok(Box::new(DistinctAccumulator::new(of_all, args.expr_fields[0].data_type()))),
            false => Ok(of_all),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        if args.is_distinct {
            return Ok(vec![distinct_state(args.name, args.input_fields[0].data_type())]);
        }
        let fields = [double()];
        self.of_doubles.state_fields(StateFieldsArgs { input_fields: &fields, return_field: double(), ..args })
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        let fields = [double()];
        !args.is_distinct && self.of_doubles.groups_accumulator_supported(as_doubles(&args, &fields))
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let fields = [double()];
        let inner = self.of_doubles.create_groups_accumulator(as_doubles(&args, &fields))?;
        let result = args.return_field.data_type().clone();
        Ok(Box::new(ConvertedGroups { inner, result }))
    }
}

/// The arguments of an accumulator of doubles.
fn as_doubles<'a>(args: &'a AccumulatorArgs<'_>, fields: &'a [FieldRef]) -> AccumulatorArgs<'a> {
    AccumulatorArgs {
        return_field: double(),
        schema: args.schema,
        ignore_nulls: args.ignore_nulls,
        order_bys: args.order_bys,
        is_reversed: args.is_reversed,
        name: args.name,
        is_distinct: false,
        exprs: args.exprs,
        expr_fields: fields,
    }
}

fn doubles(values: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
    let target = Target::plain(DataType::Float64);
    values.iter().map(|values| cast_array(values, &target, Failing::Error)).collect()
}

struct ConvertedGroups {
    inner: Box<dyn GroupsAccumulator>,
    result: DataType,
}

impl GroupsAccumulator for ConvertedGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.inner.update_batch(&doubles(values)?, group_indices, opt_filter, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        cast_array(&self.inner.evaluate(emit_to)?, &Target::plain(self.result.clone()), Failing::Error)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.inner.state(emit_to)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.inner.merge_batch(values, group_indices, total_num_groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.inner.convert_to_state(&doubles(values)?, opt_filter)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}

#[derive(Debug)]
struct Converted {
    inner: Box<dyn Accumulator>,
    result: DataType,
}

impl Accumulator for Converted {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(&doubles(values)?)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let value = self.inner.evaluate()?.to_array()?;
        let value = cast_array(&value, &Target::plain(self.result.clone()), Failing::Error)?;
        ScalarValue::try_from_array(&value, 0)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }
}
