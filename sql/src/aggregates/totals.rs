//! `SUM` and `AVG`: the type of the argument for whole and floating numbers, DECIMAL(38, s) for decimals, of which AVG has six digits behind the point at
//! least and is rounded half up. An average of whole numbers is DOUBLE, where Flink cuts off what is behind the point. A total that its type does not hold
//! is an error; the groups stay where they are then.
//!
//! Both keep a total and a count: the total in 128 bits, or as DOUBLE.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Float64Type, Int64Type, i256};
use datafusion_common::{Result, ScalarValue, exec_datafusion_err, exec_err, plan_err};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility};

use super::distinct::{DistinctAccumulator, distinct_state};
use crate::flink_types::{Failing, PRECISION_MAX, Target, cast_array, rescale_wide_quotient};
use crate::types::type_name;

/// The fewest digits behind the point of an average of decimals.
const AVERAGE_SCALE_MIN: i8 = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Sum,
    Average,
}

/// `SUM` or `AVG`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Totals {
    kind: Kind,
    signature: Signature,
}

pub(super) fn functions() -> Vec<Arc<AggregateUDF>> {
    let function = |kind| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(AggregateUDF::new_from_impl(Totals { kind, signature }))
    };
    vec![function(Kind::Sum), function(Kind::Average)]
}

impl AggregateUDFImpl for Totals {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Sum => "sum",
            Kind::Average => "avg",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.return_type(types).map(|_| types.to_vec())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [DataType::Decimal128(_, scale)] => {
                let scale = if self.kind == Kind::Average { (*scale).max(AVERAGE_SCALE_MIN) } else { *scale };
                Ok(DataType::Decimal128(PRECISION_MAX, scale))
            }
            [data_type] if data_type.is_integer() && self.kind == Kind::Average => Ok(DataType::Float64),
            [data_type] if data_type.is_integer() || data_type.is_floating() => Ok(data_type.clone()),
            [other] => plan_err!("'{}' takes numbers, not {}", self.name().to_uppercase(), type_name(other)),
            _ => plan_err!("'{}' takes one argument", self.name().to_uppercase()),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let of_all = Box::new(OneGroup { groups: self.groups(&args)? });
        match args.is_distinct {
            true => Ok(Box::new(DistinctAccumulator::new(of_all, args.expr_fields[0].data_type()))),
            false => Ok(of_all),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let input = args.input_fields[0].data_type();
        if args.is_distinct {
            return Ok(vec![distinct_state(args.name, input)]);
        }
        let total = Field::new(format!("{}[total]", args.name), total_type(input), true);
        let count = Field::new(format!("{}[count]", args.name), DataType::Int64, false);
        Ok(vec![Arc::new(total), Arc::new(count)])
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(self.groups(&args)?))
    }
}

impl Totals {
    fn groups(&self, args: &AccumulatorArgs<'_>) -> Result<TotalsOfGroups> {
        let input = args.expr_fields[0].data_type().clone();
        let totals = if input.is_floating() { Sums::Floating(Vec::new()) } else { Sums::Exact(Vec::new()) };
        let result = args.return_field.data_type().clone();
        Ok(TotalsOfGroups { kind: self.kind, input, result, totals, counts: Vec::new() })
    }
}

/// The type that totals are stored in.
fn total_type(input: &DataType) -> DataType {
    match input {
        DataType::Decimal128(_, scale) => DataType::Decimal128(PRECISION_MAX, *scale),
        input if input.is_floating() => DataType::Float64,
        _ => DataType::Decimal128(PRECISION_MAX, 0),
    }
}

#[derive(Debug)]
enum Sums {
    Exact(Vec<i128>),
    Floating(Vec<f64>),
}

/// Totals and counts, one of each per group.
#[derive(Debug)]
struct TotalsOfGroups {
    kind: Kind,
    input: DataType,
    result: DataType,
    totals: Sums,
    counts: Vec<i64>,
}

impl TotalsOfGroups {
    fn resize(&mut self, groups: usize) {
        self.counts.resize(groups, 0);
        match &mut self.totals {
            Sums::Exact(totals) => totals.resize(groups, 0),
            Sums::Floating(totals) => totals.resize(groups, 0.0),
        }
    }

    fn overflow(&self) -> datafusion_common::DataFusionError {
        let name = if self.kind == Kind::Sum { "SUM" } else { "AVG" };
        exec_datafusion_err!("{} overflow in {name}", type_name(&self.result))
    }

    /// Adds values (`counts` absent: each counts once) to their groups.
    fn add(
        &mut self,
        values: &ArrayRef,
        counts: Option<&Int64Array>,
        groups: &[usize],
        filter: Option<&BooleanArray>,
    ) -> Result<()> {
        let values = arrow_total(values, &total_type(&self.input))?;
        let is_taken =
            |row: usize| !values.is_null(row) && filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
        let mut overflows = false;
        match &mut self.totals {
            Sums::Exact(totals) => {
                let numbers = values.as_primitive::<Decimal128Type>().values();
                for (row, &group) in groups.iter().enumerate().filter(|(row, _)| is_taken(*row)) {
                    match totals[group].checked_add(numbers[row]) {
                        Some(total) => totals[group] = total,
                        None => overflows = true,
                    }
                }
            }
            Sums::Floating(totals) => {
                let numbers = values.as_primitive::<Float64Type>().values();
                for (row, &group) in groups.iter().enumerate().filter(|(row, _)| is_taken(*row)) {
                    totals[group] += numbers[row];
                }
            }
        }
        if overflows {
            return Err(self.overflow());
        }
        for (row, &group) in groups.iter().enumerate().filter(|(row, _)| is_taken(*row)) {
            self.counts[group] += counts.map_or(1, |counts| counts.value(row));
        }
        Ok(())
    }

    /// Totals (null where nothing was added) and counts.
    fn take(&mut self, emit_to: EmitTo) -> Result<(ArrayRef, Vec<i64>)> {
        let counts = emit_to.take_needed(&mut self.counts);
        let is_there = |index: usize| counts[index] > 0;
        let totals: ArrayRef = match &mut self.totals {
            Sums::Exact(totals) => {
                let totals = emit_to.take_needed(totals);
                let column: Decimal128Array =
                    totals.into_iter().enumerate().map(|(index, total)| is_there(index).then_some(total)).collect();
                Arc::new(column.with_data_type(total_type(&self.input)))
            }
            Sums::Floating(totals) => {
                let totals = emit_to.take_needed(totals);
                let column: Float64Array =
                    totals.into_iter().enumerate().map(|(index, total)| is_there(index).then_some(total)).collect();
                Arc::new(column)
            }
        };
        Ok((totals, counts))
    }

    fn averages(&self, totals: &ArrayRef, counts: &[i64]) -> Result<ArrayRef> {
        let (DataType::Decimal128(_, from), DataType::Decimal128(precision, to)) = (totals.data_type(), &self.result)
        else {
            return self.plain_averages(totals, counts);
        };
        let quotients = totals.as_primitive::<Decimal128Type>().iter().zip(counts).map(|(total, &count)| {
            let Some(total) = total else { return Ok(None) };
            let quotient = rescale_wide_quotient(i256::from_i128(total), count, *from, *to, *precision);
            quotient.map(Some).ok_or_else(|| self.overflow())
        });
        let averages: Decimal128Array = quotients.collect::<Result<_>>()?;
        Ok(Arc::new(averages.with_data_type(self.result.clone())))
    }

    /// Of whole and of floating numbers.
    fn plain_averages(&self, totals: &ArrayRef, counts: &[i64]) -> Result<ArrayRef> {
        let quotient = |(total, count): (Option<f64>, &i64)| total.map(|total| total / *count as f64);
        let averages: Float64Array = match totals.as_primitive_opt::<Float64Type>() {
            Some(totals) => totals.iter().zip(counts).map(quotient).collect(),
            None => {
                let totals = totals.as_primitive::<Decimal128Type>().iter();
                totals.map(|total| total.map(|total| total as f64)).zip(counts).map(quotient).collect()
            }
        };
        self.converted(&(Arc::new(averages) as ArrayRef))
    }

    /// Totals and counts become what the function gives.
    fn results(&self, totals: &ArrayRef, counts: &[i64]) -> Result<ArrayRef> {
        match self.kind {
            Kind::Sum => match (totals.as_primitive_opt::<Decimal128Type>(), &self.result) {
                (Some(exact), DataType::Decimal128(precision, _)) => {
                    let fits = |total: i128| crate::flink_types::fits(total, *precision);
                    match exact.iter().flatten().all(fits) {
                        true => Ok(totals.clone()),
                        false => Err(self.overflow()),
                    }
                }
                _ => self.converted(totals),
            },
            Kind::Average => self.averages(totals, counts),
        }
    }

    /// Puts groups that were taken out back before those that are left.
    fn put_back(&mut self, taken: &ArrayRef, taken_counts: Vec<i64>) {
        self.counts.splice(..0, taken_counts);
        match &mut self.totals {
            Sums::Exact(totals) => {
                totals.splice(..0, taken.as_primitive::<Decimal128Type>().iter().map(Option::unwrap_or_default));
            }
            Sums::Floating(totals) => {
                totals.splice(..0, taken.as_primitive::<Float64Type>().iter().map(Option::unwrap_or_default));
            }
        }
    }

    fn converted(&self, values: &ArrayRef) -> Result<ArrayRef> {
        cast_array(values, &Target::plain(self.result.clone()), Failing::Error).map_err(|_| self.overflow())
    }
}

/// Values in the type of totals. A total may have more digits than its type says until it is given out.
fn arrow_total(values: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    match (values.data_type(), to) {
        (DataType::Decimal128(..), DataType::Decimal128(..)) => Ok(values.clone()),
        _ => Ok(arrow::compute::cast(values, to)?),
    }
}

impl GroupsAccumulator for TotalsOfGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.resize(total_num_groups);
        self.add(&values[0], None, group_indices, opt_filter)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (totals, counts) = self.take(emit_to)?;
        // SUBTLE: whoever asked finds the group that fails by looking at the groups again.
        self.results(&totals, &counts).inspect_err(|_| self.put_back(&totals, counts))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (totals, counts) = self.take(emit_to)?;
        Ok(vec![totals, Arc::new(Int64Array::from(counts))])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.resize(total_num_groups);
        self.add(&values[0], Some(values[1].as_primitive::<Int64Type>()), group_indices, None)
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let totals = arrow_total(&values[0], &total_type(&self.input))?;
        let totals = match opt_filter {
            Some(filter) => {
                let dropped = arrow::compute::not(&arrow::compute::prep_null_mask_filter(filter))?;
                arrow::compute::nullif(&totals, &dropped)?
            }
            None => totals,
        };
        let counts: Int64Array = (0..totals.len()).map(|row| Some(i64::from(totals.is_valid(row)))).collect();
        Ok(vec![totals, Arc::new(counts)])
    }

    fn size(&self) -> usize {
        let totals = match &self.totals {
            Sums::Exact(totals) => totals.capacity() * size_of::<i128>(),
            Sums::Floating(totals) => totals.capacity() * size_of::<f64>(),
        };
        totals + self.counts.capacity() * size_of::<i64>() + size_of::<Self>()
    }
}

/// The totals of one group.
#[derive(Debug)]
struct OneGroup {
    groups: TotalsOfGroups,
}

impl Accumulator for OneGroup {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.groups.update_batch(values, &vec![0; values[0].len()], None, 1)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.groups.resize(1);
        // The window may go on: the totals stay.
        let mut copy = TotalsOfGroups {
            kind: self.groups.kind,
            input: self.groups.input.clone(),
            result: self.groups.result.clone(),
            totals: match &self.groups.totals {
                Sums::Exact(totals) => Sums::Exact(totals.clone()),
                Sums::Floating(totals) => Sums::Floating(totals.clone()),
            },
            counts: self.groups.counts.clone(),
        };
        ScalarValue::try_from_array(&copy.evaluate(EmitTo::All)?, 0)
    }

    fn size(&self) -> usize {
        self.groups.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.groups.resize(1);
        let columns = self.groups.state(EmitTo::All)?;
        columns.iter().map(|column| ScalarValue::try_from_array(column, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [totals, _] = states else { return exec_err!("a state of two columns") };
        self.groups.merge_batch(states, &vec![0; totals.len()], 1)
    }
}
