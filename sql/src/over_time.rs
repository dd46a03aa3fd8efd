//! Which OVER orders rows by their event time, and which joins compare event times.
//!
//! That is found out where a column is still the table's: the optimizer writes an event time that a table computes in other words. So the first of such an
//! order is [marked](crate::functions::event_time), and so are the [times of joins](crate::functions::row_time); the stream plan takes the marks off again.

use std::collections::BTreeSet;

use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, Result};
use datafusion_expr::{Expr, JoinType, LogicalPlan, Window};

use crate::functions::event_time::{event_time, is_marked};
use crate::functions::row_time;
use crate::join_time::{Compared, comparisons, shifted};
use crate::lineage::{is_event_time_of, is_over_time};

/// Marks the orders of a plan that begin with the event time, ascending. `in_utc`: whether local time is UTC.
pub(crate) fn mark(plan: LogicalPlan, in_utc: bool) -> Result<LogicalPlan> {
    let plan = mark_joins(plan, in_utc)?;
    let marked = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Window(window) if is_over_time(&window, in_utc) && !is_marked(&window) => {
            let calls = window.window_expr.into_iter().map(mark_call).collect();
            Ok(Transformed::yes(LogicalPlan::Window(Window::try_new(calls, window.input)?)))
        }
        other => Ok(Transformed::no(other)),
    });
    Ok(marked?.data)
}

/// Marks the event times that joins compare, in their conditions and in those of a filter right above an inner join.
fn mark_joins(plan: LogicalPlan, in_utc: bool) -> Result<LogicalPlan> {
    let marked = plan.transform_up_with_subqueries(|node| {
        let join = match &node {
            LogicalPlan::Join(join) => join,
            LogicalPlan::Filter(filter) => match filter.input.as_ref() {
                LogicalPlan::Join(join) if join.join_type == JoinType::Inner => join,
                _ => return Ok(Transformed::no(node)),
            },
            _ => return Ok(Transformed::no(node)),
        };
        let times = |columns: Vec<&Column>| {
            let is_time = |column: &&Column| is_event_time_of(column, join, in_utc);
            columns.into_iter().filter(is_time).cloned().collect::<BTreeSet<Column>>()
        };
        let refs = node.expressions();
        let times = times(refs.iter().flat_map(|expr| expr.column_refs()).collect());
        if times.is_empty() {
            return Ok(Transformed::no(node));
        }
        node.map_expressions(|condition| condition.transform_down(|expr| Ok(mark_times(expr, &times))))
    });
    Ok(marked?.data)
}

/// A comparison of two event times with the marks around them.
fn mark_times(expr: Expr, times: &BTreeSet<Column>) -> Transformed<Expr> {
    let is_time = |expr: &Expr| {
        shifted(expr).is_some_and(|(time, _)| matches!(time, Expr::Column(column) if times.contains(column)))
    };
    let are_times = |compared: &Compared<'_>| is_time(compared.left) && is_time(compared.right);
    let found = comparisons(&expr);
    if found.is_empty() || !found.iter().all(are_times) {
        return Transformed::no(expr);
    }
    let mark = |expr: Expr| {
        Ok(match &expr {
            Expr::Column(_) => Transformed::new(row_time::marked(expr), true, TreeNodeRecursion::Jump),
            _ => Transformed::no(expr),
        })
    };
    // The closure never fails.
    let marked = expr.clone().transform_down(mark).map_or(expr, |marked| marked.data);
    Transformed::new(marked, true, TreeNodeRecursion::Jump)
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
