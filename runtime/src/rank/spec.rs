//! What a rank is asked for.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use datafusion_physical_expr::PhysicalExpr;

/// How rows are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RankFunction {
    /// One after the other; rows that are equal in the order have different numbers.
    RowNumber,
    /// Rows that are equal in the order have one number, and as many numbers are left out behind them.
    Rank,
    /// Rows that are equal in the order have one number, and the next row has the next one.
    DenseRank,
}

/// Which rows of each partition are emitted.
#[derive(Debug, Clone)]
pub struct RankSpec {
    /// What partitions rows, over the input; rows must have been shuffled by it. Nothing is one partition.
    pub partition: Vec<Arc<dyn PhysicalExpr>>,
    /// What orders the rows of a partition, over the input. Rows that are equal in it are ordered by their columns.
    pub order: Vec<(Arc<dyn PhysicalExpr>, SortOptions)>,
    /// How rows are numbered.
    pub function: RankFunction,
    /// The first number that is emitted, from 1.
    pub from: u64,
    /// The last number that is emitted, inclusive.
    pub to: u64,
    /// Whether the number is wanted. Otherwise the column is null, and a row that only moves to another number changes nothing.
    pub has_number: bool,
    /// Whether the input is a changelog.
    pub changelog: bool,
    /// After how many milliseconds without a change a row is forgotten; `None` is never.
    pub ttl_millis: Option<i64>,
    /// The input's columns.
    pub input: SchemaRef,
    /// The input's columns and then the number, an Int64.
    pub schema: SchemaRef,
}

/// The most rows of a partition that are kept as one value: it is written whole whenever one of them changes.
const FIRST_ROWS_MAX: u64 = 100;

impl RankSpec {
    /// Whether a partition's first rows are all that is kept of it, as one value.
    pub(super) fn keeps_first_rows(&self) -> bool {
        let is_bounded = self.function == RankFunction::RowNumber && self.to <= FIRST_ROWS_MAX;
        is_bounded && !self.changelog && self.ttl_millis.is_none()
    }
}
