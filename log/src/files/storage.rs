//! The seam between the log and the disk: every operation whose effect has to survive a power cut goes through [`Storage`].
//!
//! That is: appending to a segment or to the journal, replacing a small file, making, renaming and removing files and
//! folders, and the syncs that make each of these durable. Reads go to the files themselves. Tests put a double behind
//! [`Storage`] that tears writes, fails syncs, fills up, or forgets what was not synced.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::{LogError, Result};

/// The disk that a log is on.
///
/// # Guarantees
/// The name of a file or folder that was made, renamed or removed survives a power cut once `sync_folder` of the folder
/// that holds the name has returned.
///
/// # Failure
/// After a failed operation any part of its effect may be there.
pub(crate) trait Storage: Send + Sync + std::fmt::Debug {
    /// Opens a file for writing, and creates it if it is absent. What the file holds stays.
    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>>;

    /// Makes a folder and the folders above it, unless they exist.
    fn create_folder(&self, path: &Path) -> io::Result<()>;

    /// Gives a file or folder another name. A file of that name is replaced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a folder with all that it holds.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable: those created, renamed and removed.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
}

/// A file that is being written: a segment, the journal, or the draft of a small file.
///
/// # Guarantees
/// After `sync`, everything written before it survives a power cut.
///
/// # Non-guarantees
/// A failed `write_all_at` may have written any part; after a failed `sync` nobody knows what the disk holds.
pub(crate) trait SegmentFile: Send {
    fn write_all_at(&mut self, bytes: &[u8], position: u64) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
    fn truncate(&mut self, bytes: u64) -> io::Result<()>;
}

/// Why something was not written.
pub(crate) enum WriteFailure<E = LogError> {
    /// Nothing of it is in the file, and the next attempt may succeed.
    NotWritten(E),
    /// Nobody knows what the disk holds: nothing may be added to the file any more.
    Undetermined(E),
}

/// Files of the file system.
#[derive(Debug)]
pub(crate) struct Disk;

impl Storage for Disk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Box::new(file))
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

impl SegmentFile for File {
    fn write_all_at(&mut self, bytes: &[u8], position: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, position)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }
}

/// Lets the system forget what it holds of a file in memory, so that the next read comes from the disk. A hint: what is
/// not on the disk stays.
pub(crate) fn drop_from_memory(path: &Path) -> io::Result<()> {
    rustix::fs::fadvise(File::open(path)?, 0, None, rustix::fs::Advice::DontNeed)?;
    Ok(())
}

/// Makes the names in a folder durable.
///
/// # Errors
/// [`LogError::Io`] names the folder.
pub(crate) fn sync_folder(storage: &dyn Storage, folder: &Path) -> Result<()> {
    storage.sync_folder(folder).map_err(|e| LogError::io("sync the folder", folder, e))
}

/// Makes a folder and the folders above it, unless they exist.
///
/// # Errors
/// [`LogError::Io`] and [`LogError::DiskFull`] name the folder.
pub(crate) fn create_folder(storage: &dyn Storage, folder: &Path) -> Result<()> {
    storage.create_folder(folder).map_err(|e| LogError::io("create", folder, e))
}

/// Removes a folder with all that it holds, if it exists.
///
/// # Errors
/// [`LogError::Io`] names the folder.
pub(crate) fn remove_folder(storage: &dyn Storage, folder: &Path) -> Result<()> {
    match storage.remove_folder(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(LogError::io("remove", folder, e)),
        _ => Ok(()),
    }
}

/// Removes a file that nobody needs any more. Failing to does no harm, and is logged.
pub(crate) fn remove_leftover(storage: &dyn Storage, path: &Path) {
    if let Err(error) = storage.remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "could not remove a leftover file");
    }
}

/// Writes a file so that after any crash there is the old one or the new one, whole.
///
/// # Errors
/// [`LogError::Io`] and [`LogError::DiskFull`]: the old file is there, or the new one whose name may not be durable.
pub(crate) fn write_atomically(storage: &dyn Storage, path: &Path, bytes: &[u8]) -> Result<()> {
    let draft = path.with_added_extension("tmp");
    let write = || -> io::Result<()> {
        let mut file = storage.open(&draft)?;
        // A crash may have left a longer draft.
        file.truncate(0)?;
        file.write_all_at(bytes, 0)?;
        file.sync()?;
        storage.rename(&draft, path)
    };
    write().map_err(|e| LogError::io("write", path, e))?;
    sync_folder(storage, path.parent().unwrap_or(path))
}
