//! The seam between the log and the disk, for the one file that is being appended to; and how small files are replaced.
//!
//! Reads go to the files themselves. Tests put a double behind [`Storage`] that tears writes, fails syncs and fills up.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::{LogError, Result};

/// Opens segment files for appending.
pub(crate) trait Storage: Send + Sync + std::fmt::Debug {
    /// Opens a file, and creates it if it is absent.
    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>>;
}

/// A segment file that is being appended to.
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

/// Files of the file system.
#[derive(Debug)]
pub(crate) struct Disk;

impl Storage for Disk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Box::new(file))
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

/// Makes the names in a folder durable: those created, renamed and removed.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| LogError::io("sync the folder", folder, e))
}

/// Writes a file so that after any crash there is the old one or the new one, whole.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let draft = path.with_added_extension("tmp");
    let write = || -> io::Result<()> {
        let mut file = File::create(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write().map_err(|e| LogError::io("write", path, e))?;
    sync_folder(path.parent().unwrap_or(path))
}
