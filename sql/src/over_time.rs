//! Which OVER orders rows by their event time.
//!
//! That is found out where a column is still the table's: the optimizer writes an event time that a table computes in other words. So the first of such an
//! order is [marked](crate::functions::event_time), and the stream plan takes the mark off again.

use datafusion_common::Result;
use datafusion_common::tree_node::Transformed;
use datafusion_expr::{Expr, LogicalPlan, Window};

use crate::functions::event_time::{event_time, is_marked};
use crate::lineage::is_over_time;

/// Marks the orders of a plan that begin with the event time, ascending. `in_utc`: whether local time is UTC.
pub(crate) fn mark(plan: LogicalPlan, in_utc: bool) -> Result<LogicalPlan> {
    let marked = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Window(window) if is_over_time(&window, in_utc) && !is_marked(&window) => {
            let calls = window.window_expr.into_iter().map(mark_call).collect();
            Ok(Transformed::yes(LogicalPlan::Window(Window::try_new(calls, window.input)?)))
        }
        other => Ok(Transformed::no(other)),
    });
    Ok(marked?.data)
}

/// The call under its name: what reads it looks for that.
fn mark_call(expr: Expr) -> Expr {
    let name = expr.schema_name().to_string();
    let Expr::WindowFunction(mut call) = expr else { return expr };
    if let Some(leading) = call.params.order_by.first_mut() {
        leading.expr = event_time(leading.expr.clone());
    }
    Expr::WindowFunction(call).alias(name)
}
