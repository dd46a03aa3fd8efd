//! Filter and project: the stateless operator between everything else.

use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use coulee_model::SubtaskIndex;
use datafusion_common::DataFusionError;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{Column, Literal};

use crate::graph::{Lineage, OperatorFactory};
use crate::operator::{InputIndex, Operator, Output};
use crate::row_errors::evaluate::{Failed, evaluate, evaluate_condition, in_pieces};
use crate::state::OperatorState;
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

    fn state(&self, _: &[Lineage]) -> Option<OperatorState> {
        None
    }

    fn lineage(&self, inputs: &[Lineage]) -> Lineage {
        let Some(mut rows) = inputs.first().cloned() else { return Lineage::named("nothing", self.schema.clone()) };
        if let Some(filter) = &self.filter {
            rows = rows.filtered(filter);
        }
        match &self.projection {
            Some(columns) => rows.projected(columns, self.schema.clone()),
            None => rows,
        }
    }

    fn may_reject(&self) -> bool {
        let is_plain = |expr: &Arc<dyn PhysicalExpr>| {
            expr.downcast_ref::<Column>().is_some() || expr.downcast_ref::<Literal>().is_some()
        };
        !self.filter.iter().chain(self.projection.iter().flatten()).all(is_plain)
    }

    fn create(&self, _: SubtaskIndex) -> Result<Box<dyn Operator>> {
        Ok(Box::new(self.clone()))
    }
}

impl Operator for Calc {
    fn process(&mut self, _: InputIndex, batch: Batch, out: &mut Output) -> Result<()> {
        let (mut pieces, rejected) = in_pieces(&batch, |piece| self.compute(piece))?;
        pieces.retain(|piece| !piece.is_empty());
        if !pieces.is_empty() {
            out.emit(Batch::concat(pieces)?);
        }
        if let Some(rejected) = rejected {
            out.reject(rejected);
        }
        Ok(())
    }
}

impl Calc {
    /// What it makes of rows.
    pub(crate) fn compute(&self, batch: Batch) -> Result<Batch, Failed> {
        let batch = match &self.filter {
            Some(filter) => filtered(batch, filter)?,
            None => batch,
        };
        let Some(projection) = &self.projection else { return Ok(batch) };
        let rows = batch.rows();
        let mut columns = Vec::with_capacity(projection.len());
        if rows.num_rows() == 0 {
            // An expression may fail on no rows at all (a division by a constant).
            return Ok(batch.with_rows(RecordBatch::new_empty(self.schema.clone())));
        }
        for (expr, field) in projection.iter().zip(self.schema.fields()) {
            let column = evaluate(expr, rows)?;
            if !field.is_nullable() && column.null_count() > 0 {
                let reason = format!("it is null, and column '{}' is NOT NULL", field.name());
                return Err(Failed::Rows(expr.clone(), DataFusionError::Execution(reason)));
            }
            columns.push(column);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let projected = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        Ok(batch.with_rows(projected))
    }
}

fn filtered(batch: Batch, filter: &Arc<dyn PhysicalExpr>) -> Result<Batch, Failed> {
    let keep = evaluate_condition(filter, batch.rows())?;
    if keep.true_count() == batch.len() {
        return Ok(batch);
    }
    Ok(batch.filter(&keep)?)
}
