//! Filter and project: the stateless operator between everything else.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use coulee_model::SubtaskIndex;
use datafusion_physical_expr::PhysicalExpr;

use crate::graph::OperatorFactory;
use crate::operator::{InputIndex, Operator, Output};
use crate::{Batch, Result};

/// Keeps the rows that pass the filter, and computes columns from them.
#[derive(Debug, Clone)]
pub struct Calc {
    /// Which rows stay (true; null counts as false); `None` is all. Over the input's schema.
    pub filter: Option<Arc<dyn PhysicalExpr>>,
    /// The output's columns over the input's schema; `None` keeps the input's.
    pub projection: Option<Vec<Arc<dyn PhysicalExpr>>>,
    /// The output's schema.
    pub schema: SchemaRef,
}

impl OperatorFactory for Calc {
    fn describe(&self) -> String {
        let mut parts = Vec::new();
        if let Some(filter) = &self.filter {
            parts.push(format!("Filter: {filter}"));
        }
        if self.projection.is_some() {
            let names: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
            parts.push(format!("Project: {}", names.join(", ")));
        }
        parts.join("; ")
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn refuses_changelog(&self, _: InputIndex) -> Option<&'static str> {
        None
    }

    fn is_stateless(&self) -> bool {
        true
    }

    fn create(&self, _: SubtaskIndex) -> Result<Box<dyn Operator>> {
        Ok(Box::new(self.clone()))
    }
}

impl Operator for Calc {
    fn process(&mut self, _: InputIndex, batch: Batch, out: &mut Output) -> Result<()> {
        let batch = match &self.filter {
            Some(filter) => filtered(batch, filter.as_ref())?,
            None => batch,
        };
        if batch.is_empty() {
            return Ok(());
        }
        let Some(projection) = &self.projection else {
            out.emit(batch);
            return Ok(());
        };
        let rows = batch.rows();
        let mut columns = Vec::with_capacity(projection.len());
        for expr in projection {
            columns.push(expr.evaluate(rows)?.into_array(rows.num_rows())?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let projected = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        out.emit(batch.with_rows(projected));
        Ok(())
    }
}

fn filtered(batch: Batch, filter: &dyn PhysicalExpr) -> Result<Batch> {
    let keep = filter.evaluate(batch.rows())?.into_array(batch.len())?;
    let keep = keep.as_boolean();
    if keep.true_count() == batch.len() {
        return Ok(batch);
    }
    batch.filter(keep)
}
