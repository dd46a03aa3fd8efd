//! How a stream plan is shown.

use coulee_runtime::row_errors::expression_text;
use datafusion_common::DFSchema;
use datafusion_expr::Expr;

use super::{ChangelogKind, StreamPlan};
use crate::functions::ranking::without_alias;
use crate::translate::physical;

/// Expressions over an input as SQL has them, separated by commas.
pub(super) fn expressions<'a>(exprs: impl IntoIterator<Item = &'a Expr>, input: &DFSchema) -> String {
    let shown: Vec<String> = exprs.into_iter().map(|expr| expression(expr, input)).collect();
    format!("[{}]", shown.join(", "))
}

/// An expression over an input as SQL has it.
pub(super) fn expression(expr: &Expr, input: &DFSchema) -> String {
    if let Expr::Alias(alias) = expr {
        let of = expression(without_alias(&alias.expr), input);
        return if of == alias.name { of } else { format!("{of} AS {}", alias.name) };
    }
    match physical(expr, input) {
        // A column may be named after the aggregate that it holds.
        Ok(physical) => expression_text(&physical).replace("count(Int64(1))", "count(*)"),
        // An error in it is told when the operator is made.
        Err(_) => expr.human_display().to_string(),
    }
}

/// Calls of aggregates, separated by commas.
pub(super) fn aggregates(calls: &[Expr]) -> String {
    let shown: Vec<String> = calls.iter().map(aggregate).collect();
    format!("[{}]", shown.join(", "))
}

/// A call of an aggregate: `COUNT(*)` is planned as the count of a constant.
pub(super) fn aggregate(call: &Expr) -> String {
    call.human_display().to_string().replace("count(1)", "count(*)").replace("count(Int64(1))", "count(*)")
}

/// A plan whose rows go into a table, one line per node, from the sink up: what the node does, and which changes leave it.
pub(crate) fn lines(table: &str, plan: &StreamPlan) -> Vec<String> {
    let mut lines = vec![format!("Sink(table={table})")];
    add(plan, 0, &mut lines);
    lines
}

fn add(plan: &StreamPlan, depth: usize, lines: &mut Vec<String>) {
    let changes = match plan.changes {
        ChangelogKind::InsertOnly => "I",
        ChangelogKind::Upsert => "I,UA,D",
        ChangelogKind::Retract => "I,UB,UA,D",
    };
    lines.push(format!("{}└─ {}  [{changes}]", "   ".repeat(depth), plan.describe()));
    for input in &plan.inputs {
        add(input, depth + 1, lines);
    }
}
