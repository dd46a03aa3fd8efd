//! `PERCENTILE(x, p [, frequency])`: the value below which the share `p` of the values is, between two of them on the straight line; for an array of shares an
//! array. Null when there is no value. All values are kept, equal ones once.
//!
//! As in Flink 2.3 (`PercentileAggFunction`): of n values in order, the one at place `p * (n - 1)`, counted from 0.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type};
use datafusion_common::utils::SingleRowListArrayBuilder;
use datafusion_common::{Result, ScalarValue, exec_err, plan_err};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use datafusion_physical_expr::expressions::Literal;

use crate::types::type_name;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Percentile {
    signature: Signature,
}

pub(super) fn function() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::new_from_impl(Percentile { signature: Signature::user_defined(Volatility::Immutable) }))
}

fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(item, true)))
}

impl AggregateUDFImpl for Percentile {
    fn name(&self) -> &'static str {
        "percentile"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let (value, share, frequency) = match types {
            [value, share] => (value, share, None),
            [value, share, frequency] => (value, share, Some(frequency)),
            _ => return plan_err!("write PERCENTILE(x, 0.5), or PERCENTILE(x, 0.5, frequency)"),
        };
        let is_number = |data_type: &DataType| data_type.is_numeric() || *data_type == DataType::Null;
        if !is_number(value) {
            return plan_err!("'PERCENTILE' takes numbers, not {}", type_name(value));
        }
        let share = match share {
            share if is_number(share) => DataType::Float64,
            DataType::List(item) if is_number(item.data_type()) => list_of(DataType::Float64),
            other => {
                return plan_err!("a percentage of 'PERCENTILE' is a number from 0 to 1, not {}", type_name(other));
            }
        };
        if let Some(other) = frequency
            && !other.is_integer()
        {
            return plan_err!("a frequency of 'PERCENTILE' is a whole number, not {}", type_name(other));
        }
        let frequency = frequency.map(|_| DataType::Int64);
        Ok([DataType::Float64, share].into_iter().chain(frequency).collect())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[1].clone())
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return plan_err!("'PERCENTILE' takes no DISTINCT");
        }
        let literal = args.exprs[1].downcast_ref::<Literal>().map(Literal::value);
        let shares = match literal {
            Some(ScalarValue::Float64(Some(share))) => Shares::One(*share),
            Some(ScalarValue::List(shares)) if shares.value(0).null_count() == 0 => {
                Shares::Many(shares.value(0).as_primitive::<Float64Type>().values().to_vec())
            }
            _ => return plan_err!("the percentage of 'PERCENTILE' is a number or an array of numbers, not a column"),
        };
        if let Some(wrong) = shares.all().iter().find(|share| !(0.0..=1.0).contains(*share)) {
            return plan_err!("the percentage {wrong} of 'PERCENTILE' is not from 0 to 1");
        }
        Ok(Box::new(Values { shares, counts: BTreeMap::new() }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let list = |what: &str, item| Arc::new(Field::new(format!("{}[{what}]", args.name), list_of(item), true));
        Ok(vec![list("values", DataType::Float64), list("counts", DataType::Int64)])
    }
}

/// Which shares are asked for.
#[derive(Debug)]
enum Shares {
    One(f64),
    Many(Vec<f64>),
}

impl Shares {
    fn all(&self) -> &[f64] {
        match self {
            Shares::One(share) => std::slice::from_ref(share),
            Shares::Many(shares) => shares,
        }
    }
}

/// A number among numbers in order.
#[derive(Debug, Clone, Copy)]
struct Ordered(f64);

impl PartialEq for Ordered {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ordered {}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// The values so far, with how many there are of each.
#[derive(Debug)]
struct Values {
    shares: Shares,
    counts: BTreeMap<Ordered, i64>,
}

impl Values {
    fn add(&mut self, value: f64, count: i64) {
        // As in Flink, a value that is there no time is none.
        if count > 0 {
            *self.counts.entry(Ordered(value)).or_default() += count;
        }
    }

    /// The value at a place in the order. Places count from 1, as in Flink: so the last digits are Flink's, too.
    fn percentile(&self, share: f64) -> Option<f64> {
        let total: i64 = self.counts.values().sum();
        let place = share * (total - 1) as f64 + 1.0;
        let (mut last, mut below) = (0, None);
        for (Ordered(value), count) in &self.counts {
            last += count;
            match below {
                // The place is between the last of a value and the first of the next.
                Some(below) => return Some((place.ceil() - place) * below + (place - place.floor()) * value),
                None if last as f64 >= place => return Some(*value),
                None if last as f64 >= place.floor() => below = Some(*value),
                None => {}
            }
        }
        below
    }
}

impl Accumulator for Values {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let numbers = values[0].as_primitive::<Float64Type>();
        let frequencies = values.get(2).map(|counts| counts.as_primitive::<Int64Type>());
        for row in 0..numbers.len() {
            let count = match frequencies {
                Some(counts) if counts.is_null(row) => continue,
                Some(counts) => counts.value(row),
                None => 1,
            };
            if count < 0 {
                return exec_err!("the frequency {count} of 'PERCENTILE' is below 0");
            }
            if numbers.is_valid(row) {
                self.add(numbers.value(row), count);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.counts.is_empty() {
            return match &self.shares {
                Shares::One(_) => Ok(ScalarValue::Float64(None)),
                Shares::Many(_) => ScalarValue::try_new_null(&list_of(DataType::Float64)),
            };
        }
        Ok(match &self.shares {
            Shares::One(share) => ScalarValue::Float64(self.percentile(*share)),
            Shares::Many(shares) => {
                let found: Float64Array = shares.iter().map(|share| self.percentile(*share)).collect();
                SingleRowListArrayBuilder::new(Arc::new(found)).build_list_scalar()
            }
        })
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.counts.len() * (size_of::<Ordered>() + size_of::<i64>()) * 2
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values: Float64Array = self.counts.keys().map(|value| Some(value.0)).collect();
        let counts: Int64Array = self.counts.values().map(|count| Some(*count)).collect();
        let list = |items: ArrayRef| SingleRowListArrayBuilder::new(items).build_list_scalar();
        Ok(vec![list(Arc::new(values)), list(Arc::new(counts))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let (values, counts) = (states[0].as_list::<i32>(), states[1].as_list::<i32>());
        for (values, counts) in values.iter().zip(counts.iter()) {
            let (Some(values), Some(counts)) = (values, counts) else { continue };
            let (values, counts) = (values.as_primitive::<Float64Type>(), counts.as_primitive::<Int64Type>());
            values.values().iter().zip(counts.values()).for_each(|(value, count)| self.add(*value, *count));
        }
        Ok(())
    }
}
