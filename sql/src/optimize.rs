//! Typing and optimising a plan, with the rules whose results a stream can run.

use std::sync::Arc;

use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion_common::{NullEquality, Result as DataFusionResult, ScalarValue};
use datafusion_expr::{EmptyRelation, Expr, JoinType, LogicalPlan, lit};
use datafusion_optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion_optimizer::decorrelate_lateral_join::DecorrelateLateralJoin;
use datafusion_optimizer::decorrelate_predicate_subquery::DecorrelatePredicateSubquery;
use datafusion_optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion_optimizer::eliminate_duplicated_expr::EliminateDuplicatedExpr;
use datafusion_optimizer::eliminate_outer_join::EliminateOuterJoin;
use datafusion_optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion_optimizer::filter_null_join_keys::FilterNullJoinKeys;
use datafusion_optimizer::optimize_projections::OptimizeProjections;
use datafusion_optimizer::optimize_unions::OptimizeUnions;
use datafusion_optimizer::push_down_filter::PushDownFilter;
use datafusion_optimizer::replace_distinct_aggregate::ReplaceDistinctWithAggregate;
use datafusion_optimizer::rewrite_set_comparison::RewriteSetComparison;
use datafusion_optimizer::scalar_subquery_to_join::ScalarSubqueryToJoin;
use datafusion_optimizer::simplify_expressions::SimplifyExpressions;
use datafusion_optimizer::{Analyzer, ApplyOrder, Optimizer, OptimizerConfig, OptimizerContext, OptimizerRule};

use crate::error::{Fault, Result};
use crate::faults::fault;
use crate::zone::Zone;

/// Types and optimises a plan; `zone` is the session's, if it is not UTC.
pub(crate) fn optimize(plan: LogicalPlan, zone: Option<&Zone>) -> Result<LogicalPlan> {
    let rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = vec![
        Arc::new(RewriteSetComparison::new()),
        Arc::new(OptimizeUnions::new()),
        Arc::new(SimplifyExpressions::new()),
        Arc::new(ReplaceDistinctWithAggregate::new()),
        Arc::new(EliminateDuplicatedExpr::new()),
        // Subqueries become joins, and conditions on two tables their keys.
        Arc::new(DecorrelatePredicateSubquery::new()),
        Arc::new(ScalarSubqueryToJoin::new()),
        Arc::new(DecorrelateLateralJoin::new()),
        Arc::new(ExtractEquijoinPredicate::new()),
        Arc::new(UniformEliminateCrossJoin(EliminateCrossJoin::new())),
        Arc::new(EliminateTrueFilter),
        Arc::new(EmptyAggregate),
        Arc::new(EliminateOuterJoin::new()),
        Arc::new(FilterNullJoinKeys::default()),
        Arc::new(PushDownFilter::new()),
        Arc::new(UnguardedSubexprEliminate(CommonSubexprEliminate::new())),
        Arc::new(OptimizeProjections::new()),
    ];
    check_scalar_subqueries(&plan)?;
    let mut options = ConfigOptions::new();
    // Rows with a null key are kept out of a join's state; a subquery that is one value is a join like any other.
    options.optimizer.filter_null_join_keys = true;
    options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    // Without the start time, nothing of the planning's clock gets into the plan.
    let context = OptimizerContext::new_with_config_options(Arc::new(options));
    let context = context.with_skip_failing_rules(false).without_query_execution_start_time();
    let optimized = crate::lateral_top::into_ranks(plan)
        .and_then(|plan| Analyzer::new().execute_and_check(plan, &ConfigOptions::new(), |_, _| {}))
        .and_then(crate::grouping_sets::expand)
        .and_then(crate::not_in::take_apart)
        .and_then(without_sure_exists)
        .and_then(crate::subquery_values::into_counts)
        .and_then(crate::correlated_keys::into_columns)
        .and_then(|plan| match zone {
            Some(zone) => zone.put_into(plan),
            None => Ok(plan),
        })
        .and_then(|plan| Optimizer::with_rules(rules).optimize(plan, &context, |_, _| {}));
    optimized.map_err(|error| fault(&error))
}

/// Refuses a subquery in the place of a value that may give several: as a join it would multiply rows.
fn check_scalar_subqueries(plan: &LogicalPlan) -> Result<()> {
    let several = |expr: &Expr| match expr {
        Expr::ScalarSubquery(subquery) => {
            Ok(subquery.outer_ref_columns.is_empty() && subquery.subquery.max_rows() != Some(1))
        }
        _ => Ok(false),
    };
    let found = plan.exists(|node| {
        let mut found = false;
        node.apply_expressions(|expr| {
            found |= expr.exists(several)?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(found)
    });
    if found.map_err(|error| fault(&error))? {
        return Err(Fault::new("a subquery in the place of a value may give several rows")
            .or_clause(&["WHERE", "SELECT"])
            .help("aggregate in it, as in (SELECT MAX(x) FROM t), or join the table"));
    }
    Ok(())
}

/// Leaves out a filter that every row passes.
///
/// SUBTLE: DataFusion's own rule also makes an empty relation of a filter that no row passes. The query would read no table then, and a job without a
/// source has no event time and no end.
#[derive(Debug)]
struct EliminateTrueFilter;

impl OptimizerRule for EliminateTrueFilter {
    fn name(&self) -> &str {
        "eliminate_true_filter"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> DataFusionResult<Transformed<LogicalPlan>> {
        match plan {
            LogicalPlan::Filter(filter)
                if matches!(filter.predicate, Expr::Literal(ScalarValue::Boolean(Some(true)), _)) =>
            {
                Ok(Transformed::yes(Arc::unwrap_or_clone(filter.input)))
            }
            other => Ok(Transformed::no(other)),
        }
    }
}

/// Makes an empty relation of an aggregation without keys whose result no condition lets through (`HAVING FALSE`).
///
/// SUBTLE: DataFusion takes a condition without columns below the aggregation, where it empties the input; of nothing such an aggregation has a row.
#[derive(Debug)]
struct EmptyAggregate;

impl OptimizerRule for EmptyAggregate {
    fn name(&self) -> &str {
        "empty_aggregate"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> DataFusionResult<Transformed<LogicalPlan>> {
        let LogicalPlan::Filter(filter) = &plan else { return Ok(Transformed::no(plan)) };
        let is_false = matches!(filter.predicate, Expr::Literal(ScalarValue::Boolean(Some(false) | None), _));
        if !is_false || !has_global_aggregate(&filter.input) {
            return Ok(Transformed::no(plan));
        }
        let schema = plan.schema().clone();
        Ok(Transformed::yes(LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, schema })))
    }
}

/// Whether a row of a plan comes from an aggregation without keys.
fn has_global_aggregate(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        _ => plan.inputs().into_iter().any(has_global_aggregate),
    }
}

/// Whether a plan gives one row whatever it reads: `EXISTS` over it is true.
fn has_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Sort(_) => {
            plan.inputs().into_iter().all(has_one_row)
        }
        _ => false,
    }
}

/// `EXISTS` over what always has a row is true. DataFusion would ask for a row of what is aggregated.
fn without_sure_exists(plan: LogicalPlan) -> DataFusionResult<LogicalPlan> {
    let known = |expr: Expr| match &expr {
        Expr::Exists(exists) if has_one_row(&exists.subquery.subquery) => Ok(Transformed::yes(lit(!exists.negated))),
        _ => Ok(Transformed::no(expr)),
    };
    let node = |node: LogicalPlan| node.map_expressions(|expr| expr.transform_up(known));
    plan.transform_down_with_subqueries(node).data()
}

/// [`CommonSubexprEliminate`], but for plans in which an aggregate has a `FILTER`.
///
/// SUBTLE: the rule takes an aggregate's argument for one that is computed of every row. `SUM(x / d) FILTER (WHERE d <> 0)` beside another
/// `x / d` would be computed below the aggregation, of the rows that the filter keeps away from it too, and fail on them.
#[derive(Debug)]
struct UnguardedSubexprEliminate(CommonSubexprEliminate);

impl OptimizerRule for UnguardedSubexprEliminate {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> DataFusionResult<Transformed<LogicalPlan>> {
        if plan.exists(|node| Ok(has_filter(node)))? {
            return Ok(Transformed::no(plan));
        }
        self.0.rewrite(plan, config)
    }
}

/// [`EliminateCrossJoin`], but for plans with an inner join whose nulls are equal (`ON a.x IS NOT DISTINCT FROM b.y`).
///
/// SUBTLE: the rule takes neighbouring inner joins apart and gives the keys of all of them the nulls of the outermost one. What it leaves undone here,
/// the filter that goes into a join and the keys that are found there do as well.
#[derive(Debug)]
struct UniformEliminateCrossJoin(EliminateCrossJoin);

impl OptimizerRule for UniformEliminateCrossJoin {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> DataFusionResult<Transformed<LogicalPlan>> {
        let mut has_equal_nulls = false;
        plan.apply_with_subqueries(|node| {
            has_equal_nulls |= matches!(node, LogicalPlan::Join(join) if join.join_type == JoinType::Inner && join.null_equality == NullEquality::NullEqualsNull);
            Ok(if has_equal_nulls { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        if has_equal_nulls { Ok(Transformed::no(plan)) } else { self.0.rewrite(plan, config) }
    }
}

/// Whether a node is an aggregation with a `FILTER`.
fn has_filter(plan: &LogicalPlan) -> bool {
    let LogicalPlan::Aggregate(aggregate) = plan else { return false };
    let filtered = |expr: &Expr| match expr {
        Expr::AggregateFunction(call) => call.params.filter.is_some(),
        Expr::Alias(alias) => {
            matches!(alias.expr.as_ref(), Expr::AggregateFunction(call) if call.params.filter.is_some())
        }
        _ => false,
    };
    aggregate.aggr_expr.iter().any(filtered)
}
