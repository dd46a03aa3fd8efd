//! Flink's types and what they do: conversions, operators, and the functions that choose among values.
//!
//! DataFusion resolves names; what an expression's type is, which values are converted without being asked, and what overflows is decided here. `typing` is
//! the pass over a resolved plan, `cast` the conversions, `arithmetic`, `temporal` and `compare` the operators, `conditional` the functions, `common` the types
//! that several types become together, `literals` and `intervals` what is written, `pattern` LIKE and SIMILAR TO, `decimal` and `calendar` the arithmetic below. `tests/flink` holds the values
//! that all of it is compared with.

mod arithmetic;
mod calendar;
mod cast;
mod common;
mod compare;
mod conditional;
mod decimal;
mod intervals;
mod literals;
mod pattern;
mod temporal;
mod type_name;
mod typing;

use std::sync::Arc;

use datafusion_expr::{Operator, ScalarUDF};

pub(crate) use cast::{DIGITS, Failing, LENGTH, PADDED, Target, cast_array, cast_expr, is_castable};
pub(crate) use decimal::{PRECISION_MAX, fits, rescale_wide_quotient};
pub(crate) use intervals::spell_intervals;
pub(crate) use literals::spell_literals;
pub(crate) use type_name::{is_timestamp, type_name};
pub(crate) use typing::{FlinkOperators, typed_expr, typed_plan};

/// The operator that a function is, if it is an arithmetic one.
pub(crate) fn sign_of(function: &ScalarUDF) -> Option<Operator> {
    arithmetic::Arithmetic::operator_of(function)
}

/// The functions of this room, by lower-case name.
pub(crate) fn functions() -> impl Iterator<Item = (String, Arc<ScalarUDF>)> {
    let conditionals = conditional::functions().into_iter().map(|function| (function.name().to_owned(), function));
    let remainder = arithmetic::Arithmetic::of(Operator::Modulo);
    conditionals.chain(remainder.map(|function| ("mod".to_owned(), function)))
}
