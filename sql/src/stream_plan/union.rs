//! `UNION ALL`: the rows of all inputs, with the types that they have in common.

use super::{Building, Node, StreamPlan};
use crate::error::Result;
use crate::translate::{NodeRows, Translator, column};

#[derive(Debug)]
pub(super) struct Union;

impl Node for Union {
    fn describe(&self, inputs: &[StreamPlan]) -> String {
        format!("UnionAll(inputs={})", inputs.len())
    }

    fn prepare(&self, plan: &StreamPlan, input: usize, rows: NodeRows, to: &mut Translator<'_>) -> Result<NodeRows> {
        to.shaped(rows, &plan.inputs[input].schema, plan.schema.inner().clone())
    }

    fn build(&self, building: Building<'_, '_, '_>) -> Result<NodeRows> {
        let Building { plan, inputs, to, .. } = building;
        let parallelism = inputs.iter().map(|rows| rows.parallelism).max().unwrap_or(1);
        let arrow = plan.schema.inner().clone();
        let columns = arrow.fields().iter().enumerate().map(|(index, field)| column(field.name(), index)).collect();
        let node = to.calc(None, Some(columns), arrow, parallelism)?;
        for rows in &inputs {
            to.connect(rows, node)?;
        }
        Ok(NodeRows::new(node, parallelism, plan.schema.as_ref().clone()))
    }
}
