//! A scan walks a segment file batch by batch and checks every byte. At the first fault it tells a torn write, which a crash
//! leaves at the end of a file, from damage to batches that were synced.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::batch::header::{self, HEADER_BYTES, Header};
use crate::batch::marker::{self, TransactionOutcome};
use crate::error::{LogError, Result};
use crate::files::torn;

/// How much is read at once.
const WINDOW_BYTES: u64 = 1 << 20;

/// How far the sound part of a file goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scan {
    /// The bytes of all batches up to the first that is not sound.
    pub(crate) bytes: u64,
    /// What is wrong there; `None` at the end of the file.
    pub(crate) fault: Option<&'static str>,
}

/// Visits the batches of a file of `limit` bytes, the first of which must be `base`, until one is not sound. Says of each
/// how it ends a transaction, if it does.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn scan(
    path: &Path,
    base: u64,
    limit: u64,
    mut visit: impl FnMut(&Header, Option<TransactionOutcome>),
) -> Result<Scan> {
    let mut window = Window::open(path, limit)?;
    let (mut position, mut expected) = (0, base);
    while position < limit {
        match window.sound_batch(position) {
            Err(e) => return Err(LogError::io("read", path, e)),
            Ok(Err(fault)) => return Ok(Scan { bytes: position, fault: Some(fault) }),
            Ok(Ok(header)) if header.base_sequence != expected => {
                return Ok(Scan { bytes: position, fault: Some("the sequence numbers are not contiguous") });
            }
            Ok(Ok(header)) => {
                let outcome = match header.is_control() {
                    true => window.marker(position, &header).map_err(|e| LogError::io("read", path, e))?,
                    false => None,
                };
                visit(&header, outcome);
                position += header.bytes as u64;
                expected = header.end();
            }
        }
    }
    Ok(Scan { bytes: position, fault: None })
}

/// The position of a sound batch after a fault at `from`, where `expected` should have begun.
///
/// Damage to acknowledged batches may have a sound batch behind it, and must not be cut off. A torn write of several
/// batches may look the same: see [`was_torn`].
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn sound_batch_after(path: &Path, from: u64, limit: u64, expected: u64) -> Result<Option<u64>> {
    let mut window = Window::open(path, limit)?;
    // A record takes more than a byte, so a higher number cannot be a batch of this file.
    let plausible = expected..=expected.saturating_add(limit - from);
    let mut position = from + 1;
    while position + HEADER_BYTES as u64 <= limit {
        let bytes = window.at(position, WINDOW_BYTES).map_err(|e| LogError::io("read", path, e))?;
        let candidates: Vec<u64> = bytes
            .windows(HEADER_BYTES)
            .zip(position..)
            .filter(|(front, _)| Header::parse(front).is_ok_and(|header| plausible.contains(&header.base_sequence)))
            .map(|(_, at)| at)
            .collect();
        position += (bytes.len() - HEADER_BYTES + 1) as u64;
        for candidate in candidates {
            if window.sound_batch(candidate).map_err(|e| LogError::io("read", path, e))?.is_ok() {
                return Ok(Some(candidate));
            }
        }
    }
    Ok(None)
}

/// Whether the fault at `from`, in a file of `limit` bytes, is of a write that was never synced, although a sound batch
/// stands at `to`: a sector between the two was never written. A batch with the number `expected` should have begun at
/// `from`.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn was_torn(path: &Path, (from, to, limit): (u64, u64, u64), expected: u64) -> Result<bool> {
    let end = torn::sector_end(to).min(limit);
    let mut window = Window::open(path, end)?;
    let bytes = window.at(from, end - from).map_err(|e| LogError::io("read", path, e))?;
    // A batch begins with its base sequence (8 bytes) and its length (4), both big-endian.
    let shows = |first: usize| first >= 12 || expected.to_be_bytes().iter().take(first).any(|byte| *byte != 0);
    Ok(torn::has_unwritten_sector(bytes, from, shows))
}

/// The part of a file that is in memory.
struct Window {
    file: File,
    /// The file's length, as far as the scan is concerned.
    limit: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    fn open(path: &Path, limit: u64) -> Result<Window> {
        let file = File::open(path).map_err(|e| LogError::io("open", path, e))?;
        Ok(Window { file, limit, start: 0, bytes: Vec::new() })
    }

    /// The bytes from `position` on: at least `least`, or all there are.
    fn at(&mut self, position: u64, least: u64) -> std::io::Result<&[u8]> {
        let wanted = position.saturating_add(least).min(self.limit);
        let held = self.start..self.start + self.bytes.len() as u64;
        if position < held.start || wanted > held.end {
            let length = least.max(WINDOW_BYTES).min(self.limit - position);
            self.bytes.resize(length as usize, 0);
            self.start = position;
            self.file.read_exact_at(&mut self.bytes, position)?;
        }
        Ok(&self.bytes[(position - self.start) as usize..])
    }

    fn marker(&mut self, position: u64, header: &Header) -> std::io::Result<Option<TransactionOutcome>> {
        let bytes = self.at(position, header.bytes as u64)?;
        Ok(marker::read(header, &bytes[..header.bytes]))
    }

    /// The header of the batch at `position`, if the batch is whole and its checksum fits.
    fn sound_batch(&mut self, position: u64) -> std::io::Result<Result<Header, &'static str>> {
        let header = match Header::parse(self.at(position, HEADER_BYTES as u64)?) {
            Ok(header) => header,
            Err(fault) => return Ok(Err(fault)),
        };
        if position + header.bytes as u64 > self.limit {
            return Ok(Err("the file ends within a batch"));
        }
        let batch = &self.at(position, header.bytes as u64)?[..header.bytes];
        Ok(if header::checksum_fits(batch) {
            Ok(header)
        } else {
            Err("the checksum of a batch does not fit its bytes")
        })
    }
}
