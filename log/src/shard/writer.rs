//! The writer of a shard: it writes groups of batches to the last segment, syncs them if the stream's policy says so, and
//! begins the next segment when the last one is full. After a failure whose effect is unknown it writes nothing more.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::batch::header;
use crate::error::{LogError, Result, is_disk_full};
use crate::files::index::Index;
use crate::files::segment::Segment;
use crate::files::storage::{SegmentFile, WriteFailure};
use crate::files::{scan, storage};
use crate::settings::SyncPolicy;
use crate::shard::context::ShardContext;
use crate::shard::last_stable_offset::{CompletedTransaction, LastStableOffset};
use crate::shard::producers::Producers;
use crate::shard::queue::QueuedAppend;
use crate::shard::recovery;

/// The only one that changes a shard's files.
pub(crate) struct Writer {
    /// The last segment.
    active: Arc<Segment>,
    /// Its file, opened by the first append: an idle shard costs no descriptor.
    file: Option<Box<dyn SegmentFile>>,
    /// As of what is stored, and not of what waits.
    producers: Producers,
    /// Whether something was written that was not synced.
    unsynced: bool,
    /// Whether the last segment takes no more, since a sync of it failed and was made good: the next write begins another.
    retired: bool,
    /// Why nothing may be written any more.
    poisoned: Option<LogError>,
    /// Whether recovery had to check the last segment, and so will the next start unless the shutdown leaves an index.
    was_checked: bool,
}

/// What was written of a group.
pub(crate) struct Written {
    /// How many appends: at least one.
    pub(crate) count: usize,
    /// The transactions whose markers are among them.
    pub(crate) completed: Vec<CompletedTransaction>,
}

impl Writer {
    /// `was_checked` says whether recovery had to check the last segment.
    pub(crate) fn new(active: Arc<Segment>, producers: Producers, was_checked: bool) -> Self {
        Writer { active, file: None, producers, unsynced: false, retired: false, poisoned: None, was_checked }
    }

    /// The sequence number after the last stored record.
    pub(crate) fn end(&self) -> u64 {
        self.active.summary().end
    }

    pub(crate) fn active(&self) -> &Arc<Segment> {
        &self.active
    }

    pub(crate) fn producers(&self) -> &Producers {
        &self.producers
    }

    /// Why nothing may be written any more.
    pub(crate) fn failure(&self) -> Option<LogError> {
        self.poisoned.clone()
    }

    pub(crate) fn is_unsynced(&self) -> bool {
        self.unsynced
    }

    /// Writes the front of `group`, as much as goes into one segment, and adds it to the segment's index. When that begins a
    /// segment, the aborted transactions in `last_stable_offset` are saved with the producers.
    pub(crate) fn write(
        &mut self,
        context: &ShardContext,
        segments: &RwLock<Vec<Arc<Segment>>>,
        group: &VecDeque<QueuedAppend>,
        last_stable_offset: &Mutex<LastStableOffset>,
        scratch: &mut Vec<u8>,
    ) -> Result<Written, WriteFailure> {
        let first = group.iter().find(|waiting| !waiting.duplicate).map_or(0, |waiting| waiting.batch.len() as u64);
        let held = self.active.summary().bytes;
        self.check_sound()?;
        if self.retired || held > 0 && held + first > context.settings.segment_bytes {
            self.roll(context, segments, last_stable_offset)?;
        }
        let room = context.settings.segment_bytes.saturating_sub(self.active.summary().bytes);
        let count = gather(group, room, scratch);
        let batches = || group.iter().take(count).filter(|waiting| !waiting.duplicate);
        let mut completed = Vec::new();
        if !scratch.is_empty() {
            let end = batches().last().map_or(0, |queued| queued.header.end());
            self.store(context, scratch, end)?;
            self.active.grow(batches().map(|waiting| waiting.header), context.clock.now());
            completed.extend(batches().filter_map(|waiting| self.producers.note(&waiting.header, waiting.outcome())));
        }
        Ok(Written { count, completed })
    }

    /// Makes everything that was written durable.
    pub(crate) fn sync(&mut self, context: &ShardContext) -> Result<(), WriteFailure> {
        // SUBTLE: after a failed sync the next one may well succeed, without the pages that the first one lost.
        self.check_sound()?;
        self.sync_file(context).map_err(|error| self.poison(context, error))
    }

    fn sync_file(&mut self, context: &ShardContext) -> io::Result<()> {
        if let Some(file) = &mut self.file
            && self.unsynced
        {
            fail::fail_point!("log.append.sync", |_| Err(io::Error::other("failed by a failpoint")));
            file.sync()?;
            self.unsynced = false;
            context.progress.send_modify(|progress| progress.durable = progress.written);
        }
        Ok(())
    }

    /// Makes good a sync that failed for want of space: what it was to make durable, from `position` on, was not
    /// acknowledged and not shown to anybody, and is cut off.
    ///
    /// SUBTLE: a failed sync is never tried again on its descriptor, since the system has forgotten which pages it lost
    /// (PostgreSQL's "fsyncgate"). The shorter file is synced through a descriptor of its own, read back from the disk
    /// rather than from memory, and takes no more: the next write begins a segment. Reading it back also covers records
    /// before `position` that a former policy of the stream acknowledged without a sync.
    fn cut_back(&mut self, context: &ShardContext, position: u64) -> Result<()> {
        let path = self.active.path().to_owned();
        self.file = None;
        if position == 0 {
            context.storage.remove_file(&path).map_err(|e| LogError::io("remove", &path, e))?;
            storage::sync_folder(&*context.storage, &context.folder)?;
        } else {
            let cut = || {
                let mut file = context.storage.open(&path)?;
                file.truncate(position)?;
                file.sync()?;
                storage::drop_from_memory(&path)
            };
            cut().map_err(|e| LogError::io("cut back", &path, e))?;
            let found = scan::scan(&path, self.active.base, position, |_, _| {})?;
            if let Some(fault) = found.fault {
                return Err(LogError::corrupt(&path, found.bytes, fault));
            }
            self.retired = true;
        }
        self.unsynced = false;
        let end = self.end();
        context.progress.send_modify(|progress| (progress.written, progress.durable) = (end, end));
        tracing::warn!(path = %path.display(), position, "a sync found no space: cut back what it was to make durable");
        Ok(())
    }

    /// Closes the last segment and begins the next one, unless it is empty.
    pub(crate) fn roll(
        &mut self,
        context: &ShardContext,
        segments: &RwLock<Vec<Arc<Segment>>>,
        last_stable_offset: &Mutex<LastStableOffset>,
    ) -> Result<(), WriteFailure> {
        let summary = self.active.summary();
        if summary.bytes == 0 {
            return Ok(());
        }
        self.sync(context)?;
        let earliest = segments.read().first().map_or(0, |segment| segment.base);
        self.producers.forget(earliest);
        let mut last_stable_offset = last_stable_offset.lock();
        last_stable_offset.forget(earliest);
        if let Err(error) =
            self.producers.save(last_stable_offset.all_aborted(), &*context.storage, &context.folder, summary.end)
        {
            tracing::warn!(stream = %context.place.stream, shard = %context.place.shard, %error, "could not save the producers");
        }
        drop(last_stable_offset);
        let interval = context.settings.index_interval_bytes;
        let next = Arc::new(Segment::growing(&context.storage, &context.folder, Index::empty(summary.end, interval)));
        let file = self.create(context, &next)?;
        segments.write().push(Arc::clone(&next));
        let closed = std::mem::replace(&mut self.active, next);
        self.file = Some(file);
        self.retired = false;
        closed.save_index();
        recovery::remove_producers(context, closed.base);
        Ok(())
    }

    /// Leaves everything durable, and notes for the next start that it is.
    pub(crate) fn shut_down(
        &mut self,
        context: &ShardContext,
        last_stable_offset: &Mutex<LastStableOffset>,
    ) -> Result<(), WriteFailure> {
        self.sync(context)?;
        // Of a segment without a batch there may be no file, and so must be no index.
        let was_written = self.file.take().is_some();
        if was_written || self.was_checked && self.active.summary().bytes > 0 {
            recovery::shut_down(context, &self.active, &self.producers, last_stable_offset.lock().all_aborted());
        }
        Ok(())
    }

    /// Notes that nobody knows what the disk holds.
    pub(crate) fn poison(&mut self, context: &ShardContext, source: io::Error) -> WriteFailure {
        let path = self.active.path().to_owned();
        let error = LogError::Poisoned { place: context.place.clone(), path, source: Arc::new(source) };
        let error = self.poisoned.get_or_insert(error).clone();
        context.progress.send_modify(|progress| progress.failed = Some(error.clone()));
        WriteFailure::Undetermined(error)
    }

    fn check_sound(&self) -> Result<(), WriteFailure> {
        self.poisoned.clone().map_or(Ok(()), |error| Err(WriteFailure::Undetermined(error)))
    }

    /// Writes bytes that end with the record before `end`, and syncs them if the stream's policy demands that.
    fn store(&mut self, context: &ShardContext, bytes: &[u8], end: u64) -> Result<(), WriteFailure> {
        let active = Arc::clone(&self.active);
        let position = active.summary().bytes;
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.create(context, &active)?,
        };
        let written = file.write_all_at(bytes, position);
        // SUBTLE: cutting back is only sound before a sync was tried; what a failed sync leaves is unknown.
        let undone = written.as_ref().is_err_and(|e| is_disk_full(e) && file.truncate(position).is_ok());
        self.file = Some(file);
        match written {
            Ok(()) => {
                self.unsynced = true;
                context.progress.send_modify(|progress| progress.written = end);
            }
            Err(error) if undone => return Err(WriteFailure::NotWritten(LogError::io("write", active.path(), error))),
            Err(error) => return Err(self.poison(context, error)),
        }
        if context.stream.get().sync != SyncPolicy::Group {
            return Ok(());
        }
        match self.sync_file(context) {
            Ok(()) => Ok(()),
            Err(error) if is_disk_full(&error) => match self.cut_back(context, position) {
                Ok(()) => Err(WriteFailure::NotWritten(LogError::io("sync", active.path(), error))),
                Err(cause) => Err(self.poison(context, io::Error::other(cause))),
            },
            Err(error) => Err(self.poison(context, error)),
        }
    }

    /// Opens the file of the last segment, and makes its name durable.
    fn create(&mut self, context: &ShardContext, segment: &Segment) -> Result<Box<dyn SegmentFile>, WriteFailure> {
        let path = segment.path();
        let existed = path.exists();
        let opened = context.storage.open(path).map_err(|e| LogError::io("open", path, e));
        let created = opened.and_then(|file| storage::sync_folder(&*context.storage, &context.folder).map(|()| file));
        created.map_err(|error| {
            // SUBTLE: an empty file left behind would say that the segment before it ends here, while that one grows on.
            if !existed && path.exists() && context.storage.remove_file(path).is_err() {
                return self.poison(context, io::Error::other(error));
            }
            WriteFailure::NotWritten(error)
        })
    }
}

/// Puts the front of `group` into one buffer, stamped with its places: what fits into `room` bytes, and at least one
/// append.
fn gather(group: &VecDeque<QueuedAppend>, room: u64, scratch: &mut Vec<u8>) -> usize {
    scratch.clear();
    for (count, waiting) in group.iter().enumerate() {
        let start = scratch.len();
        if start > 0 && (start + waiting.batch.len()) as u64 > room {
            return count;
        }
        if !waiting.duplicate {
            scratch.extend_from_slice(&waiting.batch);
            header::stamp(&mut scratch[start..], waiting.header.base_sequence);
        }
    }
    group.len()
}
