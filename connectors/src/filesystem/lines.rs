//! Records of a file of lines, from any position on: plain, gzip or zstd.
//!
//! A position is the offset in the decompressed bytes and the number of lines before it. A plain file is sought; of a
//! compressed one the bytes before the position are decompressed and dropped.

use std::io::{BufRead, BufReader, Read};

use coulee_runtime::{Error, Result};

use super::location::Location;
use super::settings::LineCompression;

/// The longest record.
const RECORD_BYTES_MAX: u64 = 64 << 20;

const BUFFER_BYTES: usize = 256 << 10;

/// A place between two records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinePosition {
    /// Decompressed bytes before it.
    pub offset: u64,
    /// Lines before it.
    pub lines: u64,
}

/// An open file of lines.
pub struct LineFile {
    file: String,
    reader: Box<dyn BufRead + Send>,
    at: LinePosition,
    quote: Option<u8>,
    record: Vec<u8>,
}

impl LineFile {
    /// Opens `file` at a position. With `quote`, a line end between two quotes does not end a record. May block.
    ///
    /// # Errors
    /// When the file cannot be read, or ends before the position.
    pub fn open(
        location: &Location,
        file: &str,
        compression: LineCompression,
        quote: Option<u8>,
        at: LinePosition,
    ) -> Result<Self> {
        let input = location.open(file)?;
        let seek = if compression == LineCompression::None { at.offset } else { 0 };
        let length = parquet::file::reader::Length::len(&input);
        if seek > length {
            return Err(shorter(file, at, length));
        }
        let refuse = |cause| Error::io(format!("cannot read {file}"), cause);
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
            let skipped = std::io::copy(&mut reader.by_ref().take(at.offset), &mut std::io::sink());
            let skipped = skipped.map_err(|cause| damaged(file, at.lines, cause))?;
            if skipped < at.offset {
                return Err(shorter(file, at, skipped));
            }
        }
        Ok(LineFile { file: file.to_owned(), reader, at, quote, record: Vec::new() })
    }

    /// Where the next record begins.
    pub fn position(&self) -> LinePosition {
        self.at
    }

    /// The next record, without its line end, and the number of its first line (from 1). Empty lines are passed over.
    ///
    /// # Errors
    /// When the file cannot be read or decompressed, or a record is too long.
    pub fn next(&mut self) -> Result<Option<(u64, &[u8])>> {
        loop {
            self.record.clear();
            let line = self.at.lines + 1;
            loop {
                let read = self.read_line()?;
                // An odd number of quotes: the line end just read lies between two of them.
                if read == 0 || !self.quote.is_some_and(|quote| odd(&self.record, quote)) {
                    break;
                }
            }
            if self.record.is_empty() {
                return Ok(None);
            }
            let mut length = self.record.len();
            while length > 0 && matches!(self.record[length - 1], b'\n' | b'\r') {
                length -= 1;
            }
            let byte_order_mark = line == 1 && self.record.starts_with(b"\xef\xbb\xbf");
            let start = if byte_order_mark { 3.min(length) } else { 0 };
            if length > start {
                return Ok(Some((line, &self.record[start..length])));
            }
        }
    }

    fn read_line(&mut self) -> Result<u64> {
        let room = RECORD_BYTES_MAX - (self.record.len() as u64).min(RECORD_BYTES_MAX);
        let read = self.reader.by_ref().take(room).read_until(b'\n', &mut self.record);
        let read = read.map_err(|cause| damaged(&self.file, self.at.lines, cause))? as u64;
        if self.record.len() as u64 >= RECORD_BYTES_MAX {
            return Err(Error::invalid(format!(
                "{}:{}: the record is longer than {} MB; is this a file of lines?",
                self.file,
                self.at.lines + 1,
                RECORD_BYTES_MAX >> 20
            )));
        }
        self.at.offset += read;
        self.at.lines += u64::from(read > 0);
        Ok(read)
    }
}

fn odd(record: &[u8], quote: u8) -> bool {
    record.iter().filter(|byte| **byte == quote).count() % 2 == 1
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
