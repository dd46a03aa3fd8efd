//! A stream: a named set of shards, the settings that they share, and the map that gives each record its shard.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use coulee_model::{Clock, ShardId, StreamName};
use tokio::sync::watch;

use crate::error::{LogError, Result};
use crate::files::storage::{self, Storage};
use crate::ids::Place;
use crate::settings::{CurrentSettings, LogSettings, StreamSettings};
use crate::shard::budget::AppendBudget;
use crate::shard::committer::Committers;
use crate::shard::context::{SealedShard, ShardContext, TransactionFates};
use crate::shard::progress::Progress;
use crate::shard::shard::Shard;
use crate::streams::shard_map::{MappedShard, ShardMap};
use crate::streams::stored;

/// A named set of shards.
pub struct Stream {
    name: StreamName,
    settings: Arc<CurrentSettings>,
    folder: PathBuf,
    map: ShardMap,
    /// By number, as in the map.
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

impl Stream {
    /// Its name.
    pub fn name(&self) -> &StreamName {
        &self.name
    }

    /// Its settings as they are now; [`Log::alter_stream`](crate::Log::alter_stream) changes them.
    pub fn settings(&self) -> Arc<StreamSettings> {
        self.settings.get()
    }

    /// How many shards it has, sealed ones too.
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

    /// All shards, sealed ones too, by number. Those that nobody used are not [opened](Shard::open) by this.
    pub fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    /// Which shard owns which keys, and which shards took over from which.
    pub fn shard_map(&self) -> &ShardMap {
        &self.map
    }

    /// The shard that takes a record, which is not sealed: by the MD5 hash of its key, as in Kinesis, or the next of a round robin without a key.
    pub fn route(&self, key: Option<&[u8]>) -> ShardId {
        match key {
            Some(key) => self.map.shard_of(key),
            None => {
                let mut open = self.map.open();
                let turn = self.round_robin.fetch_add(1, Ordering::Relaxed) as usize % open.len();
                open.nth(turn).expect("a map has open shards").id
            }
        }
    }

    /// Reads a stream's folder.
    ///
    /// # Errors
    /// Those of [`stored::load`].
    pub(crate) fn load(folder: &Path, name: StreamName, parts: &SharedParts) -> Result<Stream> {
        let (settings, map) = stored::load(folder)?;
        Ok(Stream::new(folder, name, settings, map, parts))
    }

    /// Makes a stream's folder, durably up to its name.
    ///
    /// # Errors
    /// [`LogError::DiskFull`], [`LogError::Io`].
    pub(crate) fn store(storage: &dyn Storage, folder: &Path, settings: &StreamSettings) -> Result<()> {
        for id in 0..settings.shards {
            storage::create_folder(storage, &shard_folder(folder, ShardId(id)))?;
        }
        // Syncs the folder too, and with it the names of the shards' folders.
        stored::store(storage, folder, settings, &ShardMap::even(settings.shards))
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
        stored::store(storage, &self.folder, &settings, &self.map)?;
        self.settings.set(settings);
        // What the former policy left to a later sync, or to nobody.
        self.shards.iter().for_each(|shard| shard.sync_soon());
        Ok(())
    }

    pub(crate) fn new(
        folder: &Path,
        name: StreamName,
        settings: StreamSettings,
        map: ShardMap,
        parts: &SharedParts,
    ) -> Stream {
        // Neighbouring shards go to different threads, and the first shards of different streams too.
        let spread: usize = name.as_str().bytes().map(usize::from).sum();
        let current = CurrentSettings::new(settings);
        let shard = |mapped: &MappedShard| {
            let sealed = mapped.sealed.map(|end| SealedShard { end, children: map.children(mapped.id).collect() });
            let context = ShardContext {
                place: Place { stream: name.clone(), shard: mapped.id },
                folder: shard_folder(folder, mapped.id),
                settings: parts.settings.clone(),
                stream: Arc::clone(&current),
                sealed: sealed.map(Arc::new),
                storage: Arc::clone(&parts.storage),
                budget: Arc::clone(&parts.budget),
                progress: watch::Sender::new(Progress::default()),
                transactions: Arc::clone(&parts.transactions),
                clock: Arc::clone(&parts.clock),
            };
            Arc::new(Shard::new(context, parts.committers.queue_of(spread + mapped.id.0 as usize)))
        };
        let shards = map.shards().iter().map(shard).collect();
        Stream { name, settings: current, folder: folder.to_owned(), map, shards, round_robin: AtomicU32::new(0) }
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
