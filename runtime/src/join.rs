//! Joins of two streams whose rows are kept: every row meets every row of the other side with the same key, whenever either comes, is updated or is
//! deleted (Flink's `StreamingJoinOperator`).
//!
//! Each side's rows are kept per join key, see [`side`]: as they came where they are only appended, or else the row, how often it is there, and with how many rows
//! of the other side it goes together. The last tells when a row of an outer, semi or anti join gains its first match or loses its last one, so that what was emitted of it alone is taken back.
//!
//! The rows of a batch are looked up together: each key of the batch is read once, what might match is decoded at once, and the condition is computed of all
//! pairs at once ([`matches`]). Changes are emitted row by row in the order of the input ([`emit`]), so that batching leaves no trace in the output.

mod describe;
mod emit;
mod interval;
mod matches;
mod side;
mod spec;
mod temporal;
mod versions;

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use coulee_checkpoint::{Changes, TableId};
use coulee_model::{CheckpointId, SubtaskIndex};

use crate::graph::{Lineage, OperatorFactory, Port};
use crate::operator::{InputIndex, OpenContext, Operator, Output};
use crate::row_errors::evaluate::in_pieces;
use crate::state::OperatorState;
use crate::{Batch, Error, Result};

use emit::Emitter;
pub use interval::interval_join;
use matches::Matches;
use side::{KeyedRows, Side};
pub use spec::{IntervalJoinSpec, JoinKind, JoinSide, JoinSpec, Retention, TemporalJoinSpec};
pub use temporal::temporal_join;

/// The operator of a join. Its inputs must be hashed by the sides' keys.
pub fn join(spec: JoinSpec) -> Arc<dyn OperatorFactory> {
    Arc::new(JoinFactory(spec))
}

#[derive(Debug)]
struct JoinFactory(JoinSpec);

impl OperatorFactory for JoinFactory {
    fn describe(&self) -> String {
        self.0.describe()
    }

    fn schema(&self) -> SchemaRef {
        self.0.schema.clone()
    }

    fn refuses_changelog(&self, input: InputIndex) -> Option<&'static str> {
        self.0.keeps_lists(input).then_some("the rows of this side are only appended, as the join was told")
    }

    fn emits_changelog(&self, port: Port, input_is_changelog: bool) -> bool {
        // What is emitted of an unmatched row is taken back when a match comes. A left row of a semi join stays.
        let takes_back = !matches!(self.0.kind, JoinKind::Inner | JoinKind::LeftSemi);
        port == Port::MAIN && (takes_back || input_is_changelog)
    }

    fn state(&self, inputs: &[Lineage]) -> Option<OperatorState> {
        let [left, right] = inputs else { return Some(OperatorState::undescribed(inputs)) };
        Some(describe::state(&self.0, left, right))
    }

    fn lineage(&self, inputs: &[Lineage]) -> Lineage {
        match inputs {
            [left, right] => describe::lineage(&self.0, left, right),
            _ => Lineage::named("nothing", self.schema()),
        }
    }

    fn may_reject(&self) -> bool {
        true
    }

    fn create(&self, _: SubtaskIndex) -> Result<Box<dyn Operator>> {
        let side = |input, table| match self.0.keeps_lists(input) {
            true => Side::of_lists(self.0.side(input), table),
            false => Side::new(self.0.side(input), table),
        };
        let (left, right) = (side(InputIndex::FIRST, LEFT)?, side(InputIndex::SECOND, RIGHT)?);
        Ok(Box::new(Join { spec: self.0.clone(), left, right, pending: VecDeque::new() }))
    }
}

/// The tables of the sides' rows.
const LEFT: TableId = TableId(1);
const RIGHT: TableId = TableId(2);

struct Join {
    spec: JoinSpec,
    left: Side,
    right: Side,
    /// Rows that came and are not joined yet.
    pending: VecDeque<Pending>,
}

/// Rows of a side, from one of them on.
struct Pending {
    input: InputIndex,
    rows: KeyedRows,
    next: usize,
}

impl Join {
    /// Joins some of the rows that came with what is kept of the other side, and keeps them. Whether more are left.
    fn step(&mut self, out: &mut Output) -> Result<bool> {
        let Some(Pending { input, rows, next }) = self.pending.pop_front() else { return Ok(false) };
        let end = self.take(input, &rows, next, out)?;
        if end < rows.batch.len() {
            self.pending.push_front(Pending { input, rows, next: end });
        }
        Ok(!self.pending.is_empty())
    }

    /// The same of the rows from `start` on; returns the first that is left.
    fn take(&mut self, input: InputIndex, rows: &KeyedRows, start: usize, out: &mut Output) -> Result<usize> {
        let spec = &self.spec;
        let (own, other) = if input == InputIndex::FIRST {
            (&mut self.left, &mut self.right)
        } else {
            (&mut self.right, &mut self.left)
        };
        let mut matches = Matches::find(spec, input, (rows, start), other, out)?;
        let mut emitter = Emitter::new(spec, input);
        for row in matches.rows.clone() {
            let kind = rows.batch.kind(row);
            emitter.row(row, kind, &mut matches);
            if rows.has_partner(row, spec.null_equals_null) {
                let matching = if spec.kind.counts_matches(input) { matches.rows_of(row) } else { 0 };
                own.change(rows, row, kind.is_retraction(), matching)?;
            }
        }
        matches.store(other)?;
        emitter.finish(&rows.batch, &matches, out)?;
        own.trim();
        other.trim();
        Ok(matches.rows.end)
    }
}

impl Operator for Join {
    fn open(&mut self, context: &OpenContext<'_>) -> Result<()> {
        self.left.open(context)?;
        self.right.open(context)
    }

    fn process(&mut self, input: InputIndex, batch: Batch, out: &mut Output) -> Result<()> {
        if input > InputIndex::SECOND {
            return Err(Error::internal(format!("a join has two inputs, and rows came to input {}", input.0)));
        }
        let side = self.spec.side(input).clone();
        let encoder = if input == InputIndex::FIRST { &self.left } else { &self.right };
        let (pieces, rejected) = in_pieces(&batch, |piece| encoder.keyed(&side, piece))?;
        if let Some(rejected) = rejected {
            out.reject(rejected);
        }
        self.pending.extend(pieces.into_iter().map(|rows| Pending { input, rows, next: 0 }));
        Ok(())
    }

    /// Joins what came, in parts that are passed on one after the other.
    fn more(&mut self, out: &mut Output) -> Result<bool> {
        self.step(out)
    }

    fn checkpoint(&mut self, id: CheckpointId, _: &mut Output, changes: &mut Changes) -> Result<()> {
        self.left.checkpoint(id, changes)?;
        self.right.checkpoint(id, changes)
    }

    fn state_bytes(&self) -> usize {
        self.left.bytes() + self.right.bytes()
    }
}
