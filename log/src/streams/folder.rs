//! The folder of a log: the lock that keeps other processes out, the version of its format, and the folders of its streams,
//! which are made and removed so that a crash leaves each whole or absent.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coulee_model::StreamName;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::error::{LogError, Result};
use crate::files::storage::{self, Storage};

/// The newest format that this build reads and writes.
const FORMAT: u32 = 2;

const LOCK_FILE: &str = "LOCK";
const FORMAT_FILE: &str = "format.json";
const TRANSACTIONS: &str = "transactions.journal";
const STREAMS: &str = "streams";
/// Streams that are being made or deleted: what is here is removed at the start.
const UNFINISHED: &str = "unfinished";

/// The folder of an open log. Nobody else has it open while this lives.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    storage: Arc<dyn Storage>,
    /// The system lets go of the lock when the file is closed, also after a crash.
    _lock: File,
}

#[derive(Serialize, Deserialize)]
struct Format {
    format: u32,
}

impl Folder {
    /// Takes the folder, and makes it if it is absent.
    ///
    /// # Errors
    /// [`LogError::Locked`], [`LogError::NewerFormat`], [`LogError::Corrupt`] for a folder without its format file,
    /// [`LogError::Io`].
    pub(crate) fn open(storage: &Arc<dyn Storage>, root: &Path) -> Result<Folder> {
        storage::create_folder(&**storage, root)?;
        let lock = lock(root)?;
        let folder = Folder { root: root.to_owned(), storage: Arc::clone(storage), _lock: lock };
        folder.check_format()?;
        let unfinished = root.join(UNFINISHED);
        storage::remove_folder(&**storage, &unfinished)?;
        for made in [unfinished, root.join(STREAMS)] {
            storage::create_folder(&**storage, &made)?;
        }
        storage::sync_folder(&**storage, root)?;
        // The folder's own name has to survive too.
        let absolute = std::path::absolute(root).map_err(|e| LogError::io("find", root, e))?;
        absolute.parent().map_or(Ok(()), |parent| storage::sync_folder(&**storage, parent))?;
        Ok(folder)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The file that remembers transactions.
    pub(crate) fn transactions(&self) -> PathBuf {
        self.root.join(TRANSACTIONS)
    }

    /// Where a stream lives.
    pub(crate) fn stream(&self, name: &StreamName) -> PathBuf {
        self.root.join(STREAMS).join(name.as_str())
    }

    /// The names of all streams.
    pub(crate) fn streams(&self) -> Result<Vec<StreamName>> {
        let folder = self.root.join(STREAMS);
        let list = || -> std::io::Result<Vec<StreamName>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                match entry.file_name().to_str().map(StreamName::new) {
                    Some(Ok(name)) if entry.file_type()?.is_dir() => names.push(name),
                    _ => tracing::warn!(path = %entry.path().display(), "not a stream; left alone"),
                }
            }
            Ok(names)
        };
        list().map_err(|e| LogError::io("list", &folder, e))
    }

    /// Makes the folder of a stream with `fill`, so that after any crash it is there whole or not at all.
    pub(crate) fn create_stream(&self, name: &StreamName, fill: impl Fn(&Path) -> Result<()>) -> Result<()> {
        let draft = self.unfinished(name);
        let storage = &*self.storage;
        storage::remove_folder(storage, &draft)?;
        storage::create_folder(storage, &draft)?;
        fill(&draft)?;
        storage.rename(&draft, &self.stream(name)).map_err(|e| LogError::io("name", &self.stream(name), e))?;
        storage::sync_folder(storage, &self.root.join(STREAMS))
    }

    /// Removes the folder of a stream: after any crash it is there whole or not at all.
    pub(crate) fn delete_stream(&self, name: &StreamName) -> Result<()> {
        let (path, doomed) = (self.stream(name), self.unfinished(name));
        let storage = &*self.storage;
        storage::remove_folder(storage, &doomed)?;
        storage.rename(&path, &doomed).map_err(|e| LogError::io("remove", &path, e))?;
        storage::sync_folder(storage, &self.root.join(STREAMS))?;
        storage::remove_folder(storage, &doomed)
    }

    fn unfinished(&self, name: &StreamName) -> PathBuf {
        self.root.join(UNFINISHED).join(name.as_str())
    }

    fn check_format(&self) -> Result<()> {
        let path = self.root.join(FORMAT_FILE);
        if !path.exists() {
            if self.root.join(STREAMS).exists() {
                return Err(LogError::corrupt(&path, 0, "it is missing, but the folder has streams"));
            }
            return write_format(&*self.storage, &path);
        }
        let text = fs::read(&path).map_err(|e| LogError::io("read", &path, e))?;
        let found: Format = serde_json::from_slice(&text).map_err(|e| LogError::corrupt(&path, 0, e.to_string()))?;
        if found.format > FORMAT {
            return Err(LogError::NewerFormat { folder: self.root.clone(), found: found.format, known: FORMAT });
        }
        // What is older is read as it is; once this version may have written, an older one must not.
        if found.format < FORMAT { write_format(&*self.storage, &path) } else { Ok(()) }
    }
}

fn write_format(storage: &dyn Storage, path: &Path) -> Result<()> {
    let text = serde_json::to_vec(&Format { format: FORMAT }).map_err(|e| LogError::io("write", path, e.into()))?;
    storage::write_atomically(storage, path, &text)
}

fn lock(root: &Path) -> Result<File> {
    let path = root.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    let opened = options.read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = opened.map_err(|e| LogError::io("open", &path, e))?;
    if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(LogError::io("lock", &path, error.into()));
        }
        let mut owner = String::new();
        // Who it is helps, but the answer does not depend on it.
        let _ = file.read_to_string(&mut owner);
        return Err(LogError::Locked { folder: root.to_owned(), pid: owner.trim().parse().ok() });
    }
    let write = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    write.map_err(|e| LogError::io("write", &path, e))?;
    Ok(file)
}
