//! A table as the `CREATE TABLE` that makes it: what `SHOW CREATE TABLE` shows where the statement itself took columns or clauses from elsewhere.

use sqlparser::ast::Ident;

use crate::files::quoted;
use crate::statement::{ColumnDef, ColumnDefKind, CreateTable, CreateView};
use crate::types::type_name;

/// The statement.
pub(crate) fn create_text(create: &CreateTable) -> String {
    let names = |names: &[Ident]| names.iter().map(|name| quoted(&name.value)).collect::<Vec<_>>().join(", ");
    let mut lines: Vec<String> = create.columns.iter().map(column).collect();
    if let Some(watermark) = &create.watermark {
        lines.push(format!("WATERMARK FOR {} AS {}", quoted(&watermark.column.value), watermark.text));
    }
    if !create.primary_key.is_empty() {
        lines.push(format!("PRIMARY KEY ({}) NOT ENFORCED", names(&create.primary_key)));
    }
    let mut text = format!("CREATE TABLE {} (\n  {}\n)", quoted(&create.name.value), lines.join(",\n  "));
    if let Some(comment) = &create.comment {
        text.push_str(&format!(" COMMENT {}", literal(comment)));
    }
    if let Some(distribution) = &create.distribution {
        text.push_str(" DISTRIBUTED");
        if !distribution.columns.is_empty() {
            text.push_str(&format!(" BY HASH({})", names(&distribution.columns)));
        }
        if let Some(buckets) = distribution.buckets {
            text.push_str(&format!(" INTO {buckets} BUCKETS"));
        }
    }
    if !create.partitioned_by.is_empty() {
        text.push_str(&format!(" PARTITIONED BY ({})", names(&create.partitioned_by)));
    }
    if !create.options.is_empty() {
        let option = |(key, value): &(Ident, Ident)| format!("{} = {}", literal(&key.value), literal(&value.value));
        let options: Vec<String> = create.options.iter().map(option).collect();
        text.push_str(&format!(" WITH (\n  {}\n)", options.join(",\n  ")));
    }
    text
}

/// The `CREATE VIEW` of a view under a name.
pub(crate) fn create_view_text(view: &CreateView, name: &Ident) -> String {
    let columns: Vec<String> = view.columns.iter().map(|column| quoted(&column.value)).collect();
    let columns = if columns.is_empty() { String::new() } else { format!(" ({})", columns.join(", ")) };
    format!("CREATE VIEW {}{columns} AS {}", quoted(&name.value), view.query_text)
}

fn column(column: &ColumnDef) -> String {
    let name = quoted(&column.name.value);
    let not_null = |nullable: bool| if nullable { "" } else { " NOT NULL" };
    let comment = column.comment.as_ref().map(|comment| format!(" COMMENT {}", literal(comment))).unwrap_or_default();
    let text = match &column.kind {
        ColumnDefKind::Physical { data_type, nullable } => {
            format!("{name} {}{}", type_name(data_type), not_null(*nullable))
        }
        ColumnDefKind::Computed(expr) => format!("{name} AS {expr}"),
        ColumnDefKind::Metadata { data_type, nullable, key, is_virtual } => {
            let from = key.as_ref().map(|key| format!(" FROM {}", literal(key))).unwrap_or_default();
            let is_virtual = if *is_virtual { " VIRTUAL" } else { "" };
            format!("{name} {}{} METADATA{from}{is_virtual}", type_name(data_type), not_null(*nullable))
        }
    };
    text + &comment
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
