//! Where a column comes from: whether it is an event time, and whether it is a window's bound.
//!
//! Both follow a column down through projections, filters, aliases and unions, to the table or the window function that it comes from.

use coulee_runtime::window::assign::{Bound, Tumbling, as_window};
use datafusion_common::Column;
use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion_expr::utils::split_conjunction;
use datafusion_expr::{Aggregate, Expr, Join, JoinType, LogicalPlan, Operator, Window, binary_expr};

use crate::added_time::AddedTime;
use crate::as_of::AsOf;
use crate::catalog::ScanSource;
use crate::functions::clock::is_proctime;
use crate::functions::event_time::is_marked;
use crate::functions::row_time;
use crate::join_time::{self, Compared, JoinTime, comparisons, side_of};
use crate::look_ahead::looks_ahead;
use crate::rank_bounds::bounded;
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
    // Rows that are joined with those of the same window stay in it.
    if let Some((join, further)) = joined(plan)
        && is_of_windows(join, &further)
    {
        return match column_of(join, index) {
            Some((side, column)) => ColumnOrigin::Below(vec![(side, Expr::Column(column))]),
            None => ColumnOrigin::Unknown,
        };
    }
    match plan {
        LogicalPlan::Projection(node) => ColumnOrigin::Below(vec![(&node.input, node.expr[index].clone())]),
        // Rows whose number is bounded may leave again later.
        LogicalPlan::Filter(node) if bounded(node).is_some() => ColumnOrigin::Unknown,
        LogicalPlan::Filter(node) => ColumnOrigin::Below(vec![at(&node.input, index)]),
        LogicalPlan::SubqueryAlias(node) => ColumnOrigin::Below(vec![at(&node.input, index)]),
        LogicalPlan::Union(node) => ColumnOrigin::Below(node.inputs.iter().map(|input| at(input, index)).collect()),
        LogicalPlan::Aggregate(node) => match node.group_expr.get(index) {
            Some(expr) => ColumnOrigin::Below(vec![(&node.input, expr.clone())]),
            None => ColumnOrigin::Unknown,
        },
        LogicalPlan::Extension(_) if AddedTime::of(plan).is_some_and(|node| !node.is_time(index)) => {
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
    if let Some((join, further)) = joined(plan) {
        let index = plan.schema().maybe_index_of_column(column);
        return index.is_some_and(|index| stays_event_time(index, join, &further, in_utc));
    }
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
    if let Some(node) = AddedTime::of(plan).filter(|node| node.is_event_time()) {
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

/// A plan as a join, and the conditions of a filter right above it.
fn joined(plan: &LogicalPlan) -> Option<(&Join, Vec<&Expr>)> {
    match plan {
        LogicalPlan::Join(join) => Some((join, Vec::new())),
        LogicalPlan::Filter(filter) => match filter.input.as_ref() {
            LogicalPlan::Join(join) if join.join_type == JoinType::Inner => {
                Some((join, split_conjunction(&filter.predicate)))
            }
            _ => None,
        },
        _ => None,
    }
}

/// Whether a column of a join is an event time behind it: the rows of both sides are bounded in time by its conditions, and by further ones that pairs must meet.
fn stays_event_time(index: usize, join: &Join, further: &[&Expr], in_utc: bool) -> bool {
    let is_time = |column: &Column, side: &LogicalPlan| match side {
        LogicalPlan::Join(inner) if join.join_type == JoinType::Inner && inner.join_type == JoinType::Inner => {
            let index = side.schema().maybe_index_of_column(column);
            index.is_some_and(|index| stays_event_time(index, inner, further, in_utc))
        }
        _ => is_event_time(column, side, in_utc),
    };
    // The condition of a view has its marks already.
    let is_time_expr = |expr: &Expr, side: &LogicalPlan| match row_time::unmarked(expr) {
        Expr::Column(column) => is_time(column, side),
        _ => false,
    };
    let keeps_both = matches!(join.join_type, JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full);
    let Some((side, column)) = column_of(join, index).filter(|_| keeps_both) else { return false };
    is_time(&column, side)
        && only_appends(&join.left)
        && only_appends(&join.right)
        && join_time(join, further, is_time_expr).is_some()
}

/// Whether a column of one side of a join is an event time, before it is joined: also where the side is itself a join.
pub(crate) fn is_event_time_of(column: &Column, join: &Join, in_utc: bool) -> bool {
    [&join.left, &join.right].into_iter().any(|side| match side.as_ref() {
        _ if side.schema().maybe_index_of_column(column).is_none() => false,
        LogicalPlan::Join(inner) => is_event_time_of(column, inner, in_utc),
        side => is_event_time(column, side, in_utc),
    })
}

/// A column of a join that has the columns of both sides, as one of the side that it is of.
fn column_of(join: &Join, index: usize) -> Option<(&LogicalPlan, Column)> {
    let left = join.left.schema().fields().len();
    let (side, index) = if index < left { (&join.left, index) } else { (&join.right, index - left) };
    (index < side.schema().fields().len()).then(|| (side.as_ref(), Column::from(side.schema().qualified_field(index))))
}

/// What bounds the rows of a join in event time: its conditions, and further ones that pairs must meet. `is_time`: whether an expression over a side is the time of
/// its rows.
pub(crate) fn join_time(
    join: &Join,
    further: &[&Expr],
    is_time: impl Fn(&Expr, &LogicalPlan) -> bool,
) -> Option<JoinTime> {
    let equal: Vec<Expr> =
        join.on.iter().map(|(left, right)| binary_expr(left.clone(), Operator::Eq, right.clone())).collect();
    let own = join.filter.iter().flat_map(split_conjunction);
    let conditions: Vec<&Expr> = equal.iter().chain(own).chain(further.iter().copied()).collect();
    let sides = [join.left.as_ref(), join.right.as_ref()];
    let schemas = sides.map(|side| side.schema().as_ref());
    windows_of(&conditions, sides)
        .or_else(|| join_time::interval(&conditions, schemas, |expr, side| is_time(expr, sides[side])))
}

/// Whether the rows of an optimised plan come in the order of their event time, as far as joins are concerned: a join whose rows are not bounded in time gives
/// pairs of any age.
pub(crate) fn keeps_time(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Join(join) => {
            let is_bounded = join_time(join, &[], |expr, _| row_time::is_marked(expr)).is_some();
            is_bounded && keeps_time(&join.left) && keeps_time(&join.right)
        }
        // Results of windows leave in order, whatever the order of the rows was.
        LogicalPlan::Aggregate(_) => true,
        _ => plan.inputs().into_iter().all(keeps_time),
    }
}

/// Whether the rows of a join's sides are those of equal windows.
fn is_of_windows(join: &Join, further: &[&Expr]) -> bool {
    matches!(join.join_type, JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full)
        && join_time(join, further, |_, _| false).is_some()
}

/// The same where the windows of both sides' rows must be equal.
fn windows_of(conditions: &[&Expr], sides: [&LogicalPlan; 2]) -> Option<JoinTime> {
    let schemas = sides.map(|side| side.schema().as_ref());
    let comparisons = conditions.iter().flat_map(|condition| comparisons(condition));
    comparisons.filter(|compared| compared.op == Operator::Eq).find_map(|Compared { left, right, .. }| {
        let (left, right) = match (side_of(left, schemas), side_of(right, schemas)) {
            (Some(0), Some(1)) => (left, right),
            (Some(1), Some(0)) => (right, left),
            _ => return None,
        };
        let ((window, bound, depth), other) = (window_of(left, sides[0])?, window_of(right, sides[1])?);
        // Results of windows further inside are late by the time of the outer ones.
        let is_equal = window.windows() == other.0.windows() && bound == other.1 && depth.max(other.2) <= 1;
        let millis = match bound {
            Bound::End => -1,
            Bound::Time => 0,
            Bound::Start => window.windows().size_millis()? - 1,
        };
        let times = [left.clone(), right.clone()];
        is_equal.then_some(JoinTime { times, millis: [millis; 2], of_windows: true })
    })
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
    if let LogicalPlan::TableScan(scan) = plan
        && let Some(ScanSource(table)) = scan.source.downcast_ref::<ScanSource>()
    {
        return !source_of(scan, table).is_ok_and(|source| source.is_changelog() || source.is_upsert());
    }
    // What a table had at a time does not change.
    let inputs = if AsOf::of(plan).is_some() { 1 } else { usize::MAX };
    plan.inputs().into_iter().take(inputs).all(only_appends)
}

/// The column of a table that an expression is, passed on as it is.
pub(crate) fn table_column(expr: &Expr, plan: &LogicalPlan) -> Option<String> {
    let Expr::Column(column) = without_aliases(expr) else { return None };
    match origin(column, plan) {
        ColumnOrigin::Table(_) => Some(column.name.clone()),
        ColumnOrigin::Below(inputs) => match inputs.as_slice() {
            [(input, expr)] => table_column(expr, input),
            _ => None,
        },
        ColumnOrigin::Unknown => None,
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

impl GroupWindow {
    /// The windows, whether rows or results have them.
    fn windows(self) -> Assigned {
        match self {
            GroupWindow::Tumbling(window) => Assigned::Overlapping(window.into()),
            GroupWindow::Assigned(windows) | GroupWindow::Emitted(windows) => windows,
        }
    }
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
        // Behind a join, rows carry the bounds of their windows as results do.
        (GroupWindow::Assigned(windows), LogicalPlan::Aggregate(_)) => GroupWindow::Emitted(windows),
        (GroupWindow::Assigned(windows), plan) if joined(plan).is_some() => GroupWindow::Emitted(windows),
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
