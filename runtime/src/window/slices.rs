//! The open windows of one subtask: tables of what came since the last checkpoint, and runs of what came before.
//!
//! Runs that a durable checkpoint holds can be left to the store when the job is over its memory budget. A window that is larger than its part of the
//! budget is closed range by range of key groups.

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use coulee_checkpoint::{Changes, StateKey};
use coulee_model::{CheckpointId, KeyGroup, OperatorId, SubtaskIndex, Timestamp};

use super::layout::{Closed, Layout};
use super::runs::{INDEX, RUNS, Run, RunId, WATERMARK};
use crate::group_table::{GroupTable, Inputs};
use crate::keys::hash_keys;
use crate::operator::OpenContext;
use crate::state::{Backend, Share};
use crate::{Error, Result};

/// How much more a stored run takes as a hash table, roughly.
const TABLE_FACTOR: usize = 4;

/// One open window.
pub(super) struct Slice {
    table: GroupTable,
    /// Older and larger runs first.
    runs: Vec<Run>,
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
    runs: Vec<Run>,
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
    /// Keys of stored runs that are no longer part of the state.
    obsolete: Vec<StateKey>,
    operator: OperatorId,
    subtask: SubtaskIndex,
    parallelism: u32,
    backend: Option<Backend>,
    share: Option<Share>,
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
            obsolete: Vec::new(),
            operator: OperatorId(0),
            subtask: SubtaskIndex(0),
            parallelism: 1,
            backend: None,
            share: None,
            stored_watermark: Timestamp::MIN,
            said_missing: false,
        })
    }

    /// Takes the stored state; returns the watermark that was reached.
    pub(super) fn open(&mut self, context: &OpenContext<'_>) -> Result<Timestamp> {
        (self.operator, self.subtask, self.parallelism) = (context.operator, context.subtask, context.parallelism);
        let backend = context.backend();
        self.share = Some(backend.share());
        let mut known = false;
        for entry in context.entries(INDEX) {
            let (_, rest, index) = entry?;
            let run = Run::stored(RunId::parse(&rest)?, &index)?;
            known = true;
            if run.id.parallelism != self.parallelism {
                self.adopt(&run, &backend)?;
            } else if run.id.subtask == self.subtask {
                self.slice(run.id.window_end)?.runs.push(run);
            }
        }
        if !known && context.entries(RUNS).next().is_some() {
            return Err(Error::invalid(
                "the windows' state was written by an earlier version, without an index; start the job with --fresh",
            ));
        }
        for slice in self.open.values_mut() {
            slice.runs.sort_by_key(|run| std::cmp::Reverse(run.len()));
        }
        self.check(&backend)?;
        self.backend = Some(backend);
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

    /// Takes this subtask's share of a run that was written at another parallelism. The next checkpoint stores it anew and
    /// removes the old one; that every subtask removes it is harmless.
    fn adopt(&mut self, run: &Run, backend: &Backend) -> Result<()> {
        self.obsolete.extend(run.keys(self.operator));
        for rows in run.rows(&backend.groups(), backend)? {
            self.fits(&rows)?;
            let rows = self.of_groups(rows, &backend.groups())?;
            if rows.num_rows() > 0 {
                self.merge(run.id.window_end, rows.columns())?;
            }
        }
        Ok(())
    }

    /// The rows whose key group is in the range.
    fn of_groups(&self, rows: RecordBatch, groups: &Range<u16>) -> Result<RecordBatch> {
        if *groups == (0..KeyGroup::COUNT) {
            return Ok(rows);
        }
        let hashes = hash_keys(&rows.columns()[..self.layout.key_count], rows.num_rows())?;
        let within = |hash: &u64| Some(groups.contains(&KeyGroup::of_hash(*hash).0));
        Ok(filter_record_batch(&rows, &hashes.iter().map(within).collect::<BooleanArray>())?)
    }

    /// One run tells whether the stored state is that of this query.
    fn check(&self, backend: &Backend) -> Result<()> {
        let smallest = self.open.values().flat_map(|slice| &slice.runs).min_by_key(|run| run.stored_bytes());
        match smallest {
            Some(run) => run.rows(&(0..KeyGroup::COUNT), backend)?.iter().try_for_each(|rows| self.fits(rows)),
            None => Ok(()),
        }
    }

    fn fits(&self, rows: &RecordBatch) -> Result<()> {
        let types = |schema: &SchemaRef| schema.fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>();
        if types(&rows.schema()) == types(&self.schema) {
            return Ok(());
        }
        Err(Error::invalid(
            "the stored state of a window has other columns than the query now computes; start the job with --fresh, or restore the former query",
        ))
    }

    /// The window that ends at `end`, opened if need be.
    pub(super) fn slice(&mut self, end: i64) -> Result<&mut Slice> {
        use std::collections::btree_map::Entry;
        match self.open.entry(end) {
            Entry::Occupied(slice) => Ok(slice.into_mut()),
            Entry::Vacant(free) => {
                Ok(free.insert(Slice { table: GroupTable::new(&self.layout.grouping)?, runs: Vec::new() }))
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
        self.obsolete.extend(slice.runs.iter().flat_map(|run| run.keys(self.operator)));
        let bytes = slice.runs.iter().map(Run::stored_bytes).sum::<usize>() * TABLE_FACTOR;
        let parts = bytes.div_ceil(self.share.as_ref().map_or(usize::MAX, Share::fair).max(1));
        if parts > 1 {
            let rows = RecordBatch::try_new(self.schema.clone(), slice.table.take_state()?)?;
            let step = (usize::from(KeyGroup::COUNT) / parts).max(1);
            let range = |start: usize| start as u16..(start + step).min(usize::from(KeyGroup::COUNT)) as u16;
            let ranges = (0..usize::from(KeyGroup::COUNT)).step_by(step).map(range).rev().collect();
            self.closing = Some(Closing { end, rows, runs: slice.runs, ranges });
            return self.close_part().map(Some);
        }
        self.merge_runs(&mut slice.table, &slice.runs, &(0..KeyGroup::COUNT))?;
        self.result(end, slice.table).map(Some)
    }

    /// The next range of the window that is being closed.
    fn close_part(&mut self) -> Result<(i64, Closed)> {
        let Some(mut closing) = self.closing.take() else { return Err(Error::internal("no window is being closed")) };
        let mut table = GroupTable::new(&self.layout.grouping)?;
        if let Some(range) = closing.ranges.pop() {
            let rows = self.of_groups(closing.rows.clone(), &range)?;
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
    fn merge_runs(&self, table: &mut GroupTable, runs: &[Run], groups: &Range<u16>) -> Result<()> {
        if runs.is_empty() {
            return Ok(());
        }
        let Some(backend) = &self.backend else { return Err(Error::internal("windows were not opened")) };
        for run in runs {
            for rows in run.rows(groups, backend)? {
                let rows = self.of_groups(rows, groups)?;
                if rows.num_rows() > 0 {
                    table.merge(rows.columns(), self.layout.grouping.keys.len(), &self.widths)?;
                }
            }
        }
        Ok(())
    }

    /// Hands over what changed since the last checkpoint.
    pub(super) fn checkpoint(&mut self, id: CheckpointId, watermark: Timestamp, changes: &mut Changes) -> Result<()> {
        assert!(self.closing.is_none(), "a barrier came while a window was being closed");
        // Larger runs are left alone, as merging needs them in memory.
        let largest = self.share.as_ref().map_or(usize::MAX, Share::fair) / (2 * TABLE_FACTOR);
        for (end, mut slice) in std::mem::take(&mut self.open) {
            if !slice.table.is_empty() {
                // Runs at most twice as large are merged with the new one: sizes stay geometric, so their number stays logarithmic.
                let is_small = |run: &Run, rows: usize| run.len() <= 2 * rows && run.stored_bytes() <= largest;
                while slice.runs.last().is_some_and(|run| is_small(run, slice.table.len())) {
                    let Some(run) = slice.runs.pop() else { break };
                    self.obsolete.extend(run.keys(self.operator));
                    self.merge_runs(&mut slice.table, &[run], &(0..KeyGroup::COUNT))?;
                }
                let state = self.layout.stored(slice.table.take_state()?)?;
                let rows = RecordBatch::try_new(self.schema.clone(), state)?;
                let run =
                    RunId { window_end: end, checkpoint: id, subtask: self.subtask, parallelism: self.parallelism };
                if rows.num_rows() > 0 {
                    slice.runs.push(Run::store(run, rows, self.layout.key_count, self.operator, changes)?);
                }
            }
            self.open.insert(end, slice);
        }
        for key in self.obsolete.drain(..) {
            changes.delete(key);
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
        let (Some(share), Some(backend)) = (&mut self.share, &self.backend) else { return };
        share.set(bytes);
        if !share.is_over() {
            return;
        }
        let (mut left, durable) = (bytes, backend.durable());
        for run in self.open.values_mut().rev().flat_map(|slice| &mut slice.runs) {
            if left <= share.fair() / 2 {
                break;
            }
            left -= run.loaded_bytes();
            run.unload(durable);
            left += run.loaded_bytes();
        }
        share.set(left);
        if share.is_over() {
            share.request_checkpoint();
        }
    }

    /// Bytes in memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        let of_runs = |slice: &Slice| slice.runs.iter().map(Run::loaded_bytes).sum::<usize>();
        self.open.values().map(|slice| slice.table.bytes() + of_runs(slice)).sum()
    }
}
