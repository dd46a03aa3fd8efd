//! Updating aggregation: `GROUP BY` without a window, whose results change as rows come. Flink's `GroupAggregate`.
//!
//! ```text
//! rows of a batch ─▶ groups of the batch ─▶ stored states, by one multi-get ─▶ states after the batch ─▶ stored
//!                                                   │ evaluated                        │ evaluated
//!                                                   └─────────▶ changelog ◀────────────┘
//! ```
//!
//! A batch is a *mini-batch*: a key is evaluated once per batch, whatever number of rows it has there, so that a batch gives at most one update per key.
//! The state of a key is one value, and the result that was emitted last is computed
//! from the state before the batch, which is why it is not stored.
//!
//! Over rows that are only appended, a state is the partial result of every aggregate. Over a changelog, rows are taken back: `COUNT`, `SUM` and `AVG` keep
//! counts and totals that can be subtracted from (`retraction`); the others keep the values of the key in an ordered multiset beside the state (`values`), of
//! which `MIN` and `MAX` read one entry. `COUNT`, `SUM` and `AVG` of `DISTINCT` values keep the values over every input, and add or subtract those that come
//! or go.
//!
//! A key whose last row is taken back is deleted, with its state, also when the key has no columns: as Flink, the operator then has no
//! row for an aggregate over nothing, and neither has it before the first row. Rows that are taken back from a key without state are ignored, as in
//! Flink: with a time to live the state of a key may have expired before its rows are taken back.
//!
//! A key whose result fails (a total that its type does not hold) has no result until other rows change that: what was emitted is deleted, and the key is
//! handed over as a rejected row with the reason, once per batch with rows of the key.

mod aggregation;
mod changes;
mod describe;
mod layout;
mod operator;
mod partials;
mod retraction;
mod spec;
mod values;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use coulee_model::SubtaskIndex;

use crate::Result;
use crate::graph::{Lineage, OperatorFactory, Port};
use crate::operator::{InputIndex, Operator};
use crate::state::OperatorState;

use operator::GroupAggregate;
use spec::NOT_FOR_CHANGELOGS;

pub use spec::GroupAggregateSpec;

/// The aggregation. Rows of equal keys must meet in one subtask.
pub fn group_aggregate(spec: GroupAggregateSpec) -> Arc<dyn OperatorFactory> {
    Arc::new(GroupAggregateFactory { spec })
}

#[derive(Debug)]
struct GroupAggregateFactory {
    spec: GroupAggregateSpec,
}

impl OperatorFactory for GroupAggregateFactory {
    fn describe(&self) -> String {
        self.spec.describe()
    }

    fn schema(&self) -> SchemaRef {
        self.spec.schema.clone()
    }

    fn refuses_changelog(&self, _: InputIndex) -> Option<&'static str> {
        (!self.spec.changelog).then_some(NOT_FOR_CHANGELOGS)
    }

    fn emits_changelog(&self, port: Port, _: bool) -> bool {
        port == Port::MAIN && self.spec.is_changelog()
    }

    fn state(&self, inputs: &[Lineage]) -> Option<OperatorState> {
        Some(describe::state(&self.spec, inputs.first()?))
    }

    fn lineage(&self, inputs: &[Lineage]) -> Lineage {
        match inputs.first() {
            Some(input) => describe::lineage(&self.spec, input),
            None => Lineage::named("nothing", self.schema()),
        }
    }

    fn may_reject(&self) -> bool {
        true
    }

    fn create(&self, _: SubtaskIndex) -> Result<Box<dyn Operator>> {
        Ok(Box::new(GroupAggregate::new(self.spec.clone())?))
    }
}
