//! Views of a stream's newest row per key, as the versions that a table of these rows has:
//! `SELECT … FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY key ORDER BY ts DESC) AS n FROM t) WHERE n = 1`, Flink's "versioned view".
//!
//! At any time the view has the newest row of each key until then: each row is a version, from its event time on.

use datafusion_common::{Column, Result};
use datafusion_expr::expr::WindowFunctionParams;
use datafusion_expr::{Cast, Expr, Filter, LogicalPlan, LogicalPlanBuilder, Window, lit};

use crate::functions::ranking::without_alias;
use crate::lineage::{is_event_time, table_column};
use crate::rank_bounds::first_row;

/// The plan with all rows in the place of the newest ones, and the columns of the table that are the key; `None` for another plan.
pub(crate) fn all_versions(plan: &LogicalPlan, in_utc: bool) -> Result<Option<(LogicalPlan, Vec<String>)>> {
    match plan {
        LogicalPlan::Filter(filter) if first_row(filter) => without_number(filter, in_utc),
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => {
            let Some(input) = plan.inputs().first().copied() else { return Ok(None) };
            let Some((input, key)) = all_versions(input, in_utc)? else { return Ok(None) };
            Ok(Some((plan.with_new_exprs(plan.expressions(), vec![input])?, key)))
        }
        _ => Ok(None),
    }
}

/// The input of a condition `n = 1`, whose rows all have the number.
fn without_number(filter: &Filter, in_utc: bool) -> Result<Option<(LogicalPlan, Vec<String>)>> {
    fn replaced(plan: &LogicalPlan, in_utc: bool) -> Result<Option<(LogicalPlan, Vec<String>)>> {
        match plan {
            LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => {
                let Some(input) = plan.inputs().first().copied() else { return Ok(None) };
                let Some((input, key)) = replaced(input, in_utc)? else { return Ok(None) };
                Ok(Some((plan.with_new_exprs(plan.expressions(), vec![input])?, key)))
            }
            LogicalPlan::Window(window) => {
                let Some(key) = key_of(window, in_utc) else { return Ok(None) };
                let own = window.input.schema().columns().into_iter().map(Expr::Column);
                let number = window.schema.field(window.input.schema().fields().len());
                let one = Expr::Cast(Cast::new(Box::new(lit(1_i64)), number.data_type().clone())).alias(number.name());
                let plan = LogicalPlanBuilder::new(window.input.as_ref().clone()).project(own.chain([one]))?.build()?;
                Ok(Some((plan, key)))
            }
            _ => Ok(None),
        }
    }
    replaced(&filter.input, in_utc)
}

/// The columns of a table by which a window numbers rows, from the newest one on.
fn key_of(window: &Window, in_utc: bool) -> Option<Vec<String>> {
    let [call] = window.window_expr.as_slice() else { return None };
    let Expr::WindowFunction(call) = without_alias(call) else { return None };
    let WindowFunctionParams { partition_by, order_by, .. } = &call.params;
    let [order] = order_by.as_slice() else { return None };
    let is_newest = |column: &Column| !order.asc && is_event_time(column, &window.input, in_utc);
    if !matches!(&order.expr, Expr::Column(column) if is_newest(column)) {
        return None;
    }
    partition_by.iter().map(|key| table_column(key, &window.input)).collect()
}
