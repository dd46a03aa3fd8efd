//! A list per key, to which items are only added: for rows that are kept and never taken back.

use coulee_checkpoint::{Changes, TableId};
use coulee_model::CheckpointId;

use super::backend::{Backend, KeyRef};
use super::cache::Cache;
use crate::{Error, Result};

/// A list that is larger in memory is read on without being kept.
const KEPT_BYTES_MAX: usize = 1 << 20;
/// So many parts of a list are written anew as one, if they are not larger than this.
const PARTS_MAX: u32 = 16;
const MERGED_BYTES_MAX: usize = 1 << 18;
/// Bytes before an item: its length.
const LENGTH_BYTES: usize = 4;

/// What is known of one key's list.
#[derive(Debug)]
struct Items {
    /// Items, the oldest first, each behind its length (u32, little-endian): all of the list, or those since `first_part`.
    bytes: Vec<u8>,
    /// From where on the store does not have them.
    unsaved: usize,
    /// The parts before this one are in the store alone; `None` where nothing is.
    first_part: Option<u64>,
    /// How many parts the store has of what is in memory.
    parts: u32,
}

impl Items {
    fn total_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

/// A list per key, for the keys of one subtask. Items are bytes.
///
/// A list is stored in *parts*: what was added before a checkpoint and after the one before, under `length of the key u32 | key | the checkpoint's number
/// u64`, all big-endian; a part is its items, each behind its length (u32, little-endian). So adding reads nothing, and writes no more than what is added.
///
/// **Operations** `load` a key, then `add` to its list or `visit` it, then `trim`; `checkpoint` at a barrier.
/// **Guarantees** As a [`ValueTable`](super::ValueTable): what was handed over at the last durable checkpoint is there after a restart, and nothing of what came
/// later. Items come in the order in which they were added. A list that takes more than a megabyte is read without being kept. When a list has more
/// than a few small parts, they are written anew as one.
#[derive(Debug)]
pub struct ListTable {
    table: TableId,
    cache: Cache<Items>,
    backend: Option<Backend>,
    /// Whether memory has all lists.
    complete: bool,
    /// The next checkpoint's number is this one or higher.
    next_part: u64,
}

impl ListTable {
    /// A table whose lists live for ever.
    pub fn new(table: TableId) -> Self {
        ListTable { table, cache: Cache::new(), backend: None, complete: false, next_part: 0 }
    }

    /// Connects the table to what is stored. Reads next to nothing.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn open(&mut self, backend: Backend) -> Result<()> {
        self.complete = backend.is_empty(self.table)?;
        self.next_part = backend.durable().0 + 1;
        self.cache.open(&backend);
        self.backend = Some(backend);
        Ok(())
    }

    /// The number of a key, which holds until the next `trim`. Reads nothing.
    pub fn load(&mut self, key: KeyRef<'_>) -> u32 {
        if let Some(number) = self.cache.find(key) {
            return number;
        }
        let first_part = (!self.complete).then_some(self.next_part);
        self.cache.insert(key, Items { bytes: Vec::new(), unsaved: 0, first_part, parts: 0 }, 0)
    }

    /// The same of a key that may have a list; `None` if it has none for sure. Takes no memory for keys without a list.
    pub fn find(&mut self, key: KeyRef<'_>) -> Option<u32> {
        match self.complete {
            true => self.cache.find(key),
            false => Some(self.load(key)),
        }
    }

    /// Adds an item at the end of a list. Reads nothing.
    ///
    /// # Errors
    /// For an item of 4 GiB.
    pub fn add(&mut self, number: u32, item: &[u8]) -> Result<()> {
        let length = u32::try_from(item.len()).map_err(|_| Error::internal("a row of 4 GiB"))?;
        let items = &mut self.cache.change(number).content;
        items.bytes.reserve(LENGTH_BYTES + item.len());
        items.bytes.extend_from_slice(&length.to_le_bytes());
        items.bytes.extend_from_slice(item);
        let bytes = items.total_bytes();
        self.cache.resize(number, bytes);
        Ok(())
    }

    /// Calls `visit` with the items of a list, in their order.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn visit(&mut self, number: u32, mut visit: impl FnMut(&[u8])) -> Result<()> {
        let stored = self.read(number)?;
        if let Some(stored) = &stored {
            each(stored, &mut visit)?;
        }
        each(&self.cache.slot(number).content.bytes, &mut visit)
    }

    /// Brings what the store alone has of a list into memory; returns it if it is too large for that.
    fn read(&mut self, number: u32) -> Result<Option<Vec<u8>>> {
        let slot = self.cache.slot(number);
        let Some(first_part) = slot.content.first_part else { return Ok(None) };
        let backend = self.backend.as_ref().ok_or_else(|| Error::internal("a table of state was not opened"))?;
        let (start, end) = (stored_key(&slot.key, 0), stored_key(&slot.key, first_part));
        let (mut stored, mut parts) = (Vec::new(), 0);
        for part in backend.scan_within(self.table, slot.key().group(), (&start, Some(&end)), false) {
            stored.extend_from_slice(&part?.1);
            parts += 1;
        }
        let items = &mut self.cache.slot_mut(number).content;
        if stored.len() + items.bytes.len() > KEPT_BYTES_MAX {
            return Ok(Some(stored));
        }
        items.unsaved += stored.len();
        items.parts += parts;
        stored.extend_from_slice(&items.bytes);
        items.bytes = stored;
        items.first_part = None;
        let bytes = items.total_bytes();
        self.cache.resize(number, bytes);
        Ok(None)
    }

    /// Forgets what the store has, if the job is over its memory budget. For the end of a batch.
    pub fn trim(&mut self) {
        let Some(backend) = &self.backend else { return };
        let mut complete = self.complete;
        self.cache.trim(backend.durable(), |items| complete &= items.bytes.is_empty());
        self.complete = complete;
    }

    /// Hands over what was added.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn checkpoint(&mut self, id: CheckpointId, changes: &mut Changes) -> Result<()> {
        let Some(backend) = &self.backend else { return Ok(()) };
        // Otherwise the store does not show all parts yet.
        let is_settled = backend.durable().0 + 1 >= self.next_part;
        for number in self.cache.hand_over(id) {
            let slot = self.cache.slot_mut(number);
            let group = slot.key().group();
            let items = &mut slot.content;
            let part = stored_key(&slot.key, id.0);
            let is_whole = items.first_part.is_none();
            if is_settled && is_whole && items.parts >= PARTS_MAX && items.bytes.len() <= MERGED_BYTES_MAX {
                for before in backend.scan_within(self.table, group, (&stored_key(&slot.key, 0), Some(&part)), false) {
                    changes.delete(backend.key(self.table, group, &before?.0));
                }
                (items.unsaved, items.parts) = (0, 0);
            }
            changes.put(backend.key(self.table, group, &part), items.bytes[items.unsaved..].to_vec());
            items.unsaved = items.bytes.len();
            items.parts += 1;
        }
        self.next_part = id.0 + 1;
        self.trim();
        Ok(())
    }

    /// Bytes in memory, roughly.
    pub fn bytes(&self) -> usize {
        self.cache.bytes()
    }
}

/// Calls `visit` with each item of a part.
fn each(mut part: &[u8], visit: &mut impl FnMut(&[u8])) -> Result<()> {
    while let Some((length, rest)) = part.split_first_chunk::<LENGTH_BYTES>() {
        let damaged = || Error::corrupt("an item of a list is longer than its part");
        let (item, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(damaged)?;
        visit(item);
        part = rest;
    }
    Ok(())
}

fn stored_key(key: &[u8], part: u64) -> Vec<u8> {
    let mut stored = Vec::with_capacity(LENGTH_BYTES + key.len() + 8);
    stored.extend_from_slice(&(key.len() as u32).to_be_bytes());
    stored.extend_from_slice(key);
    stored.extend_from_slice(&part.to_be_bytes());
    stored
}
