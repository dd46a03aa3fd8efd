//! What an OVER aggregation is asked for.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use datafusion_common::ScalarValue;
use datafusion_physical_expr::PhysicalExpr;

use crate::group_table::Aggregate;
use crate::rank::RankFunction;

/// A column for each row, computed of the row and of those of its partition that are before it in the order.
#[derive(Debug, Clone)]
pub struct OverSpec {
    /// What partitions rows, over the input; rows must have been shuffled by it. Nothing is one partition.
    pub partition: Vec<Arc<dyn PhysicalExpr>>,
    /// What orders the rows of a partition, over the input. Rows that are equal in it are peers, and are in the order in which they came.
    pub order: Vec<(Arc<dyn PhysicalExpr>, SortOptions)>,
    /// The event time, by which rows are ordered first: a timestamp of any precision, null for a row without one. A row is emitted when the watermark has
    /// passed its time. `None`: rows are emitted when the input has ended.
    pub time: Option<Arc<dyn PhysicalExpr>>,
    /// The columns that are computed.
    pub calls: Vec<OverCall>,
    /// The input's columns.
    pub input: SchemaRef,
    /// The input's columns and then one for each call.
    pub schema: SchemaRef,
}

/// What one of the columns is.
#[derive(Debug, Clone)]
pub enum OverCall {
    /// The row's number in its partition, an Int64.
    Number(RankFunction),
    /// An aggregate of the rows of a frame.
    Aggregate(Aggregate, Frame),
    /// The value of another row.
    Lag {
        /// What is taken of the other row, over the input.
        value: Arc<dyn PhysicalExpr>,
        /// How many rows before this one the other one is.
        rows: usize,
        /// What is given where there is no such row, of the type of the value.
        default: ScalarValue,
    },
}

/// Which rows of a partition an aggregate is of; the last one is the current row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// `ROWS`: so many rows before the current one; `None` is all of them.
    Rows(Option<usize>),
    /// `RANGE`: the rows whose order is at most so much before that of the current one, and its peers; `None` is all rows before it, and its peers. The unit
    /// is that of the order: of a timestamp's type, or 1. With a number, the order is one expression of whole numbers or instants, ascending.
    Range(Option<i64>),
}

impl Frame {
    /// As SQL writes it. `unit`: a number of the order's unit as text.
    pub(super) fn text(self, unit: impl Fn(i64) -> String) -> String {
        let (kind, from) = match self {
            Frame::Rows(rows) => ("ROWS", rows.map(|rows| rows.to_string())),
            Frame::Range(range) => ("RANGE", range.map(unit)),
        };
        format!("{kind} BETWEEN {} PRECEDING AND CURRENT ROW", from.unwrap_or_else(|| "UNBOUNDED".to_owned()))
    }
}

impl OverSpec {
    /// How many rows before the next one its columns may need.
    pub(super) fn rows_back(&self) -> usize {
        let back = |call: &OverCall| match call {
            OverCall::Aggregate(_, Frame::Rows(Some(rows))) => *rows,
            OverCall::Lag { rows, .. } => *rows,
            OverCall::Aggregate(..) | OverCall::Number(_) => 0,
        };
        self.calls.iter().map(back).max().unwrap_or_default()
    }

    /// How far before the next row's order the rows are that its columns may need; `None` is not at all.
    pub(super) fn range_back(&self) -> Option<i64> {
        let back = |call: &OverCall| match call {
            OverCall::Aggregate(_, Frame::Range(range)) => *range,
            OverCall::Aggregate(..) | OverCall::Number(_) | OverCall::Lag { .. } => None,
        };
        self.calls.iter().filter_map(back).max()
    }
}
