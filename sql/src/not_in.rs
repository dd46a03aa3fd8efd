//! `x NOT IN (SELECT y …)` where x or y may be null, as conditions that joins can decide.
//!
//! It is true if no y equals x and none is null, and if x is not null or there is no y: SQL does not say of an unknown value that it is not among others.

use std::sync::Arc;

use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion_common::{DFSchema, Result};
use datafusion_expr::expr::InSubquery;
use datafusion_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, not_exists};

/// Takes the negated memberships in the filters of a plan apart.
pub(crate) fn take_apart(plan: LogicalPlan) -> Result<LogicalPlan> {
    let node = |node: LogicalPlan| {
        let LogicalPlan::Filter(filter) = &node else { return Ok(Transformed::no(node)) };
        let schema = filter.input.schema().clone();
        node.map_expressions(|predicate| {
            predicate.transform_down(|expr| match negated(&expr) {
                Some(membership) if may_be_null(membership, &schema)? => {
                    Ok(Transformed::yes(conditions(membership, &schema)?))
                }
                _ => Ok(Transformed::no(expr)),
            })
        })
    };
    plan.transform_down_with_subqueries(node).data()
}

/// The membership that an expression is the negation of.
fn negated(expr: &Expr) -> Option<&InSubquery> {
    match expr {
        Expr::InSubquery(membership) if membership.negated => Some(membership),
        Expr::Not(inner) => match inner.as_ref() {
            Expr::InSubquery(membership) if !membership.negated => Some(membership),
            _ => None,
        },
        _ => None,
    }
}

fn may_be_null(membership: &InSubquery, schema: &DFSchema) -> Result<bool> {
    Ok(membership.subquery.subquery.schema().field(0).is_nullable() || membership.expr.nullable(schema)?)
}

fn conditions(membership: &InSubquery, schema: &DFSchema) -> Result<Expr> {
    let InSubquery { expr: value, subquery, .. } = membership;
    let rows = subquery.subquery.as_ref();
    let column = Expr::from(rows.schema().qualified_field(0));
    let none_with = |condition: Expr| -> Result<Expr> {
        let plan = LogicalPlanBuilder::new(rows.clone()).filter(condition)?.build()?;
        Ok(not_exists(Arc::new(plan)))
    };
    let mut all = none_with(column.clone().eq(outer(value, schema)?))?;
    if rows.schema().field(0).is_nullable() {
        all = all.and(none_with(column.is_null())?);
    }
    if value.nullable(schema)? {
        all = all.and(value.as_ref().clone().is_not_null().or(not_exists(subquery.subquery.clone())));
    }
    Ok(all)
}

/// An expression as a subquery reads it of the rows around.
pub(crate) fn outer(expr: &Expr, schema: &DFSchema) -> Result<Expr> {
    let refer = |expr: Expr| match expr {
        Expr::Column(column) => {
            let field = schema.qualified_field(schema.index_of_column(&column)?).1.clone();
            Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column)))
        }
        other => Ok(Transformed::no(other)),
    };
    expr.clone().transform(refer).data()
}
