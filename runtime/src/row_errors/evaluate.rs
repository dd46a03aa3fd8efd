//! Evaluates expressions over batches, and finds the rows that they fail on.
//!
//! Evaluation is vectorised and fails for a batch as a whole. Then the batch is evaluated by halves until every failing row
//! stands alone. A row fails if, and only if, the expression fails on that row alone: where batches begin and end does not
//! matter, and a guard (`d <> 0 AND x / d > 1`) holds for each row even where DataFusion evaluates both sides for a batch.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray};
use arrow::compute::{and_kleene, or_kleene};
use arrow::record_batch::RecordBatch;
use datafusion_common::DataFusionError;
use datafusion_expr::Operator;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::BinaryExpr;

use super::{Failure, RejectedRows, Stage, expression_text, picked, reason, shortened};
use crate::{Batch, Error, Result};

/// Why something could not be computed of a batch.
pub(crate) enum Failed {
    /// An expression fails on at least one of the rows.
    Rows(Arc<dyn PhysicalExpr>, DataFusionError),
    /// It is not the rows' fault.
    Fatal(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Failed::Fatal(error)
    }
}

impl From<arrow::error::ArrowError> for Failed {
    fn from(error: arrow::error::ArrowError) -> Self {
        Failed::Fatal(error.into())
    }
}

/// Evaluates an expression over rows. A function that panics on a row fails on it.
///
/// # Errors
/// [`Failed::Rows`] when the expression fails on the data.
pub(crate) fn evaluate(expr: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<ArrayRef, Failed> {
    caught(expr, || expr.evaluate(rows)?.into_array(rows.num_rows()))
}

/// The same, but only of the rows for which `selection` is true; of the others the result is null.
///
/// # Errors
/// As [`evaluate`].
pub(crate) fn evaluate_selected(
    expr: &Arc<dyn PhysicalExpr>,
    rows: &RecordBatch,
    selection: &BooleanArray,
) -> Result<ArrayRef, Failed> {
    caught(expr, || expr.evaluate_selection(rows, selection)?.into_array(rows.num_rows()))
}

/// Evaluates a condition. Where it fails and is an `AND` or an `OR`, its right side is computed only of the rows that the left
/// side leaves open, as DataFusion does for a single row: otherwise a guard that many rows need would cost a search each time.
///
/// # Errors
/// As [`evaluate`].
pub(crate) fn evaluate_condition(expr: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<BooleanArray, Failed> {
    let failed = match evaluate(expr, rows) {
        Ok(array) => return Ok(array.as_boolean().clone()),
        Err(failed) => failed,
    };
    let (Failed::Rows(..), Some(binary)) = (&failed, expr.downcast_ref::<BinaryExpr>()) else { return Err(failed) };
    let decided_by = match binary.op() {
        Operator::And => false,
        Operator::Or => true,
        _ => return Err(failed),
    };
    let left = evaluate_condition(binary.left(), rows)?;
    let open: BooleanArray = left.iter().map(|value| Some(value != Some(decided_by))).collect();
    let right = evaluate_selected(binary.right(), rows, &open)?;
    let right = right.as_boolean();
    Ok(if decided_by { or_kleene(&left, right)? } else { and_kleene(&left, right)? })
}

fn caught(
    expr: &Arc<dyn PhysicalExpr>,
    compute: impl FnOnce() -> Result<ArrayRef, DataFusionError>,
) -> Result<ArrayRef, Failed> {
    let computed = catch_unwind(AssertUnwindSafe(compute))
        .unwrap_or_else(|panic| Err(DataFusionError::Execution(format!("internal error: {}", said(panic.as_ref())))));
    match computed {
        Ok(array) => Ok(array),
        Err(error @ DataFusionError::ResourcesExhausted(_)) => Err(Failed::Fatal(error.into())),
        Err(error) => Err(Failed::Rows(expr.clone(), error)),
    }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}

/// Computes something of the rows that do not fail: of the whole batch at once where none does, else of pieces of it, in
/// their order. Returns what was computed of each piece, and the rows that failed.
///
/// # Errors
/// When `compute` fails for another reason than the rows.
pub(crate) fn in_pieces<T>(
    batch: &Batch,
    mut compute: impl FnMut(Batch) -> Result<T, Failed>,
) -> Result<(Vec<T>, Option<RejectedRows>)> {
    let mut computed = Vec::with_capacity(1);
    let mut failed: Vec<(u32, Failure)> = Vec::new();
    let mut pending = vec![(0, batch.len())];
    while let Some((start, rows)) = pending.pop() {
        let piece = if rows == batch.len() { batch.clone() } else { batch.slice(start, rows) };
        match compute(piece) {
            Ok(done) => computed.push(done),
            Err(Failed::Fatal(error)) => return Err(error),
            // An expression may fail on no rows at all (a division by a constant).
            Err(Failed::Rows(..)) if rows == 0 => {}
            Err(Failed::Rows(expr, error)) if rows == 1 => {
                let row = batch.rows().slice(start, rows);
                failed.push((start as u32, failure(&expr, &row, &error)));
            }
            Err(Failed::Rows(..)) => {
                let half = rows / 2;
                pending.push((start + half, rows - half));
                pending.push((start, half));
            }
        }
    }
    if failed.is_empty() {
        return Ok((computed, None));
    }
    let (indices, failures): (Vec<u32>, Vec<Failure>) = failed.into_iter().unzip();
    let rows = picked(batch, indices)?;
    Ok((computed, Some(RejectedRows { rows, failures, stage: Stage::Expression })))
}

fn failure(expr: &Arc<dyn PhysicalExpr>, row: &RecordBatch, error: &DataFusionError) -> Failure {
    let reason = reason(error);
    let expression = expression_text(innermost(expr, row, &reason));
    Failure { expression: Some(shortened(&expression).into_owned()), reason: shortened(&reason).into_owned() }
}

/// The smallest part of an expression that fails on a row in the same way.
fn innermost<'a>(expr: &'a Arc<dyn PhysicalExpr>, row: &RecordBatch, why: &str) -> &'a Arc<dyn PhysicalExpr> {
    let fails = |part: &&Arc<dyn PhysicalExpr>| match evaluate(part, row) {
        Err(Failed::Rows(_, error)) => reason(&error) == why,
        Ok(_) | Err(Failed::Fatal(_)) => false,
    };
    match expr.children().into_iter().find(fails) {
        Some(part) => innermost(part, row, why),
        None => expr,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use datafusion_common::ScalarValue;
    use datafusion_physical_expr::expressions::{Column, Literal};

    use super::*;

    fn binary(left: Arc<dyn PhysicalExpr>, op: Operator, right: Arc<dyn PhysicalExpr>) -> Arc<dyn PhysicalExpr> {
        Arc::new(BinaryExpr::new(left, op, right))
    }

    fn number(value: i64) -> Arc<dyn PhysicalExpr> {
        Arc::new(Literal::new(ScalarValue::Int64(Some(value))))
    }

    /// `12 / d > 3`
    fn failing() -> Arc<dyn PhysicalExpr> {
        binary(binary(number(12), Operator::Divide, d()), Operator::Gt, number(3))
    }

    fn d() -> Arc<dyn PhysicalExpr> {
        Arc::new(Column::new("d", 0))
    }

    fn rows() -> RecordBatch {
        let d: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(0), None, Some(6)]));
        RecordBatch::try_from_iter([("d", d)]).unwrap()
    }

    #[test]
    fn a_condition_computes_its_right_side_where_the_left_one_leaves_it_open() {
        let of = |expr| evaluate_condition(&expr, &rows()).ok().map(|array| array.iter().collect::<Vec<_>>());
        let guard = || binary(d(), Operator::NotEq, number(0));
        let and = of(binary(guard(), Operator::And, failing()));
        assert_eq!(and, Some(vec![Some(true), Some(false), None, Some(false)]));
        let or = of(binary(binary(d(), Operator::Eq, number(0)), Operator::Or, failing()));
        assert_eq!(or, Some(vec![Some(true), Some(true), None, Some(false)]));
        let both = binary(binary(guard(), Operator::And, failing()), Operator::And, failing());
        assert_eq!(of(both), Some(vec![Some(true), Some(false), None, Some(false)]));
        assert_eq!(of(binary(failing(), Operator::And, guard())), None);
    }

    #[test]
    fn the_innermost_part_that_fails_is_named() {
        let batch = Batch::inserts(rows());
        let (pieces, rejected) = in_pieces(&batch, |piece| evaluate(&failing(), piece.rows())).unwrap();
        assert_eq!(pieces.iter().map(|piece| piece.len()).sum::<usize>(), 3);
        let rejected = rejected.expect("a row fails");
        assert_eq!(rejected.rows.len(), 1);
        let expected = Failure { expression: Some("12 / d".to_owned()), reason: "division by zero".to_owned() };
        assert_eq!(rejected.failures, [expected]);
    }

    #[test]
    fn a_panic_is_a_failure_of_the_row() {
        let expr = number(1);
        let panicking = || -> Result<ArrayRef, DataFusionError> { panic!("out of range") };
        let Err(Failed::Rows(_, error)) = caught(&expr, panicking) else { panic!("it should fail") };
        assert_eq!(reason(&error), "internal error: out of range");
    }
}
