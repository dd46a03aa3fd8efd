//! Layer 6: the log. It opens a folder of streams, starts the threads that write them, and begins and ends transactions.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use coulee_model::{Clock, StreamName, Timestamp};
use parking_lot::{Mutex, RwLock};

use crate::error::{LogError, Result};
use crate::files::retention::Removed;
use crate::files::storage::{Disk, Storage};
use crate::ids::{TransactionRef, TransactionalId};
use crate::settings::{LogSettings, StreamSettings};
use crate::shard::budget::AppendBudget;
use crate::shard::committer::Committers;
use crate::streams::folder::Folder;
use crate::streams::shard_map::ShardMap;
use crate::streams::stream::{SharedParts, Stream};
use crate::transactions::coordinator::TransactionCoordinator;
use crate::transactions::transaction::{Ended, Transaction};

/// An open log. Dropping it closes it.
pub struct Log {
    streams: RwLock<BTreeMap<StreamName, Arc<Stream>>>,
    /// Held while a stream is made or deleted.
    changes: Mutex<()>,
    parts: SharedParts,
    transactions: Arc<TransactionCoordinator>,
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
        let folder = Folder::open(&storage, folder)?;
        let committers = Committers::start(settings.committer_threads, folder.root())?;
        let (transactions, open) =
            TransactionCoordinator::open(&folder.transactions(), &storage, coulee_model::unique_u64() as u32)?;
        let fates = Arc::clone(&transactions) as Arc<_>;
        let budget = AppendBudget::new(usize::try_from(settings.queued_bytes_max).unwrap_or(usize::MAX));
        let parts = SharedParts { settings, storage, budget, clock, committers, transactions: fates };
        let mut streams = BTreeMap::new();
        for name in folder.streams()? {
            let stream = Stream::load(&folder.stream(&name), name.clone(), &parts)?;
            streams.insert(name, Arc::new(stream));
        }
        transactions.resume(open, |place| {
            let stream: &Arc<Stream> = streams.get(&place.stream)?;
            stream.shards().get(place.shard.0 as usize).cloned()
        })?;
        Ok(Log { streams: RwLock::new(streams), changes: Mutex::new(()), parts, transactions, folder })
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
        let map = ShardMap::even(settings.shards);
        self.folder.create_stream(name, |folder| Stream::store(&*self.parts.storage, folder, &settings))?;
        let stream = Arc::new(Stream::new(&self.folder.stream(name), name.clone(), settings, map, &self.parts));
        self.streams.write().insert(name.clone(), Arc::clone(&stream));
        tracing::info!(stream = %name, shards = stream.shard_count(), "stream created");
        Ok(stream)
    }

    /// Changes the settings of a stream, durably and at once: how appends are acknowledged, what retention keeps, how new
    /// batches are compressed, the properties. All but the number of shards.
    ///
    /// # Errors
    /// [`LogError::NotFound`]; [`LogError::InvalidSetting`] for a value out of its range, and for another number of shards;
    /// [`LogError::DiskFull`], [`LogError::Io`], after which the old settings are in force, and which ones the next start
    /// finds is undetermined.
    pub fn alter_stream(&self, name: &StreamName, settings: StreamSettings) -> Result<()> {
        let _changing = self.changes.lock();
        self.stream(name)?.alter(&*self.parts.storage, settings)?;
        tracing::info!(stream = %name, "stream settings changed");
        Ok(())
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

    /// Begins a transaction, whose name says whose it is. A transaction of the same name that is not prepared is aborted:
    /// the older owner is fenced. What follows is in the documentation of [`Transaction`].
    ///
    /// # Errors
    /// [`LogError::TransactionsPoisoned`], [`LogError::TransactionIdsExhausted`], [`LogError::LogClosed`].
    pub fn transaction(&self, id: &TransactionalId) -> Result<Transaction> {
        Transaction::begin(&self.transactions, id, self.parts.clock.now())
    }

    /// Commits a prepared transaction: durably decided, then visible in all its shards together. Committing one that was
    /// committed before, in this process or a former one, has no effect.
    ///
    /// # Errors
    /// In the answer: [`LogError::TransactionAborted`], [`LogError::TransactionNotPrepared`],
    /// [`LogError::UnknownTransaction`]; [`LogError::DiskFull`] and the errors of a shard, after which it may be committed
    /// again; [`LogError::TransactionsPoisoned`] and [`LogError::LogClosed`], after which it may be after the restart.
    pub fn commit_transaction(&self, transaction: &TransactionRef) -> Ended {
        Ended::of(|done| self.transactions.commit(transaction, done))
    }

    /// Aborts a transaction, prepared or not: no committed reader will see any of it. Aborting one that was aborted before
    /// has no effect.
    ///
    /// # Errors
    /// In the answer: [`LogError::TransactionCommitted`], and as [`commit_transaction`](Self::commit_transaction).
    pub fn abort_transaction(&self, transaction: &TransactionRef) -> Ended {
        Ended::of(|done| self.transactions.abort(transaction, done))
    }

    /// The transactions that are neither committed nor aborted, and whose name begins with `prefix`, oldest first.
    pub fn open_transactions(&self, prefix: &str) -> Vec<TransactionRef> {
        self.transactions.open_transactions(prefix)
    }

    /// Removes the segments that the settings of their streams do not keep, lets go of the memory and the files that
    /// readers left behind, and aborts transactions that were not prepared within the settings' timeout. To be called every now and then, in a thread that may block.
    ///
    /// # Errors
    /// The first that a shard meets, after trying all: [`LogError::Io`], [`LogError::DiskFull`], and those of
    /// [`Shard::open`](crate::Shard::open).
    pub fn enforce_retention(&self) -> Result<Removed> {
        let (mut removed, mut first_error) = (Removed::default(), None);
        let timeout = i64::try_from(self.parts.settings.transaction_timeout_ms).unwrap_or(i64::MAX);
        self.transactions.maintain(Timestamp(self.parts.clock.now().millis().saturating_sub(timeout)));
        for stream in self.streams() {
            for shard in stream.shards() {
                match shard.enforce_retention() {
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
        self.transactions.stop();
        let shards = || streams.iter().flat_map(|stream| stream.shards());
        shards().for_each(|shard| shard.close());
        self.parts.committers.stop();
        shards().for_each(|shard| shard.shut_down());
        self.transactions.finish();
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("folder", &self.folder).field("streams", &self.streams.read().keys()).finish()
    }
}
