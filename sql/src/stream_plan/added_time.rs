//! A time as a further column: that of processing, for windows over it, or the watermark.

use coulee_runtime::current_watermark::current_watermark;
use coulee_runtime::graph::{NodeKind, Partitioning, Port};
use coulee_runtime::processing_time::{ProcessingTimeSpec, processing_time};

use super::{Building, Node, StateName, StreamPlan};
use crate::added_time::Added;
use crate::error::{Fault, Result};
use crate::translate::{NodeRows, Translator};

#[derive(Debug)]
pub(super) struct AddedTime {
    pub added: Added,
}

impl Node for AddedTime {
    fn describe(&self, _: &[StreamPlan]) -> String {
        match self.added {
            Added::ProcessingTime(_) => "ProcessingTime".to_owned(),
            Added::Watermark { .. } => "CurrentWatermark".to_owned(),
        }
    }

    fn state_name(&self) -> Option<StateName<'_>> {
        Some(StateName::ByPlace(match self.added {
            Added::ProcessingTime(_) => "processing-time",
            Added::Watermark { .. } => "watermark",
        }))
    }

    fn prepare(&self, plan: &StreamPlan, input: usize, rows: NodeRows, to: &mut Translator<'_>) -> Result<NodeRows> {
        to.exactly(rows, &plan.inputs[input].schema)
    }

    fn build(&self, mut building: Building<'_, '_, '_>) -> Result<NodeRows> {
        let rows = building.input()?;
        let Building { plan, name, to, .. } = building;
        let name = name.ok_or_else(|| Fault::new("an added time has no name"))?;
        let schema = plan.schema.inner().clone();
        let factory = match self.added {
            Added::ProcessingTime(steps) => {
                let line = "processing time: that of each row, the watermark follows the clock".to_owned();
                if !to.event_times.contains(&line) {
                    to.event_times.push(line);
                }
                let (step_millis, offset_millis) = (steps.step_millis, steps.offset_millis);
                processing_time(ProcessingTimeSpec { step_millis, offset_millis, schema })
            }
            Added::Watermark { .. } => current_watermark(schema),
        };
        let node = to.add(name, rows.parallelism, NodeKind::Operator(factory))?;
        to.graph.connect(rows.node, Port::MAIN, node, Partitioning::Forward)?;
        Ok(NodeRows::new(node, rows.parallelism, plan.schema.as_ref().clone()))
    }
}
