//! Assigns windows to rows without aggregating: Flink's window table function (`TABLE(HOP(…))`).
//!
//! A row leaves once for each window that holds it, in the order of the windows' ends, with the columns `window_start`, `window_end` and `window_time` behind its
//! own. It keeps its kind and its origin. A row without event time leaves not at all and is counted as timeless. No row is late here, and watermarks pass through.
//!
//! A row may be in thousands of windows, so that copies leave in batches of bounded size, however large the input is.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, TimestampMillisecondArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use coulee_model::SubtaskIndex;
use datafusion_common::exec_datafusion_err;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::Column;

use super::kind::{WindowEnds, Windows};
use crate::batch::BATCH_ROWS;
use crate::event_time::floor_to_millis;
use crate::graph::{Lineage, OperatorFactory};
use crate::metrics::SubtaskMetrics;
use crate::operator::{InputIndex, OpenContext, Operator, Output};
use crate::row_errors::evaluate::{Failed, evaluate, in_pieces};
use crate::state::OperatorState;
use crate::{Batch, Error, Result};

/// Which windows are assigned to which time.
#[derive(Debug, Clone)]
pub struct WindowRowsSpec {
    /// The rows' event time, over the operator's input: a timestamp of any precision, null for a row without one.
    pub time: Arc<dyn PhysicalExpr>,
    /// The windows.
    pub windows: Windows,
    /// The result's columns: those of the input, then `window_start`, `window_end` and `window_time`, timestamps in milliseconds.
    pub schema: SchemaRef,
}

impl WindowRowsSpec {
    /// The columns of an input, then those of its windows under Flink's names.
    pub fn schema_of(input: &Schema) -> SchemaRef {
        let instant = |name: &str| Arc::new(Field::new(name, DataType::Timestamp(TimeUnit::Millisecond, None), false));
        let mut fields: Vec<FieldRef> = input.fields().iter().cloned().collect();
        fields.extend(["window_start", "window_end", "window_time"].map(instant));
        Arc::new(Schema::new(fields))
    }
}

/// The operator.
pub fn window_rows(spec: WindowRowsSpec) -> Arc<dyn OperatorFactory> {
    Arc::new(WindowRowsFactory { spec })
}

#[derive(Debug)]
struct WindowRowsFactory {
    spec: WindowRowsSpec,
}

impl OperatorFactory for WindowRowsFactory {
    fn describe(&self) -> String {
        format!("WindowTableFunction: {}", self.spec.windows.kind())
    }

    fn schema(&self) -> SchemaRef {
        self.spec.schema.clone()
    }

    fn refuses_changelog(&self, _: InputIndex) -> Option<&'static str> {
        None
    }

    fn state(&self, _: &[Lineage]) -> Option<OperatorState> {
        None
    }

    fn lineage(&self, inputs: &[Lineage]) -> Lineage {
        let Some(input) = inputs.first() else { return Lineage::named("nothing", self.schema()) };
        let from = format!("[{} OF {}]", self.spec.windows.called_with(&input.text(&self.spec.time)), input.rows());
        let column = |(index, field): (usize, &FieldRef)| {
            let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(field.name(), index));
            input.text(&column)
        };
        let mut columns: Vec<String> = input.schema().fields().iter().enumerate().map(column).collect();
        columns.extend(["window_start", "window_end", "window_time"].map(str::to_owned));
        Lineage::new(from, columns, self.schema())
    }

    fn may_reject(&self) -> bool {
        true
    }

    fn create(&self, _: SubtaskIndex) -> Result<Box<dyn Operator>> {
        let bounds = self.spec.schema.fields().iter().rev().take(3);
        if bounds.filter(|field| matches!(field.data_type(), DataType::Timestamp(TimeUnit::Millisecond, None))).count()
            < 3
        {
            return Err(Error::invalid(
                "the last three columns of a window table function are window_start, window_end and window_time in milliseconds",
            ));
        }
        Ok(Box::new(WindowRows { spec: self.spec.clone(), assigned: VecDeque::new(), metrics: None }))
    }
}

/// The operator of one subtask.
struct WindowRows {
    spec: WindowRowsSpec,
    assigned: VecDeque<Assigned>,
    metrics: Option<Arc<SubtaskMetrics>>,
}

/// Rows with their slices, of which some copies may have left.
struct Assigned {
    rows: Batch,
    /// One slice per row.
    slices: Vec<i64>,
    /// The first row of which copies are left.
    row: usize,
    /// The end of its next window; `None` for its first.
    next_end: Option<i64>,
}

impl WindowRows {
    fn assign(&self, rows: Batch) -> Result<Assigned, Failed> {
        let times = floor_to_millis(&evaluate(&self.spec.time, rows.rows())?)?;
        let mut slices = Vec::with_capacity(times.len());
        for millis in times.iter().flatten() {
            let slice = self.spec.windows.slice_of(millis).ok_or_else(|| {
                let error = exec_datafusion_err!("the time {millis} (milliseconds since 1970) lies in no window");
                Failed::Rows(self.spec.time.clone(), error)
            })?;
            slices.push(slice);
        }
        let rows = match times.logical_nulls().filter(|nulls| nulls.null_count() > 0) {
            Some(nulls) => rows.filter(&BooleanArray::new(nulls.into_inner(), None))?,
            None => rows,
        };
        if let Some(metrics) = &self.metrics {
            metrics.add_timeless_rows((times.len() - slices.len()) as u64);
        }
        Ok(Assigned { rows, slices, row: 0, next_end: None })
    }

    /// The next copies of rows: a full batch, or what is left of them.
    fn copies(&self, assigned: &mut Assigned) -> Result<Batch> {
        let (mut rows, mut ends) = (Vec::with_capacity(BATCH_ROWS), Vec::with_capacity(BATCH_ROWS));
        // Neighbours are mostly of the same slice.
        let mut known: Option<(i64, WindowEnds)> = None;
        while assigned.row < assigned.slices.len() && ends.len() < BATCH_ROWS {
            let slice = assigned.slices[assigned.row];
            let of_slice = match known.filter(|(known, _)| *known == slice) {
                Some((_, ends)) => ends,
                None => self.spec.windows.ends_of(slice).ok_or_else(|| Error::internal("a slice lies in no window"))?,
            };
            known = Some((slice, of_slice));
            let mut end = assigned.next_end.take().unwrap_or(of_slice.first);
            loop {
                rows.push(assigned.row as u32);
                ends.push(end);
                if end == of_slice.last {
                    assigned.row += 1;
                    break;
                }
                end += of_slice.step;
                if ends.len() == BATCH_ROWS {
                    assigned.next_end = Some(end);
                    break;
                }
            }
        }
        self.with_windows(&assigned.rows, UInt32Array::from(rows), ends)
    }

    /// Copies of some of the rows, each with the window that ends there.
    fn with_windows(&self, of: &Batch, rows: UInt32Array, ends: Vec<i64>) -> Result<Batch> {
        let copies = of.select(|column| Ok(take(column, &rows, None)?))?;
        let instants = |of: &dyn Fn(i64) -> i64| -> ArrayRef {
            Arc::new(TimestampMillisecondArray::from_iter_values(ends.iter().map(|end| of(*end))))
        };
        let mut columns = copies.rows().columns().to_vec();
        columns.push(instants(&|end| self.spec.windows.start_of(end)));
        columns.push(instants(&|end| end));
        columns.push(instants(&|end| end - 1));
        Ok(copies.with_rows(RecordBatch::try_new(self.spec.schema.clone(), columns)?))
    }
}

impl Operator for WindowRows {
    fn open(&mut self, context: &OpenContext<'_>) -> Result<()> {
        self.metrics = Some(context.metrics.clone());
        Ok(())
    }

    fn process(&mut self, _: InputIndex, batch: Batch, out: &mut Output) -> Result<()> {
        let (pieces, rejected) = in_pieces(&batch, |piece| self.assign(piece))?;
        self.assigned.extend(pieces);
        if let Some(rejected) = rejected {
            out.reject(rejected);
        }
        Ok(())
    }

    /// Emits the copies of rows, batch by batch.
    fn more(&mut self, out: &mut Output) -> Result<bool> {
        while let Some(mut assigned) = self.assigned.pop_front() {
            if assigned.row == assigned.slices.len() {
                continue;
            }
            out.emit(self.copies(&mut assigned)?);
            self.assigned.push_front(assigned);
            return Ok(true);
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests;
