//! Rows that the statement itself has: `VALUES`, and the one row without columns of a query without `FROM`.

use std::sync::Arc;

use arrow::array::{ArrayRef, new_empty_array};
use arrow::compute::concat;
use arrow::datatypes::Schema;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use coulee_runtime::graph::{NodeKind, SourceNode};
use coulee_runtime::values::ValuesSource;
use datafusion_common::DFSchema;
use datafusion_expr::{EmptyRelation, Expr};

use super::{Building, ChangelogKind, Node, StateName, StreamPlan};
use crate::error::{Fault, Result};
use crate::faults::fault;
use crate::translate::{NodeRows, physical};

#[derive(Debug)]
pub(super) struct Values {
    rows: RecordBatch,
}

impl Values {
    /// The rows of `VALUES`, whose expressions are computed now.
    ///
    /// # Errors
    /// When one has no value.
    pub fn of(values: &datafusion_expr::Values) -> Result<Self> {
        let one = RecordBatchOptions::new().with_row_count(Some(1));
        let one = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &one).map_err(shown)?;
        let schema = values.schema.inner();
        let mut columns = Vec::with_capacity(schema.fields().len());
        for (index, field) in schema.fields().iter().enumerate() {
            let cells = values.values.iter().enumerate().map(|(row, cells)| {
                let failed = |why: String| Fault::new(format!("VALUES, row {}, column {}: {why}", row + 1, index + 1));
                let value = value(&cells[index], &one).map_err(failed)?;
                arrow::compute::cast(&value, field.data_type()).map_err(shown)
            });
            let cells = cells.collect::<Result<Vec<ArrayRef>>>()?;
            let cells: Vec<&dyn arrow::array::Array> = cells.iter().map(AsRef::as_ref).collect();
            columns.push(match cells.is_empty() {
                true => new_empty_array(field.data_type()),
                false => concat(&cells).map_err(shown)?,
            });
        }
        Ok(Values { rows: RecordBatch::try_new(schema.clone(), columns).map_err(shown)? })
    }

    /// What a query without `FROM` begins with: one row, or none where a condition lets none through.
    pub fn nothing(relation: &EmptyRelation) -> Result<Self> {
        let schema = relation.schema.inner().clone();
        let rows = usize::from(relation.produce_one_row);
        let columns =
            schema.fields().iter().map(|field| arrow::array::new_null_array(field.data_type(), rows)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(Values { rows: RecordBatch::try_new_with_options(schema, columns, &options).map_err(shown)? })
    }
}

fn shown(error: arrow::error::ArrowError) -> Fault {
    fault(&error.into())
}

/// What an expression without columns is; or why it has no value.
fn value(expr: &Expr, one: &RecordBatch) -> std::result::Result<ArrayRef, String> {
    let expr = physical(expr, &DFSchema::empty()).map_err(|fault| fault.message.clone())?;
    let value = expr.evaluate(one).and_then(|value| value.into_array(1));
    value.map_err(|error| fault(&error).message)
}

impl Node for Values {
    fn describe(&self, _: &[StreamPlan]) -> String {
        format!("Values(rows={})", self.rows.num_rows())
    }

    fn changes(&self, _: &[ChangelogKind]) -> ChangelogKind {
        ChangelogKind::InsertOnly
    }

    fn state_name(&self) -> Option<StateName<'_>> {
        Some(StateName::ByPlace("values"))
    }

    fn build(&self, building: Building<'_, '_, '_>) -> Result<NodeRows> {
        let Building { plan, name: Some(name), to, .. } = building else {
            return Err(Fault::new("the rows of a statement have no name"));
        };
        let source = Arc::new(ValuesSource::new(self.rows.clone()));
        let kind = NodeKind::Source(SourceNode { source, event_time: None, rate_limit: None });
        let node = to.add(name, 1, kind)?;
        Ok(NodeRows::new(node, 1, plan.schema.as_ref().clone()))
    }
}
