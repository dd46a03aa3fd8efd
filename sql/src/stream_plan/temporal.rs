//! Temporal joins: each row with the version that a table had at the row's event time.

use std::fmt::Write as _;

use coulee_runtime::graph::NodeKind;
use coulee_runtime::join::{JoinSide, Retention, TemporalJoinSpec, temporal_join};
use datafusion_common::DFSchema;
use datafusion_expr::Expr;
use datafusion_expr::utils::conjunction;

use super::join::{equal_pairs, shuffle};
use super::print::expression;
use super::{Building, ChangelogKind, Node, StateName, StreamPlan};
use crate::as_of::{AsOf, Versions, equalities, table_of};
use crate::catalog::ScanSource;
use crate::error::{Fault, Result};
use crate::faults::fault;
use crate::lineage::table_column;
use crate::translate::{NodeRows, Translator, physical};

#[derive(Debug)]
pub(super) struct TemporalJoin {
    table: String,
    /// Expressions over the left side, and the columns of the table's primary key.
    on: Vec<(Expr, Expr)>,
    condition: Option<Expr>,
    /// The event times of both sides.
    times: [Expr; 2],
    is_outer: bool,
}

impl TemporalJoin {
    /// The node of a join as of an event time.
    ///
    /// # Errors
    /// When the right side is no table, or the condition does not say which of its rows is wanted.
    pub fn of(node: &AsOf, versions: &Versions) -> Result<Self> {
        let table = table_of(&node.right, versions.may_filter);
        let table = table.and_then(|scan| scan.source.downcast_ref::<ScanSource>()).map(|ScanSource(table)| table);
        let Some(table) = table else {
            let message = "what is joined FOR SYSTEM_TIME AS OF an event time is a table, a view that only computes columns of one, or one of the newest row of each key";
            return Err(Fault::new(message).or_clause(&["SYSTEM_TIME"]).help("put conditions on its rows behind ON"));
        };
        let (mut on, mut rest) = (Vec::new(), Vec::new());
        let (pairs, others) = equalities(&node.condition, node.left.schema(), node.right.schema());
        let mut key: Vec<&str> = versions.key.iter().map(String::as_str).collect();
        for (left, right, term) in pairs {
            let column = table_column(&right, &node.right);
            match key.iter().position(|name| column.as_deref() == Some(*name)) {
                Some(at) => {
                    key.remove(at);
                    on.push((left, right));
                }
                None => rest.push(term),
            }
        }
        if let Some(missing) = key.first() {
            let message = format!("the condition does not say which '{missing}' of '{}' is wanted", table.name());
            let key = versions.key.join(", ");
            let help =
                format!("compare each column of its key ({key}) with something of the left side: ON s.x = t.{missing}");
            return Err(Fault::new(message).or_clause(&["SYSTEM_TIME"]).help(help));
        }
        rest.extend(others);
        let (condition, times) = (conjunction(rest), versions.times.clone());
        Ok(TemporalJoin { table: table.name().to_owned(), on, condition, times, is_outer: node.is_outer })
    }

    fn side(&self, side: usize, schema: &DFSchema) -> Result<JoinSide> {
        let keys = self.on.iter().map(|(left, right)| if side == 0 { left } else { right });
        let keys = keys.map(|key| physical(key, schema)).collect::<Result<_>>()?;
        let retention = Some(Retention { time: physical(&self.times[side], schema)?, millis: 0 });
        Ok(JoinSide { schema: schema.inner().clone(), appends: false, keys, ttl_millis: None, retention })
    }
}

impl Node for TemporalJoin {
    fn describe(&self, inputs: &[StreamPlan]) -> String {
        let [left, right] = inputs else { return "TemporalJoin".to_owned() };
        let on = equal_pairs(&self.on, left, right);
        let (kind, time) = (if self.is_outer { "left" } else { "inner" }, expression(&self.times[0], &left.schema));
        let mut shown = format!("TemporalJoin(type=[{kind}], table=[{}], on=[{on}], asOf=[{time}]", self.table);
        if let (Some(condition), Ok(both)) = (&self.condition, left.schema.join(&right.schema)) {
            let _ = write!(shown, ", where=[{}]", expression(condition, &both));
        }
        shown + ")"
    }

    /// A row leaves once, when its time has passed.
    fn changes(&self, _: &[ChangelogKind]) -> ChangelogKind {
        ChangelogKind::InsertOnly
    }

    fn state_name(&self) -> Option<StateName<'_>> {
        Some(StateName::ByPlace("temporal-join"))
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
        let sides = [self.side(0, &left.schema)?, self.side(1, &right.schema)?];
        let both = left.schema.join(&right.schema).map_err(|error| fault(&error))?;
        let condition = self.condition.as_ref().map(|condition| physical(condition, &both)).transpose()?;
        let keys = [sides[0].keys.clone(), sides[1].keys.clone()];
        let [of_left, of_right] = sides;
        let schema = plan.schema.inner().clone();
        let spec = TemporalJoinSpec { left: of_left, right: of_right, condition, is_outer: self.is_outer, schema };
        let parallelism = to.context.parallelism;
        let node = to.add(name, parallelism, NodeKind::Operator(temporal_join(spec)))?;
        shuffle(&inputs, keys, node, to)?;
        Ok(NodeRows::new(node, parallelism, plan.schema.as_ref().clone()))
    }
}
