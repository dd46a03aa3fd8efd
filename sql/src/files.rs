//! Files that a query names instead of tables: `SELECT … FROM 'events.ndjson'`.
//!
//! A connector infers columns and options ([`InferredTable`]). They are written as the `CREATE TABLE` that a user could have written, which is
//! what `DESCRIBE 'events.ndjson'` shows, and that statement makes the table. In a query the table has the name of its file without folders and
//! extensions (`events`), unless it is given another.

use std::ops::ControlFlow;

use arrow::datatypes::{DataType, Field};
use coulee_runtime::table::{DEAD_LETTER_STREAM, InferredTable};
use sqlparser::ast::{Ident, ObjectName, Query, Visit, Visitor};
use sqlparser::keywords::{RESERVED_FOR_COLUMN_ALIAS, RESERVED_FOR_TABLE_ALIAS};
use sqlparser::tokenizer::Token;

use crate::names::rename_tables;
use crate::statement::Body;
use crate::types::type_name;

/// So many columns are named in the note of what was inferred.
const NAMED_MAX: usize = 12;

/// Words that Flink reserves and that columns are often called.
const RESERVED: &[&str] = &[
    "ALL",
    "AND",
    "ANY",
    "ARRAY",
    "AS",
    "BETWEEN",
    "CASE",
    "CAST",
    "COLUMN",
    "CONSTRAINT",
    "COUNT",
    "CURRENT",
    "CURSOR",
    "DATE",
    "DAY",
    "DEFAULT",
    "DISTINCT",
    "DOUBLE",
    "ELSE",
    "END",
    "EXISTS",
    "FALSE",
    "FILTER",
    "FLOAT",
    "FOREIGN",
    "HOUR",
    "IN",
    "INT",
    "INTERVAL",
    "IS",
    "LEFT",
    "LIKE",
    "LOCALTIME",
    "METADATA",
    "MINUTE",
    "MONTH",
    "NOT",
    "NULL",
    "OR",
    "PARTITION",
    "POSITION",
    "PRECISION",
    "PRIMARY",
    "RANGE",
    "RANK",
    "REFERENCES",
    "RESULT",
    "RIGHT",
    "ROW",
    "ROWS",
    "SECOND",
    "SESSION",
    "SYSTEM",
    "TABLE",
    "THEN",
    "TIME",
    "TIMESTAMP",
    "TRUE",
    "UNIQUE",
    "USER",
    "VALUE",
    "VALUES",
    "WATERMARK",
    "WHEN",
    "YEAR",
];

/// The files that a statement names, each once, with the place of the first.
pub(crate) fn named(body: &Body) -> Vec<Ident> {
    let mut found = Named(Vec::new());
    let mut look = |query: &Query| {
        // The visitor never breaks.
        let _ = query.visit(&mut found);
    };
    match body {
        Body::Query(query) | Body::Analyze(query) => look(query),
        Body::Insert(insert) => look(&insert.query),
        Body::StatementSet(inserts) => inserts.iter().for_each(|insert| look(&insert.query)),
        Body::CreateView(create) => look(&create.query),
        Body::Explain(body) => return named(body),
        Body::CreateTable(create) => {
            if let Some(query) = &create.query {
                look(query);
            }
        }
        Body::DescribeFile(path) => found.0.push(path.clone()),
        _ => {}
    }
    found.0
}

struct Named(Vec<Ident>);

impl Visitor for Named {
    type Break = ();

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        if let Some(path) = path(relation)
            && !self.0.iter().any(|known| known.value == path.value)
        {
            self.0.push(path.clone());
        }
        ControlFlow::Continue(())
    }
}

/// The path that stands in the place of a table's name.
fn path(name: &ObjectName) -> Option<&Ident> {
    match name.0.as_slice() {
        [part] => part.as_ident().filter(|ident| is_path(ident)),
        _ => None,
    }
}

fn is_path(name: &Ident) -> bool {
    name.quote_style == Some('\'')
}

/// What the catalog calls the table of a file. No table that is declared has such a name by accident.
pub(crate) fn key(path: &str) -> String {
    format!("'{path}'")
}

/// Puts the catalog's names in the place of paths, and gives tables that have none the names of their files.
pub(crate) fn name_tables(query: &mut Query) {
    rename_tables(query, |name| is_path(name).then(|| (key(&name.value), table_name(&name.value))));
}

/// The name of a file without folders and extensions, as far as it is one; else the folder's.
pub(crate) fn table_name(path: &str) -> String {
    if path == "-" {
        return "stdin".to_owned();
    }
    let name = |part: &str| {
        let stem = part.split('.').find(|stem| !stem.is_empty()).unwrap_or_default();
        let legal = |c: char| if c.is_alphanumeric() || c == '_' { c } else { '_' };
        let name: String = stem.chars().map(legal).collect();
        let name = name.trim_matches('_').to_owned();
        let begins = name.starts_with(|c: char| c.is_alphabetic());
        (!name.is_empty()).then(|| if begins { name.clone() } else { format!("t_{name}") })
    };
    path.rsplit('/').find_map(name).unwrap_or_else(|| "files".to_owned())
}

/// The `CREATE TABLE` of an inferred table.
pub(crate) fn ddl(name: &str, connector: &str, table: &InferredTable) -> String {
    let mut columns: Vec<(String, String)> = Vec::new();
    for field in table.schema.fields() {
        columns.push((quoted(field.name()), column_type(field)));
    }
    let width = columns.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).min(40);
    let columns: Vec<String> = columns.iter().map(|(name, data_type)| format!("  {name:width$} {data_type}")).collect();
    let own = table.options.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let options: Vec<String> = std::iter::once(("connector", connector))
        .chain(own)
        .map(|(key, value)| format!("  '{key}' = '{}'", value.replace('\'', "''")))
        .collect();
    format!("CREATE TABLE {} (\n{}\n) WITH (\n{}\n)", quoted(name), columns.join(",\n"), options.join(",\n"))
}

/// The same with the stream of its dead letters, which a path cannot name.
pub(crate) fn with_dead_letters(path: &str, mut table: InferredTable) -> InferredTable {
    let stream = format!("{}_dead_letter", table_name(path));
    let legal = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    table.options.entry(DEAD_LETTER_STREAM.to_owned()).or_insert_with(|| stream.chars().map(legal).collect());
    table
}

/// What was inferred, on one line.
pub(crate) fn summary(path: &str, table: &InferredTable) -> String {
    let fields = table.schema.fields();
    let column = |field: &Field| format!("{} {}", quoted(field.name()), shortened(column_type(field)));
    let mut columns: Vec<String> = fields.iter().take(NAMED_MAX).map(|field| column(field)).collect();
    if fields.len() > NAMED_MAX {
        columns.push(format!("… ({} columns)", fields.len()));
    }
    let format = table.options.get("format").map_or("", String::as_str);
    format!(
        "'{path}' ({format}) is ({}), inferred from {}; DESCRIBE '{path}' prints it as CREATE TABLE, to be edited",
        columns.join(", "),
        table.sample
    )
}

fn shortened(data_type: String) -> String {
    match data_type.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &data_type[..at]),
        None => data_type,
    }
}

fn column_type(field: &Field) -> String {
    let null = if field.is_nullable() { "" } else { " NOT NULL" };
    format!("{}{null}", nested(field.data_type()))
}

/// The type's name; names of fields are quoted where that is needed.
fn nested(data_type: &DataType) -> String {
    let column = |field: &Field| format!("{} {}", quoted(field.name()), column_type(field));
    match data_type {
        DataType::Struct(fields) => {
            format!("ROW<{}>", fields.iter().map(|field| column(field)).collect::<Vec<_>>().join(", "))
        }
        DataType::List(item) => format!("ARRAY<{}>", column_type(item)),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) if pair.len() == 2 => {
                format!("MAP<{}, {}>", nested(pair[0].data_type()), column_type(&pair[1]))
            }
            other => type_name(other),
        },
        other => type_name(other),
    }
}

/// Whether a name is a word of Flink's or of the parser's grammar.
fn is_reserved(name: &str) -> bool {
    let is_keyword = |word: &sqlparser::tokenizer::Word| {
        RESERVED_FOR_COLUMN_ALIAS.contains(&word.keyword) || RESERVED_FOR_TABLE_ALIAS.contains(&word.keyword)
    };
    RESERVED.contains(&name.to_ascii_uppercase().as_str())
        || matches!(Token::make_word(name, None), Token::Word(word) if is_keyword(&word))
}

/// A name, in backticks where it is no plain word.
pub(crate) fn quoted(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !is_reserved(name);
    if is_plain { name.to_owned() } else { format!("`{}`", name.replace('`', "``")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_its_table_a_name() {
        for (path, expected) in [
            ("events.ndjson", "events"),
            ("logs/2026-01-01.json.gz", "t_2026_01_01"),
            ("logs/*.json.gz", "logs"),
            ("s3://bucket/a/b.parquet", "b"),
            ("/data/flights/", "flights"),
            ("-", "stdin"),
            ("*", "files"),
            ("./.hidden.csv", "hidden"),
        ] {
            assert_eq!(table_name(path), expected, "{path}");
        }
    }

    #[test]
    fn names_are_quoted_where_they_must_be() {
        assert_eq!(
            [quoted("flight"), quoted("group"), quoted("a b"), quoted("x`y")].join(" "),
            "flight `group` `a b` `x``y`"
        );
    }
}
