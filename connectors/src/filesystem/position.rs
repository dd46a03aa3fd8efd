//! Where to go on in a file, and what the file is known by: what a checkpoint keeps of a split.
//!
//! The encoding is JSON. Version 1 had `offset`, `lines` and `rows` only; it is read, and what it lacks is not checked.

use std::fmt;

use bytes::Bytes;
use coulee_runtime::connector::SplitId;
use coulee_runtime::{Error, Result};
use serde::{Deserialize, Serialize};

use super::lines::LinePosition;
use super::mark::FileMark;

/// Where to go on in a file. `offset` and `lines` for lines, `rows` for Parquet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    version: u32,
    /// Decompressed bytes before the next record.
    #[serde(default)]
    pub offset: u64,
    /// Lines before the next record.
    #[serde(default)]
    pub lines: u64,
    /// Rows before the next one.
    #[serde(default)]
    pub rows: u64,
    /// The CRC-32C of the `offset` bytes; `None` when it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc32c: Option<u32>,
    /// Where reading ends: at the first record that begins at or behind this decompressed byte. `None`: at the end of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<u64>,
    /// What the file is known by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileMark>,
    /// Whether it is a pipe, which cannot be read again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pipe: bool,
}

impl Position {
    const VERSION: u32 = 2;

    /// The beginning of a file.
    pub fn start(file: Option<FileMark>) -> Self {
        Position { version: Self::VERSION, crc32c: Some(0), file, ..Position::default() }
    }

    /// The same, with an end.
    #[must_use]
    pub fn until(self, end: Option<u64>) -> Self {
        Position { end, ..self }
    }

    /// The beginning of a pipe.
    pub fn of_pipe() -> Self {
        Position { pipe: true, ..Self::start(None) }
    }

    /// The same file, at another place.
    #[must_use]
    pub fn at_line(&self, at: LinePosition) -> Self {
        Position { offset: at.offset, lines: at.lines, crc32c: at.crc32c, ..self.clone() }
    }

    /// The same file, before another row.
    #[must_use]
    pub fn at_row(&self, rows: u64) -> Self {
        Position { rows, ..self.clone() }
    }

    /// What is remembered of a file that has been read to its end.
    #[must_use]
    pub fn finished(&self) -> Self {
        Position { version: Self::VERSION, file: self.file.clone(), ..Position::default() }
    }

    /// The place in a file of lines.
    pub fn line(&self) -> LinePosition {
        LinePosition { offset: self.offset, lines: self.lines, crc32c: self.crc32c }
    }

    /// Whether nothing has been read.
    pub fn is_start(&self) -> bool {
        self.offset == 0 && self.rows == 0
    }

    /// As bytes.
    pub fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("numbers and texts have a form in JSON").into()
    }

    /// From the bytes of [`encode`](Self::encode).
    ///
    /// # Errors
    /// `Corrupt` when they are not a position that this version knows.
    pub fn decode(split: &SplitId, bytes: &[u8]) -> Result<Self> {
        let position: Position = serde_json::from_slice(bytes)
            .map_err(|error| Error::corrupt(format!("the position of {}: {error}", split.0)).because(error))?;
        if !(1..=Self::VERSION).contains(&position.version) {
            let (id, version) = (&split.0, position.version);
            return Err(Error::corrupt(format!("the position of {id} has version {version}, expected 1 or 2")));
        }
        Ok(Position { version: Self::VERSION, ..position })
    }
}

/// For a person: `line 17`, `row 5`, `the beginning`.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.lines, self.rows) {
            (0, 0) => f.write_str("the beginning"),
            (0, rows) => write!(f, "row {rows}"),
            (lines, _) => write!(f, "line {lines}"),
        }
    }
}
