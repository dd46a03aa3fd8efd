//! The older form of windows, `GROUP BY TUMBLE(ts, INTERVAL '1' HOUR)` with `TUMBLE_START(…)`, rewritten to the window table function, which is the same.
//! `HOP` and `SESSION` are written alike; the sessions are those of the other keys of the `GROUP BY`.
//!
//! Flink deprecates it, and scripts have it.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, GroupByExpr, Ident,
    ObjectName, Query, Select, SelectItem, Spanned, TableAlias, TableFactor, TableFunctionArgs, VisitMut, VisitorMut,
};
use sqlparser::tokenizer::Span;

use crate::error::{Fault, Result};
use crate::words::SESSIONS;

/// Rewrites the group windows of a query and of those within it. The columns of its select lists have names already.
///
/// # Errors
/// For a group window that has no equal form.
pub(crate) fn rewrite(query: &mut Query) -> Result<()> {
    match query.visit(&mut Rewrite) {
        ControlFlow::Break(fault) => Err(fault),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Rewrite;

impl VisitorMut for Rewrite {
    type Break = Fault;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Fault> {
        match rewrite_select(select) {
            Ok(()) => ControlFlow::Continue(()),
            Err(fault) => ControlFlow::Break(fault),
        }
    }
}

/// A call of `TUMBLE(ts, size)`, `HOP(ts, slide, size)` or `SESSION(ts, gap)` among the groups.
struct Window {
    /// `TUMBLE`, `HOP` or `SESSION`.
    name: &'static str,
    arguments: Vec<Expr>,
    time: Ident,
    span: Span,
}

fn rewrite_select(select: &mut Select) -> Result<()> {
    let GroupByExpr::Expressions(groups, _) = &mut select.group_by else { return Ok(()) };
    let Some(at) = groups.iter().position(|group| window_name(group).is_some()) else { return Ok(()) };
    let window = window(&groups[at])?;
    groups.remove(at);
    if let Some(other) = groups.iter().find(|group| window_name(group).is_some()) {
        return Err(Fault::new("a GROUP BY has one window").at(other.span()).help("write two queries"));
    }
    let mut columns = Columns { window: &window, uses_time: false };
    let mut visit = |expr: &mut Expr| match expr.visit(&mut columns) {
        ControlFlow::Break(fault) => Err(fault),
        ControlFlow::Continue(()) => Ok(()),
    };
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
            visit(expr)?;
        }
    }
    select.having.iter_mut().try_for_each(&mut visit)?;
    let mut added = vec!["window_start", "window_end"];
    added.extend(columns.uses_time.then_some("window_time"));
    let GroupByExpr::Expressions(groups, _) = &mut select.group_by else { return Ok(()) };
    let added = added.into_iter().map(|name| Expr::Identifier(named(name, window.span)));
    groups.splice(at..at, added);
    from(select, &window)
}

/// The name of a group window's call.
fn window_name(expr: &Expr) -> Option<&Ident> {
    let Expr::Function(function) = expr else { return None };
    let name = function.name.0.last()?.as_ident()?;
    ["TUMBLE", "HOP", "SESSION", "CUMULATE"].iter().any(|known| name.value.eq_ignore_ascii_case(known)).then_some(name)
}

fn window(group: &Expr) -> Result<Window> {
    let (Expr::Function(function), Some(name)) = (group, window_name(group)) else {
        return Err(Fault::new("the GROUP BY has no window"));
    };
    let usage = |message: String| {
        Fault::new(message).at(name.span).help(
            "write FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR)) … GROUP BY window_start, window_end",
        )
    };
    let upper = name.value.to_uppercase();
    let (kind, takes, counts) = match upper.as_str() {
        "TUMBLE" => ("TUMBLE", "a column and an interval", 2..=3),
        "HOP" => ("HOP", "a column and two intervals, the slide and the size", 3..=4),
        "SESSION" => ("SESSION", "a column and an interval, the gap", 2..=2),
        _ => return Err(usage(format!("{upper} is no window of a GROUP BY, but a table function"))),
    };
    let arguments = arguments(function).ok_or_else(|| usage(format!("{kind} takes {takes} here")))?;
    match arguments.first().and_then(column) {
        Some(time) if counts.contains(&arguments.len()) => {
            Ok(Window { name: kind, time: time.clone(), arguments, span: name.span })
        }
        _ => Err(usage(format!("{kind} takes {takes} here"))),
    }
}

fn arguments(function: &Function) -> Option<Vec<Expr>> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let plain = list.args.iter().map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    });
    plain.collect()
}

/// The name of a column, with or without its table in front.
fn column(expr: &Expr) -> Option<&Ident> {
    match expr {
        Expr::Identifier(name) => Some(name),
        Expr::CompoundIdentifier(names) => names.last(),
        _ => None,
    }
}

/// Puts the window's columns where `TUMBLE_START(…)` and its like stand.
struct Columns<'a> {
    window: &'a Window,
    uses_time: bool,
}

impl VisitorMut for Columns<'_> {
    type Break = Fault;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Fault> {
        let Expr::Function(function) = &*expr else { return ControlFlow::Continue(()) };
        let Some(name) = function.name.0.last().and_then(|part| part.as_ident()) else {
            return ControlFlow::Continue(());
        };
        let upper = name.value.to_uppercase();
        let column = match upper.strip_prefix(self.window.name) {
            Some("_START") => "window_start",
            Some("_END") => "window_end",
            Some("_ROWTIME") => "window_time",
            Some("_PROCTIME") => "PROCTIME",
            _ => return ControlFlow::Continue(()),
        };
        if !arguments(function).is_some_and(|given| same(&given, &self.window.arguments)) {
            let message = format!("{upper} has other arguments than the {} of the GROUP BY", self.window.name);
            return ControlFlow::Break(Fault::new(message).at(name.span).help("write the same column and intervals"));
        }
        if column == "PROCTIME" {
            *expr = call(column, name.span, Vec::new());
            return ControlFlow::Continue(());
        }
        self.uses_time |= column == "window_time";
        *expr = Expr::Identifier(named(column, name.span));
        ControlFlow::Continue(())
    }
}

/// Whether two lists of arguments are written alike, wherever they stand.
fn same(left: &[Expr], right: &[Expr]) -> bool {
    left.len() == right.len() && left.iter().zip(right).all(|(a, b)| a.to_string() == b.to_string())
}

/// Puts the window table function around what the query reads.
fn from(select: &mut Select, window: &Window) -> Result<()> {
    let [from] = select.from.as_mut_slice() else {
        return Err(one_input(window));
    };
    if !from.joins.is_empty() {
        return Err(one_input(window));
    }
    let (data, alias) = match &from.relation {
        TableFactor::Table { name, alias, args: None, .. } => {
            let names: Vec<Ident> = name.0.iter().filter_map(|part| part.as_ident().cloned()).collect();
            let own =
                names.last().cloned().map(|name| TableAlias { explicit: false, name, columns: Vec::new(), at: None });
            (Expr::CompoundIdentifier(names), alias.clone().or(own))
        }
        TableFactor::Derived { subquery, alias, lateral: false, .. } => {
            (Expr::Subquery(subquery.clone()), alias.clone())
        }
        _ => return Err(one_input(window)),
    };
    let mut args = vec![argument(data), argument(descriptor(&window.time))];
    args.extend(window.arguments.iter().skip(1).cloned().map(argument));
    from.relation = TableFactor::Table {
        name: ObjectName::from(vec![named(if window.name == "SESSION" { SESSIONS } else { window.name }, window.span)]),
        alias,
        args: Some(TableFunctionArgs { args, settings: None }),
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    };
    Ok(())
}

fn one_input(window: &Window) -> Fault {
    Fault::new(format!("GROUP BY {}(…) reads one table or subquery", window.name)).at(window.span).help(
        "write FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR)) … GROUP BY window_start, window_end",
    )
}

fn argument(expr: Expr) -> FunctionArg {
    FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
}

fn descriptor(time: &Ident) -> Expr {
    call("DESCRIPTOR", time.span, vec![argument(Expr::Identifier(time.clone()))])
}

fn call(function: &str, span: Span, args: Vec<FunctionArg>) -> Expr {
    let list = FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() };
    Expr::Function(Function {
        name: ObjectName::from(vec![named(function, span)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(list),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

fn named(name: &str, span: Span) -> Ident {
    Ident { value: name.to_owned(), quote_style: None, span }
}
