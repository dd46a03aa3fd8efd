//! Which window each row belongs to, and which rows are late: their windows are over by the watermark.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, Int64Array, UInt32Array};
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use coulee_model::Timestamp;
use datafusion_physical_expr::PhysicalExpr;

use crate::row_errors::evaluate::{Failed, evaluate};
use crate::{Error, Result};

/// Splits off the rows that can enter no window, or none that is still open.
pub(super) struct Sorted {
    /// The window ends of the rows that stay, without nulls.
    pub(super) ends: Int64Array,
    /// Which rows stay; `None` is all.
    pub(super) keep: Option<BooleanArray>,
    pub(super) late: u64,
    pub(super) timeless: u64,
}

/// Sorts rows by what the watermark says of their window's end (milliseconds, null without event time).
pub(super) fn sort_out(ends: &Int64Array, watermark: Timestamp) -> Result<Sorted> {
    // A window [start, end) is over once no record with a time of end - 1 can come.
    let is_open = |end: i64| end.saturating_sub(1) > watermark.0;
    let all_open = arrow::compute::min(ends).is_none_or(is_open);
    if ends.null_count() == 0 && all_open {
        return Ok(Sorted { ends: ends.clone(), keep: None, late: 0, timeless: 0 });
    }
    let keep: BooleanArray = ends.iter().map(|end| Some(end.is_some_and(is_open))).collect();
    let kept = arrow::compute::filter(ends, &keep)?;
    let timeless = ends.null_count() as u64;
    let late = (ends.len() - kept.len()) as u64 - timeless;
    Ok(Sorted { ends: kept.as_primitive::<Int64Type>().clone(), keep: Some(keep), late, timeless })
}

/// Window ends as plain milliseconds.
pub(super) fn window_ends(expr: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<Int64Array, Failed> {
    let ends = evaluate(expr, rows)?;
    match ends.data_type() {
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            Ok(ends.as_primitive::<TimestampMillisecondType>().reinterpret_cast())
        }
        other => {
            let message = format!("a window's end has type {other}, expected a timestamp in milliseconds");
            Err(Error::internal(message).into())
        }
    }
}

/// The distinct window ends of a batch, ascending, each with its rows; `None` instead of rows when they are all of one window.
pub(super) fn by_window(ends: &Int64Array) -> Vec<(i64, Option<UInt32Array>)> {
    let (Some(low), Some(high)) = (arrow::compute::min(ends), arrow::compute::max(ends)) else { return Vec::new() };
    if low == high {
        return vec![(low, None)];
    }
    let mut rows = std::collections::BTreeMap::<i64, Vec<u32>>::new();
    for (row, end) in ends.values().iter().enumerate() {
        rows.entry(*end).or_default().push(row as u32);
    }
    rows.into_iter().map(|(end, rows)| (end, Some(UInt32Array::from(rows)))).collect()
}
