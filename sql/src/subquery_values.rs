//! `EXISTS (…)` and `x IN (SELECT …)` in the place of a value, in a SELECT list: as numbers of rows, which subqueries of one value give.

use std::sync::Arc;

use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion_common::{DFSchema, Result, ScalarValue, Spans};
use datafusion_expr::expr::{Exists, InSubquery};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Subquery, lit, not, when};
use datafusion_functions_aggregate::expr_fn::count;

use crate::not_in::outer;

/// Rewrites such values in the projections of a plan.
pub(crate) fn into_counts(plan: LogicalPlan) -> Result<LogicalPlan> {
    let node = |node: LogicalPlan| {
        let LogicalPlan::Projection(projection) = &node else { return Ok(Transformed::no(node)) };
        let (schema, names) = (projection.input.schema().clone(), NamePreserver::new(&node));
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let value = expr.transform_down(|expr| value(expr, &schema))?;
            Ok(value.update_data(|expr| name.restore(expr)))
        })
    };
    plan.transform_down_with_subqueries(node).data()
}

fn value(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match &expr {
        Expr::Exists(Exists { subquery, negated }) => {
            let exists = exists(subquery.subquery.as_ref().clone(), None)?;
            Ok(Transformed::yes(if *negated { not(exists) } else { exists }))
        }
        Expr::InSubquery(membership) => membership_of(membership, schema).map(Transformed::yes),
        _ => Ok(Transformed::no(expr)),
    }
}

/// Whether a plan has a row that meets a condition.
fn exists(plan: LogicalPlan, condition: Option<Expr>) -> Result<Expr> {
    let plan = condition.into_iter().try_fold(LogicalPlanBuilder::new(plan), LogicalPlanBuilder::filter)?;
    let plan = Arc::new(plan.aggregate(Vec::<Expr>::new(), [count(lit(1_i64))])?.build()?);
    let outer_ref_columns = plan.all_out_ref_exprs();
    let rows = Expr::ScalarSubquery(Subquery { subquery: plan, outer_ref_columns, spans: Spans::new() });
    Ok(rows.gt(lit(0_i64)))
}

/// True if a value is equal; else unknown if the value or one of them is, where there are any; else false.
fn membership_of(membership: &InSubquery, schema: &DFSchema) -> Result<Expr> {
    let InSubquery { expr: value, subquery, negated } = membership;
    let rows = subquery.subquery.as_ref();
    let column = Expr::from(rows.schema().qualified_field(0));
    let mut cases = when(exists(rows.clone(), Some(column.clone().eq(outer(value, schema)?)))?, lit(!negated));
    let unknown = || lit(ScalarValue::Boolean(None));
    if rows.schema().field(0).is_nullable() {
        cases = cases.when(exists(rows.clone(), Some(column.is_null()))?, unknown());
    }
    let value_unknown = value.as_ref().clone().is_null().and(exists(rows.clone(), None)?);
    cases.when(value_unknown, unknown()).otherwise(lit(*negated))
}
