//! Typing and optimising a plan, with the rules whose results a stream can run.

use std::sync::Arc;

use datafusion_common::config::ConfigOptions;
use datafusion_expr::LogicalPlan;
use datafusion_optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion_optimizer::eliminate_duplicated_expr::EliminateDuplicatedExpr;
use datafusion_optimizer::eliminate_filter::EliminateFilter;
use datafusion_optimizer::optimize_projections::OptimizeProjections;
use datafusion_optimizer::optimize_unions::OptimizeUnions;
use datafusion_optimizer::push_down_filter::PushDownFilter;
use datafusion_optimizer::simplify_expressions::SimplifyExpressions;
use datafusion_optimizer::{Analyzer, Optimizer, OptimizerContext, OptimizerRule};

use crate::error::Result;
use crate::faults::fault;
use crate::zone::Zone;

/// Types and optimises a plan; `zone` is the session's, if it is not UTC.
pub(crate) fn optimize(plan: LogicalPlan, zone: Option<&Zone>) -> Result<LogicalPlan> {
    let rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = vec![
        Arc::new(OptimizeUnions::new()),
        Arc::new(SimplifyExpressions::new()),
        Arc::new(EliminateDuplicatedExpr::new()),
        Arc::new(EliminateFilter::new()),
        Arc::new(PushDownFilter::new()),
        Arc::new(CommonSubexprEliminate::new()),
        Arc::new(OptimizeProjections::new()),
    ];
    // Without the start time, nothing of the planning's clock gets into the plan.
    let context = OptimizerContext::new().with_skip_failing_rules(false).without_query_execution_start_time();
    let optimized = Analyzer::new()
        .execute_and_check(plan, &ConfigOptions::new(), |_, _| {})
        .and_then(|plan| match zone {
            Some(zone) => zone.put_into(plan),
            None => Ok(plan),
        })
        .and_then(|plan| Optimizer::with_rules(rules).optimize(plan, &context, |_, _| {}));
    optimized.map_err(|error| fault(&error))
}
