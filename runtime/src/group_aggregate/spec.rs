//! What a group aggregate computes.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::cast;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion_physical_expr::PhysicalExpr;

use crate::group_table::Aggregate;
use crate::row_errors::{Failure, RejectedRows, Stage};
use crate::{Batch, Error, Result};

/// Why a group aggregate refuses a changelog.
pub(super) const NOT_FOR_CHANGELOGS: &str =
    "the aggregation was made for rows that are only appended; set `GroupAggregateSpec::changelog`";

/// An updating aggregation: `GROUP BY` without a window.
///
/// The result is a changelog whose key is `keys`; the distinct keys of rows that are only appended are only appended as well. Over rows that are only appended,
/// a row is deleted only when its result fails.
#[derive(Debug, Clone)]
pub struct GroupAggregateSpec {
    /// The keys over the operator's input, and their names and types. Without keys there is one group.
    pub keys: Vec<(Arc<dyn PhysicalExpr>, FieldRef)>,
    /// The aggregates, over the operator's input. Without aggregates the result is the distinct keys.
    pub aggregates: Vec<Aggregate>,
    /// The input's columns.
    pub input: SchemaRef,
    /// Whether the input is a changelog; otherwise rows are only appended.
    pub changelog: bool,
    /// Whether an update emits the old result (`-U`) before the new one (`+U`). A delete (`-D`) always holds the old result.
    pub update_before: bool,
    /// Whether an aggregation without keys emits the aggregates of no rows when its input has ended and none is left: a table has that row, a stream does not.
    pub row_of_nothing: bool,
    /// The result's schema: the keys, then the aggregates.
    pub schema: SchemaRef,
    /// How long the state of a key lives after the key's last row, by the wall clock; for ever without it.
    pub ttl_millis: Option<i64>,
}

impl GroupAggregateSpec {
    /// Refuses what no result can be made of.
    pub(super) fn check(&self) -> Result<()> {
        let (columns, expected) = (self.schema.fields().len(), self.keys.len() + self.aggregates.len());
        if columns != expected {
            let message = format!("the result of a group aggregate has {columns} columns, expected {expected}");
            return Err(Error::internal(message));
        }
        if expected == 0 {
            return Err(Error::invalid(
                "a group aggregate has neither keys nor aggregates, expected at least one of them",
            ));
        }
        if let Some(ordered) = self.aggregates.iter().find(|aggregate| !aggregate.function.order_bys().is_empty()) {
            let name = ordered.function.name();
            return Err(Error::invalid(format!(
                "'{name}' has an ORDER BY, which a group aggregate does not keep; leave it out"
            )));
        }
        Ok(())
    }

    /// A defence: the graph is refused before.
    pub(super) fn check_kinds(&self, batch: &Batch) -> Result<()> {
        if batch.kinds().is_some() && !self.changelog {
            return Err(Error::invalid(NOT_FOR_CHANGELOGS));
        }
        Ok(())
    }

    /// Whether the result is updated.
    pub(super) fn is_changelog(&self) -> bool {
        // A distinct key stays while no row is taken back.
        self.changelog || !self.aggregates.is_empty()
    }

    /// The aggregates of no rows.
    pub(super) fn of_nothing(&self) -> Result<Batch> {
        let mut columns = Vec::with_capacity(self.aggregates.len());
        for (aggregate, field) in self.aggregates.iter().zip(self.schema.fields()) {
            let result = aggregate.function.create_accumulator()?.evaluate()?;
            columns.push(cast(&result.to_array()?, field.data_type())?);
        }
        Ok(Batch::inserts(RecordBatch::try_new(self.schema.clone(), columns)?))
    }

    pub(super) fn describe(&self) -> String {
        let keys: Vec<&str> = self.keys.iter().map(|(_, field)| field.name().as_str()).collect();
        let aggregates: Vec<&str> = self.aggregates.iter().map(|aggregate| aggregate.function.name()).collect();
        let by = if keys.is_empty() { String::new() } else { format!(" by {}", keys.join(", ")) };
        let of = if self.changelog { " of a changelog" } else { "" };
        let computed = if aggregates.is_empty() { "distinct keys".to_owned() } else { aggregates.join(", ") };
        format!("GroupAggregate{of}{by}: {computed}")
    }

    /// The groups that have no result: their keys.
    pub(super) fn rejected(&self, keys: Vec<ArrayRef>, failures: Vec<Failure>) -> Result<RejectedRows> {
        let fields: Vec<FieldRef> = self.keys.iter().map(|(_, field)| field.clone()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(failures.len()));
        let rows = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), keys, &options)?;
        Ok(RejectedRows { rows: Batch::inserts(rows), failures, stage: Stage::Expression })
    }
}
