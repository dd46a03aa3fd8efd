//! Translates `GROUP BY` with a window: partial aggregation before the shuffle where it pays, the late rows' stream, and the keys.

use std::sync::Arc;

use arrow::datatypes::FieldRef;
use coulee_model::OperatorId;
use coulee_runtime::graph::{NodeKind, Partitioning, Port};
use coulee_runtime::group_table::Aggregate as RuntimeAggregate;
use coulee_runtime::table::TableSpec;
use coulee_runtime::window::assign::{Bound, Tumbling};
use coulee_runtime::window::{
    WindowAggregateSpec, WindowColumn, partial_key_columns, window_final, window_partial, window_single,
};
use datafusion_common::DFSchema;
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::{Aggregate, Expr};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::aggregate::LoweredAggregateBuilder;

use crate::error::{Fault, Result};
use crate::faults::fault;
use crate::hint;
use crate::identity::Name;
use crate::lineage::bounds_of;
use crate::translate::{NodeRows, Translator, physical};

/// What the group expressions of an aggregation say.
struct Groups<'a> {
    window: Tumbling,
    /// The end of the row's window.
    end: Expr,
    keys: Vec<(&'a Expr, FieldRef)>,
    output: Vec<WindowColumn>,
    /// The name that a hint gives to the state.
    uid: Option<String>,
    /// The plan's columns without what carries that name.
    schema: DFSchema,
}

impl Translator<'_> {
    pub(crate) fn aggregate(&mut self, aggregate: &Aggregate) -> Result<NodeRows> {
        let groups = groups(aggregate)?;
        // Before what is below, so that numbers count from the sink on.
        let name = match &groups.uid {
            Some(uid) => Name { uid: uid.clone(), family: None },
            None => self.names.next("window"),
        };
        let mut stream = self.plan(&aggregate.input)?;
        if self.context.late_rows.is_none() {
            // Of the window's bounds, only its end is looked at here.
            let exprs = groups.keys.iter().map(|(expr, _)| *expr).chain([&groups.end]).chain(&aggregate.aggr_expr);
            stream.keep(exprs.flat_map(Expr::column_refs)).map_err(|error| fault(&error))?;
        }
        let stream = self.flush(stream)?;
        let mut spec = spec(aggregate, &groups, &stream.schema)?;
        if self.graph.is_changelog(stream.node, Port::MAIN) {
            spec.changelog = Some(stream.schema.inner().clone());
        }
        let spec = spec.in_canonical_order(&self.graph.lineage(stream.node));
        let (node, parallelism) = self.window(&stream, name, spec)?;
        Ok(NodeRows::new(node, parallelism, groups.schema))
    }

    /// Adds the operators of one aggregation: its last one, and how many subtasks that has.
    fn window(&mut self, stream: &NodeRows, name: Name, spec: WindowAggregateSpec) -> Result<(OperatorId, u32)> {
        // Without keys there is one group per window, which one subtask holds.
        let parallelism = if spec.keys.is_empty() { 1 } else { self.context.parallelism };
        let late = self.names.aside("late", &name);
        if stream.parallelism == 1 && parallelism == 1 {
            let node = self.add(name, 1, NodeKind::Operator(window_single(spec)))?;
            self.graph.connect(stream.node, Port::MAIN, node, Partitioning::Forward)?;
            self.late_rows(stream, late, node)?;
            return Ok((node, 1));
        }
        if self.context.late_rows.is_some() {
            // Late rows leave as they came, so they must reach the stage that knows the watermark unaggregated.
            let keys = spec.keys.iter().map(|(expr, _)| expr.clone()).collect();
            let node = self.add(name, parallelism, NodeKind::Operator(window_single(spec)))?;
            self.graph.connect(stream.node, Port::MAIN, node, Partitioning::Hash(keys))?;
            self.late_rows(stream, late, node)?;
            return Ok((node, parallelism));
        }
        let partial =
            self.operator(&format!("{}:partial", name.uid), stream.parallelism, window_partial(spec.clone()))?;
        self.graph.connect(stream.node, Port::MAIN, partial, Partitioning::Forward)?;
        let keys = partial_key_columns(&spec);
        let node = self.add(name, parallelism, NodeKind::Operator(window_final(spec)))?;
        self.graph.connect(partial, Port::MAIN, node, Partitioning::Hash(keys))?;
        Ok((node, parallelism))
    }

    /// Leads late rows to the built-in stream that `late-rows.stream` names.
    fn late_rows(&mut self, stream: &NodeRows, sink: Name, window: OperatorId) -> Result<()> {
        let Some(name) = self.context.late_rows.clone() else { return Ok(()) };
        if self.graph.is_changelog(window, Port::LATE) {
            let message = format!(
                "'late-rows.stream' is '{name}', and a stream cannot take the late updates and deletes of a changelog"
            );
            return Err(Fault::new(message).help("RESET 'late-rows.stream': late rows are still counted"));
        }
        let connector = self.context.connectors.get("stream")?.clone();
        let spec = TableSpec {
            name: name.clone(),
            schema: stream.schema.inner().clone(),
            metadata_columns: Default::default(),
            partitioned_by: Vec::new(),
            options: [("format".to_owned(), "json".to_owned())].into(),
            created_by: self.context.job.clone(),
        };
        if self.context.creates {
            connector.create(&spec)?;
        }
        let sink = self.add(sink, 1, NodeKind::Sink(connector.sink(&spec)?))?;
        Ok(self.graph.connect(window, Port::LATE, sink, Partitioning::Rebalance)?)
    }
}

fn groups<'a>(aggregate: &'a Aggregate) -> Result<Groups<'a>> {
    let mut found: Option<(Tumbling, Bound, &Expr)> = None;
    let (mut keys, mut output, mut uid) = (Vec::new(), Vec::new(), None);
    let (bounds, mut fields) = (bounds_of(aggregate), Vec::new());
    for (index, expr) in aggregate.group_expr.iter().enumerate() {
        if matches!(expr, Expr::GroupingSet(_)) {
            return Err(Fault::new("GROUPING SETS, ROLLUP and CUBE come in a later version")
                .or_clause(&["GROUPING", "ROLLUP", "CUBE"])
                .help("write one INSERT per set of keys"));
        }
        if let Some(named) = hint::state_uid(expr) {
            uid = Some(named.to_owned());
            continue;
        }
        fields.push(index);
        let Some((_, window, part)) = bounds.iter().find(|(at, _, _)| *at == index).copied() else {
            output.push(WindowColumn::Key(keys.len()));
            keys.push((expr, aggregate.schema.field(index).clone()));
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
    let Some((window, part, expr)) = found else { return Err(unwindowed(aggregate)) };
    let bare = crate::lineage::bare(expr).clone();
    let end = if part == Bound::End { bare } else { window.bound(Bound::End, bare) };
    output.extend((0..aggregate.aggr_expr.len()).map(WindowColumn::Aggregate));
    fields.extend(aggregate.group_expr.len()..aggregate.schema.fields().len());
    let schema = columns_of(&aggregate.schema, &fields).map_err(|error| fault(&error))?;
    Ok(Groups { window, end, keys, output, uid, schema })
}

/// Some of a plan's columns.
fn columns_of(schema: &DFSchema, kept: &[usize]) -> datafusion_common::Result<DFSchema> {
    let field = |index: &usize| {
        let (qualifier, field) = schema.qualified_field(*index);
        (qualifier.cloned(), field.clone())
    };
    DFSchema::new_with_metadata(kept.iter().map(field).collect(), schema.metadata().clone())
}

fn unwindowed(aggregate: &Aggregate) -> Fault {
    if aggregate.aggr_expr.is_empty() {
        return Fault::new("GROUP BY without a window and without an aggregate keeps every key for ever on a stream, and for files and other inputs that end it comes in the next version")
            .or_clause(&["GROUP", "DISTINCT"])
            .help("group by window_start, window_end of TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR)) as well");
    }
    Fault::new("an aggregation without a window never ends on a stream, and for files and other inputs that end it comes in the next version")
        .or_clause(&["GROUP"])
        .or_clause(&["SELECT"])
        .help(
            "read FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR)) and GROUP BY window_start, window_end; or deliver the rows, and aggregate where they are read",
        )
}

fn spec(aggregate: &Aggregate, groups: &Groups<'_>, input: &DFSchema) -> Result<WindowAggregateSpec> {
    let mut keys: Vec<(Arc<dyn PhysicalExpr>, FieldRef)> = Vec::with_capacity(groups.keys.len());
    for (expr, field) in &groups.keys {
        keys.push((physical(expr, input)?, field.clone()));
    }
    let aggregates = aggregate.aggr_expr.iter().map(|expr| lowered(expr, input));
    Ok(WindowAggregateSpec {
        slice_end: physical(&groups.end, input)?,
        windows: groups.window.into(),
        keys,
        aggregates: aggregates.collect::<Result<_>>()?,
        changelog: None,
        output: groups.output.clone(),
        schema: groups.schema.inner().clone(),
    })
}

fn lowered(expr: &Expr, input: &DFSchema) -> Result<RuntimeAggregate> {
    let (props, context) = (ExecutionProps::new(), PhysicalPlanningContext::default());
    let lowered = LoweredAggregateBuilder::new(expr, input, input.as_arrow(), &props, &context)
        .with_name(
            expr.human_display().to_string().replace("count(1)", "count(*)").replace("count(Int64(1))", "count(*)"),
        )
        .build()
        .map_err(|error| fault(&error))?;
    if !lowered.order_bys.is_empty() {
        return Err(Fault::new("an aggregate with ORDER BY comes in a later version")
            .or_clause(&["ORDER", "WITHIN"])
            .help("leave the ORDER BY out"));
    }
    // What an aggregate says of its arguments only when it is made is an error of the statement, too.
    let made = match lowered.aggregate.groups_accumulator_supported() {
        true => lowered.aggregate.create_groups_accumulator().map(drop),
        false => lowered.aggregate.create_accumulator().map(drop),
    };
    made.map_err(|error| fault(&error))?;
    Ok(RuntimeAggregate { function: lowered.aggregate, filter: lowered.filter })
}
