//! `TO_CHANGELOG` and `FROM_CHANGELOG`: what happens to rows as a column, and back.

use coulee_runtime::graph::{Partitioning, Port};
use coulee_runtime::op_codes::{self, from_changelog, to_changelog};

use super::{Building, ChangelogKind, Node, StreamPlan};
use crate::error::Result;
use crate::translate::{NodeRows, Translator};

#[derive(Debug)]
pub(super) struct OpCodes {
    codes: op_codes::OpCodes,
    reads: Option<usize>,
}

impl OpCodes {
    pub fn of(node: &crate::op_codes::OpCodes) -> Self {
        OpCodes { codes: op_codes::OpCodes::new(node.codes.clone()), reads: node.reads() }
    }
}

impl Node for OpCodes {
    fn describe(&self, inputs: &[StreamPlan]) -> String {
        match self.reads {
            None => "ToChangelog".to_owned(),
            Some(op) => format!("FromChangelog(op=[{}])", inputs[0].schema.field(op).name()),
        }
    }

    fn changes(&self, _: &[ChangelogKind]) -> ChangelogKind {
        if self.reads.is_some() { ChangelogKind::Retract } else { ChangelogKind::InsertOnly }
    }

    /// Keeps the columns that the plan asks for: the codes come beside them.
    fn prepare(&self, plan: &StreamPlan, input: usize, rows: NodeRows, to: &mut Translator<'_>) -> Result<NodeRows> {
        to.exactly(rows, &plan.inputs[input].schema)
    }

    fn build(&self, mut building: Building<'_, '_, '_>) -> Result<NodeRows> {
        let rows = building.input()?;
        let Building { plan, to, .. } = building;
        let (codes, schema) = (self.codes.clone(), plan.schema.inner().clone());
        let factory = match self.reads {
            None => to_changelog(codes, schema),
            Some(op) => from_changelog(codes, op, schema),
        };
        let node = to.stateless(rows.parallelism, factory)?;
        to.graph.connect(rows.node, Port::MAIN, node, Partitioning::Forward)?;
        Ok(NodeRows::new(node, rows.parallelism, plan.schema.as_ref().clone()))
    }
}
