//! The data folder: who may use it, which version it has, and where everything is.
//!
//! ```text
//! <data>/coulee.json          {"format": 1}
//! <data>/LOCK                 locked (flock) by the process that uses the folder; holds its process id
//! <data>/catalog.json         the tables and views that are kept
//! <data>/log/                 the streams
//! <data>/jobs/<name>/         job.json, state/ (RocksDB), spool/ (what sinks prepared)
//! <data>/savepoints/<name>/   savepoints of jobs that do not say where theirs go
//! <data>/scripts/<name>.json  scripts that a server is still working through
//! <data>/scratch/             state of queries that print; emptied at the start
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use coulee_model::JobName;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The newest format that this build reads and writes.
const FORMAT: u32 = 1;

const LOCK_FILE: &str = "LOCK";
const FORMAT_FILE: &str = "coulee.json";

#[derive(Serialize, Deserialize)]
struct Format {
    format: u32,
}

/// A data folder that nobody else uses while this lives.
#[derive(Debug)]
pub(crate) struct DataFolder {
    root: PathBuf,
    /// The system lets go of the lock when the file is closed, also after a crash.
    _lock: File,
}

impl DataFolder {
    /// Takes the folder, and makes it if it is absent.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::NewerFormat`], [`Error::ForeignFolder`], [`Error::Io`].
    pub(crate) fn open(root: &Path) -> Result<Self> {
        // Made absolute once: a change of the working folder must not move it.
        let root = std::path::absolute(root).map_err(|e| Error::io("find", root, e))?;
        fs::create_dir_all(&root).map_err(|e| Error::io("create", &root, e))?;
        if !is_ours(&root)? {
            return Err(Error::ForeignFolder { folder: root });
        }
        let folder = DataFolder { _lock: lock(&root)?, root };
        folder.check_format()?;
        let jobs = folder.jobs();
        fs::create_dir_all(&jobs).map_err(|e| Error::io("create", &jobs, e))?;
        remove_folder(&folder.scratch())?;
        Ok(folder)
    }

    /// Whether an engine has made `root` its data folder.
    pub(crate) fn is_one(root: &Path) -> bool {
        root.join(FORMAT_FILE).exists()
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    pub(crate) fn catalog(&self) -> PathBuf {
        self.root.join("catalog.json")
    }

    pub(crate) fn jobs(&self) -> PathBuf {
        self.root.join("jobs")
    }

    pub(crate) fn job(&self, name: &JobName) -> PathBuf {
        self.jobs().join(name.as_str())
    }

    pub(crate) fn scripts(&self) -> PathBuf {
        self.root.join("scripts")
    }

    pub(crate) fn savepoints(&self) -> PathBuf {
        self.root.join("savepoints")
    }

    pub(crate) fn scratch(&self) -> PathBuf {
        self.root.join("scratch")
    }

    fn check_format(&self) -> Result<()> {
        let path = self.root.join(FORMAT_FILE);
        match fs::read(&path) {
            Ok(text) => {
                let damaged = |e: serde_json::Error| Error::Damaged { path: path.clone(), reason: e.to_string() };
                let found: Format = serde_json::from_slice(&text).map_err(damaged)?;
                if found.format > FORMAT {
                    let folder = self.root.clone();
                    return Err(Error::NewerFormat { folder, found: found.format, known: FORMAT });
                }
                Ok(())
            }
            Err(e) if e.kind() == ErrorKind::NotFound => write_json(&path, &Format { format: FORMAT }),
            Err(e) => Err(Error::io("read", &path, e)),
        }
    }
}

/// Whether the folder is empty or was made by an engine: nobody's files shall be mixed with ours.
fn is_ours(root: &Path) -> Result<bool> {
    if DataFolder::is_one(root) {
        return Ok(true);
    }
    let entries = fs::read_dir(root).map_err(|e| Error::io("list", root, e))?;
    for entry in entries {
        let name = entry.map_err(|e| Error::io("list", root, e))?.file_name();
        // What a start that was killed may have left.
        if name != LOCK_FILE && name != draft(Path::new(FORMAT_FILE)).as_os_str() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn lock(root: &Path) -> Result<File> {
    let path = root.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    let opened = options.read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = opened.map_err(|e| Error::io("open", &path, e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            // Who it is helps, but the answer does not depend on it.
            let _ = file.read_to_string(&mut owner);
            return Err(Error::Locked { folder: root.to_owned(), pid: owner.trim().parse().ok() });
        }
        Err(TryLockError::Error(e)) => return Err(Error::io("lock", &path, e)),
    }
    let write = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    write.map_err(|e| Error::io("write", &path, e))?;
    Ok(file)
}

fn draft(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}

/// Replaces a file so that after any crash it is the old or the new one, and durable when this returns.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|e| Error::Internal(e.to_string()))?;
    text.push(b'\n');
    let draft = draft(path);
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&draft)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        match path.parent() {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(|e| Error::io("write", path, e))
}

/// Removes a folder and all in it; an absent one is fine.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_user_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("data");
        let first = DataFolder::open(&root).unwrap();
        let error = DataFolder::open(&root).unwrap_err();
        let expected = format!("is in use by process {}: stop that process", std::process::id());
        assert!(error.to_string().contains(&expected), "{error}");
        drop(first);
        DataFolder::open(&root).unwrap();
    }

    #[test]
    fn other_peoples_folders_and_newer_ones_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "x").unwrap();
        let error = DataFolder::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("not a data folder of coulee"), "{error}");
        assert!(!dir.path().join(LOCK_FILE).exists());

        let newer = tempfile::tempdir().unwrap();
        fs::write(newer.path().join(FORMAT_FILE), r#"{"format": 7}"#).unwrap();
        let error = DataFolder::open(newer.path()).unwrap_err();
        assert!(error.to_string().contains("has format 7, this version reads up to 1"), "{error}");
    }

    #[test]
    fn a_start_that_was_killed_does_not_make_the_folder_foreign() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(LOCK_FILE), "1\n").unwrap();
        DataFolder::open(dir.path()).unwrap();
    }
}
