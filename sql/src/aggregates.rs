//! The aggregates that SQL may call: those whose results were compared with Flink's (`tests/flink`).
//!
//! `totals` has SUM and AVG with Flink's types, `variance` the variances, `values` FIRST_VALUE and LAST_VALUE, `listagg` LISTAGG, `percentile` PERCENTILE, `approx_count_distinct` the function of that name, `distinct` what DISTINCT makes
//! of the first two; the others are DataFusion's.

mod approx_count_distinct;
#[cfg(test)]
mod changelog_tests;
mod distinct;
mod listagg;
mod percentile;
mod totals;
pub(crate) mod values;
mod variance;

use std::collections::HashMap;
use std::sync::Arc;

use datafusion_expr::AggregateUDF;
use datafusion_functions_aggregate::{array_agg, count, grouping, min_max};

/// The aggregates, by lower-case name.
pub(crate) fn all() -> HashMap<String, Arc<AggregateUDF>> {
    let mut functions: Vec<Arc<AggregateUDF>> = vec![
        count::count_udaf(),
        min_max::min_udaf(),
        min_max::max_udaf(),
        array_agg::array_agg_udaf(),
        grouping::grouping_udaf(),
    ];
    functions.extend(totals::functions());
    functions.extend(variance::functions());
    functions.extend(values::functions());
    functions.push(listagg::function());
    functions.push(percentile::function());
    functions.push(approx_count_distinct::function());
    functions.into_iter().map(|function| (function.name().to_owned(), function)).collect()
}
