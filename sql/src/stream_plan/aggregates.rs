//! What the nodes of aggregations have in common: their aggregates as the runtime computes them, and the name that a hint gives to their state.

use std::sync::Arc;

use arrow::datatypes::FieldRef;
use coulee_runtime::group_table::Aggregate as RuntimeAggregate;
use datafusion_common::DFSchema;
use datafusion_expr::Expr;
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::aggregate::LoweredAggregateBuilder;

use crate::error::{Fault, Result};
use crate::faults::fault;
use crate::translate::physical;

use super::print;

/// The keys over an input's columns.
pub(super) fn keys(keys: &[(Expr, FieldRef)], input: &DFSchema) -> Result<Vec<(Arc<dyn PhysicalExpr>, FieldRef)>> {
    keys.iter().map(|(expr, field)| Ok((physical(expr, input)?, field.clone()))).collect()
}

/// Some of a plan's columns.
pub(super) fn columns_of(schema: &DFSchema, kept: &[usize]) -> datafusion_common::Result<DFSchema> {
    let field = |index: &usize| {
        let (qualifier, field) = schema.qualified_field(*index);
        (qualifier.cloned(), field.clone())
    };
    DFSchema::new_with_metadata(kept.iter().map(field).collect(), schema.metadata().clone())
}

/// An aggregate over an input's columns.
pub(super) fn lowered(expr: &Expr, input: &DFSchema) -> Result<RuntimeAggregate> {
    if let Some(fault) = crate::refuse::subquery(expr) {
        return Err(fault);
    }
    let (props, context) = (ExecutionProps::new(), PhysicalPlanningContext::default());
    let lowered = LoweredAggregateBuilder::new(expr, input, input.as_arrow(), &props, &context)
        .with_name(print::aggregate(expr))
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
