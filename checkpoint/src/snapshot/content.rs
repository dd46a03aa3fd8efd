//! Which files a folder holds, and what is in them.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::blocking::{self, Blocking};
use super::{ContentHash, ManifestFile, SnapshotStore};
use crate::{Error, Result};

/// Bytes read at once.
pub(super) const READ_BYTES: usize = 1 << 20;

/// What was found out about files that never change, by [`Identity`].
pub(super) type Known = HashMap<Identity, ContentHash>;

/// Tells a file apart from others of its name. SUBTLE: RocksDB numbers its files anew after a restore, so that a name alone says
/// nothing, not even with the length.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    path: String,
    bytes: u64,
    inode: u64,
    modified: (i64, i64),
}

/// One file of a folder, with the length it had when the folder was listed. It may have grown since: only that prefix counts.
struct Found {
    relative: String,
    path: PathBuf,
    /// Where it is known that the content never changes.
    identity: Option<Identity>,
    bytes: u64,
}

impl SnapshotStore {
    /// Every file below `dir` with its content, by path. Reads those that are not known from the last time.
    pub(super) async fn contents(&self, dir: &Path) -> Result<Vec<ManifestFile>> {
        let folder = dir.to_owned();
        let found = blocking::run(&*self.files, dir, move || Ok(found_below(&folder))).await??;
        let mut files = Vec::with_capacity(found.len());
        let mut known = Known::new();
        for file in found {
            let before = file.identity.as_ref().and_then(|identity| self.known.lock().get(identity).copied());
            let hash = match before {
                Some(hash) => hash,
                None => self.hash_of(&file.path, file.bytes).await?,
            };
            known.extend(file.identity.map(|identity| (identity, hash)));
            files.push(ManifestFile { path: file.relative, bytes: file.bytes, hash });
        }
        // What is not in the folder any more will not come back.
        *self.known.lock() = known;
        Ok(files)
    }

    /// The hash of the first `bytes` of a file.
    async fn hash_of(&self, path: &Path, bytes: u64) -> Result<ContentHash> {
        let mut reader = Prefix::open(&self.files, path, bytes).await?;
        while reader.next().await?.is_some() {}
        Ok(reader.hash())
    }
}

fn found_below(dir: &Path) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(folder) = open.pop() {
        let failed = |source| Error::File { path: folder.clone(), source };
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            let about = entry.metadata().map_err(|source| Error::File { path: path.clone(), source })?;
            if about.is_dir() {
                open.push(path);
                continue;
            }
            let relative = path.strip_prefix(dir).unwrap_or(&path).to_string_lossy().into_owned();
            // RocksDB's data files are written once; a spool's grow, and a manifest's too.
            let immutable = path.extension().is_some_and(|ending| ending == "sst" || ending == "blob");
            let identity = immutable.then(|| Identity {
                path: relative.clone(),
                bytes: about.len(),
                inode: about.ino(),
                modified: (about.mtime(), about.mtime_nsec()),
            });
            found.push(Found { relative, path, identity, bytes: about.len() });
        }
    }
    found.sort_by(|a, b| a.relative.cmp(&b.relative));
    Ok(found)
}

/// Reads the first so many bytes of a file, hashing as it goes.
pub(super) struct Prefix {
    path: PathBuf,
    file: Arc<File>,
    read: u64,
    left: u64,
    hasher: Box<Xxh3>,
    files: Arc<dyn Blocking>,
}

impl Prefix {
    pub(super) async fn open(files: &Arc<dyn Blocking>, path: &Path, bytes: u64) -> Result<Self> {
        let (opened, files) = (path.to_owned(), files.clone());
        let file = Arc::new(blocking::run(&*files, path, move || File::open(opened)).await?);
        Ok(Prefix { path: path.to_owned(), file, read: 0, left: bytes, hasher: Box::default(), files })
    }

    /// The next at most [`READ_BYTES`] bytes; `None` at the end of the prefix.
    ///
    /// # Errors
    /// [`Error::File`], also when the file is shorter than the prefix.
    pub(super) async fn next(&mut self) -> Result<Option<bytes::Bytes>> {
        if self.left == 0 {
            return Ok(None);
        }
        let wanted = self.left.min(READ_BYTES as u64);
        let (file, at) = (self.file.clone(), self.read);
        let read = move || {
            let mut buffer = vec![0; wanted as usize];
            match file.read_exact_at(&mut buffer, at) {
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    Err(std::io::Error::new(error.kind(), "it became shorter while it was read"))
                }
                read => read.map(|()| buffer),
            }
        };
        let buffer = blocking::run(&*self.files, &self.path, read).await?;
        self.read += wanted;
        self.left -= wanted;
        self.hasher.update(&buffer);
        Ok(Some(buffer.into()))
    }

    /// The hash of what was read.
    pub(super) fn hash(&self) -> ContentHash {
        ContentHash(self.hasher.digest128())
    }
}
