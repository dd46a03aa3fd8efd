//! The type that several types become together: branches of CASE, sides of a comparison, members of a list.

use arrow::datatypes::DataType;

use super::arithmetic::{decimal_of, wider};
use super::decimal::PRECISION_MAX;

/// Which of two floating types counts, where Flink's own rules differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Floating {
    /// The first: CASE, IF, comparisons.
    First,
    /// The wider: COALESCE, GREATEST, LEAST.
    Wider,
}

/// The common type of all; `None` when there is none.
pub(crate) fn common_of<'t>(types: impl IntoIterator<Item = &'t DataType>, floating: Floating) -> Option<DataType> {
    let mut types = types.into_iter();
    let first = types.next()?.clone();
    types.try_fold(first, |common, next| common_type(&common, next, floating))
}

/// The common type of two.
pub(crate) fn common_type(left: &DataType, right: &DataType, floating: Floating) -> Option<DataType> {
    use DataType::{Float64, Null, Timestamp};
    if left == right {
        return Some(left.clone());
    }
    match (left, right) {
        (Null, other) | (other, Null) => Some(other.clone()),
        (left, right) if left.is_floating() && right.is_floating() => {
            Some(if floating == Floating::First { left.clone() } else { Float64 })
        }
        (floating, other) | (other, floating) if floating.is_floating() => match other {
            DataType::Decimal128(..) => Some(Float64),
            _ => other.is_integer().then(|| floating.clone()),
        },
        (left, right) if left.is_integer() && right.is_integer() => Some(wider(left, right)),
        (Timestamp(left_unit, left_zone), Timestamp(right_unit, right_zone)) if left_zone == right_zone => {
            Some(Timestamp(*left_unit.max(right_unit), left_zone.clone()))
        }
        (left, right) => decimal(decimal_of(left)?, decimal_of(right)?),
    }
}

fn decimal(left: (u8, i8), right: (u8, i8)) -> Option<DataType> {
    let whole = |(precision, scale): (u8, i8)| i32::from(precision) - i32::from(scale);
    let scale = left.1.max(right.1);
    let precision = (whole(left).max(whole(right)) + i32::from(scale)).min(i32::from(PRECISION_MAX));
    Some(DataType::Decimal128(u8::try_from(precision).ok()?, scale))
}
