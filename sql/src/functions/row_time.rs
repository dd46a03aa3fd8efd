//! The mark of an event time in the condition of a join: a function that gives back its argument, for the planner. See `join_time`.
//!
//! The optimizer may move the condition, and write an event time that a table computes in other words; the mark stays around it.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion_common::{Result, internal_err};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

/// No function of SQL has a blank in its name.
const NAME: &str = "row time";

/// An event time with the mark around it.
pub(crate) fn marked(time: Expr) -> Expr {
    let mark = Arc::new(ScalarUDF::new_from_impl(RowTime { signature: Signature::any(1, Volatility::Immutable) }));
    Expr::ScalarFunction(ScalarFunction::new_udf(mark, vec![time]))
}

/// Whether an expression is something with the mark around it.
pub(crate) fn is_marked(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if call.func.inner().downcast_ref::<RowTime>().is_some())
}

/// What is marked; an expression that is not stays as it is.
pub(crate) fn unmarked(expr: &Expr) -> &Expr {
    match expr {
        Expr::ScalarFunction(call) if is_marked(expr) => call.args.first().unwrap_or(expr),
        _ => expr,
    }
}

/// An expression without the marks in it.
pub(crate) fn without_marks(expr: Expr) -> Result<Expr> {
    let without = |expr: Expr| match is_marked(&expr) {
        true => Ok(Transformed::yes(unmarked(&expr).clone())),
        false => Ok(Transformed::no(expr)),
    };
    expr.transform_up(without).data()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct RowTime {
    signature: Signature,
}

impl ScalarUDFImpl for RowTime {
    fn name(&self) -> &'static str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Null))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.into_iter().next() {
            Some(value) => Ok(value),
            None => internal_err!("the mark of an event time has one argument"),
        }
    }
}
