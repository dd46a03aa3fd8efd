//! Calls that SQL writes with words of their own (`EXTRACT(HOUR FROM ts)`, `FLOOR(ts TO DAY)`, `TRIM(BOTH 'x' FROM t)`, `t IS JSON`) become plain calls.
//!
//! Units and modes become texts in front or behind: `EXTRACT('HOUR', ts)`. Functions whose name has a blank are written in no other way:
//! `ARRAY[1, 2]` is a call of `ARRAY []`.

use sqlparser::ast::{Expr, UnaryOperator};
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

use super::call_syntax::{Call, accept, close, expect, open};
use crate::tokens::is_word;

type Result<T> = std::result::Result<T, ParserError>;

/// How tight `IN` binds: an operand in front of it ends there.
const IN_PRECEDENCE: u8 = 20;

/// Reads a call, if the next words begin one with words of its own.
pub(crate) fn prefix(parser: &mut Parser<'_>) -> Option<Result<Expr>> {
    let Token::Word(word) = &parser.peek_token_ref().token else { return None };
    if word.quote_style.is_some() {
        return None;
    }
    let name = word.value.to_uppercase();
    let read: fn(&mut Parser<'_>, Call) -> Result<Expr> = match (&parser.peek_nth_token_ref(1).token, name.as_str()) {
        (Token::LBracket, "ARRAY" | "MAP") => bracketed,
        (Token::LParen, "EXTRACT") => extract,
        (Token::LParen, "FLOOR" | "CEIL" | "CEILING") => rounded,
        (Token::LParen, "TRIM") => trim,
        (Token::LParen, "SUBSTRING" | "SUBSTR") => substring,
        (Token::LParen, "OVERLAY") => overlay,
        (Token::LParen, "POSITION") => position,
        (Token::LParen, "TIMESTAMPADD" | "TIMESTAMPDIFF") => with_unit,
        (Token::LParen, "JSON_VALUE" | "JSON_QUERY" | "JSON_EXISTS") => super::json_syntax::path_call,
        (Token::LParen, "JSON_OBJECT") => super::json_syntax::object,
        (Token::LParen, "JSON_ARRAY") => super::json_syntax::array,
        (Token::LParen, "JSON_ARRAYAGG") => super::json_syntax::array_of_rows,
        (Token::LParen, "JSON_OBJECTAGG") => super::json_syntax::object_of_rows,
        _ => return None,
    };
    let span = parser.next_token().span;
    Some(read(parser, Call { name, span }))
}

/// Reads `IS [NOT] JSON [VALUE | SCALAR | ARRAY | OBJECT]` behind an expression.
pub(crate) fn infix(parser: &mut Parser<'_>, expr: &Expr) -> Option<Result<Expr>> {
    let word = |parser: &Parser<'_>, ahead: usize, word: &str| is_word(&parser.peek_nth_token_ref(ahead).token, word);
    if !word(parser, 0, "IS") {
        return None;
    }
    let negated = word(parser, 1, "NOT");
    if !word(parser, 1 + usize::from(negated), "JSON") {
        return None;
    }
    let span = parser.next_token().span;
    (0..=usize::from(negated)).for_each(|_| parser.advance_token());
    let kind = ["VALUE", "SCALAR", "ARRAY", "OBJECT"].into_iter().find(|kind| accept(parser, kind)).unwrap_or("VALUE");
    let call = Call { name: "IS JSON".to_owned(), span };
    let is = call.of(vec![expr.clone(), call.text(kind)]);
    Some(Ok(if negated { Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(is) } } else { is }))
}

fn comma(parser: &mut Parser<'_>) -> Result<()> {
    parser.expect_token(&Token::Comma).map(drop)
}

/// The expressions up to the closing parenthesis.
fn rest(parser: &mut Parser<'_>, mut args: Vec<Expr>) -> Result<Vec<Expr>> {
    while parser.consume_token(&Token::Comma) {
        args.push(parser.parse_expr()?);
    }
    close(parser)?;
    Ok(args)
}

/// A unit of time: a word.
fn unit(parser: &mut Parser<'_>, call: &Call) -> Result<Expr> {
    let token = parser.next_token();
    match &token.token {
        Token::Word(word) if word.quote_style.is_none() => {
            let unit = word.value.to_uppercase();
            Ok(call.text(unit.strip_prefix("SQL_TSI_").unwrap_or(&unit)))
        }
        _ => parser.expected("a unit of time, such as HOUR", token),
    }
}

fn extract(parser: &mut Parser<'_>, call: Call) -> Result<Expr> {
    open(parser)?;
    let unit = unit(parser, &call)?;
    expect(parser, "FROM")?;
    let time = parser.parse_expr()?;
    close(parser)?;
    Ok(call.of(vec![unit, time]))
}

fn rounded(parser: &mut Parser<'_>, call: Call) -> Result<Expr> {
    open(parser)?;
    let mut args = vec![parser.parse_expr()?];
    if accept(parser, "TO") {
        args.push(unit(parser, &call)?);
    }
    let args = rest(parser, args)?;
    Ok(call.named(if call.name == "FLOOR" { "FLOOR" } else { "CEIL" }, args))
}

fn trim(parser: &mut Parser<'_>, call: Call) -> Result<Expr> {
    open(parser)?;
    let name = match ["BOTH", "LEADING", "TRAILING"].into_iter().find(|word| accept(parser, word)) {
        Some("LEADING") => "LTRIM",
        Some("TRAILING") => "RTRIM",
        _ => "TRIM",
    };
    if accept(parser, "FROM") {
        let text = parser.parse_expr()?;
        close(parser)?;
        return Ok(call.named(name, vec![text]));
    }
    let first = parser.parse_expr()?;
    let args = if accept(parser, "FROM") { vec![parser.parse_expr()?, first] } else { vec![first] };
    close(parser)?;
    Ok(call.named(name, args))
}

fn substring(parser: &mut Parser<'_>, call: Call) -> Result<Expr> {
    open(parser)?;
    let mut args = vec![parser.parse_expr()?];
    if accept(parser, "FROM") {
        args.push(parser.parse_expr()?);
        if accept(parser, "FOR") {
            args.push(parser.parse_expr()?);
        }
        close(parser)?;
        return Ok(call.of(args));
    }
    Ok(call.of(rest(parser, args)?))
}

fn overlay(parser: &mut Parser<'_>, call: Call) -> Result<Expr> {
    open(parser)?;
    let mut args = vec![parser.parse_expr()?];
    expect(parser, "PLACING")?;
    args.push(parser.parse_expr()?);
    expect(parser, "FROM")?;
    args.push(parser.parse_expr()?);
    if accept(parser, "FOR") {
        args.push(parser.parse_expr()?);
    }
    close(parser)?;
    Ok(call.of(args))
}

fn position(parser: &mut Parser<'_>, call: Call) -> Result<Expr> {
    open(parser)?;
    let mut args = vec![parser.parse_subexpr(IN_PRECEDENCE)?];
    expect(parser, "IN")?;
    args.push(parser.parse_expr()?);
    if accept(parser, "FROM") {
        args.push(parser.parse_expr()?);
    }
    close(parser)?;
    Ok(call.of(args))
}

fn with_unit(parser: &mut Parser<'_>, call: Call) -> Result<Expr> {
    open(parser)?;
    let unit = unit(parser, &call)?;
    comma(parser)?;
    let second = parser.parse_expr()?;
    let args = rest(parser, vec![unit, second])?;
    Ok(call.of(args))
}

/// `ARRAY[a, b]` and `MAP[key, value]`.
fn bracketed(parser: &mut Parser<'_>, call: Call) -> Result<Expr> {
    parser.expect_token(&Token::LBracket)?;
    let args = parser.parse_comma_separated(Parser::parse_expr)?;
    parser.expect_token(&Token::RBracket)?;
    Ok(call.named(&format!("{} []", call.name), args))
}
