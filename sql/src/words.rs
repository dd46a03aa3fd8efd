//! A cursor over the words of a statement, and the names that statements are made of.

use std::sync::Arc;

use sqlparser::ast::Ident;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Span, Token, TokenWithSpan};

use crate::dialect::FlinkDialect;
use crate::error::{Fault, Result, Source};
use crate::limits::PARSER_DEPTH_MAX;
use crate::parser_fault::parser_fault;
use crate::tokens::is_word;

/// The table function that `GROUP BY SESSION(…)` becomes. No function of SQL has a blank in its name.
pub(crate) const SESSIONS: &str = "sessions by the keys of the group";

/// How the parser is told of `TABLE t PARTITION BY a, b`: as a call of this name with the table and the columns.
pub(crate) const PARTITIONED: &str = "table partition by";

/// The catalog and the database that there are, as Flink's are called.
pub(crate) const CATALOG: &str = "default_catalog";
pub(crate) const DATABASE: &str = "default_database";

/// A cursor over the words of a statement.
pub(crate) struct Words<'a> {
    parser: Parser<'a>,
    pub tokens: Vec<TokenWithSpan>,
    pub source: &'a Arc<Source>,
}

impl<'a> Words<'a> {
    pub fn new(tokens: &[TokenWithSpan], source: &'a Arc<Source>) -> Self {
        let parser = Parser::new(&FlinkDialect).with_recursion_limit(PARSER_DEPTH_MAX);
        Words { parser: parser.with_tokens_with_locations(tokens.to_vec()), tokens: tokens.to_vec(), source }
    }

    /// Runs a piece of sqlparser's grammar.
    pub fn parse<T>(&mut self, read: impl FnOnce(&mut Parser<'a>) -> Result<T, ParserError>) -> Result<T> {
        read(&mut self.parser).map_err(|error| parser_fault(&error, self.parser.get_current_token(), &self.tokens))
    }

    pub fn peek(&self) -> Token {
        self.parser.peek_token().token
    }

    /// The place of the next word; of the last one at the end.
    pub fn peek_span(&self) -> Span {
        let next = self.parser.peek_token();
        let last = self.tokens.last().map_or(Span::empty(), |token| token.span);
        if next.token == Token::EOF { last } else { next.span }
    }

    pub fn next(&mut self) -> TokenWithSpan {
        self.parser.next_token()
    }

    pub fn index(&self) -> usize {
        self.parser.index()
    }

    /// Where the words from one index up to the cursor stand.
    pub fn span_since(&self, index: usize) -> Span {
        let first = self.tokens.get(index).map_or(Span::empty(), |token| token.span);
        // At the end the cursor may be behind the last word.
        let last = self
            .index()
            .min(self.tokens.len())
            .checked_sub(1)
            .and_then(|last| self.tokens.get(last))
            .map_or(first, |token| token.span);
        Span::new(first.start, last.end)
    }

    pub fn accept(&mut self, word: &str) -> bool {
        self.accept_all(&[word])
    }

    /// Takes these words, or nothing.
    pub fn accept_all(&mut self, words: &[&str]) -> bool {
        let found =
            words.iter().enumerate().all(|(ahead, word)| is_word(&self.parser.peek_nth_token(ahead).token, word));
        if found {
            words.iter().for_each(|_| self.parser.advance_token());
        }
        found
    }

    pub fn accept_token(&mut self, token: &Token) -> bool {
        self.parser.consume_token(token)
    }

    pub fn expect(&mut self, token: &Token) -> Result<()> {
        if self.accept_token(token) { Ok(()) } else { Err(self.unexpected(&format!("'{token}'"))) }
    }

    pub fn expect_word(&mut self, word: &str) -> Result<()> {
        if self.accept(word) { Ok(()) } else { Err(self.unexpected(word)) }
    }

    pub fn unexpected(&self, expected: &str) -> Fault {
        let found = match self.peek() {
            Token::EOF => "the end of the statement".to_owned(),
            token => format!("'{token}'"),
        };
        Fault::new(format!("expected {expected}, found {found}")).at(self.peek_span())
    }

    pub fn end(&self) -> Result<()> {
        if self.peek() == Token::EOF { Ok(()) } else { Err(self.unexpected("the end of the statement")) }
    }

    pub fn number(&mut self) -> Result<u64> {
        let fault = self.unexpected("a whole number");
        match self.next().token {
            Token::Number(text, _) => text.parse().map_err(|_| fault),
            _ => Err(fault),
        }
    }

    /// A text in single quotes, with its place.
    pub fn text(&mut self, what: &str) -> Result<Ident> {
        let fault = self.unexpected(what);
        let token = self.next();
        match token.token {
            Token::SingleQuotedString(value) => Ok(Ident { value, quote_style: None, span: token.span }),
            _ => Err(fault),
        }
    }

    /// Skips what is left.
    pub fn skip_rest(&mut self) {
        while self.next().token != Token::EOF {}
    }

    /// Words up to `end` or the end of the statement, as they are written.
    fn raw(&mut self, end: &Token, what: &str) -> Result<Ident> {
        let start = self.index();
        let fault = self.unexpected(what);
        while self.peek() != *end && self.peek() != Token::EOF {
            self.next();
        }
        if self.index() == start {
            return Err(fault);
        }
        let span = self.span_since(start);
        let value = self.source.slice(span).trim();
        let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
        Ok(Ident { value: value.to_owned(), quote_style: None, span })
    }

    /// A text in single quotes, or words up to `end` as older SQL clients take them: `SET parallelism.default = 4`.
    pub fn text_or_raw(&mut self, end: &Token, what: &str) -> Result<Ident> {
        let after = self.parser.peek_nth_token(1).token;
        let is_text = matches!(self.peek(), Token::SingleQuotedString(_)) && (after == *end || after == Token::EOF);
        if is_text { self.text(what) } else { self.raw(end, what) }
    }

    /// Skips a field's comment: a text.
    pub fn comment_text(&mut self) {
        if matches!(self.peek(), Token::SingleQuotedString(_)) {
            self.next();
        }
    }

    /// `( a, b, … )`.
    pub fn names(&mut self, what: &str) -> Result<Vec<Ident>> {
        self.expect(&Token::LParen)?;
        let mut names = vec![ident(self, what)?];
        while self.accept_token(&Token::Comma) {
            names.push(ident(self, what)?);
        }
        self.expect(&Token::RParen)?;
        Ok(names)
    }
}

/// A name, with or without backticks.
pub(crate) fn ident(words: &mut Words<'_>, what: &str) -> Result<Ident> {
    let fault = words.unexpected(what);
    let token = words.next();
    match token.token {
        Token::Word(word) => Ok(word.into_ident(token.span)),
        _ => Err(fault),
    }
}

/// The name of a table or view. A catalog in front of it is refused: there is only one.
pub(crate) fn table_name(words: &mut Words<'_>) -> Result<Ident> {
    let (mut qualifiers, mut name) = (Vec::new(), ident(words, "a name")?);
    while words.accept_token(&Token::Period) {
        qualifiers.push(std::mem::replace(&mut name, ident(words, "a name")?));
    }
    check_qualifiers(&qualifiers)?;
    Ok(name)
}

/// What stands in front of a table's name: nothing, or the catalog and the database that there are.
pub(crate) fn check_qualifiers(names: &[Ident]) -> Result<()> {
    let expected: &[&str] = if names.len() > 1 { &[CATALOG, DATABASE] } else { &[DATABASE] };
    let wrong = names.iter().enumerate().find(|(index, name)| expected.get(*index) != Some(&name.value.as_str()));
    let Some((_, name)) = wrong else { return Ok(()) };
    let message = format!("'{}.…' names another catalog or database than there is", name.value);
    Err(Fault::new(message)
        .at(name.span)
        .help(format!("write the table's name alone; in front of it may stand {}.{}", CATALOG, DATABASE)))
}
