//! How Flink SQL is cut into words and how its operators are read: backticks quote names, single quotes are text.
//!
//! A program may write a condition of thousands of terms. Operators that are associative become balanced trees here, so that nothing behind the parser
//! walks a tree that is as deep as the condition is long; other operators may follow each other a limited number of times.

use sqlparser::ast::{BinaryOperator, Expr};
use sqlparser::dialect::Dialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

use crate::functions::syntax;
use crate::limits::OPERATIONS_MAX;

/// Flink SQL, as far as it concerns the tokenizer and the expression parser.
#[derive(Debug)]
pub(crate) struct FlinkDialect;

impl Dialect for FlinkDialect {
    fn is_delimited_identifier_start(&self, c: char) -> bool {
        c == '`'
    }

    fn identifier_quote_style(&self, _: &str) -> Option<char> {
        Some('`')
    }

    fn is_identifier_start(&self, c: char) -> bool {
        c.is_alphabetic() || c == '_' || c == '$'
    }

    fn is_identifier_part(&self, c: char) -> bool {
        c.is_alphanumeric() || c == '_' || c == '$'
    }

    /// `INTERVAL '1'` has no meaning without a unit.
    fn require_interval_qualifier(&self) -> bool {
        true
    }

    fn supports_filter_during_aggregation(&self) -> bool {
        true
    }

    fn supports_group_by_expr(&self) -> bool {
        true
    }

    fn supports_comment_optimizer_hint(&self) -> bool {
        true
    }

    /// `FOR SYSTEM_TIME AS OF`.
    fn supports_table_versioning(&self) -> bool {
        true
    }

    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        syntax::prefix(parser)
    }

    fn parse_infix(&self, parser: &mut Parser, expr: &Expr, precedence: u8) -> Option<Result<Expr, ParserError>> {
        if let Some(op) = associative(&parser.peek_token_ref().token) {
            return Some(chain(parser, expr, &op, precedence));
        }
        if in_a_row(expr) < OPERATIONS_MAX {
            return syntax::infix(parser, expr);
        }
        let at = parser.peek_token_ref().span.start;
        // The form of sqlparser's own messages, from which the place is read.
        let message = format!(
            "more than {OPERATIONS_MAX} operations follow each other: put parts of them into brackets, or compute them in a view at Line: {}, Column: {}",
            at.line, at.column
        );
        Some(Err(ParserError::ParserError(message)))
    }
}

/// The operator, if `(a op b) op c` is `a op (b op c)` whatever the values are. Sums are not: they overflow and round.
fn associative(token: &Token) -> Option<BinaryOperator> {
    match token {
        Token::Word(word) if word.keyword == Keyword::OR && word.quote_style.is_none() => Some(BinaryOperator::Or),
        Token::Word(word) if word.keyword == Keyword::AND && word.quote_style.is_none() => Some(BinaryOperator::And),
        Token::StringConcat => Some(BinaryOperator::StringConcat),
        _ => None,
    }
}

/// Reads `op b op c op d …` behind `first`.
fn chain(parser: &mut Parser, first: &Expr, op: &BinaryOperator, precedence: u8) -> Result<Expr, ParserError> {
    let mut terms = vec![first.clone()];
    while associative(&parser.peek_token_ref().token).as_ref() == Some(op) {
        parser.advance_token();
        terms.push(parser.parse_subexpr(precedence)?);
    }
    Ok(balanced(terms, &|left, right| Expr::BinaryOp { left: Box::new(left), op: op.clone(), right: Box::new(right) }))
}

/// Joins terms, in order, to a tree of the least depth. There is at least one term.
pub(crate) fn balanced<T>(mut terms: Vec<T>, join: &impl Fn(T, T) -> T) -> T {
    while terms.len() > 1 {
        let mut pairs = Vec::with_capacity(terms.len().div_ceil(2));
        let mut rest = terms.into_iter();
        while let Some(left) = rest.next() {
            pairs.push(match rest.next() {
                Some(right) => join(left, right),
                None => left,
            });
        }
        terms = pairs;
    }
    terms.pop().expect("a term")
}

/// How many operations follow each other on the left of an expression: what one more would be put on top of.
fn in_a_row(mut expr: &Expr) -> usize {
    let mut count = 0;
    while let Expr::BinaryOp { left: inner, .. }
    | Expr::IsNull(inner)
    | Expr::IsNotNull(inner)
    | Expr::IsTrue(inner)
    | Expr::IsNotTrue(inner)
    | Expr::IsFalse(inner)
    | Expr::IsNotFalse(inner)
    | Expr::IsUnknown(inner)
    | Expr::IsNotUnknown(inner)
    | Expr::IsDistinctFrom(inner, _)
    | Expr::IsNotDistinctFrom(inner, _)
    | Expr::IsNormalized { expr: inner, .. }
    | Expr::InList { expr: inner, .. }
    | Expr::InSubquery { expr: inner, .. }
    | Expr::InUnnest { expr: inner, .. }
    | Expr::Between { expr: inner, .. }
    | Expr::Like { expr: inner, .. }
    | Expr::ILike { expr: inner, .. }
    | Expr::SimilarTo { expr: inner, .. }
    | Expr::RLike { expr: inner, .. }
    | Expr::AnyOp { left: inner, .. }
    | Expr::AllOp { left: inner, .. }
    | Expr::UnaryOp { expr: inner, .. }
    | Expr::AtTimeZone { timestamp: inner, .. }
    | Expr::Cast { expr: inner, .. }
    | Expr::Collate { expr: inner, .. } = expr
    {
        count += 1;
        expr = inner;
    }
    count
}
