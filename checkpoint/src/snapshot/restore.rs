//! Bringing a snapshot back to a disk.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use xxhash_rust::xxh3::Xxh3;

use super::blocking;
use super::pin::Pin;
use super::{ContentHash, Manifest, ManifestFile, SnapshotName, SnapshotStore};
use crate::{Error, Result};

/// Files downloaded at once.
const FILES_AT_ONCE: usize = 8;

impl SnapshotStore {
    /// Downloads a snapshot into the folder `dir`, which must not exist, and checks every file. It is filled as `<dir>.partial`, so
    /// that a download cut short is never taken for state; what an earlier try left there is removed.
    ///
    /// # Errors
    /// [`Error::NoSnapshot`]; [`Error::DamagedSnapshot`] when a file is missing or is not what the manifest says; [`Error::File`], also
    /// when `dir` exists; [`Error::ObjectStore`].
    pub async fn restore(&self, name: &SnapshotName, dir: &Path) -> Result<Manifest> {
        if dir.exists() {
            let source =
                std::io::Error::new(std::io::ErrorKind::AlreadyExists, "a snapshot is restored into a new folder only");
            return Err(Error::File { path: dir.to_owned(), source });
        }
        let (manifest, mut pin) = self.pin_snapshot(name).await?;
        let restored = self.download(&manifest, dir, &mut pin).await;
        self.unpin(pin).await;
        restored.map(|()| manifest)
    }

    /// The manifest of a snapshot whose objects stay while the pin is held.
    pub(super) async fn pin_snapshot(&self, name: &SnapshotName) -> Result<(Manifest, Pin)> {
        let manifest = self.manifest(name).await?;
        let objects: BTreeSet<_> = manifest.files.iter().map(|file| self.object_of(file)).collect();
        let pin = self.pin(&holder(name), &objects).await?;
        // Deleted before the pin was there? Then a collection may have passed between.
        match self.manifest(name).await {
            Ok(again) if again == manifest => Ok((manifest, pin)),
            Ok(_) => {
                self.unpin(pin).await;
                Err(Error::NoSnapshot {
                    name: format!("{name} (as it was a moment ago)"),
                    prefix: self.prefix.to_string(),
                })
            }
            Err(error) => {
                self.unpin(pin).await;
                Err(error)
            }
        }
    }

    async fn download(&self, manifest: &Manifest, dir: &Path, pin: &mut Pin) -> Result<()> {
        let name = manifest.name();
        let partial = partial(dir);
        let paths = manifest.files.iter().map(|file| checked(&name, file)).collect::<Result<Vec<_>>>()?;
        let folders = folders_of(&paths, &partial);
        let (made, root) = (folders.clone(), partial.clone());
        let make = move || {
            if root.exists() {
                std::fs::remove_dir_all(&root)?;
            }
            made.iter().try_for_each(std::fs::create_dir_all)
        };
        blocking::run(&*self.files, &partial, make).await?;
        let (name, partial) = (&name, &partial);
        let files: Vec<_> =
            manifest.files.iter().map(|file| self.download_file(name, file, partial.join(&file.path))).collect();
        let mut files = futures::stream::iter(files).buffer_unordered(FILES_AT_ONCE);
        while files.try_next().await?.is_some() {
            self.renew(pin).await?;
        }
        let (partial, target) = (partial.clone(), dir.to_owned());
        let name_it = move || {
            // Names must be as durable as the bytes before the folder gets its own.
            folders.iter().try_for_each(|folder| File::open(folder)?.sync_all())?;
            std::fs::rename(partial, &target)?;
            let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(parent)?.sync_all()
        };
        blocking::run(&*self.files, dir, name_it).await
    }

    async fn download_file(&self, name: &SnapshotName, file: &ManifestFile, target: PathBuf) -> Result<()> {
        let mut parts = self.content(file).await.map_err(|error| missing(name, file, error))?;
        let created = target.clone();
        let out = Arc::new(blocking::run(&*self.files, &target, move || File::create(created)).await?);
        let (mut bytes, mut hasher) = (0, Box::<Xxh3>::default());
        while let Some(part) = parts.try_next().await? {
            hasher.update(&part);
            let (at, out) = (bytes, out.clone());
            bytes += part.len() as u64;
            blocking::run(&*self.files, &target, move || out.write_all_at(&part, at)).await?;
        }
        let hash = ContentHash(hasher.digest128());
        if (bytes, hash) != (file.bytes, file.hash) {
            let reason = format!("{bytes} bytes with hash {hash}; its manifest says {} and {}", file.bytes, file.hash);
            return Err(Error::DamagedSnapshot { name: name.to_string(), file: file.path.clone(), reason });
        }
        blocking::run(&*self.files, &target, move || out.sync_all()).await
    }

    /// The bytes of a file of a snapshot.
    pub(super) async fn content(&self, file: &ManifestFile) -> Result<BoxStream<'static, Result<Bytes>>> {
        let found = self.objects.get(&self.object_of(file)).await?;
        Ok(found.into_stream().map_err(Error::from).boxed())
    }

    /// The object of a file is not what it is named for.
    pub(super) fn altered(&self, file: &ManifestFile) -> Error {
        let reason = format!("{} has other content than its name says", self.object_of(file));
        Error::DamagedSnapshot { name: self.prefix.to_string(), file: file.path.clone(), reason }
    }
}

/// A file whose object is not there. `name` says of which snapshot.
pub(super) fn missing(name: &impl std::fmt::Display, file: &ManifestFile, error: Error) -> Error {
    match error {
        Error::ObjectStore(object_store::Error::NotFound { path, .. }) => Error::DamagedSnapshot {
            name: name.to_string(),
            file: file.path.clone(),
            reason: format!("object {path} is missing"),
        },
        other => other,
    }
}

/// A path that stays within the folder it is restored to.
fn checked<'a>(name: &SnapshotName, file: &'a ManifestFile) -> Result<&'a Path> {
    let path = Path::new(&file.path);
    if path.components().all(|part| matches!(part, Component::Normal(_))) && !file.path.is_empty() {
        return Ok(path);
    }
    let reason = "its path leads out of the snapshot".to_owned();
    Err(Error::DamagedSnapshot { name: name.to_string(), file: file.path.clone(), reason })
}

/// Every folder at or below `root` that holds one of the files or a folder of them: each has names that a power loss must not take.
fn folders_of(files: &[&Path], root: &Path) -> BTreeSet<PathBuf> {
    let above = files.iter().flat_map(|file| file.ancestors().skip(1).map(|folder| root.join(folder)));
    above.chain([root.to_owned()]).collect()
}

fn partial(dir: &Path) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// A name for the pin of a restore that no other restore uses, in any process.
fn holder(name: &SnapshotName) -> String {
    format!("restore-{name}-{}-{:016x}", std::process::id(), coulee_model::unique_u64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_hold_only_folders_are_made_durable_too() {
        let files = ["spool/sink/0/roll-1", "state/CURRENT", "state/000012.sst"].map(Path::new);
        let folders: Vec<PathBuf> = folders_of(&files, Path::new("/r")).into_iter().collect();
        let expected = ["/r", "/r/spool", "/r/spool/sink", "/r/spool/sink/0", "/r/state"];
        // `Path` joins an empty path with a slash, which compares as the path without it.
        assert_eq!(folders, expected.map(PathBuf::from));
    }
}
