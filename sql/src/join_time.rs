//! What bounds the rows of a join in event time: conditions on the times of both sides, as in `o.ts BETWEEN s.ts - INTERVAL '4' HOUR AND s.ts`.
//!
//! The conditions are read where an expression is still the table's event time, and again when the plan is optimised: what was found to be an event time stands in a
//! [mark](crate::functions::row_time) there.

use datafusion_common::{DFSchema, ScalarValue};
use datafusion_expr::expr::BinaryExpr;
use datafusion_expr::{Between, Expr, Operator};

use crate::flink_types::{is_timestamp, sign_of};
use crate::functions::row_time;

/// How long the rows of a join's sides, left and right, wait for each other.
#[derive(Debug, Clone)]
pub(crate) struct JoinTime {
    /// The time of a row, over the side's columns.
    pub times: [Expr; 2],
    /// How many milliseconds behind its time a row can find a partner.
    pub millis: [i64; 2],
    /// Whether the sides' rows are those of equal windows.
    pub of_windows: bool,
}

impl JoinTime {
    /// The same where the sides have changed places.
    #[must_use]
    pub fn swapped(self) -> Self {
        let ([left, right], [of_left, of_right]) = (self.times, self.millis);
        JoinTime { times: [right, left], millis: [of_right, of_left], ..self }
    }
}

/// A comparison of two expressions.
pub(crate) struct Compared<'e> {
    pub left: &'e Expr,
    pub op: Operator,
    pub right: &'e Expr,
}

/// The comparisons that a condition is made of.
pub(crate) fn comparisons(condition: &Expr) -> Vec<Compared<'_>> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => vec![Compared { left, op: *op, right }],
        Expr::Between(Between { expr, negated: false, low, high }) => vec![
            Compared { left: expr, op: Operator::GtEq, right: low },
            Compared { left: expr, op: Operator::LtEq, right: high },
        ],
        _ => Vec::new(),
    }
}

/// An expression as a time and a constant number of milliseconds that is added to it.
pub(crate) fn shifted(expr: &Expr) -> Option<(&Expr, i64)> {
    match expr {
        Expr::Alias(alias) => shifted(&alias.expr),
        Expr::Cast(cast) if is_timestamp(cast.field.data_type()) => shifted(&cast.expr),
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus), right }) => {
            sum(left, *op == Operator::Minus, right)
        }
        Expr::ScalarFunction(call) => match (sign_of(&call.func), call.args.as_slice()) {
            (Some(op @ (Operator::Plus | Operator::Minus)), [left, right]) => sum(left, op == Operator::Minus, right),
            _ => Some((expr, 0)),
        },
        _ => Some((expr, 0)),
    }
}

fn sum<'e>(left: &'e Expr, is_minus: bool, right: &'e Expr) -> Option<(&'e Expr, i64)> {
    match (span(left), span(right)) {
        (None, Some(millis)) => {
            let (time, before) = shifted(left)?;
            Some((time, before.checked_add(if is_minus { millis.checked_neg()? } else { millis })?))
        }
        (Some(millis), None) if !is_minus => {
            let (time, before) = shifted(right)?;
            Some((time, before.checked_add(millis)?))
        }
        _ => None,
    }
}

/// The milliseconds of a constant interval without months.
fn span(expr: &Expr) -> Option<i64> {
    let Expr::Literal(value, _) = expr else { return None };
    let (months, days, millis) = match value {
        ScalarValue::IntervalMonthDayNano(Some(value)) => (value.months, value.days, value.nanoseconds / 1_000_000),
        ScalarValue::IntervalDayTime(Some(value)) => (0, value.days, i64::from(value.milliseconds)),
        _ => return None,
    };
    (months == 0).then(|| i64::from(days) * 86_400_000 + millis)
}

/// Which of two sides all columns of an expression are of.
pub(crate) fn side_of(expr: &Expr, sides: [&DFSchema; 2]) -> Option<usize> {
    let columns = expr.column_refs();
    let of = |side: &DFSchema| columns.iter().all(|column| side.maybe_index_of_column(column).is_some());
    match columns.is_empty() {
        true => None,
        false => (0..2).find(|side| of(sides[*side])),
    }
}

/// What the conditions say of how far the times of two sides are apart, if they bound it in both directions. `is_time`: whether an expression over a side is the time
/// of its rows.
pub(crate) fn interval(
    conditions: &[&Expr],
    sides: [&DFSchema; 2],
    is_time: impl Fn(&Expr, usize) -> bool,
) -> Option<JoinTime> {
    /// Times of the two sides, and how far the right one is behind the left one: at least and at most.
    struct Distance {
        times: [Expr; 2],
        from: Option<i64>,
        to: Option<i64>,
    }
    let mut distances: Vec<Distance> = Vec::new();
    for Compared { left, op, right } in conditions.iter().flat_map(|condition| comparisons(condition)) {
        let (Some((a, of_a)), Some((b, of_b))) = (shifted(left), shifted(right)) else { continue };
        let (a, of_a, op, b, of_b) = match (side_of(a, sides), side_of(b, sides)) {
            (Some(0), Some(1)) => (a, of_a, op, b, of_b),
            (Some(1), Some(0)) => match op.swap() {
                Some(op) => (b, of_b, op, a, of_a),
                None => continue,
            },
            _ => continue,
        };
        if !is_time(a, 0) || !is_time(b, 1) {
            continue;
        }
        // The left time and `of_a` against the right one and `of_b`.
        let Some(apart) = of_a.checked_sub(of_b) else { continue };
        let (from, to) = match op {
            Operator::Eq => (Some(apart), Some(apart)),
            Operator::Lt | Operator::LtEq => (Some(apart), None),
            Operator::Gt | Operator::GtEq => (None, Some(apart)),
            _ => continue,
        };
        let times = [row_time::unmarked(a).clone(), row_time::unmarked(b).clone()];
        let known = distances.iter().position(|known| known.times == times);
        let index = known.unwrap_or_else(|| {
            distances.push(Distance { times, from: None, to: None });
            distances.len() - 1
        });
        let distance = &mut distances[index];
        distance.from = distance.from.into_iter().chain(from).max();
        distance.to = distance.to.into_iter().chain(to).min();
    }
    distances.into_iter().find_map(|Distance { times, from, to }| {
        Some(JoinTime { times, millis: [to?, from?.checked_neg()?], of_windows: false })
    })
}
