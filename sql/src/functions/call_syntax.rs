//! What the syntax of every call is read with.

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName, Value,
    ValueWithSpan,
};
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Span, Token};

use crate::tokens::is_word;

type Result<T> = std::result::Result<T, ParserError>;

/// The name of a call that is being read, and where it stands.
pub(super) struct Call {
    pub name: String,
    pub span: Span,
}

impl Call {
    pub fn of(&self, args: Vec<Expr>) -> Expr {
        self.named(&self.name, args)
    }

    pub fn named(&self, name: &str, args: Vec<Expr>) -> Expr {
        call_of(Ident::with_span(self.span, name), args)
    }

    pub fn text(&self, text: &str) -> Expr {
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text.to_owned()), span: self.span })
    }

    pub fn number(&self, number: u32) -> Expr {
        Expr::Value(ValueWithSpan { value: Value::Number(number.to_string(), false), span: self.span })
    }

    pub fn null(&self) -> Expr {
        Expr::Value(ValueWithSpan { value: Value::Null, span: self.span })
    }
}

/// A call of a function.
pub(crate) fn call_of(name: Ident, args: Vec<Expr>) -> Expr {
    let args = args.into_iter().map(|expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![name]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// Takes a word, if it is the next.
pub(super) fn accept(parser: &mut Parser<'_>, word: &str) -> bool {
    let found = is_word(&parser.peek_token_ref().token, word);
    if found {
        parser.advance_token();
    }
    found
}

pub(super) fn expect(parser: &mut Parser<'_>, word: &str) -> Result<()> {
    if accept(parser, word) { Ok(()) } else { parser.expected_ref(word, parser.peek_token_ref()) }
}

pub(super) fn open(parser: &mut Parser<'_>) -> Result<()> {
    parser.expect_token(&Token::LParen).map(drop)
}

pub(super) fn close(parser: &mut Parser<'_>) -> Result<()> {
    parser.expect_token(&Token::RParen).map(drop)
}
