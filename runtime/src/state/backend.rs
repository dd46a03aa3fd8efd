//! What tables of state stand on: the store of the job, and which part of it belongs to the subtask.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use coulee_checkpoint::{JobStore, StateKey, TableId};
use coulee_model::{CheckpointId, Clock, KeyGroup, OperatorId, SubtaskIndex, Timestamp};

use super::budget::{MemoryBudget, MemoryReservation};
use crate::planted::{Bug, is_planted};
use crate::{Error, Result};

/// A key, and its hash as [`hash_keys`](crate::keys::hash_keys) gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRef<'a> {
    /// The hash, which also decides the key group.
    pub hash: u64,
    /// The key's bytes: equal keys have equal bytes.
    pub bytes: &'a [u8],
}

impl KeyRef<'_> {
    /// The key's group.
    pub fn group(&self) -> KeyGroup {
        KeyGroup::of_hash(self.hash)
    }
}

/// The state of one operator, as one of its subtasks sees it.
#[derive(Clone)]
pub struct Backend {
    operator: OperatorId,
    groups: Range<u16>,
    store: Arc<JobStore>,
    budget: Arc<MemoryBudget>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend")
            .field("operator", &self.operator)
            .field("groups", &self.groups)
            .finish_non_exhaustive()
    }
}

impl Backend {
    /// For subtask `subtask` of `parallelism`.
    pub fn new(
        operator: OperatorId,
        subtask: SubtaskIndex,
        parallelism: u32,
        store: Arc<JobStore>,
        budget: Arc<MemoryBudget>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let owned = |group: &u16| KeyGroup(*group).owner(parallelism) == subtask;
        let start = (0..KeyGroup::COUNT).find(owned).unwrap_or(KeyGroup::COUNT);
        let end = (start..KeyGroup::COUNT).find(|group| !owned(group)).unwrap_or(KeyGroup::COUNT);
        let end = if is_planted(Bug::KeyGroupForgotten) { end.saturating_sub(1).max(start) } else { end };
        Backend { operator, groups: start..end, store, budget, clock }
    }

    /// Whose state it is.
    pub fn operator(&self) -> OperatorId {
        self.operator
    }

    /// The key groups that the subtask owns.
    pub fn groups(&self) -> Range<u16> {
        self.groups.clone()
    }

    /// The wall clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The last checkpoint that is durable: the store shows exactly that.
    pub fn durable(&self) -> CheckpointId {
        self.store.last_checkpoint().map_or(CheckpointId(0), |record| record.id)
    }

    /// A part of the job's memory budget.
    pub fn reservation(&self) -> MemoryReservation {
        MemoryReservation::new(self.budget.clone())
    }

    /// The key of an entry.
    pub fn key(&self, table: TableId, group: KeyGroup, rest: &[u8]) -> StateKey {
        StateKey::new(self.operator, table, group, rest)
    }

    /// The stored values of many keys, in their order, by one multi-get.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn get_many(&self, keys: &[StateKey]) -> Result<Vec<Option<Bytes>>> {
        Ok(self.store.get_many(keys)?)
    }

    /// Stored entries `(rest of the key, value)` of one key group whose rest is in `[start, end)`, in the order of keys or against it. Read as they are
    /// taken.
    ///
    /// # Errors
    /// When the store cannot be read, per item.
    pub fn scan_within<'a>(
        &'a self,
        table: TableId,
        group: KeyGroup,
        (start, end): (&[u8], Option<&[u8]>),
        descending: bool,
    ) -> Box<dyn Iterator<Item = Result<(Bytes, Bytes)>> + 'a> {
        let entry = |entry: coulee_checkpoint::Result<(Bytes, Bytes)>| {
            let (key, value) = entry?;
            // Behind the key group.
            Ok((key.slice(2.min(key.len())..), value))
        };
        match descending {
            true => Box::new(self.store.scan_back(self.operator, table, group, (start, end)).map(entry)),
            false => {
                let groups = group.0..group.0.saturating_add(1);
                Box::new(self.store.scan_range(self.operator, table, groups, start, end).map(entry))
            }
        }
    }

    /// Whether the subtask has nothing stored in a table.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn is_empty(&self, table: TableId) -> Result<bool> {
        match self.scan(table, self.groups(), &[]).next() {
            None => Ok(true),
            Some(Ok(_)) => Ok(false),
            Some(Err(error)) => Err(error),
        }
    }

    /// Stored entries `(group, rest of the key, value)` of some key groups, in key order; of a single group, from `start` on.
    ///
    /// # Errors
    /// When the store cannot be read, per item.
    pub fn scan(
        &self,
        table: TableId,
        groups: Range<u16>,
        start: &[u8],
    ) -> impl Iterator<Item = Result<(KeyGroup, Bytes, Bytes)>> + '_ {
        self.store.scan_range(self.operator, table, groups, start, None).map(|entry| {
            let (key, value) = entry?;
            let group = key.first_chunk().map(|group| KeyGroup(u16::from_be_bytes(*group)));
            let group = group.ok_or_else(|| Error::corrupt("a key of the stored state has no key group"))?;
            Ok((group, key.slice(2..), value))
        })
    }
}
