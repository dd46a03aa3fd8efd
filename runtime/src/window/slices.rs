//! The slices of one subtask: tables of what came since the last checkpoint, and [runs](crate::runs) of what came before.
//!
//! Rows enter a slice, and a window fires over all of its slices: see `fire`. A slice lives until the last window that holds it has fired. Which windows have
//! fired follows from the watermark that was reached, which is stored with every checkpoint.
//!
//! Runs that a durable checkpoint holds can be left to the store when the job is over its memory budget.

mod blocks;
mod by_blocks;
mod fire;
mod slice;

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::array::ArrayRef;
use arrow::record_batch::RecordBatch;
use coulee_checkpoint::{Changes, StateKey, TableId};
use coulee_model::{CheckpointId, KeyGroup, OperatorId, SubtaskIndex, Timestamp};

use super::kind::{Windows, is_over};
use super::layout::Layout;
use crate::operator::OpenContext;
use crate::runs::{RunTables, Runs};
use crate::state::MemoryReservation;
use crate::{Error, Result};

use blocks::Blocks;
use slice::{Slice, TABLE_FACTOR, merge_runs, not_opened, slice};

/// The table of the watermark reached: one entry per subtask.
const WATERMARK: TableId = TableId(0);
/// The tables of partial results.
const TABLES: RunTables = RunTables { pieces: TableId(1), index: TableId(2) };

/// A window that is being closed, one range of key groups after the other. The tables of its slices are frozen.
struct Closing {
    end: i64,
    /// The ranges that are left.
    ranges: Vec<Range<u16>>,
}

/// All slices of one subtask that an open window holds, by their end.
pub(super) struct Slices {
    pub(super) layout: Layout,
    windows: Windows,
    open: BTreeMap<i64, Slice>,
    blocks: Blocks,
    /// The windows that this watermark closes have fired, or are in `closing`.
    fired: Timestamp,
    closing: Option<Closing>,
    /// `None` before `open`.
    runs: Option<Runs>,
    operator: OperatorId,
    subtask: SubtaskIndex,
    reservation: Option<MemoryReservation>,
    stored_watermark: Timestamp,
    /// Whether it has been said that rows were taken back that never came.
    said_missing: bool,
}

impl Slices {
    pub(super) fn new(layout: Layout, windows: Windows) -> Self {
        Slices {
            layout,
            windows,
            open: BTreeMap::new(),
            blocks: Blocks::default(),
            fired: Timestamp::MIN,
            closing: None,
            runs: None,
            operator: OperatorId(0),
            subtask: SubtaskIndex(0),
            reservation: None,
            stored_watermark: Timestamp::MIN,
            said_missing: false,
        }
    }

    /// Takes the stored state; returns the watermark that was reached.
    pub(super) fn open(&mut self, context: &OpenContext<'_>) -> Result<Timestamp> {
        (self.operator, self.subtask) = (context.operator, context.subtask);
        let (schema, key_count) = (self.layout.schema.clone(), self.layout.key_count);
        let adopt = |end: i64, rows: &RecordBatch| self.merge(end, rows.columns());
        let (runs, sets) = Runs::open(context, TABLES, schema, key_count, adopt)?;
        for (end, set) in sets {
            self.slice(end)?.runs = set;
        }
        self.reservation = Some(runs.backend().reservation());
        self.runs = Some(runs);
        // Barriers are aligned, so all subtasks had reached the same watermark; the highest is safe as well where one had not stored it yet.
        let mut reached = Timestamp::MIN;
        for entry in context.entries(WATERMARK) {
            let (_, _, value) = entry?;
            let value: [u8; 8] =
                value.as_ref().try_into().map_err(|_| Error::corrupt("a stored watermark has not 8 bytes"))?;
            reached = reached.max(Timestamp(i64::from_be_bytes(value)));
        }
        self.fired = reached;
        Ok(reached)
    }

    /// The slice that ends at `end`, opened if need be, to be changed.
    pub(super) fn slice(&mut self, end: i64) -> Result<&mut Slice> {
        self.change(end);
        slice(&mut self.open, &self.layout, end)
    }

    /// Before a slice is changed.
    fn change(&mut self, end: i64) {
        // No window has needed a slice that is not over.
        if is_over(end, self.fired) {
            self.blocks.forget(self.windows.number_of(end));
        }
    }

    /// Merges partial results into a slice: columns as in `Grouping::state_schema`.
    pub(super) fn merge(&mut self, end: i64, states: &[ArrayRef]) -> Result<()> {
        self.change(end);
        let slice = slice(&mut self.open, &self.layout, end)?;
        self.layout.merge(&mut slice.table, states)
    }

    /// The most bytes, as stored, of a run that is merged in memory: larger ones are left alone.
    fn merged_bytes_max(&self) -> usize {
        self.reservation.as_ref().map_or(usize::MAX, MemoryReservation::fair) / (2 * TABLE_FACTOR)
    }

    /// Hands over what changed since the last checkpoint.
    pub(super) fn checkpoint(&mut self, id: CheckpointId, watermark: Timestamp, changes: &mut Changes) -> Result<()> {
        assert!(self.closing.is_none(), "a barrier came while a window was being closed");
        let largest = self.merged_bytes_max();
        let (layout, runs) = (&self.layout, self.runs.as_mut().ok_or_else(not_opened)?);
        for (end, slice) in &mut self.open {
            slice.thaw(layout)?;
            if slice.table.is_empty() {
                continue;
            }
            while let Some(run) = runs.absorb(&mut slice.runs, slice.table.len(), largest) {
                merge_runs(layout, runs, &mut slice.table, &run, &(0..KeyGroup::COUNT))?;
            }
            let rows = layout.take_stored(&mut slice.table)?;
            runs.store((*end, &mut slice.runs), id, rows, changes)?;
        }
        runs.hand_over(changes);
        if watermark != self.stored_watermark {
            let key = StateKey::new(self.operator, WATERMARK, KeyGroup(0), &self.subtask.0.to_be_bytes());
            changes.put(key, watermark.0.to_be_bytes().to_vec());
            self.stored_watermark = watermark;
        }
        self.trim();
        Ok(())
    }

    /// Leaves runs to the store if the job is over its memory budget, those that are needed last first. A checkpoint is asked for when that is not enough.
    pub(super) fn trim(&mut self) {
        let bytes = self.bytes();
        let (Some(reservation), Some(runs)) = (&mut self.reservation, &self.runs) else { return };
        reservation.set(bytes);
        if !reservation.is_over() {
            return;
        }
        let (mut left, target, durable) = (bytes, reservation.fair() / 2, runs.backend().durable());
        left -= self.blocks.give_up();
        for slice in self.open.values_mut().rev() {
            if left <= target {
                break;
            }
            left -= slice.runs.unload(durable, left - target);
        }
        reservation.set(left);
        if reservation.is_over() {
            reservation.request_checkpoint();
        }
    }

    /// Bytes in memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.open.values().map(Slice::bytes).sum::<usize>() + self.blocks.bytes()
    }
}
