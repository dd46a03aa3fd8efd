//! The open windows of one subtask: tables of what came since the last checkpoint, and [runs](crate::runs) of what came before.
//!
//! Runs that a durable checkpoint holds can be left to the store when the job is over its memory budget. A window that is larger than its part of the
//! budget is closed range by range of key groups.

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use coulee_checkpoint::{Changes, StateKey, TableId};
use coulee_model::{CheckpointId, KeyGroup, OperatorId, SubtaskIndex, Timestamp};

use super::layout::{Closed, Layout};
use crate::group_table::{GroupTable, Inputs};
use crate::operator::OpenContext;
use crate::runs::{RunSet, RunTables, Runs};
use crate::state::MemoryReservation;
use crate::{Error, Result};

/// The table of the watermark reached: one entry per subtask.
const WATERMARK: TableId = TableId(0);
/// The tables of partial results; a slice is known by the window's end.
const TABLES: RunTables = RunTables { pieces: TableId(1), index: TableId(2) };

/// How much more a stored run takes as a hash table, roughly.
const TABLE_FACTOR: usize = 4;

/// One open window.
pub(super) struct Slice {
    table: GroupTable,
    runs: RunSet,
}

impl Slice {
    pub(super) fn update(&mut self, inputs: &Inputs, rows: usize) -> Result<()> {
        self.table.update(inputs, rows)
    }
}

/// A window that is being closed, one range of key groups after the other.
struct Closing {
    end: i64,
    /// What the window's table held, as rows; in no run.
    rows: RecordBatch,
    runs: RunSet,
    /// The ranges that are left.
    ranges: Vec<Range<u16>>,
}

/// All open windows of one subtask, by their end.
pub(super) struct Slices {
    pub(super) layout: Layout,
    schema: SchemaRef,
    widths: Vec<usize>,
    open: BTreeMap<i64, Slice>,
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
    pub(super) fn new(layout: Layout) -> Result<Self> {
        let (schema, widths) = (layout.grouping.state_schema()?, layout.grouping.state_widths()?);
        Ok(Slices {
            layout,
            schema,
            widths,
            open: BTreeMap::new(),
            closing: None,
            runs: None,
            operator: OperatorId(0),
            subtask: SubtaskIndex(0),
            reservation: None,
            stored_watermark: Timestamp::MIN,
            said_missing: false,
        })
    }

    /// Takes the stored state; returns the watermark that was reached.
    pub(super) fn open(&mut self, context: &OpenContext<'_>) -> Result<Timestamp> {
        (self.operator, self.subtask) = (context.operator, context.subtask);
        let (schema, key_count) = (self.schema.clone(), self.layout.key_count);
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
        Ok(reached)
    }

    fn runs(&self) -> Result<&Runs> {
        self.runs.as_ref().ok_or_else(not_opened)
    }

    /// The window that ends at `end`, opened if need be.
    pub(super) fn slice(&mut self, end: i64) -> Result<&mut Slice> {
        use std::collections::btree_map::Entry;
        match self.open.entry(end) {
            Entry::Occupied(slice) => Ok(slice.into_mut()),
            Entry::Vacant(free) => {
                Ok(free.insert(Slice { table: GroupTable::new(&self.layout.grouping)?, runs: RunSet::default() }))
            }
        }
    }

    /// Merges partial results into a window: columns as in `Grouping::state_schema`.
    pub(super) fn merge(&mut self, end: i64, states: &[ArrayRef]) -> Result<()> {
        let (keys, widths) = (self.layout.grouping.keys.len(), std::mem::take(&mut self.widths));
        let merged = self.slice(end).and_then(|slice| slice.table.merge(states, keys, &widths));
        self.widths = widths;
        merged
    }

    /// What the watermark must reach for the first open window to close.
    pub(super) fn next_result(&self) -> Option<Timestamp> {
        self.open.first_key_value().map(|(end, _)| Timestamp(end.saturating_sub(1)))
    }

    /// Closes the first window that the watermark has passed, or a part of it: its end and what it gives, with no rows where a part is empty.
    /// `None` when nothing is left to close.
    pub(super) fn take_due(&mut self, watermark: Timestamp) -> Result<Option<(i64, Closed)>> {
        if self.closing.is_some() {
            return self.close_part().map(Some);
        }
        let Some(entry) = self.open.first_entry() else { return Ok(None) };
        let end = *entry.key();
        if end.saturating_sub(1) > watermark.0 {
            return Ok(None);
        }
        let mut slice = entry.remove();
        let runs = self.runs.as_mut().ok_or_else(not_opened)?.retire(slice.runs);
        let bytes = runs.stored_bytes() * TABLE_FACTOR;
        let parts = bytes.div_ceil(self.reservation.as_ref().map_or(usize::MAX, MemoryReservation::fair).max(1));
        if parts > 1 {
            let rows = RecordBatch::try_new(self.schema.clone(), slice.table.take_state()?)?;
            let step = (usize::from(KeyGroup::COUNT) / parts).max(1);
            let range = |start: usize| start as u16..(start + step).min(usize::from(KeyGroup::COUNT)) as u16;
            let ranges = (0..usize::from(KeyGroup::COUNT)).step_by(step).map(range).rev().collect();
            self.closing = Some(Closing { end, rows, runs, ranges });
            return self.close_part().map(Some);
        }
        self.merge_runs(&mut slice.table, &runs, &(0..KeyGroup::COUNT))?;
        self.result(end, slice.table).map(Some)
    }

    /// The next range of the window that is being closed.
    fn close_part(&mut self) -> Result<(i64, Closed)> {
        let Some(mut closing) = self.closing.take() else { return Err(Error::internal("no window is being closed")) };
        let mut table = GroupTable::new(&self.layout.grouping)?;
        if let Some(range) = closing.ranges.pop() {
            let rows = self.runs()?.of_groups(closing.rows.clone(), &range)?;
            if rows.num_rows() > 0 {
                table.merge(rows.columns(), self.layout.grouping.keys.len(), &self.widths)?;
            }
            self.merge_runs(&mut table, &closing.runs, &range)?;
        }
        let end = closing.end;
        if !closing.ranges.is_empty() {
            self.closing = Some(closing);
        }
        self.result(end, table)
    }

    /// What a table that holds all of a window, or of a part of it, gives.
    fn result(&mut self, end: i64, mut table: GroupTable) -> Result<(i64, Closed)> {
        let closed = self.layout.close(&mut table)?;
        if closed.missing > 0 && !std::mem::replace(&mut self.said_missing, true) {
            tracing::warn!(
                operator = self.operator.0,
                subtask = self.subtask.0,
                rows = closed.missing,
                "rows of a window were taken back more often than they came, which counts as nothing; said once"
            );
        }
        Ok((end, closed))
    }

    /// Merges the rows of runs that lie in a range of key groups into a table.
    fn merge_runs(&self, table: &mut GroupTable, runs: &RunSet, groups: &Range<u16>) -> Result<()> {
        if runs.is_empty() {
            return Ok(());
        }
        let keys = self.layout.grouping.keys.len();
        self.runs()?.rows(runs, groups, |rows| table.merge(rows.columns(), keys, &self.widths))
    }

    /// Hands over what changed since the last checkpoint.
    pub(super) fn checkpoint(&mut self, id: CheckpointId, watermark: Timestamp, changes: &mut Changes) -> Result<()> {
        assert!(self.closing.is_none(), "a barrier came while a window was being closed");
        // Larger runs are left alone, as merging needs them in memory.
        let largest = self.reservation.as_ref().map_or(usize::MAX, MemoryReservation::fair) / (2 * TABLE_FACTOR);
        for (end, mut slice) in std::mem::take(&mut self.open) {
            if !slice.table.is_empty() {
                while let Some(run) =
                    self.runs.as_mut().and_then(|runs| runs.absorb(&mut slice.runs, slice.table.len(), largest))
                {
                    self.merge_runs(&mut slice.table, &run, &(0..KeyGroup::COUNT))?;
                }
                let state = self.layout.stored(slice.table.take_state()?)?;
                let rows = RecordBatch::try_new(self.schema.clone(), state)?;
                let runs = self.runs.as_mut().ok_or_else(not_opened)?;
                runs.store((end, &mut slice.runs), id, rows, changes)?;
            }
            self.open.insert(end, slice);
        }
        if let Some(runs) = &mut self.runs {
            runs.hand_over(changes);
        }
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
        self.open.values().map(|slice| slice.table.bytes() + slice.runs.loaded_bytes()).sum()
    }
}

fn not_opened() -> Error {
    Error::internal("windows were not opened")
}
