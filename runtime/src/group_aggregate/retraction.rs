//! Aggregates that take rows back: those whose state is a count or a total, so that the state of the rows that are taken back can be subtracted.
//!
//! `COUNT` is a count, `AVG` a total and a count, and `SUM` a total and, unless the function counts itself, a count beside it: a total of no values is null.
//! A total of floating-point numbers keeps the rounding errors of what was added and taken back, as Flink's does, until the group's count is 0; a
//! NaN or an infinity that was added stays until then too.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, BooleanArray, Int64Array, PrimitiveArray,
    downcast_primitive,
};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::compute::nullif;
use arrow::datatypes::{DataType, FieldRef, Int64Type, Schema, SchemaRef, UInt64Type};
use datafusion_common::ScalarValue;
use datafusion_functions_aggregate::count::count_udaf;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::aggregate::AggregateExprBuilder;
use datafusion_physical_expr::expressions::Literal;

use crate::group_table::Aggregate;
use crate::{Error, Result};

/// What the state columns of an aggregate are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sums {
    /// A count.
    Count,
    /// A total that does not say how many values are in it.
    Total,
    /// A total and a count, at these places of the state. A count of nothing may be null, as DataFusion's.
    Counted { total: usize, count: usize, is_nullable: bool },
}

impl Sums {
    /// What an aggregate keeps, if rows can be taken back from it by subtraction.
    ///
    /// # Errors
    /// When the aggregate cannot say what its state is.
    pub(super) fn of(aggregate: &Aggregate) -> Result<Option<Self>> {
        let function = &aggregate.function;
        if function.is_distinct() {
            return Ok(None);
        }
        let state = function.state_fields()?;
        let is_count = |field: &FieldRef| matches!(field.data_type(), DataType::Int64 | DataType::UInt64);
        Ok(match (function.fun().name(), &state[..]) {
            ("count", [_]) => Some(Sums::Count),
            ("sum", [_]) => Some(Sums::Total),
            ("sum" | "avg", [first, second]) => match (is_count(first), is_count(second)) {
                (true, false) => Some(Sums::Counted { count: 0, total: 1, is_nullable: first.is_nullable() }),
                (false, true) => Some(Sums::Counted { count: 1, total: 0, is_nullable: second.is_nullable() }),
                _ => None,
            },
            _ => None,
        })
    }
}

/// How rows are taken back from the state columns of aggregates, all of which are counts and totals.
#[derive(Debug, Clone, Default)]
pub(super) struct Retraction {
    /// Columns that are null when nothing is left, each with the column that counts what is left: totals and, for functions that have it so, the counts.
    pub(super) emptied: Vec<(usize, usize)>,
}

impl Retraction {
    /// The state without what was taken back.
    pub(super) fn subtract(&self, state: &[ArrayRef], taken: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let mut columns = state.iter().zip(taken).map(|(a, b)| minus(a, b)).collect::<Result<Vec<_>>>()?;
        let nothing_is_left =
            |(_, count): &(usize, usize)| Ok(BooleanArray::from_unary(&counts(&columns[*count])?, |count| count <= 0));
        let emptied = self.emptied.iter().map(nothing_is_left).collect::<Result<Vec<_>>>()?;
        for ((column, _), nothing_is_left) in self.emptied.iter().zip(&emptied) {
            columns[*column] = nullif(&columns[*column], nothing_is_left)?;
        }
        Ok(columns)
    }
}

/// A column of counts.
pub(super) fn counts(column: &ArrayRef) -> Result<Int64Array> {
    match column.data_type() {
        DataType::Int64 => Ok(column.as_primitive::<Int64Type>().clone()),
        // SUBTLE: subtraction wraps, so that a count below 0 is a very large one; as an i64 it is below 0 again.
        DataType::UInt64 => Ok(column.as_primitive::<UInt64Type>().unary(|count| count as i64)),
        other => Err(Error::internal(format!("a count has type {other}, expected BIGINT"))),
    }
}

/// `a - b`, where null is nothing: null only if both are.
fn minus(a: &ArrayRef, b: &ArrayRef) -> Result<ArrayRef> {
    macro_rules! of_type {
        ($type:ty) => {
            Ok(difference(a.as_primitive::<$type>(), b.as_primitive::<$type>()))
        };
    }
    downcast_primitive! {
        a.data_type() => (of_type),
        other => Err(Error::internal(format!("a total has type {other}, expected a number")))
    }
}

fn difference<T: ArrowPrimitiveType>(a: &PrimitiveArray<T>, b: &PrimitiveArray<T>) -> ArrayRef
where
    T::Native: ArrowNativeTypeOp,
{
    let value = |column: &PrimitiveArray<T>, row: usize| match column.is_valid(row) {
        true => column.value(row),
        false => T::Native::ZERO,
    };
    let values: ScalarBuffer<T::Native> = (0..a.len()).map(|row| value(a, row).sub_wrapping(value(b, row))).collect();
    let nulls: NullBuffer = (0..a.len()).map(|row| a.is_valid(row) || b.is_valid(row)).collect();
    Arc::new(PrimitiveArray::<T>::new(values, Some(nulls)).with_data_type(a.data_type().clone()))
}

/// How many rows a group has.
///
/// # Errors
/// When the function cannot be made.
pub(super) fn row_count() -> Result<Aggregate> {
    let one: Arc<dyn PhysicalExpr> = Arc::new(Literal::new(ScalarValue::Int64(Some(1))));
    count_of(vec![one], Arc::new(Schema::empty()), None)
}

/// How many rows have values for these arguments.
///
/// # Errors
/// When the function cannot be made.
pub(super) fn count_of(
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    input: SchemaRef,
    filter: Option<Arc<dyn PhysicalExpr>>,
) -> Result<Aggregate> {
    let function = AggregateExprBuilder::new(count_udaf(), arguments).schema(input).alias("rows").build()?;
    Ok(Aggregate { function: Arc::new(function), filter })
}

#[cfg(test)]
mod tests {
    use arrow::array::{Decimal128Array, UInt64Array};

    use super::*;

    #[test]
    fn totals_without_values_are_null() {
        let totals = |values: Vec<Option<i128>>| {
            let column = Decimal128Array::from(values).with_precision_and_scale(20, 2).unwrap();
            Arc::new(column) as ArrayRef
        };
        let counts = |values: Vec<u64>| Arc::new(UInt64Array::from(values)) as ArrayRef;
        // Some are left; none is left; nothing was ever there; more were taken back than came.
        let state = [counts(vec![3, 2, 0, 1]), totals(vec![Some(60), Some(70), None, Some(5)])];
        let taken = [counts(vec![1, 2, 0, 2]), totals(vec![Some(75), Some(70), None, Some(9)])];
        let left = Retraction { emptied: vec![(1, 0)] }.subtract(&state, &taken).unwrap();
        assert_eq!(left[1].as_ref(), totals(vec![Some(-15), None, None, None]).as_ref());
        assert_eq!(super::counts(&left[0]).unwrap().values(), &[2, 0, 0, -1]);
    }
}
