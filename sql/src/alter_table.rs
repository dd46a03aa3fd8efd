//! `ALTER TABLE`: a table is declared anew, with a change.

use sqlparser::ast::Ident;
use sqlparser::tokenizer::{Span, Token};

use crate::create_table::{element, options};
use crate::error::{Fault, Result};
use crate::statement::{AlterTable, ColumnDefKind, CreateTable, Elements, TableChange};
use crate::words::{Words, ident, table_name};

/// The option of a stream that is named after its table where the option is not given.
const STREAM: &str = "stream";

/// What stands behind `ALTER TABLE`.
pub(crate) fn parse(words: &mut Words<'_>) -> Result<AlterTable> {
    let if_exists = words.accept_all(&["IF", "EXISTS"]);
    let name = table_name(words)?;
    let change = if words.accept("SET") {
        let mut given = CreateTable::empty(name.clone());
        options(words, &mut given)?;
        TableChange::Set(given.options)
    } else if words.accept("RESET") {
        TableChange::Reset(keys(words)?)
    } else if words.accept_all(&["RENAME", "TO"]) {
        TableChange::RenameTo(table_name(words)?)
    } else if words.accept("RENAME") {
        let column = ident(words, "a column's name")?;
        words.expect_word("TO")?;
        TableChange::RenameColumn(column, ident(words, "a column's name")?)
    } else if words.accept("ADD") {
        TableChange::Add(Box::new(placed_elements(words, &name)?))
    } else if words.accept("MODIFY") {
        TableChange::Modify(Box::new(placed_elements(words, &name)?))
    } else if words.accept_all(&["DROP", "PRIMARY", "KEY"]) {
        TableChange::DropPrimaryKey
    } else if words.accept_all(&["DROP", "WATERMARK"]) {
        TableChange::DropWatermark
    } else if words.accept("DROP") {
        TableChange::DropColumns(match words.peek() {
            Token::LParen => words.names("a column's name")?,
            _ => vec![ident(words, "a column's name")?],
        })
    } else {
        return Err(words.unexpected("SET, RESET, RENAME, ADD, MODIFY or DROP"));
    };
    Ok(AlterTable { name, if_exists, change })
}

/// An element, or several in brackets, each with where it goes: `a INT FIRST`, `b INT AFTER a`.
fn placed_elements(words: &mut Words<'_>, table: &Ident) -> Result<Elements> {
    let mut elements = Elements { given: CreateTable::empty(table.clone()), places: Vec::new() };
    let several = words.accept_token(&Token::LParen);
    loop {
        element(words, &mut elements.given)?;
        let behind = if words.accept("FIRST") {
            Some(None)
        } else if words.accept("AFTER") {
            Some(Some(ident(words, "a column's name")?))
        } else {
            None
        };
        if let (Some(behind), Some(column)) = (behind, elements.given.columns.last()) {
            elements.places.push((column.name.clone(), behind));
        }
        if !several || !words.accept_token(&Token::Comma) {
            break;
        }
    }
    if several {
        words.expect(&Token::RParen)?;
    }
    Ok(elements)
}

fn keys(words: &mut Words<'_>) -> Result<Vec<Ident>> {
    words.expect(&Token::LParen)?;
    let mut keys = vec![words.text("an option's name in single quotes")?];
    while words.accept_token(&Token::Comma) {
        keys.push(words.text("an option's name in single quotes")?);
    }
    words.expect(&Token::RParen)?;
    Ok(keys)
}

/// The declaration with the change. `takes`: whether the table's connector has an option.
///
/// # Errors
/// A column or an option that is not there, or is there already, or is used elsewhere in the declaration.
pub(crate) fn altered(table: &CreateTable, alter: &AlterTable, takes: impl Fn(&str) -> bool) -> Result<CreateTable> {
    let mut table = at(table, alter.name.span);
    match &alter.change {
        TableChange::Set(options) => {
            for (key, value) in options {
                table.options.retain(|(known, _)| known.value != key.value);
                table.options.push((key.clone(), value.clone()));
            }
        }
        TableChange::Reset(keys) => {
            for key in keys {
                let before = table.options.len();
                table.options.retain(|(known, _)| known.value != key.value);
                if table.options.len() == before {
                    let message = format!("option '{}' of table '{}' is not set", key.value, table.name.value);
                    return Err(Fault::new(message).at(key.span));
                }
            }
        }
        TableChange::RenameTo(name) => {
            let is_named = table.options.iter().any(|(key, _)| key.value == STREAM);
            if takes(STREAM) && !is_named {
                // It goes on with the stream that it has.
                let text = |text: &str| Ident { value: text.to_owned(), ..table.name.clone() };
                table.options.push((text(STREAM), text(&table.name.value)));
            }
            table.name = name.clone();
        }
        TableChange::RenameColumn(from, to) => {
            unused(&table, from, "renamed")?;
            let column = table.columns.iter_mut().find(|column| column.name.value == from.value);
            column.ok_or_else(|| unknown(&alter.name, from))?.name = to.clone();
        }
        TableChange::Add(elements) => {
            let Elements { given, places } = elements.as_ref();
            table.columns.extend(given.columns.iter().cloned());
            if given.watermark.is_some() {
                not_twice(table.watermark.is_some(), "a WATERMARK", alter)?;
                table.watermark = given.watermark.clone();
            }
            if !given.primary_key.is_empty() {
                not_twice(!table.primary_key.is_empty(), "a PRIMARY KEY", alter)?;
                table.primary_key = given.primary_key.clone();
            }
            place(&mut table, places, &alter.name)?;
        }
        TableChange::Modify(elements) => {
            let Elements { given, places } = elements.as_ref();
            for column in &given.columns {
                let before = table.columns.iter_mut().find(|before| before.name.value == column.name.value);
                *before.ok_or_else(|| unknown(&alter.name, &column.name))? = column.clone();
            }
            if given.watermark.is_some() {
                is_there(table.watermark.is_some(), "WATERMARK", alter)?;
                table.watermark = given.watermark.clone();
            }
            if !given.primary_key.is_empty() {
                is_there(!table.primary_key.is_empty(), "PRIMARY KEY", alter)?;
                table.primary_key = given.primary_key.clone();
            }
            place(&mut table, places, &alter.name)?;
        }
        TableChange::DropColumns(names) => {
            for name in names {
                if !table.columns.iter().any(|column| column.name.value == name.value) {
                    return Err(unknown(&alter.name, name));
                }
                unused(&table, name, "dropped")?;
                table.columns.retain(|column| column.name.value != name.value);
            }
        }
        TableChange::DropWatermark => table.watermark = None,
        TableChange::DropPrimaryKey => table.primary_key = Vec::new(),
    }
    Ok(table)
}

/// A declaration of an earlier statement, whose faults are shown at a place of this one.
fn at(table: &CreateTable, span: Span) -> CreateTable {
    let mut table = table.clone();
    table.name.span = span;
    table.columns.iter_mut().for_each(|column| column.name.span = span);
    table.primary_key.iter_mut().chain(&mut table.partitioned_by).for_each(|name| name.span = span);
    table.distribution.iter_mut().flat_map(|distribution| &mut distribution.columns).for_each(|name| name.span = span);
    for (key, value) in &mut table.options {
        (key.span, value.span) = (span, span);
    }
    if let Some(watermark) = &mut table.watermark {
        (watermark.column.span, watermark.span) = (span, span);
    }
    table
}

fn unknown(table: &Ident, column: &Ident) -> Fault {
    Fault::new(format!("table '{}' has no column '{}'", table.value, column.value)).at(column.span)
}

/// Moves columns to where they are to go.
fn place(table: &mut CreateTable, places: &[(Ident, Option<Ident>)], name: &Ident) -> Result<()> {
    let find = |table: &CreateTable, column: &Ident| {
        let found = table.columns.iter().position(|known| known.name.value == column.value);
        found.ok_or_else(|| unknown(name, column))
    };
    for (column, behind) in places {
        let moved = table.columns.remove(find(table, column)?);
        let at = match behind {
            Some(behind) => find(table, behind)? + 1,
            None => 0,
        };
        table.columns.insert(at, moved);
    }
    Ok(())
}

fn is_there(is_there: bool, what: &str, alter: &AlterTable) -> Result<()> {
    if is_there {
        return Ok(());
    }
    let message = format!("table '{}' has no {what}", alter.name.value);
    Err(Fault::new(message).at(alter.name.span).help("write ALTER TABLE … ADD"))
}

fn not_twice(is_there: bool, what: &str, alter: &AlterTable) -> Result<()> {
    if is_there {
        let message = format!("table '{}' has {what} already", alter.name.value);
        return Err(Fault::new(message).at(alter.name.span).help("write ALTER TABLE … DROP first"));
    }
    Ok(())
}

/// Whether nothing else in the declaration reads a column. `what` is to happen to it.
fn unused(table: &CreateTable, column: &Ident, what: &str) -> Result<()> {
    let reads = |expr: &sqlparser::ast::Expr| {
        let mut names = Vec::new();
        // The visitor never breaks.
        let _ = sqlparser::ast::visit_expressions(expr, |expr| {
            match expr {
                sqlparser::ast::Expr::Identifier(name) => names.push(name.value.clone()),
                sqlparser::ast::Expr::CompoundIdentifier(parts) => {
                    names.extend(parts.first().map(|part| part.value.clone()))
                }
                _ => {}
            }
            std::ops::ControlFlow::<()>::Continue(())
        });
        names.contains(&column.value)
    };
    let is_one_of = |names: &[Ident]| names.iter().any(|name| name.value == column.value);
    let computed =
        table.columns.iter().find(|other| matches!(&other.kind, ColumnDefKind::Computed(expr) if reads(expr)));
    let user = if let Some(other) = computed {
        format!("the column '{}' is computed of it", other.name.value)
    } else if table.watermark.as_ref().is_some_and(|mark| mark.column.value == column.value || reads(&mark.expr)) {
        "the WATERMARK reads it".to_owned()
    } else if is_one_of(&table.primary_key) {
        "it is in the PRIMARY KEY".to_owned()
    } else if is_one_of(&table.partitioned_by) {
        "the table is partitioned by it".to_owned()
    } else if table.distribution.as_ref().is_some_and(|distribution| is_one_of(&distribution.columns)) {
        "the table is distributed by it".to_owned()
    } else {
        return Ok(());
    };
    Err(Fault::new(format!("column '{}' cannot be {what}: {user}", column.value)).at(column.span))
}
