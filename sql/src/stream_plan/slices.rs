//! What is below an aggregation by windows that a [`WindowAssign`] gives: rows with their slice in the place of their windows.
//!
//! Between the two may stand what passes the bounds of windows on as they are. A condition on them speaks of windows and not of rows, of which one may be in
//! several: it is taken out and comes after the aggregation. The optimizer pushes such conditions down, as bounds are keys.

use std::sync::Arc;

use coulee_runtime::window::assign::Bound;
use datafusion_common::Column;
use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion_expr::utils::{conjunction, split_conjunction};
use datafusion_expr::{Expr, Filter, LogicalPlan, Projection, SubqueryAlias};

use crate::error::{Fault, Result};
use crate::faults::fault;
use crate::lineage::window_of;
use crate::window_assign::{ADDED, WindowAssign};

/// The input of an aggregation with slices for windows, and the conditions that come after the aggregation, over columns with the names of
/// [`ADDED`].
///
/// # Errors
/// When something else is done with the bounds in between.
pub(super) fn sliced(plan: &LogicalPlan, after: &mut Vec<Expr>) -> Result<LogicalPlan> {
    if let Some(assign) = WindowAssign::of(plan) {
        return assign.sliced().map_err(|error| fault(&error));
    }
    let done = match plan {
        LogicalPlan::Projection(projection) => {
            if projection.expr.iter().any(|expr| computes_with_bounds(expr, &projection.input)) {
                return Err(between());
            }
            let input = Arc::new(sliced(&projection.input, after)?);
            Projection::try_new(projection.expr.clone(), input).map(LogicalPlan::Projection)
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let input = Arc::new(sliced(&alias.input, after)?);
            SubqueryAlias::try_new(input, alias.alias.clone()).map(LogicalPlan::SubqueryAlias)
        }
        LogicalPlan::Filter(filter) => {
            let (mut of_rows, mut of_windows) = (Vec::new(), Vec::new());
            for condition in split_conjunction(&filter.predicate) {
                let bounds =
                    condition.column_refs().into_iter().filter(|column| bound(column, &filter.input).is_some());
                match bounds.count() {
                    0 => of_rows.push(condition.clone()),
                    count if count == condition.column_refs().len() => of_windows.push(condition.clone()),
                    _ => return Err(between()),
                }
            }
            for condition in of_windows {
                after.push(named(condition, &filter.input)?);
            }
            if !of_rows.is_empty() && assign_below(&filter.input).is_some_and(|assign| assign.partition.is_some()) {
                let fault = Fault::new("a condition on rows that hold sessions together comes before the sessions");
                return Err(fault
                    .or_clause(&["WHERE"])
                    .help("write SESSION(TABLE v …), with v a view that has the condition"));
            }
            let input = sliced(&filter.input, after)?;
            match conjunction(of_rows) {
                Some(predicate) => Filter::try_new(predicate, Arc::new(input)).map(LogicalPlan::Filter),
                None => Ok(input),
            }
        }
        _ => return Err(between()),
    };
    done.map_err(|error| fault(&error))
}

fn bound(column: &Column, plan: &LogicalPlan) -> Option<Bound> {
    window_of(&Expr::Column(column.clone()), plan).map(|(_, bound, _)| bound)
}

/// Whether an expression does more with a bound than to pass it on.
fn computes_with_bounds(expr: &Expr, input: &LogicalPlan) -> bool {
    match expr {
        Expr::Column(_) => false,
        Expr::Alias(alias) => computes_with_bounds(&alias.expr, input),
        other => other.column_refs().into_iter().any(|column| bound(column, input).is_some()),
    }
}

/// A condition on bounds over columns with their usual names.
fn named(condition: Expr, input: &LogicalPlan) -> Result<Expr> {
    let rename = |expr: Expr| {
        let Expr::Column(column) = &expr else { return Ok(Transformed::no(expr)) };
        let name = bound(column, input).and_then(|bound| ADDED.iter().find(|(_, other)| *other == bound));
        Ok(match name {
            Some((name, _)) => Transformed::yes(Expr::Column(Column::new_unqualified(*name))),
            None => Transformed::no(expr),
        })
    };
    condition.transform(rename).data().map_err(|error| fault(&error))
}

fn between() -> Fault {
    Fault::new("something is computed of the bounds of windows before the rows of each window are aggregated")
        .or_clause(&["GROUP"])
        .help("group by window_start and window_end themselves, and compute with them in the SELECT or behind it")
}

/// What gives the rows of an input their windows.
pub(super) fn assign_below(plan: &LogicalPlan) -> Option<&WindowAssign> {
    match plan {
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {
            plan.inputs().first().copied().and_then(assign_below)
        }
        _ => WindowAssign::of(plan),
    }
}
