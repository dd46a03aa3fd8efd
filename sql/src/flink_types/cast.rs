//! `CAST` and `TRY_CAST` with Flink's semantics: which pairs of types there are, how text is read and printed, and what overflows.
//!
//! A value that cannot be cast is an error of its row, or null with `TRY_CAST`. Decimals are rounded half up, other numbers lose what is behind the point.
//! `numbers` converts between numbers, `parse` reads text, `print` writes it, `times` converts between times.

mod numbers;
mod parse;
mod print;
mod times;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, MapArray, StructArray, new_null_array};
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion_common::{DataFusionError, Result, ScalarValue, exec_datafusion_err, exec_err, plan_err};
use datafusion_expr::expr::{Cast, ScalarFunction, TryCast};
use datafusion_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use print::print_array;
pub(crate) use print::print_decimal;

use super::calendar::digits_of;
use crate::error::Fault;
use crate::flink_types::type_name;

/// The metadata of a type's field that says how many digits a timestamp's second has.
pub(crate) const DIGITS: &str = "flink.digits";
/// The metadata of a type's field that says how long text or bytes are: `VARCHAR(3)`.
pub(crate) const LENGTH: &str = "flink.length";
/// The metadata of a type's field that says that shorter text is filled up: `CHAR(3)`.
pub(crate) const PADDED: &str = "flink.padded";

/// The type that values are cast to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    pub data_type: DataType,
    /// The digits of a timestamp's second, where they are fewer than its unit has.
    pub digits: Option<u8>,
    /// The length that text and bytes are cut to.
    pub length: Option<usize>,
    /// Whether shorter text and bytes are filled up to the length.
    pub is_padded: bool,
}

impl Target {
    /// A type as Arrow has it.
    pub fn plain(data_type: DataType) -> Self {
        Target { data_type, digits: None, length: None, is_padded: false }
    }

    /// The type of a cast's field, with what its metadata says.
    pub fn of(field: &Field) -> Self {
        let number = |key: &str| field.metadata().get(key).and_then(|text| text.parse().ok());
        Target {
            data_type: field.data_type().clone(),
            digits: number(DIGITS).and_then(|digits| u8::try_from(digits).ok()),
            length: number(LENGTH),
            is_padded: field.metadata().contains_key(PADDED),
        }
    }

    /// In Flink's notation.
    pub fn name(&self) -> String {
        match (&self.data_type, self.length, self.digits) {
            (DataType::Utf8, Some(length), _) if self.is_padded => format!("CHAR({length})"),
            (DataType::Utf8, Some(length), _) => format!("VARCHAR({length})"),
            (DataType::Binary, Some(length), _) if self.is_padded => format!("BINARY({length})"),
            (DataType::Binary, Some(length), _) => format!("VARBINARY({length})"),
            (DataType::Timestamp(_, None), _, Some(digits)) => format!("TIMESTAMP({digits})"),
            (DataType::Timestamp(_, Some(_)), _, Some(digits)) => format!("TIMESTAMP_LTZ({digits})"),
            (data_type, _, _) => type_name(data_type),
        }
    }
}

/// What becomes of a value that cannot be cast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Failing {
    /// `CAST`: the row fails.
    Error,
    /// `TRY_CAST`: null.
    Null,
}

impl Failing {
    /// The value, or null, or the error of a value that cannot be cast.
    pub(crate) fn settle<T>(
        self,
        value: Option<T>,
        shown: impl FnOnce() -> String,
        to: &DataType,
    ) -> Result<Option<T>> {
        match (value, self) {
            (Some(value), _) => Ok(Some(value)),
            (None, Failing::Null) => Ok(None),
            (None, Failing::Error) => Err(exec_datafusion_err!("cannot cast {} to {}", shown(), type_name(to))),
        }
    }
}

/// The cast of an expression, or the expression itself where nothing changes.
///
/// # Errors
/// When there is no cast between the types.
pub(crate) fn cast_expr(expr: Expr, from: &DataType, to: Target, failing: Failing) -> Result<Expr> {
    let keeps_digits = to.digits.is_none_or(|digits| usize::from(digits) >= held_digits(from));
    if *from == to.data_type && keeps_digits && to.length.is_none() {
        return Ok(expr);
    }
    if !is_castable(from, &to.data_type) {
        return plan_err!("there is no CAST from {} to {}", type_name(from), to.name());
    }
    if failing == Failing::Error
        && let Expr::Literal(text @ ScalarValue::Utf8(Some(_)), _) = &expr
        && !is_zoned(&to.data_type)
    {
        // What a text as written is not, the statement says wrong.
        let cast = cast_array(&text.to_array()?, &to, failing);
        cast.map_err(|error| {
            Fault::new(said(&error))
                .or_clause(&["CAST", "DATE", "TIMESTAMP", "TIME"])
                .help("TRY_CAST gives null for what cannot be converted")
                .into_datafusion()
        })?;
    }
    if (is_exact(from, &to.data_type) && keeps_digits) || is_zoned(from) || is_zoned(&to.data_type) {
        let (expr, data_type) = (Box::new(expr), to.data_type);
        return Ok(match failing {
            Failing::Error => Expr::Cast(Cast::new(expr, data_type)),
            Failing::Null => Expr::TryCast(TryCast::new(expr, data_type)),
        });
    }
    let name = Expr::Literal(ScalarValue::Utf8(Some(to.name())), None);
    let function = FlinkCast { to, failing, signature: Signature::any(2, Volatility::Immutable) };
    let function = Arc::new(ScalarUDF::new_from_impl(function));
    Ok(Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![expr, name])))
}

/// What an error of a value says.
fn said(error: &DataFusionError) -> String {
    match error {
        DataFusionError::Execution(text) => text.clone(),
        other => other.strip_backtrace(),
    }
}

/// Whether a type is in a time zone other than UTC: the session's (`zone`), whose conversions are Arrow's.
fn is_zoned(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(_, Some(zone)) if zone.as_ref() != "+00:00")
}

/// The digits of a second that values of a type may have.
fn held_digits(data_type: &DataType) -> usize {
    match data_type {
        DataType::Timestamp(unit, _) | DataType::Time32(unit) => digits_of(*unit),
        _ => 0,
    }
}

/// Whether Arrow's own conversion is Flink's and never fails, so that the optimiser may look through it.
fn is_exact(from: &DataType, to: &DataType) -> bool {
    use DataType::{Date32, Float32, Float64, Int8, Int16, Int32, Int64, Null, Timestamp};
    if let (Timestamp(from, _), Timestamp(to, _)) = (from, to) {
        // With or without the time zone UTC.
        return from == to;
    }
    matches!(
        (from, to),
        (Null, _)
            | (Int8, Int16 | Int32 | Int64 | Float32 | Float64)
            | (Int16, Int32 | Int64 | Float32 | Float64)
            | (Int32, Int64 | Float32 | Float64)
            | (Int64, Float32 | Float64)
            | (Float32, Float64)
            | (Date32, Timestamp(TimeUnit::Second | TimeUnit::Millisecond, _))
    )
}

/// Whether Flink casts between two types.
pub(crate) fn is_castable(from: &DataType, to: &DataType) -> bool {
    use DataType::{Binary, Boolean, Date32, List, Map, Null, Struct, Time32, Timestamp, Utf8};
    let is_number = |data_type: &DataType| data_type.is_numeric();
    match (from, to) {
        (Null, _) => true,
        (List(from), List(to)) => is_castable(from.data_type(), to.data_type()),
        (Struct(from), Struct(to)) => {
            from.len() == to.len()
                && from.iter().zip(to).all(|(from, to)| is_castable(from.data_type(), to.data_type()))
        }
        (Map(from, _), Map(to, _)) => is_castable(from.data_type(), to.data_type()),
        (from, to) if from == to => true,
        (List(_) | Struct(_) | Map(..), Utf8) => true,
        (Utf8, to) => is_number(to) || matches!(to, Boolean | Binary | Date32 | Time32(_) | Timestamp(..)),
        (_, Utf8) => is_number(from) || matches!(from, Boolean | Binary | Date32 | Time32(_) | Timestamp(..)),
        (Boolean, to) => is_number(to),
        (from, Boolean) => is_number(from),
        (Timestamp(..), Date32 | Time32(_) | Timestamp(..)) | (Date32 | Time32(_), Timestamp(..)) => true,
        (from, to) => is_number(from) && is_number(to),
    }
}

/// The values in another type.
///
/// # Errors
/// When a value cannot be cast and `failing` says that this is an error.
pub(crate) fn cast_array(array: &ArrayRef, to: &Target, failing: Failing) -> Result<ArrayRef> {
    let cast = converted(array, &to.data_type, failing)?;
    let cast = match to.length {
        Some(length) => print::fit_length(&cast, length, to.is_padded)?,
        None => cast,
    };
    match (to.digits, &to.data_type) {
        (Some(digits), DataType::Timestamp(unit, _) | DataType::Time32(unit)) => {
            times::cut_digits(&cast, *unit, digits)
        }
        _ => Ok(cast),
    }
}

fn converted(array: &ArrayRef, to: &DataType, failing: Failing) -> Result<ArrayRef> {
    use DataType::{Binary, Boolean, Date32, List, Map, Null, Struct, Time32, Timestamp, Utf8};
    let from = array.data_type();
    let is_nested = matches!(from, List(_) | Struct(_) | Map(..)) && from != to && *to != Utf8;
    if is_nested && failing == Failing::Null {
        return whole_values(array, to);
    }
    match (from, to) {
        (from, to) if from == to => Ok(array.clone()),
        (Null, _) => Ok(new_null_array(to, array.len())),
        (from, to) if is_exact(from, to) => Ok(arrow::compute::cast(array, to)?),
        (Binary, Utf8) | (_, Utf8) => print_array(array),
        (Utf8, Binary) => Ok(arrow::compute::cast(array, to)?),
        (Utf8, Boolean) => parse::booleans(array, failing),
        (Utf8, to) if to.is_numeric() => parse::numbers(array, to, failing),
        (Utf8, Date32 | Time32(TimeUnit::Millisecond) | Timestamp(..)) => parse::times(array, to, failing),
        (Boolean, to) if to.is_numeric() => numbers::from_booleans(array, to, failing),
        (from, Boolean) if from.is_numeric() => numbers::to_booleans(array),
        (from, to) if from.is_numeric() && to.is_numeric() => numbers::between(array, to, failing),
        (Date32 | Time32(_) | Timestamp(..), Date32 | Time32(_) | Timestamp(..)) => times::between(array, to, failing),
        (List(_), List(item)) => lists(array, item, failing),
        (Struct(_), Struct(fields)) => rows(array, fields, failing),
        (Map(..), Map(entries, _)) => maps(array, entries, failing),
        _ => exec_err!("there is no CAST from {} to {}", type_name(from), type_name(to)),
    }
}

/// `TRY_CAST` of arrays, maps and rows: null where any part cannot be cast.
fn whole_values(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    if array.is_empty() {
        return Ok(new_null_array(to, 0));
    }
    let value = |row: usize| {
        let one = converted(&array.slice(row, 1), to, Failing::Error);
        one.unwrap_or_else(|_| new_null_array(to, 1))
    };
    let values: Vec<ArrayRef> = (0..array.len()).map(value).collect();
    let values: Vec<&dyn Array> = values.iter().map(AsRef::as_ref).collect();
    Ok(arrow::compute::concat(&values)?)
}

fn lists(array: &ArrayRef, item: &FieldRef, failing: Failing) -> Result<ArrayRef> {
    let list = array.as_list::<i32>();
    let values = converted(list.values(), item.data_type(), failing)?;
    let list = ListArray::try_new(item.clone(), list.offsets().clone(), values, list.nulls().cloned())?;
    Ok(Arc::new(list))
}

fn rows(array: &ArrayRef, fields: &arrow::datatypes::Fields, failing: Failing) -> Result<ArrayRef> {
    let row = array.as_struct();
    let columns = row.columns().iter().zip(fields).map(|(column, field)| converted(column, field.data_type(), failing));
    let columns = columns.collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(StructArray::try_new(fields.clone(), columns, row.nulls().cloned())?))
}

fn maps(array: &ArrayRef, entries: &FieldRef, failing: Failing) -> Result<ArrayRef> {
    let map = array.as_map();
    let DataType::Struct(fields) = entries.data_type() else { return exec_err!("a map holds entries") };
    let inner: ArrayRef = Arc::new(map.entries().clone());
    let inner = rows(&inner, fields, failing)?;
    let map = MapArray::try_new(
        entries.clone(),
        map.offsets().clone(),
        inner.as_struct().clone(),
        map.nulls().cloned(),
        false,
    )?;
    Ok(Arc::new(map))
}

/// A cast as a function of a value. Its second argument is the type's name, for whoever reads the plan.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct FlinkCast {
    to: Target,
    failing: Failing,
    signature: Signature,
}

impl ScalarUDFImpl for FlinkCast {
    fn name(&self) -> &'static str {
        match self.failing {
            Failing::Error => "CAST",
            Failing::Null => "TRY_CAST",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.to.data_type.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.first() {
            Some(ColumnarValue::Scalar(scalar)) => {
                let array = cast_array(&scalar.to_array()?, &self.to, self.failing)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?))
            }
            Some(ColumnarValue::Array(array)) => Ok(ColumnarValue::Array(cast_array(array, &self.to, self.failing)?)),
            None => Err(DataFusionError::Execution("CAST takes a value".into())),
        }
    }
}
