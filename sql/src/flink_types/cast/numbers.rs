//! Casts between numbers, and between numbers and BOOLEAN.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray};
use arrow::compute::kernels::cmp::neq;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
};
use datafusion_common::{Result, exec_err};

use super::Failing;
use super::print::print_value;
use crate::flink_types::decimal;
use crate::flink_types::type_name;

/// A number of any type, as far as casts tell numbers apart.
#[derive(Clone, Copy)]
enum Number {
    Whole(i64),
    Single(f32),
    Double(f64),
    Decimal(i128, i8),
}

impl Number {
    /// The whole number in front of the point; `None` for what is none.
    fn whole(self) -> Option<i128> {
        match self {
            Number::Whole(value) => Some(i128::from(value)),
            Number::Decimal(value, scale) => Some(value / decimal::power(u32::try_from(scale).ok()?)),
            Number::Single(value) => whole_of(f64::from(value)),
            Number::Double(value) => whole_of(value),
        }
    }

    fn double(self) -> f64 {
        match self {
            Number::Whole(value) => value as f64,
            Number::Single(value) => f64::from(value),
            Number::Double(value) => value,
            Number::Decimal(value, scale) => decimal::to_double(value, scale),
        }
    }

    fn single(self) -> f32 {
        match self {
            Number::Whole(value) => value as f32,
            Number::Single(value) => value,
            other => other.double() as f32,
        }
    }

    fn decimal(self, precision: u8, scale: i8) -> Option<i128> {
        match self {
            Number::Whole(value) => decimal::rescale(i128::from(value), 0, scale, precision),
            Number::Decimal(value, from) => decimal::rescale(value, from, scale, precision),
            other => decimal::from_double(other.double(), precision, scale),
        }
    }
}

fn whole_of(value: f64) -> Option<i128> {
    // Beyond this no target type holds the number, and the conversion would saturate.
    (value.abs() < 1e30).then_some(value as i128)
}

/// Casts between any two numbers.
pub(super) fn between(array: &ArrayRef, to: &DataType, failing: Failing) -> Result<ArrayRef> {
    match to {
        DataType::Int8 => each::<Int8Type>(array, to, failing, |number| i8::try_from(number.whole()?).ok()),
        DataType::Int16 => each::<Int16Type>(array, to, failing, |number| i16::try_from(number.whole()?).ok()),
        DataType::Int32 => each::<Int32Type>(array, to, failing, |number| i32::try_from(number.whole()?).ok()),
        DataType::Int64 => each::<Int64Type>(array, to, failing, |number| i64::try_from(number.whole()?).ok()),
        DataType::Float32 => each::<Float32Type>(array, to, failing, |number| Some(number.single())),
        DataType::Float64 => each::<Float64Type>(array, to, failing, |number| Some(number.double())),
        DataType::Decimal128(precision, scale) => {
            each::<Decimal128Type>(array, to, failing, |number| number.decimal(*precision, *scale))
        }
        other => exec_err!("there is no CAST to {}", type_name(other)),
    }
}

fn each<T: ArrowPrimitiveType>(
    array: &ArrayRef,
    to: &DataType,
    failing: Failing,
    convert: impl Fn(Number) -> Option<T::Native>,
) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Int8 => rows::<Int8Type, T>(array, to, failing, |value| convert(Number::Whole(i64::from(value)))),
        DataType::Int16 => rows::<Int16Type, T>(array, to, failing, |value| convert(Number::Whole(i64::from(value)))),
        DataType::Int32 => rows::<Int32Type, T>(array, to, failing, |value| convert(Number::Whole(i64::from(value)))),
        DataType::Int64 => rows::<Int64Type, T>(array, to, failing, |value| convert(Number::Whole(value))),
        DataType::Float32 => rows::<Float32Type, T>(array, to, failing, |value| convert(Number::Single(value))),
        DataType::Float64 => rows::<Float64Type, T>(array, to, failing, |value| convert(Number::Double(value))),
        DataType::Decimal128(_, scale) => {
            rows::<Decimal128Type, T>(array, to, failing, |value| convert(Number::Decimal(value, *scale)))
        }
        other => exec_err!("there is no CAST from {} to {}", type_name(other), type_name(to)),
    }
}

fn rows<F: ArrowPrimitiveType, T: ArrowPrimitiveType>(
    array: &ArrayRef,
    to: &DataType,
    failing: Failing,
    convert: impl Fn(F::Native) -> Option<T::Native>,
) -> Result<ArrayRef> {
    let values = array.as_primitive::<F>();
    let mut out = PrimitiveArray::<T>::builder(values.len());
    for row in 0..values.len() {
        if values.is_null(row) {
            out.append_null();
            continue;
        }
        let shown = || {
            let mut text = String::new();
            // A number has a text.
            let _ = print_value(array.as_ref(), row, &mut text);
            text
        };
        out.append_option(failing.settle(convert(values.value(row)), shown, to)?);
    }
    Ok(Arc::new(out.finish().with_data_type(to.clone())))
}

/// TRUE is 1.
pub(super) fn from_booleans(array: &ArrayRef, to: &DataType, failing: Failing) -> Result<ArrayRef> {
    let whole = arrow::compute::cast(array, &DataType::Int32)?;
    if *to == DataType::Int32 { Ok(whole) } else { between(&whole, to, failing) }
}

/// Whatever is not zero is TRUE.
pub(super) fn to_booleans(array: &ArrayRef) -> Result<ArrayRef> {
    let zero = datafusion_common::ScalarValue::new_zero(array.data_type())?.to_array()?;
    if array.data_type().is_floating() {
        let double = arrow::compute::cast(array, &DataType::Float64)?;
        // Arrow's comparison tells the two zeros apart.
        let truth: BooleanArray =
            double.as_primitive::<Float64Type>().iter().map(|value| value.map(|value| value != 0.0)).collect();
        return Ok(Arc::new(truth));
    }
    Ok(Arc::new(neq(array, &arrow::array::Scalar::new(zero))?))
}
