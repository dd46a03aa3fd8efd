//! Where a column comes from: whether it is an event time, and whether it is a window's bound.
//!
//! Both follow a column down through projections, filters, aliases and unions, to the table or the window function that it comes from.

use coulee_runtime::window::assign::{Bound, Tumbling, as_window};
use datafusion_common::Column;
use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion_expr::{Aggregate, Expr, LogicalPlan, Window};

use crate::as_of::AsOf;
use crate::catalog::ScanSource;
use crate::functions::clock::is_proctime;
use crate::functions::event_time::is_marked;
use crate::functions::ranking::ranking_of;
use crate::look_ahead::looks_ahead;
use crate::processing_time::ProcessingTime;
use crate::scans::source_of;
use crate::unnest::Unnest;
use crate::window_assign::{Assigned, WindowAssign};

/// What a plan's column is over the plan's inputs.
enum ColumnOrigin<'a> {
    /// The same everywhere below: an expression over each of these inputs.
    Below(Vec<(&'a LogicalPlan, Expr)>),
    /// A table's column.
    Table(&'a ScanSource),
    Unknown,
}

fn origin<'a>(column: &Column, plan: &'a LogicalPlan) -> ColumnOrigin<'a> {
    let Some(index) = plan.schema().maybe_index_of_column(column) else { return ColumnOrigin::Unknown };
    let at = |input: &'a LogicalPlan, index: usize| {
        (input, Expr::Column(Column::from(input.schema().qualified_field(index))))
    };
    match plan {
        LogicalPlan::Projection(node) => ColumnOrigin::Below(vec![(&node.input, node.expr[index].clone())]),
        // Rows whose number is bounded may leave again later.
        LogicalPlan::Filter(node) if node.predicate.column_refs().iter().any(|read| is_rank(read, &node.input)) => {
            ColumnOrigin::Unknown
        }
        LogicalPlan::Filter(node) => ColumnOrigin::Below(vec![at(&node.input, index)]),
        LogicalPlan::SubqueryAlias(node) => ColumnOrigin::Below(vec![at(&node.input, index)]),
        LogicalPlan::Union(node) => ColumnOrigin::Below(node.inputs.iter().map(|input| at(input, index)).collect()),
        LogicalPlan::Aggregate(node) => match node.group_expr.get(index) {
            Some(expr) => ColumnOrigin::Below(vec![(&node.input, expr.clone())]),
            None => ColumnOrigin::Unknown,
        },
        LogicalPlan::Extension(_) if ProcessingTime::of(plan).is_some_and(|node| !node.is_time(index)) => {
            ColumnOrigin::Below(plan.inputs().into_iter().map(|input| at(input, index)).collect())
        }
        LogicalPlan::Extension(_) if AsOf::of(plan).is_some_and(|node| node.is_left(index)) => {
            ColumnOrigin::Below(plan.inputs().into_iter().take(1).map(|input| at(input, index)).collect())
        }
        LogicalPlan::Extension(_) => match (WindowAssign::of(plan), Unnest::of(plan)) {
            (Some(assign), _) if assign.bound(index).is_none() => ColumnOrigin::Below(vec![at(&assign.input, index)]),
            (_, Some(unnest)) if index < unnest.input.schema().fields().len() => {
                ColumnOrigin::Below(vec![at(&unnest.input, index)])
            }
            _ => ColumnOrigin::Unknown,
        },
        LogicalPlan::TableScan(scan) => {
            scan.source.downcast_ref::<ScanSource>().map_or(ColumnOrigin::Unknown, ColumnOrigin::Table)
        }
        _ => ColumnOrigin::Unknown,
    }
}

/// An expression without the aliases and the casts between kinds of timestamps around it, which change neither an instant nor its order.
pub(crate) fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => bare(&alias.expr),
        Expr::Cast(cast) if crate::flink_types::is_timestamp(cast.field.data_type()) => bare(&cast.expr),
        Expr::ScalarFunction(call) => crate::cast_names::cast_of(call).map_or(expr, bare),
        _ => expr,
    }
}

fn without_aliases(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => without_aliases(&alias.expr),
        _ => expr,
    }
}

/// Whether the watermark speaks of this column: it is a table's event time, or the time of windows of one.
///
/// `in_utc`: local time is UTC, so that a conversion between kinds of timestamps keeps the instant.
pub(crate) fn is_event_time(column: &Column, plan: &LogicalPlan, in_utc: bool) -> bool {
    is_event_time_expr(&Expr::Column(column.clone()), plan, in_utc)
}

fn is_event_time_expr(expr: &Expr, plan: &LogicalPlan, in_utc: bool) -> bool {
    let bare: fn(&Expr) -> &Expr = if in_utc { bare } else { without_aliases };
    let expr = bare(expr);
    if let Some((_, part)) = as_window(expr) {
        // A window's last instant is at or after the row's own time, so a watermark below the one is below the other.
        return part == Bound::Time;
    }
    if let LogicalPlan::Aggregate(aggregate) = plan {
        // SUBTLE: results leave when the watermark has passed the window; any other time among the keys is late by then, that of an inner window too.
        let Expr::Column(column) = expr else { return false };
        let index = plan.schema().maybe_index_of_column(column);
        return bounds_of(aggregate).iter().any(|(at, _, part)| Some(*at) == index && *part == Bound::Time);
    }
    if let LogicalPlan::Projection(node) = plan
        && let LogicalPlan::TableScan(scan) = node.input.as_ref()
        && let Expr::Column(column) = expr
        && let Some(index) = plan.schema().maybe_index_of_column(column)
        && let Some(source) = scan.source.downcast_ref::<ScanSource>()
        && let Some(event_time) = &source.0.event_time
        && without_qualifiers(bare(&node.expr[index])) == *bare(&event_time.value)
    {
        return true;
    }
    let Expr::Column(column) = expr else { return false };
    if let LogicalPlan::Window(window) = plan
        && let Some(index) = plan.schema().maybe_index_of_column(column)
    {
        let input = window.input.schema();
        return index < input.fields().len()
            && is_over_time(window, in_utc)
            && is_event_time(&Column::from(input.qualified_field(index)), &window.input, in_utc);
    }
    if let Some((_, bound)) = assigned(column, plan) {
        return bound == Bound::Time;
    }
    if let Some(node) = ProcessingTime::of(plan) {
        // The watermark follows the clock: it says nothing of the other times.
        return plan.schema().maybe_index_of_column(column).is_some_and(|index| node.is_time(index));
    }
    match origin(column, plan) {
        ColumnOrigin::Below(inputs) => inputs.iter().all(|(input, expr)| is_event_time_expr(expr, input, in_utc)),
        ColumnOrigin::Table(table) => table
            .0
            .event_time
            .as_ref()
            .is_some_and(|time| matches!(&time.value, Expr::Column(own) if own.name == column.name)),
        ColumnOrigin::Unknown => false,
    }
}

/// Whether a column is `PROCTIME()`, passed on as it is.
pub(crate) fn is_processing_time(column: &Column, plan: &LogicalPlan) -> bool {
    let ColumnOrigin::Below(inputs) = origin(column, plan) else { return false };
    inputs.iter().all(|(input, expr)| match without_aliases(expr) {
        Expr::Column(column) => is_processing_time(column, input),
        other => is_proctime(other),
    })
}

/// Whether OVER orders rows by their event time, so that they leave in its order.
pub(crate) fn is_over_time(window: &Window, in_utc: bool) -> bool {
    let Some(Expr::WindowFunction(call)) = window.window_expr.first().map(without_aliases) else { return false };
    let leading = call.params.order_by.first().filter(|key| key.asc).map(|key| &key.expr);
    let is_time = |expr: &Expr| matches!(expr, Expr::Column(column) if is_event_time(column, &window.input, in_utc));
    let ahead = |expr: &Expr| matches!(without_aliases(expr), Expr::WindowFunction(call) if looks_ahead(call));
    is_marked(window)
        || (leading.is_some_and(is_time) && only_appends(&window.input) && !window.window_expr.iter().any(ahead))
}

/// Whether no table of a plan takes rows back. An updated row leaves OVER again, long after its time.
fn only_appends(plan: &LogicalPlan) -> bool {
    let changes = |plan: &LogicalPlan| {
        let LogicalPlan::TableScan(scan) = plan else { return Ok(false) };
        let Some(ScanSource(table)) = scan.source.downcast_ref::<ScanSource>() else { return Ok(false) };
        Ok(source_of(scan, table).is_ok_and(|source| source.is_changelog() || source.is_upsert()))
    };
    !plan.exists(changes).unwrap_or(true)
}

/// Whether a column is the number of a rank, passed on as it is.
pub(crate) fn is_rank(column: &Column, plan: &LogicalPlan) -> bool {
    let Some(index) = plan.schema().maybe_index_of_column(column) else { return false };
    match plan {
        LogicalPlan::Projection(projection) => match without_aliases(&projection.expr[index]) {
            Expr::Column(column) => is_rank(column, &projection.input),
            _ => false,
        },
        LogicalPlan::SubqueryAlias(alias) => {
            is_rank(&Column::from(alias.input.schema().qualified_field(index)), &alias.input)
        }
        LogicalPlan::Filter(filter) => is_rank(column, &filter.input),
        LogicalPlan::Window(window) => {
            let is_call = index == window.input.schema().fields().len();
            let call =
                window.window_expr.first().filter(|_| is_call && window.window_expr.len() == 1).map(without_aliases);
            matches!(call, Some(Expr::WindowFunction(call)) if ranking_of(&call.fun).is_some())
        }
        _ => false,
    }
}

/// The windows that an aggregation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupWindow {
    /// Each row is in one, whose bounds are columns that a projection computes.
    Tumbling(Tumbling),
    /// A [`WindowAssign`] gives rows their windows.
    Assigned(Assigned),
    /// An aggregation by such windows is below: its results carry the bounds of theirs.
    Emitted(Assigned),
}

/// What a column is of the windows that a [`WindowAssign`] gives, if it is the plan's top and has the column.
fn assigned(column: &Column, plan: &LogicalPlan) -> Option<(Assigned, Bound)> {
    let assign = WindowAssign::of(plan)?;
    let bound = assign.bound(plan.schema().maybe_index_of_column(column)?)?;
    Some((assign.windows, bound))
}

/// The window that an expression is a bound of, and how many aggregations lie between the two.
pub(crate) fn window_of(expr: &Expr, plan: &LogicalPlan) -> Option<(GroupWindow, Bound, usize)> {
    let expr = bare(expr);
    if let Some((window, part)) = as_window(expr) {
        return Some((GroupWindow::Tumbling(window), part, 0));
    }
    let Expr::Column(column) = expr else { return None };
    if let Some((window, part)) = assigned(column, plan) {
        return Some((GroupWindow::Assigned(window), part, 0));
    }
    let ColumnOrigin::Below(inputs) = origin(column, plan) else { return None };
    let mut windows = inputs.iter().map(|(input, expr)| window_of(expr, input));
    let (window, part, depth) = windows.next()??;
    if !windows.all(|other| other == Some((window, part, depth))) {
        return None;
    }
    let window = match (window, plan) {
        (GroupWindow::Assigned(windows), LogicalPlan::Aggregate(_)) => GroupWindow::Emitted(windows),
        (window, _) => window,
    };
    Some((window, part, depth + usize::from(matches!(plan, LogicalPlan::Aggregate(_)))))
}

/// The group expressions of an aggregation that are bounds of its window, with their places. The window is the one with the fewest aggregations in
/// between; the bounds of windows further inside are keys like any other.
pub(crate) fn bounds_of(aggregate: &Aggregate) -> Vec<(usize, GroupWindow, Bound)> {
    let found = aggregate.group_expr.iter().map(|expr| window_of(expr, &aggregate.input));
    let found: Vec<_> = found.enumerate().filter_map(|(index, bound)| bound.map(|bound| (index, bound))).collect();
    let nearest = found.iter().map(|(_, (_, _, depth))| *depth).min();
    let near = found.into_iter().filter(|(_, (_, _, depth))| Some(*depth) == nearest);
    near.map(|(index, (window, part, _))| (index, window, part)).collect()
}

/// The same expression with bare column names.
pub(crate) fn without_qualifiers(expr: &Expr) -> Expr {
    let strip = |expr: Expr| {
        Ok(match expr {
            Expr::Column(column) => Transformed::yes(Expr::Column(Column::new_unqualified(column.name))),
            other => Transformed::no(other),
        })
    };
    expr.clone().transform(strip).data().unwrap_or_else(|_| expr.clone())
}
