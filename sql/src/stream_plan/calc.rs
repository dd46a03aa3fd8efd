//! Filters, projections and new names: what is done to each row alone. Neighbours become one operator, see [`NodeRows`].

use std::sync::Arc;

use datafusion_common::TableReference;
use datafusion_expr::{Expr, Operator};
use datafusion_physical_expr::expressions::BinaryExpr;

use super::{Building, Node, StreamPlan};
use crate::error::Result;
use crate::fuse::{self, is_column};
use crate::stream_plan::print::expressions;
use crate::translate::{NodeRows, physical, qualified};

/// Lets rows through for which the predicate is true.
#[derive(Debug)]
pub(super) struct Filter {
    pub predicate: Expr,
}

impl Node for Filter {
    fn describe(&self, inputs: &[StreamPlan]) -> String {
        format!("Filter(where={})", expressions([&self.predicate], &inputs[0].schema))
    }

    fn build(&self, mut building: Building<'_, '_, '_>) -> Result<NodeRows> {
        let mut rows = building.input()?;
        let mut predicate = physical(&self.predicate, rows.output())?;
        match rows.projection.take() {
            Some((columns, schema)) if columns.iter().all(is_column) => {
                predicate = fuse::over(&columns, predicate)?;
                rows.projection = Some((columns, schema));
            }
            Some(projection) => {
                rows.projection = Some(projection);
                rows = building.to.flush(rows)?;
            }
            None => {}
        }
        rows.filter = Some(match rows.filter.take() {
            Some(first) => Arc::new(BinaryExpr::new(first, Operator::And, predicate)),
            None => predicate,
        });
        Ok(rows)
    }
}

/// Computes columns.
#[derive(Debug)]
pub(super) struct Projection {
    pub exprs: Vec<Expr>,
}

impl Node for Projection {
    fn describe(&self, inputs: &[StreamPlan]) -> String {
        format!("Project(select={})", expressions(&self.exprs, &inputs[0].schema))
    }

    fn build(&self, mut building: Building<'_, '_, '_>) -> Result<NodeRows> {
        let mut rows = building.input()?;
        let exprs = self.exprs.iter().map(|expr| physical(expr, rows.output()));
        let mut exprs = exprs.collect::<Result<Vec<_>>>()?;
        match rows.projection.take() {
            Some((columns, _)) if fuse::pays(&columns, &exprs) => {
                exprs = exprs.into_iter().map(|expr| fuse::over(&columns, expr)).collect::<Result<_>>()?;
            }
            Some(before) => {
                rows.projection = Some(before);
                rows = building.to.flush(rows)?;
            }
            None => {}
        }
        rows.projection = Some((exprs, building.plan.schema.as_ref().clone()));
        Ok(rows)
    }
}

/// The same columns, qualified by another name.
#[derive(Debug)]
pub(super) struct Renamed {
    pub alias: TableReference,
}

impl Node for Renamed {
    fn describe(&self, _: &[StreamPlan]) -> String {
        format!("Rename(as={})", self.alias)
    }

    fn build(&self, mut building: Building<'_, '_, '_>) -> Result<NodeRows> {
        let mut rows = building.input()?;
        match rows.projection.as_mut() {
            Some((_, schema)) => *schema = qualified(&self.alias, schema.as_arrow())?,
            None => rows.schema = qualified(&self.alias, rows.schema.as_arrow())?,
        }
        Ok(rows)
    }
}
