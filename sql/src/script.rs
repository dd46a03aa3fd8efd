//! Cuts a script into statements and parses each.

use std::sync::Arc;

use sqlparser::parser::ParserError;
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};

use crate::dialect::FlinkDialect;
use crate::error::{Fault, Source, SqlError};
use crate::parse;
use crate::statement::Statement;

/// Parses a script: statements separated by `;`, with `--` and `/* */` comments. `origin` is what errors call the script: its file name.
///
/// No name is looked up yet; that is [`Session::execute`](crate::Session::execute)'s part.
///
/// # Errors
/// The first statement that cannot be parsed.
pub fn parse_script(text: &str, origin: &str) -> Result<Vec<Statement>, SqlError> {
    let source = Arc::new(Source { origin: origin.to_owned(), text: text.to_owned() });
    let tokens = Tokenizer::new(&FlinkDialect, text).tokenize_with_location().map_err(|error| {
        let end = Location::new(error.location.line, error.location.column + 1);
        let span = Span::new(error.location, end);
        Fault::new(lower_first(&error.message)).at(span).in_source(&source, span)
    })?;
    let mut statements = Vec::new();
    for words in split(tokens) {
        let start = words[0].span;
        let body = parse::statement(&words, &source).map_err(|fault| fault.in_source(&source, start))?;
        statements.push(Statement { source: source.clone(), tokens: Arc::new(words), body });
    }
    Ok(statements)
}

/// The words of each statement: no blanks, no comments, no `;` (but inside a statement set), none empty.
fn split(tokens: Vec<TokenWithSpan>) -> Vec<Vec<TokenWithSpan>> {
    let mut statements = Vec::new();
    let mut current: Vec<TokenWithSpan> = Vec::new();
    for token in tokens {
        match token.token {
            Token::Whitespace(_) | Token::EOF => {}
            Token::SemiColon if !is_open_set(&current) => {
                if !current.is_empty() {
                    statements.push(std::mem::take(&mut current));
                }
            }
            // Types nest (`ARRAY<ARRAY<INT>>`) and Flink has no shift operator.
            Token::ShiftRight => current.extend(halves(token.span).map(|span| TokenWithSpan::new(Token::Gt, span))),
            _ => current.push(token),
        }
    }
    if !current.is_empty() {
        statements.push(current);
    }
    statements
}

fn halves(span: Span) -> [Span; 2] {
    let middle = Location::new(span.start.line, span.start.column + 1);
    [Span::new(span.start, middle), Span::new(middle, span.end)]
}

/// Whether a `;` here stands inside `EXECUTE STATEMENT SET BEGIN … END`.
fn is_open_set(words: &[TokenWithSpan]) -> bool {
    let is = |token: &TokenWithSpan, word: &str| is_word(&token.token, word);
    // `EXPLAIN` may stand in front.
    let opens = words.iter().take(4).zip(words.iter().skip(1)).any(|(a, b)| is(a, "EXECUTE") && is(b, "STATEMENT"));
    // An END behind anything but `;` closes a CASE.
    let closed = matches!(words, [.., before, last] if is(last, "END") && (before.token == Token::SemiColon || is(before, "BEGIN")));
    opens && !closed
}

/// Whether a token is an unquoted word, whatever its case.
pub(crate) fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}

/// What sqlparser says, with the place taken out of its message.
pub(crate) fn parser_fault(error: &ParserError, tokens: &[TokenWithSpan]) -> Fault {
    let text = match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.clone(),
        ParserError::RecursionLimitExceeded => return Fault::new("the statement is nested too deeply"),
    };
    let (message, place) = match text.rsplit_once(" at Line: ") {
        Some((message, place)) => (message.to_owned(), location(place)),
        None => (text, None),
    };
    let found = message.rsplit_once("found: ").map(|(_, found)| found.to_owned());
    let span = place.map(|at| {
        // The word that the message speaks of is at that place or in front of it.
        let index = tokens.iter().position(|token| token.span.start == at).unwrap_or(tokens.len());
        let is_it = |token: &&TokenWithSpan| found.as_ref().is_some_and(|found| token.token.to_string() == *found);
        let before = tokens[..index].last().filter(is_it);
        let token = tokens.get(index).filter(is_it).or(before).or(tokens.get(index));
        token.map_or(Span::new(at, Location::new(at.line, at.column + 1)), |token| token.span)
    });
    // Without a place, the statement ended too early.
    let end = tokens.last().map(|token| token.span);
    Fault::new(lower_first(&message).replace("found: EOF", "found the end of the statement"))
        .or_at(span.filter(|span| span.start.line > 0))
        .or_at(end)
}

/// Reads `3, Column: 14`.
fn location(place: &str) -> Option<Location> {
    let (line, column) = place.split_once(", Column: ")?;
    Some(Location::new(line.trim().parse().ok()?, column.trim().parse().ok()?))
}

/// Messages of Coulee's begin in lower case, as they follow a colon.
fn lower_first(message: &str) -> String {
    let mut chars = message.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), second) if !second.is_some_and(char::is_uppercase) => first.to_lowercase().chain(chars).collect(),
        _ => message.to_owned(),
    }
}
