//! Snapshots: copies of a job's checkpoints in an object store, complete, self-describing, and incremental.
//!
//! ```text
//! <prefix>/objects/<hh>/<xxh3-128>-<length>   the contents of files; hh: the first two hex digits
//! <prefix>/snapshots/<checkpoint>.json        manifests of periodic snapshots
//! <prefix>/savepoints/<name>.json             manifests of snapshots that the user keeps
//! <prefix>/generations/<n>.json               who owns the job's snapshots; the highest counts
//! <prefix>/pins/<…>.json                      what an upload or a restore under way refers to
//! <prefix>/condemned/<…>.json                 what a garbage collection is about to delete
//! ```
//!
//! A file is stored under the hash of its content, so that a file which two snapshots have in common (most of RocksDB's, which never
//! change) is stored and uploaded once. A manifest lists files, is put only if absent, and last: a snapshot exists when its manifest does.
//!
//! # Why garbage collection never deletes what a snapshot refers to
//!
//! Several processes may work under one prefix: an owner, an owner that was replaced and does not know it, somebody who restores.
//! Assumed of the store: a read, and a listing, shows every put and delete that was answered before it began (S3, GCS, Azure and file systems do).
//!
//! An *upload* (1) puts a pin that names every object its manifest will refer to, (2) reads what is condemned and gives up, to be tried
//! again, if that names one of them, (3) lists the objects and puts those that are absent, (4) puts the manifest, (5) removes the pin.
//! A *collection* (a) finds objects that no manifest and no pin names, that it found so before, at least `grace` ago, and that are older
//! than `grace`; (b) puts their names under `condemned/`, (c) reads the pins, and then the manifests, again, (d) deletes those which
//! still nobody names, (e) removes the names under `condemned/`.
//!
//! Take an object that an upload needs and a collection deletes. If the pin was put before (c), the collection sees it, or, if it is removed
//! already, sees the manifest, which was put before that; it deletes nothing. If the pin was put after (c), then also after (b), and (2)
//! sees the name unless (e) has happened; then (3) comes after (d), sees that the object is absent, and puts it. Either way it is
//! there when the manifest is. A *restore* reads the manifest, puts a pin, and looks whether the manifest is still there: if so, a
//! collection that does not see the pin in (c) saw the manifest.
//!
//! Processes stop at any point, so pins and condemned names cannot be for ever. A pin counts for [`PIN_LEASE`]; who holds one renews it
//! and gives up when it could not for half of that. A collection stops deleting half of `grace` after (c) began, and names that were condemned
//! `grace` ago or longer are taken over by the next collection. So what remains are a single request that is under way for longer than
//! half of `grace`, or clocks (of this machine and of the store) that differ by as much: choose `grace` in hours. The first condition of (a), to
//! have been found unused at least `grace` ago, spares the objects of uploads that failed and will be tried again.

mod blocking;
mod catalog;
pub mod conformance;
mod content;
mod garbage;
mod generation;
mod manifest;
mod pin;
mod restore;
mod upload;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use coulee_model::Timestamp;
use futures::TryStreamExt;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use parking_lot::Mutex;

use crate::{Error, Result};
use blocking::Threads;

pub use blocking::Blocking;
pub use garbage::GcReport;
pub use generation::Generation;
pub use manifest::{ContentHash, Manifest, ManifestFile, SnapshotKind, SnapshotName, SnapshotRequest};
/// The stores that a [`SnapshotStore`] writes to.
pub use object_store;
pub use pin::PIN_LEASE;
pub use upload::Uploaded;

const OBJECTS: &str = "objects";
const SNAPSHOTS: &str = "snapshots";
const SAVEPOINTS: &str = "savepoints";
const GENERATIONS: &str = "generations";
const PINS: &str = "pins";
const CONDEMNED: &str = "condemned";

/// Where snapshots of one job are kept. Clones share what they know of files and of garbage.
///
/// **Operations** `upload`, `list`, `restore`, `export`, `delete`, `retain`, `collect_garbage`, `claim`.
/// **Guarantees** A snapshot that `list` shows is complete, and stays so until it is deleted. Every operation may be repeated after an error.
/// **Non-guarantees** Operations of several processes are not ordered, except that an upload by a replaced owner is refused.
/// **Failure** An upload that failed may have put its manifest: the same upload again says so by succeeding.
#[derive(Debug, Clone)]
pub struct SnapshotStore {
    objects: Arc<dyn ObjectStore>,
    prefix: ObjectPath,
    /// The contents of files that do not change, from the last upload.
    known: Arc<Mutex<content::Known>>,
    /// Objects that nobody names, and since when.
    unused: Arc<Mutex<HashMap<ObjectPath, Timestamp>>>,
    /// Where work on files is done.
    files: Arc<dyn Blocking>,
}

impl SnapshotStore {
    /// Snapshots under `prefix` of `objects`. The prefix belongs to one job.
    pub fn new(objects: Arc<dyn ObjectStore>, prefix: ObjectPath) -> Self {
        SnapshotStore { objects, prefix, known: Arc::default(), unused: Arc::default(), files: Arc::new(Threads) }
    }

    /// The same, with the work on files done elsewhere than on threads of tokio.
    #[must_use]
    pub fn with_blocking(self, files: Arc<dyn Blocking>) -> Self {
        SnapshotStore { files, ..self }
    }

    fn folder(&self, name: &str) -> ObjectPath {
        self.prefix.clone().join(name)
    }

    fn object(&self, content: &ContentHash, bytes: u64) -> ObjectPath {
        let hex = content.to_string();
        self.folder(OBJECTS).join(&hex[..2]).join(format!("{hex}-{bytes}"))
    }

    fn object_of(&self, file: &ManifestFile) -> ObjectPath {
        self.object(&file.hash, file.bytes)
    }

    /// Everything in a folder, in any order.
    async fn listing(&self, folder: &str) -> Result<Vec<ObjectMeta>> {
        Ok(self.objects.list(Some(&self.folder(folder))).try_collect().await?)
    }

    /// The content of an object; `None` when there is none.
    async fn read(&self, path: &ObjectPath) -> Result<Option<Bytes>> {
        match self.objects.get(path).await {
            Ok(found) => Ok(Some(found.bytes().await?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts an object where there is none. `Ok(None)`: it holds `body` now, put by this call or by an earlier one whose answer was
    /// lost. `Ok(Some(other))`: it holds something else.
    async fn put_once(&self, path: &ObjectPath, body: Bytes) -> Result<Option<Bytes>> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let Err(error) = self.objects.put_opts(path, body.clone().into(), options).await else { return Ok(None) };
        // SUBTLE: an error does not say that nothing was written, and `AlreadyExists` may be the echo of this very put, repeated
        // below by the client. Only what is there now tells.
        match self.read(path).await {
            Ok(Some(found)) => Ok((found != body).then_some(found)),
            Ok(None) | Err(_) => Err(error.into()),
        }
    }

    /// Removes an object; that there is none is fine.
    async fn remove(&self, path: &ObjectPath) -> Result<()> {
        match self.objects.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn injected(point: &str) -> Error {
    Error::ObjectStore(object_store::Error::Generic { store: "failpoint", source: point.to_owned().into() })
}

#[cfg(test)]
mod tests;
