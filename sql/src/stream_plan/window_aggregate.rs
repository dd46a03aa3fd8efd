//! `GROUP BY` with a window: partial aggregation before the shuffle where it pays, the late rows' stream, and the keys.

use std::collections::BTreeSet;

use arrow::datatypes::FieldRef;
use coulee_model::OperatorId;
use coulee_runtime::graph::{NodeKind, Partitioning, Port};
use coulee_runtime::table::TableSpec;
use coulee_runtime::window::assign::{Bound, Tumbling, millisecond_of};
use coulee_runtime::window::{
    SessionAggregateSpec, WindowAggregateSpec, WindowColumn, WindowKind, Windows, partial_key_columns,
    session_aggregate, window_final, window_partial, window_single,
};
use datafusion_common::{Column, DFSchema};
use datafusion_expr::{Aggregate, Expr, LogicalPlan};

use crate::error::{Fault, Result};
use crate::faults::fault;
use crate::functions::ranking::without_alias;
use crate::hint;
use crate::identity::Name;
use crate::lineage::{GroupWindow, bounds_of};
use crate::translate::{NodeRows, Translator, physical};
use crate::window_assign::{Assigned, WindowAssign};

use super::aggregates::{columns_of, keys, lowered};
use super::print::aggregates;
use super::slices::assign_below;
use super::{Building, ChangelogKind, Node, StateName, StreamPlan};

/// Aggregates the rows of each window by keys, once the watermark has passed the window.
#[derive(Debug)]
pub(super) struct WindowAggregate {
    window: GroupWindow,
    /// What a row's place among the windows is found by: the end of its slice (of tumbling windows, of its window), or the time that sessions are made of.
    entry: Expr,
    keys: Vec<(Expr, FieldRef)>,
    aggregates: Vec<Expr>,
    output: Vec<WindowColumn>,
    /// The name that a hint gives to the state.
    uid: Option<String>,
    /// The plan's columns without what carries that name.
    pub schema: DFSchema,
}

impl Node for WindowAggregate {
    fn describe(&self, _: &[StreamPlan]) -> String {
        let keys: Vec<&str> = self.keys.iter().map(|(_, field)| field.name().as_str()).collect();
        let window = match self.window {
            GroupWindow::Tumbling(window) => Windows::from(window).kind().to_string(),
            GroupWindow::Assigned(Assigned::Overlapping(windows)) => windows.kind().to_string(),
            GroupWindow::Assigned(Assigned::Sessions { gap_millis }) => format!("session {gap_millis} ms"),
            GroupWindow::Emitted(Assigned::Overlapping(windows)) => format!("each end of {}", windows.kind()),
            GroupWindow::Emitted(Assigned::Sessions { .. }) => "sessions".to_owned(),
        };
        format!(
            "WindowAggregate(window=[{window}], groupBy=[{}], aggregates={})",
            keys.join(", "),
            aggregates(&self.aggregates)
        )
    }

    /// A result is emitted once and stays.
    fn changes(&self, _: &[ChangelogKind]) -> ChangelogKind {
        ChangelogKind::InsertOnly
    }

    fn state_name(&self) -> Option<StateName<'_>> {
        Some(self.uid.as_deref().map_or(StateName::ByPlace("window"), StateName::Given))
    }

    fn build(&self, mut building: Building<'_, '_, '_>) -> Result<NodeRows> {
        let mut rows = building.input()?;
        let Building { plan, name: Some(name), to, .. } = building else {
            return Err(Fault::new("the state of a window aggregation has no name"));
        };
        if to.context.late_rows.is_none() {
            // Of the window's bounds, only one is looked at here.
            let exprs = self.keys.iter().map(|(expr, _)| expr).chain([&self.entry]).chain(&self.aggregates);
            rows.keep(exprs.flat_map(Expr::column_refs)).map_err(|error| fault(&error))?;
        }
        let rows = to.flush(rows)?;
        let is_changelog = plan.inputs.iter().any(|input| input.changes != ChangelogKind::InsertOnly);
        let windows = match self.window {
            GroupWindow::Tumbling(window) => window.into(),
            GroupWindow::Assigned(Assigned::Overlapping(windows)) => windows,
            GroupWindow::Emitted(windows) => ends(windows)?.into(),
            GroupWindow::Assigned(Assigned::Sessions { gap_millis }) => {
                let spec = self.sessions(gap_millis, &rows.schema)?;
                let spec = spec.in_canonical_order(&to.graph.lineage(rows.node));
                let (node, parallelism) = session_stage(to, &rows, name, spec)?;
                return Ok(NodeRows::new(node, parallelism, self.schema.clone()));
            }
        };
        let mut spec = self.spec(windows, &rows.schema)?;
        if is_changelog {
            spec.changelog = Some(rows.schema.inner().clone());
        }
        let spec = spec.in_canonical_order(&to.graph.lineage(rows.node));
        let (node, parallelism) = stages(to, &rows, name, spec)?;
        Ok(NodeRows::new(node, parallelism, self.schema.clone()))
    }
}

/// Whether a bound is a key like any other: where results carry the windows of an aggregation below, the end tells when all of one window are there.
fn is_key(window: GroupWindow, part: Bound) -> bool {
    match window {
        GroupWindow::Emitted(Assigned::Overlapping(_)) => part == Bound::Start,
        GroupWindow::Emitted(Assigned::Sessions { .. }) => true,
        GroupWindow::Tumbling(_) | GroupWindow::Assigned(_) => false,
    }
}

/// The windows of results that carry their bounds.
fn ends(windows: Assigned) -> Result<Tumbling> {
    match windows {
        Assigned::Overlapping(windows) => Ok(windows.by_end()),
        Assigned::Sessions { .. } => Err(Fault::new("sessions end at any time")),
    }
}

/// Whether several windows have one start.
fn is_cumulating(window: GroupWindow) -> bool {
    let GroupWindow::Assigned(Assigned::Overlapping(windows)) = window else { return false };
    matches!(windows.kind(), WindowKind::Cumulating { .. })
}

/// Adds the operators of one aggregation over these rows: the last one, and how many subtasks that has.
fn stages(
    to: &mut Translator<'_>,
    rows: &NodeRows,
    name: Name,
    spec: WindowAggregateSpec,
) -> Result<(OperatorId, u32)> {
    // Without keys there is one group per window, which one subtask holds.
    let parallelism = if spec.keys.is_empty() { 1 } else { to.context.parallelism };
    let late = to.names.aside("late", &name);
    if rows.parallelism == 1 && parallelism == 1 {
        let node = to.add(name, 1, NodeKind::Operator(window_single(spec)))?;
        to.graph.connect(rows.node, Port::MAIN, node, Partitioning::Forward)?;
        late_rows(to, rows, late, node)?;
        return Ok((node, 1));
    }
    if to.context.late_rows.is_some() {
        // Late rows leave as they came, so they must reach the stage that knows the watermark unaggregated.
        let keys = spec.keys.iter().map(|(expr, _)| expr.clone()).collect();
        let node = to.add(name, parallelism, NodeKind::Operator(window_single(spec)))?;
        to.graph.connect(rows.node, Port::MAIN, node, Partitioning::Hash(keys))?;
        late_rows(to, rows, late, node)?;
        return Ok((node, parallelism));
    }
    let partial = to.operator(&format!("{}:partial", name.uid), rows.parallelism, window_partial(spec.clone()))?;
    to.graph.connect(rows.node, Port::MAIN, partial, Partitioning::Forward)?;
    let keys = partial_key_columns(&spec);
    let node = to.add(name, parallelism, NodeKind::Operator(window_final(spec)))?;
    to.graph.connect(partial, Port::MAIN, node, Partitioning::Hash(keys))?;
    Ok((node, parallelism))
}

/// The same for sessions, whose rows must meet by key before they are aggregated.
fn session_stage(
    to: &mut Translator<'_>,
    rows: &NodeRows,
    name: Name,
    spec: SessionAggregateSpec,
) -> Result<(OperatorId, u32)> {
    let parallelism = if spec.keys.is_empty() { 1 } else { to.context.parallelism };
    let late = to.names.aside("late", &name);
    let partitioning = match rows.parallelism == 1 && parallelism == 1 {
        true => Partitioning::Forward,
        false => Partitioning::Hash(spec.keys.iter().map(|(expr, _)| expr.clone()).collect()),
    };
    let node = to.add(name, parallelism, NodeKind::Operator(session_aggregate(spec)))?;
    to.graph.connect(rows.node, Port::MAIN, node, partitioning)?;
    late_rows(to, rows, late, node)?;
    Ok((node, parallelism))
}

/// Leads late rows to the built-in stream that `late-rows.stream` names.
fn late_rows(to: &mut Translator<'_>, rows: &NodeRows, sink: Name, window: OperatorId) -> Result<()> {
    let Some(name) = to.context.late_rows.clone() else { return Ok(()) };
    if to.graph.is_changelog(window, Port::LATE) {
        let message = format!(
            "'late-rows.stream' is '{name}', and a stream cannot take the late updates and deletes of a changelog"
        );
        return Err(Fault::new(message).help("RESET 'late-rows.stream': late rows are still counted"));
    }
    let connector = to.context.connectors.get("stream")?.clone();
    let spec = TableSpec {
        name: name.clone(),
        schema: rows.schema.inner().clone(),
        metadata_columns: Default::default(),
        primary_key: Vec::new(),
        partitioned_by: Vec::new(),
        options: [("format".to_owned(), "json".to_owned())].into(),
        created_by: to.context.job.clone(),
    };
    if to.context.creates {
        connector.create(&spec)?;
    }
    let sink = to.add(sink, 1, NodeKind::Sink(connector.sink(&spec)?))?;
    Ok(to.graph.connect(window, Port::LATE, sink, Partitioning::Rebalance)?)
}

impl WindowAggregate {
    /// The node of an aggregation whose keys have a window; `None` for one without.
    ///
    /// # Errors
    /// An aggregation with the bounds of several windows.
    pub fn of(aggregate: &Aggregate) -> Result<Option<Self>> {
        let mut found: Option<(GroupWindow, Bound, &Expr)> = None;
        let (mut keys, mut output, mut uid) = (Vec::new(), Vec::new(), None);
        let (bounds, mut fields) = (bounds_of(aggregate), Vec::new());
        for (index, expr) in aggregate.group_expr.iter().enumerate() {
            if let Some(named) = hint::state_uid(expr) {
                uid = Some(named.to_owned());
                continue;
            }
            fields.push(index);
            let bound = bounds.iter().find(|(at, _, _)| *at == index).copied();
            let Some((_, window, part)) = bound.filter(|(_, window, part)| !is_key(*window, *part)) else {
                output.push(WindowColumn::Key(keys.len()));
                keys.push((expr.clone(), aggregate.schema.field(index).clone()));
                continue;
            };
            match found {
                Some((other, _, _)) if other != window => {
                    let message = "the GROUP BY has bounds of two different windows";
                    return Err(Fault::new(message).or_clause(&["GROUP"]));
                }
                // The end is what the operator wants; the others serve to compute it.
                Some((_, Bound::End, _)) => {}
                _ => found = Some((window, part, expr)),
            }
            output.push(match part {
                Bound::Start => WindowColumn::Start,
                Bound::End => WindowColumn::End,
                Bound::Time => WindowColumn::Time,
            });
        }
        let Some((window, part, expr)) = found else { return Ok(None) };
        let has_end = output.iter().any(|column| matches!(column, WindowColumn::End | WindowColumn::Time));
        if is_cumulating(window) && !has_end {
            let fault =
                Fault::new("window_start alone does not tell the windows of CUMULATE apart, which begin together");
            return Err(fault.or_clause(&["GROUP"]).help("group by window_end as well"));
        }
        let bare = crate::lineage::bare(expr).clone();
        let entry = match window {
            GroupWindow::Tumbling(_) if part == Bound::End => bare,
            GroupWindow::Tumbling(window) => window.bound(Bound::End, bare),
            GroupWindow::Emitted(_) if part == Bound::End => bare,
            GroupWindow::Emitted(windows) => ends(windows)?.bound(Bound::End, bare),
            // All three bounds have become the entry. That of local time is an instant with a zone.
            GroupWindow::Assigned(_) if part == Bound::Time => millisecond_of(bare),
            GroupWindow::Assigned(_) => bare,
        };
        output.extend((0..aggregate.aggr_expr.len()).map(WindowColumn::Aggregate));
        fields.extend(aggregate.group_expr.len()..aggregate.schema.fields().len());
        let schema = columns_of(&aggregate.schema, &fields).map_err(|error| fault(&error))?;
        let aggregates = aggregate.aggr_expr.clone();
        Ok(Some(WindowAggregate { window, entry, keys, aggregates, output, uid, schema }))
    }

    /// Whether a [`WindowAssign`](crate::window_assign::WindowAssign) below gives rows their windows.
    pub fn is_assigned(&self) -> bool {
        matches!(self.window, GroupWindow::Assigned(_))
    }

    /// Checks that the keys are the columns by which sessions are apart, where a table function says which these are.
    ///
    /// # Errors
    /// When they are others.
    pub fn check_partition(&self, input: &LogicalPlan) -> Result<()> {
        let Some(assign) = assign_below(input) else { return Ok(()) };
        let Some(partition) = &assign.partition else { return Ok(()) };
        let index = |column: &Column| assign.input.schema().maybe_index_of_column(column);
        let keys: Option<BTreeSet<usize>> = self.keys.iter().map(|(key, _)| assigned_column(key, input)).collect();
        let by = partition.iter().map(|column| if let Expr::Column(column) = column { index(column) } else { None });
        if keys.is_some() && keys == by.collect() {
            return Ok(());
        }
        let names: Vec<&str> =
            partition.iter().filter_map(|column| column.try_as_col()).map(|column| column.name.as_str()).collect();
        let (message, help) = match names.is_empty() {
            true => (
                "sessions of all rows together are grouped by their bounds alone".to_owned(),
                "write SESSION(TABLE t PARTITION BY key, DESCRIPTOR(ts), gap) for the sessions of each key".to_owned(),
            ),
            false => (
                format!(
                    "the sessions are those of {}, and the GROUP BY has other keys beside their bounds",
                    names.join(", ")
                ),
                format!("group by window_start, window_end, {} and aggregate the results again", names.join(", ")),
            ),
        };
        Err(Fault::new(message).or_clause(&["GROUP"]).help(help))
    }

    /// The column of the result that is this bound of the window.
    pub fn bound(&self, bound: Bound) -> Option<Expr> {
        let wanted = match bound {
            Bound::Start => WindowColumn::Start,
            Bound::End => WindowColumn::End,
            Bound::Time => WindowColumn::Time,
        };
        let at = self.output.iter().position(|column| *column == wanted)?;
        Some(Expr::Column(Column::from(self.schema.qualified_field(at))))
    }

    fn sessions(&self, gap_millis: i64, input: &DFSchema) -> Result<SessionAggregateSpec> {
        let aggregates = self.aggregates.iter().map(|expr| lowered(expr, input));
        Ok(SessionAggregateSpec {
            time: physical(&self.entry, input)?,
            gap_millis,
            keys: keys(&self.keys, input)?,
            aggregates: aggregates.collect::<Result<_>>()?,
            output: self.output.clone(),
            schema: self.schema.inner().clone(),
        })
    }

    fn spec(&self, windows: Windows, input: &DFSchema) -> Result<WindowAggregateSpec> {
        let aggregates = self.aggregates.iter().map(|expr| lowered(expr, input));
        Ok(WindowAggregateSpec {
            slice_end: physical(&self.entry, input)?,
            windows,
            keys: keys(&self.keys, input)?,
            aggregates: aggregates.collect::<Result<_>>()?,
            changelog: None,
            output: self.output.clone(),
            schema: self.schema.inner().clone(),
        })
    }
}

/// Which column of what gives rows their windows an expression is.
fn assigned_column(expr: &Expr, plan: &LogicalPlan) -> Option<usize> {
    let Expr::Column(column) = without_alias(expr) else { return None };
    let index = plan.schema().maybe_index_of_column(column)?;
    match plan {
        LogicalPlan::Projection(node) => assigned_column(&node.expr[index], &node.input),
        LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {
            let input = plan.inputs().first().copied()?;
            assigned_column(&Expr::Column(Column::from(input.schema().qualified_field(index))), input)
        }
        _ => WindowAssign::of(plan).map(|_| index),
    }
}
