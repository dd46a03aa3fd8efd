//! Parses one statement. Queries and expressions are sqlparser's; what Flink wraps around them is read here.

use std::ops::ControlFlow;
use std::sync::Arc;

use sqlparser::ast::{Ident, Query, SetExpr, SetOperator, SetQuantifier, Spanned, Values, VisitMut, VisitorMut};
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Span, Token, TokenWithSpan};

use crate::create_table;
use crate::dialect::{FlinkDialect, balanced};
use crate::error::{Fault, Result, Source};
use crate::foreign;
use crate::limits::{OPERATIONS_MAX, PARSER_DEPTH_MAX};
use crate::script::{is_word, parser_fault};
use crate::statement::{Body, CreateView, Insert, Relation, Show};

/// A cursor over the words of a statement.
pub(crate) struct Words<'a> {
    parser: Parser<'a>,
    tokens: Vec<TokenWithSpan>,
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
        let last = self.index().checked_sub(1).and_then(|last| self.tokens.get(last)).map_or(first, |token| token.span);
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
    fn text_or_raw(&mut self, end: &Token, what: &str) -> Result<Ident> {
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
    let expected: &[&str] = if names.len() > 1 { &[foreign::CATALOG, foreign::DATABASE] } else { &[foreign::DATABASE] };
    let wrong = names.iter().enumerate().find(|(index, name)| expected.get(*index) != Some(&name.value.as_str()));
    let Some((_, name)) = wrong else { return Ok(()) };
    let message = format!("'{}.…' names another catalog or database than there is", name.value);
    Err(Fault::new(message).at(name.span).help(format!(
        "write the table's name alone; in front of it may stand {}.{}",
        foreign::CATALOG,
        foreign::DATABASE
    )))
}

/// Parses all of a statement's words.
pub(crate) fn statement(tokens: &[TokenWithSpan], source: &Arc<Source>) -> Result<Body> {
    let mut words = Words::new(tokens, source);
    let body = body(&mut words, tokens)?;
    words.end()?;
    Ok(body)
}

fn body(words: &mut Words<'_>, tokens: &[TokenWithSpan]) -> Result<Body> {
    if let Some(body) = foreign::statement(words)? {
        return Ok(body);
    }
    if words.accept("CREATE") {
        return create(words);
    }
    if words.accept("DROP") {
        words.accept("TEMPORARY");
        let what = relation(words)?;
        let if_exists = words.accept_all(&["IF", "EXISTS"]);
        return Ok(Body::Drop { what, name: table_name(words)?, if_exists });
    }
    if words.accept("SET") {
        if words.peek() == Token::EOF {
            return Ok(Body::Set(None));
        }
        let key = words.text_or_raw(&Token::Eq, "a setting's name in single quotes")?;
        words.expect(&Token::Eq)?;
        let value = words.text_or_raw(&Token::EOF, "a value in single quotes")?;
        return Ok(Body::Set(Some((key, value))));
    }
    if words.accept("RESET") {
        let all = words.peek() == Token::EOF;
        let key = (!all).then(|| words.text_or_raw(&Token::EOF, "a setting's name in single quotes")).transpose()?;
        return Ok(Body::Reset(key));
    }
    if words.accept("SHOW") {
        return show(words);
    }
    if words.accept("DESCRIBE") || words.accept("DESC") {
        return Ok(Body::Describe(table_name(words)?));
    }
    if words.accept("EXPLAIN") {
        // The kinds of changes are always shown.
        words.accept("CHANGELOG_MODE");
        words.accept_all(&["PLAN", "FOR"]);
        let next = words.peek();
        let begins = |word| is_word(&next, word);
        if !is_query(&next) && !["INSERT", "EXECUTE", "STATEMENT", "BEGIN"].into_iter().any(begins) {
            return Err(words.unexpected("a query or INSERT INTO"));
        }
        return Ok(Body::Explain(Box::new(body(words, tokens)?)));
    }
    if words.accept("INSERT") {
        return Ok(Body::Insert(insert(words, tokens)?));
    }
    if words.accept_all(&["EXECUTE", "STATEMENT", "SET"]) || words.accept_all(&["STATEMENT", "SET"]) {
        words.expect_word("BEGIN")?;
        return statement_set(words, tokens);
    }
    if words.accept_all(&["BEGIN", "STATEMENT", "SET"]) {
        words.accept_token(&Token::SemiColon);
        return statement_set(words, tokens);
    }
    if words.accept("EXECUTE") {
        if words.accept("INSERT") {
            return Ok(Body::Insert(insert(words, tokens)?));
        }
        if !is_query(&words.peek()) {
            return Err(words.unexpected("INSERT INTO, a query or STATEMENT SET BEGIN"));
        }
    }
    if is_query(&words.peek()) {
        return Ok(Body::Query(query(words)?));
    }
    Err(words.unexpected("a statement").help(
        "statements: CREATE TABLE, CREATE VIEW, INSERT INTO, SELECT, EXPLAIN, EXECUTE STATEMENT SET, SET, RESET, SHOW, DESCRIBE, DROP",
    ))
}

fn is_query(token: &Token) -> bool {
    ["SELECT", "WITH", "VALUES"].iter().any(|word| is_word(token, word)) || *token == Token::LParen
}

fn relation(words: &mut Words<'_>) -> Result<Relation> {
    if words.accept("TABLE") {
        Ok(Relation::Table)
    } else if words.accept("VIEW") {
        Ok(Relation::View)
    } else {
        Err(words.unexpected("TABLE or VIEW"))
    }
}

fn create(words: &mut Words<'_>) -> Result<Body> {
    let or_replace = words.accept_all(&["OR", "REPLACE"]);
    words.accept("TEMPORARY");
    match relation(words)? {
        Relation::Table => Ok(Body::CreateTable(Box::new(create_table::parse(words)?))),
        Relation::View => {
            let if_not_exists = words.accept_all(&["IF", "NOT", "EXISTS"]);
            let name = table_name(words)?;
            let columns = if words.peek() == Token::LParen { words.names("a column's name")? } else { Vec::new() };
            if words.accept("COMMENT") {
                words.text("a comment in single quotes")?;
            }
            words.expect_word("AS")?;
            let query = query(words)?;
            let text = words.source.slice(words.span_since(0)).to_owned();
            Ok(Body::CreateView(CreateView { name, if_not_exists, or_replace, columns, query, text }))
        }
    }
}

fn show(words: &mut Words<'_>) -> Result<Body> {
    let lists: [(&[&str], Show); 9] = [
        (&["TABLES"], Show::Tables),
        (&["VIEWS"], Show::Views),
        (&["FUNCTIONS"], Show::Functions),
        (&["CATALOGS"], Show::Catalogs),
        (&["CURRENT", "CATALOG"], Show::Catalogs),
        (&["DATABASES"], Show::Databases),
        (&["CURRENT", "DATABASE"], Show::Databases),
        (&["JARS"], Show::Jars),
        (&["MODULES"], Show::Modules),
    ];
    for (names, show) in lists {
        if words.accept_all(names) {
            return Ok(Body::Show(show));
        }
    }
    if words.accept("CREATE") {
        return Ok(Body::ShowCreate(relation(words)?, table_name(words)?));
    }
    Err(words.unexpected("TABLES, VIEWS, FUNCTIONS, CREATE TABLE or CREATE VIEW"))
}

fn insert(words: &mut Words<'_>, tokens: &[TokenWithSpan]) -> Result<Insert> {
    if words.accept("OVERWRITE") {
        let span = words.span_since(words.index() - 1);
        return Err(Fault::new("INSERT OVERWRITE replaces a table, which a stream cannot do")
            .at(span)
            .help("write INSERT INTO"));
    }
    words.expect_word("INTO")?;
    words.accept("TABLE");
    let table = table_name(words)?;
    let columns = if words.peek() == Token::LParen { words.names("a column's name")? } else { Vec::new() };
    if !is_query(&words.peek()) {
        return Err(words.unexpected("a query"));
    }
    Ok(Insert { table, columns, query: query(words)?, tokens: Arc::new(tokens.to_vec()) })
}

/// `INSERT …; INSERT …; END`: every INSERT is parsed by itself, so that faults are found in the right one.
fn statement_set(words: &mut Words<'_>, tokens: &[TokenWithSpan]) -> Result<Body> {
    let mut inserts = Vec::new();
    while !words.accept("END") {
        let start = words.index();
        let is_end = |token: &TokenWithSpan| token.token == Token::SemiColon;
        let Some(length) = tokens[start..].iter().position(is_end) else {
            return Err(words.unexpected("INSERT INTO …; or END"));
        };
        let part = &tokens[start..start + length];
        let mut inner = Words::new(part, words.source);
        inner.expect_word("INSERT")?;
        inserts.push(insert(&mut inner, part)?);
        inner.end()?;
        // By index, as a hint is no word.
        while words.index() <= start + length {
            words.next();
        }
    }
    if inserts.is_empty() {
        return Err(
            Fault::new("the statement set is empty").help("write at least one INSERT INTO between BEGIN and END")
        );
    }
    Ok(Body::StatementSet(inserts))
}

/// The rest of the words, as a query.
///
/// `TUMBLE(TABLE t, …)`: sqlparser knows no `TABLE` among arguments, so it is left out. What remains, `TUMBLE(t, …)`, has one meaning, as a function of a
/// relation cannot take a column there.
pub(crate) fn query(words: &mut Words<'_>) -> Result<Box<Query>> {
    let start = words.index();
    let rest = &words.tokens[start..];
    let mut kept = Vec::with_capacity(rest.len());
    for (index, token) in rest.iter().enumerate() {
        let after = index.checked_sub(1).map(|before| &rest[before].token);
        let is_argument = matches!(after, Some(Token::LParen | Token::RArrow | Token::Comma));
        let names = rest.get(index + 1).is_some_and(|next| matches!(&next.token, Token::Word(_)));
        if !(is_word(&token.token, "TABLE") && is_argument && names) {
            kept.push(token.clone());
        }
    }
    let mut parser = Parser::new(&FlinkDialect).with_recursion_limit(PARSER_DEPTH_MAX).with_tokens_with_locations(kept);
    let parsed = parser.parse_query();
    let mut query = parsed.map_err(|error| parser_fault(&error, parser.get_current_token(), &words.tokens))?;
    let end = parser.peek_token();
    if end.token != Token::EOF {
        return Err(Fault::new(format!("expected the end of the query, found '{}'", end.token)).at(end.span));
    }
    while words.next().token != Token::EOF {}
    match query.visit(&mut BalanceUnions) {
        ControlFlow::Break(fault) => Err(fault),
        ControlFlow::Continue(()) => Ok(query),
    }
}

/// Turns `a UNION ALL b UNION ALL c …`, which is parsed to a tree as deep as the chain is long, into a balanced tree.
struct BalanceUnions;

impl VisitorMut for BalanceUnions {
    type Break = Fault;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Fault> {
        let mut terms = Vec::new();
        let nothing = SetExpr::Values(Values { explicit_row: false, value_keyword: false, rows: Vec::new() });
        let mut body = std::mem::replace(query.body.as_mut(), nothing);
        let mut others = 0;
        loop {
            match body {
                SetExpr::SetOperation { op: SetOperator::Union, set_quantifier: SetQuantifier::All, left, right } => {
                    terms.push(*right);
                    body = *left;
                }
                other => {
                    terms.push(other);
                    break;
                }
            }
        }
        let mut rest = terms.last();
        while let Some(SetExpr::SetOperation { left, right, .. }) = rest {
            others += 1;
            if others > OPERATIONS_MAX {
                let message = format!("more than {OPERATIONS_MAX} queries are joined by UNION, INTERSECT or EXCEPT");
                return ControlFlow::Break(Fault::new(message).at(right.span()).help("write UNION ALL, or split it"));
            }
            rest = Some(left);
        }
        terms.reverse();
        *query.body = balanced(terms, &|left, right| SetExpr::SetOperation {
            op: SetOperator::Union,
            set_quantifier: SetQuantifier::All,
            left: Box::new(left),
            right: Box::new(right),
        });
        ControlFlow::Continue(())
    }
}
