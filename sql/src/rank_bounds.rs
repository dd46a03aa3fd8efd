//! Conditions that bound the number of a rank: what makes `ROW_NUMBER() OVER (…) AS n … WHERE n <= 3` keep three rows per partition.

use datafusion_common::{Column, ScalarValue};
use datafusion_expr::expr::{Between, BinaryExpr};
use datafusion_expr::utils::split_conjunction;
use datafusion_expr::{Expr, Filter, LogicalPlan, Operator};

use crate::functions::ranking::{ranking_of, without_alias};

/// Which numbers a filter lets through, inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub from: u64,
    pub to: u64,
}

/// The numbers that a filter lets through, if it bounds those of a rank below; and the conditions that are left.
pub(crate) fn bounded(filter: &Filter) -> Option<(Numbers, Vec<Expr>)> {
    let (mut numbers, mut rest) = (Numbers { from: 1, to: u64::MAX }, Vec::new());
    for condition in split_conjunction(&filter.predicate) {
        match bounds(condition, &filter.input) {
            Some(own) => {
                numbers.from = numbers.from.max(own.from);
                numbers.to = numbers.to.min(own.to);
            }
            None => rest.push(condition.clone()),
        }
    }
    (numbers.to < u64::MAX).then_some((numbers, rest))
}

/// Whether a filter lets the first row of each partition through, and says nothing else.
pub(crate) fn first_row(filter: &Filter) -> bool {
    matches!(bounded(filter), Some((Numbers { from: 1, to: 1 }, rest)) if rest.is_empty())
}

/// What a condition says of a rank's number: `rn <= 3`, `rn = 1`, `rn BETWEEN 2 AND 4`.
fn bounds(condition: &Expr, input: &LogicalPlan) -> Option<Numbers> {
    let is_number = |expr: &Expr| matches!(expr, Expr::Column(column) if is_rank(column, input));
    if let Expr::Between(Between { expr, negated: false, low, high }) = condition
        && is_number(expr)
    {
        return Some(Numbers { from: literal(low)?.max(1) as u64, to: literal(high)?.max(0) as u64 });
    }
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { return None };
    let (op, value) = match (is_number(left), is_number(right)) {
        (true, false) => (*op, literal(right)?),
        (false, true) => (op.swap()?, literal(left)?),
        _ => return None,
    };
    let (from, to) = match op {
        Operator::Lt => (1, value - 1),
        Operator::LtEq => (1, value),
        Operator::Eq => (value, value),
        Operator::Gt => (value + 1, i64::MAX),
        Operator::GtEq => (value, i64::MAX),
        _ => return None,
    };
    Some(Numbers { from: from.max(1) as u64, to: if to == i64::MAX { u64::MAX } else { to.max(0) as u64 } })
}

fn literal(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(ScalarValue::Int64(value), _) => *value,
        Expr::Literal(ScalarValue::Int32(value), _) => value.map(i64::from),
        Expr::Cast(cast) => literal(&cast.expr),
        _ => None,
    }
}

/// Whether a column is the number of a rank, passed on as it is.
pub(crate) fn is_rank(column: &Column, plan: &LogicalPlan) -> bool {
    let Some(index) = plan.schema().maybe_index_of_column(column) else { return false };
    match plan {
        LogicalPlan::Projection(projection) => match without_alias(&projection.expr[index]) {
            Expr::Column(column) => is_rank(column, &projection.input),
            _ => false,
        },
        LogicalPlan::SubqueryAlias(alias) => {
            is_rank(&Column::from(alias.input.schema().qualified_field(index)), &alias.input)
        }
        LogicalPlan::Filter(filter) => is_rank(column, &filter.input),
        LogicalPlan::Window(window) => {
            let is_call = index == window.input.schema().fields().len();
            let call =
                window.window_expr.first().filter(|_| is_call && window.window_expr.len() == 1).map(without_alias);
            matches!(call, Some(Expr::WindowFunction(call)) if ranking_of(&call.fun).is_some())
        }
        _ => false,
    }
}
