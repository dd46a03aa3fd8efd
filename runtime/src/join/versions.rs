//! The versions of a table's rows: per key and time, the row that the table has from that time on, or that it has none.
//!
//! An entry is found by its time (milliseconds, sign bit flipped, big-endian); it holds 1 and the row in Arrow's row format, or 0 where the row was deleted.

use std::ops::{Bound, ControlFlow};

use arrow::array::ArrayRef;
use bytes::Bytes;
use coulee_checkpoint::{Changes, TableId};
use coulee_model::CheckpointId;

use super::JoinSide;
use super::side::{KeyedRows, Side, TIME_BYTES, time_key};
use crate::operator::OpenContext;
use crate::row_errors::evaluate::Failed;
use crate::state::{KeyRef, Order};
use crate::{Batch, Error, Result, RowKind};

const DELETED: u8 = 0;
const ROW: u8 = 1;

/// From when on it is there, and the row; `None` where the row was deleted.
type Version = (i64, Option<Box<[u8]>>);

/// The versions of the rows of one side.
pub(super) struct Versions(Side);

impl Versions {
    pub fn new(side: &JoinSide, table: TableId) -> Result<Self> {
        Side::new(side, table).map(Versions)
    }

    pub fn open(&mut self, context: &OpenContext<'_>) -> Result<()> {
        self.0.open(context)
    }

    pub fn keyed(&self, side: &JoinSide, batch: Batch) -> Result<KeyedRows, Failed> {
        self.0.keyed(side, batch)
    }

    /// Keeps a row as the version from its time on; returns the time. Another version of the same time is replaced. A deletion without a time takes the newest version
    /// away; a row without one is none.
    pub fn put(&mut self, rows: &KeyedRows, row: usize) -> Result<Option<i64>> {
        let kind = rows.batch.kind(row);
        if kind == RowKind::UpdateBefore {
            return Ok(None);
        }
        let number = self.0.counted()?.load(rows.key(row));
        let is_deleted = kind == RowKind::Delete;
        let time = match rows.time(row) {
            Some(time) => Some(time),
            None if is_deleted => self.newest(number, Bound::Unbounded)?.map(|(time, _)| time),
            None => None,
        };
        let Some(time) = time else { return Ok(None) };
        let value = match is_deleted {
            true => vec![DELETED],
            false => [&[ROW][..], rows.encoded_row(row)].concat(),
        };
        self.0.counted()?.put(number, &time_key(time), Bytes::from(value));
        Ok(Some(time))
    }

    /// The row that a key has at a time.
    pub fn at(&mut self, key: KeyRef<'_>, time: i64) -> Result<Option<Box<[u8]>>> {
        let (number, end) = (self.0.counted()?.load(key), time_key(time));
        Ok(self.newest(number, Bound::Included(&end))?.and_then(|(_, row)| row))
    }

    /// Forgets the versions of a key that none later than this time can meet: those before the one of that time, and that one if it is a deletion.
    pub fn forget_before(&mut self, key: KeyRef<'_>, time: i64) -> Result<()> {
        let (number, end) = (self.0.counted()?.load(key), time_key(time));
        let Some((newest, row)) = self.newest(number, Bound::Included(&end))? else { return Ok(()) };
        let newest = time_key(newest);
        let mut old: Vec<Box<[u8]>> = Vec::new();
        let before = (Bound::Unbounded, Bound::Excluded(&newest[..]));
        self.0.counted()?.scan(number, before, Order::Ascending, |at, _| {
            old.push(at.into());
            Ok(ControlFlow::Continue(()))
        })?;
        if row.is_none() {
            old.push(newest.into());
        }
        let table = self.0.counted()?;
        old.iter().for_each(|at| table.remove(number, at));
        Ok(())
    }

    /// The newest version of a key up to a bound: its time, and its row unless it is a deletion.
    fn newest(&mut self, number: u32, end: Bound<&[u8; TIME_BYTES]>) -> Result<Option<Version>> {
        let (mut found, end) = (None, end.map(|end| &end[..]));
        self.0.counted()?.scan(number, (Bound::Unbounded, end), Order::Descending, |at, value| {
            let damaged = || Error::corrupt("a stored version has no time, or says nothing of its row");
            let at = at.first_chunk::<TIME_BYTES>().ok_or_else(damaged)?;
            let time = (u64::from_be_bytes(*at) ^ (1 << 63)) as i64;
            found = match value.split_first().ok_or_else(damaged)? {
                (&ROW, row) => Some((time, Some(row.into()))),
                (&DELETED, _) => Some((time, None)),
                _ => return Err(damaged()),
            };
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// Columns of rows.
    pub fn decoded<'a>(&self, rows: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        self.0.decoded_rows(rows)
    }

    pub fn trim(&mut self) {
        self.0.trim();
    }

    pub fn checkpoint(&mut self, id: CheckpointId, changes: &mut Changes) -> Result<()> {
        self.0.checkpoint(id, changes)
    }

    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }
}
