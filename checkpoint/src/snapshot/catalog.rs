//! Which snapshots there are, and which are kept.

use coulee_model::CheckpointId;

use super::manifest::FORMAT;
use super::{Manifest, SAVEPOINTS, SNAPSHOTS, SnapshotKind, SnapshotName, SnapshotStore};
use crate::{Error, Result};

impl SnapshotStore {
    /// The manifests of all snapshots, periodic ones and savepoints, oldest first.
    ///
    /// # Errors
    /// [`Error::ObjectStore`]; [`Error::DamagedSnapshot`] or [`Error::NewerSnapshot`] for a manifest that cannot be read.
    pub async fn list(&self) -> Result<Vec<Manifest>> {
        let mut manifests = Vec::new();
        for folder in [SNAPSHOTS, SAVEPOINTS] {
            for meta in self.listing(folder).await? {
                // Deleted since it was listed.
                let Some(body) = self.read(&meta.location).await? else { continue };
                let file = meta.location.filename().unwrap_or_default();
                let name = SnapshotName::Savepoint(file.trim_end_matches(".json").to_owned());
                manifests.push(self.decode_manifest(&name, &body)?);
            }
        }
        manifests.sort_by_key(|manifest: &Manifest| (manifest.at, manifest.record.id));
        Ok(manifests)
    }

    /// The manifest of a snapshot.
    ///
    /// # Errors
    /// [`Error::NoSnapshot`]; [`Error::ObjectStore`]; [`Error::DamagedSnapshot`]; [`Error::NewerSnapshot`].
    pub async fn manifest(&self, name: &SnapshotName) -> Result<Manifest> {
        match self.read(&self.manifest_path(name)).await? {
            Some(body) => self.decode_manifest(name, &body),
            None => Err(Error::NoSnapshot { name: name.to_string(), prefix: self.prefix.to_string() }),
        }
    }

    pub(super) fn decode_manifest(&self, name: &SnapshotName, body: &[u8]) -> Result<Manifest> {
        let damaged = |e: serde_json::Error| Error::DamagedSnapshot {
            name: name.to_string(),
            file: "its manifest".into(),
            reason: e.to_string(),
        };
        // The format first: what a newer version wrote need not decode.
        #[derive(serde::Deserialize)]
        struct Head {
            format: u32,
        }
        let found = serde_json::from_slice::<Head>(body).map_err(damaged)?.format;
        if found > FORMAT {
            let object = format!("snapshot {name} under {}", self.prefix);
            return Err(Error::NewerSnapshot { object, found, supported: FORMAT });
        }
        serde_json::from_slice(body).map_err(damaged)
    }

    /// Removes a snapshot. What it alone referred to is left for [`collect_garbage`](Self::collect_garbage).
    ///
    /// # Errors
    /// [`Error::ObjectStore`]. That there is none is fine, so it is safe to repeat.
    pub async fn delete(&self, name: &SnapshotName) -> Result<()> {
        self.remove(&self.manifest_path(name)).await
    }

    /// Removes the oldest periodic snapshots until `keep` are left, at least 1. Savepoints are not touched. Says how many were removed.
    ///
    /// # Errors
    /// As [`list`](Self::list) and [`delete`](Self::delete); safe to repeat.
    pub async fn retain(&self, keep: usize) -> Result<usize> {
        let mut periodic = self.list().await?;
        periodic.retain(|manifest| manifest.kind == SnapshotKind::Periodic);
        let surplus = periodic.len().saturating_sub(keep.max(1));
        for old in &periodic[..surplus] {
            self.delete(&old.name()).await?;
        }
        Ok(surplus)
    }

    /// Removes the periodic snapshots of checkpoints after `checkpoint`: for who goes on from that one (0: from nothing), because what
    /// came after it is another history, and its checkpoints would bear the same numbers. Says how many were removed.
    ///
    /// # Errors
    /// As [`list`](Self::list) and [`delete`](Self::delete); safe to repeat.
    pub async fn discard_after(&self, checkpoint: CheckpointId) -> Result<usize> {
        let mut other = self.list().await?;
        other.retain(|manifest| manifest.kind == SnapshotKind::Periodic && manifest.record.id > checkpoint);
        for manifest in &other {
            self.delete(&manifest.name()).await?;
        }
        Ok(other.len())
    }
}
