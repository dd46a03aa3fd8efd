//! `GROUP BY` without a window: a result per key that is updated with every batch, for as long as rows come.

use arrow::datatypes::FieldRef;
use coulee_runtime::graph::{NodeKind, Partitioning, Port};
use coulee_runtime::group_aggregate::{GroupAggregateSpec, group_aggregate};
use datafusion_common::DFSchema;
use datafusion_expr::{Aggregate, Expr};

use super::aggregates::{columns_of, keys, lowered};
use super::print::aggregates;
use super::{Building, ChangelogKind, Node, StateName, StreamPlan};
use crate::error::{Fault, Result};
use crate::faults::fault;
use crate::hint;
use crate::translate::{NodeRows, Translator};

#[derive(Debug)]
pub(super) struct GroupAggregate {
    keys: Vec<(Expr, FieldRef)>,
    aggregates: Vec<Expr>,
    /// The name that a hint gives to the state.
    uid: Option<String>,
    /// Whether there is a last row: then the result is a table, which has a row also of nothing.
    inputs_end: bool,
    /// The plan's columns without what carries that name.
    pub schema: DFSchema,
}

impl GroupAggregate {
    pub fn of(aggregate: &Aggregate, inputs_end: bool) -> Result<Self> {
        let (mut group_keys, mut uid, mut fields) = (Vec::new(), None, Vec::new());
        for (index, expr) in aggregate.group_expr.iter().enumerate() {
            match hint::state_uid(expr) {
                Some(named) => uid = Some(named.to_owned()),
                None => {
                    fields.push(index);
                    group_keys.push((expr.clone(), aggregate.schema.field(index).clone()));
                }
            }
        }
        fields.extend(aggregate.group_expr.len()..aggregate.schema.fields().len());
        let schema = columns_of(&aggregate.schema, &fields).map_err(|error| fault(&error))?;
        Ok(GroupAggregate { keys: group_keys, aggregates: aggregate.aggr_expr.clone(), uid, inputs_end, schema })
    }
}

impl Node for GroupAggregate {
    fn describe(&self, _: &[StreamPlan]) -> String {
        let keys: Vec<&str> = self.keys.iter().map(|(_, field)| field.name().as_str()).collect();
        format!("GroupAggregate(groupBy=[{}], aggregates={})", keys.join(", "), aggregates(&self.aggregates))
    }

    fn changes(&self, inputs: &[ChangelogKind]) -> ChangelogKind {
        // Distinct keys of rows that are only appended are only appended.
        if self.aggregates.is_empty() { ChangelogKind::of_all(inputs) } else { ChangelogKind::Retract }
    }

    fn state_name(&self) -> Option<StateName<'_>> {
        Some(self.uid.as_deref().map_or(StateName::ByPlace("aggregate"), StateName::Given))
    }

    fn prepare(&self, _: &StreamPlan, _: usize, mut rows: NodeRows, to: &mut Translator<'_>) -> Result<NodeRows> {
        let exprs = self.keys.iter().map(|(expr, _)| expr).chain(&self.aggregates);
        rows.keep(exprs.flat_map(Expr::column_refs)).map_err(|error| fault(&error))?;
        to.flush(rows)
    }

    fn build(&self, mut building: Building<'_, '_, '_>) -> Result<NodeRows> {
        let rows = building.input()?;
        let Building { plan, name: Some(name), to, .. } = building else {
            return Err(Fault::new("the state of an aggregation has no name"));
        };
        let is_changelog = plan.inputs.iter().any(|input| input.changes != ChangelogKind::InsertOnly);
        let calls = self.aggregates.iter().map(|expr| lowered(expr, &rows.schema));
        let spec = GroupAggregateSpec {
            keys: keys(&self.keys, &rows.schema)?,
            aggregates: calls.collect::<Result<_>>()?,
            input: rows.schema.inner().clone(),
            changelog: is_changelog,
            update_before: true,
            row_of_nothing: self.inputs_end,
            schema: self.schema.inner().clone(),
            ttl_millis: to.context.state_ttl_millis,
        };
        // Without keys there is one group, which one subtask holds.
        let parallelism = if self.keys.is_empty() { 1 } else { to.context.parallelism };
        let partitioning = match rows.parallelism == 1 && parallelism == 1 {
            true => Partitioning::Forward,
            false => Partitioning::Hash(spec.keys.iter().map(|(expr, _)| expr.clone()).collect()),
        };
        let node = to.add(name, parallelism, NodeKind::Operator(group_aggregate(spec)))?;
        to.graph.connect(rows.node, Port::MAIN, node, partitioning)?;
        Ok(NodeRows::new(node, parallelism, self.schema.clone()))
    }
}
