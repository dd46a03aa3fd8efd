//! The errors of sqlparser as faults: its messages hold the place as text.

use sqlparser::parser::ParserError;
use sqlparser::tokenizer::{Location, Span, TokenWithSpan};

use crate::error::Fault;
use crate::limits::{PARSER_DEPTH_MAX, too_deep};

/// What sqlparser says, with the place taken out of its message.
///
/// `reached` is the word at which the parser gave up.
pub(crate) fn parser_fault(error: &ParserError, reached: &TokenWithSpan, tokens: &[TokenWithSpan]) -> Fault {
    let text = match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.clone(),
        ParserError::RecursionLimitExceeded => return too_deep(reached, PARSER_DEPTH_MAX),
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
pub(crate) fn lower_first(message: &str) -> String {
    let mut chars = message.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), second) if !second.is_some_and(char::is_uppercase) => first.to_lowercase().chain(chars).collect(),
        _ => message.to_owned(),
    }
}
