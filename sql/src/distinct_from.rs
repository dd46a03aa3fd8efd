//! `a IS NOT DISTINCT FROM b AND c`: sqlparser takes all that follows for the right side, `a IS NOT DISTINCT FROM (b AND c)`.
//!
//! A right side that was written in brackets is told by them, so that what was not can be taken apart again.

use std::ops::ControlFlow;

use sqlparser::ast::{BinaryOperator, Expr, Query, VisitMut, VisitorMut};

/// Takes `AND` and `OR` out of the right sides of a query's `IS [NOT] DISTINCT FROM`.
pub(crate) fn take_apart(query: &mut Query) {
    let _ = query.visit(&mut DistinctFrom);
}

struct DistinctFrom;

impl VisitorMut for DistinctFrom {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right) = expr
            && let Some((first, op, rest)) = first_term(right)
        {
            **right = first;
            let left = Box::new(expr.clone());
            *expr = Expr::BinaryOp { left, op, right: Box::new(rest) };
        }
        ControlFlow::Continue(())
    }
}

/// The first of the terms that `AND` and `OR` join, the word behind it, and the others, joined as they were.
fn first_term(expr: &Expr) -> Option<(Expr, BinaryOperator, Expr)> {
    let Expr::BinaryOp { left, op: op @ (BinaryOperator::And | BinaryOperator::Or), right } = expr else { return None };
    Some(match first_term(left) {
        Some((first, inner, rest)) => {
            (first, inner, Expr::BinaryOp { left: Box::new(rest), op: op.clone(), right: right.clone() })
        }
        None => (left.as_ref().clone(), op.clone(), right.as_ref().clone()),
    })
}
