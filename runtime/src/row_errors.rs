//! What happens to a row that an expression fails on, or that a sink cannot take.
//!
//! One record must not stop a job for good: after a restart the job would meet the same record again. So an operator that
//! fails on rows finds out which ones ([`evaluate`]), goes on with the others, and hands the failed rows over as
//! [`RejectedRows`]. The chain looks up the table that the rows were read from and does what that table's
//! `'format.on-error'` says ([`policy`]): the job ends with an error that names the row, or the row is counted, or the row
//! is counted and becomes a record of the table's dead-letter stream. A sink does the same with rows that it cannot deliver,
//! under its own table's option.
//!
//! What is left out: records that cannot be decoded are the connectors' business, and arrive as batches of
//! [`rejected_schema`](crate::rejected_schema) beside the rows.

pub(crate) mod evaluate;
mod json;
pub(crate) mod policy;
mod reason;
mod text;

use std::borrow::Cow;
use std::fmt;

use arrow::array::UInt32Array;

use crate::{Batch, Result};

pub use reason::reason;
pub use text::expression_text;

/// The most bytes of a rejected record that are kept: enough to see what it was, whatever it was.
pub const REJECTED_RAW_BYTES_MAX: usize = 1 << 20;

/// The most bytes of a reason or an expression that are kept: they may quote what a record holds.
const TEXT_BYTES_MAX: usize = 2_000;

/// A reason or an expression, cut to what is kept of it.
pub fn shortened(text: &str) -> Cow<'_, str> {
    match beginning(text, TEXT_BYTES_MAX) {
        whole if whole.len() == text.len() => Cow::Borrowed(text),
        beginning => Cow::Owned(format!("{beginning}… ({} bytes)", text.len())),
    }
}

/// The beginning of a text: at most so many bytes, and whole characters.
fn beginning(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// What happens to a record or a row that cannot be processed: a table's `'format.on-error'`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum OnError {
    /// It is counted and dropped.
    Skip,
    /// It is counted and kept beside the table, with the reason.
    #[default]
    DeadLetter,
    /// The job stops with an error that names the record.
    Fail,
}

/// Where the policy of a table's rows is said to a graph: at its source or its sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowErrors {
    /// The table.
    pub table: String,
    /// What happens to its rejected rows.
    pub on_error: OnError,
}

/// Where a row was on its way when it was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// A record could not become a row.
    Decode,
    /// An expression failed on a row.
    Expression,
    /// A sink could not take a row.
    Delivery,
}

impl Stage {
    /// All of them.
    pub const ALL: [Stage; 3] = [Stage::Decode, Stage::Expression, Stage::Delivery];

    /// As dead letters and metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Decode => "decode",
            Stage::Expression => "expression",
            Stage::Delivery => "delivery",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why one row was rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The expression that failed, as SQL; `None` at a sink.
    pub expression: Option<String>,
    /// What is wrong, in one line for a person.
    pub reason: String,
}

/// Rows that could not go on, and why.
#[derive(Debug, Clone)]
pub struct RejectedRows {
    /// The rows, as the operator or the sink got them.
    pub rows: Batch,
    /// One per row.
    pub failures: Vec<Failure>,
    /// Where they failed.
    pub stage: Stage,
}

impl RejectedRows {
    /// The rows of a batch that a sink cannot take: their indexes, ascending, and what is wrong with each.
    ///
    /// # Errors
    /// When Arrow cannot select from a column's type.
    pub fn undelivered(batch: &Batch, refused: Vec<(u32, String)>) -> Result<Option<Self>> {
        if refused.is_empty() {
            return Ok(None);
        }
        let (indexes, reasons): (Vec<u32>, Vec<String>) = refused.into_iter().unzip();
        let failures = reasons.into_iter().map(|reason| Failure { expression: None, reason }).collect();
        Ok(Some(RejectedRows { rows: picked(batch, indexes)?, failures, stage: Stage::Delivery }))
    }
}

/// The rows of a batch with these indexes.
fn picked(batch: &Batch, indexes: Vec<u32>) -> Result<Batch> {
    let indexes = UInt32Array::from(indexes);
    batch.select(|column| Ok(arrow::compute::take(column, &indexes, None)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(shortened("short"), "short");
        let long = format!("x{}", "é".repeat(2_000));
        assert_eq!(shortened(&long), format!("x{}… (4001 bytes)", "é".repeat(999)));
    }
}
