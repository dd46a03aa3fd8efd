//! Brings a shard's folder to a state that can be appended to.
//!
//! Closed segments are believed if their index fits their length. The last one is believed if the log was shut down in
//! order, which leaves an index of exactly its length and the producers as of its end; both are written after the
//! data was synced, and any append makes the file longer than they say. Otherwise every batch of it is checked.
//!
//! What is not sound at the end of the last segment is a torn write, and cut off, unless something sound follows it:
//! then acknowledged records are damaged, and the shard refuses to open.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::header::Header;
use crate::index::Index;
use crate::marker::Outcome;
use crate::producers::{self, Producers};
use crate::segment::{self, Segment};
use crate::shard::Home;
use crate::stability::Span;
use crate::{LogError, Result, scan, storage};

/// What a folder holds.
pub(crate) struct Recovered {
    /// Oldest first. The last one is to be appended to.
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) producers: Producers,
    /// The aborted transactions, in order of their markers.
    pub(crate) aborted: Vec<Span>,
}

/// What is known of producers and their transactions at some moment.
type Known = (Producers, Vec<Span>);

/// Reads, and repairs, the folder of a shard.
///
/// # Errors
/// [`LogError::Corrupt`] when bytes that were acknowledged are not what was written: nothing is changed then.
pub(crate) fn recover(home: &Home) -> Result<Recovered> {
    let listing = Listing::read(&home.folder)?;
    let Some((&last, closed)) = listing.bases.split_last() else {
        return fresh(home, &listing);
    };
    let mut segments = Vec::with_capacity(listing.bases.len());
    for (&base, &next) in closed.iter().zip(&listing.bases[1..]) {
        segments.push(Arc::new(Segment::closed(&home.folder, base, next, home.settings.index_interval_bytes)?));
    }
    let (index, (producers, aborted)) = match shut_down_in_order(home, last) {
        Some(found) => found,
        None => recover_last(home, last, closed)?,
    };
    listing.remove_leftovers(last, index.summary.end);
    segments.push(Arc::new(Segment::growing(&home.folder, index)));
    Ok(Recovered { segments, producers, aborted })
}

fn fresh(home: &Home, listing: &Listing) -> Result<Recovered> {
    if let Some(stray) = listing.others.iter().find(|path| path.extension().is_some_and(|e| e == "index")) {
        return Err(LogError::corrupt(&stray.with_extension("log"), 0, "it is missing, but its index is there"));
    }
    let index = Index::empty(0, home.settings.index_interval_bytes);
    let segments = vec![Arc::new(Segment::growing(&home.folder, index))];
    Ok(Recovered { segments, producers: Producers::default(), aborted: Vec::new() })
}

fn shut_down_in_order(home: &Home, base: u64) -> Option<(Index, Known)> {
    let path = segment::path_of(&home.folder, base);
    let index = Index::load(&path)?;
    let length = fs::metadata(&path).ok()?.len();
    if index.summary.base != base || index.summary.bytes != length {
        return None;
    }
    let known = Producers::load(&home.folder, index.summary.end)?;
    Some((index, known))
}

/// Checks the last segment, cuts off a torn write, and finds the producers as of its end.
fn recover_last(home: &Home, base: u64, closed: &[u64]) -> Result<(Index, Known)> {
    let path = segment::path_of(&home.folder, base);
    let length = fs::metadata(&path).map_err(|e| LogError::io("look at", &path, e))?.len();
    let appended = segment::modified_ms(&path)?.min(home.clock.now().millis());
    let mut known = producers_before(home, base, closed)?;
    let mut index = Index::empty(base, home.settings.index_interval_bytes);
    let scan = scan::scan(&path, base, length, |batch, outcome| {
        index.note(batch, appended);
        note(&mut known, batch, outcome);
    })?;
    if let Some(fault) = scan.fault {
        cut_torn_write(home, &path, &scan, length, index.summary.end, fault)?;
    }
    Ok((index, known))
}

fn note(known: &mut Known, batch: &Header, outcome: Option<Outcome>) {
    let (producers, aborted) = known;
    if let Some(closed) = producers.note(batch, outcome).filter(|closed| closed.outcome == Outcome::Abort) {
        aborted.push(closed.span);
    }
}

fn cut_torn_write(home: &Home, path: &Path, scan: &scan::Scan, length: u64, end: u64, fault: &str) -> Result<()> {
    if let Some(position) = scan::sound_batch_after(path, scan.bytes, length, end)? {
        let reason = format!("{fault}, but a sound batch follows at byte {position}, so this is not a torn write");
        return Err(LogError::corrupt(path, scan.bytes, reason));
    }
    tracing::warn!(
        stream = %home.place.stream, shard = %home.place.shard, path = %path.display(),
        position = scan.bytes, dropped_bytes = length - scan.bytes, fault,
        "cut off a torn write that was never acknowledged as durable",
    );
    let cut = || {
        let mut file = home.storage.open(path)?;
        file.truncate(scan.bytes)?;
        file.sync()
    };
    cut().map_err(|e| LogError::io("truncate", path, e))
}

/// The producers before the last segment: from the file that was written when it was begun, or else from all before it.
fn producers_before(home: &Home, base: u64, closed: &[u64]) -> Result<Known> {
    if closed.is_empty() && base == 0 {
        return Ok(Known::default());
    }
    if let Some(known) = Producers::load(&home.folder, base) {
        return Ok(known);
    }
    tracing::warn!(stream = %home.place.stream, shard = %home.place.shard, "rebuilding the producers from all segments");
    let mut known = Known::default();
    for &base in closed {
        let path = segment::path_of(&home.folder, base);
        let length = fs::metadata(&path).map_err(|e| LogError::io("look at", &path, e))?.len();
        let scan = scan::scan(&path, base, length, |batch, outcome| note(&mut known, batch, outcome))?;
        if let Some(fault) = scan.fault {
            return Err(LogError::corrupt(&path, scan.bytes, fault));
        }
    }
    Ok(known)
}

/// The files of a shard.
struct Listing {
    /// Of the segments, ascending.
    bases: Vec<u64>,
    others: Vec<PathBuf>,
}

impl Listing {
    fn read(folder: &Path) -> Result<Listing> {
        let (mut bases, mut others) = (Vec::new(), Vec::new());
        let entries = fs::read_dir(folder).map_err(|e| LogError::io("list", folder, e))?;
        for entry in entries {
            let path = entry.map_err(|e| LogError::io("list", folder, e))?.path();
            match segment::base_of(&path) {
                Some(base) => bases.push(base),
                None => others.push(path),
            }
        }
        bases.sort_unstable();
        Ok(Listing { bases, others })
    }

    /// Removes drafts, indexes without a segment and producers of other moments. Failing to does no harm.
    fn remove_leftovers(&self, last_base: u64, end: u64) {
        for path in &self.others {
            let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
            let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
            let leftover = match extension {
                "tmp" => true,
                "index" => number.is_some_and(|base| self.bases.binary_search(&base).is_err()),
                "producers" => number.is_some_and(|at| at != last_base && at != end),
                _ => false,
            };
            if leftover && let Err(error) = fs::remove_file(path) {
                tracing::warn!(path = %path.display(), %error, "could not remove a leftover file");
            }
        }
    }
}

/// Leaves behind what lets the next start skip the check. The data must have been synced.
pub(crate) fn shut_down(home: &Home, last: &Segment, producers: &Producers, aborted: &[Span]) {
    let end = last.summary().end;
    if let Err(error) = producers.save(aborted, &home.folder, end).and_then(|()| storage::sync_folder(&home.folder)) {
        tracing::warn!(folder = %home.folder.display(), %error, "the next start will check the last segment");
        return;
    }
    last.save_index();
}

/// Removes the producers as of a moment that is past. Failing to does no harm.
pub(crate) fn remove_producers(home: &Home, at: u64) {
    let path = producers::path_at(&home.folder, at);
    if let Err(error) = fs::remove_file(&path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "could not remove a leftover file");
    }
}
