//! Records of a file of lines, from any position on: plain, gzip or zstd.
//!
//! A position is the offset in the decompressed bytes and the number of lines before it. A plain file is sought; of a
//! compressed one the bytes before the position are decompressed and dropped.

use std::io::{BufRead, BufReader, Read};

use coulee_runtime::{Error, Result};

use super::location::Location;
use super::settings::LineCompression;
use crate::format::{Frame, Framer};

/// The longest record.
const RECORD_BYTES_MAX: u64 = 64 << 20;

const BUFFER_BYTES: usize = 256 << 10;

/// How much of a file's beginning is shown to a framer that goes on in the middle.
const BEGINNING_BYTES: usize = 4 << 10;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A place between two records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinePosition {
    /// Decompressed bytes before it.
    pub offset: u64,
    /// Lines before it.
    pub lines: u64,
}

/// A record of a file.
#[derive(Debug)]
pub struct Line<'a> {
    /// The number of its first line, from 1.
    pub number: u64,
    /// The bytes, without the line end.
    pub bytes: &'a [u8],
    /// Why no record can be made of them.
    pub malformed: Option<&'static str>,
}

/// An open file of lines.
pub struct LineFile {
    file: String,
    reader: Box<dyn BufRead + Send>,
    at: LinePosition,
    framer: Box<dyn Framer>,
    /// What was read; the next record begins at `start`.
    buffer: Vec<u8>,
    start: usize,
    /// Whether the reader has no more.
    ended: bool,
}

impl LineFile {
    /// Opens `file` at a position; `framer` finds its records. May block.
    ///
    /// # Errors
    /// When the file cannot be read, or ends before the position.
    pub fn open(
        location: &Location,
        file: &str,
        compression: LineCompression,
        framer: Box<dyn Framer>,
        at: LinePosition,
    ) -> Result<Self> {
        let input = location.open(file)?;
        let seek = if compression == LineCompression::None { at.offset } else { 0 };
        let length = parquet::file::reader::Length::len(&input);
        if seek > length {
            return Err(shorter(file, at, length));
        }
        let refuse = |cause| Error::io(format!("cannot read {file}"), cause);
        let mut beginning = Vec::new();
        let goes_on = at.offset > 0 && framer.needs_beginning();
        if goes_on && seek > 0 {
            input.from(0).take(BEGINNING_BYTES as u64).read_to_end(&mut beginning).map_err(refuse)?;
        }
        let raw = BufReader::with_capacity(BUFFER_BYTES, input.from(seek));
        let mut reader: Box<dyn BufRead + Send> = match compression {
            LineCompression::None => Box::new(raw),
            LineCompression::Gzip => {
                Box::new(BufReader::with_capacity(BUFFER_BYTES, flate2::bufread::MultiGzDecoder::new(raw)))
            }
            LineCompression::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(raw).map_err(refuse)?;
                Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder))
            }
        };
        if compression != LineCompression::None && at.offset > 0 {
            let first = reader.by_ref().take(at.offset.min(BEGINNING_BYTES as u64)).read_to_end(&mut beginning);
            let first = first.map_err(|cause| damaged(file, at.lines, cause))? as u64;
            let skipped = std::io::copy(&mut reader.by_ref().take(at.offset - first), &mut std::io::sink());
            let skipped = first + skipped.map_err(|cause| damaged(file, at.lines, cause))?;
            if skipped < at.offset {
                return Err(shorter(file, at, skipped));
            }
        }
        let mut opened =
            LineFile { file: file.to_owned(), reader, at, framer, buffer: Vec::new(), start: 0, ended: false };
        if goes_on {
            opened.fill()?;
            opened.framer.resume(&beginning, &opened.buffer);
        } else if at.offset == 0 {
            opened.skip_byte_order_mark()?;
        }
        Ok(opened)
    }

    /// Where the next record begins.
    pub fn position(&self) -> LinePosition {
        self.at
    }

    /// The next record. Blank lines and comments are passed over.
    ///
    /// # Errors
    /// When the file cannot be read or decompressed, or a record is too long.
    pub fn next(&mut self) -> Result<Option<Line<'_>>> {
        loop {
            let bytes = &self.buffer[self.start..];
            if bytes.is_empty() && self.ended {
                return Ok(None);
            }
            let frame = if bytes.is_empty() { Frame::Incomplete } else { self.framer.next(bytes, self.ended) };
            let (record, end, malformed) = match frame {
                Frame::Incomplete => {
                    self.fill()?;
                    continue;
                }
                Frame::Nothing { end } => (0..0, end, None),
                Frame::Record { record, end } => (record, end, None),
                Frame::Malformed { record, end, reason } => (record, end, Some(reason)),
            };
            let number = self.at.lines + 1 + line_ends(&bytes[..record.start]);
            self.at.offset += end as u64;
            self.at.lines += line_ends(&bytes[..end]);
            let found = self.start + record.start..self.start + record.end;
            self.start += end;
            if !found.is_empty() || malformed.is_some() {
                return Ok(Some(Line { number, bytes: &self.buffer[found], malformed }));
            }
        }
    }

    /// Reads more behind what is there; of a long record twice as much, so that its framer looks at few bytes twice.
    fn fill(&mut self) -> Result<()> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let wanted = if self.buffer.len() < 4 * BUFFER_BYTES { 1 } else { self.buffer.len() };
        let mut filled = 0;
        while filled < wanted && !self.ended {
            let bytes = self.reader.fill_buf().map_err(|cause| damaged(&self.file, self.at.lines, cause))?;
            self.buffer.extend_from_slice(bytes);
            let length = bytes.len();
            self.reader.consume(length);
            filled += length;
            self.ended = length == 0;
        }
        if self.buffer.len() as u64 >= RECORD_BYTES_MAX + 4 * BUFFER_BYTES as u64 {
            return Err(Error::invalid(format!(
                "{}:{}: the record is longer than {} MB; is this a file of lines?",
                self.file,
                self.at.lines + 1,
                RECORD_BYTES_MAX >> 20
            )));
        }
        Ok(())
    }

    fn skip_byte_order_mark(&mut self) -> Result<()> {
        while self.buffer.len() < BYTE_ORDER_MARK.len() && !self.ended {
            self.fill()?;
        }
        if self.buffer.starts_with(BYTE_ORDER_MARK) {
            self.start = BYTE_ORDER_MARK.len();
            self.at.offset = BYTE_ORDER_MARK.len() as u64;
        }
        Ok(())
    }
}

fn line_ends(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

fn shorter(file: &str, at: LinePosition, length: u64) -> Error {
    Error::corrupt(format!(
        "{file} has {length} bytes, but {} were read of it before the restart: files must not change while a job reads them",
        at.offset
    ))
}

fn damaged(file: &str, lines: u64, cause: std::io::Error) -> Error {
    use std::io::ErrorKind as Io;
    match cause.kind() {
        // What the decompressors say of bytes that they cannot take.
        Io::InvalidData | Io::InvalidInput | Io::UnexpectedEof | Io::Other => Error::corrupt(format!(
            "{file} cannot be decompressed behind line {lines}: {cause}. Replace the file, or set 'compression' if it is not what its name says"
        ))
        .because(cause),
        _ => Error::io(format!("cannot read {file}"), cause),
    }
}
