//! Names for a query's columns that have none: `EXPR$0`, `EXPR$1`, …, as in Flink; and other names for its tables.
//!
//! DataFusion names columns without a name after their text, and then refuses two that read alike (`CAST(ts AS DATE), ts`).

use std::collections::HashSet;
use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Ident, ObjectNamePart, Query, Select, SelectItem, SetExpr, Spanned, TableAlias, TableFactor, Values,
    VisitMut, VisitorMut,
};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Span;

use crate::dialect::FlinkDialect;

/// Names the columns of a query and of those within it.
pub(crate) fn name_columns(query: &mut Query) {
    for cte in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
        name_columns(&mut cte.query);
    }
    name_set(&mut query.body);
}

/// Gives tables of a query another name (the first) and calls them by the second, unless the query does. `renamed` says both of an identifier, or nothing.
pub(crate) fn rename_tables(query: &mut Query, renamed: impl Fn(&Ident) -> Option<(String, String)>) {
    // The visitor never breaks.
    let _ = query.visit(&mut RenameTables(renamed));
}

struct RenameTables<F>(F);

impl<F: Fn(&Ident) -> Option<(String, String)>> VisitorMut for RenameTables<F> {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, alias, .. } = factor
            && let Some(ObjectNamePart::Identifier(ident)) = name.0.last_mut()
            && let Some((table, own)) = (self.0)(ident)
        {
            let own = Ident { value: own, quote_style: None, span: ident.span };
            alias.get_or_insert(TableAlias { explicit: false, name: own, columns: Vec::new(), at: None });
            *ident = Ident { value: table, quote_style: Some('`'), span: ident.span };
        }
        ControlFlow::Continue(())
    }
}

fn name_set(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => name_select(select),
        SetExpr::Query(query) => name_columns(query),
        SetExpr::Values(values) => {
            if let Some(named) = named_values(values) {
                *body = named;
            }
        }
        SetExpr::SetOperation { left, right, .. } => {
            name_set(left);
            name_set(right);
        }
        _ => {}
    }
}

fn name_select(select: &mut Select) {
    let joined = select.from.iter_mut().flat_map(|from| {
        std::iter::once(&mut from.relation).chain(from.joins.iter_mut().map(|join| &mut join.relation))
    });
    for relation in joined {
        if let TableFactor::Derived { subquery, .. } = relation {
            name_columns(subquery);
        }
    }
    let relations = relations(select);
    let mut names: HashSet<String> = HashSet::new();
    for (index, item) in select.projection.iter_mut().enumerate() {
        let name = match item {
            SelectItem::ExprWithAlias { alias, .. } => alias.value.clone(),
            SelectItem::UnnamedExpr(expr) => own_name(expr).unwrap_or_else(|| format!("EXPR${index}")),
            _ => continue,
        };
        let unique = (0..).map(|n| if n == 0 { name.clone() } else { format!("{name}{}", n - 1) });
        let unique = unique.into_iter().find(|name| !names.contains(name)).unwrap_or_default();
        if let SelectItem::UnnamedExpr(expr) = item
            && (unique != name || own_name(expr).is_none() || is_field(expr, relations.as_deref()))
        {
            let alias = Ident { value: unique.clone(), quote_style: None, span: expr.span() };
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
        names.insert(unique);
    }
}

/// The names of what a `SELECT` reads from; `None` where a table function has columns whose qualifier is not known here.
fn relations(select: &Select) -> Option<Vec<String>> {
    let joined = select
        .from
        .iter()
        .flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)));
    joined
        .map(|relation| match relation {
            TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => {
                Some(alias.name.value.clone())
            }
            TableFactor::Table { name, args: None, .. } => Some(name.0.last()?.as_ident()?.value.clone()),
            _ => None,
        })
        .collect()
}

/// Whether `a.b` is the field `b` of a column, which DataFusion would name after its text.
fn is_field(expr: &Expr, relations: Option<&[String]>) -> bool {
    match (expr, relations) {
        (Expr::CompoundIdentifier(names), Some(relations)) => {
            names.len() == 2 && !relations.contains(&names[0].value)
                || names.len() == 3 && relations.contains(&names[0].value)
        }
        _ => false,
    }
}

/// `VALUES` under a `SELECT` that names its columns `EXPR$0`, `EXPR$1`, … as Flink does; DataFusion names them otherwise.
fn named_values(values: &Values) -> Option<SetExpr> {
    let columns = values.rows.first()?.content.len();
    let names: Vec<String> = (0..columns).map(|index| format!("column{} AS `EXPR${index}`", index + 1)).collect();
    let text = format!("SELECT {} FROM (VALUES (0))", names.join(", "));
    let mut select = Parser::new(&FlinkDialect).try_with_sql(&text).ok()?.parse_query().ok()?.body;
    if let SetExpr::Select(select) = select.as_mut()
        && let Some(TableFactor::Derived { subquery, .. }) = select.from.first_mut().map(|from| &mut from.relation)
    {
        *subquery.body = SetExpr::Values(values.clone());
    }
    Some(*select)
}

/// The name of a plain column.
fn own_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(name) => Some(name.value.clone()),
        Expr::CompoundIdentifier(names) => names.last().map(|name| name.value.clone()),
        _ => None,
    }
}

/// The text and place of a query's column, where a `SELECT` list without `*` says it.
pub(crate) fn item(query: &Query, index: usize) -> Option<(String, Span)> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let plain = |item: &SelectItem| matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. });
    if !select.projection.iter().take(index + 1).all(plain) {
        return None;
    }
    match select.projection.get(index)? {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some((expr.to_string(), expr.span())),
        _ => None,
    }
}
