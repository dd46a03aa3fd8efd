//! A stream: its settings and its shards.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use coulee_model::{Clock, ShardId, StreamName};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::error::{LogError, Result};
use crate::files::storage::{self, Storage};
use crate::ids::Place;
use crate::settings::{CurrentSettings, LogSettings, StreamSettings};
use crate::shard::budget::AppendBudget;
use crate::shard::committer::Committers;
use crate::shard::context::{ShardContext, TransactionFates};
use crate::shard::progress::Progress;
use crate::shard::shard::Shard;
use crate::streams::route;

/// The file that holds a stream's settings, within its folder.
const SETTINGS_FILE: &str = "stream.json";
const SETTINGS_VERSION: u32 = 1;

/// A named set of shards.
pub struct Stream {
    name: StreamName,
    settings: Arc<CurrentSettings>,
    folder: PathBuf,
    shards: Vec<Arc<Shard>>,
    /// Counts the records without a key.
    round_robin: AtomicU32,
}

/// What the shards of all streams share.
pub(crate) struct SharedParts {
    pub(crate) settings: LogSettings,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) budget: Arc<AppendBudget>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) committers: Committers,
    pub(crate) transactions: Arc<dyn TransactionFates>,
}

#[derive(Serialize, Deserialize)]
struct StoredStream {
    version: u32,
    settings: StreamSettings,
}

impl Stream {
    /// Its name.
    pub fn name(&self) -> &StreamName {
        &self.name
    }

    /// Its settings as they are now; [`Log::alter_stream`](crate::Log::alter_stream) changes them.
    pub fn settings(&self) -> Arc<StreamSettings> {
        self.settings.get()
    }

    /// How many shards it has.
    pub fn shard_count(&self) -> u32 {
        self.shards.len() as u32
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

    /// The shard of a record: by the MD5 hash of its key, as in Kinesis, or the next of a round robin without a key.
    pub fn route(&self, key: Option<&[u8]>) -> ShardId {
        ShardId(match key {
            Some(key) => route::shard_of(key, self.shard_count()),
            None => self.round_robin.fetch_add(1, Ordering::Relaxed) % self.shard_count(),
        })
    }

    /// Reads the settings in a stream's folder.
    pub(crate) fn load(folder: &Path, name: StreamName, parts: &SharedParts) -> Result<Stream> {
        let path = folder.join(SETTINGS_FILE);
        let text = std::fs::read(&path).map_err(|e| LogError::io("read", &path, e))?;
        let stored: StoredStream =
            serde_json::from_slice(&text).map_err(|e| LogError::corrupt(&path, 0, e.to_string()))?;
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
    pub(crate) fn store(storage: &dyn Storage, folder: &Path, settings: &StreamSettings) -> Result<()> {
        for id in 0..settings.shards {
            storage::create_folder(storage, &shard_folder(folder, ShardId(id)))?;
        }
        // Syncs the folder too, and with it the names of the shards' folders.
        Self::store_settings(storage, folder, settings)
    }

    /// Replaces the settings in a stream's folder.
    fn store_settings(storage: &dyn Storage, folder: &Path, settings: &StreamSettings) -> Result<()> {
        let path = folder.join(SETTINGS_FILE);
        let stored = StoredStream { version: SETTINGS_VERSION, settings: settings.clone() };
        let text = serde_json::to_vec_pretty(&stored).map_err(|e| LogError::io("write", &path, e.into()))?;
        storage::write_atomically(storage, &path, &text)
    }

    /// Takes other settings, durably. They take effect at once.
    ///
    /// # Errors
    /// [`LogError::InvalidSetting`] for a value out of its range, and for another number of shards; [`LogError::DiskFull`],
    /// [`LogError::Io`], after which the old settings are in force, and which ones the next start finds is undetermined.
    pub(crate) fn alter(&self, storage: &dyn Storage, settings: StreamSettings) -> Result<()> {
        settings.check()?;
        if settings.shards != self.settings.get().shards {
            return Err(LogError::InvalidSetting {
                setting: "shards",
                found: settings.shards.to_string(),
                expected: "the number that the stream was made with: settings cannot change it",
            });
        }
        Self::store_settings(storage, &self.folder, &settings)?;
        self.settings.set(settings);
        // What the former policy left to a later sync, or to nobody.
        self.shards.iter().for_each(|shard| shard.sync_soon());
        Ok(())
    }

    pub(crate) fn new(folder: &Path, name: StreamName, settings: StreamSettings, parts: &SharedParts) -> Stream {
        // Neighbouring shards go to different threads, and the first shards of different streams too.
        let spread: usize = name.as_str().bytes().map(usize::from).sum();
        let count = settings.shards;
        let current = CurrentSettings::new(settings);
        let shard = |id: u32| {
            let context = ShardContext {
                place: Place { stream: name.clone(), shard: ShardId(id) },
                folder: shard_folder(folder, ShardId(id)),
                settings: parts.settings.clone(),
                stream: Arc::clone(&current),
                storage: Arc::clone(&parts.storage),
                budget: Arc::clone(&parts.budget),
                progress: watch::Sender::new(Progress::default()),
                transactions: Arc::clone(&parts.transactions),
                clock: Arc::clone(&parts.clock),
            };
            Arc::new(Shard::new(context, parts.committers.queue_of(spread + id as usize)))
        };
        let shards = (0..count).map(shard).collect();
        Stream { name, settings: current, folder: folder.to_owned(), shards, round_robin: AtomicU32::new(0) }
    }
}

fn shard_folder(folder: &Path, id: ShardId) -> std::path::PathBuf {
    folder.join(format!("{:05}", id.0))
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("name", &self.name).field("settings", &self.settings()).finish()
    }
}
