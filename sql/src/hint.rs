//! Hints: `SELECT /*+ STATE_UID('hourly') */ …` names the operator that keeps the state of the SELECT's aggregation.
//!
//! A hint is a comment for sqlparser and nothing at all for DataFusion. So the name travels as a constant among the group expressions, which
//! [`state_uid`] finds again in the plan.

use datafusion_common::ScalarValue;
use datafusion_expr::Expr;
use sqlparser::ast::{self, GroupByExpr, Query, Select, SetExpr, TableFactor, Value};

use crate::error::{Fault, Result};
use crate::options_hint::hint_name;

/// The only hint behind `SELECT` that does something.
const STATE_UID: &str = "STATE_UID";
/// Flink's hints about how its planner is to join. Here a plan has no such choice.
const OF_JOINS: [&str; 6] = ["BROADCAST", "SHUFFLE_HASH", "SHUFFLE_MERGE", "NEST_LOOP", "LOOKUP", "MULTI_JOIN"];
/// How the constant begins: not as any text that somebody would group by.
const MARK: &str = "\u{1}state-uid:";
/// The longest name, in bytes.
const UID_BYTES_MAX: usize = 200;

/// Puts the names that hints give among the group expressions.
pub(crate) fn mark(query: &mut Query) -> Result<()> {
    for cte in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
        mark(&mut cte.query)?;
    }
    mark_set(&mut query.body)
}

fn mark_set(body: &mut SetExpr) -> Result<()> {
    match body {
        SetExpr::Select(select) => mark_select(select),
        SetExpr::Query(query) => mark(query),
        SetExpr::SetOperation { left, right, .. } => {
            mark_set(left)?;
            mark_set(right)
        }
        _ => Ok(()),
    }
}

fn mark_select(select: &mut Select) -> Result<()> {
    let joined = select.from.iter_mut().flat_map(|from| {
        std::iter::once(&mut from.relation).chain(from.joins.iter_mut().map(|join| &mut join.relation))
    });
    for relation in joined {
        if let TableFactor::Derived { subquery, .. } = relation {
            mark(subquery)?;
        }
    }
    let hints = std::mem::take(&mut select.optimizer_hints);
    let hints = hints.iter().filter(|hint| hint.prefix.is_empty()).flat_map(|hint| each(&hint.text));
    for hint in hints.filter(|hint| !is_of_join(hint)) {
        let uid = uid(hint)?;
        match &mut select.group_by {
            GroupByExpr::Expressions(exprs, _) if !exprs.is_empty() => {
                exprs.push(ast::Expr::value(Value::SingleQuotedString(format!("{MARK}{uid}"))));
            }
            _ => {
                let message = format!("{STATE_UID} names the state of an aggregation, and this SELECT has no GROUP BY");
                return Err(Fault::new(message)
                    .or_clause(&["SELECT"])
                    .help("put it behind the SELECT whose GROUP BY it is about"));
            }
        }
    }
    Ok(())
}

/// The hints of a comment: `BROADCAST(t), STATE_UID('x')` has two.
fn each(text: &str) -> Vec<&str> {
    let mut depth = 0;
    let between = move |c: char| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    };
    text.split(between).map(str::trim).collect()
}

fn is_of_join(hint: &str) -> bool {
    OF_JOINS.contains(&hint_name(hint).as_str())
}

/// What is to be said of the hints of a comment that do nothing.
pub(crate) fn without_effect(text: &str) -> Option<String> {
    let hints: Vec<String> = each(text).into_iter().filter(|hint| is_of_join(hint)).map(hint_name).collect();
    let have = if hints.len() == 1 { "has" } else { "have" };
    (!hints.is_empty())
        .then(|| format!("{} {have} no effect: there is one way to run each join here", hints.join(", ")))
}

/// Reads `STATE_UID('name')`.
fn uid(text: &str) -> Result<&str> {
    let known =
        || Fault::new(format!("the hint '{text}' is not known")).or_clause(&["SELECT"]).help("write STATE_UID('name')");
    let name = text.get(..STATE_UID.len()).filter(|name| name.eq_ignore_ascii_case(STATE_UID)).ok_or_else(known)?;
    let argument = text[name.len()..].trim().strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).map(str::trim);
    let uid = argument.and_then(|text| text.strip_prefix('\'')?.strip_suffix('\'')).ok_or_else(known)?;
    if uid.is_empty() || uid.len() > UID_BYTES_MAX || uid.contains(|c: char| c.is_control() || c == '\'') {
        return Err(Fault::new(format!(
            "'{uid}' names no state: expected 1 to {UID_BYTES_MAX} bytes without quotes and control characters"
        )));
    }
    Ok(uid)
}

/// The name that a hint gave, where a group expression is one.
pub(crate) fn state_uid(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => text.strip_prefix(MARK),
        Expr::Alias(alias) => state_uid(&alias.expr),
        Expr::Cast(cast) => state_uid(&cast.expr),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::uid;

    #[test]
    fn a_hint_is_one_name_in_quotes() {
        assert_eq!(uid("STATE_UID('hourly')").unwrap(), "hourly");
        assert_eq!(uid("state_uid ( 'delays/window' )").unwrap(), "delays/window");
        for wrong in
            ["STATE_UID", "STATE_UID()", "STATE_UID('')", "STATE_UID(x)", "OPTIONS('a'='b')", "STATE_UID('a', 'b')"]
        {
            assert!(uid(wrong).is_err(), "{wrong}");
        }
    }
}
