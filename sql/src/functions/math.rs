//! Numbers: logarithms, powers, trigonometry, remainders.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
};
use datafusion_common::{Result, exec_err};

use super::call::Call;
use super::definition::Kind::{Double, Number};
use super::definition::{Function, Nulls, Takes, gives};

const ONE_DOUBLE: Takes = Takes::These(1, &[Double]);
const TWO_DOUBLES: Takes = Takes::These(2, &[Double, Double]);

/// A function of one DOUBLE.
macro_rules! double {
    ($name:literal, $about:literal, $of:expr) => {
        Function::new($name, concat!($name, "(number)"), $about, ONE_DOUBLE, gives::double, Nulls::Strict, |call| {
            doubles(call, $of)
        })
    };
}

pub(crate) static MATH: &[Function] = &[
    double!("SQRT", "the square root: SQRT(4) = 2", f64::sqrt),
    double!("LN", "the natural logarithm: LN(1) = 0", f64::ln),
    double!("LOG2", "the logarithm to base 2: LOG2(8) = 3", |x| x.ln() / 2_f64.ln()),
    double!("LOG10", "the logarithm to base 10: LOG10(100) = 2", f64::log10),
    double!("EXP", "e to a power: EXP(0) = 1", f64::exp),
    double!("SIN", "the sine", f64::sin),
    double!("COS", "the cosine", f64::cos),
    double!("TAN", "the tangent", f64::tan),
    double!("COT", "the cotangent", |x| 1.0 / x.tan()),
    double!("ASIN", "the arc sine", f64::asin),
    double!("ACOS", "the arc cosine", f64::acos),
    double!("ATAN", "the arc tangent", f64::atan),
    double!("SINH", "the hyperbolic sine", f64::sinh),
    double!("COSH", "the hyperbolic cosine", f64::cosh),
    double!("TANH", "the hyperbolic tangent", f64::tanh),
    double!("DEGREES", "an angle in degrees: DEGREES(PI()) = 180", |x| x * (180.0 / std::f64::consts::PI)),
    double!("RADIANS", "an angle in radians", |x| x * (std::f64::consts::PI / 180.0)),
    Function::new(
        "LOG",
        "LOG([base,] number)",
        "the natural logarithm, or that to a base: LOG(2, 8) = 3",
        Takes::These(1, &[Double, Double]),
        gives::double,
        Nulls::Strict,
        |call| if call.len() == 1 { doubles(call, f64::ln) } else { pairs(call, |base, x| x.ln() / base.ln()) },
    ),
    Function::new(
        "POWER",
        "POWER(base, exponent)",
        "a power: POWER(2, 10) = 1024",
        TWO_DOUBLES,
        gives::double,
        Nulls::Strict,
        |call| pairs(call, f64::powf),
    ),
    Function::new("ATAN2", "ATAN2(y, x)", "the angle of a point", TWO_DOUBLES, gives::double, Nulls::Strict, |call| {
        pairs(call, f64::atan2)
    }),
    Function::new("PI", "PI()", "3.141592653589793", Takes::These(0, &[]), gives::double, Nulls::Never, |call| {
        Ok(Arc::new(Float64Array::from(vec![std::f64::consts::PI; call.rows])))
    }),
    Function::new("E", "E()", "2.718281828459045", Takes::These(0, &[]), gives::double, Nulls::Never, |call| {
        Ok(Arc::new(Float64Array::from(vec![std::f64::consts::E; call.rows])))
    }),
    Function::new(
        "ABS",
        "ABS(number)",
        "the absolute value: ABS(-5) = 5",
        Takes::These(1, &[Number]),
        gives::same,
        Nulls::Strict,
        abs,
    ),
    Function::new(
        "SIGN",
        "SIGN(number)",
        "-1, 0 or 1: SIGN(-5) = -1",
        Takes::These(1, &[Number]),
        gives::same,
        Nulls::Strict,
        sign,
    ),
    Function::new(
        "MOD",
        "MOD(number, divisor)",
        "the remainder of whole numbers and decimals, with the number's sign: MOD(-7, 3) = -1",
        Takes::Own(remainder_types),
        |given| given.last(),
        Nulls::Strict,
        remainder,
    ),
];

fn doubles(call: &Call<'_>, of: fn(f64) -> f64) -> Result<ArrayRef> {
    let numbers = call.doubles(0)?;
    call.rows_of::<Float64Type>(|row| numbers.get(row).map(of))
}

fn pairs(call: &Call<'_>, of: fn(f64, f64) -> f64) -> Result<ArrayRef> {
    let (first, second) = (call.doubles(0)?, call.doubles(1)?);
    call.rows_of::<Float64Type>(|row| Some(of(first.get(row)?, second.get(row)?)))
}

/// Each number of a column, in its own type.
fn each<T: ArrowPrimitiveType>(array: &ArrayRef, of: impl Fn(T::Native) -> T::Native) -> ArrayRef {
    let array: &PrimitiveArray<T> = array.as_primitive();
    Arc::new(array.unary::<_, T>(of).with_data_type(array.data_type().clone()))
}

fn abs(call: &Call<'_>) -> Result<ArrayRef> {
    let numbers = call.column(0)?;
    // The least number has no positive counterpart and stays what it is, as in Java.
    Ok(match numbers.data_type() {
        DataType::Int8 => each::<Int8Type>(&numbers, i8::wrapping_abs),
        DataType::Int16 => each::<Int16Type>(&numbers, i16::wrapping_abs),
        DataType::Int32 => each::<Int32Type>(&numbers, i32::wrapping_abs),
        DataType::Int64 => each::<Int64Type>(&numbers, i64::wrapping_abs),
        DataType::Float32 => each::<Float32Type>(&numbers, f32::abs),
        DataType::Float64 => each::<Float64Type>(&numbers, f64::abs),
        DataType::Decimal128(..) => each::<Decimal128Type>(&numbers, i128::wrapping_abs),
        other => return exec_err!("ABS does not take {other}"),
    })
}

fn sign(call: &Call<'_>) -> Result<ArrayRef> {
    let numbers = call.column(0)?;
    let of_double = |x: f64| {
        if x > 0.0 {
            1.0
        } else if x < 0.0 {
            -1.0
        } else {
            x
        }
    };
    Ok(match numbers.data_type() {
        DataType::Int8 => each::<Int8Type>(&numbers, i8::signum),
        DataType::Int16 => each::<Int16Type>(&numbers, i16::signum),
        DataType::Int32 => each::<Int32Type>(&numbers, i32::signum),
        DataType::Int64 => each::<Int64Type>(&numbers, i64::signum),
        DataType::Float32 => each::<Float32Type>(&numbers, |x| of_double(f64::from(x)) as f32),
        DataType::Float64 => each::<Float64Type>(&numbers, of_double),
        DataType::Decimal128(_, scale) => {
            let one = 10_i128.pow(u32::try_from(*scale).unwrap_or(0));
            each::<Decimal128Type>(&numbers, |x| x.signum() * one)
        }
        other => return exec_err!("SIGN does not take {other}"),
    })
}

/// Whole numbers stay what they are: the result has the divisor's type. Decimals get a common one.
fn remainder_types(types: &[DataType]) -> Option<Vec<DataType>> {
    let [number, divisor] = types else { return None };
    let (number, divisor) = (Number.convert(number)?, Number.convert(divisor)?);
    if number.is_floating() || divisor.is_floating() {
        return None;
    }
    if number.is_integer() && divisor.is_integer() {
        return Some(vec![number, divisor]);
    }
    let decimal = |given: &DataType| match given {
        DataType::Decimal128(precision, scale) => Some((i16::from(*precision), i16::from(*scale))),
        DataType::Int8 => Some((3, 0)),
        DataType::Int16 => Some((5, 0)),
        DataType::Int32 => Some((10, 0)),
        DataType::Int64 => Some((19, 0)),
        _ => None,
    };
    let ((p1, s1), (p2, s2)) = (decimal(&number)?, decimal(&divisor)?);
    let scale = s1.max(s2);
    let precision = ((p1 - s1).max(p2 - s2) + scale).min(38);
    Some(vec![DataType::Decimal128(u8::try_from(precision).ok()?, i8::try_from(scale).ok()?); 2])
}

fn remainder(call: &Call<'_>) -> Result<ArrayRef> {
    if let DataType::Decimal128(..) = call.gives {
        let (numbers, divisors) = (call.values::<Decimal128Type>(0)?, call.values::<Decimal128Type>(1)?);
        return call.try_rows_of::<Decimal128Type>(|row| match (numbers.get(row), divisors.get(row)) {
            (Some(_), Some(0)) => exec_err!("MOD: division by zero"),
            (Some(number), Some(divisor)) => Ok(number.checked_rem(divisor)),
            _ => Ok(None),
        });
    }
    let (numbers, divisors) = (cast(&call.column(0)?, &DataType::Int64)?, cast(&call.column(1)?, &DataType::Int64)?);
    let (numbers, divisors) = (numbers.as_primitive::<Int64Type>(), divisors.as_primitive::<Int64Type>());
    let mut remainders = Vec::with_capacity(call.rows);
    for (number, divisor) in numbers.iter().zip(divisors) {
        remainders.push(match (number, divisor) {
            (Some(_), Some(0)) => return exec_err!("MOD: division by zero"),
            (Some(number), Some(divisor)) => Some(number.wrapping_rem(divisor)),
            _ => None,
        });
    }
    Ok(cast(&PrimitiveArray::<Int64Type>::from(remainders), call.gives)?)
}
