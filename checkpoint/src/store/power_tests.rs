//! Power losses: whatever part of a commit that was not acknowledged has reached the disk, the store opens at the commit before or at that one.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use coulee_model::KeyGroup;
use tempfile::TempDir;

use super::*;

const OP: OperatorId = OperatorId(7);

/// A sector of a disk: it is written whole or not at all.
const SECTOR_BYTES: usize = 512;

/// A store with three commits: its folder, its log, and how long the log was after each commit.
struct Written {
    folder: TempDir,
    log: PathBuf,
    ends: Vec<usize>,
    bytes: Vec<u8>,
}

fn log_of(folder: &Path) -> PathBuf {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path());
    entries.filter(|path| path.extension().is_some_and(|ending| ending == "log")).max().expect("a log")
}

fn key(number: u64) -> StateKey {
    StateKey::new(OP, TableId(1), KeyGroup(0), &number.to_be_bytes())
}

/// `values` bytes are written by each commit, whatever they are.
fn written(values: usize) -> Written {
    let folder = tempfile::tempdir().expect("a folder");
    let store = JobStore::open(folder.path(), &StoreSettings::default()).expect("opened");
    let log = log_of(folder.path());
    let mut ends = Vec::new();
    for id in 1..=3u64 {
        let mut changes = Changes::default();
        changes.put(key(id), vec![b'a' + id as u8; values]);
        let record = CheckpointRecord { id: CheckpointId(id), at: Timestamp(1), job: String::new() };
        store.commit(record, [changes]).expect("committed");
        ends.push(std::fs::metadata(&log).expect("a log").len() as usize);
    }
    drop(store);
    let bytes = std::fs::read(&log).expect("a log");
    Written { folder, log, ends, bytes }
}

impl Written {
    /// Opens a copy whose log holds these bytes: which checkpoint it is at, with what the commits wrote.
    fn open_with_log(&self, bytes: &[u8]) -> Result<Vec<u64>> {
        let copy = tempfile::tempdir().expect("a folder");
        for entry in std::fs::read_dir(self.folder.path()).expect("a folder").flatten() {
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("copied");
        }
        let log = copy.path().join(self.log.file_name().expect("a name"));
        std::fs::File::create(&log).and_then(|file| file.write_all_at(bytes, 0)).expect("written");
        let store = JobStore::open(copy.path(), &StoreSettings::default())?;
        let there: Vec<u64> = (1..=3).filter(|id| store.get(&key(*id)).is_ok_and(|found| found.is_some())).collect();
        assert_eq!(store.last_checkpoint().map(|record| record.id.0), there.last().copied(), "a commit is atomic");
        // It goes on from there.
        let next = store.last_checkpoint().map_or(CheckpointId(1), |record| record.id.next());
        store.commit(CheckpointRecord { id: next, at: Timestamp(2), job: String::new() }, []).expect("committed");
        drop(store);
        let store = JobStore::open(copy.path(), &StoreSettings::default()).expect("opened again");
        assert_eq!(store.last_checkpoint().map(|record| record.id), Some(next));
        Ok(there)
    }
}

/// What a disk may hold of the commit that was under way: `kept` says which of its sectors were written.
fn torn(written: &Written, kept: impl Fn(usize) -> bool) -> Vec<u8> {
    let mut bytes = written.bytes.clone();
    let torn = bytes.iter_mut().enumerate().take(written.ends[2]).skip(written.ends[1]);
    torn.filter(|(at, _)| !kept(at / SECTOR_BYTES)).for_each(|(_, byte)| *byte = 0);
    bytes
}

#[test]
fn a_commit_that_was_torn_is_there_whole_or_not_at_all() {
    // Within a sector, over several, and over several of the log's blocks.
    for values in [20, 3_000, 100_000] {
        let written = written(values);
        let (first, last) = (written.ends[1], written.ends[2]);
        for step in 0..10 {
            let cut = first + (last - first) * step / 10;
            let there = written.open_with_log(&written.bytes[..cut]).expect("a log that is too short");
            assert_eq!(there, [1, 2], "cut at {cut} of {first}..{last}");
            let mut zeros = written.bytes.clone();
            zeros[first.max(cut - cut % SECTOR_BYTES)..].fill(0);
            let there = written.open_with_log(&zeros).expect("a log that ends in zeros");
            assert_eq!(there, [1, 2], "zeros from the sector of {cut} in {first}..{last}");
        }
        for seed in 1..6u64 {
            let bytes = torn(&written, |sector| {
                (sector as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(seed as u32) & 1 == 0
            });
            let there = written.open_with_log(&bytes).expect("a log with holes");
            assert!(there == [1, 2] || bytes == written.bytes, "{there:?}");
        }
        assert_eq!(written.open_with_log(&written.bytes).expect("the whole log"), [1, 2, 3]);
    }
}

#[test]
fn damage_that_is_followed_by_another_commit_is_refused() {
    for values in [20, 100_000] {
        let written = written(values);
        for step in 0..8 {
            let at = written.ends[0] + (written.ends[1] - written.ends[0]) * step / 8;
            let mut bytes = written.bytes.clone();
            bytes[at] ^= 0x55;
            let error = written.open_with_log(&bytes).map(drop).unwrap_err();
            assert!(error.to_string().contains("Corruption"), "byte {at}: {error}");
        }
    }
}
