//! Rows with their windows, without an aggregation: each row once per window that holds it.

use coulee_runtime::graph::{Partitioning, Port};
use coulee_runtime::window::{WindowRowsSpec, Windows, window_rows};
use datafusion_common::{DFSchema, TableReference};
use datafusion_expr::Expr;

use super::{Building, Node, StreamPlan};
use crate::error::{Fault, Result};
use crate::faults::fault;
use crate::translate::{NodeRows, Translator, physical};
use crate::window_assign::{Assigned, WindowAssign};

#[derive(Debug)]
pub(super) struct WindowRows {
    time: Expr,
    windows: Windows,
}

impl WindowRows {
    pub fn of(assign: &WindowAssign) -> Result<Self> {
        match assign.windows {
            Assigned::Overlapping(windows) => Ok(WindowRows { time: assign.time.clone(), windows }),
            Assigned::Sessions { .. } => Err(Fault::new("sessions are windows of an aggregation")
                .or_clause(&["GROUP"])
                .help("aggregate the rows of each: GROUP BY window_start, window_end and the columns of PARTITION BY")),
        }
    }
}

impl Node for WindowRows {
    fn describe(&self, _: &[StreamPlan]) -> String {
        format!("WindowTableFunction(window=[{}])", self.windows.kind())
    }

    /// Keeps the columns that the plan asks for: rows are copied.
    fn prepare(&self, plan: &StreamPlan, input: usize, rows: NodeRows, to: &mut Translator<'_>) -> Result<NodeRows> {
        to.exactly(rows, &plan.inputs[input].schema)
    }

    fn build(&self, mut building: Building<'_, '_, '_>) -> Result<NodeRows> {
        let rows = building.input()?;
        let Building { plan, to, .. } = building;
        let schema = WindowRowsSpec::schema_of(rows.schema.inner());
        let spec =
            WindowRowsSpec { time: physical(&self.time, &rows.schema)?, windows: self.windows, schema: schema.clone() };
        let node = to.stateless(rows.parallelism, window_rows(spec))?;
        to.graph.connect(rows.node, Port::MAIN, node, Partitioning::Forward)?;
        let qualifiers = plan.schema.iter().map(|(qualifier, _)| qualifier.cloned());
        let qualified: Vec<(Option<TableReference>, _)> = qualifiers.zip(schema.fields().iter().cloned()).collect();
        let columns = DFSchema::new_with_metadata(qualified, Default::default()).map_err(|error| fault(&error))?;
        // A window's time has the type of the rows' time.
        let mut rows = NodeRows::new(node, rows.parallelism, columns);
        let mut exprs = Vec::with_capacity(schema.fields().len());
        for ((qualifier, field), wanted) in rows.schema.iter().zip(plan.schema.fields()) {
            let column = Expr::Column((qualifier, field).into());
            let same = field.data_type() == wanted.data_type();
            let cast = || Expr::Cast(datafusion_expr::Cast::new(Box::new(column.clone()), wanted.data_type().clone()));
            exprs.push(physical(&if same { column.clone() } else { cast() }, &rows.schema)?);
        }
        rows.projection = Some((exprs, plan.schema.as_ref().clone()));
        Ok(rows)
    }
}
