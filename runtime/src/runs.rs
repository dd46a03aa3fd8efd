//! Runs: state in columns, as a log-structured merge of partial results. What windows keep, and for aggregates and joins that outgrow a value per key.
//!
//! State is kept by *slice*, a number of the caller's (the end of a window; 0 for state that no window bounds), and within a slice by key columns. What changed
//! since the last checkpoint is a batch of rows, each key once: at a barrier the batch becomes a *run*, one columnar blob, or several by ranges of
//! key groups. Runs of at most twice its size are merged into it first, so that sizes stay geometric: a slice has logarithmically many runs, and a row is written
//! anew logarithmically often.
//!
//! ```text
//! rows since the last checkpoint ── absorb (small runs) ──▶ merged by the caller ── store ──▶ a new run ──▶ Changes
//! older and larger runs ──────────────────────────────────────────────────────────────────▶ stay as they are
//! closing a slice: retire ──▶ rows of all runs, range by range of key groups ──▶ merged by the caller
//! ```
//!
//! **Operations** [`Runs::open`] finds what is stored; at a barrier, for each slice that changed, [`Runs::absorb`] and [`Runs::store`], then [`Runs::hand_over`];
//! [`Runs::retire`] when a slice is closed; [`Runs::rows`] reads. [`RunSet::unload`] leaves runs to the store that it has.
//! **Guarantees** After a restart the slices and rows are those of the checkpoint, at any parallelism: a run that was written at another one is given to `adopt`,
//! by the rows that the subtask owns, and is stored anew with the next checkpoint. A run that was merged or retired leaves the store with the same checkpoint
//! that stores what replaces it.
//! **Non-guarantees** A key may be in several runs of a slice: what its rows mean together is the caller's to say. Rows have no order.
//! **Failure** A damaged blob is an error of kind `Corrupt`; rows with other columns than the caller's are `Invalid`.

mod run;

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use coulee_checkpoint::{Changes, StateKey};
use coulee_model::{CheckpointId, KeyGroup, SubtaskIndex};

use crate::keys::hash_keys;
use crate::operator::OpenContext;
use crate::state::Backend;
use crate::{Error, Result};
use run::{Run, RunId};

pub use run::RunTables;

/// The runs of one slice.
#[derive(Debug, Default)]
pub struct RunSet {
    /// Older and larger ones first.
    runs: Vec<Run>,
}

impl RunSet {
    /// How many runs.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Bytes as stored.
    pub fn stored_bytes(&self) -> usize {
        self.runs.iter().map(Run::stored_bytes).sum()
    }

    /// Bytes in memory.
    pub fn loaded_bytes(&self) -> usize {
        self.runs.iter().map(Run::loaded_bytes).sum()
    }

    /// Leaves runs to the store that it has when `durable` is the last durable checkpoint, until `wanted` bytes are free. How many are.
    pub fn unload(&mut self, durable: CheckpointId, wanted: usize) -> usize {
        let mut freed = 0;
        for run in &mut self.runs {
            if freed >= wanted {
                break;
            }
            let before = run.loaded_bytes();
            run.unload(durable);
            freed += before - run.loaded_bytes();
        }
        freed
    }
}

/// What the runs of an operator have in common.
#[derive(Debug)]
pub struct Runs {
    /// The columns of every run: the keys first.
    schema: SchemaRef,
    key_count: usize,
    tables: RunTables,
    backend: Backend,
    subtask: SubtaskIndex,
    parallelism: u32,
    /// Keys of stored runs that are no longer part of the state.
    obsolete: Vec<StateKey>,
}

impl Runs {
    /// Finds the stored runs of a subtask, by slice; loads none but those that were written at another parallelism, of which `adopt` gets the subtask's rows.
    /// The first `key_count` columns of `schema` are the keys, which decide the key group.
    ///
    /// # Errors
    /// When the store cannot be read; `Invalid` when stored runs have other columns than `schema`.
    pub fn open(
        context: &OpenContext<'_>,
        tables: RunTables,
        schema: SchemaRef,
        key_count: usize,
        mut adopt: impl FnMut(i64, &RecordBatch) -> Result<()>,
    ) -> Result<(Self, BTreeMap<i64, RunSet>)> {
        let (subtask, parallelism) = (context.subtask, context.parallelism);
        let backend = context.backend();
        let mut runs = Runs { schema, key_count, tables, backend, subtask, parallelism, obsolete: Vec::new() };
        let mut sets = BTreeMap::<i64, RunSet>::new();
        let mut known = false;
        for entry in context.entries(tables.index) {
            let (_, rest, index) = entry?;
            let run = Run::stored(RunId::parse(&rest)?, &index)?;
            known = true;
            if run.id.parallelism != parallelism {
                runs.adopt(&run, &mut adopt)?;
            } else if run.id.subtask == subtask {
                sets.entry(run.id.slice).or_default().runs.push(run);
            }
        }
        if !known && context.entries(tables.pieces).next().is_some() {
            return Err(Error::corrupt("the state has runs and no index of them"));
        }
        for set in sets.values_mut() {
            set.runs.sort_by_key(|run| std::cmp::Reverse(run.len()));
        }
        // One run tells whether all are of these columns.
        if let Some(smallest) = sets.values().flat_map(|set| &set.runs).min_by_key(|run| run.stored_bytes()) {
            runs.load(smallest, &(0..KeyGroup::COUNT))?.iter().try_for_each(|rows| runs.check(rows))?;
        }
        Ok((runs, sets))
    }

    /// Takes this subtask's share of a run that was written at another parallelism. That every subtask removes the old one is harmless.
    fn adopt(&mut self, run: &Run, adopt: &mut impl FnMut(i64, &RecordBatch) -> Result<()>) -> Result<()> {
        self.obsolete.extend(run.keys(self.backend.operator(), self.tables));
        let groups = self.backend.groups();
        for rows in self.load(run, &groups)? {
            self.check(&rows)?;
            let rows = self.of_groups(rows, &groups)?;
            if rows.num_rows() > 0 {
                adopt(run.id.slice, &rows)?;
            }
        }
        Ok(())
    }

    fn load(&self, run: &Run, groups: &Range<u16>) -> Result<Vec<RecordBatch>> {
        run.rows(groups, &self.backend, self.tables.pieces)
    }

    fn check(&self, rows: &RecordBatch) -> Result<()> {
        let types = |schema: &SchemaRef| -> Vec<DataType> {
            schema.fields().iter().map(|field| field.data_type().clone()).collect()
        };
        if types(&rows.schema()) == types(&self.schema) {
            return Ok(());
        }
        Err(Error::invalid(
            "the stored state has other columns than the query now computes; start the job with --fresh, or restore the former query",
        ))
    }

    /// What the runs stand on.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// The rows whose key group is in the range.
    ///
    /// # Errors
    /// When the keys cannot be hashed.
    pub fn of_groups(&self, rows: RecordBatch, groups: &Range<u16>) -> Result<RecordBatch> {
        if *groups == (0..KeyGroup::COUNT) {
            return Ok(rows);
        }
        let hashes = hash_keys(&rows.columns()[..self.key_count], rows.num_rows())?;
        let within = |hash: &u64| Some(groups.contains(&KeyGroup::of_hash(*hash).0));
        Ok(filter_record_batch(&rows, &hashes.iter().map(within).collect::<BooleanArray>())?)
    }

    /// Gives the rows of a slice's runs that lie in a range of key groups to `merge`, run by run.
    ///
    /// # Errors
    /// When a run cannot be read, and those of `merge`.
    pub fn rows(
        &self,
        set: &RunSet,
        groups: &Range<u16>,
        mut merge: impl FnMut(&RecordBatch) -> Result<()>,
    ) -> Result<()> {
        for run in &set.runs {
            for rows in self.load(run, groups)? {
                let rows = self.of_groups(rows, groups)?;
                if rows.num_rows() > 0 {
                    merge(&rows)?;
                }
            }
        }
        Ok(())
    }

    /// Takes the next run that is to be merged with `rows` rows before they are stored: one that is at most twice as large, and no larger than `largest`
    /// bytes as stored. It leaves the store with the next checkpoint. To be asked again with the merged number of rows until there is none.
    pub fn absorb(&mut self, set: &mut RunSet, rows: usize, largest: usize) -> Option<RunSet> {
        let run = set.runs.pop_if(|run| run.len() <= 2 * rows && run.stored_bytes() <= largest)?;
        Some(self.retire(RunSet { runs: vec![run] }))
    }

    /// A slice is closed: its runs leave the store with the next checkpoint, and can be read until then.
    #[must_use]
    pub fn retire(&mut self, set: RunSet) -> RunSet {
        let operator = self.backend.operator();
        self.obsolete.extend(set.runs.iter().flat_map(|run| run.keys(operator, self.tables)));
        set
    }

    /// Stores rows as a new run of a slice, with checkpoint `id`. No rows are no run.
    ///
    /// # Errors
    /// When they cannot be encoded.
    pub fn store(
        &mut self,
        (slice, set): (i64, &mut RunSet),
        id: CheckpointId,
        rows: RecordBatch,
        changes: &mut Changes,
    ) -> Result<()> {
        assert_eq!(rows.num_columns(), self.schema.fields().len(), "a run has the columns of its operator");
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let run = RunId { slice, checkpoint: id, subtask: self.subtask, parallelism: self.parallelism };
        let place = (self.backend.operator(), self.tables);
        set.runs.push(Run::store(run, rows, self.key_count, place, changes)?);
        Ok(())
    }

    /// Removes from the store what was merged and retired. After the last `store` of a checkpoint.
    pub fn hand_over(&mut self, changes: &mut Changes) {
        self.obsolete.drain(..).for_each(|key| changes.delete(key));
    }
}

#[cfg(test)]
mod tests;
