//! `IF`, `COALESCE`, `IFNULL`, `NULLIF`, `GREATEST` and `LEAST`.
//!
//! The planner finds them as functions; [`expand`] replaces all but the last two by CASE, which evaluates only the branches that it needs.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Scalar, new_null_array};
use arrow::compute::kernels::cmp;
use arrow::compute::kernels::zip::zip;
use arrow::compute::{and, is_not_null};
use arrow::datatypes::DataType;
use datafusion_common::{DFSchema, Result, ScalarValue, exec_err, plan_err};
use datafusion_expr::expr::{Case, ScalarFunction};
use datafusion_expr::{
    ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::cast::{Failing, Target, cast_array, cast_expr};
use super::common::{Floating, common_of};
use super::compare::{compared_type, comparison};
use crate::flink_types::type_name;

/// Which function it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    If,
    Coalesce,
    IfNull,
    NullIf,
    Greatest,
    Least,
}

const KINDS: [Kind; 6] = [Kind::If, Kind::Coalesce, Kind::IfNull, Kind::NullIf, Kind::Greatest, Kind::Least];

/// A function that chooses among its arguments.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Conditional {
    kind: Kind,
    signature: Signature,
}

/// All of them.
pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    let function = |kind| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(Conditional { kind, signature }))
    };
    KINDS.into_iter().map(function).collect()
}

impl Conditional {
    /// The arguments whose common type is the result's.
    fn choices<'t, T>(&self, args: &'t [T]) -> Option<&'t [T]> {
        match (self.kind, args.len()) {
            (Kind::If, 3) => Some(&args[1..]),
            (Kind::NullIf, 2) => Some(&args[..1]),
            (Kind::IfNull, 2) | (Kind::Coalesce | Kind::Greatest | Kind::Least, 1..) => Some(args),
            _ => None,
        }
    }

    fn usage(&self) -> &'static str {
        match self.kind {
            Kind::If => "IF(condition, value, other)",
            Kind::Coalesce => "COALESCE(value, value, …)",
            Kind::IfNull => "IFNULL(value, other)",
            Kind::NullIf => "NULLIF(value, other)",
            Kind::Greatest => "GREATEST(value, value, …)",
            Kind::Least => "LEAST(value, value, …)",
        }
    }

    fn floating(&self) -> Floating {
        if self.kind == Kind::If { Floating::First } else { Floating::Wider }
    }
}

impl ScalarUDFImpl for Conditional {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::If => "if",
            Kind::Coalesce => "coalesce",
            Kind::IfNull => "ifnull",
            Kind::NullIf => "nullif",
            Kind::Greatest => "greatest",
            Kind::Least => "least",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.return_type(types).map(|_| types.to_vec())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let Some(choices) = self.choices(types) else { return plan_err!("write {}", self.usage()) };
        let is_condition = |data_type: &DataType| matches!(data_type, DataType::Boolean | DataType::Null);
        if self.kind == Kind::If && !is_condition(&types[0]) {
            return plan_err!("the condition of IF is {}, expected BOOLEAN", type_name(&types[0]));
        }
        if self.kind == Kind::NullIf && compared_type(&types[0], &types[1]).is_none() {
            return plan_err!("{} cannot be compared with {}", type_name(&types[0]), type_name(&types[1]));
        }
        match common_of(choices, self.floating()) {
            Some(common) => Ok(common),
            None => {
                let given: Vec<String> = choices.iter().map(type_name).collect();
                plan_err!(
                    "the values of {} have no common type: {}\nCAST them to one type",
                    self.name().to_uppercase(),
                    given.join(", ")
                )
            }
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if !matches!(self.kind, Kind::Greatest | Kind::Least) {
            return exec_err!("{} is evaluated as CASE", self.name().to_uppercase());
        }
        let target = Target::plain(args.return_field.data_type().clone());
        let arrays = args.args.iter().map(|arg| cast_array(&arg.to_array(args.number_rows)?, &target, Failing::Error));
        let mut arrays = arrays.collect::<Result<Vec<_>>>()?.into_iter();
        let Some(first) = arrays.next() else { return exec_err!("write {}", self.usage()) };
        let chosen = arrays.try_fold(first, |best, next| self.better(&best, &next))?;
        let all_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        Ok(match all_scalar && !chosen.is_empty() {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&chosen, 0)?),
            false => ColumnarValue::Array(chosen),
        })
    }
}

impl Conditional {
    /// The greater (or lesser) value of each row; null if one is null.
    fn better(&self, best: &ArrayRef, next: &ArrayRef) -> Result<ArrayRef> {
        let is_better = if self.kind == Kind::Greatest { cmp::gt(next, best)? } else { cmp::lt(next, best)? };
        let chosen = zip(&is_better, next, best)?;
        let both: BooleanArray = and(&is_not_null(best)?, &is_not_null(next)?)?;
        let null = Scalar::new(new_null_array(chosen.data_type(), 1));
        Ok(zip(&both, &chosen, &null)?)
    }
}

/// What a function of this file stands for, with the casts that its type needs.
///
/// # Errors
/// When the arguments have no common type.
pub(crate) fn expand(call: ScalarFunction, schema: &DFSchema) -> Result<Expr> {
    let Some(conditional) = call.func.inner().downcast_ref::<Conditional>() else {
        return Ok(Expr::ScalarFunction(call));
    };
    let types = call.args.iter().map(|arg| arg.get_type(schema)).collect::<Result<Vec<_>>>()?;
    let common = conditional.return_type(&types)?;
    let typed = |index: usize| {
        let target = Target::plain(common.clone());
        cast_expr(call.args[index].clone(), &types[index], target, Failing::Error)
    };
    let case = |when: Expr, then: Expr, other: Expr| {
        Expr::Case(Case::new(None, vec![(Box::new(when), Box::new(then))], Some(Box::new(other))))
    };
    match conditional.kind {
        Kind::Greatest | Kind::Least => Ok(Expr::ScalarFunction(call)),
        Kind::If => Ok(case(call.args[0].clone(), typed(1)?, typed(2)?)),
        Kind::NullIf => {
            let is_equal = comparison(call.args[0].clone(), Operator::Eq, call.args[1].clone(), schema)?;
            Ok(case(is_equal, Expr::Literal(ScalarValue::try_from(&common)?, None), typed(0)?))
        }
        Kind::Coalesce | Kind::IfNull => {
            let last = call.args.len() - 1;
            let mut whens = Vec::with_capacity(last);
            for index in 0..last {
                whens.push((Box::new(call.args[index].clone().is_not_null()), Box::new(typed(index)?)));
            }
            match whens.is_empty() {
                true => typed(last),
                false => Ok(Expr::Case(Case::new(None, whens, Some(Box::new(typed(last)?))))),
            }
        }
    }
}
