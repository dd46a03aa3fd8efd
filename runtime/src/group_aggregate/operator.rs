//! The operator: finds the states of a batch's keys at once, aggregates the batch into them, and emits what changed.

use std::collections::BTreeMap;

use bytes::Bytes;
use coulee_checkpoint::{Changes, TableId};
use coulee_model::CheckpointId;

use super::aggregation::{Aggregation, GroupStates, Groups, rows_of};
use super::changes::Changelog;
use super::layout::InputRows;
use super::spec::GroupAggregateSpec;
use crate::group_table::Interner;
use crate::keys::hash_keys;
use crate::operator::{InputIndex, OpenContext, Operator, Output};
use crate::row_codec::{EncodedRows, RowCodec};
use crate::row_errors::evaluate::in_pieces;
use crate::state::{KeyRef, ValueTable};
use crate::{Batch, Result};

/// The table of states: the key in Arrow's row format to the state columns in the same.
const STATES: TableId = TableId(1);
/// The table of values: see `values`.
const VALUES: TableId = TableId(2);
/// The table of one entry, which is there once the aggregates of nothing were emitted: a job that dies behind the end of its input meets that end again.
const NOTHING: TableId = TableId(3);

pub(super) struct GroupAggregate {
    spec: GroupAggregateSpec,
    aggregation: Aggregation,
    changelog: Changelog,
    interner: Interner,
    keys: RowCodec,
    codec: RowCodec,
    states: ValueTable<Bytes>,
    /// Whether the aggregates of nothing were emitted.
    nothing: ValueTable<Bytes>,
}

impl GroupAggregate {
    pub(super) fn new(spec: GroupAggregateSpec) -> Result<Self> {
        spec.check()?;
        let fields: Vec<_> = spec.keys.iter().map(|(_, field)| field.clone()).collect();
        let aggregation = Aggregation::new(&spec, VALUES)?;
        Ok(GroupAggregate {
            changelog: Changelog {
                schema: spec.schema.clone(),
                update_before: spec.update_before,
                repeats: spec.ttl_millis.is_some() && spec.is_changelog(),
            },
            interner: Interner::new(&fields)?,
            keys: RowCodec::new(fields.iter().map(|field| field.data_type().clone()).collect())?,
            codec: RowCodec::new(aggregation.types().to_vec())?,
            states: ValueTable::new(STATES, spec.ttl_millis),
            nothing: ValueTable::new(NOTHING, None),
            aggregation,
            spec,
        })
    }

    /// Aggregates a mini-batch.
    fn update(&mut self, rows: &InputRows, out: &mut Output) -> Result<()> {
        let groups = self.interner.intern(&rows.keys, rows.count)?;
        let keys = self.interner.take_keys()?;
        let (encoded, hashes) = (self.keys.encode(&keys)?, hash_keys(&keys, groups)?);
        let key = |group: usize| KeyRef { hash: hashes[group], bytes: encoded.row(group) };
        let refs: Vec<KeyRef<'_>> = (0..groups).map(key).collect();
        let numbers = self.states.load(&refs)?;

        // The groups anew: first those that have a state.
        let (known, new): (Vec<usize>, Vec<usize>) =
            (0..groups).partition(|group| self.states.get(numbers[*group]).is_some());
        let order: Vec<usize> = known.iter().chain(&new).copied().collect();
        let mut place = vec![0; groups];
        order.iter().enumerate().for_each(|(new, old)| place[*old] = new);
        let of_row: Vec<usize> = self.interner.of_row().iter().map(|group| place[*group]).collect();
        let refs: Vec<KeyRef<'_>> = order.iter().map(|group| refs[*group]).collect();
        let numbers: Vec<u32> = order.iter().map(|group| numbers[*group]).collect();
        let keys = rows_of(&keys, &order)?;

        let stored = numbers[..known.len()].iter().filter_map(|number| self.states.get(*number));
        let before = GroupStates {
            columns: self.codec.decode(stored.map(|state| &state[..]))?,
            groups: (0..known.len()).collect(),
            failures: BTreeMap::new(),
        };
        let (old, _) = self.aggregation.evaluate(&before, groups)?;
        let after = self.aggregation.next(rows, &before, &Groups { of_row: &of_row, keys: &refs })?;
        let (new, failures) = self.aggregation.evaluate(&after, groups)?;
        let encoded = self.codec.encode(&after.columns)?;
        self.store(&numbers, &after.groups, &encoded);

        let changes = self.changelog.between(&keys, &old, &new)?;
        // What takes no changelog takes no kinds either.
        out.emit(if self.spec.is_changelog() { changes } else { Batch::inserts(changes.into_rows()) });
        if !failures.is_empty() {
            let failed: Vec<usize> = failures.keys().copied().collect();
            out.reject(self.spec.rejected(rows_of(&keys, &failed)?, failures.into_values().collect())?);
        }
        Ok(())
    }

    /// Stores the states of all groups, of which those that are not `left` have none any more.
    fn store(&mut self, numbers: &[u32], left: &[usize], states: &EncodedRows) {
        let expires = self.spec.ttl_millis.is_some();
        let mut left = left.iter().enumerate().peekable();
        for (group, number) in numbers.iter().enumerate() {
            let new = left.next_if(|(_, left)| **left == group).map(|(row, _)| states.row(row));
            match (self.states.get(*number), new) {
                (None, None) => {}
                // Without an expiry that moves on, an equal state needs no write.
                (Some(old), Some(new)) if !expires && old[..] == *new => {}
                (_, new) => *self.states.update(*number) = new.map(Bytes::copy_from_slice),
            }
        }
    }
}

impl Operator for GroupAggregate {
    fn open(&mut self, context: &OpenContext<'_>) -> Result<()> {
        let backend = context.backend();
        self.aggregation.open(backend.clone())?;
        self.nothing.open(backend.clone())?;
        self.states.open(backend)
    }

    fn process(&mut self, _: InputIndex, batch: Batch, out: &mut Output) -> Result<()> {
        self.spec.check_kinds(&batch)?;
        // Nothing but the expressions fails on rows, and they come before any change of state.
        let (pieces, rejected) = in_pieces(&batch, |piece| self.aggregation.layout.rows(&piece))?;
        if let Some(rejected) = rejected {
            out.reject(rejected);
        }
        if let Some(rows) = InputRows::concat(pieces)? {
            self.update(&rows, out)?;
        }
        self.states.trim();
        self.aggregation.trim();
        Ok(())
    }

    fn checkpoint(&mut self, id: CheckpointId, _: &mut Output, changes: &mut Changes) -> Result<()> {
        self.aggregation.checkpoint(id, changes);
        self.nothing.checkpoint(id, changes)?;
        self.states.checkpoint(id, changes)
    }

    fn end(&mut self, out: &mut Output) -> Result<()> {
        if !self.spec.row_of_nothing || !self.spec.keys.is_empty() {
            return Ok(());
        }
        let hashes = hash_keys(&[], 1)?;
        let only = [KeyRef { hash: hashes[0], bytes: &[] }];
        let (states, nothing) = (self.states.load(&only)?, self.nothing.load(&only)?);
        if self.states.get(states[0]).is_none() && self.nothing.get(nothing[0]).is_none() {
            out.emit(self.spec.of_nothing()?);
            *self.nothing.update(nothing[0]) = Some(Bytes::from_static(&[1]));
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.states.bytes() + self.aggregation.bytes()
    }
}
