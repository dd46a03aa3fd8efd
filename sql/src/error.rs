//! Errors that point at the SQL: the place, the source line with a caret, and advice.
//!
//! Inside the crate a [`Fault`] carries a span of the script; at the edge it becomes a [`SqlError`], which holds the text of the line.

use std::fmt;
use std::sync::Arc;

use coulee_model::{Classify, ErrorKind};
use datafusion_common::{DataFusionError, Diagnostic};
use sqlparser::tokenizer::{Location, Span};

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
    /// `None` points at the statement's first word.
    pub span: Option<Span>,
}

pub(crate) type Result<T, E = Fault> = std::result::Result<T, E>;

impl Fault {
    /// The statement is wrong.
    pub fn new(message: impl Into<String>) -> Self {
        Fault { kind: ErrorKind::Invalid, message: message.into(), help: None, span: None }
    }

    /// Points at a piece of the script. An empty span is no place.
    #[must_use]
    pub fn at(mut self, span: Span) -> Self {
        self.span = (span.start.line > 0).then_some(span);
        self
    }

    /// Points at a piece of the script, if it is known and nothing better was said.
    #[must_use]
    pub fn or_at(self, span: Option<Span>) -> Self {
        match (self.span, span) {
            (None, Some(span)) => self.at(span),
            _ => self,
        }
    }

    /// Adds advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The error as users see it; `start` is where the statement begins.
    pub fn in_source(self, source: &Arc<Source>, start: Span) -> SqlError {
        let span = self.span.unwrap_or(start);
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

    /// As an error of DataFusion's, for code that its planner calls.
    pub fn into_datafusion(self) -> DataFusionError {
        let span = self.span.and_then(datafusion_common::Span::try_from_sqlparser_span);
        let mut diagnostic = Diagnostic::new_error(self.message.clone(), span);
        if let Some(help) = self.help {
            diagnostic = diagnostic.with_help(help, None);
        }
        DataFusionError::Plan(self.message).with_diagnostic(diagnostic)
    }
}

impl From<coulee_runtime::Error> for Fault {
    fn from(error: coulee_runtime::Error) -> Self {
        Fault { kind: error.kind(), message: error.to_string(), help: None, span: None }
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
        // Tabs stay tabs under the line, so that the caret stands where the terminal puts the character.
        let indent: String = self.source_line.chars().take(self.column as usize - 1).map(blank_like).collect();
        write!(f, "\n {gutter} | {}\n {blank} | {indent}{}", self.source_line, "^".repeat(self.width))?;
        match &self.help {
            Some(help) => write!(f, "\n {blank} = help: {help}"),
            None => Ok(()),
        }
    }
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
        let error = Fault::new("unknown column 'foo'").at(span).help("did you mean 'fob'?").in_source(&source, span);
        assert_eq!(
            error.to_string(),
            "jobs/x.sql:2:9: unknown column 'foo'\n 2 | \tSELECT foo\n   | \t       ^^^\n   = help: did you mean 'fob'?"
        );
    }

    #[test]
    fn a_place_beyond_the_text_does_not_panic() {
        let source = Arc::new(Source { origin: "x".into(), text: "a".into() });
        let far = Span::new(Location::new(9, 9), Location::new(9, 12));
        assert_eq!(source.slice(far), "");
        assert_eq!(Fault::new("m").in_source(&source, far).to_string(), "x:9:9: m\n 9 | \n   | ^");
    }
}
