//! Expressions as canonical text: the same for every way of writing the same thing that the planner does not already make equal.
//!
//! Columns are replaced by texts. Every operator is in parentheses, so that texts can be put into each other; the operands of `AND` and `OR` are sorted.

use std::fmt;
use std::sync::Arc;

use datafusion_common::ScalarValue;
use datafusion_expr::Operator;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::ScalarFunctionExpr;
use datafusion_physical_expr::expressions::{BinaryExpr, CastExpr, Column, InListExpr, Literal};

use crate::state::span;
use crate::window::assign;

/// An expression whose columns are `columns`, by index.
pub(super) fn canonical(expr: &Arc<dyn PhysicalExpr>, columns: &[String]) -> String {
    let list = |exprs: &[Arc<dyn PhysicalExpr>]| {
        let texts: Vec<String> = exprs.iter().map(|expr| canonical(expr, columns)).collect();
        texts.join(", ")
    };
    if let Some(column) = expr.downcast_ref::<Column>() {
        return columns.get(column.index()).cloned().unwrap_or_else(|| column.name().to_owned());
    }
    if let Some(literal) = expr.downcast_ref::<Literal>() {
        return value(literal.value());
    }
    if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        let operator = *binary.op();
        if matches!(operator, Operator::And | Operator::Or) {
            let mut texts: Vec<String> =
                operands(expr, operator).into_iter().map(|operand| canonical(operand, columns)).collect();
            texts.sort();
            texts.dedup();
            return if texts.len() == 1 {
                texts.remove(0)
            } else {
                format!("({})", texts.join(&format!(" {operator} ")))
            };
        }
        let (left, right) = (canonical(binary.left(), columns), canonical(binary.right(), columns));
        return format!("({left} {operator} {right})");
    }
    if let Some(cast) = expr.downcast_ref::<CastExpr>() {
        return format!("CAST({} AS {})", canonical(cast.expr(), columns), cast.cast_type());
    }
    if let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>() {
        return window(call, columns).unwrap_or_else(|| format!("{}({})", call.name(), list(call.args())));
    }
    if let Some(within) = expr.downcast_ref::<InListExpr>() {
        let not = if within.negated() { "NOT " } else { "" };
        return format!("({} {not}IN ({}))", canonical(within.expr(), columns), list(within.list()));
    }
    other(expr, columns)
}

/// The parts of a condition that all must hold.
pub(super) fn conjuncts(condition: &Arc<dyn PhysicalExpr>) -> Vec<&Arc<dyn PhysicalExpr>> {
    operands(condition, Operator::And)
}

/// The operands of a chain of one operator: without recursion, as a condition may have thousands of terms.
fn operands(expr: &Arc<dyn PhysicalExpr>, operator: Operator) -> Vec<&Arc<dyn PhysicalExpr>> {
    let (mut found, mut left) = (Vec::new(), vec![expr]);
    while let Some(expr) = left.pop() {
        match expr.downcast_ref::<BinaryExpr>() {
            Some(binary) if *binary.op() == operator => left.extend([binary.right(), binary.left()]),
            _ => found.push(expr),
        }
    }
    found
}

/// A constant: texts in quotes, whatever is not plain with its type.
fn value(value: &ScalarValue) -> String {
    match value {
        value if value.is_null() => "NULL".to_owned(),
        ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
            format!("'{}'", text.replace('\'', "''"))
        }
        ScalarValue::Boolean(_)
        | ScalarValue::Int8(_)
        | ScalarValue::Int16(_)
        | ScalarValue::Int32(_)
        | ScalarValue::Int64(_)
        | ScalarValue::Decimal128(..) => value.to_string(),
        other => format!("{other}: {}", other.data_type()),
    }
}

/// The bound of a tumbling window: `TUMBLE_END(flights.departed_at, 1 h)`.
fn window(call: &ScalarFunctionExpr, columns: &[String]) -> Option<String> {
    let [time, size, offset, shift] = call.args() else { return None };
    let number = |expr: &Arc<dyn PhysicalExpr>| match expr.downcast_ref::<Literal>()?.value() {
        ScalarValue::Int64(Some(number)) => Some(number.unsigned_abs()),
        _ => None,
    };
    if !assign::is_tumble(call.fun()) {
        return None;
    }
    let (size, offset) = (number(size)?, number(offset)?);
    let bound = match number(shift)? {
        0 => "START",
        shift if shift == size => "END",
        _ => "TIME",
    };
    let offset = if offset == 0 { String::new() } else { format!(", offset {}", span(offset)) };
    Some(format!("TUMBLE_{bound}({}, {}{offset})", canonical(time, columns), span(size)))
}

/// Any other expression: DataFusion's text of it, with the canonical texts of its parts.
fn other(expr: &Arc<dyn PhysicalExpr>, columns: &[String]) -> String {
    let parts = expr.children().into_iter().map(|child| {
        let text = canonical(child, columns);
        Arc::new(Column::new(&text, 0)) as Arc<dyn PhysicalExpr>
    });
    match expr.clone().with_new_children(parts.collect()) {
        Ok(expr) => format!("({})", Sql(expr.as_ref())),
        Err(_) => format!("({expr})"),
    }
}

/// An expression in DataFusion's text for people, where columns have no numbers.
struct Sql<'a>(&'a dyn PhysicalExpr);

impl fmt::Display for Sql<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_sql(f)
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion_physical_expr::expressions::{binary, cast, in_list, is_null, lit, not};

    use super::*;

    fn schema() -> Schema {
        Schema::new(vec![Field::new("x", DataType::Int64, true), Field::new("y", DataType::Utf8, true)])
    }

    fn columns() -> Vec<String> {
        vec!["t.a".to_owned(), "(t.b || t.c)".to_owned()]
    }

    fn column(name: &str, index: usize) -> Arc<dyn PhysicalExpr> {
        Arc::new(Column::new(name, index))
    }

    fn compare(left: Arc<dyn PhysicalExpr>, operator: Operator, right: Arc<dyn PhysicalExpr>) -> Arc<dyn PhysicalExpr> {
        binary(left, operator, right, &schema()).unwrap()
    }

    #[test]
    fn columns_are_named_by_their_origin_and_texts_can_be_nested() {
        let sum = compare(column("x", 0), Operator::Plus, lit(1i64));
        assert_eq!(canonical(&sum, &columns()), "(t.a + 1)");
        let product = compare(sum, Operator::Multiply, lit(2i64));
        assert_eq!(canonical(&product, &columns()), "((t.a + 1) * 2)");
        assert_eq!(canonical(&column("renamed", 1), &columns()), "(t.b || t.c)");
    }

    #[test]
    fn a_text_is_not_a_column_and_types_show() {
        let text = compare(column("y", 1), Operator::Eq, lit("t.a"));
        assert_eq!(canonical(&text, &["t.y".into(), "t.z".into()]), "(t.z = 't.a')");
        let data_type = DataType::Float64;
        let cast = cast(column("x", 0), &schema(), data_type).unwrap();
        assert_eq!(canonical(&cast, &columns()), "CAST(t.a AS Float64)");
        assert_eq!(canonical(&lit(1.5f64), &[]), "1.5: Float64");
        assert_eq!(canonical(&lit(ScalarValue::Utf8(Some("it's".into()))), &[]), "'it''s'");
    }

    #[test]
    fn the_order_of_conditions_does_not_matter() {
        let (a, b) =
            (compare(column("x", 0), Operator::Gt, lit(1i64)), compare(column("x", 0), Operator::Lt, lit(9i64)));
        let both = |left, right| canonical(&compare(left, Operator::And, right), &columns());
        assert_eq!(both(a.clone(), b.clone()), both(b.clone(), a.clone()));
        assert_eq!(both(a.clone(), b), "((t.a < 9) AND (t.a > 1))");
        assert_eq!(both(a.clone(), a), "(t.a > 1)", "said twice");
    }

    #[test]
    fn thousands_of_terms_do_not_overflow_the_stack() {
        let mut condition = compare(column("x", 0), Operator::Eq, lit(0i64));
        for number in 1..20_000i64 {
            condition =
                Arc::new(BinaryExpr::new(condition, Operator::Or, compare(column("x", 0), Operator::Eq, lit(number))));
        }
        let text = canonical(&condition, &columns());
        assert_eq!(text.matches(" OR ").count(), 19_999);
        // Dropping such a chain recurses as well, which is not what is tested here.
        std::mem::forget(condition);
    }

    #[test]
    fn lists_nulls_and_negations_say_what_they_are_of() {
        let within = in_list(column("x", 0), vec![lit(1i64), lit(2i64)], &true, &schema()).unwrap();
        assert_eq!(canonical(&within, &columns()), "(t.a NOT IN (1, 2))");
        let null = is_null(column("y", 1)).unwrap();
        assert_eq!(canonical(&null, &columns()), "((t.b || t.c) IS NULL)");
        let is = compare(column("x", 0), Operator::Gt, lit(1i64));
        assert_eq!(canonical(&not(is).unwrap(), &columns()), "(NOT (t.a > 1))");
    }
}
