//! `GROUPING SETS`, `ROLLUP` and `CUBE`: an aggregation by several sets of keys is the union of one by each.
//!
//! Flink copies each row once for each set instead. Here an aggregation keeps its own form: with a window among its keys, it is emitted when the window is over.

use std::sync::Arc;

use datafusion_common::tree_node::Transformed;
use datafusion_common::{Column, DFSchema, Result, ScalarValue, internal_err};
use datafusion_expr::utils::grouping_set_to_exprlist;
use datafusion_expr::{Aggregate, Cast, Expr, GroupingSet, LogicalPlan, LogicalPlanBuilder, lit};

use crate::error::Fault;

/// How many keys a CUBE may have.
const CUBE_KEYS_MAX: usize = 6;

/// The plan without aggregations by several sets of keys.
pub(crate) fn expand(plan: LogicalPlan) -> Result<LogicalPlan> {
    let expanded = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Aggregate(aggregate) if matches!(aggregate.group_expr.as_slice(), [Expr::GroupingSet(_)]) => {
            Ok(Transformed::yes(union(&aggregate)?))
        }
        other => Ok(Transformed::no(other)),
    });
    Ok(expanded?.data)
}

fn union(aggregate: &Aggregate) -> Result<LogicalPlan> {
    let keys: Vec<Expr> = grouping_set_to_exprlist(&aggregate.group_expr)?.into_iter().cloned().collect();
    let sets = sets_of(&aggregate.group_expr)?;
    let mut branches = sets.iter().map(|set| branch(aggregate, &keys, set));
    let Some(first) = branches.next() else { return internal_err!("an aggregation has no set of keys") };
    let mut all = LogicalPlanBuilder::from(first?);
    for branch in branches {
        all = all.union(branch?)?;
    }
    let named = aggregate.schema.iter().enumerate().map(|(index, (qualifier, field))| {
        Expr::from(Column::new_unqualified(column(&aggregate.schema, index)))
            .alias_qualified(qualifier.cloned(), field.name())
    });
    all.project(named.collect::<Vec<_>>())?.build()
}

/// The sets, written out.
fn sets_of(group: &[Expr]) -> Result<Vec<Vec<Expr>>> {
    match group {
        [Expr::GroupingSet(GroupingSet::GroupingSets(sets))] => Ok(sets.clone()),
        [Expr::GroupingSet(GroupingSet::Rollup(keys))] => {
            Ok((0..=keys.len()).rev().map(|count| keys[..count].to_vec()).collect())
        }
        [Expr::GroupingSet(GroupingSet::Cube(keys))] if keys.len() > CUBE_KEYS_MAX => {
            let message = format!("CUBE has {} keys, and at most {CUBE_KEYS_MAX} are allowed", keys.len());
            let fault = Fault::new(message).or_clause(&["CUBE"]);
            Err(fault
                .help("each set of keys is an aggregation: write those that are wanted as GROUPING SETS")
                .into_datafusion())
        }
        [Expr::GroupingSet(GroupingSet::Cube(keys))] => {
            let set = |number: usize| {
                let keys = keys.iter().enumerate().filter(|(index, _)| number >> index & 1 == 1);
                keys.map(|(_, key)| key.clone()).collect()
            };
            Ok((0..1_usize << keys.len()).map(set).collect())
        }
        other => Ok(vec![other.to_vec()]),
    }
}

/// The name of a column between the aggregations and what reads them: its own, if no other has it.
fn column(schema: &DFSchema, index: usize) -> String {
    let name = schema.field(index).name();
    let is_only = schema.fields().iter().filter(|field| field.name() == name).count() == 1;
    if is_only { name.clone() } else { format!("{name} {index}") }
}

/// The aggregation by one set: its columns are those of all, of which the keys that it has not are null.
fn branch(aggregate: &Aggregate, keys: &[Expr], set: &[Expr]) -> Result<LogicalPlan> {
    let mut own: Vec<Expr> = Vec::with_capacity(set.len());
    set.iter().for_each(|key| {
        if !own.contains(key) {
            own.push(key.clone());
        }
    });
    let grouped = Aggregate::try_new(Arc::clone(&aggregate.input), own.clone(), aggregate.aggr_expr.clone())?;
    let of_grouped = |index: usize| field(&grouped.schema, index);
    let (mut columns, mut id) = (Vec::with_capacity(aggregate.schema.fields().len()), 0_u64);
    for (index, key) in keys.iter().enumerate() {
        let found = own.iter().position(|other| other == key);
        // The key on the right has the lowest bit, which is set where the key is not there.
        id = id << 1 | u64::from(found.is_none());
        columns.push(match found {
            Some(at) => of_grouped(at),
            None => Expr::Literal(ScalarValue::try_from(aggregate.schema.field(index).data_type())?, None),
        });
    }
    let id_type = aggregate.schema.field(keys.len()).data_type().clone();
    columns.push(Expr::Cast(Cast::new(Box::new(lit(id)), id_type)));
    columns.extend((0..aggregate.aggr_expr.len()).map(|index| of_grouped(own.len() + index)));
    let named = columns.into_iter().enumerate().map(|(index, expr)| expr.alias(column(&aggregate.schema, index)));
    LogicalPlanBuilder::from(LogicalPlan::Aggregate(grouped)).project(named.collect::<Vec<_>>())?.build()
}

fn field(schema: &DFSchema, index: usize) -> Expr {
    Expr::Column(schema.qualified_field(index).into())
}
