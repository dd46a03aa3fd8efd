//! The calls of JSON functions that have clauses: `RETURNING`, `ON EMPTY`, `ON ERROR`, wrappers, `KEY … VALUE`.
//!
//! - `JSON_VALUE(doc, path …)` → `JSON_VALUE [TYPE](doc, path, on empty, default, on error, default)`
//! - `JSON_QUERY(doc, path …)` → `JSON_QUERY(doc, path, wrapper, on empty, on error)`
//! - `JSON_EXISTS(doc, path …)` → `JSON_EXISTS(doc, path, on error)`
//! - `JSON_OBJECT(k VALUE v …)` → `JSON_OBJECT(on null, k, form of v, v, …)`, `JSON_ARRAY(v …)` → `JSON_ARRAY(on null, form of v, v, …)`; the form is
//!   `JSON` for what is JSON already.
//! - `JSON_ARRAYAGG(v …)` → `CONCAT('[', COALESCE(LISTAGG(what JSON_ARRAY(v …) has in its brackets), ''), ']')`, `JSON_OBJECTAGG(k VALUE v …)` likewise.

use sqlparser::ast::{BinaryOperator, DuplicateTreatment, Expr, Function, FunctionArguments};
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

use super::call_syntax::{Call, accept, close, expect, open};
use crate::tokens::is_word;

type Result<T> = std::result::Result<T, ParserError>;

/// What happens when a path finds nothing or fails.
struct Behaviour {
    mode: &'static str,
    default: Expr,
}

pub(super) fn path_call(parser: &mut Parser<'_>, call: Call) -> Result<Expr> {
    open(parser)?;
    let document = parser.parse_expr()?;
    parser.expect_token(&Token::Comma)?;
    let path = parser.parse_expr()?;
    let name = match call.name.as_str() {
        "JSON_VALUE" => returning(parser)?,
        name => name.to_owned(),
    };
    let wrapper = if call.name == "JSON_QUERY" { wrapper(parser)? } else { "WITHOUT" };
    let null = || Behaviour { mode: "NULL", default: call.null() };
    let (mut on_empty, mut on_error) = (null(), null());
    if call.name == "JSON_EXISTS" {
        on_error.mode = "FALSE";
    }
    while parser.peek_token_ref().token != Token::RParen {
        let behaviour = behaviour(parser, &call)?;
        expect(parser, "ON")?;
        if call.name != "JSON_EXISTS" && accept(parser, "EMPTY") {
            on_empty = behaviour;
        } else {
            expect(parser, "ERROR")?;
            on_error = behaviour;
        }
    }
    close(parser)?;
    let mode = |behaviour: &Behaviour| call.text(behaviour.mode);
    let rest = match call.name.as_str() {
        "JSON_VALUE" => vec![mode(&on_empty), on_empty.default, mode(&on_error), on_error.default],
        "JSON_QUERY" => vec![call.text(wrapper), mode(&on_empty), mode(&on_error)],
        _ => vec![mode(&on_error)],
    };
    Ok(call.named(&name, [vec![document, path], rest].concat()))
}

/// `RETURNING type`: the name of the function that gives it.
fn returning(parser: &mut Parser<'_>) -> Result<String> {
    if !accept(parser, "RETURNING") {
        return Ok("JSON_VALUE".to_owned());
    }
    let token = parser.next_token();
    let given = token.token.to_string().to_uppercase();
    let name = match given.as_str() {
        "STRING" | "VARCHAR" => "JSON_VALUE",
        "BOOLEAN" => "JSON_VALUE BOOLEAN",
        "INT" | "INTEGER" => "JSON_VALUE INT",
        "DOUBLE" => "JSON_VALUE DOUBLE",
        _ => return parser.expected("STRING, BOOLEAN, INT or DOUBLE: what JSON_VALUE can return", token),
    };
    Ok(name.to_owned())
}

fn wrapper(parser: &mut Parser<'_>) -> Result<&'static str> {
    let kind = if accept(parser, "WITHOUT") {
        "WITHOUT"
    } else if accept(parser, "WITH") {
        if accept(parser, "CONDITIONAL") {
            "CONDITIONAL"
        } else {
            accept(parser, "UNCONDITIONAL");
            "UNCONDITIONAL"
        }
    } else {
        return Ok("WITHOUT");
    };
    accept(parser, "ARRAY");
    expect(parser, "WRAPPER")?;
    Ok(kind)
}

fn behaviour(parser: &mut Parser<'_>, call: &Call) -> Result<Behaviour> {
    let plain = |mode| Ok(Behaviour { mode, default: call.null() });
    let simple: &[&'static str] = match call.name.as_str() {
        "JSON_EXISTS" => &["TRUE", "FALSE", "UNKNOWN", "ERROR"],
        _ => &["NULL", "ERROR"],
    };
    if let Some(mode) = simple.iter().find(|mode| accept(parser, mode)) {
        return plain(mode);
    }
    if call.name == "JSON_VALUE" && accept(parser, "DEFAULT") {
        // Tighter than anything that could take the ON for its own.
        return Ok(Behaviour { mode: "DEFAULT", default: parser.parse_expr()? });
    }
    if call.name == "JSON_QUERY" && accept(parser, "EMPTY") {
        if accept(parser, "OBJECT") {
            return plain("EMPTY OBJECT");
        }
        expect(parser, "ARRAY")?;
        return plain("EMPTY ARRAY");
    }
    parser.expected_ref("a behaviour ON EMPTY or ON ERROR", parser.peek_token_ref())
}

/// `NULL ON NULL` or `ABSENT ON NULL`, if one stands here.
fn on_null(parser: &mut Parser<'_>) -> Option<&'static str> {
    for mode in ["NULL", "ABSENT"] {
        let words = [mode, "ON", "NULL"];
        if words.iter().enumerate().all(|(at, word)| is_word(&parser.peek_nth_token_ref(at).token, word)) {
            words.iter().for_each(|_| parser.advance_token());
            return Some(mode);
        }
    }
    None
}

/// A value, and the text that says whether it is JSON already.
fn value(parser: &mut Parser<'_>, call: &Call) -> Result<[Expr; 2]> {
    if is_word(&parser.peek_token_ref().token, "JSON") && parser.peek_nth_token_ref(1).token == Token::LParen {
        parser.advance_token();
        open(parser)?;
        let document = parser.parse_expr()?;
        close(parser)?;
        return Ok([call.text("DOCUMENT"), document]);
    }
    let value = parser.parse_expr()?;
    let constructs = |name: &str| matches!(name, "JSON_OBJECT" | "JSON_ARRAY");
    let is_json = matches!(&value, Expr::Function(Function { name, .. }) if constructs(&name.to_string()));
    Ok([call.text(if is_json { "JSON" } else { "VALUE" }), value])
}

pub(super) fn object(parser: &mut Parser<'_>, call: Call) -> Result<Expr> {
    open(parser)?;
    let mut mode = "NULL";
    let mut args = Vec::new();
    while parser.peek_token_ref().token != Token::RParen {
        accept(parser, "KEY");
        args.push(parser.parse_expr()?);
        if !parser.consume_token(&Token::Colon) {
            expect(parser, "VALUE")?;
        }
        args.extend(value(parser, &call)?);
        if let Some(given) = on_null(parser) {
            mode = given;
            break;
        }
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    close(parser)?;
    args.insert(0, call.text(mode));
    Ok(call.of(args))
}

pub(super) fn array(parser: &mut Parser<'_>, call: Call) -> Result<Expr> {
    open(parser)?;
    let mut mode = "ABSENT";
    let mut args = Vec::new();
    while parser.peek_token_ref().token != Token::RParen {
        args.extend(value(parser, &call)?);
        if let Some(given) = on_null(parser) {
            mode = given;
            break;
        }
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    close(parser)?;
    args.insert(0, call.text(mode));
    Ok(call.of(args))
}

pub(super) fn array_of_rows(parser: &mut Parser<'_>, call: Call) -> Result<Expr> {
    open(parser)?;
    let is_distinct = accept(parser, "DISTINCT");
    let [form, value] = value(parser, &call)?;
    let mode = call.text(on_null(parser).unwrap_or("ABSENT"));
    close(parser)?;
    of_rows(parser, &call, call.named("JSON_ARRAY", vec![mode, form, value]), is_distinct, ["[", "]"])
}

pub(super) fn object_of_rows(parser: &mut Parser<'_>, call: Call) -> Result<Expr> {
    open(parser)?;
    accept(parser, "KEY");
    let key = parser.parse_expr()?;
    if !parser.consume_token(&Token::Colon) {
        expect(parser, "VALUE")?;
    }
    let [form, value] = value(parser, &call)?;
    let mode = call.text(on_null(parser).unwrap_or("NULL"));
    close(parser)?;
    of_rows(parser, &call, call.named("JSON_OBJECT", vec![mode, key, form, value]), false, ["{", "}"])
}

/// The insides of what is built of each row, in one pair of brackets.
fn of_rows(
    parser: &mut Parser<'_>,
    call: &Call,
    of_row: Expr,
    is_distinct: bool,
    [opening, closing]: [&str; 2],
) -> Result<Expr> {
    let length = call.named("CHAR_LENGTH", vec![of_row.clone()]);
    let two = || call.number(2);
    let inner = Expr::BinaryOp { left: Box::new(length), op: BinaryOperator::Minus, right: Box::new(two()) };
    let inside = call.named("SUBSTRING", vec![of_row, two(), inner]);
    // A null that is left out leaves nothing.
    let inside = call.named("NULLIF", vec![inside, call.text("")]);
    let mut joined = call.named("LISTAGG", vec![inside, call.text(",")]);
    if let Expr::Function(function) = &mut joined {
        if let FunctionArguments::List(list) = &mut function.args {
            list.duplicate_treatment = is_distinct.then_some(DuplicateTreatment::Distinct);
        }
        function.filter = filter(parser)?;
    }
    let joined = call.named("COALESCE", vec![joined, call.text("")]);
    Ok(call.named("CONCAT", vec![call.text(opening), joined, call.text(closing)]))
}

/// `FILTER (WHERE condition)`, if it stands here.
fn filter(parser: &mut Parser<'_>) -> Result<Option<Box<Expr>>> {
    if !is_word(&parser.peek_token_ref().token, "FILTER") || parser.peek_nth_token_ref(1).token != Token::LParen {
        return Ok(None);
    }
    parser.advance_token();
    open(parser)?;
    expect(parser, "WHERE")?;
    let condition = parser.parse_expr()?;
    close(parser)?;
    Ok(Some(Box::new(condition)))
}
