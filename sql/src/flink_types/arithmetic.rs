//! `+`, `-`, `*`, `/` and `%` with Flink's result types, as functions: whole numbers and decimals that overflow are an error of their row, decimals are
//! rounded half up.
//!
//! Result types: two whole numbers give the wider one (`%` the divisor's), a floating number with a whole one gives the floating one, with a decimal DOUBLE;
//! decimals see [`decimal_result`]. A time plus or minus an interval keeps its type (`temporal`).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Datum, Decimal128Array, Scalar};
use arrow::compute::kernels::{arity, numeric};
use arrow::datatypes::{DataType, Decimal128Type};
use arrow::error::ArrowError;
use datafusion_common::{DataFusionError, Result, ScalarValue, exec_datafusion_err, exec_err, plan_err};
use datafusion_expr::{ColumnarValue, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::cast::{Failing, Target, cast_array};
use super::decimal::{self, PRECISION_MAX};
use super::temporal;
use crate::flink_types::type_name;

/// The smallest scale that a quotient or a product keeps when its type has too many digits.
const SCALE_KEPT: i32 = 6;

/// An arithmetic operator as a function of two arguments.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Arithmetic {
    op: Operator,
    signature: Signature,
}

impl Arithmetic {
    /// The function of an operator, if it is one of the five.
    pub fn of(op: Operator) -> Option<Arc<ScalarUDF>> {
        use Operator::{Divide, Minus, Modulo, Multiply, Plus};
        matches!(op, Plus | Minus | Multiply | Divide | Modulo).then(|| {
            let signature = Signature::user_defined(Volatility::Immutable);
            Arc::new(ScalarUDF::new_from_impl(Arithmetic { op, signature }))
        })
    }

    /// The operator of a function, if it is one of these.
    pub fn operator_of(function: &ScalarUDF) -> Option<Operator> {
        function.inner().downcast_ref::<Arithmetic>().map(|own| own.op)
    }

    fn sign(&self) -> &'static str {
        match self.op {
            Operator::Plus => "+",
            Operator::Minus => "-",
            Operator::Multiply => "*",
            Operator::Divide => "/",
            _ => "%",
        }
    }
}

impl ScalarUDFImpl for Arithmetic {
    fn name(&self) -> &str {
        self.sign()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        // The argument types stay as they are: the kernels convert, as the result's type depends on both.
        self.return_type(types).map(|_| types.to_vec())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let [left, right] = types else { return plan_err!("'{}' takes two arguments", self.sign()) };
        match result_type(self.op, left, right) {
            Some(result) => Ok(result),
            None => plan_err!(
                "'{}' does not take {} and {}\nwrite a CAST of one side to the other's type",
                self.sign(),
                type_name(left),
                type_name(right)
            ),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let result = args.return_field.data_type().clone();
        let [left, right] = args.args.as_slice() else { return exec_err!("'{}' takes two arguments", self.sign()) };
        if let (ColumnarValue::Scalar(one), ColumnarValue::Scalar(other)) = (left, right) {
            let (one, other) = (ColumnarValue::Array(one.to_array()?), ColumnarValue::Array(other.to_array()?));
            let array = self.compute(&one, &other, 1, &result)?;
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?));
        }
        self.compute(left, right, args.number_rows, &result).map(ColumnarValue::Array)
    }
}

impl Arithmetic {
    fn compute(&self, left: &ColumnarValue, right: &ColumnarValue, rows: usize, result: &DataType) -> Result<ArrayRef> {
        match result {
            DataType::Decimal128(precision, scale) => {
                let plan =
                    decimal::Operation::new(self.op, decimal_scale(left)?, decimal_scale(right)?, (*precision, *scale));
                self.decimals(left, right, &plan, result)
            }
            _ if result.is_integer() && !(left.data_type().is_integer() && right.data_type().is_integer()) => {
                // The remainder of a decimal by a whole number.
                let exact = DataType::Decimal128(PRECISION_MAX, 0);
                let remainder = self.compute(left, right, rows, &exact)?;
                cast_array(&remainder, &Target::plain(result.clone()), Failing::Error)
            }
            _ if result.is_integer() || result.is_floating() => self.native(left, right, result),
            _ => temporal::shift(self.op, &left.to_array(rows)?, &right.to_array(rows)?, result),
        }
    }

    /// Whole and floating numbers, in the type that holds both sides.
    fn native(&self, left: &ColumnarValue, right: &ColumnarValue, result: &DataType) -> Result<ArrayRef> {
        let common = match (left.data_type(), right.data_type()) {
            (left, right) if result.is_integer() => wider(&left, &right),
            (DataType::Float32, DataType::Float64) | (DataType::Float64, DataType::Float32) => DataType::Float64,
            _ => result.clone(),
        };
        let (left, right) = (operand(left, &common)?, operand(right, &common)?);
        let computed = match self.op {
            Operator::Plus => numeric::add(left.as_ref(), right.as_ref()),
            Operator::Minus => numeric::sub(left.as_ref(), right.as_ref()),
            Operator::Multiply => numeric::mul(left.as_ref(), right.as_ref()),
            Operator::Divide => numeric::div(left.as_ref(), right.as_ref()),
            _ => numeric::rem(left.as_ref(), right.as_ref()),
        };
        let computed = computed.map_err(|error| overflow(error, &common))?;
        if common == *result { Ok(computed) } else { Ok(arrow::compute::cast(&computed, result)?) }
    }

    /// Decimals, a constant as such.
    fn decimals(
        &self,
        left: &ColumnarValue,
        right: &ColumnarValue,
        plan: &decimal::Operation,
        result: &DataType,
    ) -> Result<ArrayRef> {
        let compute =
            |left: i128, right: i128| plan.compute(left, right).map_err(|error| self.failure(error, plan, left, right));
        let computed: Result<Decimal128Array, ArrowError> = match (left, right) {
            (ColumnarValue::Array(left), ColumnarValue::Scalar(right)) => {
                let (left, right) = (as_decimal(left)?, as_decimal(&right.to_array()?)?);
                match right.is_null(0) {
                    true => Ok(Decimal128Array::new_null(left.len())),
                    false => arity::try_unary(&left, |value| compute(value, right.value(0))),
                }
            }
            (ColumnarValue::Scalar(left), ColumnarValue::Array(right)) => {
                let (left, right) = (as_decimal(&left.to_array()?)?, as_decimal(right)?);
                match left.is_null(0) {
                    true => Ok(Decimal128Array::new_null(right.len())),
                    false => arity::try_unary(&right, |value| compute(left.value(0), value)),
                }
            }
            (left, right) => {
                let (left, right) = (as_decimal(&left.to_array(1)?)?, as_decimal(&right.to_array(1)?)?);
                arity::try_binary(&left, &right, compute)
            }
        };
        let computed = computed.map_err(|error| overflow(error, result))?;
        Ok(Arc::new(computed.with_data_type(result.clone())))
    }

    fn failure(&self, error: decimal::Failure, plan: &decimal::Operation, left: i128, right: i128) -> ArrowError {
        match error {
            decimal::Failure::DivisionByZero => ArrowError::DivideByZero,
            decimal::Failure::Overflow => {
                let (mut left_text, mut right_text) = (String::new(), String::new());
                super::cast::print_decimal(left, plan.left_scale, &mut left_text);
                super::cast::print_decimal(right, plan.right_scale, &mut right_text);
                ArrowError::ArithmeticOverflow(format!("{left_text} {} {right_text}", self.sign()))
            }
        }
    }
}

fn decimal_scale(value: &ColumnarValue) -> Result<i8> {
    let data_type = value.data_type();
    match decimal_of(&data_type) {
        Some((_, scale)) => Ok(scale),
        None => exec_err!("{} is no decimal", type_name(&data_type)),
    }
}

/// An argument in another type, a constant as such.
fn operand(value: &ColumnarValue, to: &DataType) -> Result<Box<dyn Datum>> {
    let convert = |array: &ArrayRef| cast_array(array, &Target::plain(to.clone()), Failing::Error);
    Ok(match value {
        ColumnarValue::Array(array) => Box::new(convert(array)?),
        ColumnarValue::Scalar(scalar) => Box::new(Scalar::new(convert(&scalar.to_array()?)?)),
    })
}

/// What an arithmetic error of Arrow's means.
pub(crate) fn overflow(error: ArrowError, data_type: &DataType) -> DataFusionError {
    match error {
        ArrowError::DivideByZero => exec_datafusion_err!("division by zero"),
        ArrowError::ArithmeticOverflow(text) => {
            let operation = text.strip_prefix("Overflow happened on: ").unwrap_or(&text);
            exec_datafusion_err!("{} overflow: {operation}", type_name(data_type))
        }
        other => other.into(),
    }
}

/// Whole numbers as decimals of their digits.
fn as_decimal(array: &ArrayRef) -> Result<Decimal128Array> {
    let Some((precision, scale)) = decimal_of(array.data_type()) else {
        return exec_err!("{} is no decimal", type_name(array.data_type()));
    };
    let to = DataType::Decimal128(precision, scale);
    let array = if *array.data_type() == to { array.clone() } else { arrow::compute::cast(array, &to)? };
    Ok(array.as_primitive::<Decimal128Type>().clone())
}

/// Precision and scale of an exact number.
pub(crate) fn decimal_of(data_type: &DataType) -> Option<(u8, i8)> {
    Some(match data_type {
        DataType::Int8 => (3, 0),
        DataType::Int16 => (5, 0),
        DataType::Int32 => (10, 0),
        DataType::Int64 => (19, 0),
        DataType::Decimal128(precision, scale) => (*precision, *scale),
        DataType::Null => (1, 0),
        _ => return None,
    })
}

/// The wider of two whole numbers' types.
pub(crate) fn wider(left: &DataType, right: &DataType) -> DataType {
    let digits = |data_type: &DataType| decimal_of(data_type).map_or(0, |(precision, _)| precision);
    if digits(left) >= digits(right) { left.clone() } else { right.clone() }
}

/// The type of a result; `None` when the operator does not take the types.
pub(crate) fn result_type(op: Operator, left: &DataType, right: &DataType) -> Option<DataType> {
    match (left, right) {
        (DataType::Null, DataType::Null) => return None,
        (DataType::Null, other) => return result_type(op, other, other),
        (other, DataType::Null) => return result_type(op, other, other),
        _ => {}
    }
    if temporal::is_time(left) || temporal::is_time(right) {
        return temporal::result_type(op, left, right);
    }
    let is_number = |data_type: &DataType| data_type.is_floating() || decimal_of(data_type).is_some();
    if !is_number(left) || !is_number(right) {
        return None;
    }
    match (left.is_floating(), right.is_floating()) {
        // Flink has no remainder of floating numbers.
        (true, _) | (_, true) if op == Operator::Modulo => None,
        (true, true) => Some(left.clone()),
        (true, false) => Some(if right.is_integer() { left.clone() } else { DataType::Float64 }),
        (false, true) => Some(if left.is_integer() { right.clone() } else { DataType::Float64 }),
        (false, false) if left.is_integer() && right.is_integer() => {
            Some(if op == Operator::Modulo { right.clone() } else { wider(left, right) })
        }
        (false, false) => {
            let (left, divisor) = (decimal_of(left)?, decimal_of(right)?);
            // Without digits behind the point a remainder has the divisor's type.
            match op == Operator::Modulo && left.1 == 0 && divisor.1 == 0 {
                true => Some(right.clone()),
                false => decimal_result(op, left, divisor),
            }
        }
    }
}

/// Calcite's rules for decimals. What has more than 38 digits loses digits behind the point, but keeps six of them.
fn decimal_result(op: Operator, left: (u8, i8), right: (u8, i8)) -> Option<DataType> {
    let ((p1, s1), (p2, s2)) = ((i32::from(left.0), i32::from(left.1)), (i32::from(right.0), i32::from(right.1)));
    let (precision, scale) = match op {
        Operator::Plus | Operator::Minus => {
            let scale = s1.max(s2);
            ((p1 - s1).max(p2 - s2) + scale + 1, scale)
        }
        Operator::Multiply => (p1 + p2 + 1, s1 + s2),
        Operator::Divide => {
            let scale = SCALE_KEPT.max(s1 + p2 + 1);
            (p1 - s1 + s2 + scale, scale)
        }
        Operator::Modulo => {
            let scale = s1.max(s2);
            ((p1 - s1).min(p2 - s2) + scale, scale)
        }
        _ => return None,
    };
    let most = i32::from(PRECISION_MAX);
    let (precision, scale) = if precision <= most {
        (precision, scale)
    } else {
        (most, (most - (precision - scale)).max(scale.min(SCALE_KEPT)))
    };
    Some(DataType::Decimal128(u8::try_from(precision).ok()?, i8::try_from(scale).ok()?))
}

/// `-x`, where the smallest whole number overflows.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Negate {
    signature: Signature,
}

impl Negate {
    pub fn function() -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::new_from_impl(Negate { signature: Signature::any(1, Volatility::Immutable) }))
    }
}

impl ScalarUDFImpl for Negate {
    fn name(&self) -> &'static str {
        "-"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [data_type] => Ok(data_type.clone()),
            _ => plan_err!("'-' takes one argument here"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let data_type = args.return_field.data_type();
        let negated = |array: &ArrayRef| numeric::neg(array).map_err(|error| overflow(error, data_type));
        match args.args.first() {
            Some(ColumnarValue::Scalar(scalar)) => {
                let array = negated(&scalar.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?))
            }
            Some(ColumnarValue::Array(array)) => Ok(ColumnarValue::Array(negated(array)?)),
            None => exec_err!("'-' takes one argument here"),
        }
    }
}
