//! One segment of a shard: a file of batches, a summary of what it holds, and its index once a reader needs it.
//!
//! The last segment of a shard grows. A reader sees the batches that [`Segment::grow`] has added to the index, never those
//! that are being written.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use coulee_model::{SequenceNumber, Timestamp};
use parking_lot::{Mutex, RwLock};
use rustix::buffer::spare_capacity;

use crate::batch::encoded::EncodedBatch;
use crate::batch::header::{self, HEADER_BYTES, Header};
use crate::error::{LogError, Result};
use crate::files::index::{self, Index, Start, Summary};
use crate::files::scan;
use crate::files::storage::Storage;

const EXTENSION: &str = "log";

/// Whole batches in a segment file, to be sent without a copy through the process (`sendfile`).
///
/// The bytes do not change, and stay readable while this is held, also after retention has removed the file's name. They
/// were not compared with their checksums: whoever receives a batch does that.
#[derive(Debug, Clone)]
pub struct FileRange {
    /// The segment file, open for reading at any position.
    pub file: Arc<File>,
    /// Where the first batch begins in the file, in bytes.
    pub position: u64,
    /// The length of the batches, in bytes.
    pub bytes: u64,
    /// The sequence number of the first record of the first batch.
    pub first: SequenceNumber,
}

/// A file of batches.
#[derive(Debug)]
pub(crate) struct Segment {
    /// The sequence number of its first record.
    pub(crate) base: u64,
    path: PathBuf,
    storage: Arc<dyn Storage>,
    /// Of the index, should it have to be rebuilt.
    interval: u32,
    /// Opened by the first reader.
    file: Mutex<Option<Arc<File>>>,
    state: RwLock<State>,
    /// Whether anybody read it since [`Segment::release_if_idle`] was last called.
    touched: AtomicBool,
}

#[derive(Debug)]
struct State {
    summary: Summary,
    /// Always there while the segment grows; afterwards read from its file by the first reader.
    index: Option<Index>,
}

impl Segment {
    /// The last segment of a shard, with what recovery found in it.
    pub(crate) fn growing(storage: &Arc<dyn Storage>, folder: &Path, index: Index) -> Segment {
        let (base, interval) = (index.summary.base, index.interval());
        let state = RwLock::new(State { summary: index.summary, index: Some(index) });
        Segment {
            base,
            path: path_of(folder, base),
            storage: Arc::clone(storage),
            interval,
            file: Mutex::new(None),
            state,
            touched: AtomicBool::new(true),
        }
    }

    /// A closed segment. It was synced before it was closed, so any fault in it is damage, which readers of it are told.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] when it is sound but does not end where the next one begins: a file is missing.
    pub(crate) fn closed(
        storage: &Arc<dyn Storage>,
        folder: &Path,
        base: u64,
        next_base: u64,
        interval: u32,
    ) -> Result<Segment> {
        let path = path_of(folder, base);
        let length = fs::metadata(&path).map_err(|e| LogError::io("look at", &path, e))?.len();
        let fits = |s: &Summary| s.base == base && s.bytes == length && s.end == next_base;
        let state = match Index::load_summary(&path).filter(fits) {
            Some(summary) => State { summary, index: None },
            None => match rebuild(&**storage, &path, base, next_base, length, interval)? {
                Ok(index) => State { summary: index.summary, index: Some(index) },
                Err(damage) => {
                    tracing::error!(error = %damage, "a closed segment is damaged; the others can be used");
                    State { summary: unreadable(&path, base, next_base, length)?, index: None }
                }
            },
        };
        Ok(Segment {
            base,
            path,
            storage: Arc::clone(storage),
            interval,
            file: Mutex::new(None),
            state: RwLock::new(state),
            touched: AtomicBool::new(true),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn summary(&self) -> Summary {
        self.state.read().summary
    }

    /// Publishes batches that follow the last ones.
    pub(crate) fn grow(&self, batches: impl Iterator<Item = Header>, appended: Timestamp) {
        let mut state = self.state.write();
        let state = &mut *state;
        let index = state.index.as_mut().expect("a growing segment has its index");
        for batch in batches {
            index.note(&batch, appended.millis());
        }
        state.summary = index.summary;
    }

    /// Writes the index file. Failing to is no loss: it can be rebuilt.
    pub(crate) fn save_index(&self) {
        if let Some(index) = &self.state.read().index
            && let Err(error) = index.save(&*self.storage, &self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "could not save an index; it will be rebuilt");
        }
    }

    /// Lets go of what a closed segment holds in memory for readers, if none came since the last call.
    pub(crate) fn release_if_idle(&self) {
        if !self.touched.swap(false, Ordering::Relaxed) {
            *self.file.lock() = None;
            self.state.write().index = None;
        }
    }

    /// Whole batches, from the one that holds `sequence` on and before `limit`: as many as `bytes_max` allows, and at least
    /// one. Also the sequence number after the last of them. `limit` is where a batch begins, after `sequence`.
    ///
    /// `sequence` must be in the segment.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] when there is no batch where one should be; [`LogError::Io`].
    pub(crate) fn read(&self, sequence: u64, limit: u64, bytes_max: usize) -> Result<(Bytes, u64)> {
        let ((Start { position: start, mut base }, stop), held) =
            self.with_index(|index| (index.around(sequence), index.summary.bytes))?;
        let length = (stop - start) + (bytes_max as u64).max(HEADER_BYTES as u64);
        let mut bytes = Bytes::from(self.read_at(start, length.min(held - start))?);
        let mut position = start;
        let first = loop {
            let header = self.header(&bytes, Start { position, base })?;
            base = header.end();
            if header.end() > sequence {
                break header;
            }
            // The batch is known to be followed by another within the bytes read, unless the index lied.
            if header.bytes >= bytes.len() {
                return Err(LogError::corrupt(&self.path, position, "the batch that was expected here is missing"));
            }
            position += header.bytes as u64;
            let _ = bytes.split_to(header.bytes);
        };
        if first.bytes > bytes.len() {
            // KIP-74: the first batch is returned even when it is larger than what was asked for.
            return Ok((self.read_at(position, first.bytes as u64)?.into(), first.end()));
        }
        let (mut kept, mut next) = (first.bytes, first.end());
        while let Ok(header) = Header::parse(&bytes[kept..])
            && header.base_sequence < limit
            // Another number is damage, which the read from here on will tell.
            && header.base_sequence == next
            && kept + header.bytes <= bytes.len().min(bytes_max)
        {
            kept += header.bytes;
            next = header.end();
        }
        bytes.truncate(kept);
        Ok((bytes, next))
    }

    /// Where the batch that holds `sequence`, which must be in the segment, begins in the file.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] when there is no batch on the way there; [`LogError::Io`].
    pub(crate) fn position_of(&self, sequence: u64) -> Result<u64> {
        self.start_of(sequence).map(|start| start.position)
    }

    /// What [`read`](Self::read) would return, as a part of the file; but `limit` may be past the segment's end.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] when there is no batch where one should be; [`LogError::Io`].
    pub(crate) fn range(&self, sequence: u64, limit: u64, bytes_max: u64) -> Result<(FileRange, u64)> {
        let start = self.start_of(sequence)?;
        let Summary { bytes, end, .. } = self.with_index(|index| index.summary)?;
        let mut stop = if limit >= end { Start { position: bytes, base: end } } else { self.start_of(limit)? };
        if stop.position - start.position > bytes_max {
            stop = self.last_boundary(start, start.position + bytes_max)?;
        }
        let range = FileRange {
            file: self.file()?,
            position: start.position,
            bytes: stop.position - start.position,
            first: SequenceNumber(start.base),
        };
        Ok((range, stop.base))
    }

    /// The last place between two batches that is not past `position`; but behind the batch at `start`, however large that is.
    fn last_boundary(&self, start: Start, position: u64) -> Result<Start> {
        let entry = self.with_index(|index| index.before_position(position))?;
        let mut at = if entry.position > start.position { entry } else { start };
        loop {
            let next = at.after(&self.header_at(at)?);
            if next.position > position && at.position > start.position {
                return Ok(at);
            }
            at = next;
            if at.position >= position {
                return Ok(at);
            }
        }
    }

    fn start_of(&self, sequence: u64) -> Result<Start> {
        let (mut start, stop) = self.with_index(|index| index.around(sequence))?;
        while start.position < stop {
            let header = self.header_at(start)?;
            if header.end() > sequence {
                break;
            }
            start = start.after(&header);
        }
        Ok(start)
    }

    /// Where the batches begin that were appended at or after `time`, up to a second too early. `None` when all were before.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] when there is no batch where one should be; [`LogError::Io`].
    pub(crate) fn first_appended_at(&self, time: Timestamp) -> Result<Option<u64>> {
        let summary = self.summary();
        if summary.bytes == 0 || summary.last_append < time.millis() {
            return Ok(None);
        }
        let (start, is_older) = self.with_index(|index| index.before_append_time(time.millis()))?;
        Ok(Some(if is_older { self.header_at(start)?.end() } else { start.base }))
    }

    /// The first record at or after `timestamp`, but for those of batches to skip.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] when a batch on the way is not sound; [`LogError::Io`].
    pub(crate) fn first_at(&self, timestamp: Timestamp, skip: impl Fn(&Header) -> bool) -> Result<Option<u64>> {
        let (mut start, limit) =
            self.with_index(|index| (index.before_timestamp(timestamp.millis()), index.summary.bytes))?;
        while start.position < limit {
            let batch = self.whole_batch(start, limit)?;
            // SUBTLE: believed only now, with the checksum: a damaged time would have the batch passed over in silence.
            if batch.max_timestamp() >= timestamp && !skip(batch.header()) {
                let decoded = batch.decode_checked();
                let decoded = decoded.map_err(|reason| LogError::corrupt(&self.path, start.position, reason))?;
                if let Some(record) = decoded.records().find(|record| record.timestamp >= timestamp) {
                    return Ok(Some(record.sequence.0));
                }
            }
            start = start.after(batch.header());
        }
        Ok(None)
    }

    /// The batch that begins at `start`, its checksum compared.
    fn whole_batch(&self, start: Start, limit: u64) -> Result<EncodedBatch> {
        let Start { position, .. } = start;
        let corrupt = |reason| LogError::corrupt(&self.path, position, reason);
        let front = self.read_at(position, (HEADER_BYTES as u64).min(limit - position))?;
        let header = self.header(&front, start)?;
        if header.bytes as u64 > limit - position {
            return Err(corrupt("the batch is longer than what is left of the file"));
        }
        let mut bytes = Bytes::from(self.read_at(position, header.bytes as u64)?);
        let batch = EncodedBatch::take(&mut bytes).map_err(corrupt)?;
        match header::checksum_fits(batch.bytes()) {
            true => Ok(batch),
            false => Err(corrupt("the checksum does not fit the bytes")),
        }
    }

    /// Removes the files, the log first: an index without its log is nothing.
    pub(crate) fn remove(&self) -> Result<()> {
        self.storage.remove_file(&self.path).map_err(|e| LogError::io("remove", &self.path, e))?;
        match self.storage.remove_file(&index::path_of(&self.path)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(LogError::io("remove the index of", &self.path, e))
            }
            _ => Ok(()),
        }
    }

    fn with_index<T>(&self, ask: impl Fn(&Index) -> T) -> Result<T> {
        self.touched.store(true, Ordering::Relaxed);
        if let Some(index) = &self.state.read().index {
            return Ok(ask(index));
        }
        let mut state = self.state.write();
        let summary = state.summary;
        if state.index.is_none() {
            let loaded = Index::load(&self.path).filter(|index| index.summary == summary);
            state.index = Some(match loaded {
                Some(index) => index,
                None => {
                    let Summary { base, end, bytes, .. } = summary;
                    rebuild(&*self.storage, &self.path, base, end, bytes, self.interval)??
                }
            });
        }
        Ok(ask(state.index.as_ref().expect("it was just loaded")))
    }

    /// The front of the batch that begins at `start`.
    fn header_at(&self, start: Start) -> Result<Header> {
        self.header(&self.read_at(start.position, HEADER_BYTES as u64)?, start)
    }

    /// The front of the batch that begins at `start`, with the bytes there.
    fn header(&self, bytes: &[u8], start: Start) -> Result<Header> {
        let Start { position, base } = start;
        let header = Header::parse(bytes).map_err(|reason| LogError::corrupt(&self.path, position, reason))?;
        // SUBTLE: the checksum of a batch does not cover its number.
        if header.base_sequence != base {
            let found = header.base_sequence;
            let reason = format!("a batch with sequence number {found} where {base} should be");
            return Err(LogError::corrupt(&self.path, position, reason));
        }
        Ok(header)
    }

    fn read_at(&self, position: u64, length: u64) -> Result<Vec<u8>> {
        let file = self.file()?;
        let mut bytes = Vec::with_capacity(length as usize);
        while (bytes.len() as u64) < length {
            // Reading into spare capacity saves zeroing what is about to be overwritten.
            let at = position + bytes.len() as u64;
            let read = rustix::io::pread(&*file, spare_capacity(&mut bytes), at)
                .map_err(|e| LogError::io("read", &self.path, e.into()))?;
            if read == 0 {
                return Err(LogError::corrupt(&self.path, at, "the file is shorter than it was"));
            }
        }
        bytes.truncate(length as usize);
        Ok(bytes)
    }

    fn file(&self) -> Result<Arc<File>> {
        let mut file = self.file.lock();
        if let Some(file) = &*file {
            return Ok(Arc::clone(file));
        }
        let opened = Arc::new(File::open(&self.path).map_err(|e| LogError::io("open", &self.path, e))?);
        *file = Some(Arc::clone(&opened));
        Ok(opened)
    }
}

/// The file of the segment that begins with `base`.
pub(crate) fn path_of(folder: &Path, base: u64) -> PathBuf {
    folder.join(format!("{base:020}.{EXTENSION}"))
}

/// The first sequence number of a segment file, by its name.
pub(crate) fn base_of(path: &Path) -> Option<u64> {
    if path.extension()? != EXTENSION {
        return None;
    }
    path.file_stem()?.to_str()?.parse().ok()
}

/// What is known of a closed segment that cannot be read. Searches by time must not pass it over.
fn unreadable(path: &Path, base: u64, next_base: u64, length: u64) -> Result<Summary> {
    let appended = modified_ms(path)?;
    Ok(Summary {
        end: next_base,
        bytes: length,
        records: next_base - base,
        max_timestamp: i64::MAX,
        first_append: appended,
        last_append: appended,
        ..Summary::empty(base)
    })
}

/// The index of a closed segment, from its batches; or where it is damaged.
///
/// # Errors
/// [`LogError::Corrupt`] when it is sound but does not end where the next one begins, and when it cannot be read.
fn rebuild(
    storage: &dyn Storage,
    path: &Path,
    base: u64,
    next_base: u64,
    length: u64,
    interval: u32,
) -> Result<Result<Index>> {
    tracing::warn!(path = %path.display(), "rebuilding the index of a segment");
    let appended = modified_ms(path)?;
    let mut index = Index::empty(base, interval);
    let scan = scan::scan(path, base, length, |batch, _| index.note(batch, appended))?;
    if let Some(fault) = scan.fault {
        return Ok(Err(LogError::corrupt(path, scan.bytes, fault)));
    }
    if index.summary.end != next_base {
        let reason =
            format!("it ends at sequence number {}, but the next file begins at {next_base}", index.summary.end);
        return Err(LogError::corrupt(path, scan.bytes, reason));
    }
    if let Err(error) = index.save(storage, path) {
        tracing::warn!(path = %path.display(), %error, "could not save an index; it will be rebuilt");
    }
    Ok(Ok(index))
}

/// When a file was last written to, in milliseconds since the epoch: the best guess at its last append after a crash.
pub(crate) fn modified_ms(path: &Path) -> Result<i64> {
    let modified = fs::metadata(path).and_then(|m| m.modified()).map_err(|e| LogError::io("look at", path, e))?;
    let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(since.as_millis() as i64)
}
