//! Expressions as SQL text, for people: `CAST(a AS INT) / d`.
//!
//! DataFusion's own form names types as Arrow does and leaves texts unquoted. Expressions that are not listed here keep it.

use std::fmt;
use std::sync::Arc;

use datafusion_common::ScalarValue;
use datafusion_expr::Operator;
use datafusion_physical_expr::expressions::{
    BinaryExpr, CastExpr, Column, IsNotNullExpr, IsNullExpr, LikeExpr, Literal, NegativeExpr, NotExpr, TryCastExpr,
};
use datafusion_physical_expr::{PhysicalExpr, ScalarFunctionExpr};

use crate::sql_type::sql_type;

/// An expression as SQL.
pub fn expression_text(expr: &Arc<dyn PhysicalExpr>) -> String {
    if let Some(column) = expr.downcast_ref::<Column>() {
        return column.name().to_owned();
    }
    if let Some(literal) = expr.downcast_ref::<Literal>() {
        return literal_text(literal.value());
    }
    if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        let (left, right) = (operand(binary.left(), binary.op()), operand(binary.right(), binary.op()));
        return format!("{left} {} {right}", operator(binary.op()));
    }
    if let Some(cast) = expr.downcast_ref::<CastExpr>() {
        return format!("CAST({} AS {})", expression_text(cast.expr()), sql_type(cast.cast_type()));
    }
    if let Some(cast) = expr.downcast_ref::<TryCastExpr>() {
        return format!("TRY_CAST({} AS {})", expression_text(cast.expr()), sql_type(cast.cast_type()));
    }
    if let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>() {
        if let Some(text) = operation_text(call) {
            return text;
        }
        let arguments: Vec<String> = call.args().iter().map(expression_text).collect();
        return format!("{}({})", call.name().to_uppercase(), arguments.join(", "));
    }
    if let Some(not) = expr.downcast_ref::<NotExpr>() {
        return format!("NOT ({})", expression_text(not.arg()));
    }
    if let Some(negative) = expr.downcast_ref::<NegativeExpr>() {
        return format!("-{}", expression_text(negative.arg()));
    }
    if let Some(null) = expr.downcast_ref::<IsNullExpr>() {
        return format!("{} IS NULL", expression_text(null.arg()));
    }
    if let Some(null) = expr.downcast_ref::<IsNotNullExpr>() {
        return format!("{} IS NOT NULL", expression_text(null.arg()));
    }
    if let Some(like) = expr.downcast_ref::<LikeExpr>() {
        let not = if like.negated() { "NOT " } else { "" };
        return format!("{} {not}LIKE {}", expression_text(like.expr()), expression_text(like.pattern()));
    }
    DataFusionText(expr.as_ref()).to_string()
}

struct DataFusionText<'a>(&'a dyn PhysicalExpr);

impl fmt::Display for DataFusionText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_sql(f)
    }
}

/// The planner makes functions of operators and casts whose results are Flink's: `+(a, b)` is `a + b`, and `CAST(a, 'INT')` is `CAST(a AS INT)`.
fn operation_text(call: &ScalarFunctionExpr) -> Option<String> {
    match call.args() {
        [value, to] if matches!(call.name(), "CAST" | "TRY_CAST") => match to.downcast_ref::<Literal>()?.value() {
            ScalarValue::Utf8(Some(to)) => Some(format!("{}({} AS {to})", call.name(), expression_text(value))),
            _ => None,
        },
        [value] if call.name() == "-" => Some(format!("-{}", operand(value, &Operator::Multiply))),
        [left, right] => {
            let op = function_operator(call.name())?;
            Some(format!("{} {} {}", operand(left, &op), operator(&op), operand(right, &op)))
        }
        _ => None,
    }
}

/// The operator that a function of this name stands for.
fn function_operator(name: &str) -> Option<Operator> {
    use Operator::{
        Divide, Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, Minus, Modulo, Multiply, NotEq, Plus,
    };
    let all = [Plus, Minus, Multiply, Divide, Modulo, Eq, NotEq, Lt, LtEq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom];
    all.into_iter().find(|op| operator(op) == name)
}

fn operand(expr: &Arc<dyn PhysicalExpr>, outer: &Operator) -> String {
    let text = expression_text(expr);
    let function = expr.downcast_ref::<ScalarFunctionExpr>().and_then(|call| function_operator(call.name()));
    let inner = expr.downcast_ref::<BinaryExpr>().map(|inner| *inner.op()).or(function);
    match inner {
        Some(inner) if inner.precedence() < outer.precedence() || inner.precedence() == 0 => {
            format!("({text})")
        }
        _ => text,
    }
}

fn operator(op: &Operator) -> String {
    match op {
        Operator::NotEq => "<>".to_owned(),
        other => other.to_string(),
    }
}

fn literal_text(value: &ScalarValue) -> String {
    match value {
        value if value.is_null() => "NULL".to_owned(),
        ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
            format!("'{}'", text.replace('\'', "''"))
        }
        ScalarValue::Boolean(Some(value)) => value.to_string().to_uppercase(),
        ScalarValue::IntervalDayTime(Some(span)) => {
            interval_text(i64::from(span.days) * DAY_MILLIS + i64::from(span.milliseconds))
        }
        ScalarValue::IntervalMonthDayNano(Some(span)) if span.months == 0 && span.nanoseconds % 1_000_000 == 0 => {
            interval_text(i64::from(span.days) * DAY_MILLIS + span.nanoseconds / 1_000_000)
        }
        ScalarValue::IntervalMonthDayNano(Some(span)) if span.days == 0 && span.nanoseconds == 0 => {
            format!("INTERVAL '{}' MONTH", span.months)
        }
        value => value.to_string(),
    }
}

const DAY_MILLIS: i64 = 86_400_000;

/// Milliseconds in the largest unit that fits.
fn interval_text(millis: i64) -> String {
    for (unit, name) in [(DAY_MILLIS, "DAY"), (3_600_000, "HOUR"), (60_000, "MINUTE"), (1_000, "SECOND")] {
        if millis != 0 && millis % unit == 0 {
            return format!("INTERVAL '{}' {name}", millis / unit);
        }
    }
    let (sign, rest) = (if millis < 0 { "-" } else { "" }, millis.unsigned_abs());
    format!("INTERVAL '{sign}{}.{:03}' SECOND", rest / 1_000, rest % 1_000)
}
