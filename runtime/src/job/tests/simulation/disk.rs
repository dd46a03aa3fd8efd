//! The job's state on disk, and what is left of it when the power goes off.
//!
//! A commit is one write to RocksDB's log, which is synced before the commit returns. So of all that was committed before a power cut everything is there,
//! and of a commit that was under way any part of the bytes that it appended: `lose_power` ends the log at a drawn byte between its length before and
//! after that commit, or leaves it its length with zeros at the end or in any of its sectors. What that is worth shows when the state is opened again.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coulee_checkpoint::{JobStore, StoreResources, StoreSettings};
use parking_lot::Mutex;
use rand::Rng;
use tempfile::TempDir;

use super::machine::{CommitMoment, Cut, Machine};

/// A length of a file.
type Length = (PathBuf, u64);

/// RocksDB's log before and after a commit.
type Commit = (Option<Length>, Option<Length>);

/// See the module.
pub(super) struct StateDisk {
    machine: Machine,
    folder: TempDir,
    /// A disk that does not do what a sync asks for.
    does_not_sync: bool,
    /// RocksDB's log before and after each commit since the power came.
    commits: Arc<Mutex<Vec<Commit>>>,
}

/// RocksDB's newest log.
fn log(state: &Path) -> Option<Length> {
    let entries = std::fs::read_dir(state).ok()?.flatten();
    let logs = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|ending| ending == "log"));
    let newest = logs.max()?;
    let bytes = newest.metadata().ok()?.len();
    Some((newest, bytes))
}

impl StateDisk {
    pub(super) fn new(machine: Machine, does_not_sync: bool) -> Self {
        // In memory where the system has such a folder: thousands of syncs are asked for.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
        StateDisk { machine, folder: folder.expect("a folder"), does_not_sync, commits: Arc::default() }
    }

    pub(super) fn folder(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn open(&self) -> Result<JobStore, String> {
        let settings = StoreSettings { write_buffer_bytes: 1 << 20, block_cache_bytes: 1 << 20 };
        let resources = StoreResources::default().with_clock(Arc::new(self.machine.clone()));
        let opened = JobStore::open_with(&self.folder("state"), &settings, &resources);
        let store = opened.map_err(|error| format!("the state cannot be opened: {error}"))?;
        let last = store.last_checkpoint().map_or(0, |record| record.id.0);
        self.machine.trace(format_args!("the state is at checkpoint {last}"));
        Ok(store)
    }

    /// Writes down how long RocksDB's log is before and after each commit of the life that begins.
    pub(super) fn watch(&self) {
        self.commits.lock().clear();
        let (commits, state, machine) = (self.commits.clone(), self.folder("state"), self.machine.clone());
        self.machine.on_commit(Arc::new(move |moment| {
            let mut commits = commits.lock();
            match (moment, commits.last_mut()) {
                (CommitMoment::Before, _) => commits.push((log(&state), None)),
                (CommitMoment::After, Some(commit)) => {
                    commit.1 = log(&state);
                    let bytes = commit.1.as_ref().map_or(0, |(_, bytes)| *bytes);
                    machine.trace(format_args!("a checkpoint is durable; the log has {bytes} bytes"));
                }
                (CommitMoment::After, None) => {}
            }
        }));
    }

    /// All of it is lost.
    pub(super) fn lose_all(&self) {
        for entry in std::fs::read_dir(self.folder.path()).expect("a folder").flatten() {
            std::fs::remove_dir_all(entry.path()).expect("a folder that can be removed");
        }
    }

    /// What is not synced is lost, or torn.
    pub(super) fn lose_power(&self, cut: Cut) {
        let mut commits = std::mem::take(&mut *self.commits.lock());
        if self.does_not_sync {
            // The last three commits were in the disk's own memory.
            let kept = commits.len().saturating_sub(3);
            commits.drain(..kept);
        } else if !matches!(cut, Cut::WithinCommit(_)) {
            return;
        }
        let newest = commits.last().and_then(|(_, after)| after.clone());
        let Some((path, after)) = newest else { return };
        let lost = commits.iter().filter_map(|(before, _)| before.clone()).filter(|(log, _)| *log == path);
        let lost = if self.does_not_sync { lost.min() } else { lost.max() };
        let before = lost.map_or(0, |(_, bytes)| bytes);
        let how = self.machine.draw(|random| match random.random_range(0..3) {
            0 => Tear::Shortened(random.random_range(before..=after)),
            1 => Tear::Zeros(random.random_range(before..=after)),
            _ => Tear::Holes(random.random()),
        });
        tear(&path, (before, after), how).expect("the log can be changed");
    }
}

/// A sector of a disk is written whole or not at all.
const SECTOR_BYTES: u64 = 512;

/// What became of bytes that were not synced.
enum Tear {
    /// The file ends here.
    Shortened(u64),
    /// The file has its length, and zeros from the sector of this byte on.
    Zeros(u64),
    /// The file has its length, and zeros in some of its sectors, drawn from this.
    Holes(u64),
}

fn tear(path: &Path, (before, after): (u64, u64), how: Tear) -> std::io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let is_lost = |at: u64| match how {
        Tear::Shortened(_) => false,
        Tear::Zeros(from) => at / SECTOR_BYTES >= from / SECTOR_BYTES,
        Tear::Holes(seed) => (at / SECTOR_BYTES + 1).wrapping_mul(seed | 1) >> 40 & 1 == 0,
    };
    let mut bytes = vec![0; (after - before) as usize];
    file.read_exact_at(&mut bytes, before)?;
    for (byte, at) in bytes.iter_mut().zip(before..) {
        if is_lost(at) {
            *byte = 0;
        }
    }
    file.write_all_at(&bytes, before)?;
    match how {
        Tear::Shortened(length) => file.set_len(length),
        Tear::Zeros(_) | Tear::Holes(_) => Ok(()),
    }
}
