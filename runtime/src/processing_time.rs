//! Processing time as event time: each row gets the time at which it is processed, and the watermark follows the clock.
//!
//! What is behind it (windows above all) needs to know of one kind of time alone. Times never fall, also not when the clock is set back or the job is
//! restarted: how far they had come is stored. The watermarks of the input are of another time and are not passed on, but for the last one, which says that
//! the input has ended.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use coulee_checkpoint::{Changes, TableId};
use coulee_model::{CheckpointId, Clock, SubtaskIndex, SystemClock, Timestamp};

use crate::graph::{Lineage, OperatorFactory};
use crate::operator::{InputIndex, OpenContext, Operator, Output};
use crate::state::{Facet, FreedBy, OperatorState, StateColumn, StateTable, SubtaskTime};
use crate::time_column::with_time;
use crate::{Batch, Result};

/// The table of how far the time of each subtask has come.
const REACHED: TableId = TableId(1);

/// The least time between two watermarks, in milliseconds.
const STEP_MILLIS_MIN: i64 = 100;

/// How rows get their processing time.
#[derive(Debug, Clone)]
pub struct ProcessingTimeSpec {
    /// The watermark follows the clock in steps of so many milliseconds, of 100 at least: at each multiple of it, shifted by the offset, all that was before
    /// is passed on.
    pub step_millis: i64,
    /// Where the multiples begin: milliseconds after 1970.
    pub offset_millis: i64,
    /// The input's columns, and behind them the time, a timestamp in milliseconds.
    pub schema: SchemaRef,
}

/// The operator.
pub fn processing_time(spec: ProcessingTimeSpec) -> Arc<dyn OperatorFactory> {
    Arc::new(ProcessingTimeFactory(spec))
}

#[derive(Debug)]
struct ProcessingTimeFactory(ProcessingTimeSpec);

impl OperatorFactory for ProcessingTimeFactory {
    fn describe(&self) -> String {
        "ProcessingTime".to_owned()
    }

    fn schema(&self) -> SchemaRef {
        self.0.schema.clone()
    }

    fn refuses_changelog(&self, _: InputIndex) -> Option<&'static str> {
        Some("a row that is taken back would have another processing time than when it came")
    }

    fn state(&self, _: &[Lineage]) -> Option<OperatorState> {
        let reached = StateTable {
            name: "processing time".to_owned(),
            key: vec![StateColumn::new("subtask", "UInt32")],
            value: vec![StateColumn::new("reached", "Timestamp(ms)")],
            freed_by: FreedBy::Never,
            bound: "one per subtask".to_owned(),
        };
        // Times of one clock: they mean the same, whatever the rows are.
        let facets = vec![Facet::new("clock", "processing time")];
        Some(OperatorState { kind: "processing time", tables: vec![reached], facets })
    }

    fn lineage(&self, inputs: &[Lineage]) -> Lineage {
        let Some(input) = inputs.first() else { return Lineage::named("nothing", self.schema()) };
        input.with_columns(input.rows(), vec!["PROCTIME()".to_owned()], self.schema())
    }

    fn create(&self, subtask: SubtaskIndex) -> Result<Box<dyn Operator>> {
        Ok(Box::new(ProcessingTime {
            spec: self.0.clone(),
            clock: Arc::new(SystemClock),
            reached: Timestamp::MIN,
            stored: SubtaskTime::new(REACHED, subtask),
            next: Timestamp::MIN,
        }))
    }
}

struct ProcessingTime {
    spec: ProcessingTimeSpec,
    clock: Arc<dyn Clock>,
    /// The latest time that a row has or may have; no later row has one before it.
    reached: Timestamp,
    stored: SubtaskTime,
    /// When the next watermark is due.
    next: Timestamp,
}

impl ProcessingTime {
    /// The first step after an instant.
    fn step_after(&self, instant: Timestamp) -> Timestamp {
        let step = self.spec.step_millis.max(STEP_MILLIS_MIN);
        let since = instant.0.saturating_sub(self.spec.offset_millis).rem_euclid(step);
        Timestamp(instant.0.saturating_add(step - since))
    }
}

impl Operator for ProcessingTime {
    fn open(&mut self, context: &OpenContext<'_>) -> Result<()> {
        self.clock = context.clock.clone();
        let stored = self.stored.open(context)?;
        self.reached = stored.into_iter().map(|(_, reached)| reached).max().unwrap_or(Timestamp::MIN);
        self.next = self.step_after(self.clock.now().max(self.reached));
        Ok(())
    }

    fn process(&mut self, _: InputIndex, batch: Batch, out: &mut Output) -> Result<()> {
        self.reached = self.reached.max(self.clock.now());
        out.emit(with_time(&batch, &self.spec.schema, Some(self.reached.0))?);
        Ok(())
    }

    fn watermark(&mut self, watermark: Timestamp, out: &mut Output) -> Result<()> {
        if watermark == Timestamp::MAX {
            self.next = Timestamp::MAX;
            out.watermark(watermark);
        }
        Ok(())
    }

    fn next_time(&self) -> Option<Timestamp> {
        (self.next < Timestamp::MAX).then_some(self.next)
    }

    fn time(&mut self, now: Timestamp, out: &mut Output) -> Result<()> {
        self.reached = self.reached.max(now);
        self.next = self.step_after(self.reached);
        out.watermark(Timestamp(self.reached.0 - 1));
        Ok(())
    }

    fn checkpoint(&mut self, _: CheckpointId, _: &mut Output, changes: &mut Changes) -> Result<()> {
        self.stored.checkpoint(self.reached, changes);
        Ok(())
    }
}
