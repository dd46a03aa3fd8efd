//! Cuts a script into statements and parses each.

use std::sync::Arc;

use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};

use crate::dialect::FlinkDialect;
use crate::error::{Fault, Result, Source, SqlError};
use crate::limits::check_brackets;
use crate::options_hint::{OPTIONS, attach, hint_name, hint_text};
use crate::parse;
use crate::parser_fault::lower_first;
use crate::stack::with_large_stack;
use crate::statement::Statement;
use crate::tokens::is_word;

/// Parses a script: statements separated by `;`, with `--` and `/* */` comments. `origin` is what errors call the script: its file name.
///
/// No name is looked up yet; that is [`Session::execute`](crate::Session::execute)'s part.
///
/// # Errors
/// The first statement that cannot be parsed.
pub fn parse_script(text: &str, origin: &str) -> Result<Vec<Statement>, SqlError> {
    // Editors on Windows put a byte-order mark in front of a text.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = Arc::new(Source { origin: origin.to_owned(), text: text.to_owned() });
    with_large_stack(|| statements(&source)).map_err(|fault| fault.in_source(&source, &[]))
}

/// The statements of a script; a fault has its place.
fn statements(source: &Arc<Source>) -> Result<Vec<Statement>> {
    let mut statements = Vec::new();
    for words in split(tokens(&source.text)?)? {
        let start = words[0].span;
        check_brackets(&words)?;
        let body = parse::statement(&words, source).map_err(|fault| fault.within(&words).or_at(Some(start)))?;
        statements.push(Statement { source: source.clone(), tokens: Arc::new(words), body });
    }
    if statements.is_empty() {
        return Err(Fault::new("there is no statement here")
            .help("write at least one statement, for example SELECT … FROM …; docs/sql.md lists them"));
    }
    Ok(statements)
}

fn tokens(text: &str) -> Result<Vec<TokenWithSpan>> {
    let mut tokens: Vec<TokenWithSpan> = Vec::new();
    let cut = Tokenizer::new(&FlinkDialect, text).tokenize_with_location_into_buf(&mut tokens);
    cut.map_err(|error| {
        // What cannot be cut begins where the last token ends: a quote or a comment that nothing closes is shown at its start.
        let start = tokens.last().map_or(Location::new(1, 1), |last| last.span.end);
        let span = Span::new(start, Location::new(start.line, start.column + 1));
        let fault = Fault::new(lower_first(&error.message)).at(span);
        match error.message.as_str() {
            "Unterminated string literal" => {
                fault.help("close it with a single quote; a quote within a text is written twice: 'it''s'")
            }
            text if text.starts_with("Expected close delimiter") => {
                Fault::new("the name in backticks is not closed").at(span).help("close it with a backtick")
            }
            text if text.contains("multi-line comment") => {
                Fault::new("the comment is not closed").at(span).help("close it with */")
            }
            _ => fault,
        }
    })?;
    Ok(tokens)
}

/// The words of each statement: no blanks, no comments but hints, no `;` (but inside a statement set), none empty.
fn split(tokens: Vec<TokenWithSpan>) -> Result<Vec<Vec<TokenWithSpan>>> {
    let mut statements = Vec::new();
    let mut current: Vec<TokenWithSpan> = Vec::new();
    for token in tokens {
        match token.token {
            // A hint behind SELECT stays for sqlparser to read; elsewhere it would go unnoticed.
            ref hint if let Some(text) = hint_text(hint) => {
                if current.last().is_some_and(|last| is_word(&last.token, "SELECT")) {
                    current.push(token);
                } else if hint_name(text) == OPTIONS {
                    attach(&mut current, text, token.span)?;
                } else {
                    return Err(misplaced(text).at(token.span));
                }
            }
            Token::Whitespace(_) | Token::EOF => {}
            // A byte-order mark where files were joined, DOS's end of a file, and blanks of no width, as web pages have them.
            Token::Char('\u{feff}' | '\u{1a}' | '\u{200b}' | '\u{200c}' | '\u{200d}' | '\u{2060}') => {}
            Token::Char(wide @ '\u{ff01}'..='\u{ff5e}') => {
                let plain = char::from_u32(u32::from(wide) - 0xfee0).unwrap_or(wide);
                return Err(Fault::new(format!("{wide} is a full-width character"))
                    .at(token.span)
                    .help(format!("write {plain}")));
            }
            Token::Char(quote @ ('‘' | '’' | '“' | '”' | '´')) => {
                return Err(Fault::new(format!("{quote} is a typographic quote"))
                    .at(token.span)
                    .help("text stands in straight single quotes: 'text'; names may stand in backticks: `name`"));
            }
            Token::DoubleQuotedString(ref text)
                if !current.first().is_some_and(|first| is_word(&first.token, "SET")) =>
            {
                return Err(Fault::new(format!("\"{text}\" stands in double quotes")).at(token.span).help(format!(
                    "a text stands in single quotes: '{text}'; a name may stand in backticks: `{text}`"
                )));
            }
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
    Ok(statements)
}

/// Read as a comment, a hint would go unnoticed.
fn misplaced(text: &str) -> Fault {
    Fault::new(format!("the hint {} is not known here", hint_name(text))).help(
        "hints: SELECT /*+ STATE_UID('name') */ …, FROM t /*+ OPTIONS('key' = 'value') */ (a comment begins without +)",
    )
}

fn halves(span: Span) -> [Span; 2] {
    let middle = Location::new(span.start.line, span.start.column + 1);
    [Span::new(span.start, middle), Span::new(middle, span.end)]
}

/// Whether a `;` here stands inside `EXECUTE STATEMENT SET BEGIN … END` or `BEGIN STATEMENT SET; … END`.
fn is_open_set(words: &[TokenWithSpan]) -> bool {
    let is = |token: &TokenWithSpan, word: &str| is_word(&token.token, word);
    // `EXPLAIN` may stand in front of EXECUTE or BEGIN.
    let opens = words.iter().take(3).zip(words.iter().skip(1)).any(|(a, b)| is(a, "STATEMENT") && is(b, "SET"));
    // An END behind anything but `;` closes a CASE.
    let closed = matches!(words, [.., before, last] if is(last, "END")
        && (before.token == Token::SemiColon || is(before, "BEGIN") || is(before, "SET")));
    opens && !closed
}
