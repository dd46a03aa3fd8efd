//! Taking a snapshot, and copying one to another store. The order of the steps is argued in the [module](super).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStoreExt, WriteMultipart};

use super::content::Prefix;
use super::pin::Pin;
use super::restore::missing;
use super::{
    CONDEMNED, ContentHash, Manifest, ManifestFile, OBJECTS, SnapshotKind, SnapshotName, SnapshotRequest,
    SnapshotStore, injected,
};
use crate::{Error, Result};

/// Files of at most this many bytes are put in one request, larger ones in parts of as many.
const PART_BYTES: usize = 8 << 20;
/// Files uploaded at once.
const FILES_AT_ONCE: usize = 4;

/// A snapshot that was taken.
#[derive(Debug, Clone)]
pub struct Uploaded {
    /// What it holds.
    pub manifest: Manifest,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Bytes that had to be uploaded, as they were not in the store yet.
    pub uploaded_bytes: u64,
}

/// Where the files of a snapshot are taken from.
pub(super) enum FileOrigin<'a> {
    Folder(&'a Path),
    Store(&'a SnapshotStore),
}

impl SnapshotStore {
    /// Uploads every file below `dir`, a folder of links that was made at the checkpoint, as a snapshot. Files may have grown since they
    /// were linked, and may still grow: what counts is their length when this begins. What the store has already is not uploaded again.
    ///
    /// Repeating an upload that succeeded (also where only its answer was lost) succeeds again.
    ///
    /// # Errors
    /// [`Error::Fenced`] when another process claimed the snapshots; [`Error::SnapshotExists`] when a snapshot of this name has other
    /// content; [`Error::File`]; [`Error::ObjectStore`], after which the same call may be repeated.
    pub async fn upload(&self, request: &SnapshotRequest, dir: &Path) -> Result<Uploaded> {
        if let SnapshotKind::Savepoint { name, .. } = &request.kind {
            SnapshotName::savepoint(name)?;
        }
        self.check_owner(&request.incarnation).await?;
        let manifest = Manifest::new(request, self.contents(dir).await?);
        let holder = format!("upload-{}-{}", request.incarnation, manifest.name());
        self.publish(manifest, FileOrigin::Folder(dir), &holder, true).await
    }

    /// Copies a snapshot, complete, into another store; it is no part of this one any more. Repeating it is fine.
    ///
    /// # Errors
    /// [`Error::NoSnapshot`]; [`Error::SnapshotExists`] when the other store has another one of this name; [`Error::DamagedSnapshot`];
    /// [`Error::ObjectStore`].
    pub async fn export(&self, name: &SnapshotName, to: &SnapshotStore) -> Result<Uploaded> {
        let (manifest, pin) = self.pin_snapshot(name).await?;
        let holder = format!("export-{}-{name}", manifest.incarnation);
        let exported = to.publish(manifest, FileOrigin::Store(self), &holder, false).await;
        self.unpin(pin).await;
        exported
    }

    /// Puts what is missing, and then the manifest. `owned`: only while the manifest's process owns the snapshots.
    pub(super) async fn publish(
        &self,
        manifest: Manifest,
        from: FileOrigin<'_>,
        holder: &str,
        owned: bool,
    ) -> Result<Uploaded> {
        let wanted: BTreeMap<ObjectPath, &ManifestFile> =
            manifest.files.iter().map(|file| (self.object_of(file), file)).collect();
        let mut pin = self.pin(holder, &wanted.keys().cloned().collect()).await?;
        let uploaded_bytes = match self.put_objects(&wanted, &from, &mut pin).await {
            Ok(bytes) => bytes,
            Err(error) => {
                self.unpin(pin).await;
                return Err(error);
            }
        };
        // SUBTLE: from here on the pin stays when something fails. A put that was answered by an error may still take effect.
        fail::fail_point!("snapshot.manifest.before", |_| Err(injected("snapshot.manifest.before")));
        if owned {
            self.check_owner(&manifest.incarnation).await?;
        }
        self.put_manifest(&manifest).await?;
        fail::fail_point!("snapshot.manifest.after", |_| Err(injected("snapshot.manifest.after")));
        self.unpin(pin).await;
        Ok(Uploaded { bytes: manifest.bytes(), manifest, uploaded_bytes })
    }

    /// Puts the objects that are absent. Says how many bytes those had.
    async fn put_objects(
        &self,
        wanted: &BTreeMap<ObjectPath, &ManifestFile>,
        from: &FileOrigin<'_>,
        pin: &mut Pin,
    ) -> Result<u64> {
        self.refuse_condemned(wanted).await?;
        let present: BTreeSet<ObjectPath> =
            self.listing(OBJECTS).await?.into_iter().map(|meta| meta.location).collect();
        // By their names, so that a run can be repeated: RocksDB's files have other contents, and hashes, each time.
        let mut missing: Vec<_> = wanted.iter().filter(|(object, _)| !present.contains(object)).collect();
        missing.sort_by(|(_, a), (_, b)| a.path.cmp(&b.path));
        // Collected, as a closure over borrows within the future would keep it from being `Send`.
        let puts: Vec<_> = missing.into_iter().map(|(object, file)| self.put_file(object, file, from)).collect();
        let mut puts = futures::stream::iter(puts).buffer_unordered(FILES_AT_ONCE);
        let mut uploaded = 0;
        while let Some(bytes) = puts.try_next().await? {
            uploaded += bytes;
            self.renew(pin).await?;
        }
        drop(puts);
        self.unused.lock().retain(|object, _| !wanted.contains_key(object));
        Ok(uploaded)
    }

    /// Gives up where a collection is about to delete what would be referred to.
    async fn refuse_condemned(&self, wanted: &BTreeMap<ObjectPath, &ManifestFile>) -> Result<()> {
        for meta in self.listing(CONDEMNED).await? {
            let Some(body) = self.read(&meta.location).await? else { continue };
            if let Some(object) =
                self.named(&meta.location, &body)?.into_iter().find(|object| wanted.contains_key(object))
            {
                return Err(Error::BeingCollected { object: object.to_string() });
            }
        }
        Ok(())
    }

    async fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        let name = manifest.name();
        let path = self.manifest_path(&name);
        let body = serde_json::to_vec_pretty(manifest).map_err(|e| Error::DamagedSnapshot {
            name: name.to_string(),
            file: path.to_string(),
            reason: e.to_string(),
        })?;
        let Some(other) = self.put_once(&path, Bytes::from(body)).await? else { return Ok(()) };
        let found = self.decode_manifest(&name, &other)?;
        // Taken again by the same process: the same checkpoint, at a later hour.
        if (&found.incarnation, &found.record, &found.files)
            == (&manifest.incarnation, &manifest.record, &manifest.files)
        {
            return Ok(());
        }
        let detail = format!(", of checkpoint {} by {}", found.record.id, found.incarnation);
        Err(Error::SnapshotExists { name: name.to_string(), detail })
    }

    /// Puts one object, and says how many bytes it has.
    async fn put_file(&self, object: &ObjectPath, file: &ManifestFile, from: &FileOrigin<'_>) -> Result<u64> {
        fail::fail_point!("snapshot.object.before", |_| Err(injected("snapshot.object.before")));
        match from {
            FileOrigin::Folder(dir) => self.put_local(object, file, &dir.join(&file.path)).await?,
            FileOrigin::Store(other) => {
                let mut source = other.content(file).await.map_err(|error| missing(&other.prefix, file, error))?;
                let mut target = Target::new(self, object, file.bytes).await?;
                while let Some(part) = source.try_next().await? {
                    target.write(part).await?;
                }
                target.finish(file, || other.altered(file)).await?;
            }
        }
        Ok(file.bytes)
    }

    async fn put_local(&self, object: &ObjectPath, file: &ManifestFile, path: &Path) -> Result<()> {
        let mut source = Prefix::open(&self.files, path, file.bytes).await?;
        let mut target = Target::new(self, object, file.bytes).await?;
        while let Some(part) = source.next().await? {
            target.write(part).await?;
        }
        let altered = || {
            let source = std::io::Error::other("it was altered while it was uploaded; only growing is expected");
            Error::File { path: path.to_owned(), source }
        };
        target.finish(file, altered).await
    }
}

/// An object that is being written: in one request where it is small, else in parts.
struct Target<'a> {
    store: &'a SnapshotStore,
    object: &'a ObjectPath,
    hasher: Box<xxhash_rust::xxh3::Xxh3>,
    whole: Vec<u8>,
    parts: Option<WriteMultipart>,
}

impl<'a> Target<'a> {
    async fn new(store: &'a SnapshotStore, object: &'a ObjectPath, bytes: u64) -> Result<Self> {
        let parts = if bytes > PART_BYTES as u64 {
            Some(WriteMultipart::new_with_chunk_size(store.objects.put_multipart(object).await?, PART_BYTES))
        } else {
            None
        };
        Ok(Target { store, object, hasher: Box::default(), whole: Vec::new(), parts })
    }

    async fn write(&mut self, part: Bytes) -> Result<()> {
        self.hasher.update(&part);
        match &mut self.parts {
            None => self.whole.extend_from_slice(&part),
            Some(parts) => {
                parts.wait_for_capacity(FILES_AT_ONCE).await?;
                parts.put(part);
            }
        }
        Ok(())
    }

    /// Makes the object visible if what was written is what it is named for.
    async fn finish(self, file: &ManifestFile, altered: impl Fn() -> Error) -> Result<()> {
        let right = ContentHash(self.hasher.digest128()) == file.hash;
        match self.parts {
            Some(parts) if right => parts.finish().await.map(drop)?,
            None if right => self.store.objects.put(self.object, self.whole.into()).await.map(drop)?,
            Some(parts) => {
                parts.abort().await?;
                return Err(altered());
            }
            None => return Err(altered()),
        }
        Ok(())
    }
}
