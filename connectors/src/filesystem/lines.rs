//! Records of a file of lines, from any position on: plain, gzip or zstd; a file, an object or a pipe.
//!
//! A position is the offset in the decompressed bytes, the number of lines before it, and a checksum of those bytes. A plain file is sought;
//! of a compressed one the bytes before the position are decompressed and dropped.
//!
//! A file that somebody appends to is read to a defined end, which is its length when it was listed: the record that reaches over that end
//! is read whole, and none behind it.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind as Io, Read};
use std::sync::Arc;
use std::time::Duration;

use coulee_runtime::{Error, Result};

use super::settings::LineCompression;
use crate::format::{Frame, Framer};

const BUFFER_BYTES: usize = 256 << 10;

/// How much of a file's beginning is shown to a framer that goes on in the middle.
const BEGINNING_BYTES: usize = 4 << 10;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The first bytes of every gzip member (RFC 1952).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Of a record that is too long, so much is kept for whoever looks into the rejected ones.
const TOO_LONG_KEPT_BYTES: usize = 1 << 20;

/// A file whose last line has no line end is waited for while it was modified so recently: its writer may be in the middle of that line.
const SETTLED_AFTER: Duration = Duration::from_millis(500);

/// How often such a file is looked at, and how many times.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const LOOKS_MAX: usize = 25;

/// A place between two records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinePosition {
    /// Decompressed bytes before it.
    pub offset: u64,
    /// Lines before it.
    pub lines: u64,
    /// The CRC-32C of those bytes; `None` when it is not known.
    pub crc32c: Option<u32>,
}

impl Default for LinePosition {
    /// The beginning.
    fn default() -> Self {
        LinePosition { offset: 0, lines: 0, crc32c: Some(0) }
    }
}

impl LinePosition {
    /// Moves behind some bytes.
    fn pass(&mut self, bytes: &[u8]) {
        self.offset += bytes.len() as u64;
        self.lines += line_ends(bytes);
        self.crc32c = self.crc32c.map(|crc| crc32c::crc32c_append(crc, bytes));
    }
}

/// What bytes of a file are read from.
pub enum Bytes {
    /// They can be read from any offset on.
    File {
        /// Makes a reader that begins at an offset.
        from: Box<dyn Fn(u64) -> Box<dyn Read + Send> + Send>,
        /// How many there are.
        length: u64,
        /// The file, when it is a local one that somebody may append to.
        local: Option<Arc<File>>,
    },
    /// They come once, and may have to be waited for: `WouldBlock` says so.
    Pipe(Box<dyn Read + Send>),
}

/// How a file is read.
#[derive(Debug, Clone)]
pub struct LineOptions {
    /// What it is called in messages.
    pub name: String,
    /// How it is compressed.
    pub compression: LineCompression,
    /// No record that begins at or behind this decompressed offset is read.
    pub end: Option<u64>,
    /// The longest record, in bytes, its line end included.
    pub record_bytes_max: u64,
}

/// A record of a file.
#[derive(Debug)]
pub struct Line<'a> {
    /// The number of its first line, from 1.
    pub number: u64,
    /// The bytes, without the line end; of a record that is too long, the first of them.
    pub bytes: &'a [u8],
    /// Why no record can be made of them.
    pub malformed: Option<String>,
}

/// What comes next in a file.
#[derive(Debug)]
pub enum Next<'a> {
    /// A record.
    Line(Line<'a>),
    /// Nothing is there yet: the pipe is to be waited for.
    Waits,
    /// Nothing comes any more.
    End,
}

/// An open file of lines.
pub struct LineFile {
    options: LineOptions,
    reader: Box<dyn BufRead + Send>,
    /// The file, if somebody may append to it.
    local: Option<Arc<File>>,
    at: LinePosition,
    framer: Box<dyn Framer>,
    /// What was read; the next record begins at `start`.
    buffer: Vec<u8>,
    start: usize,
    /// Whether the reader has no more.
    ended: bool,
    /// Whether a byte order mark may come.
    begins: bool,
}

/// A reader of decompressed bytes. An empty input has none, however it is compressed.
///
/// # Errors
/// When the input cannot be read or is not compressed that way.
pub fn decompressed<'a>(
    mut raw: impl BufRead + Send + 'a,
    compression: LineCompression,
) -> std::io::Result<Box<dyn BufRead + Send + 'a>> {
    Ok(match compression {
        LineCompression::None => Box::new(raw),
        _ if raw.fill_buf()?.is_empty() => Box::new(raw),
        LineCompression::Gzip if raw.fill_buf()?.get(..2).is_some_and(|first| *first != GZIP_MAGIC) => {
            return Err(std::io::Error::new(Io::InvalidData, "it does not begin as gzip does"));
        }
        LineCompression::Gzip => {
            Box::new(BufReader::with_capacity(BUFFER_BYTES, flate2::bufread::MultiGzDecoder::new(raw)))
        }
        LineCompression::Zstd => {
            Box::new(BufReader::with_capacity(BUFFER_BYTES, zstd::stream::read::Decoder::with_buffer(raw)?))
        }
    })
}

impl LineFile {
    /// Opens a file at a position; `framer` finds its records. May block.
    ///
    /// # Errors
    /// When the file cannot be read, or ends before the position.
    pub fn open(bytes: Bytes, options: LineOptions, framer: Box<dyn Framer>, at: LinePosition) -> Result<Self> {
        let damaged_at = |cause| damaged(&options.name, at.lines, cause);
        let seek = if options.compression == LineCompression::None { at.offset } else { 0 };
        let goes_on = at.offset > 0 && framer.needs_beginning();
        let mut beginning = Vec::new();
        let (raw, local) = match bytes {
            Bytes::File { length, .. } if seek > length => return Err(shorter(&options.name, at.offset, length)),
            Bytes::File { from, local, .. } => {
                if goes_on && seek > 0 {
                    from(0).take(BEGINNING_BYTES as u64).read_to_end(&mut beginning).map_err(damaged_at)?;
                }
                (from(seek), local.filter(|_| options.compression == LineCompression::None))
            }
            Bytes::Pipe(pipe) => (pipe, None),
        };
        let raw = BufReader::with_capacity(BUFFER_BYTES, raw);
        let mut reader: Box<dyn BufRead + Send> = decompressed(raw, options.compression).map_err(damaged_at)?;
        if seek < at.offset {
            let first = reader.by_ref().take(at.offset.min(BEGINNING_BYTES as u64)).read_to_end(&mut beginning);
            let first = first.map_err(damaged_at)? as u64;
            let skipped = std::io::copy(&mut reader.by_ref().take(at.offset - first), &mut std::io::sink());
            let skipped = first + skipped.map_err(damaged_at)?;
            if skipped < at.offset {
                return Err(shorter(&options.name, at.offset, skipped));
            }
        }
        let (buffer, begins) = (Vec::new(), at.offset == 0);
        let mut opened = LineFile { options, reader, local, at, framer, buffer, start: 0, ended: false, begins };
        if goes_on {
            opened.fill()?;
            opened.framer.resume(&beginning, &opened.buffer);
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
    /// When the file cannot be read or decompressed, or ends before its defined end.
    pub fn next(&mut self) -> Result<Next<'_>> {
        loop {
            if self.begins && !self.pass_byte_order_mark()? {
                return Ok(Next::Waits);
            }
            if self.options.end.is_some_and(|end| self.at.offset >= end) {
                return Ok(Next::End);
            }
            let bytes = &self.buffer[self.start..];
            if bytes.is_empty() && self.ended {
                return self.end();
            }
            let frame = if bytes.is_empty() { Frame::Incomplete } else { self.framer.next(bytes, self.ended) };
            let (read, ends_in_line) = (bytes.len(), !bytes.ends_with(b"\n"));
            let (record, end, malformed) = match frame {
                Frame::Incomplete if read as u64 > self.options.record_bytes_max => return self.skip_line(),
                Frame::Incomplete if self.fill()? => continue,
                Frame::Incomplete => return Ok(Next::Waits),
                Frame::Nothing { end } => (0..0, end, None),
                Frame::Record { record, end } => (record, end, None),
                Frame::Malformed { record, end, reason } => (record, end, Some(reason.to_owned())),
            };
            if end == read && self.ended && ends_in_line && self.local.is_some() {
                match self.settle()? {
                    LastLine::GoesOn => continue,
                    LastLine::IsTorn => return Ok(Next::End),
                    LastLine::IsWhole => {}
                }
            }
            let bytes = &self.buffer[self.start..self.start + end];
            let number = self.at.lines + 1 + line_ends(&bytes[..record.start]);
            self.at.pass(bytes);
            let mut found = self.start + record.start..self.start + record.end;
            self.start += end;
            let malformed = malformed.or_else(|| self.too_long(end as u64));
            if self.is_too_long(end as u64) {
                found.end = found.end.min(found.start + TOO_LONG_KEPT_BYTES);
            }
            if !found.is_empty() || malformed.is_some() {
                return Ok(Next::Line(Line { number, bytes: &self.buffer[found], malformed }));
            }
        }
    }

    fn end(&self) -> Result<Next<'_>> {
        match self.options.end {
            Some(end) if self.at.offset < end => Err(shorter(&self.options.name, end, self.at.offset)),
            _ => Ok(Next::End),
        }
    }

    fn is_too_long(&self, bytes: u64) -> bool {
        bytes > self.options.record_bytes_max
    }

    fn too_long(&self, bytes: u64) -> Option<String> {
        self.is_too_long(bytes).then(|| {
            let bytes_max = self.options.record_bytes_max;
            format!("the record has {bytes} bytes, more than the {bytes_max} that 'source.record-size.max' allows")
        })
    }

    /// Reads more behind what is there; of a long record twice as much, so that its framer looks at few bytes twice. `false`: a pipe has no more
    /// for now.
    fn fill(&mut self) -> Result<bool> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let wanted = if self.buffer.len() < 4 * BUFFER_BYTES { 1 } else { self.buffer.len() };
        let mut filled = 0;
        while filled < wanted && !self.ended {
            let bytes = match self.reader.fill_buf() {
                Err(cause) if cause.kind() == Io::WouldBlock => return Ok(filled > 0),
                bytes => bytes.map_err(|cause| damaged(&self.options.name, self.at.lines, cause))?,
            };
            self.buffer.extend_from_slice(bytes);
            let length = bytes.len();
            self.reader.consume(length);
            filled += length;
            self.ended = length == 0;
        }
        Ok(true)
    }

    /// `false`: a pipe has not brought enough yet to tell.
    fn pass_byte_order_mark(&mut self) -> Result<bool> {
        while self.buffer.len() < BYTE_ORDER_MARK.len() && !self.ended {
            if !self.fill()? {
                return Ok(false);
            }
        }
        self.begins = false;
        if self.buffer.starts_with(BYTE_ORDER_MARK) {
            self.start = BYTE_ORDER_MARK.len();
            self.at.pass(BYTE_ORDER_MARK);
        }
        Ok(true)
    }

    /// Gives the beginning of a record that is too long, and passes over the rest of its line without keeping it.
    fn skip_line(&mut self) -> Result<Next<'_>> {
        let (number, begin) = (self.at.lines + 1, self.at.offset);
        let mut kept: Vec<u8> = Vec::new();
        loop {
            let bytes = &self.buffer[self.start..];
            let line_end = memchr::memchr(b'\n', bytes).map(|at| at + 1);
            let bytes = &bytes[..line_end.unwrap_or(bytes.len())];
            self.at.pass(bytes);
            kept.extend_from_slice(&bytes[..bytes.len().min(TOO_LONG_KEPT_BYTES - kept.len())]);
            self.start += bytes.len();
            if line_end.is_some() || self.ended {
                break;
            }
            // Only what is read is kept, so that the buffer does not grow with the line.
            while !self.fill()? {
                std::thread::sleep(LOOK_EVERY);
            }
        }
        let malformed = self.too_long(self.at.offset - begin);
        // What was kept takes the place of the line.
        let length = kept.len();
        self.buffer.splice(..self.start, kept);
        self.start = length;
        Ok(Next::Line(Line { number, bytes: &self.buffer[..length], malformed }))
    }

    /// The input has ended without a line end: because its writer is in the middle of a line?
    fn settle(&mut self) -> Result<LastLine> {
        let Some(file) = self.local.clone() else { return Ok(LastLine::IsWhole) };
        let refuse = |name: &str, cause| Error::io(format!("cannot read {name}"), cause);
        for _ in 0..LOOKS_MAX {
            let before = self.buffer.len() - self.start;
            self.ended = false;
            self.fill()?;
            if self.buffer[before..].contains(&b'\n') {
                return Ok(LastLine::GoesOn);
            }
            self.ended = true;
            let modified = file.metadata().and_then(|meta| meta.modified());
            let modified = modified.map_err(|cause| refuse(&self.options.name, cause))?;
            if modified.elapsed().is_ok_and(|elapsed| elapsed >= SETTLED_AFTER) {
                break;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        self.local = None;
        let read = self.at.offset + (self.buffer.len() - self.start) as u64;
        if self.options.end.is_some_and(|end| read > end) {
            let (file, line) = (&self.options.name, self.at.lines + 1);
            tracing::warn!(file, line, "the file grows: its unfinished last line is not read");
            return Ok(LastLine::IsTorn);
        }
        Ok(LastLine::GoesOn)
    }
}

/// What the last line of a file is that has no line end.
enum LastLine {
    /// More of it came, or it is to be looked at once more.
    GoesOn,
    /// Its end is not written yet, and lies behind the end of what is read.
    IsTorn,
    /// A line as any other.
    IsWhole,
}

fn line_ends(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

fn shorter(file: &str, expected: u64, length: u64) -> Error {
    Error::corrupt(format!(
        "{file} has {length} bytes, but had {expected} before: files must not get shorter while a job reads them. Put the file back as it was, or start over with --fresh"
    ))
}

fn damaged(file: &str, lines: u64, cause: std::io::Error) -> Error {
    match cause.kind() {
        Io::UnexpectedEof => Error::corrupt(format!(
            "{file} is cut off: its compressed data ends in the middle, behind line {lines}. Replace it by the whole file"
        ))
        .because(cause),
        // What the decompressors say of bytes that they cannot take.
        Io::InvalidData | Io::InvalidInput | Io::Other => Error::corrupt(format!(
            "{file} cannot be decompressed behind line {lines}: {cause}. Replace the file, or set 'compression' if it is not what its name says"
        ))
        .because(cause),
        _ => Error::io(format!("cannot read {file}"), cause),
    }
}
