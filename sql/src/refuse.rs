//! What cannot run as a stream yet, why, and what to write instead.

use datafusion_common::tree_node::TreeNode;
use datafusion_expr::{Expr, JoinType, LogicalPlan};
use sqlparser::tokenizer::TokenWithSpan;

use crate::error::Fault;
use crate::faults::first_of;

/// Why a node of a plan is refused.
pub(crate) fn refusal(plan: &LogicalPlan, tokens: &[TokenWithSpan]) -> Fault {
    let (message, words, help): (&str, &[&str], &str) = match plan {
        LogicalPlan::Join(join) if join.join_type == JoinType::Inner && join.on.is_empty() && join.filter.is_none() => {
            (
                "a cross join keeps both sides for ever",
                &["JOIN", "CROSS", "FROM"],
                "joins come in a later version; until then, join in the program that makes the stream, or in batch over the delivered files",
            )
        }
        LogicalPlan::Join(_) => (
            "joins come in a later version",
            &["JOIN", "FROM"],
            "join in the program that makes the stream, or in batch over the delivered files",
        ),
        LogicalPlan::Sort(_) => (
            "ORDER BY needs the end of the input, and a stream has none",
            &["ORDER"],
            "leave it out; sort where the result is read",
        ),
        LogicalPlan::Limit(_) => (
            "LIMIT of a stream comes in a later version",
            &["LIMIT", "FETCH", "OFFSET"],
            "leave it out, or filter with WHERE",
        ),
        LogicalPlan::Distinct(_) => (
            "DISTINCT keeps every row for ever",
            &["DISTINCT", "UNION"],
            "group by window_start, window_end and the columns, or write UNION ALL",
        ),
        LogicalPlan::Window(_) => return over(tokens),
        LogicalPlan::Values(_) => (
            "VALUES as an input comes in a later version",
            &["VALUES"],
            "write the rows to a file and read it with 'connector' = 'filesystem'",
        ),
        LogicalPlan::EmptyRelation(_) => {
            ("the query reads no table", &["SELECT"], "add FROM, and check that the WHERE clause can be true")
        }
        LogicalPlan::Unnest(_) => ("UNNEST comes in a later version", &["UNNEST"], "keep the array as a column"),
        LogicalPlan::Subquery(_) => ("a subquery here comes in a later version", &["EXISTS", "IN", "LATERAL"], ADVICE),
        LogicalPlan::RecursiveQuery(_) => {
            ("a recursive query has no end on a stream", &["RECURSIVE", "WITH"], "write the steps out")
        }
        other => {
            let message = format!("{} cannot run as a stream", first_word(other));
            return Fault::new(message).help("see docs/sql.md for what can");
        }
    };
    Fault::new(message).or_at(first_of(tokens, words)).help(help)
}

/// Why an OVER clause is refused.
pub(crate) fn over(tokens: &[TokenWithSpan]) -> Fault {
    Fault::new("OVER comes in a later version")
        .or_at(first_of(tokens, &["OVER"]))
        .help("aggregate in a window: FROM TABLE(TUMBLE(…)) … GROUP BY window_start, window_end")
}

const ADVICE: &str = "filter in a view first, and read the view";

fn first_word(plan: &LogicalPlan) -> String {
    plan.display().to_string().split([':', ' ']).next().unwrap_or_default().to_owned()
}

/// The refusal of a subquery within an expression, if there is one.
pub(crate) fn subquery(expr: &Expr, tokens: &[TokenWithSpan]) -> Option<Fault> {
    let is_subquery = |expr: &Expr| {
        Ok(matches!(expr, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)))
    };
    let found = expr.exists(is_subquery).unwrap_or(true);
    found.then(|| {
        Fault::new("a subquery within an expression comes in a later version")
            .or_at(first_of(tokens, &["EXISTS", "IN", "ANY", "ALL", "WHERE", "SELECT"]))
            .help(ADVICE)
    })
}
