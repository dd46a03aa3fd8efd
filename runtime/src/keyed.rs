//! User functions with state per key, timers and side outputs.
//!
//! A function may take a changelog, and may make one. Here, orders come again whenever their status changes. The function keeps the current row of each and
//! emits what changed, so that a window counts every order once: under its last status.
//!
//! ```
//! # use std::{sync::Arc, time::Duration};
//! # use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
//! # use coulee_runtime::{Result, RowKind, row::Row, keyed::{KeyContext, KeyedFunction}};
//! # use coulee_runtime::{flow::{GraphBuilder, col, lit}, memory::{MemorySink, MemorySource}};
//! # use datafusion_common::ScalarValue;
//! # use datafusion_functions_aggregate::expr_fn::count;
//! struct CurrentOrder;
//!
//! impl KeyedFunction for CurrentOrder {
//!     /// When it was placed, and its status.
//!     type State = Option<(i64, String)>;
//!     /// What follows must be able to take a row back; the graph is checked for it.
//!     const EMITS_CHANGELOG: bool = true;
//!
//!     fn process(&mut self, row: Row<'_>, current: &mut Self::State, context: &mut KeyContext<'_>) -> Result<()> {
//!         let number = row.integer("number")?;
//!         let values = |(placed, status): &(i64, String)| {
//!             let placed = ScalarValue::TimestampMillisecond(Some(*placed), None);
//!             [ScalarValue::Int64(number), placed, ScalarValue::from(status.as_str())]
//!         };
//!         let new = (row.timestamp("placed")?.map_or(0, |at| at.0), row.text("status")?.unwrap_or("").to_owned());
//!         match current.replace(new.clone()) {
//!             None => context.emit(values(&new)),
//!             Some(old) => {
//!                 context.emit_change(RowKind::UpdateBefore, values(&old))?;
//!                 context.emit_change(RowKind::UpdateAfter, values(&new))
//!             }
//!         }
//!     }
//! }
//! # fn main() -> Result<()> {
//! # let instant = DataType::Timestamp(TimeUnit::Millisecond, None);
//! # let fields = [("number", DataType::Int64), ("placed", instant), ("status", DataType::Utf8)];
//! # let fields = fields.map(|(name, data_type)| Field::new(name, data_type, true));
//! # let schema = Arc::new(Schema::new(fields.to_vec()));
//! # let (orders, sink) = (Arc::new(MemorySource::new(schema.clone(), vec![])), Arc::new(MemorySink::default()));
//!
//! let builder = GraphBuilder::new(2);
//! let current = builder
//!     .source("orders", orders)?
//!     .event_time("placed", Duration::from_secs(3600))?
//!     .key_by(["number"])?
//!     .process("current", schema, || CurrentOrder)?;
//! assert!(current.is_changelog());
//! let hour = Duration::from_secs(3600);
//! let hourly = current.key_by(["status"])?.tumble("hourly", "placed", hour, [count(lit(1)).alias("orders")])?;
//! assert!(!hourly.is_changelog(), "a window's result is final");
//! hourly.sink("out", sink)?;
//! builder.finish()?;
//! # Ok(()) }
//! ```

mod context;
mod describe;
mod function;
mod operator;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use coulee_model::SubtaskIndex;
use datafusion_physical_expr::PhysicalExpr;

pub use crate::state::Order;
pub use context::{KeyContext, ListState, ListView, MapState, MapView};
pub use function::{Due, KeyedFunction};

use crate::Result;
use crate::graph::{Lineage, OperatorFactory, Port};
use crate::operator::{InputIndex, Operator};
use crate::state::OperatorState;
use operator::KeyedOperator;

/// Runs a [`KeyedFunction`] over rows that have been shuffled by `keys`.
pub struct Keyed<F, M> {
    /// What the operator is called in `EXPLAIN`.
    pub name: String,
    /// The key columns over the operator's input.
    pub keys: Vec<Arc<dyn PhysicalExpr>>,
    /// The output's columns.
    pub schema: SchemaRef,
    /// Side outputs: their names and columns. The `i`-th is at `Port::side(i)`.
    pub sides: Vec<(String, SchemaRef)>,
    /// How long the state of a key lives after its last change, by the wall clock.
    pub ttl: Option<Duration>,
    /// Makes the function of a subtask.
    pub make: M,
    /// The function's type.
    pub function: std::marker::PhantomData<fn() -> F>,
}

impl<F, M> fmt::Debug for Keyed<F, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed").field("name", &self.name).field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl<F: KeyedFunction, M: Fn() -> F + Send + Sync> OperatorFactory for Keyed<F, M> {
    fn describe(&self) -> String {
        let keys: Vec<String> = self.keys.iter().map(ToString::to_string).collect();
        format!("{} by {}", self.name, keys.join(", "))
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn side_schema(&self, port: Port) -> Option<SchemaRef> {
        let side = (0..self.sides.len()).find(|side| Port::side(*side as u8) == port)?;
        Some(self.sides[side].1.clone())
    }

    fn refuses_changelog(&self, _: InputIndex) -> Option<&'static str> {
        const REASON: &str =
            "let the function look at `Row::kind`, and say so with `const TAKES_CHANGELOG: bool = true`";
        (!F::TAKES_CHANGELOG).then_some(REASON)
    }

    fn emits_changelog(&self, port: Port, _: bool) -> bool {
        port == Port::MAIN && F::EMITS_CHANGELOG
    }

    fn state(&self, inputs: &[Lineage]) -> Option<OperatorState> {
        let ttl_millis = self.ttl.map(|ttl| ttl.as_millis() as u64);
        Some(describe::state(std::any::type_name::<F::State>(), &self.keys, ttl_millis, inputs.first()?))
    }

    fn lineage(&self, _: &[Lineage]) -> Lineage {
        Lineage::named(&self.name, self.schema.clone())
    }

    fn create(&self, _: SubtaskIndex) -> Result<Box<dyn Operator>> {
        let ttl_millis = self.ttl.map(|ttl| ttl.as_millis() as i64);
        Ok(Box::new(KeyedOperator::new((self.make)(), self.keys.clone(), &self.schema, &self.sides, ttl_millis)))
    }
}
