//! The columns of files that nobody has declared: what the values of a sample have in common.
//!
//! A format makes an [`Inference`], which is shown the beginnings of files and answers a [`Layout`]. A [`Guess`] is the narrowest type that
//! holds all values seen so far: `BIGINT`, never `INT`, as later rows may be larger; `STRING` where values have no other type in common.
//! Every column may be null, as a sample does not tell whether a later row has the column.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use coulee_runtime::Result;

use super::temporal::{parse_date, parse_timestamp};

/// Rows that are looked at in one file.
pub const SAMPLE_ROWS: usize = 20_480;

/// Columns that are inferred at most: a file with more has no columns but keys.
const COLUMNS_MAX: usize = 4_096;

/// Columns and options that fit a sample.
#[derive(Debug, Default)]
pub struct Layout {
    /// The columns.
    pub fields: Vec<Field>,
    /// The options of the format that are not at their defaults.
    pub options: BTreeMap<&'static str, String>,
    /// How many records were looked at.
    pub rows: usize,
}

/// Looks at the beginnings of the files of one table.
///
/// **Operations** `add` once per file, then `finish`.
/// **Guarantees** asked of an implementation: a record that it cannot read is passed over, as the reader of the table rejects it.
/// **Failure** `finish` says why the sample has no columns.
pub trait Inference {
    /// Looks at the first bytes of a file; `whole` says that there are no more. A byte order mark is not among them.
    ///
    /// # Errors
    /// `Invalid` when the files do not fit together.
    fn add(&mut self, bytes: &[u8], whole: bool) -> Result<()>;

    /// The columns of all that was added.
    ///
    /// # Errors
    /// `Invalid` when there are none.
    fn finish(self: Box<Self>) -> Result<Layout>;
}

/// The narrowest type of the values seen so far.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Guess {
    /// Nulls only.
    #[default]
    Nothing,
    /// `true` and `false`.
    Boolean,
    /// Whole numbers of 64 bits.
    Whole,
    /// Numbers.
    Number,
    /// Dates as text.
    Date,
    /// Timestamps as text, all of one shape.
    Timestamp(Shape),
    /// Anything, as text.
    Text,
    /// Lists of something.
    List(Box<Guess>),
    /// Objects.
    Row(Columns),
}

/// How a timestamp is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// `T` or a blank between date and time.
    separator: u8,
    /// Digits behind the second; `None` without seconds.
    digits: Option<usize>,
    /// Whether a zone follows, so that it is an instant.
    zoned: bool,
}

impl Guess {
    /// The type of a text.
    pub fn of_text(text: &str) -> Self {
        let bytes = text.as_bytes();
        if parse_date(bytes).is_some() {
            return Guess::Date;
        }
        match Shape::of(bytes) {
            Some(shape) => Guess::Timestamp(shape),
            None => Guess::Text,
        }
    }

    /// Takes in another value's type.
    pub fn merge(&mut self, other: Guess) {
        match (&mut *self, other) {
            (_, Guess::Nothing) => {}
            (Guess::Nothing, other) => *self = other,
            (Guess::Whole, Guess::Number) => *self = Guess::Number,
            (Guess::Number, Guess::Whole) => {}
            (Guess::List(item), Guess::List(other)) => item.merge(*other),
            (Guess::Row(columns), Guess::Row(other)) => columns.merge(other),
            (guess, other) if *guess == other => {}
            _ => *self = Guess::Text,
        }
    }

    /// The column's type.
    pub fn data_type(&self) -> DataType {
        match self {
            Guess::Boolean => DataType::Boolean,
            Guess::Whole => DataType::Int64,
            Guess::Number => DataType::Float64,
            Guess::Date => DataType::Date32,
            Guess::Timestamp(shape) => shape.data_type(),
            Guess::List(item) => DataType::List(Arc::new(Field::new("item", item.data_type(), true))),
            Guess::Row(columns) if !columns.0.is_empty() => DataType::Struct(columns.fields().into()),
            Guess::Nothing | Guess::Text | Guess::Row(_) => DataType::Utf8,
        }
    }
}

impl Shape {
    /// The shape of a timestamp; `None` of anything else.
    fn of(text: &[u8]) -> Option<Self> {
        parse_timestamp(text)?;
        let (separator, time) = (*text.get(10)?, &text[11..]);
        let clock = time.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b':').count();
        let (clock, rest) = time.split_at(clock);
        let digits = match rest.first() {
            Some(b'.' | b',') => rest[1..].iter().take_while(|byte| byte.is_ascii_digit()).count(),
            _ => 0,
        };
        let behind = if digits > 0 { &rest[1 + digits..] } else { rest };
        Some(Shape { separator, digits: (clock.len() > 5).then_some(digits), zoned: !behind.is_empty() })
    }

    fn data_type(self) -> DataType {
        let unit = match self.digits.unwrap_or(0) {
            0..=3 => TimeUnit::Millisecond,
            4..=6 => TimeUnit::Microsecond,
            _ => TimeUnit::Nanosecond,
        };
        DataType::Timestamp(unit, self.zoned.then(|| "UTC".into()))
    }
}

/// Named values, in the order in which their names were seen first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Columns(Vec<(String, Guess)>);

impl Columns {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes in a value of the column `name`, which is likely the one at `place`.
    pub fn add(&mut self, place: usize, name: &str, guess: Guess) {
        let is_there = self.0.get(place).is_some_and(|(known, _)| known == name);
        let found = if is_there { Some(place) } else { self.0.iter().position(|(known, _)| known == name) };
        match found {
            Some(at) => self.0[at].1.merge(guess),
            None if self.0.len() < COLUMNS_MAX => self.0.push((name.to_owned(), guess)),
            None => {}
        }
    }

    fn merge(&mut self, other: Columns) {
        for (place, (name, guess)) in other.0.into_iter().enumerate() {
            self.add(place, &name, guess);
        }
    }

    /// The columns; each may be null.
    pub fn fields(&self) -> Vec<Field> {
        self.0.iter().map(|(name, guess)| Field::new(name, guess.data_type(), true)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn common(texts: &[&str]) -> String {
        let mut guess = Guess::default();
        texts.iter().for_each(|text| guess.merge(Guess::of_text(text)));
        coulee_runtime::sql_type::sql_type(&guess.data_type())
    }

    #[test]
    fn timestamps_of_one_shape_are_timestamps_and_others_are_text() {
        for (texts, expected) in [
            (&["2013-01-01", "2014-12-31"][..], "DATE"),
            (&["2013-01-01 10:17", "2013-01-01 10:18"], "TIMESTAMP(3)"),
            (&["2013-01-01T10:17:00.25", "2013-01-01T10:17:00.26"], "TIMESTAMP(3)"),
            (&["2013-01-01 10:17:00.123456"], "TIMESTAMP(6)"),
            (&["2013-01-01 10:17:00.1234567"], "TIMESTAMP(9)"),
            (&["2013-01-01T10:17:00Z", "2013-01-01T10:17:00+01:00"], "TIMESTAMP_LTZ(3)"),
            (&["2013-01-01 10:17:00", "2013-01-01T10:17:00"], "STRING"),
            (&["2013-01-01 10:17:00", "2013-01-01 10:17:00.5"], "STRING"),
            (&["2013-01-01 10:17:00", "2013-01-01 10:17:00Z"], "STRING"),
            (&["2013-01-01", "2013-01-01 10:17:00"], "STRING"),
            (&["2013-02-30"], "STRING"),
            (&[""], "STRING"),
        ] {
            assert_eq!(common(texts), expected, "{texts:?}");
        }
    }

    #[test]
    fn whole_numbers_widen_to_double_and_nothing_else_does() {
        let merged = |mut guess: Guess, other: Guess| {
            guess.merge(other);
            guess
        };
        assert_eq!(merged(Guess::Whole, Guess::Number), Guess::Number);
        assert_eq!(merged(Guess::Nothing, Guess::Boolean), Guess::Boolean);
        assert_eq!(merged(Guess::Boolean, Guess::Nothing), Guess::Boolean);
        assert_eq!(merged(Guess::Boolean, Guess::Whole), Guess::Text);
        let list = |item| Guess::List(Box::new(item));
        assert_eq!(merged(list(Guess::Nothing), list(Guess::Whole)), list(Guess::Whole));
        assert_eq!(merged(list(Guess::Whole), Guess::Whole), Guess::Text);
    }
}
