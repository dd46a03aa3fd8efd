//! The log: a folder of streams, and the threads that write them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use coulee_model::{Clock, StreamName};
use parking_lot::{Mutex, RwLock};

use crate::committer::Committers;
use crate::error::{LogError, Result};
use crate::folder::Folder;
use crate::retention::Removed;
use crate::settings::{LogSettings, StreamSettings};
use crate::storage::{Disk, Storage};
use crate::stream::{Parts, Stream};

/// An open log. Dropping it closes it.
pub struct Log {
    streams: RwLock<BTreeMap<StreamName, Arc<Stream>>>,
    /// Held while a stream is made or deleted.
    changes: Mutex<()>,
    parts: Parts,
    folder: Folder,
}

impl Log {
    /// Opens the log in a folder, and makes it if it is absent. Shards are read by their first use.
    ///
    /// # Errors
    /// [`LogError::Locked`] while another process has it open, [`LogError::NewerFormat`], [`LogError::InvalidSetting`],
    /// [`LogError::Corrupt`] for a stream without sound settings, [`LogError::Io`].
    pub fn open(folder: &Path, settings: LogSettings, clock: Arc<dyn Clock>) -> Result<Log> {
        Self::open_on(Arc::new(Disk), folder, settings, clock)
    }

    pub(crate) fn open_on(
        storage: Arc<dyn Storage>,
        folder: &Path,
        settings: LogSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Log> {
        settings.check()?;
        let folder = Folder::open(folder)?;
        let committers = Committers::start(settings.committer_threads, folder.root())?;
        let parts = Parts { settings, storage, clock, committers };
        let mut streams = BTreeMap::new();
        for name in folder.streams()? {
            let stream = Stream::load(&folder.stream(&name), name.clone(), &parts)?;
            streams.insert(name, Arc::new(stream));
        }
        Ok(Log { streams: RwLock::new(streams), changes: Mutex::new(()), parts, folder })
    }

    /// Makes a stream, durably.
    ///
    /// # Errors
    /// [`LogError::AlreadyExists`], [`LogError::InvalidSetting`], [`LogError::DiskFull`], [`LogError::Io`].
    pub fn create_stream(&self, name: &StreamName, settings: StreamSettings) -> Result<Arc<Stream>> {
        settings.check()?;
        let _changing = self.changes.lock();
        if self.streams.read().contains_key(name) {
            return Err(LogError::AlreadyExists { stream: name.clone() });
        }
        self.folder.create_stream(name, |folder| Stream::store(folder, &settings))?;
        let stream = Arc::new(Stream::new(&self.folder.stream(name), name.clone(), settings, &self.parts));
        self.streams.write().insert(name.clone(), Arc::clone(&stream));
        tracing::info!(stream = %name, shards = stream.shard_count(), "stream created");
        Ok(stream)
    }

    /// A stream by name.
    ///
    /// # Errors
    /// [`LogError::NotFound`], which lists the names there are.
    pub fn stream(&self, name: &StreamName) -> Result<Arc<Stream>> {
        let streams = self.streams.read();
        let missing = || LogError::NotFound { stream: name.clone(), existing: streams.keys().cloned().collect() };
        streams.get(name).cloned().ok_or_else(missing)
    }

    /// All streams, by name.
    pub fn streams(&self) -> Vec<Arc<Stream>> {
        self.streams.read().values().cloned().collect()
    }

    /// Deletes a stream and its records, durably. Those who use it get [`LogError::Deleted`] from then on, and those
    /// who wait at its end are woken.
    ///
    /// # Errors
    /// [`LogError::NotFound`]; [`LogError::Io`], after which the stream may be back at the next start.
    pub fn delete_stream(&self, name: &StreamName) -> Result<()> {
        let _changing = self.changes.lock();
        let stream = self.stream(name)?;
        self.streams.write().remove(name);
        stream.shards().iter().for_each(|shard| shard.delete());
        self.folder.delete_stream(name)?;
        tracing::info!(stream = %name, "stream deleted");
        Ok(())
    }

    /// Removes the segments that the settings of their streams do not keep, and lets go of the memory and the files that
    /// readers left behind. To be called every now and then, in a thread that may block.
    ///
    /// # Errors
    /// The first that a shard meets, after trying all: [`LogError::Io`], [`LogError::DiskFull`], and those of
    /// [`Shard::open`](crate::Shard::open).
    pub fn enforce_retention(&self) -> Result<Removed> {
        let (mut removed, mut first_error) = (Removed::default(), None);
        for stream in self.streams() {
            for shard in stream.shards() {
                match shard.enforce_retention(stream.settings()) {
                    Ok(more) => removed += more,
                    // Deleted while we were at it.
                    Err(LogError::Deleted { .. }) => {}
                    Err(error) => {
                        first_error.get_or_insert(error);
                    }
                }
                shard.release_idle();
            }
        }
        first_error.map_or(Ok(removed), Err)
    }

    /// Writes what is queued, syncs it, and lets go of the folder. Streams and shards that somebody still holds answer
    /// [`LogError::Closed`] afterwards.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let streams = self.streams();
        let shards = || streams.iter().flat_map(|stream| stream.shards());
        shards().for_each(|shard| shard.close());
        self.parts.committers.stop();
        shards().for_each(|shard| shard.shut_down());
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("folder", &self.folder).field("streams", &self.streams.read().keys()).finish()
    }
}
