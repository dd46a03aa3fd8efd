//! `LIKE` and `SIMILAR TO`: without ESCAPE no character of a pattern is an escape, where DataFusion takes the backslash for one.

use std::fmt::Write;

use arrow::datatypes::DataType;
use datafusion_common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion_expr::expr::Like;
use datafusion_expr::{BinaryExpr, Expr, ExprSchemable, Operator, lit};

use crate::flink_types::type_name;

/// A LIKE whose pattern escapes with backslashes.
///
/// # Errors
/// When a side is no text, or the pattern escapes what needs no escape.
pub(crate) fn like(like: Like, schema: &DFSchema) -> Result<Expr> {
    let Like { negated, expr, pattern, escape_char, case_insensitive } = like;
    if case_insensitive {
        return plan_err!("'ILIKE' is no operator of Flink\nwrite LOWER(text) LIKE 'pattern'");
    }
    for side in [&expr, &pattern] {
        let data_type = side.get_type(schema)?;
        if !matches!(data_type, DataType::Utf8 | DataType::Null) {
            return plan_err!("'LIKE' takes text, not {}\nCAST it to STRING", type_name(&data_type));
        }
    }
    let pattern = match (*pattern, escape_char) {
        (Expr::Literal(ScalarValue::Utf8(Some(pattern)), _), escape) => lit(with_backslashes(&pattern, escape)?),
        (pattern, None) if matches!(pattern, Expr::Literal(..)) => pattern,
        // A plan that was typed before has the function already.
        (pattern @ Expr::ScalarFunction(_), Some('\\')) => pattern,
        (pattern, None) => datafusion_functions::string::replace().call(vec![pattern, lit("\\"), lit("\\\\")]),
        _ => return plan_err!("'ESCAPE' needs a pattern that is a text, not a column"),
    };
    // The escape tells a later pass that the pattern is done.
    Ok(Expr::Like(Like { negated, expr, pattern: Box::new(pattern), escape_char: Some('\\'), case_insensitive }))
}

fn with_backslashes(pattern: &str, escape: Option<char>) -> Result<String> {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if Some(c) == escape {
            match chars.next() {
                Some(next) if next == '%' || next == '_' || Some(next) == escape => {
                    if next == '%' || next == '_' || next == '\\' {
                        out.push('\\');
                    }
                    out.push(next);
                }
                _ => return plan_err!("in the pattern '{pattern}' the escape '{c}' is not before '%', '_' or itself"),
            }
        } else if c == '\\' {
            out.push_str("\\\\");
        } else {
            out.push(c);
        }
    }
    Ok(out)
}

/// A SIMILAR TO as a match with a regular expression.
///
/// # Errors
/// When the pattern is a column.
pub(crate) fn similar(like: Like) -> Result<Expr> {
    let Like { negated, expr, pattern, escape_char, .. } = like;
    let regex = match *pattern {
        Expr::Literal(ScalarValue::Utf8(Some(pattern)), _) => lit(regex_of(&pattern, escape_char)),
        Expr::Literal(value, _) if value.is_null() => Expr::Literal(ScalarValue::Utf8(None), None),
        _ => return plan_err!("the pattern of 'SIMILAR TO' is a text, not a column"),
    };
    let op = if negated { Operator::RegexNotMatch } else { Operator::RegexMatch };
    Ok(Expr::BinaryExpr(BinaryExpr::new(expr, op, Box::new(regex))))
}

/// `%` is any text and `_` any character; brackets, bars, points and repetitions are as in regular expressions.
fn regex_of(pattern: &str, escape: Option<char>) -> String {
    let mut out = String::from("^(?s:");
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            c if Some(c) == escape => {
                if let Some(next) = chars.next() {
                    push_plain(&mut out, next);
                }
            }
            '%' => out.push_str(".*"),
            '_' => out.push('.'),
            '[' | ']' | '(' | ')' | '{' | '}' | '|' | '*' | '+' | '?' | '-' | '^' | '.' => out.push(c),
            c => push_plain(&mut out, c),
        }
    }
    out.push_str(")$");
    out
}

fn push_plain(out: &mut String, c: char) {
    if c.is_ascii_punctuation() {
        out.push('\\');
    }
    // Writing to a String does not fail.
    let _ = write!(out, "{c}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_escape_escapes() {
        assert_eq!(with_backslashes("a%_", None).unwrap(), "a%_");
        assert_eq!(with_backslashes("a\\%", None).unwrap(), "a\\\\%");
        assert_eq!(with_backslashes("a!%!!", Some('!')).unwrap(), "a\\%!");
        assert_eq!(with_backslashes("a\\%", Some('\\')).unwrap(), "a\\%");
        assert!(with_backslashes("a!b", Some('!')).is_err());
    }

    #[test]
    fn a_similar_pattern_matches_the_whole_text() {
        assert_eq!(regex_of("(a|b)%", None), "^(?s:(a|b).*)$");
        assert_eq!(regex_of("a.c", None), "^(?s:a.c)$");
        assert_eq!(regex_of("a!%", Some('!')), "^(?s:a\\%)$");
    }
}
