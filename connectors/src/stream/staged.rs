//! A staged file: the records of one epoch of one writer, on the disk but not in the log.
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | `COULEES1` |
//! | each record: 4 | shard, little-endian like all numbers here |
//! | 8 | timestamp, milliseconds since 1970 |
//! | 4 | length of the key, or 2³² − 1 for none |
//! | 4 | length of the value |
//! | … | key, value |
//! | 4, at the end | CRC-32C of everything before |
//!
//! The length and the number of records of each shard are in the writer's state, which the checkpoint keeps.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use coulee_model::Timestamp;
use coulee_runtime::{Error, Result};
use serde::{Deserialize, Serialize};

const MAGIC: &[u8; 8] = b"COULEES1";
const NO_KEY: u32 = u32::MAX;
const HEADER_BYTES: usize = 20;
const TRAILER_BYTES: u64 = 4;
/// The largest record: with those of a batch before it, it still fits the log's largest batch. What the log would refuse
/// must be refused here, as a durable checkpoint cannot be taken back.
const RECORD_BYTES_MAX: usize = coulee_log::BATCH_BYTES_MAX - (1 << 20);
/// How much is collected before it is written.
const BUFFER_BYTES: usize = 1 << 20;

/// A finished staged file, as the writer's state lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Staged {
    /// Which subtask wrote it: the name of its folder in the spool.
    pub(super) subtask: u32,
    /// Its number among the subtask's files.
    pub(super) number: u64,
    /// Its length.
    pub(super) bytes: u64,
    /// How many records it has for each shard.
    pub(super) records: BTreeMap<u32, u64>,
}

/// A record of a staged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StagedRecord<'a> {
    pub(super) shard: u32,
    pub(super) timestamp: Timestamp,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: &'a [u8],
}

impl Staged {
    pub(super) fn path(&self, spool: &Path) -> PathBuf {
        path(spool, self.subtask, self.number)
    }

    /// Checks the length and the checksum of the whole file. Blocks.
    ///
    /// # Errors
    /// `NotFound` from the system when it is not there, otherwise `Corrupt`.
    pub(super) fn check(&self, spool: &Path) -> Result<()> {
        let path = self.path(spool);
        let corrupt = |what: String| Error::corrupt(format!("staged records in {}: {what}", path.display()));
        let failed = |cause| Error::io(format!("cannot read staged records in {}", path.display()), cause);
        let mut file = File::open(&path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        if length != self.bytes || length < TRAILER_BYTES {
            return Err(corrupt(format!("{length} bytes, the checkpoint says {}", self.bytes)));
        }
        let (mut crc, mut left) = (0, length - TRAILER_BYTES);
        let mut buffer = vec![0; BUFFER_BYTES];
        while left > 0 {
            let part = &mut buffer[..BUFFER_BYTES.min(usize::try_from(left).unwrap_or(BUFFER_BYTES))];
            file.read_exact(part).map_err(failed)?;
            crc = crc32c::crc32c_append(crc, part);
            left -= part.len() as u64;
        }
        let mut trailer = [0; 4];
        file.read_exact(&mut trailer).map_err(failed)?;
        if u32::from_le_bytes(trailer) != crc {
            return Err(corrupt("the checksum does not fit".to_owned()));
        }
        Ok(())
    }
}

fn path(spool: &Path, subtask: u32, number: u64) -> PathBuf {
    spool.join(subtask.to_string()).join(format!("{number}.staged"))
}

/// Every staged file in a spool folder, by subtask and number. Blocks.
pub(super) fn list(spool: &Path) -> Result<Vec<(u32, u64, PathBuf)>> {
    let mut found = Vec::new();
    for (subtask, folder) in entries(spool)? {
        let Ok(subtask) = subtask.parse() else { continue };
        for (name, path) in entries(&folder)? {
            if let Some(number) = name.strip_suffix(".staged").and_then(|number| number.parse().ok()) {
                found.push((subtask, number, path));
            }
        }
    }
    Ok(found)
}

fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let failed = |cause| Error::io(format!("cannot list {}", folder.display()), cause);
    let listed = match fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(cause) if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(cause) => return Err(failed(cause)),
    };
    let entry = |entry: io::Result<fs::DirEntry>| {
        entry.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())).map_err(failed)
    };
    listed.map(entry).collect()
}

/// Removes a staged file; one that is gone already is fine. Blocks.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("cannot remove {}", path.display()), cause))
        }
        _ => Ok(()),
    }
}

/// Writes a staged file. The file is made when there is something to write.
#[derive(Debug)]
pub(super) struct StagedWriter {
    spool: PathBuf,
    file: Option<File>,
    buffer: Vec<u8>,
    crc: u32,
    staged: Staged,
    /// Whether the names of the folders may not be durable yet.
    is_first: bool,
}

impl StagedWriter {
    /// The first file of a subtask's writer: its folders may be new.
    pub(super) fn first(spool: &Path, subtask: u32, number: u64) -> Self {
        let staged = Staged { subtask, number, bytes: 0, records: BTreeMap::new() };
        StagedWriter { spool: spool.to_owned(), file: None, buffer: MAGIC.to_vec(), crc: 0, staged, is_first: true }
    }

    /// The next file of the same writer.
    pub(super) fn next(&self) -> Self {
        let next = Self::first(&self.spool, self.staged.subtask, self.staged.number + 1);
        StagedWriter { is_first: false, ..next }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.staged.records.is_empty()
    }

    /// Adds a record. May write to the file, without a sync.
    pub(super) fn push(&mut self, record: &StagedRecord<'_>) -> Result<()> {
        let (key_bytes, value_bytes) = (record.key.map_or(0, <[u8]>::len), record.value.len());
        if key_bytes + value_bytes > RECORD_BYTES_MAX {
            return Err(Error::invalid(format!(
                "a record of {} bytes is too large for a stream, which takes up to {RECORD_BYTES_MAX}",
                key_bytes + value_bytes
            )));
        }
        let (key_length, value_length) = (record.key.map_or(NO_KEY, |_| key_bytes as u32), value_bytes as u32);
        self.buffer.extend_from_slice(&record.shard.to_le_bytes());
        self.buffer.extend_from_slice(&record.timestamp.0.to_le_bytes());
        self.buffer.extend_from_slice(&key_length.to_le_bytes());
        self.buffer.extend_from_slice(&value_length.to_le_bytes());
        self.buffer.extend_from_slice(record.key.unwrap_or_default());
        self.buffer.extend_from_slice(record.value);
        *self.staged.records.entry(record.shard).or_default() += 1;
        if self.buffer.len() >= BUFFER_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<()> {
        self.crc = crc32c::crc32c_append(self.crc, &self.buffer);
        self.write_raw()
    }

    fn write_raw(&mut self) -> Result<()> {
        let path = self.staged.path(&self.spool);
        let failed = |cause| Error::io(format!("cannot stage records in {}", path.display()), cause);
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                fs::create_dir_all(path.parent().unwrap_or(&self.spool)).map_err(failed)?;
                // Whatever has this name was never listed in a checkpoint: the number would have been skipped.
                self.file.insert(File::create(&path).map_err(failed)?)
            }
        };
        file.write_all(&self.buffer).map_err(failed)?;
        self.staged.bytes += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Completes the file and makes it durable, its name included. Blocks.
    pub(super) fn finish(mut self) -> Result<Staged> {
        self.write()?;
        self.buffer.extend_from_slice(&self.crc.to_le_bytes());
        self.write_raw()?;
        let path = self.staged.path(&self.spool);
        let failed = |cause| Error::io(format!("cannot sync staged records in {}", path.display()), cause);
        if let Some(file) = &self.file {
            file.sync_all().map_err(failed)?;
        }
        // The file's name is in the subtask's folder, whose name is in the spool, whose name is in the job's folder.
        for folder in path.ancestors().skip(1).take(if self.is_first { 3 } else { 1 }) {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        }
        Ok(self.staged)
    }
}

/// Reads the records of a file that was [checked](Staged::check).
pub(super) struct StagedReader {
    file: BufReader<File>,
    path: PathBuf,
    left: u64,
    body: Vec<u8>,
}

impl StagedReader {
    pub(super) fn open(staged: &Staged, spool: &Path) -> Result<Self> {
        let path = staged.path(spool);
        let failed = |cause| Error::io(format!("cannot read staged records in {}", path.display()), cause);
        let mut file = BufReader::with_capacity(BUFFER_BYTES, File::open(&path).map_err(failed)?);
        let mut magic = [0; 8];
        file.read_exact(&mut magic).map_err(failed)?;
        if &magic != MAGIC {
            return Err(Error::corrupt(format!("{} is no file of staged records", path.display())));
        }
        let left = staged.bytes.saturating_sub(MAGIC.len() as u64 + TRAILER_BYTES);
        Ok(StagedReader { file, path, left, body: Vec::new() })
    }

    /// The next record; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<StagedRecord<'_>>> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut header = [0; HEADER_BYTES];
        self.read(HEADER_BYTES, |file, _| file.read_exact(&mut header))?;
        let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (low, high) = (u64::from(number(4)), u64::from(number(8)));
        let (key, value) = (number(12), number(16) as usize);
        let key_bytes = if key == NO_KEY { 0 } else { key as usize };
        self.read(key_bytes + value, |file, body| {
            body.resize(key_bytes + value, 0);
            file.read_exact(body)
        })?;
        let (key_text, value) = self.body.split_at(key_bytes);
        let timestamp = Timestamp((high << 32 | low) as i64);
        Ok(Some(StagedRecord { shard: number(0), timestamp, key: (key != NO_KEY).then_some(key_text), value }))
    }

    fn read(
        &mut self,
        bytes: usize,
        read: impl FnOnce(&mut BufReader<File>, &mut Vec<u8>) -> io::Result<()>,
    ) -> Result<()> {
        let damaged = || Error::corrupt(format!("staged records in {} end within a record", self.path.display()));
        self.left = self.left.checked_sub(bytes as u64).ok_or_else(damaged)?;
        read(&mut self.file, &mut self.body)
            .map_err(|cause| Error::io(format!("cannot read staged records in {}", self.path.display()), cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDS: [StagedRecord<'_>; 3] = [
        StagedRecord { shard: 1, timestamp: Timestamp(-5), key: Some(b"k"), value: b"v" },
        StagedRecord { shard: 0, timestamp: Timestamp(i64::MAX), key: None, value: b"" },
        StagedRecord { shard: 1, timestamp: Timestamp(0), key: Some(b""), value: &[7; 3_000_000] },
    ];

    fn write(spool: &Path) -> Staged {
        let mut writer = StagedWriter::first(spool, 3, 12);
        RECORDS.iter().for_each(|record| writer.push(record).expect("staged"));
        writer.finish().expect("synced")
    }

    #[test]
    fn records_come_back_as_they_were() {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = folder.path().join("not/made/yet");
        let staged = write(&spool);
        assert_eq!(staged.records, BTreeMap::from([(0, 1), (1, 2)]));
        staged.check(&spool).expect("sound");
        let mut reader = StagedReader::open(&staged, &spool).expect("a reader");
        for expected in RECORDS {
            assert_eq!(reader.next().expect("read"), Some(expected));
        }
        assert_eq!(reader.next().expect("read"), None);
        assert_eq!(list(&spool).expect("listed"), [(3, 12, staged.path(&spool))]);
        remove(&staged.path(&spool)).expect("removed");
        remove(&staged.path(&spool)).expect("gone already");
        assert!(list(&spool).expect("listed").is_empty());
    }

    #[test]
    fn damage_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let staged = write(folder.path());
        let path = staged.path(folder.path());
        let good = fs::read(&path).expect("read");
        for at in [0, 8, 30, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).expect("write");
            let error = staged.check(folder.path()).unwrap_err();
            assert_eq!(error.kind(), coulee_model::ErrorKind::Corrupt, "byte {at}");
        }
        fs::write(&path, &good[..good.len() - 1]).expect("write");
        assert!(staged.check(folder.path()).unwrap_err().to_string().contains("the checkpoint says"));
    }
}
