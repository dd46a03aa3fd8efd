//! The file that holds what a stream is: its settings and its shards. `docs/formats/log.md` has its fields.

use std::path::Path;

use coulee_model::{SequenceNumber, ShardId};
use serde::{Deserialize, Serialize};

use crate::error::{LogError, Result};
use crate::files::storage::{self, Storage};
use crate::settings::StreamSettings;
use crate::streams::shard_map::{HashKeyRange, MappedShard, ShardMap};

const FILE: &str = "stream.json";

/// Version 1 had no shards: they owned even ranges.
const VERSION: u32 = 2;

#[derive(Serialize, Deserialize)]
struct StoredStream {
    version: u32,
    settings: StreamSettings,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shards: Option<Vec<StoredShard>>,
}

/// A shard; its number is its place in the list. Hash keys have 32 hexadecimal digits, as JSON has no numbers so large.
#[derive(Serialize, Deserialize)]
struct StoredShard {
    first: String,
    last: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    parents: Vec<ShardId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed: Option<SequenceNumber>,
}

/// Reads the file in a stream's folder.
///
/// # Errors
/// [`LogError::NewerFormat`]; [`LogError::Corrupt`] when it does not say what a stream must be; [`LogError::Io`].
pub(crate) fn load(folder: &Path) -> Result<(StreamSettings, ShardMap)> {
    let path = folder.join(FILE);
    let corrupt = |reason: String| LogError::corrupt(&path, 0, reason);
    let text = std::fs::read(&path).map_err(|e| LogError::io("read", &path, e))?;
    let stored: StoredStream = serde_json::from_slice(&text).map_err(|e| corrupt(e.to_string()))?;
    if stored.version > VERSION {
        return Err(LogError::NewerFormat { folder: folder.to_owned(), found: stored.version, known: VERSION });
    }
    stored.settings.check().map_err(|e| corrupt(e.to_string()))?;
    let map = match stored.shards {
        None => ShardMap::even(stored.settings.shards),
        Some(shards) => {
            let shards = shards.into_iter().zip(0..).map(|(shard, id)| shard.mapped(ShardId(id)));
            let shards =
                shards.collect::<Option<_>>().ok_or_else(|| corrupt("a hash key is not hexadecimal".into()))?;
            ShardMap::stored(shards).map_err(corrupt)?
        }
    };
    Ok((stored.settings, map))
}

/// Replaces the file in a stream's folder.
///
/// # Errors
/// Those of [`storage::write_atomically`].
pub(crate) fn store(storage: &dyn Storage, folder: &Path, settings: &StreamSettings, map: &ShardMap) -> Result<()> {
    let path = folder.join(FILE);
    let shards = Some(map.shards().iter().map(StoredShard::of).collect());
    let stored = StoredStream { version: VERSION, settings: settings.clone(), shards };
    let text = serde_json::to_vec_pretty(&stored).map_err(|e| LogError::io("write", &path, e.into()))?;
    storage::write_atomically(storage, &path, &text)
}

impl StoredShard {
    fn of(shard: &MappedShard) -> Self {
        let MappedShard { range, parents, sealed, .. } = shard.clone();
        let hexadecimal = |hash_key: u128| format!("{hash_key:032x}");
        StoredShard { first: hexadecimal(range.first), last: hexadecimal(range.last), parents, sealed }
    }

    fn mapped(self, id: ShardId) -> Option<MappedShard> {
        let number = |text: &str| u128::from_str_radix(text, 16).ok();
        let range = HashKeyRange { first: number(&self.first)?, last: number(&self.last)? };
        Some(MappedShard { id, range, parents: self.parents, sealed: self.sealed })
    }
}
