//! Who owns a job's snapshots: a process claims a generation, and uploads of older ones are refused.

use bytes::Bytes;
use coulee_model::Timestamp;
use object_store::path::Path as ObjectPath;
use serde::{Deserialize, Serialize};

use super::{GENERATIONS, SnapshotStore};
use crate::{Error, Result};

/// Older generations that are left to look at.
const KEPT: u64 = 16;

/// A claim on a job's snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Ascends from 1; the highest owns the snapshots.
    pub number: u64,
    /// Which process claimed it.
    pub incarnation: String,
    /// When, by its wall clock.
    pub at: Timestamp,
}

impl SnapshotStore {
    /// Makes the process `incarnation` (any text that no other process uses) the owner: from now on uploads of others are refused.
    /// Claiming again changes nothing for who is the owner already.
    ///
    /// # Errors
    /// [`Error::ObjectStore`]; safe to repeat.
    pub async fn claim(&self, incarnation: &str, at: Timestamp) -> Result<Generation> {
        loop {
            let newest = self.newest_generation().await?;
            if let Some(own) = newest.as_ref().filter(|newest| newest.incarnation == incarnation) {
                return Ok(own.clone());
            }
            let number = newest.map_or(1, |newest| newest.number + 1);
            let claim = Generation { number, incarnation: incarnation.to_owned(), at };
            let body = Bytes::from(serde_json::to_vec(&claim).map_err(|e| self.damaged_claim(number, &e))?);
            if self.put_once(&self.generation_path(number), body).await?.is_none() {
                if let Some(old) = number.checked_sub(KEPT).filter(|old| *old > 0) {
                    self.remove(&self.generation_path(old)).await?;
                }
                return Ok(claim);
            }
            // Somebody else was faster; the next number may be had.
        }
    }

    /// The highest generation; `None` before the first claim.
    ///
    /// # Errors
    /// [`Error::ObjectStore`]; [`Error::DamagedSnapshot`].
    pub async fn newest_generation(&self) -> Result<Option<Generation>> {
        loop {
            let listed = self.listing(GENERATIONS).await?;
            let numbers = listed.iter().filter_map(|meta| number_of(&meta.location));
            let Some(number) = numbers.max() else { return Ok(None) };
            // Gone again where much newer ones were claimed meanwhile.
            let Some(body) = self.read(&self.generation_path(number)).await? else { continue };
            return serde_json::from_slice(&body).map(Some).map_err(|e| self.damaged_claim(number, &e));
        }
    }

    /// Refuses an upload by a process that was replaced. Where nobody claimed, everybody may upload.
    pub(super) async fn check_owner(&self, incarnation: &str) -> Result<()> {
        match self.newest_generation().await? {
            Some(newest) if newest.incarnation != incarnation => Err(Error::Fenced {
                prefix: self.prefix.to_string(),
                incarnation: incarnation.to_owned(),
                newest: newest.number,
                owner: newest.incarnation,
            }),
            _ => Ok(()),
        }
    }

    fn generation_path(&self, number: u64) -> ObjectPath {
        self.folder(GENERATIONS).join(format!("{number:020}.json"))
    }

    fn damaged_claim(&self, number: u64, error: &serde_json::Error) -> Error {
        let file = self.generation_path(number).to_string();
        Error::DamagedSnapshot { name: self.prefix.to_string(), file, reason: error.to_string() }
    }
}

fn number_of(path: &ObjectPath) -> Option<u64> {
    path.filename()?.strip_suffix(".json")?.parse().ok()
}
