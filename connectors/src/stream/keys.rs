//! A record's key, made of a row's columns: their texts, or the record that another format makes of them.

use std::fmt::Write;

use arrow::array::{Array, ArrayRef};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use coulee_runtime::{Error, Result};

use crate::format::EncodedRows;

/// Between the texts of several columns: U+001F, the unit separator, which texts rarely hold.
const SEPARATOR: char = '\u{1f}';

const FORMAT: FormatOptions<'static> = FormatOptions::new();

/// The keys of the rows of one batch.
pub(super) enum Keys<'a> {
    Texts(Texts<'a>),
    Encoded(EncodedRows),
}

impl Keys<'_> {
    /// The key of a row, if it has one.
    pub(super) fn of(&mut self, row: usize) -> Result<Option<&[u8]>> {
        match self {
            Keys::Texts(texts) => texts.of(row),
            Keys::Encoded(keys) => Ok(Some(keys.row(row))),
        }
    }
}

/// The key columns of one batch.
pub(super) struct Texts<'a> {
    columns: Vec<(&'a ArrayRef, ArrayFormatter<'a>)>,
    text: String,
}

impl<'a> Texts<'a> {
    /// `columns` are indexes into the batch's columns.
    pub(super) fn new(rows: &'a RecordBatch, columns: &[usize]) -> Result<Self> {
        let column = |index: &usize| {
            let array = rows.column(*index);
            Ok((array, ArrayFormatter::try_new(array.as_ref(), &FORMAT)?))
        };
        Ok(Texts { columns: columns.iter().map(column).collect::<Result<_>>()?, text: String::new() })
    }

    /// The key of a row: the columns' texts, where null is the empty text; `None` when all are null.
    fn of(&mut self, row: usize) -> Result<Option<&[u8]>> {
        if self.columns.iter().all(|(column, _)| column.is_null(row)) {
            return Ok(None);
        }
        self.text.clear();
        for (i, (column, formatter)) in self.columns.iter().enumerate() {
            if i > 0 {
                self.text.push(SEPARATOR);
            }
            if column.is_valid(row) {
                write!(self.text, "{}", formatter.value(row))
                    .map_err(|_| Error::invalid("a key column has a value without a text"))?;
            }
        }
        Ok(Some(self.text.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};

    use super::*;

    #[test]
    fn keys_are_the_columns_texts() {
        let rows = RecordBatch::try_from_iter([
            ("a", Arc::new(Int64Array::from(vec![Some(1), None, None])) as ArrayRef),
            ("b", Arc::new(StringArray::from(vec![Some("x"), Some("y"), None])) as ArrayRef),
        ])
        .expect("rows");
        let mut both = Texts::new(&rows, &[1, 0]).expect("keys");
        assert_eq!(both.of(0).expect("a key"), Some(&b"x\x1f1"[..]));
        assert_eq!(both.of(1).expect("a key"), Some(&b"y\x1f"[..]));
        assert_eq!(both.of(2).expect("no key"), None);
        assert_eq!(Texts::new(&rows, &[0]).expect("keys").of(0).expect("a key"), Some(&b"1"[..]));
        assert_eq!(Texts::new(&rows, &[]).expect("keys").of(0).expect("no key"), None);
    }
}
