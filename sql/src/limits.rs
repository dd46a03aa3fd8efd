//! How deep and how large a statement may be. What is beyond is refused with its place, before it can overflow a stack or fill the memory.
//!
//! Three things are bounded: brackets (before parsing), operations in a row (while parsing, in `dialect`), and the resolved plan with all its views put in.

use std::collections::HashMap;

use datafusion_common::Column;
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_expr::{Expr, LogicalPlan};
use sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::{Fault, Result};
use crate::tokens::is_word;

/// How deep brackets and `CASE … END` may nest.
const NESTING_MAX: usize = 150;
/// How deep the parser may call itself: for what nests without brackets (`NOT NOT …`). It calls itself twice for some brackets.
pub(crate) const PARSER_DEPTH_MAX: usize = 400;
/// How many operations of one kind may follow each other without brackets (`a + b + c + …`). `AND`, `OR` and `||` have no such limit: they are
/// associative, and become balanced trees.
pub(crate) const OPERATIONS_MAX: usize = 500;
/// How deep an expression of a plan may be: it is evaluated recursively on the threads of jobs.
const EXPRESSION_DEPTH_MAX: usize = 1_000;
/// How deep a plan may be once all views are put in.
const PLAN_DEPTH_MAX: usize = 1_000;
/// How many nodes a plan may have once all views are put in.
const PLAN_NODES_MAX: usize = 20_000;
/// How many terms a plan's expressions may have in all; conditions count as they are when written over the tables' columns.
const TERMS_MAX: u64 = 2_000_000;

/// Refuses brackets, `CASE`s and signs that nest too deep, before a recursive parser meets them.
pub(crate) fn check_brackets(words: &[TokenWithSpan]) -> Result<()> {
    let mut depth = 0_usize;
    let mut prefixes = 0_usize;
    let mut before: Option<&Token> = None;
    for word in words {
        match &word.token {
            Token::LParen | Token::LBracket | Token::LBrace => depth += 1,
            Token::RParen | Token::RBracket | Token::RBrace => depth = depth.saturating_sub(1),
            token if is_word(token, "CASE") => depth += 1,
            token if is_word(token, "END") => depth = depth.saturating_sub(1),
            // `ARRAY<ARRAY<INT>>`; a type's closing `>` cannot be told from a comparison, so a type counts to its statement's end.
            Token::Lt if before.is_some_and(is_type_with_items) => depth += 1,
            _ => {}
        }
        let is_prefix = is_word(&word.token, "NOT") || matches!(word.token, Token::Minus | Token::Plus | Token::Tilde);
        prefixes = if is_prefix { prefixes + 1 } else { 0 };
        if depth > NESTING_MAX || prefixes > NESTING_MAX {
            return Err(too_deep(word, NESTING_MAX));
        }
        before = Some(&word.token);
    }
    Ok(())
}

fn is_type_with_items(token: &Token) -> bool {
    ["ARRAY", "MAP", "ROW", "STRUCT"].iter().any(|word| is_word(token, word))
}

/// The fault of a statement that nests too deep at this word.
pub(crate) fn too_deep(word: &TokenWithSpan, limit: usize) -> Fault {
    Fault::new(format!("the statement is nested more than {limit} deep"))
        .at(word.span)
        .help("take the inner part out into a view (CREATE VIEW), and read the view")
}

/// Refuses a plan that is too deep or too large to be optimised and run. Iterative: the plan has not been checked before.
pub(crate) fn check_plan(plan: &LogicalPlan) -> Result<()> {
    let (mut nodes, mut terms, mut has_filter) = (0_usize, 0_u64, false);
    let mut open = vec![(plan, 1_usize)];
    while let Some((node, depth)) = open.pop() {
        nodes += 1;
        if nodes > PLAN_NODES_MAX || depth > PLAN_DEPTH_MAX {
            let message = format!(
                "the query reads views of views: written out, they are more than {PLAN_DEPTH_MAX} steps deep or {PLAN_NODES_MAX} steps in all"
            );
            return Err(
                Fault::new(message).help("write a part of them to a table with INSERT INTO, and read the table")
            );
        }
        terms += terms_of(node)?;
        has_filter |= matches!(node, LogicalPlan::Filter(_));
        open.extend(node.inputs().into_iter().map(|input| (input, depth + 1)));
    }
    if terms > TERMS_MAX {
        return Err(too_many_terms());
    }
    if has_filter { weights(plan).map(drop) } else { Ok(()) }
}

fn too_many_terms() -> Fault {
    Fault::new(format!("the query's expressions have more than {TERMS_MAX} terms once its views are written out"))
        .help("write a part of the views to a table with INSERT INTO, and read the table")
}

/// The number of terms of a node's own expressions.
///
/// # Errors
/// When one of them is too deep to be evaluated.
fn terms_of(node: &LogicalPlan) -> Result<u64> {
    let mut terms = Ok(0);
    // The closure never fails.
    let _ = node.apply_expressions(|expr| {
        terms = std::mem::replace(&mut terms, Ok(0)).and_then(|sum| Ok(sum + check_expression(expr)?));
        Ok(if terms.is_ok() { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    terms
}

/// The number of terms of an expression.
///
/// # Errors
/// When it is too deep to be evaluated.
fn check_expression(expr: &Expr) -> Result<u64> {
    let mut terms = 0;
    let mut open = vec![(expr, 1_usize)];
    while let Some((expr, depth)) = open.pop() {
        terms += 1;
        if depth > EXPRESSION_DEPTH_MAX {
            let message = format!("an expression is nested more than {EXPRESSION_DEPTH_MAX} operations deep");
            return Err(Fault::new(message).help("compute a part of it in a view, and read the view"));
        }
        // The closure never fails.
        let _ = expr.apply_children(|child| {
            open.push((child, depth + 1));
            Ok(TreeNodeRecursion::Continue)
        });
    }
    Ok(terms)
}

/// How many terms each column of a plan has when it is written over the columns of tables.
///
/// The optimizer writes conditions that way, to filter as early as possible: `x + x` of a view of a view doubles with each of them.
fn weights(plan: &LogicalPlan) -> Result<Vec<u64>> {
    let columns = plan.schema().fields().len();
    let mut inputs = Vec::new();
    let mut known: HashMap<Column, u64> = HashMap::new();
    for input in plan.inputs() {
        let weights = weights(input)?;
        known.extend(input.schema().columns().into_iter().zip(weights.iter().copied()));
        inputs.push(weights);
    }
    let of = |expr: &Expr| -> u64 {
        let mut terms = 0_u64;
        // The closure never fails.
        let _ = expr.apply(|expr| {
            let own = match expr {
                Expr::Column(column) => known.get(column).copied().unwrap_or(1),
                _ => 1,
            };
            terms = terms.saturating_add(own);
            Ok(TreeNodeRecursion::Continue)
        });
        terms
    };
    match plan {
        LogicalPlan::Projection(node) => Ok(node.expr.iter().map(of).collect()),
        LogicalPlan::Filter(node) if of(&node.predicate) > TERMS_MAX => Err(too_many_terms()),
        _ => Ok(inputs.into_iter().find(|input| input.len() == columns).unwrap_or_else(|| vec![1; columns])),
    }
}
