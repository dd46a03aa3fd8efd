//! The first rows of each key: `LATERAL (SELECT … WHERE t.k = o.k ORDER BY … LIMIT n)`, and the same with `LIMIT 1` in the place of a value.
//!
//! The rows of the subquery are numbered by key, as in Flink's `CorrelateSortToRankRule`; what is left of the correlation is a join.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion_common::{Column, Result, ScalarValue};
use datafusion_expr::expr::{BinaryExpr, WindowFunction};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::utils::{conjunction, split_conjunction};
use datafusion_expr::{
    Expr, ExprFunctionExt, Filter, Limit, LogicalPlan, LogicalPlanBuilder, Operator, Projection, Sort, Subquery,
    WindowFunctionDefinition, lit,
};
use datafusion_functions_aggregate::expr_fn::max;

use crate::functions::ranking::ranking;

/// No name in SQL begins like that.
const KEY: &str = "__lateral_key";
const NUMBER: &str = "__lateral_number";

/// Numbers the rows of a plan's correlated subqueries that have a limit. The plan need not be typed.
pub(crate) fn into_ranks(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rewrite = |node: LogicalPlan| {
        if let LogicalPlan::Limit(limit) = &node {
            return Ok(match ranked(limit)? {
                Some(plan) => Transformed::yes(plan),
                None => Transformed::no(node),
            });
        }
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let expr = expr.transform_down(|expr| match &expr {
                Expr::ScalarSubquery(subquery) => Ok(match first_value(subquery)? {
                    Some(value) => Transformed::yes(value),
                    None => Transformed::no(expr),
                }),
                _ => Ok(Transformed::no(expr)),
            })?;
            Ok(expr.update_data(|expr| name.restore(expr)))
        })
    };
    plan.transform_down_with_subqueries(rewrite).data()
}

/// A subquery in the place of a value, of which DataFusion asks that it aggregates: here one row at most.
fn first_value(subquery: &Subquery) -> Result<Option<Expr>> {
    let LogicalPlan::Limit(limit) = subquery.subquery.as_ref() else { return Ok(None) };
    let column = Expr::from(limit.input.schema().qualified_field(0));
    let is_one = limit.fetch.as_deref().and_then(row_count) == Some(1);
    if !is_one || limit.input.schema().field(0).data_type().is_nested() {
        return Ok(None);
    }
    let Some(rows) = ranked(limit)? else { return Ok(None) };
    let plan = LogicalPlanBuilder::new(rows).aggregate(Vec::<Expr>::new(), [max(column)])?.build()?;
    Ok(Some(Expr::ScalarSubquery(subquery.with_plan(Arc::new(plan)))))
}

/// The rows that a limit lets through, without one; `None` unless it is one of sorted rows that are compared with the rows around by equality alone.
fn ranked(limit: &Limit) -> Result<Option<LogicalPlan>> {
    let skip = limit.skip.as_deref().map_or(Some(0), row_count);
    let (Some(skip), Some(fetch)) = (skip, limit.fetch.as_deref().and_then(row_count)) else { return Ok(None) };
    let Some((above, filter)) = correlated_filter(&limit.input) else { return Ok(None) };
    let (mut keys, mut own) = (Vec::new(), Vec::new());
    for condition in split_conjunction(&filter.predicate) {
        match equality(condition) {
            Some(equality) => keys.push(equality),
            None if condition.contains_outer() => return Ok(None),
            None => own.push(condition.clone()),
        }
    }
    let mut plan = filter.input.as_ref().clone();
    if let Some(own) = conjunction(own) {
        plan = LogicalPlan::Filter(Filter::try_new(own, Arc::new(plan))?);
    }
    let names: Vec<String> = (0..keys.len()).map(|index| format!("{KEY}_{index}")).collect();
    let copies = keys.iter().zip(&names).map(|((_, key), name)| (*key).clone().alias(name));
    let columns = plan.schema().columns().into_iter().map(Expr::Column);
    plan = projected(columns.chain(copies).collect(), plan)?;
    let key_columns: Vec<Expr> = names.iter().map(|name| own_column(name)).collect();
    let mut added = key_columns.clone();
    for node in above.into_iter().rev() {
        plan = match node {
            Above::Projection(projection) => {
                projected(projection.expr.iter().cloned().chain(added.clone()).collect(), plan)?
            }
            Above::Sort(sort) => {
                added.push(own_column(NUMBER));
                numbered(plan, key_columns.clone(), sort)?
            }
        };
    }
    let number = || own_column(NUMBER);
    let equalities = keys.iter().zip(key_columns).map(|((outer, _), key)| (*outer).clone().eq(key));
    let mut rows = LogicalPlanBuilder::new(plan).filter(number().lt_eq(lit(skip.saturating_add(fetch))))?;
    if skip > 0 {
        rows = rows.filter(number().gt(lit(skip)))?;
    }
    let rows = rows.filter(conjunction(equalities).unwrap_or_else(|| lit(true)))?.build()?;
    let columns = limit.input.schema().columns().into_iter().map(Expr::Column);
    Ok(Some(projected(columns.collect(), rows)?))
}

/// The number that `LIMIT` or `OFFSET` gives, before the optimiser has it in its own type.
fn row_count(expr: &Expr) -> Option<i64> {
    let literal = match expr {
        Expr::Literal(value, _) => value,
        Expr::Cast(cast) => cast.expr.as_literal()?,
        _ => return None,
    };
    match literal.cast_to(&DataType::Int64) {
        Ok(ScalarValue::Int64(rows)) => rows,
        _ => None,
    }
}

/// What may stand between a limit and the conditions of its subquery.
enum Above<'a> {
    Projection(&'a Projection),
    Sort(&'a Sort),
}

/// The filter with conditions on the rows around, and what is above it, from the top: one sort, and projections.
fn correlated_filter(plan: &LogicalPlan) -> Option<(Vec<Above<'_>>, &Filter)> {
    let (mut above, mut sorts) = (Vec::new(), 0);
    let mut node = plan;
    loop {
        match node {
            LogicalPlan::Projection(projection) => {
                above.push(Above::Projection(projection));
                node = &projection.input;
            }
            LogicalPlan::Sort(sort) => {
                sorts += 1;
                above.push(Above::Sort(sort));
                node = &sort.input;
            }
            LogicalPlan::Filter(filter) if filter.predicate.contains_outer() => {
                return (sorts == 1).then_some((above, filter));
            }
            _ => return None,
        }
    }
}

/// The sides of an equality of something of the rows around and something of the subquery's own.
fn equality(condition: &Expr) -> Option<(&Expr, &Expr)> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else { return None };
    let is_outer = |expr: &Expr| expr.contains_outer() && !expr.any_column_refs();
    let is_own = |expr: &Expr| expr.any_column_refs() && !expr.contains_outer();
    match (left.as_ref(), right.as_ref()) {
        (outer, own) | (own, outer) if is_outer(outer) && is_own(own) => Some((outer, own)),
        _ => None,
    }
}

fn numbered(plan: LogicalPlan, keys: Vec<Expr>, sort: &Sort) -> Result<LogicalPlan> {
    let function = WindowFunctionDefinition::WindowUDF(ranking("row_number").expect("a known function"));
    let number = Expr::from(WindowFunction::new(function, Vec::new()));
    let number = number.partition_by(keys).order_by(sort.expr.clone()).build()?;
    LogicalPlanBuilder::new(plan).window([number.alias(NUMBER)])?.build()
}

fn projected(columns: Vec<Expr>, input: LogicalPlan) -> Result<LogicalPlan> {
    Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(input))?))
}

fn own_column(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}
