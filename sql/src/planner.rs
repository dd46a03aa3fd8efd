//! DataFusion's SQL planner over the session's catalog: names become columns, functions and types.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use coulee_runtime::Subject;
use coulee_runtime::options::nearest;
use datafusion_common::config::ConfigOptions;
use datafusion_common::{DFSchema, DataFusionError, TableReference};
use datafusion_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner, TypePlanner};
use datafusion_expr::simplify::SimplifyContext;
use datafusion_expr::{AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_sql::planner::{NullOrdering, ParserOptions, PlannerContext, SqlToRel};
use sqlparser::ast;

use crate::aggregates;
use crate::cast_names;
use crate::catalog::Catalog;
use crate::error::{Fault, Result};
use crate::faults::fault;
use crate::flink_types::{FlinkOperators, spell_intervals, spell_literals, typed_expr, typed_plan};
use crate::functions;
use crate::group_window;
use crate::limits::check_plan;
use crate::names::name_columns;
use crate::op_codes::ChangelogFunctions;
use crate::operands::{check_expression, check_operands};
use crate::optimize::optimize;
use crate::refuse::check_query;
use crate::spans::Place;
use crate::table_as_of::TablesAsOf;
use crate::table_function::WindowFunctions;
use crate::types::{cast_field, cast_type};
use crate::unnest::Unnests;
use crate::words::{CATALOG, DATABASE};
use crate::zone::Zone;

/// The functions that SQL may call, by lower-case name.
#[derive(Debug)]
pub(crate) struct Functions {
    scalars: HashMap<String, Arc<ScalarUDF>>,
    aggregates: HashMap<String, Arc<AggregateUDF>>,
    expr_planners: Vec<Arc<dyn ExprPlanner>>,
    relation_planners: Vec<Arc<dyn RelationPlanner>>,
    options: ConfigOptions,
    /// The session's time zone, if it is not UTC.
    zone: Option<Zone>,
}

impl Functions {
    /// The functions of a session in this time zone; `None` is UTC.
    pub fn new(zone: Option<Zone>) -> Self {
        let (scalars, aggregates) = (functions::scalars(zone.as_ref()), aggregates::all());
        let expr_planners: Vec<Arc<dyn ExprPlanner>> = vec![
            Arc::new(FlinkOperators),
            Arc::new(functions::Access),
            Arc::new(datafusion_functions::core::planner::CoreFunctionPlanner::default()),
            Arc::new(datafusion_functions_aggregate::planner::AggregateFunctionPlanner),
        ];
        let in_utc = zone.is_none();
        let relation_planners: Vec<Arc<dyn RelationPlanner>> = vec![
            Arc::new(Unnests),
            Arc::new(TablesAsOf { in_utc }),
            Arc::new(ChangelogFunctions),
            Arc::new(WindowFunctions { in_utc }),
        ];
        Functions { scalars, aggregates, expr_planners, relation_planners, options: ConfigOptions::new(), zone }
    }

    /// Name and kind of every function, by name.
    pub fn list(&self) -> Vec<(&str, &'static str)> {
        // What has a blank in its name has no name in SQL.
        let scalars = self.scalars.keys().filter(|name| !name.contains(' ')).map(|name| (name.as_str(), "scalar"));
        let aggregates = self.aggregates.keys().map(|name| (name.as_str(), "aggregate"));
        let mut all: Vec<_> = scalars
            .chain(aggregates)
            .chain([
                ("cumulate", "window"),
                ("dense_rank", "over"),
                ("from_changelog", "table"),
                ("hop", "window"),
                ("json_arrayagg", "aggregate"),
                ("json_objectagg", "aggregate"),
                ("rank", "over"),
                ("row_number", "over"),
                ("session", "window"),
                ("to_changelog", "table"),
                ("tumble", "window"),
            ])
            .collect();
        all.sort_unstable();
        all
    }
}

/// Plans queries and expressions against a catalog.
pub(crate) struct Planner<'a> {
    pub catalog: &'a Catalog,
    pub functions: &'a Functions,
}

impl Planner<'_> {
    fn sql(&self) -> SqlToRel<'_, Self> {
        let options = ParserOptions::new()
            .with_enable_ident_normalization(false)
            .with_map_string_types_to_utf8view(false)
            // As in Flink, a null is below every value.
            .with_default_null_ordering(NullOrdering::NullsMin)
            .with_collect_spans(true);
        SqlToRel::new_with_options(self, options)
    }

    /// Plans a query: resolved and with Flink's types, but not optimised.
    pub fn query(&self, query: &ast::Query) -> Result<LogicalPlan> {
        check_query(query)?;
        let mut query = query.clone();
        name_columns(&mut query);
        crate::files::name_tables(&mut query);
        crate::options_hint::name_tables(&mut query);
        group_window::rewrite(&mut query)?;
        crate::distinct_from::take_apart(&mut query);
        crate::fetch::spell_fetches(&mut query)?;
        crate::row_in::rewrite(&mut query)?;
        crate::scalar_subqueries::name_values(&mut query);
        crate::hint::mark(&mut query)?;
        cast_names::mark(&mut query);
        spell_literals(&mut query).map_err(|error| fault(&error))?;
        spell_intervals(&mut query);
        crate::unnest::rewrite(&mut query);
        let statement = ast::Statement::Query(Box::new(query));
        let plan = self.sql().sql_statement_to_plan(statement).map_err(|error| self.explain(&error))?;
        let plan = crate::aggregates::values::into_aggregates(plan).map_err(|error| self.explain(&error))?;
        let plan = crate::current_watermark::into_columns(plan, self.functions.zone.is_none());
        let plan = plan.map_err(|error| self.explain(&error))?;
        let plan = crate::over_time::mark(plan, self.functions.zone.is_none()).map_err(|error| self.explain(&error))?;
        check_plan(&plan)?;
        check_operands(&plan)?;
        let in_zone = match &self.functions.zone {
            Some(zone) => zone.put_into(plan).map_err(|error| fault(&error))?,
            None => plan,
        };
        typed_plan(in_zone).map_err(|error| self.explain(&error))
    }

    /// Plans an expression over a schema, with the casts that its operators need.
    pub fn expr(&self, expr: &ast::Expr, schema: &DFSchema) -> Result<Expr> {
        let mut expr = expr.clone();
        spell_literals(&mut expr).map_err(|error| fault(&error))?;
        spell_intervals(&mut expr);
        let planned = self.sql().sql_to_expr(expr, schema, &mut PlannerContext::new());
        let planned = planned.map_err(|error| self.explain(&error))?;
        check_expression(&planned, schema)?;
        let in_zone = match &self.functions.zone {
            Some(zone) => zone.put_into_expr(planned, schema),
            None => Ok(planned),
        };
        let typed = in_zone.and_then(|expr| typed_expr(expr, schema));
        let coerced = typed.and_then(|expr| ExprSimplifier::new(SimplifyContext::default()).coerce(expr, schema));
        coerced.map_err(|error| self.explain(&error))
    }

    /// Types and optimises a plan.
    pub fn optimize(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        optimize(plan, self.functions.zone.as_ref())
    }

    fn explain(&self, error: &DataFusionError) -> Fault {
        let fault = fault(error);
        let Some(Subject::Function(name)) = fault.places.iter().find_map(Place::subject) else { return fault };
        if fault.help.is_some() {
            return fault;
        }
        let name = name.to_lowercase();
        if let Some(help) = functions::unknown(&name) {
            return fault.help(help);
        }
        let known: Vec<&str> = self.functions.list().into_iter().map(|(name, _)| name).collect();
        match nearest(&name, &known) {
            Some(near) => fault.help(format!("did you mean '{near}'?")),
            None => fault.help("SHOW FUNCTIONS lists what there is"),
        }
    }
}

impl ContextProvider for Planner<'_> {
    fn get_table_source(&self, name: TableReference) -> datafusion_common::Result<Arc<dyn TableSource>> {
        let known = name.schema().is_none_or(|schema| schema == DATABASE)
            && name.catalog().is_none_or(|catalog| catalog == CATALOG);
        let found = match known {
            true => self.catalog.source(name.table()),
            false => {
                let help = format!("write the table's name alone; in front of it may stand {CATALOG}.{DATABASE}");
                Err(Fault::new(format!("unknown table '{}'", name)).help(help))
            }
        };
        found.map_err(|fault| fault.about(Subject::Table(name.table().to_owned())).into_datafusion())
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.functions.expr_planners
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.functions.relation_planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(FlinkTypes))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.functions.scalars.get(&name.to_lowercase()).cloned().or_else(|| cast_names::function(name))
    }

    fn get_higher_order_meta(&self, _: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.functions.aggregates.get(&name.to_lowercase()).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        functions::window_function(&name.to_lowercase())
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.functions.options
    }

    fn udf_names(&self) -> Vec<String> {
        self.functions.scalars.keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.functions.aggregates.keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Types of casts, where Flink's differ from DataFusion's.
#[derive(Debug)]
struct FlinkTypes;

impl TypePlanner for FlinkTypes {
    fn plan_type_field(&self, parsed: &ast::DataType) -> datafusion_common::Result<Option<FieldRef>> {
        Ok(cast_type(parsed).map(|data_type| Arc::new(cast_field(parsed, data_type))))
    }
}
