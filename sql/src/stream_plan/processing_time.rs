//! The time at which rows are processed, for windows over it.

use coulee_runtime::graph::{NodeKind, Partitioning, Port};
use coulee_runtime::processing_time::{ProcessingTimeSpec, processing_time};

use super::{Building, Node, StateName, StreamPlan};
use crate::error::{Fault, Result};
use crate::processing_time::Steps;
use crate::translate::{NodeRows, Translator};

#[derive(Debug)]
pub(super) struct ProcessingTime {
    pub steps: Steps,
}

impl Node for ProcessingTime {
    fn describe(&self, _: &[StreamPlan]) -> String {
        "ProcessingTime".to_owned()
    }

    fn state_name(&self) -> Option<StateName<'_>> {
        Some(StateName::ByPlace("processing-time"))
    }

    fn prepare(&self, plan: &StreamPlan, input: usize, rows: NodeRows, to: &mut Translator<'_>) -> Result<NodeRows> {
        to.exactly(rows, &plan.inputs[input].schema)
    }

    fn build(&self, mut building: Building<'_, '_, '_>) -> Result<NodeRows> {
        let rows = building.input()?;
        let Building { plan, name, to, .. } = building;
        let name = name.ok_or_else(|| Fault::new("a processing time has no name"))?;
        let spec = ProcessingTimeSpec {
            step_millis: self.steps.step_millis,
            offset_millis: self.steps.offset_millis,
            schema: plan.schema.inner().clone(),
        };
        let node = to.add(name, rows.parallelism, NodeKind::Operator(processing_time(spec)))?;
        to.graph.connect(rows.node, Port::MAIN, node, Partitioning::Forward)?;
        let line = "processing time: that of each row, the watermark follows the clock".to_owned();
        if !to.event_times.contains(&line) {
            to.event_times.push(line);
        }
        Ok(NodeRows::new(node, rows.parallelism, plan.schema.as_ref().clone()))
    }
}
