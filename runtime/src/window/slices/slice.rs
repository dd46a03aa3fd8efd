//! One slice, and what merges its parts.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

use arrow::record_batch::RecordBatch;
use coulee_model::KeyGroup;

use crate::group_table::{GroupTable, Inputs};
use crate::runs::{RunSet, Runs};
use crate::window::layout::Layout;
use crate::{Error, Result};

pub(super) const ALL_GROUPS: Range<u16> = 0..KeyGroup::COUNT;

/// How much more a stored run takes as a hash table, roughly.
pub(super) const TABLE_FACTOR: usize = 4;

/// One slice.
pub(in crate::window) struct Slice {
    pub table: GroupTable,
    /// What the table held when a window fired and another window still needed the slice: a partial result that is in no run.
    pub frozen: Option<RecordBatch>,
    pub runs: RunSet,
}

impl Slice {
    pub fn update(&mut self, inputs: &Inputs, rows: usize) -> Result<()> {
        self.table.update(inputs, rows)
    }

    /// Empties the table into the frozen partial result, which can be read again and again.
    pub fn freeze(&mut self, layout: &Layout) -> Result<()> {
        if !self.table.is_empty() {
            self.thaw(layout)?;
            self.frozen = Some(layout.take(&mut self.table)?);
        }
        Ok(())
    }

    /// Takes the frozen partial result back into the table.
    pub fn thaw(&mut self, layout: &Layout) -> Result<()> {
        match self.frozen.take() {
            Some(rows) => layout.merge(&mut self.table, rows.columns()),
            None => Ok(()),
        }
    }

    pub fn bytes(&self) -> usize {
        let frozen = self.frozen.as_ref().map_or(0, RecordBatch::get_array_memory_size);
        self.table.bytes() + frozen + self.runs.loaded_bytes()
    }
}

/// The slice that ends at `end`, opened if need be.
pub(super) fn slice<'a>(open: &'a mut BTreeMap<i64, Slice>, layout: &Layout, end: i64) -> Result<&'a mut Slice> {
    match open.entry(end) {
        Entry::Occupied(slice) => Ok(slice.into_mut()),
        Entry::Vacant(free) => Ok(free.insert(Slice { table: layout.table()?, frozen: None, runs: RunSet::default() })),
    }
}

/// Merges what a slice holds beside its table, of a range of key groups, into a table. `frozen` has only rows of that range.
pub(super) fn merge_all(
    layout: &Layout,
    runs: &Runs,
    table: &mut GroupTable,
    frozen: Option<&RecordBatch>,
    set: &RunSet,
    groups: &Range<u16>,
) -> Result<()> {
    if let Some(rows) = frozen.filter(|rows| rows.num_rows() > 0) {
        layout.merge(table, rows.columns())?;
    }
    merge_runs(layout, runs, table, set, groups)
}

/// Merges the rows of runs that lie in a range of key groups into a table.
pub(super) fn merge_runs(
    layout: &Layout,
    runs: &Runs,
    table: &mut GroupTable,
    set: &RunSet,
    groups: &Range<u16>,
) -> Result<()> {
    runs.rows(set, groups, |rows| layout.merge(table, rows.columns()))
}

pub(super) fn not_opened() -> Error {
    Error::internal("windows were not opened")
}
