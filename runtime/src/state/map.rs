//! An ordered map per key: for indexes by time, sets of values, the sides of a join.

mod known;
mod stretches;

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;
use coulee_checkpoint::{Changes, StateKey, TableId};
use coulee_model::{CheckpointId, Timestamp};

use super::backend::{Backend, KeyRef};
use super::cache::{Cache, first_bytes};
use super::ttl::Ttl;
use crate::{Error, Result};
use known::Known;
use stretches::Stretches;

/// What an entry costs in memory beside its bytes, roughly.
const ENTRY_OVERHEAD_BYTES: usize = 80;
/// What the first node of a tree of entries costs: with room for eleven, whether one is there or all.
const NODE_BYTES: usize = 640;
/// How many entries are read from the store at once.
const PIECE_ENTRIES: usize = 256;
/// A key's map that is larger in memory is read on without being kept.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// An entry: its value, `None` for one that is known not to exist.
#[derive(Debug, Clone)]
struct Entry {
    value: Option<Bytes>,
    expires: Timestamp,
    /// Whether it differs from the store.
    is_changed: bool,
}

impl Entry {
    fn bytes(&self, map_key: &[u8]) -> usize {
        map_key.len() + self.value.as_ref().map_or(0, Bytes::len) + ENTRY_OVERHEAD_BYTES
    }

    fn live(&self, ttl: Ttl) -> Option<&Bytes> {
        self.value.as_ref().filter(|_| ttl.is_live(self.expires))
    }
}

/// What is known of one key's map.
#[derive(Debug, Default)]
struct Entries {
    known: Known<Entry>,
    /// Entries that differ from the store, each once.
    changed: Vec<Arc<[u8]>>,
    /// Where what is not known does not exist.
    read: Stretches,
    /// Bytes of `known`.
    bytes: usize,
}

impl Entries {
    /// Sets an entry; returns whether it differed from the store before.
    fn set(&mut self, map_key: &[u8], entry: Entry) -> bool {
        self.bytes += entry.bytes(map_key);
        match self.known.get_mut(map_key) {
            Some(before) => {
                let old = std::mem::replace(before, entry);
                self.bytes -= old.bytes(map_key);
                old.is_changed
            }
            None => {
                self.known.insert(map_key.into(), entry);
                false
            }
        }
    }

    /// Sets an entry that the store does not have so.
    fn change(&mut self, map_key: &[u8], entry: Entry) {
        if !self.set(map_key, entry)
            && let Some(key) = self.known.key(map_key)
        {
            self.changed.push(key.clone());
        }
    }

    /// Forgets entries that are known not to exist, where what is not known does not exist either.
    fn drop_gone(&mut self, ttl: Ttl) {
        let (bytes, read) = (&mut self.bytes, &self.read);
        self.known.retain(|map_key, entry| {
            let stays = entry.live(ttl).is_some() || !read.contains(map_key);
            *bytes -= if stays { 0 } else { entry.bytes(map_key) };
            stays
        });
    }

    fn total_bytes(&self) -> usize {
        let node = if self.known.is_empty() { 0 } else { NODE_BYTES };
        self.bytes + self.read.bytes() + node + self.changed.capacity() * size_of::<Arc<[u8]>>()
    }
}

/// Which way a map is walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// From the lowest key on.
    Ascending,
    /// From the highest key down.
    Descending,
}

/// An ordered map per key, for the keys of one subtask. Map keys and values are bytes; map keys sort as bytes.
///
/// A stored key is `length of the key u32 | key | map key`; the value of a table with a TTL begins with its expiry, as in a
/// [`ValueTable`](super::ValueTable).
///
/// **Operations** `load` keys, then `get`, `put`, `remove`, `scan` in the map of each, then `trim`; `checkpoint` at a barrier.
/// **Guarantees** As a `ValueTable`. A scan reads from the store only what it comes by, 256 entries at a time, and never what was read before; a map that takes
/// more than a megabyte in memory is read without being kept. So the cost of the first entry, of the last one or of a range does not depend on how large
/// the map is.
#[derive(Debug)]
pub struct MapTable {
    table: TableId,
    ttl: Ttl,
    cache: Cache<Entries>,
    backend: Option<Backend>,
    complete: bool,
    /// Entries that were read from the store, for tests.
    read_entries: u64,
}

impl MapTable {
    /// A table of maps whose entries live for `ttl_millis` after their last change, if that is given.
    pub fn new(table: TableId, ttl_millis: Option<i64>) -> Self {
        let ttl = Ttl::new(ttl_millis);
        MapTable { table: ttl.table(table), ttl, cache: Cache::new(), backend: None, complete: false, read_entries: 0 }
    }

    /// Connects the table to what is stored. Reads next to nothing.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn open(&mut self, backend: Backend) -> Result<()> {
        self.complete = backend.is_empty(self.table)?;
        self.ttl.tick(&backend);
        self.cache.open(&backend);
        self.backend = Some(backend);
        Ok(())
    }

    fn backend(&self) -> Result<&Backend> {
        self.backend.as_ref().ok_or_else(|| Error::internal("a table of state was not opened"))
    }

    /// The number of a key, which holds until the next `trim`. Reads nothing.
    pub fn load(&mut self, key: KeyRef<'_>) -> u32 {
        if let Some(backend) = &self.backend {
            self.ttl.tick(backend);
        }
        let read = if self.complete { Stretches::all() } else { Stretches::default() };
        match self.cache.find(key) {
            Some(number) => number,
            None => self.cache.insert(key, Entries { read, ..Entries::default() }, 0),
        }
    }

    fn stored_key(&self, number: u32, map_key: &[u8]) -> Result<StateKey> {
        let slot = self.cache.slot(number);
        Ok(self.backend()?.key(self.table, slot.key().group(), &stored_key(&slot.key, map_key)))
    }

    /// Brings entries `(number, map key)` into memory, by one multi-get.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn prefetch(&mut self, wanted: &[(u32, &[u8])]) -> Result<()> {
        let mut missing = Vec::new();
        for (number, map_key) in wanted {
            let content = &self.cache.slot(*number).content;
            if content.known.get(map_key).is_none() && !content.read.contains(map_key) {
                missing.push((self.stored_key(*number, map_key)?, *number, *map_key));
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        missing.sort();
        missing.dedup();
        let keys: Vec<_> = missing.iter().map(|(key, ..)| key.clone()).collect();
        for ((_, number, map_key), found) in missing.iter().zip(self.backend()?.get_many(&keys)?) {
            let entry = match found {
                Some(stored) => self.decode(&stored)?,
                None => Entry { value: None, expires: Timestamp::MAX, is_changed: false },
            };
            self.cache.slot_mut(*number).content.set(map_key, entry);
            self.resize(*number);
        }
        Ok(())
    }

    fn resize(&mut self, number: u32) {
        let bytes = self.cache.slot(number).content.total_bytes();
        self.cache.resize(number, bytes);
    }

    fn decode(&self, stored: &Bytes) -> Result<Entry> {
        let (expires, value_at) = self.ttl.decode(stored)?;
        Ok(Entry { value: Some(stored.slice(value_at..)), expires, is_changed: false })
    }

    /// The value of a map's entry.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn get(&mut self, number: u32, map_key: &[u8]) -> Result<Option<Bytes>> {
        self.prefetch(&[(number, map_key)])?;
        let entry = self.cache.slot(number).content.known.get(map_key);
        Ok(entry.and_then(|entry| entry.live(self.ttl)).cloned())
    }

    /// Sets a map's entry.
    pub fn put(&mut self, number: u32, map_key: &[u8], value: Bytes) {
        self.change(number, map_key, Entry { value: Some(value), expires: self.ttl.expiry(), is_changed: true });
    }

    /// Removes a map's entry. One that is not there is fine.
    pub fn remove(&mut self, number: u32, map_key: &[u8]) {
        self.change(number, map_key, Entry { value: None, expires: Timestamp::MAX, is_changed: true });
    }

    fn change(&mut self, number: u32, map_key: &[u8], entry: Entry) {
        let content = &mut self.cache.change(number).content;
        content.change(map_key, entry);
        self.resize(number);
    }

    /// Calls `visit` with the entries of a map whose keys lie within the bounds, one after the other, until it breaks.
    ///
    /// # Errors
    /// When the store cannot be read, and those of `visit`.
    pub fn scan(
        &mut self,
        number: u32,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        order: Order,
        mut visit: impl FnMut(&[u8], &Bytes) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let (mut start, mut end) = half_open(bounds);
        self.cache.slot_mut(number).content.known.order();
        loop {
            let read = &self.cache.slot(number).content.read;
            let gap = match order {
                Order::Ascending => read.first_gap(&start, end.as_deref()),
                Order::Descending => read.last_gap(&start, end.as_deref()),
            };
            let Some((from, to)) = gap.map(|(from, to)| (from.to_vec(), to.map(<[u8]>::to_vec))) else {
                return self.visit(number, &[], (&start, end.as_deref()), order, &mut visit).map(drop);
            };
            // What is known on this side of the gap comes first: often that is enough.
            let known = match order {
                Order::Ascending => (from > start).then(|| (start.clone(), Some(from.clone()))),
                Order::Descending => to.clone().filter(|to| end.as_ref() != Some(to)).map(|to| (to, end.clone())),
            };
            if let Some((low, high)) = known {
                if self.visit(number, &[], (&low, high.as_deref()), order, &mut visit)?.is_break() {
                    return Ok(());
                }
                match order {
                    Order::Ascending => start = from,
                    Order::Descending => end = to,
                }
                continue;
            }
            let (piece, from, to) = self.read(number, from, to, order)?;
            let part = match order {
                Order::Ascending => (&start[..], to.as_deref()),
                Order::Descending => (&from[..], end.as_deref()),
            };
            if self.visit(number, &piece, part, order, &mut visit)?.is_break() {
                return Ok(());
            }
            match (order, to) {
                (Order::Ascending, Some(to)) => start = to,
                (Order::Ascending, None) => return Ok(()),
                (Order::Descending, _) if from <= start => return Ok(()),
                (Order::Descending, _) => end = Some(from),
            }
        }
    }

    /// Reads a piece of a gap from the store: what was read and is not kept, and the part of the gap that is settled by it.
    #[expect(clippy::type_complexity, reason = "one caller, which takes it apart")]
    fn read(
        &mut self,
        number: u32,
        from: Vec<u8>,
        to: Option<Vec<u8>>,
        order: Order,
    ) -> Result<(Vec<(Box<[u8]>, Entry)>, Vec<u8>, Option<Vec<u8>>)> {
        let slot = self.cache.slot(number);
        let (prefix, group) = (stored_key(&slot.key, &[]), slot.key().group());
        let low = [&prefix[..], &from].concat();
        let high = match &to {
            Some(to) => Some([&prefix[..], to].concat()),
            None => after_prefix(&prefix),
        };
        let mut piece = Vec::new();
        let found = self.backend()?.scan_within(self.table, group, (&low, high.as_deref()), order == Order::Descending);
        for entry in found.take(PIECE_ENTRIES) {
            let (key, value) = entry?;
            let map_key: Box<[u8]> = key.get(prefix.len()..).unwrap_or_default().into();
            piece.push((map_key, self.decode(&value)?));
        }
        self.read_entries += piece.len() as u64;
        // A full piece settles the gap up to its last entry only.
        let last = piece.last().filter(|_| piece.len() == PIECE_ENTRIES).map(|(map_key, _)| map_key.to_vec());
        let (from, to) = match (order, last) {
            (_, None) => (from, to),
            (Order::Ascending, Some(last)) => (from, Some(successor(last))),
            (Order::Descending, Some(last)) => (last, to),
        };
        if order == Order::Descending {
            piece.reverse();
        }
        let content = &mut self.cache.slot_mut(number).content;
        // What is known is newer than what is stored.
        piece.retain(|(map_key, _)| content.known.get(map_key).is_none());
        if content.total_bytes() <= KEPT_BYTES_MAX {
            for (map_key, entry) in piece.drain(..) {
                content.set(&map_key, entry);
            }
            content.read.add(&from, to.as_deref());
            self.resize(number);
        }
        Ok((piece, from, to))
    }

    /// Visits the known entries of a part, merged with those of a piece, which has none of them.
    fn visit(
        &self,
        number: u32,
        piece: &[(Box<[u8]>, Entry)],
        (start, end): (&[u8], Option<&[u8]>),
        order: Order,
        visit: &mut impl FnMut(&[u8], &Bytes) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        if end.is_some_and(|end| start >= end) {
            return Ok(ControlFlow::Continue(()));
        }
        let bounds = (Bound::Included(start), end.map_or(Bound::Unbounded, Bound::Excluded));
        let known = self.cache.slot(number).content.known.range(bounds);
        let known = known.map(|(map_key, entry)| (map_key.as_ref(), entry));
        let piece = piece.iter().map(|(map_key, entry)| (map_key.as_ref(), entry));
        let merged: &mut dyn Iterator<Item = (&[u8], &Entry)> = match order {
            Order::Ascending => &mut merged(known, piece, |a, b| a < b),
            Order::Descending => &mut merged(known.rev(), piece.rev(), |a, b| a > b),
        };
        for (map_key, entry) in merged {
            if let Some(value) = entry.live(self.ttl)
                && visit(map_key, value)?.is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Forgets what the store has, if the job is over its memory budget. For the end of a batch.
    pub fn trim(&mut self) {
        let Some(backend) = &self.backend else { return };
        let mut complete = self.complete;
        self.cache.trim(backend.durable(), |content| complete &= content.known.is_empty());
        self.complete = complete;
    }

    /// Hands over what changed.
    pub fn checkpoint(&mut self, id: CheckpointId, changes: &mut Changes) {
        let Some(backend) = &self.backend else { return };
        for number in self.cache.hand_over(id) {
            let slot = self.cache.slot_mut(number);
            let mut removed = self.ttl.expires();
            for map_key in ordered(std::mem::take(&mut slot.content.changed)) {
                let key = backend.key(self.table, slot.key().group(), &stored_key(&slot.key, &map_key));
                let Some(entry) = slot.content.known.get_mut(&map_key) else { continue };
                entry.is_changed = false;
                match &entry.value {
                    Some(value) if self.ttl.expires() => {
                        let mut stored = Vec::with_capacity(8 + value.len());
                        self.ttl.encode(entry.expires, &mut stored);
                        stored.extend_from_slice(value);
                        changes.put(key, stored);
                    }
                    Some(value) => changes.put(key, value.clone()),
                    None => {
                        changes.delete(key);
                        removed = true;
                    }
                }
            }
            if removed {
                slot.content.drop_gone(self.ttl);
            }
            let bytes = slot.content.total_bytes();
            self.cache.resize(number, bytes);
        }
        if self.ttl.expires() {
            self.ttl.tick(backend);
            let ttl = self.ttl;
            let gone = |entries: &Entries| entries.known.all(|entry| !ttl.is_live(entry.expires));
            self.cache.sweep(SWEEP_SLOTS, backend.durable(), gone);
        }
        self.trim();
    }

    /// Bytes in memory, roughly.
    pub fn bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// How many entries scans have read from the store.
    pub fn read_entries(&self) -> u64 {
        self.read_entries
    }
}

/// How many keys are looked at for expired maps at each checkpoint.
const SWEEP_SLOTS: usize = 65_536;

/// Keys in their order.
fn ordered(keys: Vec<Arc<[u8]>>) -> impl Iterator<Item = Arc<[u8]>> {
    let mut keys: Vec<(u128, Arc<[u8]>)> = keys.into_iter().map(|key| (first_bytes(&key), key)).collect();
    keys.sort_unstable();
    keys.into_iter().map(|(_, key)| key)
}

fn stored_key(key: &[u8], map_key: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(4 + key.len() + map_key.len());
    stored.extend_from_slice(&(key.len() as u32).to_be_bytes());
    stored.extend_from_slice(key);
    stored.extend_from_slice(map_key);
    stored
}

/// The next key there can be.
fn successor(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

/// The first key behind all that begin with `prefix`; `None` where there is none.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut next = prefix[..=last].to_vec();
    next[last] += 1;
    Some(next)
}

/// Bounds as `[start, end)`; an end of `None` is beyond every key.
fn half_open((start, end): (Bound<&[u8]>, Bound<&[u8]>)) -> (Vec<u8>, Option<Vec<u8>>) {
    let start = match start {
        Bound::Included(key) => key.to_vec(),
        Bound::Excluded(key) => successor(key.to_vec()),
        Bound::Unbounded => Vec::new(),
    };
    let end = match end {
        Bound::Included(key) => Some(successor(key.to_vec())),
        Bound::Excluded(key) => Some(key.to_vec()),
        Bound::Unbounded => None,
    };
    (start, end)
}

/// Two sequences that are ordered alike, as one.
fn merged<'a>(
    a: impl Iterator<Item = (&'a [u8], &'a Entry)>,
    b: impl Iterator<Item = (&'a [u8], &'a Entry)>,
    comes_first: fn(&[u8], &[u8]) -> bool,
) -> impl Iterator<Item = (&'a [u8], &'a Entry)> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    std::iter::from_fn(move || match (a.peek(), b.peek()) {
        (Some((first, _)), Some((second, _))) if comes_first(first, second) => a.next(),
        (_, Some(_)) => b.next(),
        (_, None) => a.next(),
    })
}
