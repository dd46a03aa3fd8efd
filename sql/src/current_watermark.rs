//! `CURRENT_WATERMARK(ts)`: the watermark, as a column that is added below where it is asked for.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, Result};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder};

use crate::added_time::{Added, AddedTime};
use crate::error::Fault;
use crate::functions::clock::watermark_of;
use crate::lineage::is_event_time;

/// Puts the column in the place of the calls in a plan's SELECT lists and conditions. `in_utc`: whether local time is UTC.
pub(crate) fn into_columns(plan: LogicalPlan, in_utc: bool) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|node| {
        if !node.expressions().iter().any(has_call) {
            return Ok(Transformed::no(node));
        }
        match &node {
            LogicalPlan::Projection(_) | LogicalPlan::Filter(_) => with_column(node, in_utc),
            _ => {
                let fault = Fault::new("CURRENT_WATERMARK stands in the SELECT list or in WHERE");
                let fault = fault.about(coulee_runtime::Subject::Function("CURRENT_WATERMARK".to_owned()));
                Err(fault.help("compute it in a subquery, and use its column").into_datafusion())
            }
        }
    });
    Ok(rewritten?.data)
}

fn has_call(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(watermark_of(expr).is_some())).unwrap_or(true)
}

fn with_column(node: LogicalPlan, in_utc: bool) -> Result<Transformed<LogicalPlan>> {
    let inputs: Vec<LogicalPlan> = node.inputs().into_iter().cloned().collect();
    let [input] = inputs.as_slice() else { return Ok(Transformed::no(node)) };
    let mut is_ltz = None;
    for expr in node.expressions() {
        expr.apply(|expr| {
            if let Some(time) = watermark_of(expr) {
                is_ltz = Some(is_local(time, input, in_utc)?);
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    let Some(is_ltz) = is_ltz else { return Ok(Transformed::no(node)) };
    let added = Added::Watermark { is_ltz };
    let names = NamePreserver::new(&node);
    let exprs = node.expressions().into_iter().map(|expr| {
        let name = names.save(&expr);
        let replaced = expr.transform_up(|expr| match watermark_of(&expr) {
            Some(_) => Ok(Transformed::yes(added.column())),
            None => Ok(Transformed::no(expr)),
        });
        replaced.map(|expr| name.restore(expr.data))
    });
    let exprs = exprs.collect::<Result<Vec<Expr>>>()?;
    let below = AddedTime::new(Arc::new(input.clone()), added)?.into_plan();
    let plan = match &node {
        LogicalPlan::Filter(_) => {
            let columns: Vec<Column> = input.schema().columns();
            let filter = exprs.into_iter().try_fold(LogicalPlanBuilder::new(below), LogicalPlanBuilder::filter)?;
            filter.project(columns.into_iter().map(Expr::Column))?.build()?
        }
        _ => node.with_new_exprs(exprs, vec![below])?,
    };
    Ok(Transformed::yes(plan))
}

/// Whether an event time is a TIMESTAMP_LTZ.
fn is_local(time: &Expr, input: &LogicalPlan, in_utc: bool) -> Result<bool> {
    match time {
        Expr::Column(column) if is_event_time(column, input, in_utc) => {
            Ok(matches!(time.get_type(input.schema())?, DataType::Timestamp(_, Some(_))))
        }
        _ => {
            let fault = Fault::new("CURRENT_WATERMARK takes an event-time column");
            let fault = fault.about(coulee_runtime::Subject::Function("CURRENT_WATERMARK".to_owned()));
            Err(fault
                .help("declare one where the table is created: WATERMARK FOR ts AS ts - INTERVAL '5' SECOND")
                .into_datafusion())
        }
    }
}
