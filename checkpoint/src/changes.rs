//! What a subtask hands over at a checkpoint: puts and deletes under order-preserving keys.

use bytes::Bytes;
use coulee_model::{KeyGroup, OperatorId, Timestamp};

/// One of the tables of an operator: a name space of keys with one meaning.
///
/// The values of a table whose number has the bit [`EXPIRES`](Self::EXPIRES) begin with an expiry, see [`with_expiry`]; entries whose time
/// has come are not read any more, and give their disk space back in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub u8);

impl TableId {
    /// The bit that marks a table whose values begin with an expiry.
    pub const EXPIRES: u8 = 0x80;

    /// Whether the table's values begin with an expiry.
    pub fn expires(self) -> bool {
        self.0 & Self::EXPIRES != 0
    }
}

impl std::fmt::Display for TableId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Bytes of the expiry at the head of a value of an expiring table.
pub const EXPIRY_BYTES: usize = 8;

/// The value of an entry of an expiring table: `at` (i64, big-endian, ms since 1970) and `value`. The entry is gone when the store's clock
/// shows `at` or later; [`Timestamp::MAX`] is never. Readers get the expiry back with the value.
pub fn with_expiry(at: Timestamp, value: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(EXPIRY_BYTES + value.len());
    bytes.extend_from_slice(&at.0.to_be_bytes());
    bytes.extend_from_slice(value);
    bytes.into()
}

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

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Whose key it is.
    pub fn operator(&self) -> OperatorId {
        let [a, b, c, d, ..] = self.0[..] else { unreachable!("a key has {} bytes at least", Self::PREFIX_BYTES) };
        OperatorId(u32::from_be_bytes([a, b, c, d]))
    }

    /// The table it is in.
    pub fn table(&self) -> TableId {
        TableId(self.0[4])
    }

    /// Whether both are of one table of one operator.
    pub(crate) fn same_table(&self, other: &StateKey) -> bool {
        self.0[..5] == other.0[..5]
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Change {
    Put(StateKey, Bytes),
    Delete(StateKey),
    DeleteRange(StateKey, StateKey),
}

impl Change {
    /// Its key; of a range, the first.
    fn key(&self) -> &StateKey {
        match self {
            Change::Put(key, _) | Change::Delete(key) | Change::DeleteRange(key, _) => key,
        }
    }
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

    /// Removes everything that an operator has.
    pub fn forget_operator(operator: OperatorId) -> Changes {
        let start = StateKey(StateKey::table_start(operator, TableId(0)));
        let end = StateKey(StateKey::table_start(OperatorId(operator.0 + 1), TableId(0)));
        Changes { list: vec![Change::DeleteRange(start, end)] }
    }

    /// Appends another subtask's changes.
    pub fn append(&mut self, mut other: Changes) {
        self.list.append(&mut other.list);
    }

    /// Orders by key what can be reordered: RocksDB inserts neighbours faster, as it finds their place in the processor's cache.
    pub(crate) fn sort(&mut self) {
        let is_range = |change: &Change| matches!(change, Change::DeleteRange(..));
        for run in self.list.split_mut(is_range) {
            // Stable: of several changes to a key the last one holds.
            run.sort_by(|a, b| a.key().cmp(b.key()));
        }
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

    /// Bytes that these take in RocksDB's write batch, at most.
    pub(crate) fn encoded_bytes(&self) -> usize {
        // A tag, the column family and two lengths.
        const HEAD_BYTES: usize = 12;
        let encoded = |change: &Change| match change {
            Change::Put(key, value) => HEAD_BYTES + key.0.len() + value.len(),
            Change::Delete(key) => HEAD_BYTES + key.0.len(),
            // May be written for both column families.
            Change::DeleteRange(from, to) => 2 * (HEAD_BYTES + from.0.len() + to.0.len()),
        };
        self.list.iter().map(encoded).sum()
    }
}
