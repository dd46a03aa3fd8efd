//! Which slice each row enters, and which rows are late: all windows that hold them are over by the watermark.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, Int64Array, UInt32Array};
use arrow::compute::{filter, max, min};
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use coulee_model::Timestamp;
use datafusion_common::exec_datafusion_err;
use datafusion_physical_expr::PhysicalExpr;

use super::kind::{Windows, is_over};
use crate::row_errors::evaluate::{Failed, evaluate};
use crate::{Error, Result};

/// Splits off the rows that can enter no window, or none that is still open.
pub(super) struct Sorted {
    /// The slices that the rows that stay enter, without nulls.
    pub(super) slices: Int64Array,
    /// Which rows stay; `None` is all.
    pub(super) keep: Option<BooleanArray>,
    pub(super) late: u64,
    pub(super) timeless: u64,
}

/// Sorts rows by what the watermark says of the windows that hold their slice (named by its end in milliseconds, null without event time).
pub(super) fn sort_out(slices: &Int64Array, windows: &Windows, watermark: Timestamp) -> Result<Sorted> {
    // No window that holds a slice is over before the slice itself.
    let all_open = min(slices).is_none_or(|slice| !is_over(slice, watermark));
    if slices.null_count() == 0 && all_open {
        return Ok(Sorted { slices: slices.clone(), keep: None, late: 0, timeless: 0 });
    }
    let is_late = |slice: i64| is_over(slice, watermark) && is_over(windows.last_end(slice), watermark);
    let keep: BooleanArray = slices.iter().map(|slice| Some(slice.is_some_and(|slice| !is_late(slice)))).collect();
    let kept = filter(slices, &keep)?;
    let timeless = slices.null_count() as u64;
    let late = (slices.len() - kept.len()) as u64 - timeless;
    let mut kept = kept.as_primitive::<Int64Type>().clone();
    if !all_open {
        kept = kept.unary(|slice| windows.entered_slice(slice, watermark));
    }
    Ok(Sorted { slices: kept, keep: Some(keep), late, timeless })
}

/// The slices of rows, by their ends in milliseconds.
pub(super) fn slices_of(
    expr: &Arc<dyn PhysicalExpr>,
    windows: &Windows,
    rows: &RecordBatch,
) -> Result<Int64Array, Failed> {
    let slices = evaluate(expr, rows)?;
    let slices: Int64Array = match slices.data_type() {
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            slices.as_primitive::<TimestampMillisecondType>().reinterpret_cast()
        }
        other => {
            let message = format!("the end of a slice has type {other}, expected a timestamp in milliseconds");
            return Err(Error::internal(message).into());
        }
    };
    // Only near the ends of the range of instants a slice is in no window, so that the first and the last slice tell of all.
    for slice in [min(&slices), max(&slices)].into_iter().flatten() {
        if windows.ends_of(slice).is_none() {
            let error = exec_datafusion_err!("the slice up to {slice} (milliseconds since 1970) lies in no window");
            return Err(Failed::Rows(expr.clone(), error));
        }
    }
    Ok(slices)
}

/// The distinct slices of a batch, ascending, each with its rows; `None` instead of rows when they are all of one slice.
pub(super) fn by_slice(slices: &Int64Array) -> Vec<(i64, Option<UInt32Array>)> {
    let (Some(low), Some(high)) = (min(slices), max(slices)) else { return Vec::new() };
    if low == high {
        return vec![(low, None)];
    }
    let mut rows = std::collections::BTreeMap::<i64, Vec<u32>>::new();
    for (row, slice) in slices.values().iter().enumerate() {
        rows.entry(*slice).or_default().push(row as u32);
    }
    rows.into_iter().map(|(slice, rows)| (slice, Some(UInt32Array::from(rows)))).collect()
}
