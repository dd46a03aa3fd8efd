//! The stage before the shuffle: aggregates what it has, and lets it go before a watermark or barrier would pass it.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use coulee_checkpoint::Changes;
use coulee_model::{CheckpointId, Timestamp};

use super::kind::is_over;
use super::late::{slices_of, sort_out};
use super::layout::Layout;
use super::spec::WindowAggregateSpec;
use crate::group_table::GroupTable;
use crate::metrics::SubtaskMetrics;
use crate::operator::{InputIndex, OpenContext, Operator, Output};
use crate::row_errors::evaluate::{Failed, in_pieces};
use crate::{Batch, Result};

/// Groups that are held before they are sent on: enough to combine hot keys, few enough to stay in the cache.
const GROUPS_MAX: usize = 32_768;

/// In the partial stage's output: the slice (by its end), then the grouping's state columns, then how many rows are in it.
pub(super) const PARTIAL_SLICE_END: &str = "slice_end";
pub(super) const PARTIAL_ROWS: &str = "rows";

/// The partial stage's output.
pub(super) fn partial_schema(spec: &WindowAggregateSpec) -> Result<SchemaRef> {
    let mut fields: Vec<FieldRef> = vec![Arc::new(Field::new(PARTIAL_SLICE_END, DataType::Int64, false))];
    fields.extend(Layout::new(spec)?.grouping.state_schema()?.fields().iter().cloned());
    fields.push(Arc::new(Field::new(PARTIAL_ROWS, DataType::Int64, false)));
    Ok(Arc::new(Schema::new(fields)))
}

pub(super) struct PartialAggregate {
    spec: WindowAggregateSpec,
    schema: SchemaRef,
    layout: Layout,
    /// Groups by (slice, keys…).
    table: GroupTable,
    /// Rows in each group: a late partial result must be counted as the rows that it stands for.
    rows: Vec<i64>,
    /// The first slice in the table.
    first_slice: i64,
    metrics: Option<Arc<SubtaskMetrics>>,
}

impl PartialAggregate {
    pub(super) fn new(spec: WindowAggregateSpec) -> Result<Self> {
        let (schema, layout) = (partial_schema(&spec)?, Layout::new(&spec)?);
        let mut grouping = layout.grouping.clone();
        grouping.keys.insert(0, Arc::new(Field::new(PARTIAL_SLICE_END, DataType::Int64, false)));
        let table = GroupTable::new(&grouping)?;
        Ok(PartialAggregate { spec, schema, layout, table, rows: Vec::new(), first_slice: i64::MAX, metrics: None })
    }

    fn update(&mut self, batch: Batch) -> Result<(), Failed> {
        let slices = slices_of(&self.spec.slice_end, &self.spec.windows, batch.rows())?;
        // Lateness is the final stage's to judge: its watermark is the one of all inputs.
        let sorted = sort_out(&slices, &self.spec.windows, Timestamp::MIN)?;
        let rows = match &sorted.keep {
            Some(keep) => batch.filter(keep)?,
            None => batch,
        };
        let inputs = if rows.is_empty() { None } else { Some(self.layout.inputs(&rows)?) };
        if let Some(metrics) = &self.metrics {
            metrics.add_timeless_rows(sorted.timeless);
        }
        let (Some(mut inputs), Some(first)) = (inputs, arrow::compute::min(&sorted.slices)) else { return Ok(()) };
        self.first_slice = self.first_slice.min(first);
        inputs.keys.insert(0, Arc::new(sorted.slices) as ArrayRef);
        self.table.update(&inputs, rows.len())?;
        self.rows.resize(self.table.len(), 0);
        for group in self.table.group_of_row() {
            self.rows[*group] += 1;
        }
        Ok(())
    }

    fn flush(&mut self, out: &mut Output) -> Result<()> {
        if self.table.is_empty() {
            return Ok(());
        }
        let mut columns = self.table.take_state()?;
        columns.push(Arc::new(Int64Array::from(std::mem::take(&mut self.rows))));
        self.first_slice = i64::MAX;
        out.emit(Batch::inserts(RecordBatch::try_new(self.schema.clone(), columns)?));
        Ok(())
    }
}

impl Operator for PartialAggregate {
    fn open(&mut self, context: &OpenContext<'_>) -> Result<()> {
        self.metrics = Some(context.metrics.clone());
        Ok(())
    }

    fn process(&mut self, _: InputIndex, batch: Batch, out: &mut Output) -> Result<()> {
        self.spec.check_kinds(&batch)?;
        // Nothing but the expressions fails on rows, and they come before any change of state.
        let (_, rejected) = in_pieces(&batch, |piece| self.update(piece))?;
        if let Some(rejected) = rejected {
            out.reject(rejected);
        }
        if self.table.len() >= GROUPS_MAX {
            self.flush(out)?;
        }
        Ok(())
    }

    fn watermark(&mut self, watermark: Timestamp, out: &mut Output) -> Result<()> {
        // Slices of which no window is over may wait here as well.
        if is_over(self.first_slice, watermark) {
            self.flush(out)?;
        }
        out.watermark(watermark);
        Ok(())
    }

    fn checkpoint(&mut self, _: CheckpointId, out: &mut Output, _: &mut Changes) -> Result<()> {
        self.flush(out)
    }

    fn end(&mut self, out: &mut Output) -> Result<()> {
        self.flush(out)
    }

    fn state_bytes(&self) -> usize {
        self.table.bytes()
    }
}
