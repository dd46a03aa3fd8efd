//! What a subtask hands over at a checkpoint: puts and deletes under order-preserving keys.

use bytes::Bytes;
use coulee_model::{KeyGroup, OperatorId};

/// One of the tables of an operator: a name space of keys with one meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub u8);

/// Builds keys of the store: `operator u32 | table u8 | key group u16 | rest`, all big-endian, so that the keys of one operator,
/// of one table and of one range of key groups are each one contiguous range.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateKey(Vec<u8>);

impl StateKey {
    /// Bytes before `rest`.
    pub const PREFIX_BYTES: usize = 7;

    /// The key of `rest` in a table and key group.
    pub fn new(operator: OperatorId, table: TableId, group: KeyGroup, rest: &[u8]) -> Self {
        let mut key = Self::table_start(operator, table);
        key.extend_from_slice(&group.0.to_be_bytes());
        key.extend_from_slice(rest);
        StateKey(key)
    }

    pub(crate) fn table_start(operator: OperatorId, table: TableId) -> Vec<u8> {
        let mut key = Vec::with_capacity(24);
        key.extend_from_slice(&operator.0.to_be_bytes());
        key.push(table.0);
        key
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Change {
    Put(StateKey, Bytes),
    Delete(StateKey),
    DeleteRange(StateKey, StateKey),
}

/// The changes of one subtask since its last checkpoint, in the order in which they apply.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    pub(crate) list: Vec<Change>,
}

impl Changes {
    /// Sets a value.
    pub fn put(&mut self, key: StateKey, value: impl Into<Bytes>) {
        self.list.push(Change::Put(key, value.into()));
    }

    /// Removes a key. Removing what is not there is fine.
    pub fn delete(&mut self, key: StateKey) {
        self.list.push(Change::Delete(key));
    }

    /// Removes every key in `[from, to)`.
    pub fn delete_range(&mut self, from: StateKey, to: StateKey) {
        self.list.push(Change::DeleteRange(from, to));
    }

    /// Appends another subtask's changes.
    pub fn append(&mut self, mut other: Changes) {
        self.list.append(&mut other.list);
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.list
            .iter()
            .map(|change| match change {
                Change::Put(key, value) => key.0.len() + value.len(),
                Change::Delete(key) => key.0.len(),
                Change::DeleteRange(from, to) => from.0.len() + to.0.len(),
            })
            .sum()
    }
}
