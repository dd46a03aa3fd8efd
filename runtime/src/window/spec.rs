//! What a windowed aggregation computes.

use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use datafusion_physical_expr::PhysicalExpr;

use super::kind::Windows;
use crate::group_table::{Aggregate, FailedGroups};
use crate::row_errors::{self, RejectedRows};
use crate::{Batch, Error, Result};

/// Why a window refuses a changelog.
pub(super) const NOT_FOR_CHANGELOGS: &str = "the window was made for rows that are only appended; give it the input's columns as `WindowAggregateSpec::changelog`";

/// A column of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowColumn {
    /// The window's start, inclusive.
    Start,
    /// The window's end, exclusive.
    End,
    /// The last instant in the window: its end less 1 ms. An event time of the result.
    Time,
    /// A key column.
    Key(usize),
    /// An aggregate.
    Aggregate(usize),
}

/// A windowed aggregation.
#[derive(Debug, Clone)]
pub struct WindowAggregateSpec {
    /// The end of the row's slice ([`Windows::slice_end`]; of tumbling windows that is the window's end), over the operator's input; a timestamp in milliseconds,
    /// null for a row without event time.
    pub slice_end: Arc<dyn PhysicalExpr>,
    /// The windows.
    pub windows: Windows,
    /// The keys beside the window, over the operator's input, and their names and types.
    pub keys: Vec<(Arc<dyn PhysicalExpr>, FieldRef)>,
    /// The aggregates, over the operator's input.
    pub aggregates: Vec<Aggregate>,
    /// The input's columns, when the input is a changelog; `None` when rows are only appended.
    pub changelog: Option<SchemaRef>,
    /// What the result's columns are, in order.
    pub output: Vec<WindowColumn>,
    /// The result's schema.
    pub schema: SchemaRef,
}

impl WindowAggregateSpec {
    /// A defence: the graph is refused before.
    pub(super) fn check_kinds(&self, batch: &Batch) -> Result<()> {
        if batch.kinds().is_some() && self.changelog.is_none() {
            return Err(Error::invalid(NOT_FOR_CHANGELOGS));
        }
        Ok(())
    }

    pub(super) fn describe(&self, stage: &str) -> String {
        let keys: Vec<&str> = self.keys.iter().map(|(_, field)| field.name().as_str()).collect();
        let aggregates: Vec<&str> = self.aggregates.iter().map(|a| a.function.name()).collect();
        let by = if keys.is_empty() { String::new() } else { format!(" by {}", keys.join(", ")) };
        let of = if self.changelog.is_some() { " of a changelog" } else { "" };
        format!("WindowAggregate{of}{stage}: {}{by}: {}", self.windows.kind(), aggregates.join(", "))
    }

    /// The groups of a window that have no result: its bounds and their keys.
    pub(super) fn rejected(&self, end: i64, failed: FailedGroups) -> Result<RejectedRows> {
        let instant = |name: &str| Arc::new(Field::new(name, DataType::Timestamp(TimeUnit::Millisecond, None), false));
        let mut fields: Vec<FieldRef> = vec![instant("window_start"), instant("window_end")];
        fields.extend(self.keys.iter().map(|(_, field)| field.clone()));
        let bound = |at: i64| Arc::new(TimestampMillisecondArray::from(vec![at; failed.failures.len()])) as ArrayRef;
        let mut columns = vec![bound(self.windows.start_of(end)), bound(end)];
        columns.extend(failed.keys);
        let rows = Batch::inserts(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?);
        Ok(RejectedRows { rows, failures: failed.failures, stage: row_errors::Stage::Expression })
    }

    /// The result of the window that ends at `end`, from its `[keys…, aggregates…]`.
    pub(super) fn result(&self, end: i64, columns: &[ArrayRef]) -> Result<Batch> {
        let rows = columns.first().map_or(0, |column| column.len());
        let instant = |millis: i64| -> ArrayRef { Arc::new(TimestampMillisecondArray::from(vec![millis; rows])) };
        let mut out = Vec::with_capacity(self.output.len());
        for (column, field) in self.output.iter().zip(self.schema.fields()) {
            let array = match column {
                WindowColumn::Start => instant(self.windows.start_of(end)),
                WindowColumn::End => instant(end),
                WindowColumn::Time => instant(end - 1),
                WindowColumn::Key(index) => columns[*index].clone(),
                WindowColumn::Aggregate(index) => columns[self.keys.len() + index].clone(),
            };
            let same = array.data_type() == field.data_type();
            out.push(if same { array } else { arrow::compute::cast(&array, field.data_type())? });
        }
        Ok(Batch::inserts(RecordBatch::try_new(self.schema.clone(), out)?))
    }
}
