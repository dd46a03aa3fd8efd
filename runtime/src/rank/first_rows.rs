//! The first rows of partitions whose rows are only appended and numbered one by one: one value per partition, so that a batch reads all that it
//! needs at once and writes a partition once.

use coulee_checkpoint::{Changes, TableId};
use coulee_model::CheckpointId;

use super::difference::{BeforeAndAfter, KeptRow, Ranked};
use crate::state::{Backend, KeyRef, StateValue, ValueTable};
use crate::{Error, Result};

/// Bytes before a row: its length.
const LENGTH_BYTES: usize = 4;

/// A partition's first rows in their order: each its length (u32, little-endian) and its key.
#[derive(Debug, Default)]
struct Rows(Vec<u8>);

impl StateValue for Rows {
    fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(&self.0);
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        Ok(Rows(bytes.to_vec()))
    }
}

impl Rows {
    fn keys(&self) -> Result<Vec<&[u8]>> {
        let (mut keys, mut rest) = (Vec::new(), &self.0[..]);
        while let Some((length, behind)) = rest.split_first_chunk::<LENGTH_BYTES>() {
            let damaged = || Error::corrupt("a row of a rank's state is longer than the state");
            let (key, behind) = behind.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(damaged)?;
            keys.push(key);
            rest = behind;
        }
        Ok(keys)
    }

    fn of(keys: &[&[u8]]) -> Self {
        let mut rows = Vec::with_capacity(keys.iter().map(|key| LENGTH_BYTES + key.len()).sum());
        for key in keys {
            rows.extend_from_slice(&(key.len() as u32).to_le_bytes());
            rows.extend_from_slice(key);
        }
        Rows(rows)
    }
}

pub(super) struct FirstRows {
    table: ValueTable<Rows>,
    /// How many rows of a partition are kept.
    to: usize,
}

impl FirstRows {
    pub fn new(table: TableId, to: usize) -> Self {
        FirstRows { table: ValueTable::new(table, None), to }
    }

    pub fn open(&mut self, backend: Backend) -> Result<()> {
        self.table.open(backend)
    }

    /// The numbers of the partitions of rows.
    pub fn load(&mut self, rows: &[KeptRow]) -> Result<Vec<u32>> {
        let keys: Vec<_> = rows.iter().map(|row| KeyRef { hash: row.hash, bytes: &row.partition }).collect();
        self.table.load(&keys)
    }

    /// Adds rows to a partition.
    pub fn add<'a>(&mut self, partition: u32, rows: impl Iterator<Item = &'a KeptRow>) -> Result<BeforeAndAfter> {
        let before = match self.table.get(partition) {
            Some(rows) => rows.keys()?,
            None => Vec::new(),
        };
        let mut after = before.clone();
        let mut is_changed = false;
        for row in rows {
            let at = after.partition_point(|key| *key <= &row.key[..]);
            if at < self.to {
                after.insert(at, &row.key);
                after.truncate(self.to);
                is_changed = true;
            }
        }
        if !is_changed {
            return Ok(BeforeAndAfter::default());
        }
        let found = BeforeAndAfter { before: ranked(&before), after: ranked(&after) };
        let rows = Rows::of(&after);
        *self.table.update(partition) = Some(rows);
        Ok(found)
    }

    pub fn trim(&mut self) {
        self.table.trim();
    }

    pub fn checkpoint(&mut self, id: CheckpointId, changes: &mut Changes) -> Result<()> {
        self.table.checkpoint(id, changes)
    }

    pub fn bytes(&self) -> usize {
        self.table.bytes()
    }
}

fn ranked(keys: &[&[u8]]) -> Vec<Ranked> {
    keys.iter().zip(1..).map(|(key, number)| Ranked { key: key.to_vec(), number }).collect()
}
