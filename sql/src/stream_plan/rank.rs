//! Top-N and deduplication: `ROW_NUMBER() OVER (PARTITION BY … ORDER BY …)` with a condition on the number.
//!
//! The condition makes the difference between keeping a few rows per partition and numbering all rows anew with each one that comes. So the conversion looks
//! from a filter down to the window function whose number it bounds, as Flink's planner does.

use arrow::compute::SortOptions;
use coulee_runtime::graph::{NodeKind, Partitioning, Port};
use coulee_runtime::rank::{RankFunction, RankSpec, rank};
use datafusion_common::ScalarValue;
use datafusion_expr::expr::{Between, BinaryExpr};
use datafusion_expr::utils::split_conjunction;
use datafusion_expr::{Expr, Filter, LogicalPlan, Operator, SortExpr, Window};

use super::print::{expression, expressions};
use super::{Building, ChangelogKind, Node, StateName, StreamPlan};
use crate::error::{Fault, Result};
use crate::functions::event_time::unmarked;
use crate::functions::ranking::{ranking_of, without_alias};
use crate::lineage::is_rank;
use crate::translate::{NodeRows, Translator, physical};

/// Which numbers a filter lets through, inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Numbers {
    pub from: u64,
    pub to: u64,
}

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

/// The numbers that a filter lets through, if it bounds those of a rank below; and the conditions that are left.
pub(super) fn bounded(filter: &Filter) -> Option<(Numbers, Vec<Expr>)> {
    let (mut numbers, mut rest) = (Numbers { from: 1, to: u64::MAX }, Vec::new());
    for condition in split_conjunction(&filter.predicate) {
        match bounds(condition, &filter.input) {
            Some(own) => {
                numbers.from = numbers.from.max(own.from);
                numbers.to = numbers.to.min(own.to);
            }
            None => rest.push(condition.clone()),
        }
    }
    (numbers.to < u64::MAX).then_some((numbers, rest))
}

/// Whether a filter lets the first row of each partition through, and says nothing else.
pub(crate) fn first_row(filter: &Filter) -> bool {
    matches!(bounded(filter), Some((Numbers { from: 1, to: 1 }, rest)) if rest.is_empty())
}

/// What a condition says of a rank's number: `rn <= 3`, `rn = 1`, `rn BETWEEN 2 AND 4`.
fn bounds(condition: &Expr, input: &LogicalPlan) -> Option<Numbers> {
    let is_number = |expr: &Expr| matches!(expr, Expr::Column(column) if is_rank(column, input));
    if let Expr::Between(Between { expr, negated: false, low, high }) = condition
        && is_number(expr)
    {
        return Some(Numbers { from: literal(low)?.max(1) as u64, to: literal(high)?.max(0) as u64 });
    }
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { return None };
    let (op, value) = match (is_number(left), is_number(right)) {
        (true, false) => (*op, literal(right)?),
        (false, true) => (op.swap()?, literal(left)?),
        _ => return None,
    };
    let (from, to) = match op {
        Operator::Lt => (1, value - 1),
        Operator::LtEq => (1, value),
        Operator::Eq => (value, value),
        Operator::Gt => (value + 1, i64::MAX),
        Operator::GtEq => (value, i64::MAX),
        _ => return None,
    };
    Some(Numbers { from: from.max(1) as u64, to: if to == i64::MAX { u64::MAX } else { to.max(0) as u64 } })
}

fn literal(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(ScalarValue::Int64(value), _) => *value,
        Expr::Literal(ScalarValue::Int32(value), _) => value.map(i64::from),
        Expr::Cast(cast) => literal(&cast.expr),
        _ => None,
    }
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
