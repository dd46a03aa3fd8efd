//! The columns of JSON files: the fields of their objects, in the order in which they come first.

use std::fmt;

use coulee_runtime::{Error, Result};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::framing::JsonFramer;
use crate::format::infer::{Columns, Guess, Inference, Layout, SAMPLE_ROWS};
use crate::format::{Frame, Framer};

/// Deeper values are text.
const DEPTH_MAX: usize = 20;

#[derive(Debug, Default)]
pub(super) struct JsonInference {
    columns: Guess,
    rows: usize,
    /// Records that are no objects.
    others: usize,
}

impl Inference for JsonInference {
    fn add(&mut self, bytes: &[u8], whole: bool) -> Result<()> {
        let mut framer = JsonFramer::default();
        let (mut at, end) = (0, self.rows + SAMPLE_ROWS);
        while at < bytes.len() && self.rows < end {
            match framer.next(&bytes[at..], whole) {
                Frame::Incomplete => break,
                Frame::Nothing { end } => at += end,
                Frame::Malformed { end, .. } => {
                    self.others += 1;
                    at += end;
                }
                Frame::Record { record, end } => {
                    match serde_json::from_slice::<Guess>(&bytes[at..][record]) {
                        Ok(guess @ Guess::Row(_)) => {
                            self.columns.merge(guess);
                            self.rows += 1;
                        }
                        _ => self.others += 1,
                    }
                    at += end;
                }
            }
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Layout> {
        let Guess::Row(columns) = self.columns else {
            return Err(Error::invalid(match self.others {
                0 => "there is no record to infer columns from".to_owned(),
                others => format!("none of the first {others} records is a JSON object"),
            }));
        };
        if columns.len() == 0 {
            return Err(Error::invalid("the JSON objects have no fields"));
        }
        Ok(Layout { fields: columns.fields(), rows: self.rows, ..Layout::default() })
    }
}

impl<'de> Deserialize<'de> for Guess {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Value { depth: 0 })
    }
}

/// Reads a value for its type alone.
#[derive(Clone, Copy)]
struct Value {
    depth: usize,
}

impl<'de> serde::de::DeserializeSeed<'de> for Value {
    type Value = Guess;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Guess, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value {
    type Value = Guess;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Guess, E> {
        Ok(Guess::Nothing)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Guess, E> {
        Ok(Guess::Boolean)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Guess, E> {
        Ok(Guess::Whole)
    }

    /// A number that a `BIGINT` does not hold keeps its digits as text.
    fn visit_u64<E>(self, value: u64) -> Result<Guess, E> {
        Ok(if i64::try_from(value).is_ok() { Guess::Whole } else { Guess::Text })
    }

    fn visit_f64<E>(self, _: f64) -> Result<Guess, E> {
        Ok(Guess::Number)
    }

    fn visit_str<E>(self, text: &str) -> Result<Guess, E> {
        Ok(Guess::of_text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Guess, A::Error> {
        if self.depth == DEPTH_MAX {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(Guess::Text);
        }
        let mut common = Guess::Nothing;
        while let Some(item) = items.next_element_seed(Value { depth: self.depth + 1 })? {
            common.merge(item);
        }
        Ok(Guess::List(Box::new(common)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Guess, A::Error> {
        if self.depth == DEPTH_MAX {
            while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(Guess::Text);
        }
        let (mut columns, mut place) = (Columns::default(), 0);
        while let Some(name) = entries.next_key::<String>()? {
            columns.add(place, &name, entries.next_value_seed(Value { depth: self.depth + 1 })?);
            place += 1;
        }
        Ok(Guess::Row(columns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(file: &str, whole: bool) -> String {
        let mut inference = Box::new(JsonInference::default());
        inference.add(file.as_bytes(), whole).unwrap();
        match inference.finish() {
            Ok(layout) => {
                let column = |field: &arrow::datatypes::Field| {
                    format!("{} {}", field.name(), coulee_runtime::sql_type::sql_type(field.data_type()))
                };
                layout.fields.iter().map(column).collect::<Vec<_>>().join(", ")
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn fields_come_in_the_order_in_which_they_are_seen() {
        for (file, expected) in [
            ("{\"b\":1,\"a\":null}\n{\"a\":true,\"c\":\"x\"}\n", "b BIGINT, a BOOLEAN, c STRING"),
            ("[{\"a\":1},\n {\"a\":1.5}]", "a DOUBLE"),
            ("{\"a\":9223372036854775808}", "a STRING"),
            ("{\"a\":[1,2.5],\"r\":{\"x\":\"2013-01-01\"}}", "a ARRAY<DOUBLE>, r ROW<x DATE>"),
            ("{\"a\":[],\"r\":{}}", "a ARRAY<STRING>, r STRING"),
            ("{\"a\":1}\n{\"a\":{\"b\":1}}", "a STRING"),
            ("not json\n\n{\"a\":1}\n", "a BIGINT"),
            ("", "there is no record to infer columns from"),
            ("1\n2\n", "none of the first 2 records is a JSON object"),
            ("{}", "the JSON objects have no fields"),
        ] {
            assert_eq!(columns(file, true), expected, "{file}");
        }
    }

    #[test]
    fn a_record_that_the_sample_cuts_off_is_not_looked_at() {
        assert_eq!(columns("{\"a\":1}\n{\"a\":2,\"b", false), "a BIGINT");
    }
}
