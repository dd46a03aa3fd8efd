//! The mark of an event time that is the first of an order. See `over_time`.

use datafusion_expr::{Expr, SortExpr, Volatility, Window};

use super::mark::{self, Name};
use super::ranking::without_alias;

const MARK: Name = "event time";

/// An event time with the mark around it.
pub(crate) fn event_time(time: Expr) -> Expr {
    // Volatile, so that the optimizer leaves it where it is.
    mark::marked(time, MARK, Volatility::Volatile)
}

/// Whether a window's order begins with a marked event time.
pub(crate) fn is_marked(window: &Window) -> bool {
    let Some(Expr::WindowFunction(call)) = window.window_expr.first().map(without_alias) else { return false };
    call.params.order_by.first().is_some_and(|key| mark::content(&key.expr, MARK).is_some())
}

/// An order without the mark.
pub(crate) fn unmarked(order: &[SortExpr]) -> Vec<SortExpr> {
    let without =
        |key: &SortExpr| SortExpr { expr: mark::content(&key.expr, MARK).unwrap_or(&key.expr).clone(), ..key.clone() };
    order.iter().map(without).collect()
}
