//! Snapshots: copies of a job's last checkpoint in an object store, complete and self-describing.
//!
//! A snapshot is a folder of files (RocksDB's, hard-linked, and whatever the job's sinks spooled) uploaded under
//! `<prefix>/<name>/files/…`, and, last, `<prefix>/<name>/manifest.json`, put only if absent: a snapshot exists when its manifest does.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use coulee_model::{CheckpointId, JobName, Timestamp};
use futures::TryStreamExt;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, WriteMultipart};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The version of [`Manifest`] that is written.
const FORMAT: u32 = 1;
/// Bytes uploaded in one piece.
const PART_BYTES: usize = 8 << 20;

/// What a snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this description.
    pub format: u32,
    /// Whose state it is.
    pub job: JobName,
    /// Which checkpoint.
    pub checkpoint: CheckpointId,
    /// When it was taken, by the wall clock.
    pub at: Timestamp,
    /// Every file.
    pub files: Vec<ManifestFile>,
}

/// One file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Its path within the snapshot, with `/`.
    pub path: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// The CRC-32C of its content.
    pub crc32c: u32,
}

/// Where snapshots of one job are kept.
#[derive(Debug, Clone)]
pub struct SnapshotStore {
    objects: Arc<dyn ObjectStore>,
    prefix: ObjectPath,
}

impl SnapshotStore {
    /// Snapshots under `prefix` of `objects`.
    pub fn new(objects: Arc<dyn ObjectStore>, prefix: ObjectPath) -> Self {
        SnapshotStore { objects, prefix }
    }

    fn name(checkpoint: CheckpointId) -> String {
        format!("checkpoint-{:012}", checkpoint.0)
    }

    fn object(&self, name: &str, rest: &str) -> ObjectPath {
        ObjectPath::from(format!("{}/{name}/{rest}", self.prefix))
    }

    /// Uploads every file below `dir` as the snapshot of `checkpoint`.
    ///
    /// # Errors
    /// [`Error::Snapshot`] when that snapshot exists; [`Error::File`]; [`Error::ObjectStore`]. Files uploaded before an error stay
    /// without a manifest and are overwritten by the next attempt.
    pub async fn upload(&self, job: &JobName, checkpoint: CheckpointId, at: Timestamp, dir: &Path) -> Result<Manifest> {
        let name = Self::name(checkpoint);
        let mut files = Vec::new();
        for path in files_below(dir)? {
            let relative = path.strip_prefix(dir).unwrap_or(&path).to_string_lossy().replace('\\', "/");
            files.push(self.upload_file(&name, &relative, &path).await?);
        }
        let manifest = Manifest { format: FORMAT, job: job.clone(), checkpoint, at, files };
        let body = serde_json::to_vec_pretty(&manifest)
            .map_err(|e| Error::Snapshot { name: name.clone(), reason: e.to_string() })?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.objects.put_opts(&self.object(&name, "manifest.json"), body.into(), options).await {
            Err(object_store::Error::AlreadyExists { .. }) => {
                Err(Error::Snapshot { name, reason: "a snapshot of this checkpoint exists already".into() })
            }
            Err(error) => Err(error.into()),
            Ok(_) => Ok(manifest),
        }
    }

    async fn upload_file(&self, name: &str, relative: &str, path: &Path) -> Result<ManifestFile> {
        let failed = |source| Error::File { path: path.to_owned(), source };
        let mut file = tokio::fs::File::open(path).await.map_err(failed)?;
        let upload = self.objects.put_multipart(&self.object(name, &format!("files/{relative}"))).await?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        let (mut bytes, mut crc) = (0, 0);
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = tokio::io::AsyncReadExt::read(&mut file, &mut buffer).await.map_err(failed)?;
            if read == 0 {
                break;
            }
            bytes += read as u64;
            crc = crc32c::crc32c_append(crc, &buffer[..read]);
            upload.wait_for_capacity(4).await?;
            upload.write(&buffer[..read]);
        }
        upload.finish().await?;
        Ok(ManifestFile { path: relative.to_owned(), bytes, crc32c: crc })
    }

    /// The manifests of all complete snapshots, oldest first.
    ///
    /// # Errors
    /// [`Error::ObjectStore`]; [`Error::Snapshot`] for a manifest that does not decode.
    pub async fn list(&self) -> Result<Vec<Manifest>> {
        let mut manifests = Vec::new();
        let listing = self.objects.list_with_delimiter(Some(&self.prefix)).await?;
        for folder in listing.common_prefixes {
            let Some(name) = folder.filename() else { continue };
            match self.manifest(name).await {
                Ok(manifest) => manifests.push(manifest),
                Err(Error::ObjectStore(object_store::Error::NotFound { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        manifests.sort_by_key(|manifest| manifest.checkpoint);
        Ok(manifests)
    }

    async fn manifest(&self, name: &str) -> Result<Manifest> {
        let body = self.objects.get(&self.object(name, "manifest.json")).await?.bytes().await?;
        let manifest: Manifest = serde_json::from_slice(&body)
            .map_err(|e| Error::Snapshot { name: name.to_owned(), reason: format!("its manifest is damaged: {e}") })?;
        if manifest.format > FORMAT {
            let reason = format!("format {} is newer than this version reads ({FORMAT})", manifest.format);
            return Err(Error::Snapshot { name: name.to_owned(), reason });
        }
        Ok(manifest)
    }

    /// Downloads a snapshot into the folder `dir`, which must not exist, and checks every file.
    ///
    /// # Errors
    /// [`Error::Snapshot`] when a file is not what the manifest says; [`Error::ObjectStore`]; [`Error::File`].
    pub async fn restore(&self, checkpoint: CheckpointId, dir: &Path) -> Result<Manifest> {
        let name = Self::name(checkpoint);
        let manifest = self.manifest(&name).await?;
        // Filled beside its final place, so that a download cut short is never taken for state.
        let partial = dir.with_extension("partial");
        if partial.exists() {
            std::fs::remove_dir_all(&partial).map_err(|source| Error::File { path: partial.clone(), source })?;
        }
        for file in &manifest.files {
            self.restore_file(&name, file, &partial.join(&file.path)).await?;
        }
        std::fs::create_dir_all(&partial).map_err(|source| Error::File { path: partial.clone(), source })?;
        std::fs::rename(&partial, dir).map_err(|source| Error::File { path: dir.to_owned(), source })?;
        Ok(manifest)
    }

    async fn restore_file(&self, name: &str, file: &ManifestFile, target: &Path) -> Result<()> {
        let failed = |source| Error::File { path: target.to_owned(), source };
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        let mut out = tokio::fs::File::create(target).await.map_err(failed)?;
        let mut parts = self.objects.get(&self.object(name, &format!("files/{}", file.path))).await?.into_stream();
        let (mut bytes, mut crc) = (0, 0);
        while let Some(part) = parts.try_next().await? {
            bytes += part.len() as u64;
            crc = crc32c::crc32c_append(crc, &part);
            tokio::io::AsyncWriteExt::write_all(&mut out, &part).await.map_err(failed)?;
        }
        if (bytes, crc) != (file.bytes, file.crc32c) {
            let reason = format!(
                "{} has {bytes} bytes and checksum {crc:08x}, its manifest says {} and {:08x}",
                file.path, file.bytes, file.crc32c
            );
            return Err(Error::Snapshot { name: name.to_owned(), reason });
        }
        out.sync_all().await.map_err(failed)
    }

    /// Removes a snapshot: its manifest first, so that it is never half there.
    ///
    /// # Errors
    /// [`Error::ObjectStore`]. Safe to repeat.
    pub async fn delete(&self, checkpoint: CheckpointId) -> Result<()> {
        let name = Self::name(checkpoint);
        match self.objects.delete(&self.object(&name, "manifest.json")).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let folder = self.object(&name, "files");
        let found: Vec<_> = self.objects.list(Some(&folder)).map_ok(|meta| meta.location).try_collect().await?;
        for location in found {
            self.objects.delete(&location).await?;
        }
        Ok(())
    }
}

fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(folder) = open.pop() {
        let failed = |source| Error::File { path: folder.clone(), source };
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use coulee_model::{KeyGroup, OperatorId};
    use object_store::memory::InMemory;

    use super::*;
    use crate::{Changes, CheckpointRecord, JobStore, StateKey, StoreSettings, TableId};

    #[tokio::test]
    async fn a_snapshot_restores_the_state_on_another_disk() {
        let dir = tempfile::tempdir().unwrap();
        let job = JobName::new("j").unwrap();
        let key = StateKey::new(OperatorId(1), TableId(1), KeyGroup(3), b"k");
        let store = JobStore::open(&dir.path().join("state"), &StoreSettings::default()).unwrap();
        let mut changes = Changes::default();
        changes.put(key.clone(), "v");
        let record = CheckpointRecord { id: CheckpointId(4), at: Timestamp(9), job: String::new() };
        store.commit(record, [changes]).unwrap();
        store.link_to(&dir.path().join("linked")).unwrap();
        // What happens after the links were made is not part of the snapshot.
        let later = CheckpointRecord { id: CheckpointId(5), at: Timestamp(10), job: String::new() };
        store.commit(later, []).unwrap();

        let snapshots = SnapshotStore::new(Arc::new(InMemory::new()), ObjectPath::from("snap/j"));
        snapshots.upload(&job, CheckpointId(4), Timestamp(9), &dir.path().join("linked")).await.unwrap();
        let again = snapshots.upload(&job, CheckpointId(4), Timestamp(9), &dir.path().join("linked")).await;
        assert!(matches!(again, Err(Error::Snapshot { .. })));
        assert_eq!(snapshots.list().await.unwrap().len(), 1);

        let other = dir.path().join("other");
        snapshots.restore(CheckpointId(4), &other).await.unwrap();
        let restored = JobStore::open(&other, &StoreSettings::default()).unwrap();
        assert_eq!(restored.last_checkpoint().map(|c| c.id), Some(CheckpointId(4)));
        assert_eq!(restored.get(&key).unwrap().as_deref(), Some(b"v".as_slice()));

        snapshots.delete(CheckpointId(4)).await.unwrap();
        assert!(snapshots.list().await.unwrap().is_empty());
        assert!(snapshots.restore(CheckpointId(4), &dir.path().join("gone")).await.is_err());
    }
}
