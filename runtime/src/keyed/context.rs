//! What a function may do beside changing its key's state: emit, set timers, and use collections.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::{Bound, ControlFlow, RangeBounds};

use bytes::Bytes;
use coulee_checkpoint::TableId;
use coulee_model::Timestamp;
use datafusion_common::ScalarValue;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::row::RowWriter;
use crate::state::{Backend, KeyPart, KeyRef, MapTable, Order, Timers};
use crate::{Error, Result, RowKind};

/// Tables of collections begin here.
const FIRST_COLLECTION: u8 = 16;
/// How many collections a function may have: the table ids that are left for them.
const COLLECTIONS_MAX: u8 = 96;

/// An ordered map per key. Declared once, as a constant; `id` is its stable identity among the function's collections.
#[derive(Debug)]
pub struct MapState<K, V> {
    id: u8,
    types: PhantomData<fn(K) -> V>,
}

impl<K, V> MapState<K, V> {
    /// The map with this identity, 0 to 95.
    pub const fn new(id: u8) -> Self {
        assert!(id < COLLECTIONS_MAX, "a collection's id is 0 to 95");
        MapState { id, types: PhantomData }
    }
}

/// A list per key. Declared once, as a constant; `id` is its stable identity among the function's collections.
#[derive(Debug)]
pub struct ListState<T>(MapState<u64, T>);

impl<T> ListState<T> {
    /// The list with this identity, 0 to 95; not one that a map has.
    pub const fn new(id: u8) -> Self {
        ListState(MapState::new(id))
    }
}

/// The tables of a function's collections, each made when it is first used.
#[derive(Debug, Default)]
pub(super) struct Collections {
    pub(super) tables: BTreeMap<u8, MapTable>,
    pub(super) backend: Option<Backend>,
    pub(super) ttl_millis: Option<i64>,
}

impl Collections {
    fn table(&mut self, id: u8) -> Result<&mut MapTable> {
        use std::collections::btree_map::Entry;
        match self.tables.entry(id) {
            Entry::Occupied(table) => Ok(table.into_mut()),
            Entry::Vacant(free) => {
                let mut table = MapTable::new(TableId(FIRST_COLLECTION + id), self.ttl_millis);
                let backend = self.backend.clone();
                table.open(backend.ok_or_else(|| Error::internal("a function was called before it was opened"))?)?;
                Ok(free.insert(table))
            }
        }
    }
}

/// What a function may do with the key that it is called for.
#[derive(Debug)]
pub struct KeyContext<'a> {
    pub(super) key: KeyRef<'a>,
    pub(super) out: &'a mut RowWriter,
    pub(super) sides: &'a mut [(String, RowWriter)],
    pub(super) collections: &'a mut Collections,
    pub(super) event_timers: &'a mut Timers,
    pub(super) processing_timers: &'a mut Timers,
    pub(super) watermark: Timestamp,
    pub(super) now: Timestamp,
    pub(super) emits_changelog: bool,
}

impl KeyContext<'_> {
    /// Emits a row: one value per column of the output's schema.
    ///
    /// # Errors
    /// `Invalid` when the number of values or a value's type is not the schema's.
    pub fn emit(&mut self, row: impl IntoIterator<Item = ScalarValue>) -> Result<()> {
        self.out.emit(row)
    }

    /// Emits a row of a changelog: an update as its old value ([`RowKind::UpdateBefore`]) and right after it the new one. What one call of the function
    /// emits stays together and in order, as far as its rows go to the same subtask.
    ///
    /// # Errors
    /// As [`KeyContext::emit`], and when the function does not say that it emits a changelog.
    pub fn emit_change(&mut self, kind: RowKind, row: impl IntoIterator<Item = ScalarValue>) -> Result<()> {
        if !self.emits_changelog {
            return Err(Error::invalid(
                "a function that emits changes must say so, for what follows it: `const EMITS_CHANGELOG: bool = true`",
            ));
        }
        self.out.emit_change(kind, row)
    }

    /// Emits a row into a side output.
    ///
    /// # Errors
    /// As [`KeyContext::emit`], and when there is no such side output.
    pub fn side(&mut self, name: &str, row: impl IntoIterator<Item = ScalarValue>) -> Result<()> {
        match self.sides.iter_mut().find(|(side, _)| side == name) {
            Some((_, out)) => out.emit(row),
            None => Err(Error::invalid(format!("there is no side output '{name}': declare it with `side_output`"))),
        }
    }

    /// No later row has an event time at or below this; [`Timestamp::MIN`] before the first watermark.
    pub fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// The wall clock, as of this batch of rows. What depends on it is not the same when the job is replayed.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Asks to be called for this key once the watermark has reached `at`: at the next watermark if it has already.
    pub fn event_timer(&mut self, at: Timestamp) {
        self.event_timers.register(at, self.key);
    }

    /// Takes back [`KeyContext::event_timer`].
    pub fn delete_event_timer(&mut self, at: Timestamp) {
        self.event_timers.delete(at, self.key);
    }

    /// Asks to be called for this key once the wall clock has reached `at`, also if no row comes.
    pub fn processing_timer(&mut self, at: Timestamp) {
        self.processing_timers.register(at, self.key);
    }

    /// Takes back [`KeyContext::processing_timer`].
    pub fn delete_processing_timer(&mut self, at: Timestamp) {
        self.processing_timers.delete(at, self.key);
    }

    /// The key's map.
    ///
    /// # Errors
    /// When the stored state cannot be read.
    pub fn map<'s, K, V>(&'s mut self, state: &MapState<K, V>) -> Result<MapView<'s, K, V>> {
        let table = self.collections.table(state.id)?;
        let number = table.load(self.key);
        Ok(MapView { table, number, types: PhantomData })
    }

    /// The key's list.
    ///
    /// # Errors
    /// When the stored state cannot be read.
    pub fn list<'s, T>(&'s mut self, state: &ListState<T>) -> Result<ListView<'s, T>> {
        Ok(ListView(self.map(&state.0)?))
    }
}

/// The map of one key.
#[derive(Debug)]
pub struct MapView<'a, K, V> {
    table: &'a mut MapTable,
    number: u32,
    types: PhantomData<fn(K) -> V>,
}

fn encoded<K: KeyPart>(key: &K) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16);
    key.encode_key(&mut bytes);
    bytes
}

fn decoded<V: DeserializeOwned>(value: &[u8]) -> Result<V> {
    postcard::from_bytes(value)
        .map_err(|e| Error::invalid(format!("a stored map entry does not fit the function's type: {e}")))
}

impl<K: KeyPart, V: Serialize + DeserializeOwned> MapView<'_, K, V> {
    /// The value of an entry.
    ///
    /// # Errors
    /// When the stored state cannot be read.
    pub fn get(&mut self, key: &K) -> Result<Option<V>> {
        self.table.get(self.number, &encoded(key))?.map(|value| decoded(&value)).transpose()
    }

    /// Sets an entry.
    ///
    /// # Errors
    /// When the value cannot be encoded.
    pub fn put(&mut self, key: &K, value: &V) -> Result<()> {
        let value = postcard::to_stdvec(value)
            .map_err(|e| Error::internal(format!("the value of a map entry cannot be encoded: {e}")))?;
        self.table.put(self.number, &encoded(key), Bytes::from(value));
        Ok(())
    }

    /// Removes an entry. One that is not there is fine.
    pub fn remove(&mut self, key: &K) {
        self.table.remove(self.number, &encoded(key));
    }

    /// The entries within the bounds, in the order of their keys. All of them are taken into memory: see [`MapView::scan`] for many.
    ///
    /// # Errors
    /// When the stored state cannot be read.
    pub fn range(&mut self, bounds: impl RangeBounds<K>) -> Result<Vec<(K, V)>> {
        let mut found = Vec::new();
        self.scan(bounds, Order::Ascending, |key, value| {
            found.push((key, value));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    /// Calls `visit` with the entries within the bounds, in the order of their keys or against it, until it breaks. Reads no more than that takes.
    ///
    /// # Errors
    /// When the stored state cannot be read, and those of `visit`.
    pub fn scan(
        &mut self,
        bounds: impl RangeBounds<K>,
        order: Order,
        mut visit: impl FnMut(K, V) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        self.scan_encoded(bounds, order, |mut key, value| visit(K::decode_key(&mut key)?, decoded(value)?))
    }

    fn scan_encoded(
        &mut self,
        bounds: impl RangeBounds<K>,
        order: Order,
        visit: impl FnMut(&[u8], &Bytes) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let bound = |bound: Bound<&K>| bound.map(encoded);
        let (start, end) = (bound(bounds.start_bound()), bound(bounds.end_bound()));
        let bounds = (start.as_ref().map(Vec::as_slice), end.as_ref().map(Vec::as_slice));
        self.table.scan(self.number, bounds, order, visit)
    }

    /// The first entry within the bounds. What it costs does not depend on how large the map is.
    ///
    /// # Errors
    /// When the stored state cannot be read.
    pub fn first(&mut self, bounds: impl RangeBounds<K>) -> Result<Option<(K, V)>> {
        self.end(bounds, Order::Ascending)
    }

    /// The last entry. What it costs does not depend on how large the map is.
    ///
    /// # Errors
    /// When the stored state cannot be read.
    pub fn last(&mut self) -> Result<Option<(K, V)>> {
        self.end(.., Order::Descending)
    }

    fn end(&mut self, bounds: impl RangeBounds<K>, order: Order) -> Result<Option<(K, V)>> {
        let mut found = None;
        self.scan(bounds, order, |key, value| {
            found = Some((key, value));
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// Removes the entries within the bounds. Their values are not kept in memory for that.
    ///
    /// # Errors
    /// When the stored state cannot be read.
    pub fn remove_range(&mut self, bounds: impl RangeBounds<K>) -> Result<()> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        self.scan_encoded(bounds, Order::Ascending, |key, _| {
            keys.push(key.to_vec());
            Ok(ControlFlow::Continue(()))
        })?;
        keys.iter().for_each(|key| self.table.remove(self.number, key));
        Ok(())
    }
}

/// The list of one key.
#[derive(Debug)]
pub struct ListView<'a, T>(MapView<'a, u64, T>);

impl<T: Serialize + DeserializeOwned> ListView<'_, T> {
    /// Adds an element behind all others.
    ///
    /// # Errors
    /// When the stored state cannot be read or the element cannot be encoded.
    pub fn push(&mut self, element: &T) -> Result<()> {
        let next = self.0.last()?.map_or(0, |(at, _)| at + 1);
        self.0.put(&next, element)
    }

    /// All elements, the oldest first. All of them are taken into memory: see [`ListView::scan`] for many.
    ///
    /// # Errors
    /// When the stored state cannot be read.
    pub fn all(&mut self) -> Result<Vec<T>> {
        Ok(self.0.range(..)?.into_iter().map(|(_, element)| element).collect())
    }

    /// Calls `visit` with the elements, the oldest first or last, until it breaks. Reads no more than that takes.
    ///
    /// # Errors
    /// When the stored state cannot be read, and those of `visit`.
    pub fn scan(&mut self, order: Order, mut visit: impl FnMut(T) -> Result<ControlFlow<()>>) -> Result<()> {
        self.0.scan(.., order, |_, element| visit(element))
    }

    /// Removes the oldest elements until at most `len` are left. Reads only those and the newest one.
    ///
    /// # Errors
    /// When the stored state cannot be read.
    pub fn keep_last(&mut self, len: usize) -> Result<()> {
        // Elements are numbered one after the other, and leave at the front only.
        let Some((last, _)) = self.0.last()? else { return Ok(()) };
        match (last + 1).checked_sub(len as u64) {
            Some(first) if first > 0 => self.0.remove_range(..first),
            _ => Ok(()),
        }
    }

    /// Removes all elements.
    ///
    /// # Errors
    /// When the stored state cannot be read.
    pub fn clear(&mut self) -> Result<()> {
        self.0.remove_range(..)
    }
}
