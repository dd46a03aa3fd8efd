//! A stream: its settings and its shards.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use coulee_model::{Clock, ShardId, StreamName};
use serde::{Deserialize, Serialize};

use crate::committer::Committers;
use crate::coordinator::Coordinator;
use crate::error::{LogError, Place, Result};
use crate::route;
use crate::settings::{LogSettings, StreamSettings};
use crate::shard::{Home, Shard};
use crate::storage::{self, Storage};

/// The file that holds a stream's settings, within its folder.
const SETTINGS_FILE: &str = "stream.json";
const SETTINGS_VERSION: u32 = 1;

/// A named set of shards.
pub struct Stream {
    name: StreamName,
    settings: StreamSettings,
    shards: Vec<Arc<Shard>>,
    /// Where the next record without a key goes.
    turn: AtomicU32,
}

/// What the shards of all streams share.
pub(crate) struct Parts {
    pub(crate) settings: LogSettings,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) committers: Committers,
    pub(crate) transactions: Arc<Coordinator>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    settings: StreamSettings,
}

impl Stream {
    /// Its name.
    pub fn name(&self) -> &StreamName {
        &self.name
    }

    /// What it was made with.
    pub fn settings(&self) -> &StreamSettings {
        &self.settings
    }

    /// How many shards it has.
    pub fn shard_count(&self) -> u32 {
        self.settings.shards
    }

    /// A shard, [opened](Shard::open).
    ///
    /// # Errors
    /// [`LogError::NoShard`], and those of [`Shard::open`].
    pub fn shard(&self, id: ShardId) -> Result<Arc<Shard>> {
        let Some(shard) = self.shards.get(id.0 as usize) else {
            let place = Place { stream: self.name.clone(), shard: id };
            return Err(LogError::NoShard { place, shards: self.shard_count() });
        };
        shard.open()?;
        Ok(Arc::clone(shard))
    }

    /// All shards, in order. Those that nobody used are not [opened](Shard::open) by this.
    pub fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    /// The shard of a record: by the MD5 hash of its key, as in Kinesis, or the next in turn without a key.
    pub fn route(&self, key: Option<&[u8]>) -> ShardId {
        ShardId(match key {
            Some(key) => route::shard_of(key, self.shard_count()),
            None => self.turn.fetch_add(1, Ordering::Relaxed) % self.shard_count(),
        })
    }

    /// Reads the settings in a stream's folder.
    pub(crate) fn load(folder: &Path, name: StreamName, parts: &Parts) -> Result<Stream> {
        let path = folder.join(SETTINGS_FILE);
        let text = std::fs::read(&path).map_err(|e| LogError::io("read", &path, e))?;
        let stored: Stored = serde_json::from_slice(&text).map_err(|e| LogError::corrupt(&path, 0, e.to_string()))?;
        if stored.version > SETTINGS_VERSION {
            return Err(LogError::NewerFormat {
                folder: folder.to_owned(),
                found: stored.version,
                known: SETTINGS_VERSION,
            });
        }
        stored.settings.check().map_err(|e| LogError::corrupt(&path, 0, e.to_string()))?;
        Ok(Stream::new(folder, name, stored.settings, parts))
    }

    /// Makes a stream's folder, durably up to its name.
    pub(crate) fn store(folder: &Path, settings: &StreamSettings) -> Result<()> {
        for id in 0..settings.shards {
            let shard = shard_folder(folder, ShardId(id));
            std::fs::create_dir_all(&shard).map_err(|e| LogError::io("create", &shard, e))?;
        }
        let path = folder.join(SETTINGS_FILE);
        let stored = Stored { version: SETTINGS_VERSION, settings: settings.clone() };
        let text = serde_json::to_vec_pretty(&stored).map_err(|e| LogError::io("write", &path, e.into()))?;
        // Syncs the folder too, and with it the names of the shards' folders.
        storage::write_atomically(&path, &text)
    }

    pub(crate) fn new(folder: &Path, name: StreamName, settings: StreamSettings, parts: &Parts) -> Stream {
        // Neighbouring shards go to different threads, and the first shards of different streams too.
        let spread: usize = name.as_str().bytes().map(usize::from).sum();
        let shard = |id: u32| {
            let home = Home {
                place: Place { stream: name.clone(), shard: ShardId(id) },
                folder: shard_folder(folder, ShardId(id)),
                settings: parts.settings.clone(),
                sync: settings.sync,
                storage: Arc::clone(&parts.storage),
                transactions: Arc::clone(&parts.transactions),
                clock: Arc::clone(&parts.clock),
            };
            Arc::new(Shard::new(home, parts.committers.work_of(spread + id as usize)))
        };
        let shards = (0..settings.shards).map(shard).collect();
        Stream { name, settings, shards, turn: AtomicU32::new(0) }
    }
}

fn shard_folder(folder: &Path, id: ShardId) -> std::path::PathBuf {
    folder.join(format!("{:05}", id.0))
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("name", &self.name).field("settings", &self.settings).finish()
    }
}
