//! What a join is asked for.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion_physical_expr::PhysicalExpr;

use crate::operator::InputIndex;

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
    /// All left rows, each with whether it has a match.
    LeftMark,
}

impl JoinKind {
    /// Whether rows of a side are emitted although nothing matches them.
    pub(super) fn is_outer(self, side: InputIndex) -> bool {
        match self {
            JoinKind::Inner | JoinKind::LeftSemi | JoinKind::LeftAnti | JoinKind::LeftMark => false,
            JoinKind::Left => side == InputIndex::FIRST,
            JoinKind::Right => side == InputIndex::SECOND,
            JoinKind::Full => true,
        }
    }

    /// Whether only left rows leave the join.
    pub(super) fn is_left_only(self) -> bool {
        matches!(self, JoinKind::LeftSemi | JoinKind::LeftAnti | JoinKind::LeftMark)
    }

    /// Whether it matters of a row of this side how many rows of the other one match it.
    pub(super) fn counts_matches(self, side: InputIndex) -> bool {
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
            JoinKind::LeftMark => "left mark",
        }
    }
}

/// One side of a join.
#[derive(Debug, Clone)]
pub struct JoinSide {
    /// Its columns.
    pub schema: SchemaRef,
    /// Whether its rows are only appended: none is updated or deleted.
    pub appends: bool,
    /// What must equal the other side's keys, over its columns; of the same number and types on both sides.
    pub keys: Vec<Arc<dyn PhysicalExpr>>,
    /// After how many milliseconds without a change a row is forgotten; `None` is never.
    pub ttl_millis: Option<i64>,
    /// Until when its rows are kept in event time; both sides of an interval join have it, and no side of another join.
    pub retention: Option<Retention>,
}

/// Until when a row may find a partner in event time.
#[derive(Debug, Clone)]
pub struct Retention {
    /// The row's time, over the side's columns: a timestamp of any precision. A row without one finds no partner.
    pub time: Arc<dyn PhysicalExpr>,
    /// The row is forgotten when the watermark has reached its time and so many milliseconds more (or fewer, below 0).
    pub millis: i64,
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
    /// The result's columns: the left ones, then the right ones; of semi and anti joins the left ones; of a mark join the left ones and a truth value. Columns
    /// that may be padded are nullable.
    pub schema: SchemaRef,
}

impl JoinSpec {
    /// Whether the rows of a side are kept as lists: nothing about them ever changes.
    pub(super) fn keeps_lists(&self, input: InputIndex) -> bool {
        let side = self.side(input);
        side.appends && side.ttl_millis.is_none() && side.retention.is_none() && !self.kind.counts_matches(input)
    }

    pub(super) fn side(&self, input: InputIndex) -> &JoinSide {
        if input == InputIndex::FIRST { &self.left } else { &self.right }
    }
}

/// A join in event time.
#[derive(Debug, Clone)]
pub struct IntervalJoinSpec {
    /// The join. Both sides say until when their rows are kept.
    pub join: JoinSpec,
    /// Whether it is a join of windows, whose late rows are dropped.
    pub of_windows: bool,
}

/// A join with the versions of a table: the right side's rows replace each other by its keys, each from its time on.
#[derive(Debug, Clone)]
pub struct TemporalJoinSpec {
    /// The stream, input 0. Its time is the one at which versions are asked for.
    pub left: JoinSide,
    /// The table, input 1: rows that are only appended, upserts or a changelog.
    pub right: JoinSide,
    /// What must hold of a pair beside equal keys, over the left columns and then the right ones.
    pub condition: Option<Arc<dyn PhysicalExpr>>,
    /// Whether a row without a version leaves with nulls for the table's columns.
    pub is_outer: bool,
    /// The result's columns: the left ones, then the right ones.
    pub schema: SchemaRef,
}
