//! The columns, the delimiter and the header of delimited files, as DuckDB finds them in the plain cases.
//!
//! - The delimiter is the one of `,` `;` tab `|` by which the most records have as many fields as the first one, two at least.
//! - The first record names the columns unless each of its fields could be a value of its column. Where all columns are text nothing tells, and
//!   the first record names them. Without names the columns are `column0`, `column1`, …
//! - An empty field is null in every column.

use coulee_runtime::{Error, Result};

use super::framing::CsvFramer;
use super::split::{Dialect, Splitter};
use crate::format::infer::{Columns, Guess, Inference, Layout, SAMPLE_ROWS};
use crate::format::plain::{parse_float64, truth};
use crate::format::{Frame, Framer};

/// The delimiters that are tried, the likeliest first.
const DELIMITERS: &[u8] = b",;\t|";

#[derive(Debug, Default)]
pub(super) struct CsvInference {
    /// What the first file is like, which has the others' names and delimiter.
    first: Option<Layouted>,
    columns: Columns,
    rows: usize,
}

#[derive(Debug)]
struct Layouted {
    delimiter: u8,
    has_header: bool,
    names: Vec<String>,
}

impl Inference for CsvInference {
    fn add(&mut self, bytes: &[u8], whole: bool) -> Result<()> {
        let records = match &self.first {
            Some(first) => records(bytes, whole, first.delimiter),
            None => {
                let tried = DELIMITERS.iter().map(|delimiter| (*delimiter, records(bytes, whole, *delimiter)));
                // The first of those that are equal.
                let best = tried.rev().max_by_key(|(_, records)| fitting(records));
                let Some((delimiter, records)) = best.filter(|(_, records)| !records.is_empty()) else { return Ok(()) };
                self.first = Some(layout(delimiter, &records)?);
                records
            }
        };
        let Some(Layouted { has_header, names, .. }) = &self.first else { return Ok(()) };
        let (header, rows) = records.split_at(usize::from(*has_header).min(records.len()));
        let own = header.first().map_or(names, |header| header);
        for row in rows {
            for (place, name) in own.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                let guess = row.get(place).map_or(Guess::Nothing, |field| guess(field));
                self.columns.add(place, name, guess);
            }
        }
        if rows.is_empty() {
            own.iter().enumerate().for_each(|(place, name)| self.columns.add(place, name, Guess::Nothing));
        }
        self.rows += rows.len();
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Layout> {
        let Some(first) = self.first else {
            return Err(Error::invalid("there is no record to infer columns from"));
        };
        let mut layout = Layout { fields: self.columns.fields(), rows: self.rows, ..Layout::default() };
        if first.delimiter != b',' {
            let delimiter =
                if first.delimiter == b'\t' { "\\t".into() } else { char::from(first.delimiter).to_string() };
            layout.options.insert("csv.field-delimiter", delimiter);
        }
        if !first.has_header {
            layout.options.insert("csv.header", "false".into());
        }
        layout.options.insert("csv.null-literal", String::new());
        Ok(layout)
    }
}

/// The fields of the first records.
fn records(bytes: &[u8], whole: bool, delimiter: u8) -> Vec<Vec<String>> {
    let dialect = Dialect { delimiter, quote: Some(b'"'), escape: None, comments: false };
    let (mut framer, mut splitter) = (CsvFramer::new(dialect), Splitter::new(dialect));
    let (mut at, mut records) = (0, Vec::new());
    while at < bytes.len() && records.len() <= SAMPLE_ROWS {
        match framer.next(&bytes[at..], whole) {
            Frame::Incomplete => break,
            Frame::Nothing { end } | Frame::Malformed { end, .. } => at += end,
            Frame::Record { record, end } => {
                if splitter.split(&bytes[at..][record]).is_ok() {
                    let field = |index| String::from_utf8_lossy(splitter.field(index)).trim().to_owned();
                    records.push((0..splitter.len()).map(field).collect());
                }
                at += end;
            }
        }
    }
    records
}

/// How well records fit a delimiter: how many have as many fields as the first, and how many fields those are; nothing for one field.
fn fitting(records: &[Vec<String>]) -> (usize, usize) {
    let width = records.first().map_or(0, Vec::len);
    match width {
        0 | 1 => (0, 0),
        _ => (records.iter().filter(|record| record.len() == width).count(), width),
    }
}

/// Whether the first record names the columns, and how they are called.
fn layout(delimiter: u8, records: &[Vec<String>]) -> Result<Layouted> {
    let (first, rest) = records.split_first().ok_or_else(|| Error::internal("a layout of no records"))?;
    let column = |place: usize| {
        let mut common = Guess::default();
        let fields = rest.iter().filter_map(|row| row.get(place));
        fields.for_each(|field| common.merge(guess(field)));
        common
    };
    let types: Vec<Guess> = (0..first.len()).map(column).collect();
    let is_text = |guess: &Guess| matches!(guess, Guess::Text | Guess::Nothing);
    let fits = |(field, common): (&String, &Guess)| {
        let mut merged = common.clone();
        merged.merge(guess(field));
        merged == *common || is_text(common) || (merged == Guess::Number && *common == Guess::Whole)
    };
    let alone = rest.is_empty() && first.iter().any(|field| !is_text(&guess(field)));
    let consistent = first.iter().zip(&types).all(fits);
    let all_text = types.iter().all(is_text);
    let is_value = |(field, common): (&String, &Guess)| *common == Guess::Nothing && !is_text(&guess(field));
    let is_data = alone || consistent && !all_text || first.iter().zip(&types).any(is_value);
    if is_data {
        let names = (0..first.len()).map(|place| format!("column{place}")).collect();
        return Ok(Layouted { delimiter, has_header: false, names });
    }
    for (place, name) in first.iter().enumerate() {
        if !name.is_empty() && first[..place].contains(name) {
            return Err(Error::invalid(format!(
                "the header has the column '{name}' twice, so that it cannot be found by its name"
            )));
        }
    }
    if first.iter().all(String::is_empty) {
        return Err(Error::invalid("the header has no names"));
    }
    Ok(Layouted { delimiter, has_header: true, names: first.clone() })
}

/// The type of a field.
fn guess(field: &str) -> Guess {
    let is_number = |text: &str| {
        let digits = text.strip_prefix('-').unwrap_or(text);
        // A number that begins with a zero is a code, which would lose the zero.
        let is_code = digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit();
        digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') && !is_code
    };
    match field {
        "" => Guess::Nothing,
        text if truth(text).is_some() => Guess::Boolean,
        text if !is_number(text) => Guess::of_text(text),
        text if text.parse::<i64>().is_ok() => Guess::Whole,
        // More digits than a BIGINT has stay digits.
        text if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') => Guess::of_text(text),
        text if parse_float64(text).is_some() => Guess::Number,
        text => Guess::of_text(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(file: &str) -> String {
        let mut inference = Box::new(CsvInference::default());
        inference.add(file.as_bytes(), true).unwrap();
        let layout = inference.finish().unwrap();
        let column = |field: &arrow::datatypes::Field| {
            format!("{} {}", field.name(), coulee_runtime::sql_type::sql_type(field.data_type()))
        };
        let columns: Vec<String> = layout.fields.iter().map(column).collect();
        let options = layout.options.iter().filter(|(key, _)| **key != "csv.null-literal");
        let options: Vec<String> = options.map(|(key, value)| format!("{key}={value}")).collect();
        format!("{} {}", columns.join(", "), options.join(" "))
    }

    /// Expected by DuckDB's `DESCRIBE`, but for codes that begin with a zero.
    #[test]
    fn delimiters_headers_and_types() {
        for (file, expected) in [
            ("a,b\n1,x\n2,y\n", "a BIGINT, b STRING "),
            ("a;b\n1,5;x\n2,5;y\n", "a STRING, b STRING csv.field-delimiter=;"),
            ("a\tb\n1\t2.5\n", "a BIGINT, b DOUBLE csv.field-delimiter=\\t"),
            ("a|b\ntrue|2013-01-01\n", "a BOOLEAN, b DATE csv.field-delimiter=|"),
            ("1,x\n2,y\n", "column0 BIGINT, column1 STRING csv.header=false"),
            ("a,b\nx,y\n", "a STRING, b STRING "),
            ("a,b\n", "a STRING, b STRING "),
            ("1,2\n", "column0 BIGINT, column1 BIGINT csv.header=false"),
            ("a\n1\n2\n", "a BIGINT "),
            ("zip,n\n01234,1\n", "zip STRING, n BIGINT "),
            ("a,b\n\"x,y\",1\n", "a STRING, b BIGINT "),
            ("a,b\n,1\n,2\n", "a STRING, b BIGINT "),
        ] {
            assert_eq!(columns(file), expected, "{file}");
        }
    }
}
