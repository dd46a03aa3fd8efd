//! Tables as of a time of another relation's rows: `FROM orders AS o JOIN rates FOR SYSTEM_TIME AS OF o.proc_time AS r ON o.currency = r.currency`.
//!
//! What stands before the table in FROM is the left side, see [`split_last`]: such brackets are planned as one node. The time is one of processing: each row meets
//! what the table has when it is processed.

use std::sync::Arc;

use datafusion_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion_expr::{Expr, LogicalPlan};
use sqlparser::ast::{self, JoinConstraint, JoinOperator, Spanned, TableFactor, TableVersion};

use crate::as_of::AsOf;
use crate::error::Fault;
use crate::functions::clock::is_proctime;
use crate::lineage::{is_event_time, is_processing_time};
use crate::unnest::split_last;

const USAGE: &str = "write FROM s JOIN t FOR SYSTEM_TIME AS OF s.proc_time AS t ON s.key = t.key, with proc_time AS PROCTIME() among the columns of s";

/// Plans brackets whose last relation is a table as of a time, and refuses one that stands elsewhere.
#[derive(Debug)]
pub(crate) struct TablesAsOf {
    /// Whether local time is UTC.
    pub in_utc: bool,
}

impl RelationPlanner for TablesAsOf {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> datafusion_common::Result<RelationPlanning> {
        if let TableFactor::Table { version: Some(_), name, .. } = &relation {
            let fault = Fault::new("a table as of a time is the right side of a join").at(name.span());
            return Err(fault.help(USAGE).into_datafusion());
        }
        let TableFactor::NestedJoin { table_with_joins, alias: None } = &relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let Some((left, last)) = split_last(table_with_joins) else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let TableFactor::Table { version: Some(version), .. } = &last.relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let mut right = last.relation.clone();
        if let TableFactor::Table { version, .. } = &mut right {
            *version = None;
        }
        let left = context.plan(left)?;
        self.check_time(version, &left, context)?;
        let right = context.plan(right)?;
        let (is_outer, condition) = condition(&last.join_operator, &last.relation).map_err(Fault::into_datafusion)?;
        let both = left.schema().join(right.schema())?;
        let condition = context.sql_to_expr(condition.clone(), &both)?;
        let plan = AsOf::new(Arc::new(left), Arc::new(right), condition, is_outer)?.into_plan();
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))))
    }
}

impl TablesAsOf {
    /// The time is one of processing of the left side's.
    fn check_time(
        &self,
        version: &TableVersion,
        left: &LogicalPlan,
        context: &mut dyn RelationPlannerContext,
    ) -> datafusion_common::Result<()> {
        let TableVersion::ForSystemTimeAsOf(time) = version else {
            let fault = Fault::new("a table is joined as of a time FOR SYSTEM_TIME AS OF").or_clause(&["OF"]);
            return Err(fault.help(USAGE).into_datafusion());
        };
        let planned = context.sql_to_expr(time.clone(), left.schema())?;
        let fault = match &planned {
            expr if is_proctime(expr) => return Ok(()),
            Expr::Column(column) if is_processing_time(column, left) => return Ok(()),
            Expr::Column(column) if is_event_time(column, left, self.in_utc) => {
                Fault::new("a table as of an event time comes in a later version").help(
                    "join it as of a processing time (proc_time AS PROCTIME()): each row meets what the table has when it is processed",
                )
            }
            _ => Fault::new("a table is joined as of a column of PROCTIME() of the left side").help(USAGE),
        };
        Err(fault.at(time.span()).into_datafusion())
    }
}

/// Whether rows stay that find nothing, and the condition of a join.
fn condition<'j>(join: &'j JoinOperator, table: &TableFactor) -> Result<(bool, &'j ast::Expr), Fault> {
    let refused = |message: &str| Fault::new(message).at(table.span()).help(USAGE);
    let (is_outer, constraint) = match join {
        JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => (false, constraint),
        JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => (true, constraint),
        JoinOperator::CrossJoin(_) => return Err(refused("a table as of a time is joined by a condition behind ON")),
        _ => return Err(refused("a table as of a time is the right side of an INNER or a LEFT JOIN")),
    };
    match constraint {
        JoinConstraint::On(condition) => Ok((is_outer, condition)),
        _ => Err(refused("a table as of a time is joined by a condition behind ON")),
    }
}
