//! What is kept of one side of a join: per key, each distinct row, how often it is there, and how many rows of the other side match it. Of a side whose rows are only
//! appended and whose matches nobody counts, it is the rows as they came: keeping one reads nothing.
//!
//! A row that is counted is kept in Arrow's row format, as the key of an entry in the map of its join key; the entry is [`Kept`]. The rows of an interval join have their time in
//! front (milliseconds, sign bit flipped, big-endian), so that they are kept in its order.

use std::borrow::Cow;
use std::ops::{Bound, ControlFlow};

use arrow::array::{Array, ArrayRef, TimestampMillisecondArray};
use arrow::row::{RowConverter, Rows, SortField};
use bytes::Bytes;
use coulee_checkpoint::{Changes, TableId};
use coulee_model::CheckpointId;

use super::JoinSide;
use crate::event_time::floor_to_millis;
use crate::keys::hash_keys;
use crate::operator::OpenContext;
use crate::row_errors::evaluate::{Failed, evaluate};
use crate::state::{KeyRef, ListTable, MapTable, Order};
use crate::{Batch, Error, Result};

/// What is known of a row that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Kept {
    /// How often it is there.
    pub count: u64,
    /// How many rows of the other side match it, each as often as it is there. Zero where nobody asks for it.
    pub matching: u64,
}

impl Kept {
    /// Two numbers, each a u64 in little-endian bytes.
    fn encode(self) -> Bytes {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.count.to_le_bytes());
        bytes[8..].copy_from_slice(&self.matching.to_le_bytes());
        Bytes::copy_from_slice(&bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let number = |at: usize| bytes.get(at..at + 8)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        match (number(0), number(8)) {
            (Some(count), Some(matching)) => Ok(Kept { count, matching }),
            _ => Err(Error::corrupt("an entry of a join's state has not 16 bytes")),
        }
    }
}

/// Rows of a batch with their join keys and their stored forms.
pub(super) struct KeyedRows {
    pub batch: Batch,
    /// `None` where there are no keys.
    keys: Option<Rows>,
    hashes: Vec<u64>,
    /// Whether one of the row's keys is null.
    has_null: Vec<bool>,
    /// `None` where there are no columns.
    rows: Option<Rows>,
    /// The times of the rows of an interval join.
    times: Option<TimestampMillisecondArray>,
}

impl KeyedRows {
    /// The key of a row.
    pub fn key(&self, row: usize) -> KeyRef<'_> {
        KeyRef { hash: self.hashes[row], bytes: encoded(self.keys.as_ref(), row) }
    }

    /// Whether another row can have the same key: a null equals nothing, unless said otherwise.
    pub fn has_partner(&self, row: usize, null_equals_null: bool) -> bool {
        (null_equals_null || !self.has_null[row]) && self.times.as_ref().is_none_or(|times| times.is_valid(row))
    }

    /// The time of a row of an interval join.
    pub fn time(&self, row: usize) -> Option<i64> {
        self.times.as_ref().filter(|times| times.is_valid(row)).map(|times| times.value(row))
    }

    /// Whether none of the row's keys is null.
    pub fn has_key(&self, row: usize) -> bool {
        !self.has_null[row]
    }

    /// The row's columns in Arrow's row format.
    pub fn encoded_row(&self, row: usize) -> &[u8] {
        encoded(self.rows.as_ref(), row)
    }

    /// The stored form of a row.
    fn stored(&self, row: usize) -> Cow<'_, [u8]> {
        let encoded = self.encoded_row(row);
        match self.time(row) {
            None => Cow::Borrowed(encoded),
            Some(time) => Cow::Owned([&time_key(time)[..], encoded].concat()),
        }
    }
}

/// How the stored forms of rows with a time begin.
pub(super) fn time_key(millis: i64) -> [u8; TIME_BYTES] {
    (millis as u64 ^ (1 << 63)).to_be_bytes()
}

pub(super) const TIME_BYTES: usize = 8;

/// The stored form of a row's columns; empty where there are none.
fn encoded(rows: Option<&Rows>, row: usize) -> &[u8] {
    rows.map_or(&[], |rows| rows.row(row).data())
}

/// The stored forms of rows with these columns. Arrow cannot tell how many rows there are of none.
fn rows(converter: &RowConverter, columns: &[ArrayRef]) -> Result<Option<Rows>> {
    if columns.is_empty() {
        return Ok(None);
    }
    Ok(Some(converter.convert_columns(columns)?))
}

/// The rows that are kept of one side.
pub(super) struct Side {
    keys: RowConverter,
    rows: RowConverter,
    has_columns: bool,
    has_times: bool,
    table: Table,
}

enum Table {
    /// Each distinct row with what is known of it.
    Counted(MapTable),
    /// The rows as they came.
    Appended(ListTable),
}

impl Side {
    /// A side whose rows are counted.
    pub fn new(side: &JoinSide, table: TableId) -> Result<Self> {
        Self::over(side, Table::Counted(MapTable::new(table, side.ttl_millis)))
    }

    /// A side whose rows are kept as they come.
    pub fn of_lists(side: &JoinSide, table: TableId) -> Result<Self> {
        Self::over(side, Table::Appended(ListTable::new(table)))
    }

    fn over(side: &JoinSide, table: Table) -> Result<Self> {
        let mut keys = Vec::with_capacity(side.keys.len());
        for key in &side.keys {
            keys.push(SortField::new(key.data_type(&side.schema)?));
        }
        let rows = side.schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        Ok(Side {
            keys: RowConverter::new(keys)?,
            rows: RowConverter::new(rows)?,
            has_columns: !side.schema.fields().is_empty(),
            has_times: side.retention.is_some(),
            table,
        })
    }

    pub fn open(&mut self, context: &OpenContext<'_>) -> Result<()> {
        match &mut self.table {
            Table::Counted(rows) => rows.open(context.backend()),
            Table::Appended(rows) => rows.open(context.backend()),
        }
    }

    /// The rows that are counted.
    ///
    /// # Errors
    /// When they are kept as they came.
    pub fn counted(&mut self) -> Result<&mut MapTable> {
        match &mut self.table {
            Table::Counted(rows) => Ok(rows),
            Table::Appended(_) => Err(Error::internal("a row that was appended is taken back")),
        }
    }

    /// Computes the keys of a batch.
    pub fn keyed(&self, side: &JoinSide, batch: Batch) -> Result<KeyedRows, Failed> {
        let columns: Vec<ArrayRef> =
            side.keys.iter().map(|key| evaluate(key, batch.rows())).collect::<Result<_, _>>()?;
        let times = match &side.retention {
            Some(retention) => Some(floor_to_millis(&evaluate(&retention.time, batch.rows())?)?),
            None => None,
        };
        let is_null = |row: usize| columns.iter().any(|column| column.is_null(row));
        Ok(KeyedRows {
            hashes: hash_keys(&columns, batch.len())?,
            has_null: (0..batch.len()).map(is_null).collect(),
            keys: rows(&self.keys, &columns)?,
            rows: rows(&self.rows, batch.rows().columns())?,
            times,
            batch,
        })
    }

    /// The number of a key, which holds until the next [`trim`](Side::trim); `None` where it has no rows for sure.
    pub fn number(&mut self, key: KeyRef<'_>) -> Option<u32> {
        match &mut self.table {
            Table::Counted(rows) => Some(rows.load(key)),
            Table::Appended(rows) => rows.find(key),
        }
    }

    /// Every row of a key: in the order of their stored forms where they are counted, or else as they came.
    pub fn rows_of(&mut self, number: u32, mut visit: impl FnMut(&[u8], Kept)) -> Result<()> {
        match &mut self.table {
            Table::Counted(rows) => {
                rows.scan(number, (Bound::Unbounded, Bound::Unbounded), Order::Ascending, |row, kept| {
                    visit(row, Kept::decode(kept)?);
                    Ok(ControlFlow::Continue(()))
                })
            }
            Table::Appended(rows) => rows.visit(number, |row| visit(row, Kept { count: 1, matching: 0 })),
        }
    }

    /// Columns of rows in their stored forms.
    pub fn decoded<'a>(&self, rows: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        let from = if self.has_times { TIME_BYTES } else { 0 };
        self.decoded_rows(rows.map(|row| row.get(from..).unwrap_or_default()))
    }

    /// Columns of rows in Arrow's row format.
    pub fn decoded_rows<'a>(&self, rows: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        if !self.has_columns {
            return Ok(Vec::new());
        }
        let parser = self.rows.parser();
        Ok(self.rows.convert_rows(rows.map(|row| parser.parse(row)))?)
    }

    /// What is known of a row, if it is kept.
    pub fn kept(&mut self, rows: &KeyedRows, row: usize) -> Result<Option<Kept>> {
        let table = self.counted()?;
        let number = table.load(rows.key(row));
        table.get(number, &rows.stored(row))?.map(|kept| Kept::decode(&kept)).transpose()
    }

    /// Forgets the rows of a key that have this time; gives each.
    pub fn forget(&mut self, key: KeyRef<'_>, time: i64, mut visit: impl FnMut(Box<[u8]>, Kept)) -> Result<()> {
        let table = self.counted()?;
        let number = table.load(key);
        let (from, to) = (time_key(time), time.checked_add(1).map(time_key));
        let bounds = (Bound::Included(&from[..]), to.as_ref().map_or(Bound::Unbounded, |to| Bound::Excluded(&to[..])));
        let mut found: Vec<(Box<[u8]>, Kept)> = Vec::new();
        table.scan(number, bounds, Order::Ascending, |row, kept| {
            found.push((row.into(), Kept::decode(kept)?));
            Ok(ControlFlow::Continue(()))
        })?;
        for (row, kept) in found {
            table.remove(number, &row);
            visit(row, kept);
        }
        Ok(())
    }

    /// Adds a row once more, or takes it away once; `matching` is how many rows of the other side match it now. A row that is taken away and is not there
    /// (its time to live has passed) is nothing.
    pub fn change(&mut self, rows: &KeyedRows, row: usize, is_retraction: bool, matching: u64) -> Result<()> {
        if let (Table::Appended(table), false) = (&mut self.table, is_retraction) {
            let number = table.load(rows.key(row));
            return table.add(number, rows.encoded_row(row));
        }
        let table = self.counted()?;
        let (number, stored) = (table.load(rows.key(row)), rows.stored(row));
        let kept = table.get(number, &stored)?;
        let count = kept.map_or(Ok(0), |kept| Kept::decode(&kept).map(|kept| kept.count))?;
        match (is_retraction, count) {
            (false, _) => table.put(number, &stored, Kept { count: count + 1, matching }.encode()),
            (true, 0) => {}
            (true, 1) => table.remove(number, &stored),
            (true, _) => table.put(number, &stored, Kept { count: count - 1, matching }.encode()),
        }
        Ok(())
    }

    /// Replaces what is known of a row.
    pub fn keep(&mut self, number: u32, row: &[u8], kept: Kept) -> Result<()> {
        self.counted()?.put(number, row, kept.encode());
        Ok(())
    }

    pub fn trim(&mut self) {
        match &mut self.table {
            Table::Counted(rows) => rows.trim(),
            Table::Appended(rows) => rows.trim(),
        }
    }

    pub fn checkpoint(&mut self, id: CheckpointId, changes: &mut Changes) -> Result<()> {
        match &mut self.table {
            Table::Counted(rows) => rows.checkpoint(id, changes),
            Table::Appended(rows) => rows.checkpoint(id, changes)?,
        }
        Ok(())
    }

    pub fn bytes(&self) -> usize {
        match &self.table {
            Table::Counted(rows) => rows.bytes(),
            Table::Appended(rows) => rows.bytes(),
        }
    }
}
