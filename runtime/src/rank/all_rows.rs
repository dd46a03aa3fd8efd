//! All rows of partitions that may still be asked for, over a changelog or with numbers that several rows share: one ordered map per partition.

use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use coulee_checkpoint::{Changes, TableId};
use coulee_model::CheckpointId;

use super::difference::{BeforeAndAfter, KeptRow, Ranked};
use super::spec::{RankFunction, RankSpec};
use crate::state::{Backend, KeyRef, MapTable, Order};
use crate::{Error, Result};

pub(super) struct AllRows(MapTable);

impl AllRows {
    pub fn new(table: TableId, ttl_millis: Option<i64>) -> Self {
        AllRows(MapTable::new(table, ttl_millis))
    }

    pub fn open(&mut self, backend: Backend) -> Result<()> {
        self.0.open(backend)
    }

    /// The numbers of the partitions of rows.
    pub fn load(&mut self, rows: &[KeptRow]) -> Vec<u32> {
        rows.iter().map(|row| self.0.load(KeyRef { hash: row.hash, bytes: &row.partition })).collect()
    }

    /// Adds rows to a partition and takes others, which are marked, away.
    pub fn change<'a>(
        &mut self,
        spec: &RankSpec,
        partition: u32,
        rows: impl Iterator<Item = (&'a KeptRow, bool)>,
    ) -> Result<BeforeAndAfter> {
        let before = self.first_rows(spec, partition)?;
        for (row, is_retraction) in rows {
            self.change_row(partition, row, is_retraction)?;
        }
        let after = self.first_rows(spec, partition)?;
        if !spec.changelog {
            self.forget_the_rest(partition, &after)?;
        }
        Ok(BeforeAndAfter { before, after })
    }

    /// The rows of a partition up to the last number that is asked for, each as often as it is there.
    fn first_rows(&mut self, spec: &RankSpec, partition: u32) -> Result<Vec<Ranked>> {
        let mut found: Vec<Ranked> = Vec::new();
        let (mut before, mut number, mut last): (u64, u64, Option<Vec<u8>>) = (0, 0, None);
        let (function, to) = (spec.function, spec.to);
        self.0.scan(partition, (Bound::Unbounded, Bound::Unbounded), Order::Ascending, |key, stored| {
            let (count, order_bytes) = decode(stored)?;
            let order = key.get(..order_bytes as usize).unwrap_or_default();
            let is_tie = last.as_deref() == Some(order);
            for _ in 0..count {
                number = match function {
                    RankFunction::RowNumber => before + 1,
                    RankFunction::Rank if is_tie || found.last().is_some_and(|row| row.key == key) => number,
                    RankFunction::Rank => before + 1,
                    RankFunction::DenseRank if is_tie || found.last().is_some_and(|row| row.key == key) => number,
                    RankFunction::DenseRank => number + 1,
                };
                if number > to {
                    return Ok(ControlFlow::Break(()));
                }
                found.push(Ranked { key: key.to_vec(), number });
                before += 1;
            }
            last = Some(order.to_vec());
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    fn change_row(&mut self, partition: u32, row: &KeptRow, is_retraction: bool) -> Result<()> {
        let stored = self.0.get(partition, &row.key)?;
        let count = stored.map_or(Ok(0), |stored| decode(&stored).map(|(count, _)| count))?;
        match (is_retraction, count) {
            (false, count) => self.0.put(partition, &row.key, encode(count + 1, row.order_bytes)),
            // Its time to live has passed.
            (true, 0) => {}
            (true, 1) => self.0.remove(partition, &row.key),
            (true, count) => self.0.put(partition, &row.key, encode(count - 1, row.order_bytes)),
        }
        Ok(())
    }

    /// Forgets the rows of a partition behind those that are asked for, which no later row lets move up.
    fn forget_the_rest(&mut self, partition: u32, first: &[Ranked]) -> Result<()> {
        let Some(last) = first.last() else { return Ok(()) };
        let kept = first.iter().rev().take_while(|row| row.key == last.key).count() as u64;
        let (mut gone, mut of_last) = (Vec::new(), None);
        let behind = (Bound::Included(last.key.as_slice()), Bound::Unbounded);
        self.0.scan(partition, behind, Order::Ascending, |key, stored| {
            match key == last.key.as_slice() {
                true => of_last = Some(decode(stored)?),
                false => gone.push(key.to_vec()),
            }
            Ok(ControlFlow::Continue(()))
        })?;
        for key in gone {
            self.0.remove(partition, &key);
        }
        if let Some((count, order_bytes)) = of_last
            && count > kept
        {
            self.0.put(partition, &last.key, encode(kept, order_bytes));
        }
        Ok(())
    }

    pub fn trim(&mut self) {
        self.0.trim();
    }

    pub fn checkpoint(&mut self, id: CheckpointId, changes: &mut Changes) {
        self.0.checkpoint(id, changes);
    }

    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

/// How often a row is there, a u64, and how many bytes of its key are the order, a u32; little-endian.
fn encode(count: u64, order_bytes: u32) -> Bytes {
    let mut bytes = Vec::with_capacity(12);
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&order_bytes.to_le_bytes());
    bytes.into()
}

fn decode(stored: &[u8]) -> Result<(u64, u32)> {
    match (stored.first_chunk(), stored.get(8..).and_then(<[u8]>::first_chunk)) {
        (Some(count), Some(order)) => Ok((u64::from_le_bytes(*count), u32::from_le_bytes(*order))),
        _ => Err(Error::corrupt("an entry of a rank's state has not 12 bytes")),
    }
}
