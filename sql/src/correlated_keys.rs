//! Keys that a subquery compares with the rows around it, as columns: `WHERE o.k = LOWER(e.k)` becomes a comparison with a column that a projection computes.
//!
//! DataFusion makes a join of a subquery that aggregates only where such a condition is one of two columns; an expression, and also a cast that the types ask for, would
//! be refused.

use std::sync::Arc;

use datafusion_common::tree_node::{Transformed, TransformedResult};
use datafusion_common::{Column, Result};
use datafusion_expr::expr::BinaryExpr;
use datafusion_expr::utils::{conjunction, split_conjunction};
use datafusion_expr::{Expr, Filter, LogicalPlan, LogicalPlanBuilder, Operator, binary_expr};

/// No name in SQL begins like that.
const PREFIX: &str = "__correlated_key";

/// Puts the keys of a plan's subqueries into columns.
pub(crate) fn into_columns(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut count = 0;
    let rewrite = |node: LogicalPlan| match node {
        LogicalPlan::Filter(filter) if filter.predicate.contains_outer() => {
            Ok(match with_columns(&filter, &mut count)? {
                Some(plan) => Transformed::yes(plan),
                None => Transformed::no(LogicalPlan::Filter(filter)),
            })
        }
        // A column that is further below is one of these, too.
        other => Ok(Transformed::no(other.recompute_schema()?)),
    };
    plan.transform_up_with_subqueries(rewrite).data()
}

/// A filter whose keys are columns; `None` if they are.
fn with_columns(filter: &Filter, count: &mut usize) -> Result<Option<LogicalPlan>> {
    let (mut keys, mut conditions) = (Vec::new(), Vec::new());
    for condition in split_conjunction(&filter.predicate) {
        let Some((outer, key)) = computed_key(condition) else {
            conditions.push(condition.clone());
            continue;
        };
        let name = format!("{PREFIX}_{count}");
        *count += 1;
        keys.push(key.clone().alias(&name));
        conditions.push(binary_expr(outer.clone(), Operator::Eq, Expr::Column(Column::new_unqualified(name))));
    }
    if keys.is_empty() {
        return Ok(None);
    }
    let columns = filter.input.schema().columns().into_iter().map(Expr::Column).chain(keys);
    let input = LogicalPlanBuilder::new(filter.input.as_ref().clone()).project(columns)?.build()?;
    let Some(predicate) = conjunction(conditions) else { return Ok(None) };
    Ok(Some(LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(input))?)))
}

/// The sides of an equality of something of the rows around and something that is computed of the subquery's own.
fn computed_key(condition: &Expr) -> Option<(&Expr, &Expr)> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else { return None };
    let is_outer = |expr: &Expr| expr.contains_outer() && !expr.any_column_refs();
    let is_computed =
        |expr: &Expr| !matches!(expr, Expr::Column(_)) && !expr.contains_outer() && expr.any_column_refs();
    match () {
        () if is_outer(left) && is_computed(right) => Some((left, right)),
        () if is_outer(right) && is_computed(left) => Some((right, left)),
        () => None,
    }
}
