//! One value per key.

use std::collections::HashMap;

use bytes::Bytes;
use coulee_checkpoint::{Changes, StateKey, TableId};
use coulee_model::{CheckpointId, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::backend::{Backend, KeyRef};
use super::cache::Cache;
use super::ttl::Ttl;
use crate::{Error, Result};

/// Something that a [`ValueTable`] keeps.
pub trait StateValue: Sized + Send + 'static {
    /// Appends its stored form.
    ///
    /// # Errors
    /// When it has none.
    fn encode(&self, out: &mut Vec<u8>) -> Result<()>;

    /// From the stored form.
    ///
    /// # Errors
    /// `Corrupt` or `Invalid` when these are not the bytes of such a value.
    fn decode(bytes: &[u8]) -> Result<Self>;
}

impl StateValue for Bytes {
    fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(self);
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        Ok(Bytes::copy_from_slice(bytes))
    }
}

/// Any serialisable type, in postcard's encoding.
#[derive(Debug, Default)]
pub struct Postcard<S>(pub S);

impl<S: Serialize + DeserializeOwned + Send + 'static> StateValue for Postcard<S> {
    fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        postcard::to_io(&self.0, out)
            .map(|_| ())
            .map_err(|e| Error::internal(format!("a key's state cannot be encoded: {e}")))
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        postcard::from_bytes(bytes).map(Postcard).map_err(|e| {
            Error::invalid(format!("the stored state of a key does not fit the function's state type: {e}"))
        })
    }
}

/// How many slots are looked at for expired values at each checkpoint.
const SWEEP_SLOTS: usize = 65_536;

/// What is known of a key.
#[derive(Debug)]
struct Content<V> {
    /// `None`: the key has no value.
    value: Option<V>,
    /// When the value is gone by itself; never without a TTL.
    expires: Timestamp,
}

/// One value per key, for the keys of one subtask.
///
/// **Operations** `load` the keys of a batch, then `get` and `update` them by the numbers that it gave, then `trim`; `checkpoint` at a barrier.
/// **Guarantees** What is read is what was last written, through restarts and at any parallelism; memory follows the job's budget.
/// **Non-guarantees** A value with a time to live may stay on the disk beyond it for a while, but is never seen again.
#[derive(Debug)]
pub struct ValueTable<V> {
    table: TableId,
    ttl: Ttl,
    cache: Cache<Content<V>>,
    backend: Option<Backend>,
    /// Whether every value is in memory, so that a key that is not there has none.
    complete: bool,
    /// How many bytes the last value took that was encoded: what a new one is taken to have.
    typical_bytes: usize,
}

impl<V: StateValue> ValueTable<V> {
    /// A table of values, which live for `ttl_millis` after their last change if that is given.
    ///
    /// The stored value of a table with a TTL begins with its expiry, an i64 in big-endian milliseconds; its `TableId` has the highest bit set.
    pub fn new(table: TableId, ttl_millis: Option<i64>) -> Self {
        let ttl = Ttl::new(ttl_millis);
        ValueTable {
            table: ttl.table(table),
            ttl,
            cache: Cache::new(),
            backend: None,
            complete: false,
            typical_bytes: 0,
        }
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

    /// Brings keys into memory, by one multi-get, and gives the number of each. The numbers hold until the next `trim`.
    ///
    /// # Errors
    /// When the store cannot be read or a stored value does not decode.
    pub fn load(&mut self, keys: &[KeyRef<'_>]) -> Result<Vec<u32>> {
        if let Some(backend) = &self.backend {
            self.ttl.tick(backend);
        }
        let mut numbers = Vec::with_capacity(keys.len());
        let mut missing: Vec<usize> = Vec::new();
        for (at, key) in keys.iter().enumerate() {
            match self.cache.find(*key) {
                Some(number) => numbers.push(number),
                None if self.complete => numbers.push(self.vacant(*key)),
                None => {
                    numbers.push(u32::MAX);
                    missing.push(at);
                }
            }
        }
        if !missing.is_empty() {
            self.fetch(keys, &missing, &mut numbers)?;
        }
        Ok(numbers)
    }

    fn vacant(&mut self, key: KeyRef<'_>) -> u32 {
        self.cache.insert(key, Content { value: None, expires: Timestamp::MAX }, 0)
    }

    /// Reads the keys at the places `missing`, each once, in the order of the store.
    fn fetch(&mut self, keys: &[KeyRef<'_>], missing: &[usize], numbers: &mut [u32]) -> Result<()> {
        let Some(backend) = &self.backend else { return Err(Error::internal("a table of state was not opened")) };
        let mut wanted: HashMap<&[u8], u32> = HashMap::with_capacity(missing.len());
        let mut stored: Vec<(StateKey, usize)> = Vec::with_capacity(missing.len());
        for at in missing {
            if wanted.insert(keys[*at].bytes, u32::MAX).is_none() {
                stored.push((backend.key(self.table, keys[*at].group(), keys[*at].bytes), *at));
            }
        }
        stored.sort();
        let (stored, places): (Vec<StateKey>, Vec<usize>) = stored.into_iter().unzip();
        let found = backend.get_many(&stored)?;
        for (value, at) in found.into_iter().zip(places) {
            let key = keys[at];
            let number = match value {
                None => self.vacant(key),
                Some(bytes) => {
                    let content = self.decode(&bytes)?;
                    self.cache.insert(key, content, bytes.len())
                }
            };
            wanted.insert(key.bytes, number);
        }
        for at in missing {
            numbers[*at] = wanted[keys[*at].bytes];
        }
        Ok(())
    }

    fn decode(&self, stored: &[u8]) -> Result<Content<V>> {
        let (expires, value_at) = self.ttl.decode(stored)?;
        let value = if self.ttl.is_live(expires) { Some(V::decode(&stored[value_at..])?) } else { None };
        Ok(Content { value, expires })
    }

    /// The key of a number that `load` gave.
    pub fn key(&self, number: u32) -> KeyRef<'_> {
        self.cache.slot(number).key()
    }

    /// The value of a key, by the number that `load` gave.
    pub fn get(&self, number: u32) -> Option<&V> {
        let content = &self.cache.slot(number).content;
        content.value.as_ref().filter(|_| self.ttl.is_live(content.expires))
    }

    /// Changes the value of a key; `None` is no value. It counts as changed even if it is left as it was.
    pub fn update(&mut self, number: u32) -> &mut Option<V> {
        let ttl = self.ttl;
        if self.cache.slot(number).content.value.is_none() {
            self.cache.resize(number, self.typical_bytes);
        }
        let content = &mut self.cache.change(number).content;
        if !ttl.is_live(content.expires) {
            content.value = None;
        }
        content.expires = ttl.expiry();
        &mut content.value
    }

    /// Forgets what the store has, if the job is over its memory budget. For the end of a batch.
    pub fn trim(&mut self) {
        let Some(backend) = &self.backend else { return };
        let mut complete = self.complete;
        self.cache.trim(backend.durable(), |content| complete &= content.value.is_none());
        self.complete = complete;
    }

    /// Hands over what changed.
    ///
    /// # Errors
    /// When a value cannot be encoded.
    pub fn checkpoint(&mut self, id: CheckpointId, changes: &mut Changes) -> Result<()> {
        let Some(backend) = &self.backend else { return Ok(()) };
        for number in self.cache.hand_over(id) {
            let slot = self.cache.slot(number);
            let key = backend.key(self.table, slot.key().group(), &slot.key);
            let Some(value) = slot.content.value.as_ref().filter(|_| self.ttl.is_live(slot.content.expires)) else {
                changes.delete(key);
                self.cache.resize(number, 0);
                continue;
            };
            let mut encoded = Vec::with_capacity(32);
            self.ttl.encode(slot.content.expires, &mut encoded);
            value.encode(&mut encoded)?;
            self.typical_bytes = encoded.len();
            self.cache.resize(number, encoded.len());
            changes.put(key, encoded);
        }
        if self.ttl.expires() {
            self.ttl.tick(backend);
            let ttl = self.ttl;
            let gone = |content: &Content<V>| content.value.is_none() || !ttl.is_live(content.expires);
            self.cache.sweep(SWEEP_SLOTS, backend.durable(), gone);
        }
        self.trim();
        Ok(())
    }

    /// Bytes in memory, roughly.
    pub fn bytes(&self) -> usize {
        self.cache.bytes()
    }
}
