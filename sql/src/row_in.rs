//! Rows of several values: `(a, b)` as `ROW(a, b)`, `(a, b) IN (SELECT x, y …)` as `EXISTS`, and `COUNT(DISTINCT a, b)` as the count of rows of both.

use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Query,
    SelectItem, SetExpr, Spanned, TableAlias, TableAliasColumnDef, TableFactor, TableWithJoins, Value, VisitMut,
    VisitorMut,
};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Span;

use crate::dialect::FlinkDialect;
use crate::error::{Fault, Result};
use crate::functions::call_syntax::call_of;

/// Rewrites these of a query and of those within it.
///
/// # Errors
/// For `(a, b) NOT IN (SELECT …)`, and where there are other numbers of columns than of values.
pub(crate) fn rewrite(query: &mut Query) -> Result<()> {
    match query.visit(&mut Rows { count: 0 }) {
        ControlFlow::Break(fault) => Err(*fault),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Rows {
    count: usize,
}

impl VisitorMut for Rows {
    type Break = Box<Fault>;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Box<Fault>> {
        match expr {
            Expr::InSubquery { expr: values, subquery, negated } => {
                let Expr::Tuple(values) = values.as_ref() else { return ControlFlow::Continue(()) };
                self.count += 1;
                match exists(values, subquery, *negated, self.count) {
                    Ok(rewritten) => *expr = rewritten,
                    Err(fault) => return ControlFlow::Break(Box::new(fault)),
                }
            }
            Expr::Function(function) => count_of_rows(function),
            Expr::Tuple(values) => {
                let span = values.first().map_or(Span::empty(), Spanned::span);
                *expr = call_of(Ident::with_span(span, "ROW"), std::mem::take(values));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// `EXISTS (SELECT 1 FROM (SELECT x, y …) AS q (c0, c1) WHERE q.c0 = a AND q.c1 = b)`
fn exists(values: &[Expr], subquery: &Query, negated: bool, number: usize) -> Result<Expr> {
    let span = values.first().map_or(Span::empty(), Spanned::span);
    if negated {
        return Err(Fault::new("NOT IN of rows comes in a later version")
            .at(span)
            .help("write NOT EXISTS (SELECT 1 FROM … WHERE x = a AND y = b), which leaves nulls out of account"));
    }
    if let SetExpr::Select(select) = subquery.body.as_ref() {
        let is_column =
            |item: &SelectItem| matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. });
        let columns = select.projection.len();
        if select.projection.iter().all(is_column) && columns != values.len() {
            let message = format!("a row of {} values is looked for among rows of {columns}", values.len());
            return Err(Fault::new(message).at(span).help("select as many columns"));
        }
    }
    let alias = Ident::new(format!("__rows_{number}"));
    let column = |index: usize| Ident::new(format!("__column_{index}"));
    let equal = values.iter().enumerate().map(|(index, value)| Expr::BinaryOp {
        left: Box::new(Expr::CompoundIdentifier(vec![alias.clone(), column(index)])),
        op: BinaryOperator::Eq,
        right: Box::new(value.clone()),
    });
    let columns = (0..values.len()).map(|index| TableAliasColumnDef { name: column(index), data_type: None });
    let alias = TableAlias { explicit: true, name: alias.clone(), columns: columns.collect(), at: None };
    let relation =
        TableFactor::Derived { lateral: false, subquery: Box::new(subquery.clone()), alias: Some(alias), sample: None };
    let parsed = Parser::new(&FlinkDialect).try_with_sql("SELECT 1").and_then(|mut parser| parser.parse_query());
    let mut rows = parsed.map_err(|error| Fault::new(error.to_string()))?;
    if let SetExpr::Select(select) = rows.body.as_mut() {
        select.from = vec![TableWithJoins { relation, joins: Vec::new() }];
        select.selection = equal.reduce(and);
    }
    Ok(Expr::Exists { subquery: rows, negated: false })
}

fn and(left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::And, right: Box::new(right) }
}

/// `COUNT(DISTINCT a, b)` counts the rows of both without a null.
fn count_of_rows(function: &mut Function) {
    let name = function.name.0.last().and_then(|part| part.as_ident());
    let FunctionArguments::List(list) = &mut function.args else { return };
    let is_distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct) && list.args.len() > 1;
    if !is_distinct || !name.is_some_and(|name| name.value.eq_ignore_ascii_case("COUNT")) {
        return;
    }
    let value = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => Some(value.clone()),
        _ => None,
    };
    let Some(values) = list.args.iter().map(value).collect::<Option<Vec<Expr>>>() else { return };
    let span = values.first().map_or(Span::empty(), Spanned::span);
    let are_there = values.iter().map(|value| Expr::IsNotNull(Box::new(value.clone()))).reduce(and);
    let null = Expr::Value(Value::Null.with_span(span));
    let row = call_of(Ident::with_span(span, "ROW"), values);
    let counted = are_there.map(|are_there| call_of(Ident::with_span(span, "IF"), vec![are_there, row, null]));
    list.args = counted.into_iter().map(|row| FunctionArg::Unnamed(FunctionArgExpr::Expr(row))).collect();
}
