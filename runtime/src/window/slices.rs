//! The open windows of one subtask: tables of what came since the last checkpoint, and runs of what came before.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use coulee_checkpoint::{Changes, StateKey};
use coulee_model::{CheckpointId, KeyGroup, OperatorId, SubtaskIndex, Timestamp};

use super::runs::{RUNS, Run, RunId, WATERMARK, decode, encode};
use crate::group_table::{GroupTable, Grouping, Inputs};
use crate::keys::hash_keys;
use crate::operator::OpenContext;
use crate::{Error, Result};

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

/// All open windows of one subtask, by their end.
pub(super) struct Slices {
    grouping: Grouping,
    schema: SchemaRef,
    widths: Vec<usize>,
    open: BTreeMap<i64, Slice>,
    /// Keys of stored runs that are no longer part of the state.
    obsolete: Vec<StateKey>,
    operator: OperatorId,
    subtask: SubtaskIndex,
    parallelism: u32,
    stored_watermark: Timestamp,
}

impl Slices {
    pub(super) fn new(grouping: Grouping) -> Result<Self> {
        let (schema, widths) = (grouping.state_schema()?, grouping.state_widths()?);
        Ok(Slices {
            grouping,
            schema,
            widths,
            open: BTreeMap::new(),
            obsolete: Vec::new(),
            operator: OperatorId(0),
            subtask: SubtaskIndex(0),
            parallelism: 1,
            stored_watermark: Timestamp::MIN,
        })
    }

    /// Takes the stored state; returns the watermark that was reached.
    pub(super) fn open(&mut self, context: &OpenContext<'_>) -> Result<Timestamp> {
        (self.operator, self.subtask, self.parallelism) = (context.operator, context.subtask, context.parallelism);
        for entry in context.entries(RUNS) {
            let (_, rest, blob) = entry?;
            let id = RunId::parse(&rest)?;
            if id.parallelism != self.parallelism {
                self.adopt(id, &blob)?;
            } else if id.subtask == self.subtask {
                let run = Run { rows: decode(&blob)?, stored: Some(id.key(self.operator)) };
                self.check(&run.rows)?;
                self.slice(id.window_end)?.runs.push(run);
            }
        }
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
    fn adopt(&mut self, id: RunId, blob: &Bytes) -> Result<()> {
        let rows = decode(blob)?;
        self.check(&rows)?;
        let keys = &rows.columns()[..self.grouping.keys.len()];
        let hashes = hash_keys(keys, rows.num_rows())?;
        let mine = |hash: &u64| Some(KeyGroup::of_hash(*hash).owner(self.parallelism) == self.subtask);
        let rows = filter_record_batch(&rows, &hashes.iter().map(mine).collect::<BooleanArray>())?;
        self.obsolete.push(id.key(self.operator));
        if rows.num_rows() > 0 {
            self.merge(id.window_end, rows.columns())?;
        }
        Ok(())
    }

    fn check(&self, rows: &RecordBatch) -> Result<()> {
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
            Entry::Vacant(free) => Ok(free.insert(Slice { table: GroupTable::new(&self.grouping)?, runs: Vec::new() })),
        }
    }

    /// Merges partial results into a window: columns as in `Grouping::state_schema`.
    pub(super) fn merge(&mut self, end: i64, states: &[ArrayRef]) -> Result<()> {
        let (keys, widths) = (self.grouping.keys.len(), std::mem::take(&mut self.widths));
        let merged = self.slice(end).and_then(|slice| slice.table.merge(states, keys, &widths));
        self.widths = widths;
        merged
    }

    /// What the watermark must reach for the first open window to close.
    pub(super) fn next_result(&self) -> Option<Timestamp> {
        self.open.first_key_value().map(|(end, _)| Timestamp(end.saturating_sub(1)))
    }

    /// Closes the first window that the watermark has passed, if there is one: its end and `[keys…, aggregates…]`.
    pub(super) fn take_due(&mut self, watermark: Timestamp) -> Result<Option<(i64, Vec<ArrayRef>)>> {
        let Some(entry) = self.open.first_entry() else { return Ok(None) };
        let end = *entry.key();
        if end.saturating_sub(1) > watermark.0 {
            return Ok(None);
        }
        let mut slice = entry.remove();
        for run in slice.runs {
            slice.table.merge(run.rows.columns(), self.grouping.keys.len(), &self.widths)?;
            self.obsolete.extend(run.stored);
        }
        Ok(Some((end, slice.table.take_results()?)))
    }

    /// Hands over what changed since the last checkpoint.
    pub(super) fn checkpoint(&mut self, id: CheckpointId, watermark: Timestamp, changes: &mut Changes) -> Result<()> {
        for (end, slice) in &mut self.open {
            if slice.table.is_empty() {
                continue;
            }
            // Runs at most twice as large are merged with the new one: sizes stay geometric, so their number stays logarithmic.
            while slice.runs.last().is_some_and(|run| run.rows.num_rows() <= 2 * slice.table.len()) {
                let Some(run) = slice.runs.pop() else { break };
                slice.table.merge(run.rows.columns(), self.grouping.keys.len(), &self.widths)?;
                self.obsolete.extend(run.stored);
            }
            let rows = RecordBatch::try_new(self.schema.clone(), slice.table.take_state()?)?;
            let run = RunId { window_end: *end, checkpoint: id, subtask: self.subtask, parallelism: self.parallelism };
            let key = run.key(self.operator);
            changes.put(key.clone(), encode(&rows)?);
            slice.runs.push(Run { rows, stored: Some(key) });
        }
        for key in self.obsolete.drain(..) {
            changes.delete(key);
        }
        if watermark != self.stored_watermark {
            let key = StateKey::new(self.operator, WATERMARK, KeyGroup(0), &self.subtask.0.to_be_bytes());
            changes.put(key, watermark.0.to_be_bytes().to_vec());
            self.stored_watermark = watermark;
        }
        Ok(())
    }

    /// Bytes in memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        let of_runs = |slice: &Slice| slice.runs.iter().map(|run| run.rows.get_array_memory_size()).sum::<usize>();
        self.open.values().map(|slice| slice.table.bytes() + of_runs(slice)).sum()
    }
}
