//! The mark of an event time: a function around the first of an order, for the planner only. See `over_time`.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::{Result, internal_err};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, SortExpr, Volatility, Window,
};

use super::ranking::without_alias;

/// No function of SQL has a blank in its name.
const NAME: &str = "event time";

/// An event time with the mark around it.
pub(crate) fn event_time(time: Expr) -> Expr {
    // Volatile, so that the optimizer leaves it where it is.
    let mark = Arc::new(ScalarUDF::new_from_impl(Mark { signature: Signature::any(1, Volatility::Volatile) }));
    Expr::ScalarFunction(ScalarFunction::new_udf(mark, vec![time]))
}

/// Whether a window's order begins with a marked event time.
pub(crate) fn is_marked(window: &Window) -> bool {
    let Some(Expr::WindowFunction(call)) = window.window_expr.first().map(without_alias) else { return false };
    call.params.order_by.first().is_some_and(|key| marked(&key.expr).is_some())
}

/// An order without the mark.
pub(crate) fn unmarked(order: &[SortExpr]) -> Vec<SortExpr> {
    let without = |key: &SortExpr| SortExpr { expr: marked(&key.expr).unwrap_or(&key.expr).clone(), ..key.clone() };
    order.iter().map(without).collect()
}

/// What is marked, if an expression is the mark of something.
fn marked(expr: &Expr) -> Option<&Expr> {
    let Expr::ScalarFunction(call) = expr else { return None };
    call.func.inner().downcast_ref::<Mark>().and_then(|_| call.args.first())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Mark {
    signature: Signature,
}

impl ScalarUDFImpl for Mark {
    fn name(&self) -> &'static str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Null))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("the mark of an event time is not evaluated")
    }
}
