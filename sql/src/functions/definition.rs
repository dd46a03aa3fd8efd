//! What a scalar function is: its names, what it takes and gives, and what computes it.
//!
//! A [`Function`] is plain data in a family's table. [`Scalar`] shows it to DataFusion.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion_common::{Result, ScalarValue, exec_err, plan_err};
use datafusion_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use super::call::Call;
use super::zone::Zone;
use crate::types::type_name;

/// A scalar function of Flink's.
pub(crate) struct Function {
    /// In upper case.
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    /// How it is called: `LPAD(text, length, pad)`.
    pub usage: &'static str,
    /// One line on what it gives, with an example.
    pub about: &'static str,
    pub takes: Takes,
    /// The type of the result, from the types after their conversion to what the function takes.
    pub gives: fn(&Given<'_>) -> DataType,
    pub nulls: Nulls,
    pub eval: fn(&Call<'_>) -> Result<ArrayRef>,
    /// Says while a query is planned what is wrong with a literal argument.
    check: Option<Check>,
    varies: Varies,
}

/// Whether a call has another value each time that it is computed of the same row.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Varies {
    Never,
    /// By the clock.
    WithTime,
    ByChance,
}

/// What is wrong with a call, if something is.
type Check = fn(&Given<'_>) -> std::result::Result<(), String>;

impl Function {
    pub const fn new(
        name: &'static str,
        usage: &'static str,
        about: &'static str,
        takes: Takes,
        gives: fn(&Given<'_>) -> DataType,
        nulls: Nulls,
        eval: fn(&Call<'_>) -> Result<ArrayRef>,
    ) -> Self {
        let (check, varies) = (None, Varies::Never);
        Function { name, aliases: &[], usage, about, takes, gives, nulls, eval, check, varies }
    }

    /// The same function under further names.
    pub const fn also(self, aliases: &'static [&'static str]) -> Self {
        Function { aliases, ..self }
    }

    /// The same function with a check of its literal arguments.
    pub const fn checked(self, check: Check) -> Self {
        Function { check: Some(check), ..self }
    }

    /// The same function with another value each time that it is computed of the same row.
    pub const fn varying(self, varies: Varies) -> Self {
        Function { varies, ..self }
    }
}

/// What is known of a call's arguments before there are rows.
pub(crate) struct Given<'a> {
    /// Their types, after the conversion to what the function takes.
    pub types: &'a [DataType],
    /// The values of those that are literals.
    constants: &'a [Option<&'a ScalarValue>],
}

impl Given<'_> {
    /// A literal argument's whole number.
    pub fn whole(&self, index: usize) -> Option<i64> {
        match self.constants.get(index)?.as_ref()?.cast_to(&DataType::Int64).ok()? {
            ScalarValue::Int64(number) => number,
            _ => None,
        }
    }

    /// A literal argument's text.
    pub fn text(&self, index: usize) -> Option<&str> {
        self.constants.get(index)?.as_ref()?.try_as_str()?
    }

    pub fn first(&self) -> DataType {
        self.types.first().cloned().unwrap_or(DataType::Null)
    }

    pub fn last(&self) -> DataType {
        self.types.last().cloned().unwrap_or(DataType::Null)
    }
}

/// Types of results.
pub(crate) mod gives {
    use super::{Arc, DataType, Field, Given};

    pub fn text(_: &Given<'_>) -> DataType {
        DataType::Utf8
    }

    pub fn texts(_: &Given<'_>) -> DataType {
        DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)))
    }

    pub fn bytes(_: &Given<'_>) -> DataType {
        DataType::Binary
    }

    pub fn boolean(_: &Given<'_>) -> DataType {
        DataType::Boolean
    }

    pub fn int(_: &Given<'_>) -> DataType {
        DataType::Int32
    }

    pub fn bigint(_: &Given<'_>) -> DataType {
        DataType::Int64
    }

    pub fn double(_: &Given<'_>) -> DataType {
        DataType::Float64
    }

    pub fn date(_: &Given<'_>) -> DataType {
        DataType::Date32
    }

    /// The type of the first argument.
    pub fn same(given: &Given<'_>) -> DataType {
        given.first()
    }
}

/// The arguments that a function takes.
pub(crate) enum Takes {
    /// So many of these kinds at least, and in this order.
    These(usize, &'static [Kind]),
    /// These kinds, the last of them any number of times (also none).
    Many(&'static [Kind]),
    /// What types become, or nothing if they do not fit.
    Own(fn(&[DataType]) -> Option<Vec<DataType>>),
}

/// When a result is null.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nulls {
    /// If an argument is, and never else.
    Strict,
    /// For other reasons too.
    Own,
    /// Never.
    Never,
}

/// A kind of argument, with the one type in which the implementation gets it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// STRING.
    Text,
    /// Any whole number, as BIGINT.
    Whole,
    /// Any number, as DOUBLE.
    Double,
    /// Any number, as it is.
    Number,
    /// BYTES.
    Bytes,
    /// BOOLEAN.
    Bool,
    /// DATE, TIMESTAMP or TIMESTAMP_LTZ, as it is.
    Moment,
    /// Anything, as it is.
    Any,
}

impl Kind {
    /// The type that an argument of another type becomes; nothing if it is of another kind.
    pub fn convert(self, given: &DataType) -> Option<DataType> {
        let fits = |fits: bool, to: DataType| (fits || *given == DataType::Null).then_some(to);
        match self {
            Kind::Text => fits(is_text(given), DataType::Utf8),
            Kind::Whole => fits(given.is_integer(), DataType::Int64),
            Kind::Double => fits(given.is_numeric(), DataType::Float64),
            Kind::Number if *given == DataType::Null => Some(DataType::Int32),
            Kind::Number => given.is_numeric().then(|| given.clone()),
            Kind::Bytes => fits(
                matches!(
                    given,
                    DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_)
                ),
                DataType::Binary,
            ),
            Kind::Bool => fits(*given == DataType::Boolean, DataType::Boolean),
            Kind::Moment if *given == DataType::Null => Some(DataType::Timestamp(TimeUnit::Millisecond, None)),
            Kind::Moment => matches!(given, DataType::Date32 | DataType::Timestamp(..)).then(|| given.clone()),
            Kind::Any => Some(given.clone()),
        }
    }
}

pub(crate) fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

impl Takes {
    fn convert(&self, given: &[DataType]) -> Option<Vec<DataType>> {
        let each = |kinds: &mut dyn Iterator<Item = &Kind>| -> Option<Vec<DataType>> {
            given.iter().zip(kinds).map(|(given, kind)| kind.convert(given)).collect()
        };
        match self {
            Takes::These(least, kinds) if (*least..=kinds.len()).contains(&given.len()) => each(&mut kinds.iter()),
            Takes::These(..) => None,
            Takes::Many(kinds) if given.len() + 1 >= kinds.len() => {
                each(&mut kinds.iter().chain(std::iter::repeat(kinds.last()?)))
            }
            Takes::Many(_) => None,
            Takes::Own(convert) => convert(given),
        }
    }
}

/// A function as DataFusion calls it.
#[derive(Debug)]
pub(crate) struct Scalar {
    function: &'static Function,
    signature: Signature,
    /// The session's time zone.
    zone: Zone,
}

impl Scalar {
    pub fn new(function: &'static Function, zone: Zone) -> Self {
        let volatility = if function.varies == Varies::Never { Volatility::Immutable } else { Volatility::Volatile };
        Scalar { function, signature: Signature::user_defined(volatility), zone }
    }

    /// Whether a call has another value each time that it is computed of the same row.
    pub fn varies(&self) -> bool {
        self.function.varies != Varies::Never
    }

    /// The function's name in upper case.
    pub fn name_of(&self) -> &'static str {
        self.function.name
    }
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.function.name == other.function.name && self.zone == other.zone
    }
}

impl Eq for Scalar {}

impl Hash for Scalar {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.function.name.hash(state);
    }
}

impl ScalarUDFImpl for Scalar {
    fn name(&self) -> &str {
        self.function.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let Some(types) = self.function.takes.convert(given) else {
            let given: Vec<String> = given.iter().map(type_name).collect();
            let Function { name, usage, .. } = self.function;
            return plan_err!("function '{name}' does not take ({})\nwrite {usage}", given.join(", "));
        };
        Ok(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok((self.function.gives)(&Given { types, constants: &[] }))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let nullable = match self.function.nulls {
            Nulls::Strict => args.arg_fields.iter().any(|field| field.is_nullable()),
            Nulls::Own => true,
            Nulls::Never => false,
        };
        let given = Given { types: &types, constants: args.scalar_arguments };
        if let Some(Err(why)) = self.function.check.map(|check| check(&given)) {
            return plan_err!("{}: {why}", self.function.name);
        }
        Ok(Arc::new(Field::new(self.function.name, (self.function.gives)(&given), nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = self.function.varies != Varies::ByChance
            && args.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let call = Call::new(&args, constant, self.zone)?;
        let result = (self.function.eval)(&call)?;
        if result.len() != call.rows {
            return exec_err!("{} gave {} values for {} rows", self.function.name, result.len(), call.rows);
        }
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}
