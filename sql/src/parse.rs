//! Parses one statement. Queries and expressions are sqlparser's; what Flink wraps around them is read here.

use std::ops::ControlFlow;
use std::sync::Arc;

use sqlparser::ast::{Ident, Query, SetExpr, SetOperator, SetQuantifier, Spanned, Values, VisitMut, VisitorMut};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::alter_table;
use crate::create_table;
use crate::create_text::create_view_text;
use crate::dialect::{FlinkDialect, balanced};
use crate::error::{Fault, Result, Source};
use crate::foreign;
use crate::limits::{OPERATIONS_MAX, PARSER_DEPTH_MAX};
use crate::parser_fault::parser_fault;
use crate::statement::{AlterView, Body, CreateTable, CreateView, Insert, NamePattern, Relation, Show};
use crate::table_arguments;
use crate::tokens::is_word;
use crate::words::{Words, check_qualifiers, ident, table_name};

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
    if words.accept_all(&["ALTER", "TABLE"]) {
        return Ok(Body::AlterTable(alter_table::parse(words)?));
    }
    if words.accept_all(&["ALTER", "VIEW"]) {
        return Ok(Body::AlterView(alter_view(words)?));
    }
    if words.accept("DROP") {
        let is_temporary = words.accept("TEMPORARY");
        let what = relation(words)?;
        let if_exists = words.accept_all(&["IF", "EXISTS"]);
        return Ok(Body::Drop { what, is_temporary, name: table_name(words)?, if_exists });
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
        if matches!(words.peek(), Token::SingleQuotedString(_)) {
            return Ok(Body::DescribeFile(words.text("a file")?));
        }
        return Ok(Body::Describe(table_name(words)?));
    }
    if words.accept("EXPLAIN") {
        // The kinds of changes are always shown.
        words.accept("CHANGELOG_MODE");
        words.accept_all(&["PLAN", "FOR"]);
        let analyzes = words.accept("ANALYZE");
        let next = words.peek();
        if analyzes {
            if !is_query(&next) {
                return Err(words
                    .unexpected("a query")
                    .help("`coulee job show NAME` shows what the job of an INSERT does"));
            }
            return Ok(Body::Analyze(query(words)?));
        }
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
    let is_temporary = words.accept("TEMPORARY");
    match relation(words)? {
        Relation::Table => {
            let create = create_table::parse(words, query)?;
            Ok(Body::CreateTable(Box::new(CreateTable { is_temporary, ..create })))
        }
        Relation::View => {
            let if_not_exists = words.accept_all(&["IF", "NOT", "EXISTS"]);
            let name = table_name(words)?;
            let columns = if words.peek() == Token::LParen { words.names("a column's name")? } else { Vec::new() };
            if words.accept("COMMENT") {
                words.text("a comment in single quotes")?;
            }
            words.expect_word("AS")?;
            let start = words.index();
            let query = query(words)?;
            let query_text = words.source.slice(words.span_since(start)).to_owned();
            let text = words.source.slice(words.span_since(0)).to_owned();
            Ok(Body::CreateView(CreateView {
                name,
                is_temporary,
                if_not_exists,
                or_replace,
                columns,
                query,
                query_text,
                text,
            }))
        }
    }
}

fn alter_view(words: &mut Words<'_>) -> Result<AlterView> {
    let name = table_name(words)?;
    if words.accept_all(&["RENAME", "TO"]) {
        return Ok(AlterView::RenameTo { name, to: table_name(words)? });
    }
    if !words.accept("AS") {
        return Err(words.unexpected("RENAME TO or AS"));
    }
    let start = words.index();
    let query = query(words)?;
    let query_text = words.source.slice(words.span_since(start)).to_owned();
    let mut view = CreateView {
        name,
        is_temporary: false,
        if_not_exists: false,
        or_replace: true,
        columns: Vec::new(),
        query,
        query_text,
        text: String::new(),
    };
    view.text = create_view_text(&view, &view.name);
    Ok(AlterView::As(view))
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
            if matches!(show, Show::Tables | Show::Views) && (words.accept("FROM") || words.accept("IN")) {
                check_qualifiers(&qualified(words)?)?;
            }
            return Ok(Body::Show(show, like(words)?));
        }
    }
    if words.accept("COLUMNS") {
        if !words.accept("FROM") && !words.accept("IN") {
            return Err(words.unexpected("FROM"));
        }
        return Ok(Body::ShowColumns(table_name(words)?, like(words)?));
    }
    if words.accept("CREATE") {
        return Ok(Body::ShowCreate(relation(words)?, table_name(words)?));
    }
    Err(words.unexpected("TABLES, VIEWS, COLUMNS, FUNCTIONS, CREATE TABLE or CREATE VIEW"))
}

/// `[NOT] LIKE 'pattern'`, if it stands there.
fn like(words: &mut Words<'_>) -> Result<Option<NamePattern>> {
    let is_negated = words.accept("NOT");
    if !is_negated && !is_word(&words.peek(), "LIKE") && !is_word(&words.peek(), "ILIKE") {
        return Ok(None);
    }
    let ignores_case = words.accept("ILIKE");
    if !ignores_case {
        words.expect_word("LIKE")?;
    }
    Ok(Some(NamePattern { pattern: words.text("a pattern in single quotes")?.value, is_negated, ignores_case }))
}

/// `database` or `catalog.database`.
fn qualified(words: &mut Words<'_>) -> Result<Vec<Ident>> {
    let mut names = vec![ident(words, "a database")?];
    while words.accept_token(&Token::Period) {
        names.push(ident(words, "a database")?);
    }
    Ok(names)
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
pub(crate) fn query(words: &mut Words<'_>) -> Result<Box<Query>> {
    let kept = table_arguments::spelled(&words.tokens[words.index()..]);
    let mut parser = Parser::new(&FlinkDialect).with_recursion_limit(PARSER_DEPTH_MAX).with_tokens_with_locations(kept);
    let parsed = parser.parse_query();
    let no_pattern = |fault: Fault| pattern_fault(&words.tokens).unwrap_or(fault);
    let mut query =
        parsed.map_err(|error| no_pattern(parser_fault(&error, parser.get_current_token(), &words.tokens)))?;
    let end = parser.peek_token();
    if end.token != Token::EOF {
        let fault = Fault::new(format!("expected the end of the query, found '{}'", end.token)).at(end.span);
        return Err(no_pattern(fault));
    }
    while words.next().token != Token::EOF {}
    match query.visit(&mut BalanceUnions) {
        ControlFlow::Break(fault) => Err(fault),
        ControlFlow::Continue(()) => Ok(query),
    }
}

/// What is said of `MATCH_RECOGNIZE (…)`, instead of a word that was not expected.
fn pattern_fault(tokens: &[TokenWithSpan]) -> Option<Fault> {
    let pattern = tokens.iter().find(|token| is_word(&token.token, "MATCH_RECOGNIZE"))?;
    Some(Fault::new("MATCH_RECOGNIZE comes in a later version").at(pattern.span).help(
        "LAG(x) OVER (PARTITION BY key ORDER BY time) compares a row with those before; a join of the table with itself within an INTERVAL finds pairs",
    ))
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
