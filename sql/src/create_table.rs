//! Parses `CREATE TABLE`, which in Flink holds much that sqlparser does not know.

use sqlparser::ast::Query;
use sqlparser::tokenizer::Token;

use crate::error::{Fault, Result};
use crate::like;
use crate::statement::{ColumnDef, ColumnDefKind, CreateTable, Distribution, WatermarkDef};
use crate::tokens::is_word;
use crate::types::{not_null, parse_expr, parse_type};
use crate::words::{Words, ident, table_name};

/// What stands behind `CREATE TABLE`. `query` reads the query behind `AS`.
pub(crate) fn parse(
    words: &mut Words<'_>,
    query: impl FnOnce(&mut Words<'_>) -> Result<Box<Query>>,
) -> Result<CreateTable> {
    let if_not_exists = words.accept_all(&["IF", "NOT", "EXISTS"]);
    let mut table = CreateTable { if_not_exists, ..CreateTable::empty(table_name(words)?) };
    // Without columns it is `CREATE TABLE t [WITH (…)] AS query` or `CREATE TABLE t LIKE other`.
    let has_columns = !["WITH", "AS", "LIKE", "COMMENT"].iter().any(|word| is_word(&words.peek(), word));
    if has_columns {
        elements(words, &mut table)?;
    }
    clauses(words, &mut table)?;
    if words.accept("AS") {
        let span = words.span_since(words.index() - 1);
        if has_columns || if_not_exists {
            let what = if has_columns { "columns" } else { "IF NOT EXISTS" };
            return Err(Fault::new(format!("CREATE TABLE … AS takes no {what}"))
                .at(span)
                .help("write CREATE TABLE t WITH (…) AS SELECT …; or CREATE TABLE with columns, and then INSERT INTO t SELECT …"));
        }
        table.query = Some(query(words)?);
    } else if words.accept("LIKE") {
        table.like = Some(like::parse(words)?);
    } else if !has_columns {
        return Err(Fault::new(format!("table '{}' has no columns", table.name.value))
            .at(table.name.span)
            .help("write them in brackets behind the name: CREATE TABLE t (a INT, b STRING)"));
    }
    table.text = words.source.slice(words.span_since(0)).to_owned();
    Ok(table)
}

/// Columns, the watermark and the primary key, in brackets.
pub(crate) fn elements(words: &mut Words<'_>, table: &mut CreateTable) -> Result<()> {
    words.expect(&Token::LParen)?;
    loop {
        element(words, table)?;
        if !words.accept_token(&Token::Comma) {
            break;
        }
    }
    words.expect(&Token::RParen)
}

/// A column, the watermark, or the primary key.
pub(crate) fn element(words: &mut Words<'_>, table: &mut CreateTable) -> Result<()> {
    if words.accept_all(&["WATERMARK", "FOR"]) {
        let watermark = watermark(words)?;
        if table.watermark.is_some() {
            return Err(Fault::new("a table has one watermark at most").at(watermark.span));
        }
        table.watermark = Some(watermark);
        return Ok(());
    }
    if words.accept("CONSTRAINT") {
        ident(words, "a constraint's name")?;
        words.expect_word("PRIMARY")?;
        return primary_key(words, table);
    }
    if words.accept_all(&["PRIMARY", "KEY"]) {
        return key_columns(words, table);
    }
    let name = ident(words, "a column's name")?;
    if words.accept("AS") {
        let kind = ColumnDefKind::Computed(Box::new(parse_expr(words)?));
        table.columns.push(ColumnDef { name, comment: comment(words)?, kind });
        return Ok(());
    }
    let data_type = parse_type(words)?;
    let mut nullable = !not_null(words);
    if words.accept("METADATA") {
        let from = words.accept("FROM");
        let key = from.then(|| words.text("a metadata key in single quotes")).transpose()?.map(|key| key.value);
        let is_virtual = words.accept("VIRTUAL");
        let kind = ColumnDefKind::Metadata { data_type, nullable, key, is_virtual };
        table.columns.push(ColumnDef { name, comment: comment(words)?, kind });
        return Ok(());
    }
    if words.accept_all(&["PRIMARY", "KEY"]) {
        not_enforced(words)?;
        table.primary_key.push(name.clone());
        nullable = false;
    }
    let kind = ColumnDefKind::Physical { data_type, nullable };
    table.columns.push(ColumnDef { name, comment: comment(words)?, kind });
    Ok(())
}

fn watermark(words: &mut Words<'_>) -> Result<WatermarkDef> {
    let column = ident(words, "the event-time column's name")?;
    words.expect_word("AS")?;
    let start = words.index();
    let expr = parse_expr(words)?;
    let span = words.span_since(start);
    Ok(WatermarkDef { column, expr, text: words.source.slice(span).to_owned(), span })
}

fn primary_key(words: &mut Words<'_>, table: &mut CreateTable) -> Result<()> {
    words.expect_word("KEY")?;
    key_columns(words, table)
}

fn key_columns(words: &mut Words<'_>, table: &mut CreateTable) -> Result<()> {
    table.primary_key = words.names("a column's name")?;
    not_enforced(words)
}

fn not_enforced(words: &mut Words<'_>) -> Result<()> {
    if words.accept_all(&["NOT", "ENFORCED"]) {
        return Ok(());
    }
    Err(words
        .unexpected("NOT ENFORCED")
        .help("Coulee does not check that keys are unique; say so with PRIMARY KEY … NOT ENFORCED"))
}

fn comment(words: &mut Words<'_>) -> Result<Option<String>> {
    if !words.accept("COMMENT") {
        return Ok(None);
    }
    Ok(Some(words.text("a comment in single quotes")?.value))
}

/// What follows the columns, in any order.
fn clauses(words: &mut Words<'_>, table: &mut CreateTable) -> Result<()> {
    loop {
        if let Some(text) = comment(words)? {
            table.comment = Some(text);
        } else if words.accept_all(&["PARTITIONED", "BY"]) {
            table.partitioned_by = words.names("a column's name")?;
        } else if words.accept("DISTRIBUTED") {
            table.distribution = Some(distribution(words)?);
        } else if words.accept("WITH") {
            options(words, table)?;
        } else {
            return Ok(());
        }
    }
}

fn distribution(words: &mut Words<'_>) -> Result<Distribution> {
    let mut columns = Vec::new();
    if words.accept("BY") {
        if words.accept("RANGE") {
            return Err(Fault::new("shards are chosen by hash")
                .at(words.peek_span())
                .help("write DISTRIBUTED BY HASH(…)"));
        }
        words.accept("HASH");
        columns = words.names("a column's name")?;
    }
    let mut buckets = None;
    if words.accept("INTO") {
        buckets = Some(words.number()?);
        words.expect_word("BUCKETS")?;
    }
    Ok(Distribution { columns, buckets })
}

/// Options with their values, in brackets.
pub(crate) fn options(words: &mut Words<'_>, table: &mut CreateTable) -> Result<()> {
    words.expect(&Token::LParen)?;
    while words.peek() != Token::RParen {
        let key = words.text("an option's name in single quotes")?;
        if table.options.iter().any(|(known, _)| known.value == key.value) {
            return Err(Fault::new(format!("option '{}' is given twice", key.value)).at(key.span));
        }
        words.expect(&Token::Eq)?;
        table.options.push((key, words.text("a value in single quotes")?));
        if !words.accept_token(&Token::Comma) {
            break;
        }
    }
    words.expect(&Token::RParen)
}
