//! The watermark as a column (`CURRENT_WATERMARK(ts)`): of each row the one that had come before it. Rows that are late can so be told from others by a query.
//!
//! The watermark of each subtask is stored, so that rows after a restart find the one that they would have found.

use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMillisecondArray};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use coulee_checkpoint::{Changes, StateKey, TableId};
use coulee_model::{CheckpointId, KeyGroup, OperatorId, SubtaskIndex, Timestamp};

use crate::graph::{Lineage, OperatorFactory};
use crate::operator::{InputIndex, OpenContext, Operator, Output};
use crate::state::{Facet, FreedBy, OperatorState, StateColumn, StateTable};
use crate::{Batch, Error, Result};

/// The table of the watermark of each subtask (u32, big-endian): i64, big-endian.
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
        let (schema, none) = (self.0.clone(), Timestamp::MIN);
        Ok(Box::new(CurrentWatermark { schema, subtask, operator: OperatorId(0), watermark: none, stored: none }))
    }
}

struct CurrentWatermark {
    schema: SchemaRef,
    subtask: SubtaskIndex,
    operator: OperatorId,
    watermark: Timestamp,
    stored: Timestamp,
}

impl Operator for CurrentWatermark {
    /// The least of the stored watermarks, if the parallelism is another one than when they were stored.
    fn open(&mut self, context: &OpenContext<'_>) -> Result<()> {
        self.operator = context.operator;
        let (mut least, mut own) = (None::<Timestamp>, None);
        for entry in context.entries(WATERMARKS) {
            let (_, key, value) = entry?;
            let damaged = || Error::corrupt("a stored watermark is not 4 + 8 bytes");
            let subtask = u32::from_be_bytes(key.as_ref().try_into().map_err(|_| damaged())?);
            let watermark = Timestamp(i64::from_be_bytes(value.as_ref().try_into().map_err(|_| damaged())?));
            least = Some(least.map_or(watermark, |least| least.min(watermark)));
            own = own.or((subtask == self.subtask.0).then_some(watermark));
        }
        self.watermark = own.or(least).unwrap_or(Timestamp::MIN);
        self.stored = own.unwrap_or(Timestamp::MIN);
        Ok(())
    }

    fn process(&mut self, _: InputIndex, batch: Batch, out: &mut Output) -> Result<()> {
        let watermark = (self.watermark > Timestamp::MIN).then_some(self.watermark.0);
        let zone = match self.schema.fields().last().map(|field| field.data_type()) {
            Some(DataType::Timestamp(_, zone)) => zone.clone(),
            _ => None,
        };
        let times = TimestampMillisecondArray::from(vec![watermark; batch.len()]).with_timezone_opt(zone);
        let mut columns: Vec<ArrayRef> = batch.rows().columns().to_vec();
        columns.push(Arc::new(times));
        out.emit(batch.with_rows(RecordBatch::try_new(self.schema.clone(), columns)?));
        Ok(())
    }

    fn watermark(&mut self, watermark: Timestamp, out: &mut Output) -> Result<()> {
        self.watermark = self.watermark.max(watermark);
        out.watermark(watermark);
        Ok(())
    }

    fn checkpoint(&mut self, _: CheckpointId, _: &mut Output, changes: &mut Changes) -> Result<()> {
        if self.stored < self.watermark {
            self.stored = self.watermark;
            let key = StateKey::new(self.operator, WATERMARKS, KeyGroup(0), &self.subtask.0.to_be_bytes());
            changes.put(key, self.watermark.0.to_be_bytes().to_vec());
        }
        Ok(())
    }
}
