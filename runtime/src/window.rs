//! Windowed aggregation over event time: rows are grouped by window and keys, and a window's result is emitted once, when
//! the watermark passes its end.
//!
//! Windows tumble, hop or cumulate ([`kind`]). Windows that overlap share *slices*: a row enters one slice, and a window is the merge of its slices when it
//! fires. A tumbling window is one slice. A row is late when the last window that holds it has fired; until then it enters those that are open.
//!
//! Each slice holds a hash table of partial aggregates. At a checkpoint the table is emptied into a
//! *run*, a batch of partial results that is stored as one columnar blob; runs merge as in a log-structured tree, so that a
//! slice keeps logarithmically many and each row is rewritten logarithmically often. Firing merges what there is.
//!
//! Over a changelog a window holds rows and how often each is there, and aggregates them when it fires: see `layout`.
//!
//! With several subtasks a stateless *partial* stage aggregates before the shuffle, and the *final* stage merges: equal keys cross the
//! network of channels once per slice and checkpoint instead of once per row.
//!
//! [`session`] aggregates by windows that the rows themselves make. [`table_function`] assigns windows to rows without aggregating.

pub mod assign;
mod describe;
pub mod kind;
mod late;
mod layout;
mod partial;
pub mod session;
mod slices;
mod spec;
pub mod table_function;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{FieldRef, Int64Type, SchemaRef};
use coulee_checkpoint::Changes;
use coulee_model::{CheckpointId, SubtaskIndex, Timestamp};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::Column;

use crate::graph::{Lineage, OperatorFactory, Port};
use crate::metrics::SubtaskMetrics;
use crate::operator::{InputIndex, OpenContext, Operator, Output};
use crate::row_errors::evaluate::{Failed, in_pieces};
use crate::state::OperatorState;
use crate::watermark::HeldWatermark;
use crate::{Batch, Result};

use late::{by_slice, slices_of, sort_out};
use layout::Layout;
use partial::{PartialAggregate, partial_schema};
use slices::Slices;
use spec::NOT_FOR_CHANGELOGS;

pub use kind::{WindowKind, Windows};
pub use session::{SessionAggregateSpec, session_aggregate};
pub use spec::{WindowAggregateSpec, WindowColumn};
pub use table_function::{WindowRowsSpec, window_rows};

/// The whole aggregation in one stage.
pub fn window_single(spec: WindowAggregateSpec) -> Arc<dyn OperatorFactory> {
    Arc::new(WindowFactory { spec, stage: Stage::Single })
}

/// The stage before the shuffle: it keeps nothing across a checkpoint.
pub fn window_partial(spec: WindowAggregateSpec) -> Arc<dyn OperatorFactory> {
    Arc::new(WindowFactory { spec, stage: Stage::Partial })
}

/// The stage behind the shuffle; its input is the partial stage's output.
pub fn window_final(spec: WindowAggregateSpec) -> Arc<dyn OperatorFactory> {
    Arc::new(WindowFactory { spec, stage: Stage::Final })
}

/// The key columns in the partial stage's output: what to shuffle by.
pub fn partial_key_columns(spec: &WindowAggregateSpec) -> Vec<Arc<dyn PhysicalExpr>> {
    let column = |(index, (_, field)): (usize, &(_, FieldRef))| Arc::new(Column::new(field.name(), index + 1)) as _;
    spec.keys.iter().enumerate().map(column).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Single,
    Partial,
    Final,
}

#[derive(Debug)]
struct WindowFactory {
    spec: WindowAggregateSpec,
    stage: Stage,
}

impl OperatorFactory for WindowFactory {
    fn describe(&self) -> String {
        self.spec.describe(match self.stage {
            Stage::Single => "",
            Stage::Partial => " (partial)",
            Stage::Final => " (final)",
        })
    }

    fn schema(&self) -> SchemaRef {
        match self.stage {
            // Creating the operator reports the error; a description must not fail.
            Stage::Partial => partial_schema(&self.spec).unwrap_or_else(|_| self.spec.schema.clone()),
            Stage::Single | Stage::Final => self.spec.schema.clone(),
        }
    }

    fn refuses_changelog(&self, _: InputIndex) -> Option<&'static str> {
        let takes = self.spec.changelog.is_some() && self.stage != Stage::Final;
        (!takes).then_some(NOT_FOR_CHANGELOGS)
    }

    fn emits_changelog(&self, port: Port, input_is_changelog: bool) -> bool {
        // A result is emitted once and stays; late rows leave as they came.
        port == Port::LATE && input_is_changelog
    }

    fn state(&self, inputs: &[Lineage]) -> Option<OperatorState> {
        match self.stage {
            Stage::Partial => None,
            Stage::Single | Stage::Final => Some(describe::state(&self.spec, inputs.first()?)),
        }
    }

    fn lineage(&self, inputs: &[Lineage]) -> Lineage {
        match (self.stage, inputs.first()) {
            // The final stage's expressions are over what comes into the partial stage.
            (Stage::Partial, Some(input)) => input.clone(),
            (_, Some(input)) => describe::lineage(&self.spec, input),
            (_, None) => Lineage::named("nothing", self.schema()),
        }
    }

    fn may_reject(&self) -> bool {
        true
    }

    fn create(&self, _: SubtaskIndex) -> Result<Box<dyn Operator>> {
        Ok(match self.stage {
            Stage::Partial => Box::new(PartialAggregate::new(self.spec.clone())?),
            Stage::Single | Stage::Final => Box::new(WindowAggregate::new(self.spec.clone(), self.stage)?),
        })
    }
}

/// The operator of the single and the final stage.
struct WindowAggregate {
    spec: WindowAggregateSpec,
    stage: Stage,
    slices: Slices,
    /// A watermark is passed on when the windows that it closes have been emitted.
    watermark: HeldWatermark,
    metrics: Option<Arc<SubtaskMetrics>>,
}

impl WindowAggregate {
    fn new(spec: WindowAggregateSpec, stage: Stage) -> Result<Self> {
        let slices = Slices::new(Layout::new(&spec)?, spec.windows);
        Ok(WindowAggregate { spec, stage, slices, watermark: HeldWatermark::at(Timestamp::MIN), metrics: None })
    }

    fn count(&self, late: u64, timeless: u64) {
        if let Some(metrics) = &self.metrics {
            metrics.add_late_rows(late);
            metrics.add_timeless_rows(timeless);
        }
    }

    fn show_next_result(&self) {
        if let Some(metrics) = &self.metrics {
            metrics.set_next_result(self.slices.next_result());
        }
    }

    fn update(&mut self, batch: Batch, out: &mut Output) -> Result<()> {
        // Nothing but the expressions fails on rows, and they come before any change of state.
        let (_, rejected) = in_pieces(&batch, |piece| self.update_piece(piece, out))?;
        if let Some(rejected) = rejected {
            out.reject(rejected);
        }
        Ok(())
    }

    fn update_piece(&mut self, mut batch: Batch, out: &mut Output) -> Result<(), Failed> {
        let slices = slices_of(&self.spec.slice_end, &self.spec.windows, batch.rows())?;
        let sorted = sort_out(&slices, &self.spec.windows, self.watermark.reached())?;
        let mut late = None;
        if let Some(keep) = &sorted.keep {
            late = Some(batch.filter(&arrow::compute::not(keep)?)?);
            batch = batch.filter(keep)?;
        }
        // An expression may fail on no rows at all (a division by a constant).
        let inputs = if batch.is_empty() { None } else { Some(self.slices.layout.inputs(&batch)?) };
        self.count(sorted.late, sorted.timeless);
        if let Some(late) = late {
            out.emit_to(Port::LATE, late);
        }
        let Some(inputs) = inputs else { return Ok(()) };
        for (end, rows) in by_slice(&sorted.slices) {
            let slice = self.slices.slice(end)?;
            match rows {
                None => slice.update(&inputs, sorted.slices.len())?,
                Some(rows) => slice.update(&inputs.take(&rows)?, rows.len())?,
            }
        }
        Ok(())
    }

    fn merge(&mut self, batch: &Batch) -> Result<()> {
        let mut rows = batch.rows().clone();
        let slices = rows.column(0).as_primitive::<Int64Type>();
        let sorted = sort_out(slices, &self.spec.windows, self.watermark.reached())?;
        if let Some(keep) = &sorted.keep {
            let counts = rows.column(rows.num_columns() - 1);
            let late = arrow::compute::filter(counts, &arrow::compute::not(keep)?)?;
            let late = arrow::compute::sum(late.as_primitive::<Int64Type>()).unwrap_or(0);
            self.count(late as u64, 0);
            rows = arrow::compute::filter_record_batch(&rows, keep)?;
        }
        let states = &rows.columns()[1..rows.num_columns() - 1];
        for (end, rows) in by_slice(&sorted.slices) {
            match rows {
                None => self.slices.merge(end, states)?,
                Some(rows) => {
                    let take = |column: &ArrayRef| Ok(arrow::compute::take(column, &rows, None)?);
                    let part: Vec<ArrayRef> = states.iter().map(take).collect::<Result<_>>()?;
                    self.slices.merge(end, &part)?;
                }
            }
        }
        Ok(())
    }
}

impl Operator for WindowAggregate {
    fn open(&mut self, context: &OpenContext<'_>) -> Result<()> {
        self.metrics = Some(context.metrics.clone());
        self.watermark = HeldWatermark::at(self.slices.open(context)?);
        self.show_next_result();
        Ok(())
    }

    fn process(&mut self, _: InputIndex, batch: Batch, out: &mut Output) -> Result<()> {
        self.spec.check_kinds(&batch)?;
        match self.stage {
            Stage::Final => self.merge(&batch)?,
            Stage::Single | Stage::Partial => self.update(batch, out)?,
        }
        self.slices.trim();
        self.show_next_result();
        Ok(())
    }

    fn watermark(&mut self, watermark: Timestamp, out: &mut Output) -> Result<()> {
        self.watermark.advance(watermark, out);
        Ok(())
    }

    /// Fires the windows that are over, one by one, and then the watermark.
    fn more(&mut self, out: &mut Output) -> Result<bool> {
        let Some(watermark) = self.watermark.held() else { return Ok(false) };
        if let Some((end, closed)) = self.slices.take_due(watermark)? {
            if closed.columns.first().is_some_and(|column| !column.is_empty()) {
                out.emit(self.spec.result(end, &closed.columns)?);
            }
            if let Some(failed) = closed.failed {
                out.reject(self.spec.rejected(end, failed)?);
            }
            return Ok(true);
        }
        self.show_next_result();
        self.watermark.release(out);
        Ok(false)
    }

    fn checkpoint(&mut self, id: CheckpointId, _: &mut Output, changes: &mut Changes) -> Result<()> {
        self.slices.checkpoint(id, self.watermark.reached(), changes)
    }

    fn state_bytes(&self) -> usize {
        self.slices.bytes()
    }
}
