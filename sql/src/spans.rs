//! Where in a script the subject of an error stands. This is the only place that looks for it.
//!
//! An error says what it is about, as data: a table, a column, an option, a clause. Whoever makes the error knows no script.

use coulee_runtime::{OptionPart, Subject};
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan};

use crate::tokens::is_word;

/// A place, as exactly as the code knows it that reports an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is known.
    Span(Span),
    /// Where the subject is named.
    Subject(Subject),
    /// The first of these keywords that the statement has.
    Clause(&'static [&'static str]),
    /// A word that a message of DataFusion's quotes: a column, a table or a function.
    Word(String),
}

impl Place {
    pub fn subject(&self) -> Option<&Subject> {
        match self {
            Place::Subject(subject) => Some(subject),
            _ => None,
        }
    }
}

/// Where a place is among the words of a statement; `None` when it is not there.
pub(crate) fn find(place: &Place, words: &[TokenWithSpan]) -> Option<Span> {
    match place {
        Place::Span(span) => (span.start.line > 0).then_some(*span),
        Place::Clause(keywords) => keywords
            .iter()
            .find_map(|keyword| words.iter().find(|word| is_word(&word.token, keyword)).map(|word| word.span)),
        Place::Word(word) => named(words, word),
        Place::Subject(Subject::Table(name) | Subject::Function(name)) => named(words, name),
        Place::Subject(Subject::Column { table, column }) => {
            qualified(words, table.as_deref(), column).or_else(|| named(words, column))
        }
        Place::Subject(Subject::Option { key, part, .. }) => option(words, key, *part),
    }
}

/// The table whose `CREATE TABLE` has the place, where the statement at hand does not.
pub(crate) fn declared_by(place: &Place) -> Option<&str> {
    match place {
        Place::Subject(Subject::Option { table: Some(table), .. }) => Some(table),
        _ => None,
    }
}

/// Where a name first stands: as it is written, or else whatever its case.
fn named(words: &[TokenWithSpan], name: &str) -> Option<Span> {
    let find = |is_it: &dyn Fn(&str) -> bool| {
        words.iter().find(|word| matches!(&word.token, Token::Word(word) if is_it(&word.value))).map(|word| word.span)
    };
    find(&|word| word == name).or_else(|| find(&|word| word.eq_ignore_ascii_case(name)))
}

/// The column in `table.column`.
fn qualified(words: &[TokenWithSpan], table: Option<&str>, column: &str) -> Option<Span> {
    let table = table?;
    let is = |token: &Token, name: &str| matches!(token, Token::Word(word) if word.value.eq_ignore_ascii_case(name));
    words.windows(3).find_map(|three| match three {
        [first, dot, last] if is(&first.token, table) && dot.token == Token::Period && is(&last.token, column) => {
            Some(last.span)
        }
        _ => None,
    })
}

/// `'key' = 'value'`: one of both.
fn option(words: &[TokenWithSpan], key: &str, part: OptionPart) -> Option<Span> {
    let is_text = |token: &Token, text: &str| matches!(token, Token::SingleQuotedString(value) if value == text);
    words.windows(3).find_map(|three| match three {
        [name, equals, value] if is_text(&name.token, key) && equals.token == Token::Eq => Some(match part {
            OptionPart::Key => name.span,
            OptionPart::Value => value.span,
        }),
        _ => None,
    })
}

/// A place that DataFusion keeps with a column.
pub(crate) fn of_datafusion(span: datafusion_common::Span) -> Span {
    let location = |at: datafusion_common::Location| Location::new(at.line, at.column);
    Span::new(location(span.start), location(span.end))
}

#[cfg(test)]
mod tests {
    use sqlparser::tokenizer::Tokenizer;

    use super::*;
    use crate::dialect::FlinkDialect;

    #[test]
    fn subjects_are_found_where_they_are_named() {
        let text = "INSERT INTO t SELECT a.x, b.X, `from` FROM a WHERE x = 1 WITH ('path' = 'p', 'p' = 'path')";
        let words: Vec<TokenWithSpan> = Tokenizer::new(&FlinkDialect, text)
            .tokenize_with_location()
            .expect("words")
            .into_iter()
            .filter(|word| !matches!(word.token, Token::Whitespace(_)))
            .collect();
        let column = |table: Option<&str>, column: &str| {
            Place::Subject(Subject::Column { table: table.map(str::to_owned), column: column.to_owned() })
        };
        let option = |key: &str, part| Place::Subject(Subject::Option { table: None, key: key.to_owned(), part });
        for (place, found) in [
            (column(Some("b"), "x"), Some("X")),
            (column(None, "x"), Some("x")),
            (column(Some("c"), "from"), Some("`from`")),
            (Place::Clause(&["GROUP", "WHERE"]), Some("WHERE")),
            (option("path", OptionPart::Value), Some("'p'")),
            (option("p", OptionPart::Key), Some("'p'")),
            (option("x", OptionPart::Key), None),
            (Place::Subject(Subject::Table("nowhere".into())), None),
            (Place::Span(Span::empty()), None),
        ] {
            let span = find(&place, &words);
            let shown = span.map(|span| &text[span.start.column as usize - 1..span.end.column as usize - 1]);
            assert_eq!(shown, found, "{place:?}");
        }
        let columns = |place| find(&place, &words).map(|span| span.start.column);
        assert_eq!(columns(column(None, "x")), Some(24));
        assert_eq!(columns(option("p", OptionPart::Key)), Some(78));
    }
}
