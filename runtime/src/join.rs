//! Joins of two streams whose rows are kept: every row meets every row of the other side with the same key, whenever either comes, is updated or is
//! deleted (Flink's `StreamingJoinOperator`).
//!
//! Each side's rows are kept per join key, see [`side`]: the row, how often it is there, and with how many rows of the other side it goes together. The last
//! tells when a row of an outer, semi or anti join gains its first match or loses its last one, so that what was emitted of it alone is taken back.
//!
//! The rows of a batch are looked up together: each key of the batch is read once, what might match is decoded at once, and the condition is computed of all
//! pairs at once ([`matches`]). Changes are emitted row by row in the order of the input ([`emit`]), so that batching leaves no trace in the output.

mod describe;
mod emit;
mod matches;
mod side;

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use coulee_checkpoint::{Changes, TableId};
use coulee_model::{CheckpointId, SubtaskIndex};
use datafusion_physical_expr::PhysicalExpr;

use crate::graph::{Lineage, OperatorFactory, Port};
use crate::operator::{InputIndex, OpenContext, Operator, Output};
use crate::row_errors::evaluate::in_pieces;
use crate::state::OperatorState;
use crate::{Batch, Error, Result};

use emit::Emitter;
use matches::Matches;
use side::{KeyedRows, Side};

/// Which rows a join gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinKind {
    /// Every pair that matches.
    Inner,
    /// Also each left row without a match, with nulls on the right.
    Left,
    /// Also each right row without a match, with nulls on the left.
    Right,
    /// Also each row of either side without a match.
    Full,
    /// The left rows that have a match.
    LeftSemi,
    /// The left rows that have none.
    LeftAnti,
}

impl JoinKind {
    /// Whether rows of a side are emitted although nothing matches them.
    fn is_outer(self, side: InputIndex) -> bool {
        match self {
            JoinKind::Inner | JoinKind::LeftSemi | JoinKind::LeftAnti => false,
            JoinKind::Left => side == InputIndex::FIRST,
            JoinKind::Right => side == InputIndex::SECOND,
            JoinKind::Full => true,
        }
    }

    /// Whether only left rows leave the join.
    fn is_left_only(self) -> bool {
        matches!(self, JoinKind::LeftSemi | JoinKind::LeftAnti)
    }

    /// Whether it matters of a row of this side how many rows of the other one match it.
    fn counts_matches(self, side: InputIndex) -> bool {
        self.is_outer(side) || (self.is_left_only() && side == InputIndex::FIRST)
    }

    /// As `EXPLAIN` prints it.
    pub fn name(self) -> &'static str {
        match self {
            JoinKind::Inner => "inner",
            JoinKind::Left => "left",
            JoinKind::Right => "right",
            JoinKind::Full => "full",
            JoinKind::LeftSemi => "left semi",
            JoinKind::LeftAnti => "left anti",
        }
    }
}

/// One side of a join.
#[derive(Debug, Clone)]
pub struct JoinSide {
    /// Its columns.
    pub schema: SchemaRef,
    /// What must equal the other side's keys, over its columns; of the same number and types on both sides.
    pub keys: Vec<Arc<dyn PhysicalExpr>>,
    /// After how many milliseconds without a change a row is forgotten; `None` is never.
    pub ttl_millis: Option<i64>,
}

/// A join.
#[derive(Debug, Clone)]
pub struct JoinSpec {
    /// Which rows it gives.
    pub kind: JoinKind,
    /// The left side, input 0.
    pub left: JoinSide,
    /// The right side, input 1.
    pub right: JoinSide,
    /// Whether a null key equals a null key (as in `IS NOT DISTINCT FROM`); otherwise it equals nothing.
    pub null_equals_null: bool,
    /// What must hold of a pair beside equal keys, over the left columns and then the right ones.
    pub condition: Option<Arc<dyn PhysicalExpr>>,
    /// The result's columns: the left ones, then the right ones but for semi and anti joins. Columns that may be padded are nullable.
    pub schema: SchemaRef,
}

impl JoinSpec {
    fn side(&self, input: InputIndex) -> &JoinSide {
        if input == InputIndex::FIRST { &self.left } else { &self.right }
    }
}

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

    fn refuses_changelog(&self, _: InputIndex) -> Option<&'static str> {
        None
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
        let (left, right) = (Side::new(&self.0.left, LEFT)?, Side::new(&self.0.right, RIGHT)?);
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
        matches.store(other);
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
        self.left.checkpoint(id, changes);
        self.right.checkpoint(id, changes);
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.left.bytes() + self.right.bytes()
    }
}
