//! Errors that point at the SQL: the place, the source line with a caret, and advice.
//!
//! Inside the crate a [`Fault`] says what it is about; at the edge `spans` finds where that stands, and it becomes a [`SqlError`], which holds the text of
//! the line.

use std::fmt;
use std::sync::Arc;

use coulee_model::{Classify, ErrorKind};
use coulee_runtime::Subject;
use datafusion_common::DataFusionError;
use sqlparser::tokenizer::{Location, Span, TokenWithSpan};

use crate::spans::{self, Place};

/// A script and where it came from.
#[derive(Debug)]
pub(crate) struct Source {
    pub origin: String,
    pub text: String,
}

impl Source {
    /// The byte offset of a location; the end of the text when it lies beyond.
    pub fn offset(&self, location: Location) -> usize {
        let mut start = 0;
        for (index, line) in self.text.split_inclusive('\n').enumerate() {
            if index as u64 + 1 == location.line {
                let columns = (location.column.max(1) - 1) as usize;
                return start + line.char_indices().nth(columns).map_or(line.len(), |(at, _)| at);
            }
            start += line.len();
        }
        self.text.len()
    }

    /// The text between two locations.
    pub fn slice(&self, span: Span) -> &str {
        let (start, end) = (self.offset(span.start), self.offset(span.end));
        self.text.get(start..end.max(start)).unwrap_or_default()
    }

    fn line(&self, number: u64) -> &str {
        let index = usize::try_from(number.max(1) - 1).unwrap_or(usize::MAX);
        self.text.lines().nth(index).unwrap_or_default()
    }
}

/// Something wrong with a statement, before it is known which script the statement is from.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub kind: ErrorKind,
    pub message: String,
    pub help: Option<String>,
    /// Where it may be shown, best first. None of them: at the statement's first word.
    pub places: Vec<Place>,
}

pub(crate) type Result<T, E = Fault> = std::result::Result<T, E>;

impl Fault {
    /// The statement is wrong.
    pub fn new(message: impl Into<String>) -> Self {
        Fault { kind: ErrorKind::Invalid, message: message.into(), help: None, places: Vec::new() }
    }

    /// Points at a piece of the script, before all that was said. An empty span is no place.
    #[must_use]
    pub fn at(mut self, span: Span) -> Self {
        if span.start.line > 0 {
            self.places.insert(0, Place::Span(span));
        }
        self
    }

    /// Points at a piece of the script, if it is known and nothing better was said.
    #[must_use]
    pub fn or_at(mut self, span: Option<Span>) -> Self {
        self.places.extend(span.map(Place::Span));
        self
    }

    /// Says what it is about, if nothing better was said.
    #[must_use]
    pub fn about(mut self, subject: Subject) -> Self {
        self.places.push(Place::Subject(subject));
        self
    }

    /// Points at the first of these keywords that there is, if nothing better was said.
    #[must_use]
    pub fn or_clause(mut self, keywords: &'static [&'static str]) -> Self {
        self.places.push(Place::Clause(keywords));
        self
    }

    /// Looks for its places among these words, which are a part of the statement; not beyond one that another statement declares.
    #[must_use]
    pub fn within(self, words: &[TokenWithSpan]) -> Self {
        for place in &self.places {
            if let Some(span) = spans::find(place, words) {
                return self.at(span);
            }
            if spans::declared_by(place).is_some() {
                return self;
            }
        }
        self
    }

    /// Adds advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The error as users see it. The script's words are those of the statement; without a place in them it is shown at the first.
    pub fn in_source(self, source: &Arc<Source>, words: &[TokenWithSpan]) -> SqlError {
        let first = words.first().map_or(Span::empty(), |word| word.span);
        let span = self.places.iter().find_map(|place| spans::find(place, words)).unwrap_or(first);
        let line = source.line(span.start.line);
        let rest = line.chars().count().saturating_sub((span.start.column.max(1) - 1) as usize);
        let width = match span.end.line == span.start.line && span.end.column > span.start.column {
            true => (span.end.column - span.start.column) as usize,
            false => 1,
        };
        SqlError {
            kind: self.kind,
            message: self.message,
            help: self.help,
            origin: source.origin.clone(),
            line: span.start.line.max(1),
            column: span.start.column.max(1),
            source_line: line.to_owned(),
            width: width.min(rest.max(1)),
        }
    }

    /// As an error of DataFusion's, for code that its planner calls; `faults` gets it back.
    pub fn into_datafusion(self) -> DataFusionError {
        DataFusionError::External(Box::new(self))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl From<coulee_runtime::Error> for Fault {
    fn from(error: coulee_runtime::Error) -> Self {
        let places = error.subject().cloned().map(Place::Subject).into_iter().collect();
        Fault { kind: error.kind(), message: error.to_string(), help: None, places }
    }
}

/// An error of a script: where, what, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlError {
    kind: ErrorKind,
    message: String,
    help: Option<String>,
    origin: String,
    line: u64,
    column: u64,
    source_line: String,
    width: usize,
}

impl SqlError {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What is wrong, without the place.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it, where there is advice.
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// The line and the column (in characters), both counted from 1.
    pub fn position(&self) -> (u64, u64) {
        (self.line, self.column)
    }
}

impl Classify for SqlError {
    fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.origin, self.line, self.column, self.message)?;
        let gutter = self.line.to_string();
        let blank = " ".repeat(gutter.len());
        let (shown, before) = excerpt(&self.source_line, self.column as usize - 1, self.width);
        // Tabs stay tabs under the line, so that the caret stands where the terminal puts the character.
        let indent: String = shown.chars().take(before).map(blank_like).collect();
        let carets = "^".repeat(self.width.min(shown.chars().count().saturating_sub(before)).max(1));
        write!(f, "\n {gutter} | {shown}\n {blank} | {indent}{carets}")?;
        match &self.help {
            Some(help) => write!(f, "\n {blank} = help: {help}"),
            None => Ok(()),
        }
    }
}

/// How many characters of a line are shown.
const SHOWN_MAX: usize = 110;
/// How many of them stand in front of the caret, where the line is cut.
const BEFORE_MAX: usize = 60;

/// The part of a line around a place (in characters), with `…` where it is cut, and how many of its characters stand in front of the place.
fn excerpt(line: &str, at: usize, width: usize) -> (String, usize) {
    let count = line.chars().count();
    if count <= SHOWN_MAX {
        return (line.to_owned(), at);
    }
    let behind = width.clamp(SHOWN_MAX - BEFORE_MAX, SHOWN_MAX / 2);
    let start = at.saturating_sub(BEFORE_MAX).min(count.saturating_sub(SHOWN_MAX));
    let end = (at + behind).max(start + SHOWN_MAX).min(count);
    let mut shown: String = line.chars().skip(start).take(end - start).collect();
    if end < count {
        shown.push('…');
    }
    if start > 0 {
        shown.insert(0, '…');
    }
    (shown, at - start.min(at) + usize::from(start > 0))
}

fn blank_like(c: char) -> char {
    if c == '\t' { '\t' } else { ' ' }
}

impl std::error::Error for SqlError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_the_line_and_a_caret_under_the_word() {
        let source = Arc::new(Source { origin: "jobs/x.sql".into(), text: "SELECT 1;\n\tSELECT foo\n".into() });
        let span = Span::new(Location::new(2, 9), Location::new(2, 12));
        assert_eq!(source.slice(span), "foo");
        let error = Fault::new("unknown column 'foo'").at(span).help("did you mean 'fob'?").in_source(&source, &[]);
        assert_eq!(
            error.to_string(),
            "jobs/x.sql:2:9: unknown column 'foo'\n 2 | \tSELECT foo\n   | \t       ^^^\n   = help: did you mean 'fob'?"
        );
    }

    #[test]
    fn a_long_line_is_cut_around_the_caret() {
        let line = format!("{}nope{}", "ä".repeat(500), "b".repeat(500));
        let source = Arc::new(Source { origin: "command-line".into(), text: line });
        let span = Span::new(Location::new(1, 501), Location::new(1, 505));
        let error = Fault::new("unknown column 'nope'").at(span).in_source(&source, &[]).to_string();
        let lines: Vec<&str> = error.lines().collect();
        assert_eq!(lines[0], "command-line:1:501: unknown column 'nope'");
        assert_eq!(lines[1], format!(" 1 | …{}nope{}…", "ä".repeat(60), "b".repeat(46)));
        assert_eq!(lines[2], format!("   | {}^^^^", " ".repeat(61)));
    }

    #[test]
    fn a_place_beyond_the_text_does_not_panic() {
        let source = Arc::new(Source { origin: "x".into(), text: "a".into() });
        let far = Span::new(Location::new(9, 9), Location::new(9, 12));
        assert_eq!(source.slice(far), "");
        assert_eq!(Fault::new("m").at(far).in_source(&source, &[]).to_string(), "x:9:9: m\n 9 | \n   | ^");
    }
}
