//! What cannot run as a stream yet, why, and what to write instead.

use std::ops::ControlFlow;

use datafusion_common::tree_node::TreeNode;
use datafusion_expr::{Expr, LogicalPlan};
use sqlparser::ast::{
    self, JoinConstraint, JoinOperator, Query, SetExpr, SetOperator, SetQuantifier, Spanned, TableFactor, Visit,
    Visitor,
};

use crate::error::{Fault, Result};

/// Why a node of a plan is refused.
pub(crate) fn refusal(plan: &LogicalPlan) -> Fault {
    let (message, words, help): (&str, &'static [&'static str], &str) = match plan {
        LogicalPlan::Sort(_) => (
            "ORDER BY needs the end of the input, and an input of this query has none",
            &["ORDER"],
            "leave it out; sort where the result is read",
        ),
        LogicalPlan::Limit(_) => (
            "LIMIT and OFFSET need the end of the input, and an input of this query has none",
            &["LIMIT", "FETCH", "OFFSET"],
            "leave it out, or filter with WHERE; a few rows of a query: coulee run … | head",
        ),
        LogicalPlan::Distinct(_) => ("DISTINCT ON comes in a later version", &["DISTINCT"], "group by the columns"),
        LogicalPlan::Unnest(_) => {
            ("UNNEST stands in FROM", &["UNNEST"], "write FROM t CROSS JOIN UNNEST(t.items) AS u (item)")
        }
        LogicalPlan::Subquery(subquery) if has_limit(&subquery.subquery) => (
            "a subquery with LIMIT is compared with the rows around by '=' alone, and has an ORDER BY",
            &["LATERAL", "LIMIT"],
            "number the rows in it with ROW_NUMBER() OVER (PARTITION BY … ORDER BY …), and filter behind the join",
        ),
        LogicalPlan::Subquery(_) => ("a subquery here comes in a later version", &["EXISTS", "IN", "LATERAL"], ADVICE),
        LogicalPlan::RecursiveQuery(_) => {
            ("a recursive query has no end on a stream", &["RECURSIVE", "WITH"], "write the steps out")
        }
        other => {
            let message = format!("{} cannot run as a stream", first_word(other));
            return Fault::new(message).help("see docs/sql.md for what can");
        }
    };
    Fault::new(message).or_clause(words).help(help)
}

fn has_limit(plan: &LogicalPlan) -> bool {
    plan.exists(|node| Ok(matches!(node, LogicalPlan::Limit(_)))).unwrap_or(false)
}

/// Refuses what DataFusion would read as something else or not at all.
pub(crate) fn check_query(query: &Query) -> Result<()> {
    match query.visit(&mut Unread) {
        ControlFlow::Break(fault) => Err(*fault),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Unread;

impl Visitor for Unread {
    type Break = Box<Fault>;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Box<Fault>> {
        if let Some(with) = query.with.as_ref().filter(|with| with.recursive) {
            let fault = Fault::new("a recursive query has no end on a stream").at(with.with_token.0.span);
            return ControlFlow::Break(Box::new(fault.help("write the steps out")));
        }
        let mut body = query.body.as_ref();
        while let SetExpr::SetOperation { op, set_quantifier, left, right } = body {
            if *op != SetOperator::Union && *set_quantifier == SetQuantifier::All {
                let fault = Fault::new(format!("{op} ALL comes in a later version")).at(right.span());
                return ControlFlow::Break(Box::new(fault.help(format!("write {op}, which gives each row once"))));
            }
            body = left;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Box<Fault>> {
        match factor {
            TableFactor::Table { sample: Some(_), name, .. } => {
                let fault = Fault::new("TABLESAMPLE comes in a later version").at(name.span());
                ControlFlow::Break(Box::new(fault.help("filter with WHERE")))
            }
            TableFactor::Pivot { table, .. } | TableFactor::Unpivot { table, .. } => {
                let fault = Fault::new("PIVOT and UNPIVOT are not Flink's SQL").at(table.span());
                let help = "write SUM(x) FILTER (WHERE k = 'p') AS p, … with GROUP BY, or a UNION ALL of one SELECT per column";
                ControlFlow::Break(Box::new(fault.help(help)))
            }
            TableFactor::Derived { sample: Some(_), .. } => {
                let fault = Fault::new("TABLESAMPLE comes in a later version").or_clause(&["TABLESAMPLE"]);
                ControlFlow::Break(Box::new(fault.help("filter with WHERE")))
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_select(&mut self, select: &ast::Select) -> ControlFlow<Box<Fault>> {
        if let Some(ast::Distinct::On(columns)) = &select.distinct {
            let fault = Fault::new("DISTINCT ON is not Flink's SQL").or_clause(&["DISTINCT"]);
            let fault = fault.or_at(columns.first().map(Spanned::span));
            return ControlFlow::Break(Box::new(fault.help(
                "write SELECT … FROM (SELECT …, ROW_NUMBER() OVER (PARTITION BY key ORDER BY x) AS n FROM t) WHERE n = 1",
            )));
        }
        let joins = select.from.iter().flat_map(|from| &from.joins);
        for join in joins {
            let (name, constraint) = match &join.join_operator {
                JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => ("RIGHT", constraint),
                JoinOperator::FullOuter(constraint) => ("FULL", constraint),
                _ => continue,
            };
            if matches!(constraint, JoinConstraint::Using(_) | JoinConstraint::Natural) {
                let message = format!("{name} JOIN with USING or NATURAL comes in a later version");
                let fault = Fault::new(message).at(join.relation.span());
                return ControlFlow::Break(Box::new(
                    fault.help("write ON a.key = b.key, and COALESCE(a.key, b.key) where the key is selected"),
                ));
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<Box<Fault>> {
        match expr {
            ast::Expr::Function(function) if function.over.is_some() => {
                let name = function.name.to_string();
                if crate::functions::described(&name).is_none() {
                    return ControlFlow::Continue(());
                }
                let fault = Fault::new(format!("{} is computed of a single row and has no OVER", name.to_uppercase()));
                ControlFlow::Break(Box::new(fault.at(function.name.span()).help("leave OVER (…) out")))
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

const ADVICE: &str = "filter in a view first, and read the view";

fn first_word(plan: &LogicalPlan) -> String {
    plan.display().to_string().split([':', ' ']).next().unwrap_or_default().to_owned()
}

/// The refusal of a subquery within an expression, if there is one.
pub(crate) fn subquery(expr: &Expr) -> Option<Fault> {
    let is_subquery = |expr: &Expr| {
        Ok(matches!(expr, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)))
    };
    let found = expr.exists(is_subquery).unwrap_or(true);
    found.then(|| {
        Fault::new("a subquery within an expression comes in a later version")
            .or_clause(&["EXISTS", "IN", "ANY", "ALL", "WHERE", "SELECT"])
            .help(ADVICE)
    })
}

/// The refusal of a function with OVER where rows are not computed but looked at, if there is one.
pub(crate) fn misplaced_over(expr: &Expr) -> Option<Fault> {
    let found = expr.exists(|expr: &Expr| Ok(matches!(expr, Expr::WindowFunction(_)))).unwrap_or(true);
    found.then(|| {
        Fault::new("a function with OVER stands in a SELECT list alone")
            .or_clause(&["OVER"])
            .help("write SELECT … FROM (SELECT …, SUM(x) OVER (…) AS total FROM t) WHERE total > 3; or QUALIFY")
    })
}
