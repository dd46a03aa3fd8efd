//! Top-N and deduplication: `ROW_NUMBER() OVER (PARTITION BY … ORDER BY …)` with a condition on the number.
//!
//! The condition makes the difference between keeping a few rows per partition and numbering all rows anew with each one that comes. So the conversion looks
//! from a filter down to the window function whose number it bounds, as Flink's planner does.

use arrow::compute::SortOptions;
use coulee_runtime::graph::{NodeKind, Partitioning, Port};
use coulee_runtime::rank::{RankFunction, RankSpec, rank};
use datafusion_expr::{Expr, SortExpr, Window};

use super::print::{expression, expressions};
use super::{Building, ChangelogKind, Node, StateName, StreamPlan};
use crate::error::{Fault, Result};
use crate::functions::event_time::unmarked;
use crate::functions::ranking::{ranking_of, without_alias};
use crate::rank_bounds::Numbers;
use crate::translate::{NodeRows, Translator, physical};

#[derive(Debug)]
pub(super) struct Rank {
    function: RankFunction,
    partition: Vec<Expr>,
    order: Vec<SortExpr>,
    numbers: Numbers,
    has_number: bool,
}

impl Rank {
    /// The node of a window whose only function is a rank. `has_number`: whether somebody reads the number.
    pub fn of(window: &Window, numbers: Numbers, has_number: bool) -> Result<Self> {
        let [expr] = window.window_expr.as_slice() else { return Err(lost()) };
        let Expr::WindowFunction(call) = without_alias(expr) else { return Err(lost()) };
        let Some(function) = ranking_of(&call.fun) else { return Err(lost()) };
        let params = &call.params;
        if params.order_by.is_empty() {
            let message = format!("{} has no ORDER BY in its OVER clause", function.name());
            return Err(Fault::new(message).or_clause(&["OVER"]).help("write OVER (PARTITION BY key ORDER BY column)"));
        }
        let (partition, order) = (params.partition_by.clone(), unmarked(&params.order_by));
        Ok(Rank { function, partition, order, numbers, has_number })
    }
}

/// A defence: the conversion looks for the rank before.
pub(super) fn lost() -> Fault {
    Fault::new("the rank whose number is bounded is not in the plan")
}

impl Node for Rank {
    fn describe(&self, inputs: &[StreamPlan]) -> String {
        let input = &inputs[0].schema;
        let order =
            |key: &SortExpr| format!("{} {}", expression(&key.expr, input), if key.asc { "ASC" } else { "DESC" });
        let order: Vec<String> = self.order.iter().map(order).collect();
        let (function, Numbers { from, to }) = (self.function.name(), self.numbers);
        let partition = expressions(&self.partition, input);
        format!(
            "Rank(type=[{function}], range=[{from}..{to}], partitionBy={partition}, orderBy=[{}])",
            order.join(", ")
        )
    }

    fn changes(&self, _: &[ChangelogKind]) -> ChangelogKind {
        ChangelogKind::Retract
    }

    fn state_name(&self) -> Option<StateName<'_>> {
        Some(StateName::ByPlace("rank"))
    }

    /// Keeps the columns that the plan asks for: rows are stored whole.
    fn prepare(&self, plan: &StreamPlan, input: usize, rows: NodeRows, to: &mut Translator<'_>) -> Result<NodeRows> {
        to.exactly(rows, &plan.inputs[input].schema)
    }

    fn build(&self, mut building: Building<'_, '_, '_>) -> Result<NodeRows> {
        let rows = building.input()?;
        let Building { plan, name: Some(name), to, .. } = building else {
            return Err(Fault::new("the state of a rank has no name"));
        };
        let mut order = Vec::with_capacity(self.order.len());
        for key in &self.order {
            let options = SortOptions { descending: !key.asc, nulls_first: key.nulls_first };
            order.push((physical(&key.expr, &rows.schema)?, options));
        }
        let partition = self.partition.iter().map(|expr| physical(expr, &rows.schema)).collect::<Result<Vec<_>>>()?;
        let parallelism = if partition.is_empty() { 1 } else { to.context.parallelism };
        let partitioning = match rows.parallelism == 1 && parallelism == 1 {
            true => Partitioning::Forward,
            false => Partitioning::Hash(partition.clone()),
        };
        let spec = RankSpec {
            partition,
            order,
            function: self.function,
            from: self.numbers.from,
            to: self.numbers.to,
            has_number: self.has_number,
            changelog: plan.inputs.iter().any(|input| input.changes != ChangelogKind::InsertOnly),
            ttl_millis: to.context.state_ttl_millis,
            input: rows.schema.inner().clone(),
            schema: plan.schema.inner().clone(),
        };
        let node = to.add(name, parallelism, NodeKind::Operator(rank(spec)))?;
        to.graph.connect(rows.node, Port::MAIN, node, partitioning)?;
        Ok(NodeRows::new(node, parallelism, plan.schema.as_ref().clone()))
    }
}
