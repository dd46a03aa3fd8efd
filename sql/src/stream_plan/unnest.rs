//! `UNNEST`: each row with each element of one of its arrays or maps.

use coulee_runtime::graph::{Partitioning, Port};
use coulee_runtime::unnest::{UnnestSpec, unnest};
use datafusion_expr::Expr;

use super::print::expression;
use super::{Building, Node, StreamPlan};
use crate::error::Result;
use crate::translate::{NodeRows, Translator, physical};

#[derive(Debug)]
pub(super) struct Unnest {
    collection: Expr,
    is_outer: bool,
    has_ordinality: bool,
}

impl Unnest {
    pub fn of(node: &crate::unnest::Unnest) -> Self {
        Unnest { collection: node.collection.clone(), is_outer: node.is_outer(), has_ordinality: node.has_ordinality() }
    }
}

impl Node for Unnest {
    fn describe(&self, inputs: &[StreamPlan]) -> String {
        let collection = expression(&self.collection, &inputs[0].schema);
        let join = if self.is_outer { "left" } else { "inner" };
        let ordinality = if self.has_ordinality { " with ordinality" } else { "" };
        format!("Correlate(type=[{join}], call=[UNNEST({collection}){ordinality}])")
    }

    /// Keeps the columns that the plan asks for: rows are copied.
    fn prepare(&self, plan: &StreamPlan, input: usize, rows: NodeRows, to: &mut Translator<'_>) -> Result<NodeRows> {
        to.exactly(rows, &plan.inputs[input].schema)
    }

    fn build(&self, mut building: Building<'_, '_, '_>) -> Result<NodeRows> {
        let rows = building.input()?;
        let Building { plan, to, .. } = building;
        let spec = UnnestSpec {
            collection: physical(&self.collection, &rows.schema)?,
            is_outer: self.is_outer,
            has_ordinality: self.has_ordinality,
            schema: plan.schema.inner().clone(),
        };
        let node = to.stateless(rows.parallelism, unnest(spec))?;
        to.graph.connect(rows.node, Port::MAIN, node, Partitioning::Forward)?;
        Ok(NodeRows::new(node, rows.parallelism, plan.schema.as_ref().clone()))
    }
}
