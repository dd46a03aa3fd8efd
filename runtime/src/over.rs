//! Columns that are computed of the rows before each row: `OVER (PARTITION BY … ORDER BY time …)` (Flink's `OverAggregate`).
//!
//! Rows wait in an ordered map per partition, `time | order | arrival`, until the watermark has passed their time. Then the partition's timer fires: its rows are
//! computed in their order and emitted. What they leave behind depends on the frames:
//!
//! | frame | kept of a partition |
//! | --- | --- |
//! | `ROWS n PRECEDING`, `LAG` | the last n rows |
//! | `RANGE span PRECEDING` | the rows of the last span, until a timer frees them |
//! | `UNBOUNDED PRECEDING` | the states of the accumulators |
//! | the numbers of rows | three counters |
//!
//! An aggregate of any other frame is computed anew for each row, of the frame's rows, vectorised over all partitions that fire at once: taking rows back out
//! of an accumulator would leave the rounding of floating numbers behind.
//!
//! Without an event time rows wait for the end of the input; or they are emitted at once and updated when their columns change ([`updating`]), also over a
//! changelog.

mod compute;
mod describe;
mod entry;
mod frames;
mod operator;
mod region;
mod spec;
mod stretch;
mod updating;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use coulee_model::SubtaskIndex;

use crate::Result;
use crate::graph::{Lineage, OperatorFactory, Port};
use crate::operator::{InputIndex, Operator};
use crate::state::OperatorState;
use operator::Over;
pub use spec::{Frame, FrameUnit, OverCall, OverMode, OverSpec, Share};
use updating::Updating;

/// The operator. What leaves it is a changelog if rows are updated.
pub fn over(spec: OverSpec) -> Arc<dyn OperatorFactory> {
    Arc::new(OverFactory(spec))
}

#[derive(Debug)]
struct OverFactory(OverSpec);

impl OperatorFactory for OverFactory {
    fn describe(&self) -> String {
        self.0.describe()
    }

    fn schema(&self) -> SchemaRef {
        self.0.schema.clone()
    }

    fn refuses_changelog(&self, _: InputIndex) -> Option<&'static str> {
        match self.0.mode {
            OverMode::ByTime(_) | OverMode::AtEnd => {
                Some("a row that is taken back would change the columns of all rows behind it")
            }
            OverMode::Updating { changelog: false, .. } => {
                Some("`OverMode::Updating` says whether the input is a changelog")
            }
            OverMode::Updating { changelog: true, .. } => None,
        }
    }

    fn emits_changelog(&self, port: Port, _: bool) -> bool {
        port == Port::MAIN && matches!(self.0.mode, OverMode::Updating { .. })
    }

    fn state(&self, inputs: &[Lineage]) -> Option<OperatorState> {
        Some(self.0.state(inputs.first()?))
    }

    fn lineage(&self, inputs: &[Lineage]) -> Lineage {
        match inputs.first() {
            Some(input) => self.0.lineage(input),
            None => Lineage::named("nothing", self.schema()),
        }
    }

    fn may_reject(&self) -> bool {
        true
    }

    fn create(&self, _: SubtaskIndex) -> Result<Box<dyn Operator>> {
        Ok(match self.0.mode {
            OverMode::ByTime(_) | OverMode::AtEnd => Box::new(Over::new(self.0.clone())?),
            OverMode::Updating { .. } => Box::new(Updating::new(self.0.clone())?),
        })
    }
}
