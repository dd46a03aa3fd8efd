//! Refuses comparisons of text with numbers, and a CASE that gives both, as Flink does: which of both would be converted is a guess, and a row that does
//! not convert stops the job. Refuses MIN and MAX of values without an order, too.

use arrow::datatypes::DataType;
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, DataFusionError};
use datafusion_expr::expr::{AggregateFunction, Between, BinaryExpr, Case, InList, InSubquery, Like};
use datafusion_expr::{Expr, ExprSchemable, LogicalPlan, Operator};

use crate::error::{Fault, Result};
use crate::types::type_name;

/// Checks every expression of a plan that is resolved and not typed yet.
pub(crate) fn check_operands(plan: &LogicalPlan) -> Result<()> {
    let mut fault = None;
    let visited = plan.apply(|node| {
        let inputs = node.inputs();
        let schema = inputs.iter().try_fold(DFSchema::empty(), |all, input| all.join(input.schema()));
        // Without one there are no expressions over inputs.
        let schema = schema.unwrap_or_else(|_| node.schema().as_ref().clone());
        node.apply_expressions(|expr| match check_expression(expr, &schema) {
            Ok(()) => Ok(TreeNodeRecursion::Continue),
            Err(found) => {
                fault = Some(found);
                Ok(TreeNodeRecursion::Stop)
            }
        })
    });
    match (fault, visited) {
        (Some(fault), _) => Err(fault),
        (None, Err(error)) => Err(crate::faults::fault(&error)),
        (None, Ok(_)) => Ok(()),
    }
}

/// Checks an expression over the columns of a schema.
pub(crate) fn check_expression(expr: &Expr, schema: &DFSchema) -> Result<()> {
    let mut fault = None;
    // The closure never fails.
    let _: Result<_, DataFusionError> = expr.apply(|expr| {
        fault = mismatch(expr, schema);
        Ok(if fault.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    fault.map_or(Ok(()), Err)
}

fn mismatch(expr: &Expr, schema: &DFSchema) -> Option<Fault> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(*op) => {
            compared(left, right, &op.to_string(), schema)
        }
        Expr::InList(InList { expr, list, .. }) => list.iter().find_map(|item| compared(expr, item, "IN", schema)),
        Expr::InSubquery(InSubquery { expr, subquery, .. }) => {
            let (is, given) = (expr.get_type(schema).ok()?, subquery.subquery.schema().field(0).data_type());
            let is_other = |found: &DataType| found.is_numeric() || *found == DataType::Boolean;
            let differ = (is_text(&is) && is_other(given)) || (is_text(given) && is_other(&is));
            differ.then(|| {
                let message =
                    format!("{} is {}, and the subquery gives {}", text(expr), type_name(&is), type_name(given));
                let help = format!("write CAST({} AS {}) IN (SELECT …)", text(expr), type_name(given));
                Fault::new(message).or_at(span(expr)).or_clause(&["IN"]).help(help)
            })
        }
        Expr::Between(Between { expr, low, high, .. }) => {
            [low, high].into_iter().find_map(|bound| compared(expr, bound, "BETWEEN", schema))
        }
        Expr::Case(Case { expr, when_then_expr, else_expr }) => {
            let values = when_then_expr.iter().map(|(when, _)| when);
            let wrong =
                expr.as_ref().and_then(|expr| values.into_iter().find_map(|when| compared(expr, when, "WHEN", schema)));
            if wrong.is_some() {
                return wrong;
            }
            let results = when_then_expr.iter().map(|(_, then)| then).chain(else_expr);
            let typed: Vec<(&Expr, DataType)> =
                results.filter_map(|result| Some((result.as_ref(), result.get_type(schema).ok()?))).collect();
            let a_text = typed.iter().find(|(_, found)| is_text(found))?;
            let other = typed.iter().find(|(_, found)| found.is_numeric() || *found == DataType::Boolean)?;
            let message = format!("CASE gives {} and {}", type_name(&a_text.1), type_name(&other.1));
            let help = format!("write CAST({} AS STRING)", text(other.0));
            Some(Fault::new(message).or_at(span(other.0)).or_clause(&["CASE"]).help(help))
        }
        Expr::Like(Like { expr, pattern, .. }) => [expr, pattern].into_iter().find_map(|side| {
            let found = side.get_type(schema).ok()?;
            let is_other = !is_text(&found) && found != DataType::Null;
            is_other.then(|| {
                Fault::new(format!("LIKE compares texts, and {} is {}", text(side), type_name(&found)))
                    .or_at(span(side))
                    .help(format!("write CAST({} AS STRING)", text(side)))
            })
        }),
        Expr::AggregateFunction(AggregateFunction { func, params }) if matches!(func.name(), "min" | "max") => {
            let argument = params.args.first()?;
            let found = argument.get_type(schema).ok()?;
            found.is_nested().then(|| {
                let name = func.name().to_uppercase();
                Fault::new(format!("{name} orders values, and {} is {}", text(argument), type_name(&found)))
                    .or_at(span(argument))
                    .or_clause(&["MIN", "MAX"])
                    .help("arrays, maps and rows have no order: take an element or a field of it")
            })
        }
        _ => None,
    }
}

fn is_comparison(op: Operator) -> bool {
    use Operator::*;
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// The fault of comparing a text with a number or a truth value.
fn compared(left: &Expr, right: &Expr, op: &str, schema: &DFSchema) -> Option<Fault> {
    let (left_type, right_type) = (left.get_type(schema).ok()?, right.get_type(schema).ok()?);
    let other = |data_type: &DataType| data_type.is_numeric() || *data_type == DataType::Boolean;
    let (text_side, other_side, other_type) = match (is_text(&left_type), is_text(&right_type)) {
        (true, false) if other(&right_type) => (left, right, &right_type),
        (false, true) if other(&left_type) => (right, left, &left_type),
        _ => return None,
    };
    let message = format!(
        "{} {op} {}: {} is not compared with {}",
        text(left),
        text(right),
        type_name(&left_type),
        type_name(&right_type)
    );
    let help = match (text_side, other_side) {
        // A value as written is best written as the other's type.
        (_, Expr::Literal(..)) => format!(
            "write '{0}' in quotes, or CAST({1} AS {2})",
            text(other_side),
            text(text_side),
            type_name(other_type)
        ),
        _ => format!(
            "write CAST({} AS {}); TRY_CAST gives null for what is none",
            text(text_side),
            type_name(other_type)
        ),
    };
    Some(Fault::new(message).or_at(span(left)).or_at(span(right)).help(help))
}

/// An expression as somebody would write it.
fn text(expr: &Expr) -> String {
    match expr {
        Expr::Column(column) => column.name.clone(),
        Expr::Literal(value, _) if is_text(&value.data_type()) => format!("'{value}'"),
        Expr::Literal(value, _) => value.to_string(),
        other => other.human_display().to_string(),
    }
}

/// Where the first column of an expression stands.
pub(crate) fn span(expr: &Expr) -> Option<sqlparser::tokenizer::Span> {
    let mut found = None;
    // The closure never fails.
    let _: Result<_, DataFusionError> = expr.apply(|expr| {
        found = expr.spans().and_then(|spans| spans.first()).map(crate::spans::of_datafusion);
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found
}
