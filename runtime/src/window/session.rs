//! Session windows: rows of a key that follow each other within a gap are one window (Flink's `SESSION`).
//!
//! A session begins with its first row and ends a gap behind its last one. It fires when the watermark reaches its end: until then a row at
//! the end, which joins it, may come (Flink fires a millisecond before, and what such a row becomes depends on when it comes). A row may extend a session at either
//! side, or join two (see `merge`). A row is late when it joins no open session and the gap behind it has passed.
//!
//! Sessions share no slices, so that they are kept per key: a list of open sessions, each with a partial result and a timer. A timer is moved when it fires
//! before its session is over, not whenever the session grows: with every row of a busy key. A batch is aggregated vectorised: its sessions are groups of one
//! hash table, which begins with what they held before and is emptied into them at the end.
//!
//! A changelog is refused: a row that is taken back may have been what held a session together.

mod fire;
mod merge;
mod operator;
mod spec;
mod states;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use coulee_model::SubtaskIndex;

use crate::graph::{Lineage, OperatorFactory, Port};
use crate::operator::{InputIndex, Operator};
use crate::state::OperatorState;
use crate::{Error, Result};
use operator::SessionAggregate;
pub use spec::SessionAggregateSpec;

/// The operator.
pub fn session_aggregate(spec: SessionAggregateSpec) -> Arc<dyn OperatorFactory> {
    Arc::new(SessionFactory { spec })
}

#[derive(Debug)]
struct SessionFactory {
    spec: SessionAggregateSpec,
}

impl OperatorFactory for SessionFactory {
    fn describe(&self) -> String {
        let keys: Vec<&str> = self.spec.keys.iter().map(|(_, field)| field.name().as_str()).collect();
        let aggregates: Vec<&str> = self.spec.aggregates.iter().map(|a| a.function.name()).collect();
        let by = if keys.is_empty() { String::new() } else { format!(" by {}", keys.join(", ")) };
        format!("WindowAggregate: session {} ms{by}: {}", self.spec.gap_millis, aggregates.join(", "))
    }

    fn schema(&self) -> SchemaRef {
        self.spec.schema.clone()
    }

    fn refuses_changelog(&self, _: InputIndex) -> Option<&'static str> {
        Some("a row that is taken back may have been what held a session together; aggregate by another window")
    }

    fn emits_changelog(&self, _: Port, _: bool) -> bool {
        false
    }

    fn state(&self, inputs: &[Lineage]) -> Option<OperatorState> {
        Some(self.spec.state(inputs.first()?))
    }

    fn lineage(&self, inputs: &[Lineage]) -> Lineage {
        match inputs.first() {
            Some(input) => self.spec.lineage(input),
            None => Lineage::named("nothing", self.schema()),
        }
    }

    fn may_reject(&self) -> bool {
        true
    }

    fn create(&self, _: SubtaskIndex) -> Result<Box<dyn Operator>> {
        if self.spec.gap_millis <= 0 {
            let gap = self.spec.gap_millis;
            return Err(Error::invalid(format!("the gap between sessions is {gap} ms, expected more than 0")));
        }
        Ok(Box::new(SessionAggregate::new(self.spec.clone())?))
    }
}
