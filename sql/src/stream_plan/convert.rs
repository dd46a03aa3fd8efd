//! From DataFusion's optimised plan to the stream plan: which node each of its nodes becomes.

use std::sync::Arc;

use coulee_runtime::Subject;
use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion_expr::utils::conjunction;
use datafusion_expr::{Expr, FetchType, LogicalPlan, SkipType, TableScan};

use super::added_time::AddedTime;
use super::calc::{Filter, Projection, Renamed};
use super::final_rows::FinalRows;
use super::group_aggregate::GroupAggregate;
use super::join::Join;
use super::lookup::Lookup;
use super::op_codes::OpCodes;
use super::over::Over;
use super::rank::{Rank, lost};
use super::scan::Scan;
use super::slices::sliced;
use super::temporal::TemporalJoin;
use super::union::Union;
use super::unnest::Unnest;
use super::upsert::ChangelogNormalize;
use super::values::Values;
use super::window_aggregate::WindowAggregate;
use super::window_rows::WindowRows;
use super::{ChangelogKind, StreamPlan};
use crate::as_of::AsOf;
use crate::error::{Fault, Result};
use crate::faults::fault;
use crate::functions::varying;
use crate::lineage::keeps_time;
use crate::rank_bounds::{Numbers, bounded, is_rank};
use crate::window_assign::{ADDED, WindowAssign};

/// Finds the node for each node of a plan.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Converter {
    /// Whether all inputs end, so that there is a last row.
    pub inputs_end: bool,
    /// Whether upserts are left as they are: rows replace each other where they are used.
    pub keeps_upserts: bool,
}

impl Converter {
    /// The stream plan of a plan.
    ///
    /// # Errors
    /// What cannot run as a stream, why, and what to write instead.
    pub fn convert(self, plan: &LogicalPlan) -> Result<StreamPlan> {
        let converted = self.node(plan)?;
        check_repeatable(plan, &converted)?;
        Ok(converted)
    }

    fn node(self, plan: &LogicalPlan) -> Result<StreamPlan> {
        let inputs = |inputs: &[&Arc<LogicalPlan>]| {
            inputs.iter().map(|input| self.convert(input)).collect::<Result<Vec<StreamPlan>>>()
        };
        if let Some(own) = self.own(plan)? {
            return Ok(own);
        }
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::Values(values) => Ok(StreamPlan::new(Values::of(values)?, Vec::new(), values.schema.clone())),
            LogicalPlan::EmptyRelation(relation) => {
                Ok(StreamPlan::new(Values::nothing(relation)?, Vec::new(), relation.schema.clone()))
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let node = Renamed { alias: alias.alias.clone() };
                Ok(StreamPlan::new(node, inputs(&[&alias.input])?, alias.schema.clone()))
            }
            LogicalPlan::Filter(filter) if bounded(filter).is_some() => self.first_rows(filter, true),
            LogicalPlan::Filter(filter) => {
                let node = Filter { predicate: filter.predicate.clone() };
                Ok(StreamPlan::new(node, inputs(&[&filter.input])?, plan.schema().clone()))
            }
            LogicalPlan::Projection(projection) => self.projection(projection),
            LogicalPlan::Union(union) => {
                let below: Vec<_> = union.inputs.iter().collect();
                Ok(StreamPlan::new(Union, inputs(&below)?, union.schema.clone()))
            }
            LogicalPlan::Aggregate(aggregate) => match WindowAggregate::of(aggregate)? {
                Some(node) if node.is_assigned() => self.assigned(node, &aggregate.input),
                Some(node) => {
                    let schema = Arc::new(node.schema.clone());
                    Ok(StreamPlan::new(node, inputs(&[&aggregate.input])?, schema))
                }
                None => {
                    let node = GroupAggregate::of(aggregate, self.inputs_end)?;
                    let schema = Arc::new(node.schema.clone());
                    Ok(StreamPlan::new(node, inputs(&[&aggregate.input])?, schema))
                }
            },
            // What is left of a subquery that is one value, when nobody reads the value.
            LogicalPlan::Join(join) if is_one_row(&join.right) && join.on.is_empty() && join.filter.is_none() => {
                self.convert(&join.left)
            }
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Window(window) => {
                let (node, below) = Over::of(window, self.convert(&window.input)?, self.inputs_end)?;
                Ok(StreamPlan::new(node, vec![below], window.schema.clone()))
            }
            LogicalPlan::Sort(_) if self.inputs_end => self.cut(plan, 0, None),
            LogicalPlan::Limit(limit) if self.inputs_end => {
                let skip = limit.get_skip_type().map_err(|error| fault(&error))?;
                let fetch = limit.get_fetch_type().map_err(|error| fault(&error))?;
                match (skip, fetch) {
                    (SkipType::Literal(skip), FetchType::Literal(fetch)) => self.cut(&limit.input, skip, fetch),
                    _ => {
                        let fault = Fault::new("LIMIT and OFFSET take constant numbers");
                        Err(fault.or_clause(&["LIMIT", "OFFSET", "FETCH"]))
                    }
                }
            }
            other => Err(crate::refuse::refusal(other)),
        }
    }

    /// The nodes that no plan of DataFusion has; `None` for one of DataFusion's own.
    fn own(self, plan: &LogicalPlan) -> Result<Option<StreamPlan>> {
        let converted = |plan: &LogicalPlan| self.convert(plan).map(|input| vec![input]);
        if let Some(assign) = WindowAssign::of(plan) {
            let node = WindowRows::of(assign)?;
            return Ok(Some(StreamPlan::new(node, converted(&assign.input)?, plan.schema().clone())));
        }
        if let Some(node) = crate::added_time::AddedTime::of(plan) {
            let input = converted(&node.input)?;
            return Ok(Some(StreamPlan::new(AddedTime { added: node.added }, input, plan.schema().clone())));
        }
        if let Some(node) = AsOf::of(plan) {
            let table = Converter { keeps_upserts: true, ..self }.convert(&node.right)?;
            if let Some(versions) = &node.versions {
                let inputs = vec![self.convert(&node.left)?, table];
                return Ok(Some(StreamPlan::new(TemporalJoin::of(node, versions)?, inputs, plan.schema().clone())));
            }
            return Ok(Some(StreamPlan::new(Lookup::of(node, table)?, converted(&node.left)?, plan.schema().clone())));
        }
        if let Some(node) = crate::op_codes::OpCodes::of(plan) {
            return Ok(Some(StreamPlan::new(OpCodes::of(node), converted(&node.input)?, plan.schema().clone())));
        }
        if let Some(node) = crate::unnest::Unnest::of(plan) {
            return Ok(Some(StreamPlan::new(Unnest::of(node), converted(&node.input)?, plan.schema().clone())));
        }
        Ok(None)
    }

    fn scan(self, scan: &TableScan) -> Result<StreamPlan> {
        let (node, upserting) = Scan::of(scan)?;
        let upserting = upserting.filter(|_| !self.keeps_upserts);
        let plan = StreamPlan::new(node, Vec::new(), scan.projected_schema.clone());
        Ok(match upserting {
            None => plan,
            Some(table) => StreamPlan::new(ChangelogNormalize { table }, vec![plan], scan.projected_schema.clone()),
        })
    }

    fn projection(self, projection: &datafusion_expr::Projection) -> Result<StreamPlan> {
        let node = Projection { exprs: projection.expr.clone() };
        let below = match projection.input.as_ref() {
            LogicalPlan::Filter(filter) if bounded(filter).is_some() => {
                let reads = |expr: &Expr| expr.column_refs().iter().any(|column| is_rank(column, &filter.input));
                self.first_rows(filter, projection.expr.iter().any(reads))?
            }
            other => self.convert(other)?,
        };
        Ok(StreamPlan::new(node, vec![below], projection.schema.clone()))
    }

    fn join(self, join: &datafusion_expr::Join) -> Result<StreamPlan> {
        let (node, is_swapped) = Join::of(join)?;
        let sides = if is_swapped { [&join.right, &join.left] } else { [&join.left, &join.right] };
        let below = sides.iter().map(|side| self.convert(side)).collect::<Result<Vec<_>>>()?;
        let in_order = below.iter().all(|input| input.changes == ChangelogKind::InsertOnly)
            && sides.iter().all(|side| keeps_time(side));
        let node = if in_order { node } else { node.without_time() };
        Ok(StreamPlan::new(node, below, join.schema.clone()))
    }

    /// The rows of each partition whose number a filter lets through; `has_number`: whether somebody reads the number behind the filter.
    fn first_rows(self, filter: &datafusion_expr::Filter, has_number: bool) -> Result<StreamPlan> {
        let Some((numbers, rest)) = bounded(filter) else { return Err(lost()) };
        let has_number = has_number
            || rest.iter().any(|expr| expr.column_refs().iter().any(|column| is_rank(column, &filter.input)));
        let plan = self.ranked(&filter.input, numbers, has_number)?;
        let schema = filter.input.schema().clone();
        Ok(match conjunction(rest) {
            Some(predicate) => StreamPlan::new(Filter { predicate }, vec![plan], schema),
            None => plan,
        })
    }

    /// A plan down to the rank that numbers its rows.
    fn ranked(self, plan: &LogicalPlan, numbers: Numbers, has_number: bool) -> Result<StreamPlan> {
        match plan {
            LogicalPlan::Projection(projection) => {
                let node = Projection { exprs: projection.expr.clone() };
                let below = self.ranked(&projection.input, numbers, has_number)?;
                Ok(StreamPlan::new(node, vec![below], projection.schema.clone()))
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let node = Renamed { alias: alias.alias.clone() };
                let below = self.ranked(&alias.input, numbers, has_number)?;
                Ok(StreamPlan::new(node, vec![below], alias.schema.clone()))
            }
            LogicalPlan::Filter(filter) => {
                let node = Filter { predicate: filter.predicate.clone() };
                // The condition may be about the number.
                let below = self.ranked(&filter.input, numbers, true)?;
                Ok(StreamPlan::new(node, vec![below], plan.schema().clone()))
            }
            LogicalPlan::Window(window) => {
                let node = Rank::of(window, numbers, has_number)?;
                Ok(StreamPlan::new(node, vec![self.convert(&window.input)?], window.schema.clone()))
            }
            _ => Err(lost()),
        }
    }

    /// An aggregation by windows of which a row may be in several.
    fn assigned(self, node: WindowAggregate, input: &LogicalPlan) -> Result<StreamPlan> {
        node.check_partition(input)?;
        let mut conditions = Vec::new();
        let below = self.convert(&sliced(input, &mut conditions)?)?;
        let bound = |expr: Expr| {
            let Expr::Column(column) = &expr else { return Ok(Transformed::no(expr)) };
            let bound = ADDED.iter().find(|(name, _)| *name == column.name).map(|(_, bound)| *bound);
            match bound.map(|bound| node.bound(bound)) {
                None => Ok(Transformed::no(expr)),
                Some(Some(column)) => Ok(Transformed::yes(column)),
                Some(None) => {
                    let message = format!("a condition on {} wants it among the keys of the GROUP BY", column.name);
                    Err(Fault::new(message).or_clause(&["GROUP"]).into_datafusion())
                }
            }
        };
        let conditions = conditions.into_iter().map(|condition| condition.transform(bound).data());
        let predicate = conditions.collect::<datafusion_common::Result<Vec<Expr>>>();
        let predicate = conjunction(predicate.map_err(|error| fault(&error))?);
        let schema = Arc::new(node.schema.clone());
        let plan = StreamPlan::new(node, vec![below], schema.clone());
        Ok(match predicate {
            Some(predicate) => StreamPlan::new(Filter { predicate }, vec![plan], schema),
            None => plan,
        })
    }

    /// Some of the rows of a plan, in its order: a limit goes below what is done to each row alone, to the sort.
    fn cut(self, plan: &LogicalPlan, skip: usize, fetch: Option<usize>) -> Result<StreamPlan> {
        match plan {
            LogicalPlan::Projection(projection) => {
                let node = Projection { exprs: projection.expr.clone() };
                let below = self.cut(&projection.input, skip, fetch)?;
                Ok(StreamPlan::new(node, vec![below], projection.schema.clone()))
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let node = Renamed { alias: alias.alias.clone() };
                let below = self.cut(&alias.input, skip, fetch)?;
                Ok(StreamPlan::new(node, vec![below], alias.schema.clone()))
            }
            LogicalPlan::Sort(sort) => {
                // A fetch of the sort's own comes first.
                let own = sort.fetch.map(|own| own.saturating_sub(skip));
                let fetch = own.into_iter().chain(fetch).min();
                let node = FinalRows { sort: sort.expr.clone(), skip, fetch };
                Ok(StreamPlan::new(node, vec![self.convert(&sort.input)?], plan.schema().clone()))
            }
            other => {
                let node = FinalRows { sort: Vec::new(), skip, fetch };
                Ok(StreamPlan::new(node, vec![self.convert(other)?], plan.schema().clone()))
            }
        }
    }
}

/// Refuses what is computed of changing rows and is another value each time: the row that is taken back would not be the one that came (Flink's "non-deterministic
/// updates").
fn check_repeatable(plan: &LogicalPlan, converted: &StreamPlan) -> Result<()> {
    if converted.inputs.iter().all(|input| input.changes == ChangelogKind::InsertOnly) {
        return Ok(());
    }
    let Some(name) = plan.expressions().iter().find_map(varying) else { return Ok(()) };
    let fault = Fault::new(format!("{name} has another value when a row is taken back than when it came"));
    Err(fault.about(Subject::Function(name.to_owned())).help(
        "call it where rows are only appended: below the aggregation or join that updates them, or in a column of the table",
    ))
}

/// Whether a plan is a single row without columns.
fn is_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::EmptyRelation(relation) => relation.produce_one_row && relation.schema.fields().is_empty(),
        LogicalPlan::SubqueryAlias(alias) => is_one_row(&alias.input),
        _ => false,
    }
}
