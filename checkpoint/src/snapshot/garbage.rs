//! Deleting objects that no snapshot refers to. Why this is safe is argued in the [module](super).

use std::collections::BTreeSet;
use std::time::Duration;

use coulee_model::{Stopwatch, Timestamp};
use object_store::ObjectStoreExt;
use object_store::path::Path as ObjectPath;

use super::pin::names;
use super::{CONDEMNED, OBJECTS, SnapshotStore};
use crate::Result;

/// What a collection found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GcReport {
    /// Objects in the store.
    pub objects: usize,
    /// Those that no manifest and no pin names.
    pub unused: usize,
    /// Those of them that were deleted.
    pub deleted: usize,
    /// Bytes of what was deleted.
    pub deleted_bytes: u64,
}

impl SnapshotStore {
    /// Deletes objects that no manifest and no pin names, that this process found so before, at least `grace` ago, and that were put at least
    /// `grace` ago. `now` is the wall clock. So nothing is deleted by the first call of a process.
    ///
    /// `grace` bounds how far clocks may differ and how long a single request may take, twice over: an hour is reasonable.
    ///
    /// # Errors
    /// As [`list`](Self::list): a manifest that cannot be read stops the collection, as what it refers to is not known. Safe to repeat.
    pub async fn collect_garbage(&self, grace: Duration, now: Timestamp) -> Result<GcReport> {
        let grace_ms = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
        let aged = |at: Timestamp| at.plus_millis(grace_ms) <= now;
        let mut candidates = self.take_over(&aged).await?;
        let objects = self.listing(OBJECTS).await?;
        let named = self.named_objects(now).await?;
        let mut report = GcReport { objects: objects.len(), ..GcReport::default() };
        let mut due = Vec::new();
        {
            let mut since = self.unused.lock();
            let before = std::mem::take(&mut *since);
            for meta in objects.iter().filter(|meta| !named.contains(&meta.location)) {
                report.unused += 1;
                let found = before.get(&meta.location).copied().unwrap_or(now);
                since.insert(meta.location.clone(), found);
                if aged(found) && aged(Timestamp(meta.last_modified.timestamp_millis())) {
                    due.push(meta);
                }
            }
        }
        if !due.is_empty() {
            // Named by its content, so that a put that is repeated is the same one.
            let body = names(due.iter().map(|meta| &meta.location));
            let path =
                self.folder(CONDEMNED).join(format!("{:016x}-{}.json", xxhash_rust::xxh3::xxh3_64(&body), now.0));
            self.objects.put(&path, body.into()).await?;
            candidates.push(path);
        }
        if candidates.is_empty() {
            return Ok(report);
        }
        let begun = Stopwatch::start();
        let named = self.named_objects(now).await?;
        for meta in due.into_iter().filter(|meta| !named.contains(&meta.location)) {
            if begun.elapsed() >= grace / 2 && !grace.is_zero() {
                tracing::warn!(prefix = %self.prefix, "a collection of unused snapshot files took too long and is left to the next");
                return Ok(report);
            }
            self.remove(&meta.location).await?;
            self.unused.lock().remove(&meta.location);
            report.deleted += 1;
            report.deleted_bytes += meta.size;
        }
        for path in candidates {
            self.remove(&path).await?;
        }
        Ok(report)
    }

    /// The lists of condemned objects that earlier collections left, and no longer work on. Their objects are found again like others, and
    /// the lists are removed when this collection is through.
    async fn take_over(&self, aged: &impl Fn(Timestamp) -> bool) -> Result<Vec<ObjectPath>> {
        let left = self.listing(CONDEMNED).await?.into_iter();
        let old = left.filter(|meta| aged(Timestamp(meta.last_modified.timestamp_millis())));
        Ok(old.map(|meta| meta.location).collect())
    }

    /// Every object that a pin or a manifest names.
    async fn named_objects(&self, now: Timestamp) -> Result<BTreeSet<ObjectPath>> {
        // SUBTLE: the pins first. An upload removes its pin after it put its manifest: read the other way round, both could be missed.
        let mut named = self.pinned(now).await?;
        for manifest in self.list().await? {
            named.extend(manifest.files.iter().map(|file| self.object_of(file)));
        }
        Ok(named)
    }
}
