//! Pins: what an upload or a restore under way refers to, so that garbage collection leaves it alone. See the [module](super).

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use coulee_model::Timestamp;
use object_store::ObjectStoreExt;
use object_store::path::Path as ObjectPath;
use tokio::time::Instant;

use super::{PINS, SnapshotStore};
use crate::{Error, Result};

/// How long a pin counts after it was put.
pub const PIN_LEASE: Duration = Duration::from_secs(24 * 3600);
/// How old a pin is when it is put again.
const RENEWED_AFTER: Duration = Duration::from_secs(3600);

/// A pin that this process holds.
pub(super) struct Pin {
    path: ObjectPath,
    body: Bytes,
    put: Instant,
}

impl SnapshotStore {
    /// Pins objects under a name that no other process uses.
    pub(super) async fn pin(&self, name: &str, objects: &BTreeSet<ObjectPath>) -> Result<Pin> {
        let path = self.folder(PINS).join(format!("{name}.json"));
        let mut pin = Pin { path, body: names(objects), put: Instant::now() };
        self.put_pin(&mut pin).await?;
        Ok(pin)
    }

    async fn put_pin(&self, pin: &mut Pin) -> Result<()> {
        let begun = Instant::now();
        self.objects.put(&pin.path, pin.body.clone().into()).await?;
        pin.put = begun;
        Ok(())
    }

    /// To be called between the steps of what the pin is for.
    ///
    /// # Errors
    /// When the pin could not be renewed for half its lease: what it is for has to be given up.
    pub(super) async fn renew(&self, pin: &mut Pin) -> Result<()> {
        let age = pin.put.elapsed();
        if age < RENEWED_AFTER {
            return Ok(());
        }
        match self.put_pin(pin).await {
            Err(_) if age < PIN_LEASE / 2 => Ok(()),
            renewed => renewed,
        }
    }

    /// Lets go. When that fails the pin is forgotten in time.
    pub(super) async fn unpin(&self, pin: Pin) {
        if let Err(error) = self.remove(&pin.path).await {
            tracing::warn!(pin = %pin.path, %error, "a pin stays until its lease ends");
        }
    }

    /// The objects that are pinned at `now`. Removes pins whose lease has ended.
    pub(super) async fn pinned(&self, now: Timestamp) -> Result<BTreeSet<ObjectPath>> {
        let lease = i64::try_from(PIN_LEASE.as_millis()).unwrap_or(i64::MAX);
        let mut pinned = BTreeSet::new();
        for meta in self.listing(PINS).await? {
            if Timestamp(meta.last_modified.timestamp_millis()).plus_millis(lease) < now {
                self.remove(&meta.location).await?;
            } else if let Some(body) = self.read(&meta.location).await? {
                pinned.extend(self.named(&meta.location, &body)?);
            }
        }
        Ok(pinned)
    }

    /// Reads what [`names`] wrote.
    pub(super) fn named(&self, path: &ObjectPath, body: &[u8]) -> Result<Vec<ObjectPath>> {
        let names: Vec<String> = serde_json::from_slice(body).map_err(|e| Error::DamagedSnapshot {
            name: self.prefix.to_string(),
            file: path.to_string(),
            reason: e.to_string(),
        })?;
        Ok(names.into_iter().map(ObjectPath::from).collect())
    }
}

/// A JSON array of the paths of objects.
pub(super) fn names<'a>(objects: impl IntoIterator<Item = &'a ObjectPath>) -> Bytes {
    let names: Vec<&str> = objects.into_iter().map(ObjectPath::as_ref).collect();
    serde_json::json!(names).to_string().into()
}
