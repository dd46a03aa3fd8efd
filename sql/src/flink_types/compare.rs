//! Comparisons: both sides in one type, and floating numbers as IEEE 754 has them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Float64Type, TimeUnit};
use datafusion_common::{DFSchema, Result, ScalarValue, exec_err, plan_err};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use super::cast::{Failing, Target, cast_expr};
use super::common::{Floating, common_type};
use crate::flink_types::type_name;

/// Whether an operator compares two values.
pub(crate) fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// A comparison with both sides in one type.
///
/// # Errors
/// When the types cannot be compared.
pub(crate) fn comparison(left: Expr, op: Operator, right: Expr, schema: &DFSchema) -> Result<Expr> {
    let (left_type, right_type) = (left.get_type(schema)?, right.get_type(schema)?);
    let Some(common) = compared_type(&left_type, &right_type) else {
        return plan_err!(
            "{} cannot be compared with {}\nwrite a CAST of one side to the other's type",
            type_name(&left_type),
            type_name(&right_type)
        );
    };
    // Text that is no time equals nothing, and has no place before or behind a time.
    let of_text = match op {
        Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => Failing::Error,
        _ => Failing::Null,
    };
    let left = side(left, &left_type, &common, of_text)?;
    let right = side(right, &right_type, &common, of_text)?;
    if common.is_floating() {
        let function = FloatComparison { op, signature: Signature::any(2, Volatility::Immutable) };
        let function = Arc::new(ScalarUDF::new_from_impl(function));
        return Ok(Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![left, right])));
    }
    Ok(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))))
}

/// One side in the common type; `of_text` says what becomes of text that is read as a time and is none.
pub(crate) fn side(expr: Expr, from: &DataType, common: &DataType, of_text: Failing) -> Result<Expr> {
    // A text as written is an error of the statement.
    let is_lenient = *from == DataType::Utf8 && !matches!(expr, Expr::Literal(..));
    let failing = if is_lenient { of_text } else { Failing::Error };
    cast_expr(expr, from, Target::plain(common.clone()), failing)
}

/// The type in which two values are compared; `None` when they are not.
pub(crate) fn compared_type(left: &DataType, right: &DataType) -> Option<DataType> {
    use DataType::{Date32, Time32, Timestamp, Utf8};
    match (left, right) {
        // Text beside a time is read as one.
        (Utf8, other @ (Date32 | Time32(_) | Timestamp(..))) | (other @ (Date32 | Time32(_) | Timestamp(..)), Utf8) => {
            Some(other.clone())
        }
        // With and without a time zone, which is UTC.
        (Timestamp(left_unit, left_zone), Timestamp(right_unit, right_zone)) => {
            let unit: TimeUnit = *left_unit.max(right_unit);
            Some(Timestamp(unit, left_zone.clone().or_else(|| right_zone.clone())))
        }
        _ => common_type(left, right, Floating::First),
    }
}

/// A comparison of floating numbers: NaN is equal to nothing, and the two zeros are equal. Arrow's comparisons order all numbers instead.
#[derive(Debug, PartialEq, Eq, Hash)]
struct FloatComparison {
    op: Operator,
    signature: Signature,
}

impl ScalarUDFImpl for FloatComparison {
    fn name(&self) -> &'static str {
        match self.op {
            Operator::Eq => "=",
            Operator::NotEq => "<>",
            Operator::Lt => "<",
            Operator::LtEq => "<=",
            Operator::Gt => ">",
            Operator::GtEq => ">=",
            Operator::IsDistinctFrom => "IS DISTINCT FROM",
            _ => "IS NOT DISTINCT FROM",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = args.args.as_slice() else { return exec_err!("a comparison has two sides") };
        let all_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if all_scalar { 1 } else { args.number_rows };
        let compared: ArrayRef = Arc::new(self.compare(&Side::of(left)?, &Side::of(right)?, rows));
        Ok(match all_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&compared, 0)?),
            false => ColumnarValue::Array(compared),
        })
    }
}

/// One side: a column or a constant.
enum Side {
    Column(Float64Array),
    Constant(Option<f64>),
}

impl Side {
    /// FLOAT becomes DOUBLE without loss.
    fn of(value: &ColumnarValue) -> Result<Self> {
        let double = value.cast_to(&DataType::Float64, None)?;
        Ok(match double {
            ColumnarValue::Array(array) => Side::Column(array.as_primitive::<Float64Type>().clone()),
            ColumnarValue::Scalar(ScalarValue::Float64(number)) => Side::Constant(number),
            ColumnarValue::Scalar(_) => Side::Constant(None),
        })
    }

    fn get(&self, row: usize) -> Option<f64> {
        match self {
            Side::Column(column) => column.is_valid(row).then(|| column.value(row)),
            Side::Constant(number) => *number,
        }
    }
}

impl FloatComparison {
    fn compare(&self, left: &Side, right: &Side, rows: usize) -> BooleanArray {
        if let (Side::Column(column), Side::Constant(Some(constant))) = (left, right)
            && column.null_count() == 0
            && let Some(compared) = self.with_constant(column.values(), *constant)
        {
            return compared;
        }
        (0..rows).map(|row| compare(self.op, left.get(row), right.get(row))).collect()
    }

    /// The frequent case: a column without nulls and a constant.
    fn with_constant(&self, values: &[f64], constant: f64) -> Option<BooleanArray> {
        let compared = |is: fn(f64, f64) -> bool| {
            BooleanArray::from(BooleanBuffer::collect_bool(values.len(), |row| is(values[row], constant)))
        };
        Some(match self.op {
            Operator::Eq => compared(|value, constant| value == constant),
            Operator::Lt => compared(|value, constant| value < constant),
            Operator::LtEq => compared(|value, constant| value <= constant),
            Operator::Gt => compared(|value, constant| value > constant),
            Operator::GtEq => compared(|value, constant| value >= constant),
            _ => return None,
        })
    }
}

fn compare(op: Operator, left: Option<f64>, right: Option<f64>) -> Option<bool> {
    match op {
        Operator::IsDistinctFrom => return Some(left != right),
        Operator::IsNotDistinctFrom => return Some(left == right),
        _ => {}
    }
    let (left, right) = (left?, right?);
    Some(match op {
        Operator::Eq => left == right,
        Operator::NotEq => left != right,
        Operator::Lt => left < right,
        Operator::LtEq => left <= right,
        Operator::Gt => left > right,
        _ => left >= right,
    })
}
