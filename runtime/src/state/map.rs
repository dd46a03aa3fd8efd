//! An ordered map per key: for lists, indexes by time, the sides of a join.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use coulee_checkpoint::{Changes, TableId};
use coulee_model::{CheckpointId, Timestamp};

use super::backend::{Backend, KeyRef};
use super::cache::Cache;
use crate::{Error, Result};

/// What an entry costs in memory beside its bytes, roughly.
const ENTRY_OVERHEAD_BYTES: usize = 80;

/// An entry: its value, `None` for one that is known not to exist.
#[derive(Debug)]
struct Entry {
    value: Option<Bytes>,
    expires: Timestamp,
}

impl Entry {
    fn bytes(&self, map_key: &[u8]) -> usize {
        map_key.len() + self.value.as_ref().map_or(0, Bytes::len) + ENTRY_OVERHEAD_BYTES
    }
}

/// What is known of one key's map.
#[derive(Debug, Default)]
struct Entries {
    known: BTreeMap<Box<[u8]>, Entry>,
    /// Entries that differ from the store.
    changed: BTreeSet<Box<[u8]>>,
    /// Whether what is not known does not exist.
    complete: bool,
    bytes: usize,
}

impl Entries {
    fn set(&mut self, map_key: &[u8], entry: Entry) {
        self.bytes += entry.bytes(map_key);
        if let Some(old) = self.known.insert(map_key.into(), entry) {
            self.bytes -= old.bytes(map_key);
        }
    }

    /// Forgets entries that are known not to exist, where what is not known does not exist either.
    fn drop_gone(&mut self, now: Timestamp) {
        let bytes = &mut self.bytes;
        self.known.retain(|map_key, entry| {
            let stays = entry.value.is_some() && entry.expires > now;
            *bytes -= if stays { 0 } else { entry.bytes(map_key) };
            stays
        });
    }
}

/// An ordered map per key, for the keys of one subtask. Map keys and values are bytes; map keys sort as bytes.
///
/// A stored key is `length of the key u32 | key | map key`; the value of a table with a TTL begins with its expiry, as in a
/// [`ValueTable`](super::ValueTable).
///
/// **Operations** `load` keys, then `get`, `put`, `remove`, `range` in the map of each, then `trim`; `checkpoint` at a barrier.
/// **Guarantees** As a `ValueTable`. An entry that is not in memory is read when it is asked for; a range reads the rest of its key's map once.
#[derive(Debug)]
pub struct MapTable {
    table: TableId,
    ttl: Option<i64>,
    cache: Cache<Entries>,
    backend: Option<Backend>,
    complete: bool,
    now: Timestamp,
}

impl MapTable {
    /// A table of maps whose entries live for `ttl_millis` after their last change, if that is given.
    pub fn new(table: TableId, ttl_millis: Option<i64>) -> Self {
        let table = if ttl_millis.is_some() { TableId(table.0 | 0x80) } else { table };
        MapTable { table, ttl: ttl_millis, cache: Cache::new(), backend: None, complete: false, now: Timestamp(0) }
    }

    /// Connects the table to what is stored. Reads next to nothing.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn open(&mut self, backend: Backend) -> Result<()> {
        self.complete = backend.is_empty(self.table)?;
        self.now = backend.now();
        self.cache.open(&backend);
        self.backend = Some(backend);
        Ok(())
    }

    fn backend(&self) -> Result<&Backend> {
        self.backend.as_ref().ok_or_else(|| Error::internal("a table of state was not opened"))
    }

    /// The number of a key, which holds until the next `trim`. Reads nothing.
    pub fn load(&mut self, key: KeyRef<'_>) -> u32 {
        if let (Some(_), Some(backend)) = (self.ttl, &self.backend) {
            self.now = backend.now();
        }
        match self.cache.find(key) {
            Some(number) => number,
            None => self.cache.insert(key, Entries { complete: self.complete, ..Entries::default() }, 0),
        }
    }

    /// Brings entries `(number, map key)` into memory, by one multi-get.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn prefetch(&mut self, wanted: &[(u32, &[u8])]) -> Result<()> {
        let backend = self.backend()?;
        let mut missing = Vec::new();
        for (number, map_key) in wanted {
            let slot = self.cache.slot(*number);
            if !slot.content.complete && !slot.content.known.contains_key(*map_key) {
                let key = backend.key(self.table, slot.key().group(), &stored_key(&slot.key, map_key));
                missing.push((key, *number, *map_key));
            }
        }
        missing.sort();
        missing.dedup();
        let keys: Vec<_> = missing.iter().map(|(key, ..)| key.clone()).collect();
        for ((_, number, map_key), found) in missing.iter().zip(backend.get_many(&keys)?) {
            let entry = self.decode(found.as_ref())?;
            let slot = self.cache.slot_mut(*number);
            slot.content.set(map_key, entry);
            let bytes = slot.content.bytes;
            self.cache.resize(*number, bytes);
        }
        Ok(())
    }

    fn decode(&self, stored: Option<&Bytes>) -> Result<Entry> {
        match (stored, self.ttl) {
            (None, _) => Ok(Entry { value: None, expires: Timestamp::MAX }),
            (Some(value), None) => Ok(Entry { value: Some(value.clone()), expires: Timestamp::MAX }),
            (Some(stored), Some(_)) => {
                let expires = stored
                    .first_chunk()
                    .ok_or_else(|| Error::corrupt("a stored map entry with a time to live has under 8 bytes"))?;
                Ok(Entry { value: Some(stored.slice(8..)), expires: Timestamp(i64::from_be_bytes(*expires)) })
            }
        }
    }

    /// The value of a map's entry.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn get(&mut self, number: u32, map_key: &[u8]) -> Result<Option<Bytes>> {
        self.prefetch(&[(number, map_key)])?;
        let entry = self.cache.slot(number).content.known.get(map_key);
        Ok(entry.filter(|entry| entry.expires > self.now).and_then(|entry| entry.value.clone()))
    }

    /// Sets a map's entry.
    pub fn put(&mut self, number: u32, map_key: &[u8], value: Bytes) {
        let expires = self.ttl.map_or(Timestamp::MAX, |ttl| self.now.plus_millis(ttl));
        self.change(number, map_key, Entry { value: Some(value), expires });
    }

    /// Removes a map's entry. One that is not there is fine.
    pub fn remove(&mut self, number: u32, map_key: &[u8]) {
        self.change(number, map_key, Entry { value: None, expires: Timestamp::MAX });
    }

    fn change(&mut self, number: u32, map_key: &[u8], entry: Entry) {
        let content = &mut self.cache.change(number).content;
        content.set(map_key, entry);
        content.changed.insert(map_key.into());
        let bytes = content.bytes;
        self.cache.resize(number, bytes);
    }

    /// The entries of a map whose keys lie within the bounds, in their order.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn range(
        &mut self,
        number: u32,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> Result<impl DoubleEndedIterator<Item = (&[u8], &Bytes)>> {
        self.complete(number)?;
        let now = self.now;
        let within = self.cache.slot(number).content.known.range::<[u8], _>(bounds);
        Ok(within.filter_map(move |(map_key, entry)| {
            entry.value.as_ref().filter(|_| entry.expires > now).map(|value| (map_key.as_ref(), value))
        }))
    }

    /// Reads the entries of a map that are not known.
    fn complete(&mut self, number: u32) -> Result<()> {
        let slot = self.cache.slot(number);
        if slot.content.complete {
            return Ok(());
        }
        let (prefix, group) = (stored_key(&slot.key, &[]), slot.key().group().0);
        let mut found = Vec::new();
        for entry in self.backend()?.scan(self.table, group..group + 1, &prefix) {
            let (_, key, value) = entry?;
            let Some(map_key) = key.strip_prefix(&prefix[..]) else { break };
            if !slot.content.known.contains_key(map_key) {
                found.push((map_key.to_vec(), self.decode(Some(&value))?));
            }
        }
        let content = &mut self.cache.slot_mut(number).content;
        for (map_key, entry) in found {
            content.set(&map_key, entry);
        }
        content.complete = true;
        let bytes = content.bytes;
        self.cache.resize(number, bytes);
        Ok(())
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
            let mut removed = self.ttl.is_some();
            for map_key in std::mem::take(&mut slot.content.changed) {
                let key = backend.key(self.table, slot.key().group(), &stored_key(&slot.key, &map_key));
                let Some(entry) = slot.content.known.get(&map_key) else { continue };
                match &entry.value {
                    Some(value) if self.ttl.is_some() => {
                        let stored: Vec<u8> = [&entry.expires.0.to_be_bytes()[..], value].concat();
                        changes.put(key, stored);
                    }
                    Some(value) => changes.put(key, value.clone()),
                    None => {
                        changes.delete(key);
                        removed = true;
                    }
                }
            }
            if removed && slot.content.complete {
                slot.content.drop_gone(self.now);
            }
            let bytes = slot.content.bytes;
            self.cache.resize(number, bytes);
        }
        if self.ttl.is_some() {
            self.now = backend.now();
            let now = self.now;
            let gone = |entries: &Entries| entries.known.values().all(|entry| entry.expires <= now);
            self.cache.sweep(SWEEP_SLOTS, backend.durable(), gone);
        }
        self.trim();
    }

    /// Bytes in memory, roughly.
    pub fn bytes(&self) -> usize {
        self.cache.bytes()
    }
}

/// How many keys are looked at for expired maps at each checkpoint.
const SWEEP_SLOTS: usize = 65_536;

fn stored_key(key: &[u8], map_key: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(4 + key.len() + map_key.len());
    stored.extend_from_slice(&(key.len() as u32).to_be_bytes());
    stored.extend_from_slice(key);
    stored.extend_from_slice(map_key);
    stored
}
