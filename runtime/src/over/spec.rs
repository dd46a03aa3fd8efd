//! What an OVER aggregation is asked for.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use datafusion_common::ScalarValue;
use datafusion_physical_expr::PhysicalExpr;

use crate::group_table::Aggregate;
use crate::rank::RankFunction;

/// Columns for each row, computed of the row and of those of its partition that are before it in the order.
#[derive(Debug, Clone)]
pub struct OverSpec {
    /// What partitions rows, over the input; rows must have been shuffled by it. Nothing is one partition.
    pub partition: Vec<Arc<dyn PhysicalExpr>>,
    /// What orders the rows of a partition, over the input. Rows that are equal in it are peers. Nothing: all rows of a partition are peers.
    pub order: Vec<(Arc<dyn PhysicalExpr>, SortOptions)>,
    /// When rows are emitted.
    pub mode: OverMode,
    /// The columns that are computed.
    pub calls: Vec<OverCall>,
    /// The input's columns.
    pub input: SchemaRef,
    /// The input's columns and then one for each call.
    pub schema: SchemaRef,
}

/// When the rows of an OVER aggregation are emitted.
#[derive(Debug, Clone)]
pub enum OverMode {
    /// When the watermark has passed the event time, by which rows are ordered first: a timestamp of any precision, null for a row without one. Peers are
    /// in the order in which they came. Rows must only be appended.
    ByTime(Arc<dyn PhysicalExpr>),
    /// When the input has ended. Peers are in the order in which they came. Rows must only be appended.
    AtEnd,
    /// At once, and again as an update when rows come or go that change their columns. Peers are in the order of their columns.
    Updating {
        /// Whether the input is a changelog.
        changelog: bool,
        /// After how many milliseconds without a change a row is forgotten; `None` is never.
        ttl_millis: Option<i64>,
    },
}

/// What one of the columns is.
#[derive(Debug, Clone)]
pub enum OverCall {
    /// The row's number in its partition, an Int64.
    Number(RankFunction),
    /// Where the row is in its partition.
    Share(Share),
    /// An aggregate of the rows of a frame.
    Aggregate(Aggregate, Frame),
    /// The value of another row: `LAG` and `LEAD`.
    Shifted {
        /// What is taken of the other row, over the input.
        value: Arc<dyn PhysicalExpr>,
        /// How many rows behind this one the other one is; before it, where negative.
        by: i64,
        /// What is given where there is no such row, of the type of the value.
        default: ScalarValue,
    },
}

/// Where a row is in its partition, which is known when the partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// The share of the other rows that are before the row and its peers, a Float64: 0 of a single row.
    PercentRank,
    /// The share of the rows that are before the row or its peers, a Float64.
    CumeDist,
    /// Which of so many parts (1 or more) the row is in, an Int64 from 1. The first parts are larger by a row where rows are left over.
    Ntile(u64),
}

/// What the offsets of a frame count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameUnit {
    /// Rows.
    Rows,
    /// The order's unit: that of a timestamp's type, or 1. 0 are the peers of the current row. With another number, the order is one expression of whole numbers
    /// or instants, ascending.
    Range,
}

/// Which rows of a partition an aggregate is of: from one offset to another one, inclusive. Offsets are from the current row, those before it are negative; `None`
/// is the end of the partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// What the offsets count.
    pub unit: FrameUnit,
    /// The first row.
    pub from: Option<i64>,
    /// The last row.
    pub to: Option<i64>,
}

impl Frame {
    /// `ROWS BETWEEN … AND …`.
    pub fn rows(from: Option<i64>, to: Option<i64>) -> Self {
        Frame { unit: FrameUnit::Rows, from, to }
    }

    /// `RANGE BETWEEN … AND …`.
    pub fn range(from: Option<i64>, to: Option<i64>) -> Self {
        Frame { unit: FrameUnit::Range, from, to }
    }

    /// Whether each frame is the one before it with more rows: all rows up to the current one.
    pub(super) fn is_running(self) -> bool {
        self.from.is_none() && self.to == Some(0)
    }

    /// Whether an offset is a number in the order.
    fn is_measured(self) -> bool {
        self.unit == FrameUnit::Range && [self.from, self.to].into_iter().flatten().any(|offset| offset != 0)
    }

    /// Whether rows behind the current one and its peers may be in it.
    fn looks_ahead(self) -> bool {
        self.to.is_none_or(|to| to > 0)
    }

    /// As SQL writes it. `unit`: a number of the order's unit as text.
    pub(super) fn text(self, unit: impl Fn(i64) -> String) -> String {
        let number = |offset: i64| match self.unit {
            FrameUnit::Rows => offset.unsigned_abs().to_string(),
            FrameUnit::Range => unit(offset.saturating_abs()),
        };
        let bound = |offset: Option<i64>, unbounded: &str| match offset {
            None => unbounded.to_owned(),
            Some(0) => "CURRENT ROW".to_owned(),
            Some(offset) => format!("{} {}", number(offset), if offset < 0 { "PRECEDING" } else { "FOLLOWING" }),
        };
        let (from, to) = (bound(self.from, "UNBOUNDED PRECEDING"), bound(self.to, "UNBOUNDED FOLLOWING"));
        format!("{} BETWEEN {from} AND {to}", if self.unit == FrameUnit::Rows { "ROWS" } else { "RANGE" })
    }
}

impl OverCall {
    /// Whether the column of a row may be computed of rows behind it and its peers.
    pub fn looks_ahead(&self) -> bool {
        match self {
            OverCall::Number(_) => false,
            OverCall::Share(_) => true,
            OverCall::Aggregate(_, frame) => frame.looks_ahead(),
            OverCall::Shifted { by, .. } => *by > 0,
        }
    }

    fn frame(&self) -> Option<Frame> {
        match self {
            OverCall::Aggregate(_, frame) => Some(*frame),
            OverCall::Number(_) | OverCall::Share(_) | OverCall::Shifted { .. } => None,
        }
    }
}

impl OverSpec {
    /// The event time that rows wait for.
    pub(super) fn time(&self) -> Option<&Arc<dyn PhysicalExpr>> {
        match &self.mode {
            OverMode::ByTime(time) => Some(time),
            OverMode::AtEnd | OverMode::Updating { .. } => None,
        }
    }

    fn frames(&self) -> impl Iterator<Item = Frame> {
        self.calls.iter().filter_map(OverCall::frame)
    }

    /// The offsets of the columns in rows.
    fn row_offsets(&self) -> impl Iterator<Item = i64> {
        self.calls
            .iter()
            .flat_map(|call| match call {
                OverCall::Shifted { by, .. } => [Some(*by), None],
                OverCall::Aggregate(_, Frame { unit: FrameUnit::Rows, from, to }) => [*from, *to],
                OverCall::Aggregate(..) | OverCall::Number(_) | OverCall::Share(_) => [None, None],
            })
            .flatten()
    }

    /// The offsets of the columns in the order, where one is not 0.
    fn range_offsets(&self) -> impl Iterator<Item = i64> {
        self.frames().filter(|frame| frame.is_measured()).flat_map(|frame| [frame.from, frame.to]).flatten()
    }

    /// Whether the peers of a row have a part in its columns.
    pub(super) fn sees_peers(&self) -> bool {
        self.frames().any(|frame| frame.unit == FrameUnit::Range)
    }

    /// Whether the column of a row may be computed of rows behind it and its peers.
    pub(super) fn looks_ahead(&self) -> bool {
        self.calls.iter().any(OverCall::looks_ahead)
    }

    /// Whether the column of a row may be computed of all rows of its partition, or of all before it.
    pub(super) fn needs_partitions(&self) -> bool {
        self.calls.iter().any(|call| match call {
            OverCall::Number(_) | OverCall::Share(_) => true,
            OverCall::Aggregate(_, frame) => frame.from.is_none() || frame.to.is_none(),
            OverCall::Shifted { .. } => false,
        })
    }

    /// How many rows before a row its columns may need.
    pub(super) fn rows_back(&self) -> usize {
        self.row_offsets().map(|offset| usize::try_from(-offset).unwrap_or_default()).max().unwrap_or_default()
    }

    /// How many rows behind a row its columns may need.
    pub(super) fn rows_ahead(&self) -> usize {
        self.row_offsets().map(|offset| usize::try_from(offset).unwrap_or_default()).max().unwrap_or_default()
    }

    /// How far before a row's order the rows are that its columns may need; `None` where no frame has a number in the order.
    pub(super) fn range_back(&self) -> Option<i64> {
        self.range_offsets().map(|offset| (-offset).max(0)).max()
    }

    /// How far behind a row's order the rows are that its columns may need; `None` where no frame has a number in the order.
    pub(super) fn range_ahead(&self) -> Option<i64> {
        self.range_offsets().map(|offset| offset.max(0)).max()
    }
}
