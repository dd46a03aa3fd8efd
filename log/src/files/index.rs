//! The sparse index of a segment: from a sequence number, a timestamp or the time of an append to a position in its file.
//!
//! An index is a shortcut, never evidence: its file is written when the segment is closed or the log is shut down, checked
//! by its checksums and by the length of the segment, and rebuilt from the segment when it does not fit.
//!
//! The time of an append is the log's own (Kafka: log append time; Kinesis: arrival time), and only the index has it: a
//! batch is stored as its producer sent it. An index that has to be rebuilt takes the time of the file's last change for
//! all appends, which none of them is later than. So a search by append time may then begin too early, never too late.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::batch::header::Header;
use crate::error::Result;
use crate::files::storage::{self, Storage};

const MAGIC: [u8; 8] = *b"COULEEI3";
/// Magic, eight numbers of 8 bytes, interval, count, and the checksums of the entries and of all this.
const SUMMARY_BYTES: usize = 88;
const ENTRY_BYTES: usize = 24;
/// An entry is made before the appends since the last one span so many milliseconds, however few bytes they have.
const ENTRY_APPEND_MS: i64 = 1000;

/// What a segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    /// The sequence number of its first record, and of the first after it.
    pub(crate) base: u64,
    pub(crate) end: u64,
    /// The length of its file.
    pub(crate) bytes: u64,
    /// How many records it holds, without markers.
    pub(crate) records: u64,
    /// The largest timestamp of its records; `i64::MIN` without any.
    pub(crate) max_timestamp: i64,
    /// When its first and its last batch were appended, by the log's clock. Meaningless without any.
    pub(crate) first_append: i64,
    pub(crate) last_append: i64,
}

impl Summary {
    pub(crate) fn empty(base: u64) -> Self {
        Summary { base, end: base, bytes: 0, records: 0, max_timestamp: i64::MIN, first_append: 0, last_append: 0 }
    }
}

/// Where a batch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Start {
    /// In the file.
    pub(crate) position: u64,
    /// The sequence number of its first record.
    pub(crate) base: u64,
}

impl Start {
    /// Where the batch after `batch` begins, which begins here.
    pub(crate) fn after(self, batch: &Header) -> Start {
        Start { position: self.position + batch.bytes as u64, base: batch.end() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// The first sequence number of a batch, relative to the segment's.
    relative: u32,
    position: u32,
    /// The largest timestamp of all batches before it.
    earlier_max_timestamp: i64,
    /// When it was appended. Never falls from entry to entry.
    appended: i64,
}

/// The index of one segment, which is at least one entry once the segment has a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) summary: Summary,
    entries: Vec<Entry>,
    interval: u32,
    /// Where the next entry is due.
    next_entry: u64,
}

impl Index {
    /// For a segment that has no batch yet.
    pub(crate) fn empty(base: u64, interval: u32) -> Self {
        Index { summary: Summary::empty(base), entries: Vec::new(), interval, next_entry: 0 }
    }

    pub(crate) fn interval(&self) -> u32 {
        self.interval
    }

    /// Takes in the batch that follows the last one.
    pub(crate) fn note(&mut self, batch: &Header, appended: i64) {
        let summary = &mut self.summary;
        assert_eq!(batch.base_sequence, summary.end, "batches of a segment follow one another");
        // A clock that is set back must not break the order.
        let appended = if summary.bytes == 0 { appended } else { appended.max(summary.last_append) };
        let is_late = self.entries.last().is_some_and(|last| appended - last.appended >= ENTRY_APPEND_MS);
        if summary.bytes >= self.next_entry || is_late {
            self.entries.push(Entry {
                relative: (batch.base_sequence - summary.base) as u32,
                position: summary.bytes as u32,
                earlier_max_timestamp: summary.max_timestamp,
                appended,
            });
            self.next_entry = summary.bytes + u64::from(self.interval);
        }
        if summary.bytes == 0 {
            summary.first_append = appended;
        }
        summary.last_append = appended;
        summary.end = batch.end();
        summary.bytes += batch.bytes as u64;
        // The time of a marker is that of its transaction's end, which no search for records may find.
        if !batch.is_control() {
            summary.max_timestamp = summary.max_timestamp.max(batch.max_timestamp);
            summary.records += u64::from(batch.count);
        }
    }

    /// Where to look for the batch that holds `sequence`: it begins at or after the first place, and before the position.
    pub(crate) fn around(&self, sequence: u64) -> (Start, u64) {
        let after = self.entries.partition_point(|e| self.summary.base + u64::from(e.relative) <= sequence);
        let stop = self.entries.get(after).map_or(self.summary.bytes, |e| e.position.into());
        (self.start_of(after), stop)
    }

    /// Where to look for the first record at or after a timestamp: not before this place.
    pub(crate) fn before_timestamp(&self, timestamp: i64) -> Start {
        self.start_of(self.entries.partition_point(|e| e.earlier_max_timestamp < timestamp))
    }

    /// Where to look for the first batch that was appended at or after `time`: all such batches begin at or behind this
    /// place, and those between were appended less than a second before `time`. When the answer is `true`, the batch that
    /// begins there is itself older.
    pub(crate) fn before_append_time(&self, time: i64) -> (Start, bool) {
        let after = self.entries.partition_point(|e| e.appended < time);
        let older = after.checked_sub(1).map(|i| self.entries[i]);
        match older {
            Some(older) if older.appended.saturating_add(ENTRY_APPEND_MS) > time => (self.start_of(after), true),
            // No append before the next entry is a second younger than this one.
            _ if after < self.entries.len() => (self.start_of(after + 1), false),
            _ => (Start { position: self.summary.bytes, base: self.summary.end }, false),
        }
    }

    /// The last batch with an entry that begins at or before a position.
    pub(crate) fn before_position(&self, position: u64) -> Start {
        self.start_of(self.entries.partition_point(|e| u64::from(e.position) <= position))
    }

    fn start_of(&self, after: usize) -> Start {
        let entry = after.checked_sub(1).map(|i| self.entries[i]);
        let (position, relative) = entry.map_or((0, 0), |e| (e.position.into(), e.relative));
        Start { position, base: self.summary.base + u64::from(relative) }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Those of [`storage::write_atomically`].
    pub(crate) fn save(&self, storage: &dyn Storage, segment: &Path) -> Result<()> {
        let mut entries = Vec::with_capacity(self.entries.len() * ENTRY_BYTES);
        for entry in &self.entries {
            entries.extend_from_slice(&entry.relative.to_be_bytes());
            entries.extend_from_slice(&entry.position.to_be_bytes());
            entries.extend_from_slice(&entry.earlier_max_timestamp.to_be_bytes());
            entries.extend_from_slice(&entry.appended.to_be_bytes());
        }
        let s = &self.summary;
        let mut bytes = MAGIC.to_vec();
        for number in [s.base, s.end, s.bytes, s.records, self.next_entry] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        for number in [s.max_timestamp, s.first_append, s.last_append] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&self.interval.to_be_bytes());
        bytes.extend_from_slice(&(self.entries.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&entries).to_be_bytes());
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_be_bytes());
        assert_eq!(bytes.len(), SUMMARY_BYTES);
        bytes.extend_from_slice(&entries);
        storage::write_atomically(storage, &path_of(segment), &bytes)
    }

    /// Reads the file with its entries; `None` when it is absent or damaged.
    pub(crate) fn load(segment: &Path) -> Option<Index> {
        let bytes = std::fs::read(path_of(segment)).ok()?;
        let (mut index, count, crc) = parse_summary(bytes.first_chunk()?)?;
        let entries = &bytes[SUMMARY_BYTES..];
        if entries.len() != count as usize * ENTRY_BYTES || crc32c::crc32c(entries) != crc {
            return None;
        }
        index.entries = entries
            .chunks_exact(ENTRY_BYTES)
            .map(|e| Entry {
                relative: (u64::from_be_bytes(part(e, 0)) >> 32) as u32,
                position: u64::from_be_bytes(part(e, 0)) as u32,
                earlier_max_timestamp: i64::from_be_bytes(part(e, 8)),
                appended: i64::from_be_bytes(part(e, 16)),
            })
            .collect();
        Some(index)
    }

    /// Reads only what the segment holds; `None` when the file is absent or that part of it damaged.
    pub(crate) fn load_summary(segment: &Path) -> Option<Summary> {
        let mut bytes = [0; SUMMARY_BYTES];
        File::open(path_of(segment)).ok()?.read_exact(&mut bytes).ok()?;
        parse_summary(&bytes).map(|(index, _, _)| index.summary)
    }
}

/// The index file of a segment file.
pub(crate) fn path_of(segment: &Path) -> PathBuf {
    segment.with_extension("index")
}

/// An index without its entries, their count and their checksum.
fn parse_summary(bytes: &[u8; SUMMARY_BYTES]) -> Option<(Index, u32, u32)> {
    let (content, crc) = bytes.split_last_chunk::<4>()?;
    if !content.starts_with(&MAGIC) || crc32c::crc32c(content) != u32::from_be_bytes(*crc) {
        return None;
    }
    let number = |i: usize| u64::from_be_bytes(part(bytes, 8 * i));
    let (interval, count) = ((number(9) >> 32) as u32, number(9) as u32);
    let summary = Summary {
        base: number(1),
        end: number(2),
        bytes: number(3),
        records: number(4),
        max_timestamp: number(6) as i64,
        first_append: number(7) as i64,
        last_append: number(8) as i64,
    };
    let index = Index { summary, entries: Vec::new(), interval, next_entry: number(5) };
    Some((index, count, (number(10) >> 32) as u32))
}

fn part(bytes: &[u8], at: usize) -> [u8; 8] {
    let mut part = [0; 8];
    part.copy_from_slice(&bytes[at..at + 8]);
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ProducerId;

    /// A batch of 100 bytes and 10 records.
    fn batch(base_sequence: u64, max_timestamp: i64) -> Header {
        Header {
            base_sequence,
            bytes: 100,
            attributes: 0,
            last_delta: 9,
            base_timestamp: 0,
            max_timestamp,
            producer: ProducerId(-1),
            producer_epoch: -1,
            producer_sequence: -1,
            count: 10,
        }
    }

    /// Batches of 100 bytes and 10 records, with the given largest timestamps, from sequence number 1000 on.
    fn index_of(interval: u32, timestamps: &[i64]) -> Index {
        let mut index = Index::empty(1000, interval);
        for (i, &max_timestamp) in timestamps.iter().enumerate() {
            index.note(&batch(1000 + 10 * i as u64, max_timestamp), 50 + i as i64);
        }
        index
    }

    #[test]
    fn an_entry_is_made_for_every_interval() {
        let index = index_of(250, &[0; 10]);
        assert_eq!(index.entries.iter().map(|e| e.position).collect::<Vec<_>>(), [0, 300, 600, 900]);
        let around = |sequence| {
            let (start, stop) = index.around(sequence);
            (start.position, start.base, stop)
        };
        assert_eq!((around(1000), around(1029)), ((0, 1000, 300), (0, 1000, 300)));
        assert_eq!((around(1030), around(1099)), ((300, 1030, 600), (900, 1090, 1000)));
    }

    #[test]
    fn times_lead_to_the_last_entry_that_nothing_so_late_precedes() {
        let index = index_of(1, &[5, 3, 9, 9, 7]);
        let expected = [(i64::MIN, 0), (5, 0), (6, 200), (9, 200), (10, 400), (i64::MAX, 400)];
        for (timestamp, position) in expected {
            let expected = Start { position, base: 1000 + position / 10 };
            assert_eq!(index.before_timestamp(timestamp), expected, "{timestamp}");
        }
    }

    #[test]
    fn append_times_lead_to_what_was_appended_before_them() {
        // One entry for all bytes, but for the appends that come a second after the last entry.
        let mut index = Index::empty(0, 1 << 20);
        let times = [100, 900, 1099, 1100, 1100, 900, 2500, 2600, 9000];
        for (i, &appended) in times.iter().enumerate() {
            index.note(&batch(10 * i as u64, 0), appended);
        }
        assert_eq!(
            index.entries.iter().map(|e| (e.position, e.appended)).collect::<Vec<_>>(),
            [(0, 100), (300, 1100), (600, 2500), (800, 9000)]
        );
        let before = |time| {
            let (start, is_older) = index.before_append_time(time);
            (start.position, is_older)
        };
        let expected = [
            (i64::MIN, (0, false)),
            (100, (0, false)),
            (101, (0, true)),
            (1099, (0, true)),
            (1100, (300, false)),
            (1101, (300, true)),
            (2100, (600, false)),
            (2599, (600, true)),
            (9000, (800, false)),
            (9001, (800, true)),
            (10_000, (900, false)),
        ];
        expected.into_iter().for_each(|(time, found)| assert_eq!(before(time), found, "{time}"));
        // A clock that was set back does not take the order with it.
        assert_eq!((index.summary.first_append, index.summary.last_append), (100, 9000));
        let at = |position| index.before_position(position).position;
        assert_eq!((at(0), at(299), at(300), at(799), at(5000)), (0, 0, 300, 600, 800));
    }

    #[test]
    fn the_file_brings_everything_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let segment = folder.path().join("00000000000000001000.log");
        let index = index_of(250, &[5, 3, 9, -9, 7]);
        index.save(&storage::Disk, &segment).expect("save");
        assert_eq!(Index::load(&segment), Some(index.clone()));
        assert_eq!(Index::load_summary(&segment), Some(index.summary));
        assert_eq!((index.summary.first_append, index.summary.last_append, index.summary.max_timestamp), (50, 54, 9));
    }
}
