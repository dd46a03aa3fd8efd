//! Checks what an `INSERT` brings against the table's columns, and shapes the query to them.

use arrow::datatypes::{FieldRef, Schema};
use datafusion_common::ExprSchema;
use datafusion_common::{Column, ScalarValue};
use datafusion_expr::{Cast, Expr, LogicalPlan, LogicalPlanBuilder};
use sqlparser::tokenizer::Span;

use crate::catalog::Table;
use crate::error::{Fault, Result};
use crate::faults::fault;
use crate::flink_types::{Failing, Target, cast_expr, is_castable};
use crate::statement::Insert;
use crate::types::{converts, type_name};

/// Where a query's columns are written.
const SELECT: &[&str] = &["SELECT", "VALUES"];

/// The query with the columns of the table's sink, in their order.
pub(crate) fn shaped(insert: &Insert, table: &Table, query: LogicalPlan, schema: &Schema) -> Result<LogicalPlan> {
    let targets = targets(insert, table, schema)?;
    let given = query.schema().columns();
    if given.len() != targets.len() {
        let wanted: Vec<String> = targets.iter().map(describe).collect();
        let message = format!(
            "the query gives {} for the {} of '{}'",
            columns(given.len()),
            columns(targets.len()),
            table.name()
        );
        return Err(Fault::new(message).or_clause(SELECT).help(format!("expected {}", wanted.join(", "))));
    }
    let mut exprs = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let expr = match targets.iter().position(|target| target.name() == field.name()) {
            Some(index) => {
                let item = crate::names::item(&insert.query, index);
                converted(&query, &given[index], field, item).map_err(|fault| fault.or_clause(SELECT))?
            }
            None if field.is_nullable() => null(field)?,
            None => {
                let message = format!("column '{}' of '{}' is NOT NULL and gets no value", field.name(), table.name());
                return Err(Fault::new(message).at(insert.table.span).help("add it to the column list and the query"));
            }
        };
        exprs.push(expr.alias(field.name()));
    }
    LogicalPlanBuilder::new(query).project(exprs).and_then(LogicalPlanBuilder::build).map_err(|error| fault(&error))
}

/// The columns that the query's go to, in its order.
fn targets(insert: &Insert, table: &Table, schema: &Schema) -> Result<Vec<FieldRef>> {
    if insert.columns.is_empty() {
        return Ok(schema.fields().iter().cloned().collect());
    }
    let mut targets: Vec<FieldRef> = Vec::with_capacity(insert.columns.len());
    for name in &insert.columns {
        if targets.iter().any(|target| target.name() == &name.value) {
            return Err(Fault::new(format!("column '{}' is named twice", name.value)).at(name.span));
        }
        match schema.fields().iter().find(|field| field.name() == &name.value) {
            Some(field) => targets.push(field.clone()),
            None => return Err(unknown(&name.value, table, schema).at(name.span)),
        }
    }
    Ok(targets)
}

fn unknown(name: &str, table: &Table, schema: &Schema) -> Fault {
    if table.columns.iter().any(|column| column.name == name) {
        return Fault::new(format!(
            "column '{name}' of '{}' is computed or virtual: it cannot be written",
            table.name()
        ));
    }
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let fault = Fault::new(format!("'{}' has no column '{name}'", table.name()));
    match coulee_runtime::options::nearest(name, &names) {
        Some(near) => fault.help(format!("did you mean '{near}'?")),
        None => fault.help(format!("columns: {}", names.join(", "))),
    }
}

fn converted(query: &LogicalPlan, column: &Column, to: &FieldRef, item: Option<(String, Span)>) -> Result<Expr> {
    let from = query.schema().field_from_column(column).map_err(|error| fault(&error))?.data_type().clone();
    let expr = Expr::Column(column.clone());
    if from == *to.data_type() {
        return Ok(expr);
    }
    // Whether a value fits is known of values that are written out.
    let is_written = is_values(query) && from.is_numeric() && to.data_type().is_numeric();
    if converts(&from, to.data_type()) || is_written {
        if !is_castable(&from, to.data_type()) {
            return Ok(Expr::Cast(Cast::new(Box::new(expr), to.data_type().clone())));
        }
        let target = Target::plain(to.data_type().clone());
        return cast_expr(expr, &from, target, Failing::Error).map_err(|error| fault(&error));
    }
    let (from, to_type) = (type_name(&from), type_name(to.data_type()));
    let (text, span) = item.map_or((column.name.clone(), None), |(text, span)| (text, Some(span)));
    let message = format!("column '{}' is {to_type}, and the query gives {from}", to.name());
    let fault = Fault::new(message).help(format!("write CAST({text} AS {to_type})"));
    Err(match span {
        Some(span) => fault.at(span),
        None => fault,
    })
}

/// Whether the rows of a query are written out in it.
fn is_values(query: &LogicalPlan) -> bool {
    match query {
        LogicalPlan::Values(_) => true,
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => query.inputs().into_iter().all(is_values),
        _ => false,
    }
}

fn null(field: &FieldRef) -> Result<Expr> {
    let value = ScalarValue::try_from(field.data_type()).map_err(|error| fault(&error))?;
    Ok(Expr::Literal(value, None))
}

fn describe(field: &FieldRef) -> String {
    format!("{} {}", field.name(), type_name(field.data_type()))
}

fn columns(count: usize) -> String {
    if count == 1 { "1 column".to_owned() } else { format!("{count} columns") }
}
