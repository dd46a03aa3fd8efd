//! Tables as of a time of another relation's rows: `FROM orders AS o JOIN rates FOR SYSTEM_TIME AS OF o.proc_time AS r ON o.currency = r.currency`.
//!
//! What stands before the table in FROM is the left side, see [`split_last`]: such brackets are planned as one node. As of a processing time each row meets what the
//! table has when it is processed; as of an event time, the version that the table had then.

use std::sync::Arc;

use datafusion_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion_expr::{Expr, LogicalPlan};
use sqlparser::ast::{self, JoinConstraint, JoinOperator, Spanned, TableFactor, TableVersion};

use crate::as_of::{AsOf, Versions, table_of};
use crate::catalog::ScanSource;
use crate::error::Fault;
use crate::functions::clock::is_proctime;
use crate::lineage::{is_event_time, is_processing_time};
use crate::unnest::split_last;
use crate::versioned_view::all_versions;

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
        let time = self.event_time(version, &left, context)?;
        let right = context.plan(right)?;
        let (right, versions) = match time {
            None => (right, None),
            Some(time) => {
                let (right, versions) = self.versions(right, time, &last.relation)?;
                (right, Some(versions))
            }
        };
        let (is_outer, condition) = condition(&last.join_operator, &last.relation).map_err(Fault::into_datafusion)?;
        let both = left.schema().join(right.schema())?;
        let condition = context.sql_to_expr(condition.clone(), &both)?;
        let plan = AsOf::new(Arc::new(left), Arc::new(right), condition, is_outer, versions)?.into_plan();
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, None))))
    }
}

impl TablesAsOf {
    /// The time, if it is an event time of the left side's; `None` for one of processing.
    fn event_time(
        &self,
        version: &TableVersion,
        left: &LogicalPlan,
        context: &mut dyn RelationPlannerContext,
    ) -> datafusion_common::Result<Option<Expr>> {
        let TableVersion::ForSystemTimeAsOf(time) = version else {
            let fault = Fault::new("a table is joined as of a time FOR SYSTEM_TIME AS OF").or_clause(&["OF"]);
            return Err(fault.help(USAGE).into_datafusion());
        };
        let planned = context.sql_to_expr(time.clone(), left.schema())?;
        let fault = match &planned {
            expr if is_proctime(expr) => return Ok(None),
            Expr::Column(column) if is_processing_time(column, left) => return Ok(None),
            Expr::Column(column) if is_event_time(column, left, self.in_utc) => return Ok(Some(planned)),
            _ => {
                Fault::new("a table is joined as of a time of the left side: its event time, or a column of PROCTIME()")
                    .help(USAGE)
            }
        };
        Err(fault.at(time.span()).into_datafusion())
    }

    /// The versions of a table, and the plan that reads them all.
    fn versions(
        &self,
        table: LogicalPlan,
        time: Expr,
        relation: &TableFactor,
    ) -> datafusion_common::Result<(LogicalPlan, Versions)> {
        let refused =
            |message: String, help: &str| Err(Fault::new(message).at(relation.span()).help(help).into_datafusion());
        let (table, key, may_filter) = match all_versions(&table, self.in_utc)? {
            Some((all, key)) => (all, key, true),
            None => {
                let scan = table_of(&table, true).and_then(|scan| scan.source.downcast_ref::<ScanSource>());
                let key = scan.map(|ScanSource(table)| table.spec.primary_key.clone()).unwrap_or_default();
                if let Some(ScanSource(table)) = scan.filter(|_| key.is_empty()) {
                    let message = format!("'{}' has no primary key, so that its rows have no versions", table.name());
                    let help = "declare PRIMARY KEY (column) NOT ENFORCED, or join it as of a processing time (proc_time AS PROCTIME())";
                    return refused(message, help);
                }
                (table, key, false)
            }
        };
        let columns = table.schema().columns();
        let Some(since) = columns.into_iter().find(|column| is_event_time(column, &table, self.in_utc)) else {
            let message = "the table has no event time, which says from when on a row is there".to_owned();
            let help = "declare a WATERMARK, and select its column; or join it as of a processing time (proc_time AS PROCTIME())";
            return refused(message, help);
        };
        Ok((table, Versions { times: [time, Expr::Column(since)], key, may_filter }))
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
