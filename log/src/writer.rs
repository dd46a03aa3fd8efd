//! Writes groups of batches to the last segment of a shard, and begins the next one when it is full.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::error::{LogError, is_disk_full};
use crate::index::Index;
use crate::producers::Producers;
use crate::queue::Waiting;
use crate::segment::Segment;
use crate::settings::SyncPolicy;
use crate::shard::Home;
use crate::stability::{Closed, Stability};
use crate::storage::SegmentFile;
use crate::{Result, header, recovery, scan, storage};

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
    broken: Option<LogError>,
}

/// What was written of a group.
pub(crate) struct Written {
    /// How many appends: at least one.
    pub(crate) count: usize,
    /// The transactions that ended with them.
    pub(crate) closed: Vec<Closed>,
}

/// Why a group could not be written.
pub(crate) enum Failure {
    /// Nothing of it was written, and the next attempt may succeed.
    Passing(LogError),
    /// Nobody knows what the disk holds: no further write may follow.
    Lasting(LogError),
}

impl Writer {
    pub(crate) fn new(active: Arc<Segment>, producers: Producers) -> Self {
        Writer { active, file: None, producers, unsynced: false, retired: false, broken: None }
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

    pub(crate) fn is_unsynced(&self) -> bool {
        self.unsynced
    }

    /// Writes the front of `group`, as much as goes into one segment, and publishes it to readers. `aborted` are the
    /// shard's aborted transactions, which are saved when a segment is begun.
    pub(crate) fn write(
        &mut self,
        home: &Home,
        segments: &RwLock<Vec<Arc<Segment>>>,
        group: &VecDeque<Waiting>,
        stability: &Mutex<Stability>,
        scratch: &mut Vec<u8>,
    ) -> Result<Written, Failure> {
        let first = group.iter().find(|waiting| !waiting.duplicate).map_or(0, |waiting| waiting.batch.len() as u64);
        let held = self.active.summary().bytes;
        self.check_sound()?;
        if self.retired || held > 0 && held + first > home.settings.segment_bytes {
            self.roll(home, segments, stability)?;
        }
        let room = home.settings.segment_bytes.saturating_sub(self.active.summary().bytes);
        let count = gather(group, room, scratch);
        let batches = || group.iter().take(count).filter(|waiting| !waiting.duplicate);
        let mut closed = Vec::new();
        if !scratch.is_empty() {
            self.store(home, scratch)?;
            self.active.grow(batches().map(|waiting| waiting.header), home.clock.now());
            closed.extend(batches().filter_map(|waiting| self.producers.note(&waiting.header, waiting.outcome())));
        }
        Ok(Written { count, closed })
    }

    /// Makes everything that was written durable.
    pub(crate) fn sync(&mut self, home: &Home) -> Result<(), Failure> {
        // SUBTLE: after a failed sync the next one may well succeed, without the pages that the first one lost.
        self.check_sound()?;
        self.sync_file().map_err(|error| self.break_down(home, error))
    }

    fn sync_file(&mut self) -> io::Result<()> {
        if let Some(file) = &mut self.file
            && self.unsynced
        {
            fail::fail_point!("log.append.sync", |_| Err(io::Error::other("failed by a failpoint")));
            file.sync()?;
            self.unsynced = false;
        }
        Ok(())
    }

    /// Makes good a sync that failed for want of space: what it was to make durable, from `position` on, was not
    /// acknowledged and not shown to anybody, and is cut off.
    ///
    /// SUBTLE: a failed sync is never tried again on its descriptor, since the system has forgotten which pages it lost
    /// (PostgreSQL's "fsyncgate"). The shorter file is synced through a descriptor of its own, read back from the disk
    /// rather than from memory, and takes no more: the next write begins a segment.
    fn cut_back(&mut self, home: &Home, position: u64) -> Result<()> {
        let path = self.active.path().to_owned();
        self.file = None;
        if position == 0 {
            std::fs::remove_file(&path).map_err(|e| LogError::io("remove", &path, e))?;
            storage::sync_folder(&home.folder)?;
        } else {
            let cut = || {
                let mut file = home.storage.open(&path)?;
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
        tracing::warn!(path = %path.display(), position, "a sync found no space: cut back what it was to make durable");
        Ok(())
    }

    /// Closes the last segment and begins the next one, unless it is empty.
    pub(crate) fn roll(
        &mut self,
        home: &Home,
        segments: &RwLock<Vec<Arc<Segment>>>,
        stability: &Mutex<Stability>,
    ) -> Result<(), Failure> {
        let summary = self.active.summary();
        if summary.bytes == 0 {
            return Ok(());
        }
        self.sync(home)?;
        let earliest = segments.read().first().map_or(0, |segment| segment.base);
        self.producers.forget(earliest);
        let mut stability = stability.lock();
        stability.forget(earliest);
        if let Err(error) = self.producers.save(stability.all_aborted(), &home.folder, summary.end) {
            tracing::warn!(stream = %home.place.stream, shard = %home.place.shard, %error, "could not save the producers");
        }
        drop(stability);
        let next =
            Arc::new(Segment::growing(&home.folder, Index::empty(summary.end, home.settings.index_interval_bytes)));
        let file = self.create(home, &next)?;
        segments.write().push(Arc::clone(&next));
        let closed = std::mem::replace(&mut self.active, next);
        self.file = Some(file);
        self.retired = false;
        closed.save_index();
        recovery::remove_producers(home, closed.base);
        Ok(())
    }

    /// Leaves everything durable, and notes for the next start that it is.
    pub(crate) fn shut_down(&mut self, home: &Home, stability: &Mutex<Stability>) -> Result<(), Failure> {
        self.sync(home)?;
        if self.file.take().is_some() {
            recovery::shut_down(home, &self.active, &self.producers, stability.lock().all_aborted());
        }
        Ok(())
    }

    /// Notes that nobody knows what the disk holds.
    pub(crate) fn break_down(&mut self, home: &Home, source: io::Error) -> Failure {
        let path = self.active.path().to_owned();
        let error = LogError::Poisoned { place: home.place.clone(), path, source: Arc::new(source) };
        Failure::Lasting(self.broken.get_or_insert(error).clone())
    }

    fn check_sound(&self) -> Result<(), Failure> {
        self.broken.clone().map_or(Ok(()), |error| Err(Failure::Lasting(error)))
    }

    fn store(&mut self, home: &Home, bytes: &[u8]) -> Result<(), Failure> {
        let active = Arc::clone(&self.active);
        let position = active.summary().bytes;
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.create(home, &active)?,
        };
        let written = file.write_all_at(bytes, position);
        // SUBTLE: cutting back is only sound before a sync was tried; what a failed sync leaves is unknown.
        let undone = written.as_ref().is_err_and(|e| is_disk_full(e) && file.truncate(position).is_ok());
        self.file = Some(file);
        match written {
            Ok(()) => self.unsynced = true,
            Err(error) if undone => return Err(Failure::Passing(LogError::io("write", active.path(), error))),
            Err(error) => return Err(self.break_down(home, error)),
        }
        if home.sync != SyncPolicy::Group {
            return Ok(());
        }
        match self.sync_file() {
            Ok(()) => Ok(()),
            Err(error) if is_disk_full(&error) => match self.cut_back(home, position) {
                Ok(()) => Err(Failure::Passing(LogError::io("sync", active.path(), error))),
                Err(cause) => Err(self.break_down(home, io::Error::other(cause))),
            },
            Err(error) => Err(self.break_down(home, error)),
        }
    }

    /// Opens the file of the last segment, and makes its name durable.
    fn create(&mut self, home: &Home, segment: &Segment) -> Result<Box<dyn SegmentFile>, Failure> {
        let path = segment.path();
        let existed = path.exists();
        let opened = home.storage.open(path).map_err(|e| LogError::io("open", path, e));
        let created = opened.and_then(|file| storage::sync_folder(&home.folder).map(|()| file));
        created.map_err(|error| {
            // SUBTLE: an empty file left behind would say that the segment before it ends here, while that one grows on.
            if !existed && path.exists() && std::fs::remove_file(path).is_err() {
                return self.break_down(home, io::Error::other(error));
            }
            Failure::Passing(error)
        })
    }
}

/// Puts the front of `group` into one buffer, stamped with its places: what fits into `room` bytes, and at least one
/// append.
fn gather(group: &VecDeque<Waiting>, room: u64, scratch: &mut Vec<u8>) -> usize {
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
