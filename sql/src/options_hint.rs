//! Options of a table for one statement: `FROM t /*+ OPTIONS('scan.startup.mode' = 'latest-offset') */`, Flink's dynamic table options.
//!
//! A hint is a comment for sqlparser. So the options travel in the table's name: [`attach`] adds them to the word before the hint, the session makes the
//! table of that name ([`split`]), and [`name_tables`] gives it the name that the query knows it by.

use sqlparser::ast::{Ident, Query};
use sqlparser::tokenizer::{Span, Token, TokenWithSpan, Tokenizer, Whitespace};

use crate::dialect::FlinkDialect;
use crate::error::{Fault, Result};
use crate::names::rename_tables;
use crate::tokens::is_word;

/// The hint.
pub(crate) const OPTIONS: &str = "OPTIONS";
/// What stands between a table's name and its options: in no name that somebody writes.
const MARK: char = '\u{1}';
/// Words that stand in front of a table's name, where somebody may put the hint.
const BEFORE_TABLES: [&str; 5] = ["FROM", "JOIN", "INTO", "TABLE", "LATERAL"];

/// Keys and values.
type Pairs = Vec<(Ident, Ident)>;

/// Adds the options of a hint to the table's name before it.
///
/// # Errors
/// When no name stands there, or when the hint is none of options.
pub(crate) fn attach(words: &mut [TokenWithSpan], hint: &str, span: Span) -> Result<()> {
    let place = || {
        Fault::new(format!("{OPTIONS} belongs right behind the name of a table"))
            .at(span)
            .help(format!("write FROM t /*+ {OPTIONS}('key' = 'value') */ AS x"))
    };
    let last = words.last_mut().ok_or_else(place)?;
    if BEFORE_TABLES.iter().any(|word| is_word(&last.token, word)) {
        return Err(place());
    }
    let Token::Word(name) = &mut last.token else { return Err(place()) };
    pairs(hint, span)?;
    name.value = format!("{}{MARK}{hint}", name.value);
    name.quote_style = Some('`');
    Ok(())
}

/// The name of the table and its options, if a name has options. `span` is where faults in them are shown.
///
/// # Errors
/// None for what [`attach`] has made.
pub(crate) fn split(name: &str, span: Span) -> Result<Option<(&str, Pairs)>> {
    match name.split_once(MARK) {
        Some((table, hint)) => Ok(Some((table, pairs(hint, span)?))),
        None => Ok(None),
    }
}

/// A name without the options that it may have.
pub(crate) fn base(name: &str) -> &str {
    name.split_once(MARK).map_or(name, |(table, _)| table)
}

/// The keys and values of `OPTIONS('key' = 'value', …)`.
fn pairs(hint: &str, span: Span) -> Result<Pairs> {
    let wrong = || {
        Fault::new(format!("the hint {} is not understood", hint.trim()))
            .at(span)
            .help(format!("write {OPTIONS}('key' = 'value', …)"))
    };
    let tokens = Tokenizer::new(&FlinkDialect, hint).tokenize().map_err(|_| wrong())?;
    let mut tokens = tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_)));
    let text = |token: Option<Token>| match token {
        Some(Token::SingleQuotedString(value)) => Ok(Ident { value, quote_style: Some('\''), span }),
        _ => Err(wrong()),
    };
    if !tokens.next().is_some_and(|word| is_word(&word, OPTIONS)) || tokens.next() != Some(Token::LParen) {
        return Err(wrong());
    }
    let mut pairs = Vec::new();
    loop {
        let key = text(tokens.next())?;
        if tokens.next() != Some(Token::Eq) {
            return Err(wrong());
        }
        pairs.push((key, text(tokens.next())?));
        match tokens.next() {
            Some(Token::Comma) => {}
            Some(Token::RParen) if tokens.next().is_none() => return Ok(pairs),
            _ => return Err(wrong()),
        }
    }
}

/// Tables with options are called as without them, unless the query names them otherwise.
pub(crate) fn name_tables(query: &mut Query) {
    rename_tables(query, |name| {
        let (table, _) = name.value.split_once(MARK)?;
        Some((name.value.clone(), table.to_owned()))
    });
}

/// The name in a hint, if a word is one: `+ OPTIONS('a' = 'b')` is `OPTIONS`.
pub(crate) fn hint_name(text: &str) -> String {
    let name = text.trim_start_matches('+').trim();
    name.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default().to_uppercase()
}

/// Whether a token is a hint, and its text.
pub(crate) fn hint_text(token: &Token) -> Option<&str> {
    match token {
        Token::Whitespace(Whitespace::MultiLineComment(text)) => text.strip_prefix('+'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_pairs_in_quotes() {
        let found = pairs(" options ( 'a' = 'b' , 'c d'='it''s' ) ", Span::empty()).unwrap();
        let texts: Vec<_> = found.iter().map(|(key, value)| (key.value.as_str(), value.value.as_str())).collect();
        assert_eq!(texts, [("a", "b"), ("c d", "it's")]);
        for wrong in ["OPTIONS", "OPTIONS()", "OPTIONS('a')", "OPTIONS('a'='b'", "OPTIONS(a='b')", "OPTIONS('a'='b') x"]
        {
            assert!(pairs(wrong, Span::empty()).is_err(), "{wrong}");
        }
    }
}
