//! Puts one projection into the next, so that both are one operator.
//!
//! DataFusion merges projections too, but not across the names that tables and views give.

use std::sync::Arc;

use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::Column;

use crate::error::Result;
use crate::faults::fault;

/// Whether an expression is a column of the input.
pub(crate) fn is_column(expr: &Arc<dyn PhysicalExpr>) -> bool {
    expr.downcast_ref::<Column>().is_some()
}

/// Whether `exprs`, put over what `columns` compute, compute nothing twice.
pub(crate) fn pays(columns: &[Arc<dyn PhysicalExpr>], exprs: &[Arc<dyn PhysicalExpr>]) -> bool {
    let mut uses = vec![0_usize; columns.len()];
    for expr in exprs {
        // The closure never fails.
        let _ = expr.apply(|expr| {
            if let Some(column) = expr.downcast_ref::<Column>() {
                uses[column.index()] += 1;
            }
            Ok(TreeNodeRecursion::Continue)
        });
    }
    columns.iter().zip(uses).all(|(column, uses)| uses <= 1 || is_column(column))
}

/// An expression over the output of `columns`, as one over their input.
pub(crate) fn over(columns: &[Arc<dyn PhysicalExpr>], expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
    let replaced = expr.transform_up(|expr| {
        let column = expr.downcast_ref::<Column>().and_then(|column| columns.get(column.index()));
        Ok(match column {
            Some(column) => Transformed::yes(column.clone()),
            None => Transformed::no(expr),
        })
    });
    replaced.data().map_err(|error| fault(&error))
}
