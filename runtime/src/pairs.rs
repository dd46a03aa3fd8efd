//! Conditions of joins, computed of pairs of rows at once.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt32Array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, UInt32Type};
use arrow::record_batch::RecordBatch;
use datafusion_physical_expr::PhysicalExpr;

use crate::operator::Output;
use crate::row_errors::evaluate::{evaluate_condition, in_pieces};
use crate::{Batch, Result};

/// Of each pair, whether a condition holds. Pairs that it fails on are rejected, and do not match. `columns` are those of both sides, with their fields.
pub(crate) fn holding(
    condition: &Arc<dyn PhysicalExpr>,
    mut columns: Vec<ArrayRef>,
    mut fields: Vec<FieldRef>,
    pairs: usize,
    out: &mut Output,
) -> Result<Vec<bool>> {
    let width = columns.len();
    columns.push(Arc::new(UInt32Array::from_iter_values(0..pairs as u32)));
    fields.push(Arc::new(Field::new("pair", DataType::UInt32, false)));
    let numbered = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    let (computed, rejected) = in_pieces(&Batch::inserts(numbered), |piece| {
        let holds = evaluate_condition(condition, piece.rows())?;
        Ok((piece.rows().column(width).as_primitive::<UInt32Type>().clone(), holds))
    })?;
    if let Some(mut rejected) = rejected {
        let columns: Vec<usize> = (0..width).collect();
        rejected.rows = rejected.rows.with_rows(rejected.rows.rows().project(&columns)?);
        out.reject(rejected);
    }
    let mut all = vec![false; pairs];
    for (numbers, holds) in computed {
        let holds: BooleanArray = holds;
        for (at, number) in numbers.values().iter().enumerate() {
            all[*number as usize] = holds.is_valid(at) && holds.value(at);
        }
    }
    Ok(all)
}
