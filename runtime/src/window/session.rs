//! Session windows: rows of a key that follow each other within a gap are one window (Flink's `SESSION`).
//!
//! A session begins with its first row and ends a gap behind its last one. It fires when the watermark passes its end. A row may extend a session at either
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
mod states;

use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use coulee_model::SubtaskIndex;
use datafusion_physical_expr::PhysicalExpr;

use super::describe::sort_canonically;
use super::spec::WindowColumn;
use crate::graph::{Lineage, OperatorFactory, Port};
use crate::group_table::Aggregate;
use crate::operator::{InputIndex, Operator};
use crate::row_errors::{self, Failure, RejectedRows};
use crate::state::{Facet, FreedBy, OperatorState, StateColumn, StateTable, span};
use crate::{Batch, Error, Result};
use operator::SessionAggregate;

/// An aggregation by sessions.
#[derive(Debug, Clone)]
pub struct SessionAggregateSpec {
    /// The rows' event time, over the operator's input: a timestamp of any precision, null for a row without one.
    pub time: Arc<dyn PhysicalExpr>,
    /// How long a key must be without rows for its session to be over, in milliseconds; above 0.
    pub gap_millis: i64,
    /// The keys, over the operator's input, and their names and types. Rows must have been shuffled by them.
    pub keys: Vec<(Arc<dyn PhysicalExpr>, FieldRef)>,
    /// The aggregates, over the operator's input.
    pub aggregates: Vec<Aggregate>,
    /// What the result's columns are, in order.
    pub output: Vec<WindowColumn>,
    /// The result's schema.
    pub schema: SchemaRef,
}

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

impl SessionAggregateSpec {
    /// As [`WindowAggregateSpec::in_canonical_order`](super::WindowAggregateSpec::in_canonical_order).
    #[must_use]
    pub fn in_canonical_order(mut self, input: &Lineage) -> Self {
        sort_canonically(&mut self.keys, &mut self.aggregates, &mut self.output, input);
        self
    }

    fn window(&self, input: &Lineage) -> String {
        format!("SESSION({}, {})", input.text(&self.time), span(self.gap_millis.unsigned_abs()))
    }

    fn state(&self, input: &Lineage) -> OperatorState {
        let or_none = |texts: Vec<String>| if texts.is_empty() { "none".to_owned() } else { texts.join(", ") };
        let facets = vec![
            Facet::new("window", self.window(input)),
            Facet::new("keys", or_none(self.keys.iter().map(|(expr, _)| input.typed(expr)).collect())),
            Facet::new("aggregates", or_none(self.aggregates.iter().map(|a| input.aggregate(a)).collect())),
            Facet::new("input", input.rows()),
        ];
        let key: Vec<StateColumn> =
            self.keys.iter().map(|(_, field)| StateColumn::new(field.name(), field.data_type())).collect();
        let instant = |name: &str| StateColumn::new(name, "instant");
        let mut value = vec![instant("window_start"), instant("window_end")];
        value.extend(
            self.aggregates.iter().map(|a| StateColumn::new(a.function.name(), a.function.field().data_type())),
        );
        let table = |name: &str, key: Vec<StateColumn>, value: Vec<StateColumn>, freed_by: FreedBy, bound: &str| {
            StateTable { name: name.to_owned(), key, value, freed_by, bound: bound.to_owned() }
        };
        let timers = key.iter().cloned().chain([instant("at")]).collect();
        let tables = vec![
            table("sessions", key, value, FreedBy::WindowEnd, "open sessions"),
            table("timers", timers, Vec::new(), FreedBy::Timer, "open sessions"),
            table("watermark", Vec::new(), vec![instant("watermark")], FreedBy::Never, "one"),
        ];
        OperatorState { kind: "session", tables, facets }
    }

    fn lineage(&self, input: &Lineage) -> Lineage {
        let keys: Vec<String> = self.keys.iter().map(|(expr, _)| input.text(expr)).collect();
        let aggregates: Vec<String> = self.aggregates.iter().map(|aggregate| input.aggregate(aggregate)).collect();
        let by = if keys.is_empty() { String::new() } else { format!(" BY {}", keys.join(", ")) };
        let from = format!("[{}{by}: {} OF {}]", self.window(input), aggregates.join(", "), input.rows());
        let columns = self.output.iter().map(|column| match column {
            WindowColumn::Start => "window_start".to_owned(),
            WindowColumn::End => "window_end".to_owned(),
            WindowColumn::Time => "window_time".to_owned(),
            WindowColumn::Key(index) => keys[*index].clone(),
            WindowColumn::Aggregate(index) => aggregates[*index].clone(),
        });
        Lineage::new(from, columns.collect(), self.schema.clone())
    }

    /// The result's columns from the sessions `[start, end)`, their keys and their aggregates.
    fn result(&self, spans: &[(i64, i64)], keys: &[ArrayRef], aggregates: &[ArrayRef]) -> Result<Batch> {
        let instants = |of: fn(&(i64, i64)) -> i64| -> ArrayRef {
            Arc::new(TimestampMillisecondArray::from_iter_values(spans.iter().map(of)))
        };
        let mut out = Vec::with_capacity(self.output.len());
        for (column, field) in self.output.iter().zip(self.schema.fields()) {
            let array = match column {
                WindowColumn::Start => instants(|span| span.0),
                WindowColumn::End => instants(|span| span.1),
                WindowColumn::Time => instants(|span| span.1 - 1),
                WindowColumn::Key(index) => keys[*index].clone(),
                WindowColumn::Aggregate(index) => aggregates[*index].clone(),
            };
            let same = array.data_type() == field.data_type();
            out.push(if same { array } else { arrow::compute::cast(&array, field.data_type())? });
        }
        Ok(Batch::inserts(RecordBatch::try_new(self.schema.clone(), out)?))
    }

    /// The sessions that have no result: their bounds and keys.
    fn rejected(&self, spans: &[(i64, i64)], keys: &[ArrayRef], failures: Vec<Failure>) -> Result<RejectedRows> {
        let instant = |name: &str| Arc::new(Field::new(name, DataType::Timestamp(TimeUnit::Millisecond, None), false));
        let mut fields: Vec<FieldRef> = vec![instant("window_start"), instant("window_end")];
        fields.extend(self.keys.iter().map(|(_, field)| field.clone()));
        let bound = |of: fn(&(i64, i64)) -> i64| -> ArrayRef {
            Arc::new(TimestampMillisecondArray::from_iter_values(spans.iter().map(of)))
        };
        let mut columns = vec![bound(|span| span.0), bound(|span| span.1)];
        columns.extend(keys.iter().cloned());
        let rows = Batch::inserts(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?);
        Ok(RejectedRows { rows, failures, stage: row_errors::Stage::Expression })
    }
}
