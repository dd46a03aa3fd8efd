//! The mark of an event time in the condition of a join. See `join_time`.

use datafusion_common::Result;
use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion_expr::{Expr, Volatility};

use super::mark::{self, Name};

const MARK: Name = "row time";

/// An event time with the mark around it.
pub(crate) fn marked(time: Expr) -> Expr {
    mark::marked(time, MARK, Volatility::Immutable)
}

/// Whether an expression is something with the mark around it.
pub(crate) fn is_marked(expr: &Expr) -> bool {
    mark::content(expr, MARK).is_some()
}

/// What is marked; an expression that is not stays as it is.
pub(crate) fn unmarked(expr: &Expr) -> &Expr {
    mark::content(expr, MARK).unwrap_or(expr)
}

/// An expression without the marks in it.
pub(crate) fn without_marks(expr: Expr) -> Result<Expr> {
    let without = |expr: Expr| match mark::content(&expr, MARK) {
        Some(time) => Ok(Transformed::yes(time.clone())),
        None => Ok(Transformed::no(expr)),
    };
    expr.transform_up(without).data()
}
