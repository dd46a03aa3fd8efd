//! Joins on equal keys, with whatever else must hold of a pair. Each side's rows are kept until they are deleted; those of a join that is bounded in event time until
//! the watermark says that no partner comes any more.

use std::fmt::Write as _;
use std::sync::Arc;

use coulee_model::OperatorId;
use coulee_runtime::graph::{NodeKind, Partitioning, Port};
use coulee_runtime::join::{IntervalJoinSpec, JoinKind, JoinSide, JoinSpec, Retention, interval_join, join};
use coulee_runtime::operator::InputIndex;
use datafusion_common::{JoinType, NullEquality};
use datafusion_expr::{Expr, Join as LogicalJoin};
use datafusion_physical_expr::PhysicalExpr;

use super::print::expression;
use super::{Building, ChangelogKind, Node, StateName, StreamPlan};
use crate::error::{Fault, Result};
use crate::faults::fault;
use crate::functions::row_time;
use crate::join_time::JoinTime;
use crate::lineage::join_time;
use crate::translate::{NodeRows, Translator, physical};

#[derive(Debug)]
pub(super) struct Join {
    kind: JoinKind,
    /// Expressions over the left and the right side that must be equal.
    on: Vec<(Expr, Expr)>,
    condition: Option<Expr>,
    null_equals_null: bool,
    /// How long rows wait for each other, if that is bounded in event time.
    time: Option<JoinTime>,
}

impl Join {
    /// The node of a join, and whether its left side is the right one of DataFusion's.
    pub fn of(join: &LogicalJoin) -> Result<(Self, bool)> {
        let (kind, is_swapped) = match join.join_type {
            JoinType::Inner => (JoinKind::Inner, false),
            JoinType::Left => (JoinKind::Left, false),
            JoinType::Right => (JoinKind::Right, false),
            JoinType::Full => (JoinKind::Full, false),
            JoinType::LeftSemi => (JoinKind::LeftSemi, false),
            JoinType::LeftAnti => (JoinKind::LeftAnti, false),
            JoinType::RightSemi => (JoinKind::LeftSemi, true),
            JoinType::RightAnti => (JoinKind::LeftAnti, true),
            JoinType::LeftMark => (JoinKind::LeftMark, false),
            JoinType::RightMark => (JoinKind::LeftMark, true),
        };
        if join.null_aware {
            return Err(Fault::new("NOT IN over a column that may be null comes in a later version")
                .or_clause(&["NOT", "IN", "WHERE"])
                .help("write NOT EXISTS (SELECT 1 FROM … WHERE …), which leaves nulls out of account"));
        }
        let on = join.on.iter().cloned();
        let on = on.map(|(left, right)| if is_swapped { (right, left) } else { (left, right) }).collect();
        let null_equals_null = join.null_equality == NullEquality::NullEqualsNull;
        let time = join_time(join, &[], |expr, _| row_time::is_marked(expr));
        let time = time.map(|time| if is_swapped { time.swapped() } else { time });
        Ok((Join { kind, on, condition: join.filter.clone(), null_equals_null, time }, is_swapped))
    }

    /// The same, whose rows are kept for ever.
    pub fn without_time(self) -> Self {
        Join { time: None, ..self }
    }

    /// What is kept of a side, 0 or 1.
    fn side(&self, side: usize, plan: &StreamPlan, rows: &NodeRows, ttl_millis: Option<i64>) -> Result<JoinSide> {
        let appends = plan.inputs.get(side).is_some_and(|input| input.changes == ChangelogKind::InsertOnly);
        let keys = self.on.iter().map(|(left, right)| if side == 0 { left } else { right });
        let keys = keys.map(|key| physical(key, &rows.schema)).collect::<Result<_>>()?;
        let retention = match &self.time {
            Some(JoinTime { times, millis, .. }) => {
                Some(Retention { time: physical(&times[side], &rows.schema)?, millis: millis[side] })
            }
            None => None,
        };
        let ttl_millis = ttl_millis.filter(|_| retention.is_none());
        Ok(JoinSide { schema: rows.schema.inner().clone(), appends, keys, ttl_millis, retention })
    }
}

impl Node for Join {
    fn describe(&self, inputs: &[StreamPlan]) -> String {
        let [left, right] = inputs else { return "Join".to_owned() };
        let on = equal_pairs(&self.on, left, right);
        let kind = match &self.time {
            None => "Join",
            Some(time) if time.of_windows => "WindowJoin",
            Some(_) => "IntervalJoin",
        };
        let mut shown = format!("{kind}(type=[{}], on=[{on}]", self.kind.name());
        if let Some(JoinTime { times: [a, b], of_windows: false, .. }) = &self.time {
            let _ = write!(shown, ", time=[{}, {}]", expression(a, &left.schema), expression(b, &right.schema));
        }
        if let (Some(condition), Ok(both)) = (&self.condition, left.schema.join(&right.schema)) {
            let _ = write!(shown, ", where=[{}]", expression(condition, &both));
        }
        shown + ")"
    }

    fn changes(&self, inputs: &[ChangelogKind]) -> ChangelogKind {
        match self.kind {
            // A row without a match leaves when none can come any more.
            _ if self.time.is_some() => ChangelogKind::InsertOnly,
            JoinKind::Inner | JoinKind::LeftSemi => ChangelogKind::of_all(inputs),
            // What is emitted of a row without a match is taken back when one comes.
            JoinKind::Left | JoinKind::Right | JoinKind::Full | JoinKind::LeftAnti | JoinKind::LeftMark => {
                ChangelogKind::Retract
            }
        }
    }

    fn state_name(&self) -> Option<StateName<'_>> {
        Some(StateName::ByPlace("join"))
    }

    /// Keeps the columns that the plan asks for: rows are stored whole.
    fn prepare(&self, plan: &StreamPlan, input: usize, rows: NodeRows, to: &mut Translator<'_>) -> Result<NodeRows> {
        to.exactly(rows, &plan.inputs[input].schema)
    }

    fn build(&self, building: Building<'_, '_, '_>) -> Result<NodeRows> {
        let Building { plan, name: Some(name), inputs, to } = building else {
            return Err(Fault::new("the state of a join has no name"));
        };
        let [left, right] = inputs.as_slice() else { return Err(Fault::new("a join has two sides")) };
        let ttl = to.context.state_ttl_millis;
        let (left_side, right_side) = (self.side(0, plan, left, ttl)?, self.side(1, plan, right, ttl)?);
        let both = left.schema.join(&right.schema).map_err(|error| fault(&error))?;
        let condition = self.condition.as_ref().map(|condition| physical(condition, &both)).transpose()?;
        // Without keys every row may meet every other: in one subtask.
        let parallelism = if self.on.is_empty() { 1 } else { to.context.parallelism };
        let keys = [left_side.keys.clone(), right_side.keys.clone()];
        let spec = JoinSpec {
            kind: self.kind,
            left: left_side,
            right: right_side,
            null_equals_null: self.null_equals_null,
            condition,
            schema: plan.schema.inner().clone(),
        };
        let factory = match &self.time {
            Some(time) => interval_join(IntervalJoinSpec { join: spec, of_windows: time.of_windows })?,
            None => join(spec),
        };
        let node = to.add(name, parallelism, NodeKind::Operator(factory))?;
        shuffle(&inputs, keys, node, to)?;
        Ok(NodeRows::new(node, parallelism, plan.schema.as_ref().clone()))
    }
}

/// What must be equal of both sides, as it is printed.
pub(super) fn equal_pairs(on: &[(Expr, Expr)], left: &StreamPlan, right: &StreamPlan) -> String {
    let text = |(a, b): &(Expr, Expr)| format!("{} = {}", expression(a, &left.schema), expression(b, &right.schema));
    on.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// Sends the rows of both sides to the subtask of their keys.
pub(super) fn shuffle(
    sides: &[NodeRows],
    keys: [Vec<Arc<dyn PhysicalExpr>>; 2],
    node: OperatorId,
    to: &mut Translator<'_>,
) -> Result<()> {
    for ((rows, keys), input) in sides.iter().zip(keys).zip([InputIndex::FIRST, InputIndex::SECOND]) {
        to.graph.connect_to(rows.node, Port::MAIN, (node, input), Partitioning::Hash(keys))?;
    }
    Ok(())
}
