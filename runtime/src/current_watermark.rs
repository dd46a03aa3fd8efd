//! The watermark as a column (`CURRENT_WATERMARK(ts)`): of each row the one that had come before it. Rows that are late can so be told from others by a query.
//!
//! The watermark of each subtask is stored, so that rows after a restart find the one that they would have found.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use coulee_checkpoint::{Changes, TableId};
use coulee_model::{CheckpointId, SubtaskIndex, Timestamp};

use crate::graph::{Lineage, OperatorFactory};
use crate::operator::{InputIndex, OpenContext, Operator, Output};
use crate::state::{Facet, FreedBy, OperatorState, StateColumn, StateTable, SubtaskTime};
use crate::time_column::with_time;
use crate::{Batch, Result};

/// The table of the watermark of each subtask.
const WATERMARKS: TableId = TableId(1);

/// The operator. `schema`: the input's columns, and behind them the watermark, a timestamp in milliseconds that may be null.
pub fn current_watermark(schema: SchemaRef) -> Arc<dyn OperatorFactory> {
    Arc::new(CurrentWatermarkFactory(schema))
}

#[derive(Debug)]
struct CurrentWatermarkFactory(SchemaRef);

impl OperatorFactory for CurrentWatermarkFactory {
    fn describe(&self) -> String {
        "CurrentWatermark".to_owned()
    }

    fn schema(&self) -> SchemaRef {
        self.0.clone()
    }

    fn refuses_changelog(&self, _: InputIndex) -> Option<&'static str> {
        Some("a row that is taken back would have another watermark than when it came")
    }

    fn state(&self, _: &[Lineage]) -> Option<OperatorState> {
        let watermarks = StateTable {
            name: "watermarks".to_owned(),
            key: vec![StateColumn::new("subtask", "UInt32")],
            value: vec![StateColumn::new("watermark", "Timestamp(ms)")],
            freed_by: FreedBy::Never,
            bound: "one per subtask".to_owned(),
        };
        let facets = vec![Facet::new("time", "event time")];
        Some(OperatorState { kind: "current watermark", tables: vec![watermarks], facets })
    }

    fn lineage(&self, inputs: &[Lineage]) -> Lineage {
        let Some(input) = inputs.first() else { return Lineage::named("nothing", self.schema()) };
        input.with_columns(input.rows(), vec!["CURRENT_WATERMARK()".to_owned()], self.schema())
    }

    fn create(&self, subtask: SubtaskIndex) -> Result<Box<dyn Operator>> {
        let (schema, stored) = (self.0.clone(), SubtaskTime::new(WATERMARKS, subtask));
        Ok(Box::new(CurrentWatermark { schema, subtask, watermark: Timestamp::MIN, stored }))
    }
}

struct CurrentWatermark {
    schema: SchemaRef,
    subtask: SubtaskIndex,
    watermark: Timestamp,
    stored: SubtaskTime,
}

impl Operator for CurrentWatermark {
    /// The own watermark, or the least of all for a subtask that there was not before.
    fn open(&mut self, context: &OpenContext<'_>) -> Result<()> {
        let stored = self.stored.open(context)?;
        let own = stored.iter().find(|(subtask, _)| *subtask == self.subtask);
        let least = stored.iter().min_by_key(|(_, watermark)| *watermark);
        self.watermark = own.or(least).map_or(Timestamp::MIN, |(_, watermark)| *watermark);
        Ok(())
    }

    fn process(&mut self, _: InputIndex, batch: Batch, out: &mut Output) -> Result<()> {
        let watermark = (self.watermark > Timestamp::MIN).then_some(self.watermark.0);
        out.emit(with_time(&batch, &self.schema, watermark)?);
        Ok(())
    }

    fn watermark(&mut self, watermark: Timestamp, out: &mut Output) -> Result<()> {
        self.watermark = self.watermark.max(watermark);
        out.watermark(watermark);
        Ok(())
    }

    fn checkpoint(&mut self, _: CheckpointId, _: &mut Output, changes: &mut Changes) -> Result<()> {
        self.stored.checkpoint(self.watermark, changes);
        Ok(())
    }
}
