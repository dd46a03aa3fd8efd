//! A commit that a power loss tore: found at the end of RocksDB's write-ahead log, and cut off.
//!
//! RocksDB takes a log that ends within a record for one that a crash cut short. But a file system may have made the file longer before it wrote all of the
//! bytes: then the record is complete by its length and has sectors of zeros in it. RocksDB takes that for damage and does not open. It is
//! damage if a later record follows, as commits are synced one after the other: whatever stands before the beginning of a later one was acknowledged. It is
//! damage as well if no sector is missing.
//!
//! The format (RocksDB, `db/log_format.h`): blocks of 32 KiB of records, `crc32c u32 (masked) | length u16 | type u8 | payload`, little-endian. The checksum
//! is that of type and payload. A commit is one record of type 1, or a sequence 2, 3, …, 4.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;
/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// Cuts a torn commit off the end of the newest log in `dir`. Whether there was one; if not, nothing is changed.
///
/// # Errors
/// When the log cannot be read or cut.
pub(super) fn cut_torn_commit(dir: &Path) -> io::Result<bool> {
    let Some(log) = newest_log(dir)? else { return Ok(false) };
    let bytes = std::fs::read(&log)?;
    let Some(torn) = torn_commit(&bytes) else { return Ok(false) };
    let file = OpenOptions::new().write(true).open(&log)?;
    file.set_len(torn as u64)?;
    file.sync_all()?;
    tracing::warn!(log = %log.display(), at = torn, bytes = bytes.len() - torn,
        "a power loss tore the commit that was being written; it was never acknowledged and is cut off");
    Ok(true)
}

/// The log with the highest number that holds something.
fn newest_log(dir: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest = None;
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        let (true, Some(number)) = (path.extension().is_some_and(|ending| ending == "log"), number) else { continue };
        if File::open(&path)?.metadata()?.len() > 0 {
            newest = newest.max(Some((number, path)));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

/// Where the last commit of a log begins, if it is damaged and nothing follows it.
fn torn_commit(log: &[u8]) -> Option<usize> {
    let (mut at, mut commit) = (0, 0);
    while at < log.len() {
        let in_block = BLOCK_BYTES - at % BLOCK_BYTES;
        if in_block < HEADER_BYTES {
            at += in_block;
            continue;
        }
        let Some((kind, length)) = record(log, at) else {
            let begins_commit = |at: usize| matches!(record(log, at), Some((FULL | FIRST, _)));
            let is_last = !(at + 1..log.len()).any(begins_commit);
            return (is_last && has_hole(log, commit)).then_some(commit);
        };
        if matches!(kind, FULL | FIRST) {
            commit = at;
        }
        at += HEADER_BYTES + length;
        if matches!(kind, FULL | LAST) {
            commit = at;
        }
    }
    None
}

/// Whether a sector behind `from`, or the part of it that is there, holds only zeros.
///
/// SUBTLE: a byte that flipped within the last commit is damage, not a power loss, and the commit was acknowledged. A new
/// part of a file reads as zeros until its sectors are written; RocksDB's logs are not recycled, so that there are no old bytes.
fn has_hole(log: &[u8], from: usize) -> bool {
    let mut at = from;
    while at < log.len() {
        let end = (at - at % SECTOR_BYTES + SECTOR_BYTES).min(log.len());
        if log[at..end].iter().all(|byte| *byte == 0) {
            return true;
        }
        at = end;
    }
    false
}

/// The type and the payload's length of the record at `at`, if it is whole.
fn record(log: &[u8], at: usize) -> Option<(u8, usize)> {
    let end_of_block = (at - at % BLOCK_BYTES + BLOCK_BYTES).min(log.len());
    let (header, rest) = log.get(at..end_of_block)?.split_first_chunk::<HEADER_BYTES>()?;
    let [c0, c1, c2, c3, l0, l1, kind] = *header;
    let length = usize::from(u16::from_le_bytes([l0, l1]));
    if !matches!(kind, FULL | FIRST | MIDDLE | LAST) {
        return None;
    }
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&[kind]), rest.get(..length)?);
    (masked(checksum) == u32::from_le_bytes([c0, c1, c2, c3])).then_some((kind, length))
}

/// As RocksDB stores checksums (`util/crc32c.h`).
fn masked(checksum: u32) -> u32 {
    checksum.rotate_right(15).wrapping_add(0xa282_ead8)
}
