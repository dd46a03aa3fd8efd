//! What an aggregation by sessions is asked for, its state, and its result's columns.

use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use datafusion_physical_expr::PhysicalExpr;

use crate::graph::Lineage;
use crate::group_table::Aggregate;
use crate::row_errors::{self, Failure, RejectedRows};
use crate::state::{Facet, FreedBy, OperatorState, StateColumn, StateTable, span};
use crate::window::describe::sort_canonically;
use crate::window::spec::WindowColumn;
use crate::{Batch, Result};

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

impl SessionAggregateSpec {
    /// As [`WindowAggregateSpec::in_canonical_order`](crate::window::WindowAggregateSpec::in_canonical_order).
    #[must_use]
    pub fn in_canonical_order(mut self, input: &Lineage) -> Self {
        sort_canonically(&mut self.keys, &mut self.aggregates, &mut self.output, input);
        self
    }

    fn window(&self, input: &Lineage) -> String {
        format!("SESSION({}, {})", input.text(&self.time), span(self.gap_millis.unsigned_abs()))
    }

    pub(super) fn state(&self, input: &Lineage) -> OperatorState {
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

    pub(super) fn lineage(&self, input: &Lineage) -> Lineage {
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
    pub(super) fn result(&self, spans: &[(i64, i64)], keys: &[ArrayRef], aggregates: &[ArrayRef]) -> Result<Batch> {
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
    pub(super) fn rejected(
        &self,
        spans: &[(i64, i64)],
        keys: &[ArrayRef],
        failures: Vec<Failure>,
    ) -> Result<RejectedRows> {
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
