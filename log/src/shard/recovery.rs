//! Recovery: reads the folder of a shard when the shard is first used, and brings it to a state that can be appended to.
//!
//! Recovery believes a closed segment whose index fits its length. It believes the last segment if the log was shut down
//! in order: a shutdown leaves an index of exactly the segment's length and a file with the producers as of its end. Both
//! are written after the data was synced, and any append makes the segment longer than they say. Otherwise recovery checks
//! every batch of the last segment.
//!
//! Bytes at the end of the last segment that are not sound are a torn write, and recovery cuts them off. If a sound batch
//! follows them, acknowledged records are damaged, and the shard refuses to open; unless a sector before that batch was
//! never written: then both are of one write that was not synced.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::batch::header::Header;
use crate::batch::marker::TransactionOutcome;
use crate::error::{LogError, Result};
use crate::files::index::Index;
use crate::files::scan;
use crate::files::segment::{self, Segment};
use crate::files::storage::{self, Storage};
use crate::shard::context::ShardContext;
use crate::shard::last_stable_offset::TransactionRange;
use crate::shard::producers::{self, Producers};

/// What a folder holds.
pub(crate) struct Recovered {
    /// Oldest first. The last one is to be appended to.
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) producers: Producers,
    /// The aborted transactions, in order of their markers.
    pub(crate) aborted: Vec<TransactionRange>,
    /// Whether the last segment had to be checked, since the log was not shut down in order.
    pub(crate) was_checked: bool,
}

/// What is known of producers and their transactions at some moment.
type Known = (Producers, Vec<TransactionRange>);

/// Reads, and repairs, the folder of a shard.
///
/// # Errors
/// [`LogError::Corrupt`] when bytes that were acknowledged are not what was written: nothing is changed then.
pub(crate) fn recover(context: &ShardContext) -> Result<Recovered> {
    let listing = Listing::read(&context.folder)?;
    let Some((&last, closed)) = listing.bases.split_last() else {
        return fresh(context, &listing);
    };
    let interval = context.settings.index_interval_bytes;
    let mut segments = Vec::with_capacity(listing.bases.len());
    for (&base, &next) in closed.iter().zip(&listing.bases[1..]) {
        segments.push(Arc::new(Segment::closed(&context.storage, &context.folder, base, next, interval)?));
    }
    let in_order = shut_down_in_order(context, last);
    let was_checked = in_order.is_none();
    let (index, (producers, aborted)) = match in_order {
        Some(found) => found,
        None => recover_last(context, last, closed)?,
    };
    listing.remove_leftovers(&*context.storage, last, index.summary.end);
    segments.push(Arc::new(Segment::growing(&context.storage, &context.folder, index)));
    Ok(Recovered { segments, producers, aborted, was_checked })
}

fn fresh(context: &ShardContext, listing: &Listing) -> Result<Recovered> {
    if let Some(stray) = listing.others.iter().find(|path| path.extension().is_some_and(|e| e == "index")) {
        return Err(LogError::corrupt(&stray.with_extension("log"), 0, "it is missing, but its index is there"));
    }
    let index = Index::empty(0, context.settings.index_interval_bytes);
    let segments = vec![Arc::new(Segment::growing(&context.storage, &context.folder, index))];
    Ok(Recovered { segments, producers: Producers::default(), aborted: Vec::new(), was_checked: false })
}

fn shut_down_in_order(context: &ShardContext, base: u64) -> Option<(Index, Known)> {
    let path = segment::path_of(&context.folder, base);
    let index = Index::load(&path)?;
    let length = fs::metadata(&path).ok()?.len();
    if index.summary.base != base || index.summary.bytes != length {
        return None;
    }
    let known = Producers::load(&context.folder, index.summary.end)?;
    Some((index, known))
}

/// Checks the last segment, cuts off a torn write, and finds the producers as of its end.
fn recover_last(context: &ShardContext, base: u64, closed: &[u64]) -> Result<(Index, Known)> {
    let path = segment::path_of(&context.folder, base);
    let length = fs::metadata(&path).map_err(|e| LogError::io("look at", &path, e))?.len();
    let appended = segment::modified_ms(&path)?.min(context.clock.now().millis());
    let mut known = producers_before(context, base, closed)?;
    let mut index = Index::empty(base, context.settings.index_interval_bytes);
    let scan = scan::scan(&path, base, length, |batch, outcome| {
        index.note(batch, appended);
        note(&mut known, batch, outcome);
    })?;
    match scan.fault {
        Some(fault) => cut_torn_write(context, &path, &scan, length, index.summary.end, fault)?,
        // SUBTLE: what a killed process wrote may be in memory only. Readers are about to see it, and nothing that was seen
        // may be lost in a power cut.
        None => {
            context.storage.open(&path).and_then(|mut file| file.sync()).map_err(|e| LogError::io("sync", &path, e))?
        }
    }
    Ok((index, known))
}

fn note(known: &mut Known, batch: &Header, outcome: Option<TransactionOutcome>) {
    let (producers, aborted) = known;
    let completed = producers.note(batch, outcome);
    aborted.extend(completed.filter(|c| c.outcome == TransactionOutcome::Abort).map(|c| c.range));
}

fn cut_torn_write(
    context: &ShardContext,
    path: &Path,
    scan: &scan::Scan,
    length: u64,
    end: u64,
    fault: &str,
) -> Result<()> {
    if let Some(position) = scan::sound_batch_after(path, scan.bytes, length, end)?
        && !scan::was_torn(path, (scan.bytes, position, length), end)?
    {
        let reason = format!("{fault}, but a sound batch follows at byte {position}, so this is not a torn write");
        return Err(LogError::corrupt(path, scan.bytes, reason));
    }
    tracing::warn!(
        stream = %context.place.stream, shard = %context.place.shard, path = %path.display(),
        position = scan.bytes, dropped_bytes = length - scan.bytes, fault,
        "cut off a torn write that was never acknowledged as durable",
    );
    let cut = || {
        let mut file = context.storage.open(path)?;
        file.truncate(scan.bytes)?;
        file.sync()
    };
    cut().map_err(|e| LogError::io("truncate", path, e))
}

/// The producers before the last segment: from the file that was written when it was begun, or else from all before it.
fn producers_before(context: &ShardContext, base: u64, closed: &[u64]) -> Result<Known> {
    if closed.is_empty() && base == 0 {
        return Ok(Known::default());
    }
    if let Some(known) = Producers::load(&context.folder, base) {
        return Ok(known);
    }
    tracing::warn!(stream = %context.place.stream, shard = %context.place.shard, "rebuilding the producers from all segments");
    let mut known = Known::default();
    for &base in closed {
        let path = segment::path_of(&context.folder, base);
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
    fn remove_leftovers(&self, storage: &dyn Storage, last_base: u64, end: u64) {
        for path in &self.others {
            let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
            let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
            let leftover = match extension {
                "tmp" => true,
                "index" => number.is_some_and(|base| self.bases.binary_search(&base).is_err()),
                "producers" => number.is_some_and(|at| at != last_base && at != end),
                _ => false,
            };
            if leftover {
                storage::remove_leftover(storage, path);
            }
        }
    }
}

/// Leaves behind what lets the next start skip the check. The data must have been synced.
pub(crate) fn shut_down(context: &ShardContext, last: &Segment, producers: &Producers, aborted: &[TransactionRange]) {
    let end = last.summary().end;
    if let Err(error) = producers.save(aborted, &*context.storage, &context.folder, end) {
        tracing::warn!(folder = %context.folder.display(), %error, "the next start will check the last segment");
        return;
    }
    last.save_index();
}

/// Removes the producers as of a moment that is past. Failing to does no harm.
pub(crate) fn remove_producers(context: &ShardContext, at: u64) {
    storage::remove_leftover(&*context.storage, &producers::path_at(&context.folder, at));
}
