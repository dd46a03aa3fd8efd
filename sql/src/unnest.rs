//! `UNNEST(collection)` in FROM: a join of each row with the elements of one of its arrays or maps.
//!
//! What stands before it in FROM is its input. So a query is rewritten until an `UNNEST` is the last relation of brackets: `FROM t, UNNEST(t.a) AS u (x)` to
//! `FROM (t CROSS JOIN UNNEST(t.a) AS u (x))`; such brackets are planned as one node. The same is done for tables [as of a time](crate::table_as_of).

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{DFSchema, DFSchemaRef, TableReference, internal_err, plan_err};
use datafusion_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion_expr::{Expr, ExprSchemable, Extension, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNodeCore};
use sqlparser::ast::{
    self, FunctionArg, FunctionArgExpr, Ident, Join, JoinConstraint, JoinOperator, Query, Select, TableAlias,
    TableFactor, TableWithJoins, VisitMut, VisitorMut,
};

use crate::as_of::is_as_of;
use crate::error::Fault;
use crate::types::type_name;

const USAGE: &str =
    "write FROM t CROSS JOIN UNNEST(t.items) AS u (item), or LEFT JOIN UNNEST(t.items) AS u (item) ON TRUE";

/// Brings each `UNNEST` and each table as of a time of a query, and of those within it, to the end of brackets.
pub(crate) fn rewrite(query: &mut Query) {
    let _ = query.visit(&mut Rewrite);
}

struct Rewrite;

impl VisitorMut for Rewrite {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let mut from: Vec<TableWithJoins> = Vec::with_capacity(select.from.len());
        for mut table in std::mem::take(&mut select.from) {
            match from.last_mut() {
                // It may read the columns of all tables before.
                Some(_) if reads_others(&table.relation) => {
                    let cross = |relation| Join {
                        relation,
                        global: false,
                        join_operator: JoinOperator::CrossJoin(JoinConstraint::None),
                    };
                    let mut tables = std::mem::take(&mut from).into_iter();
                    let Some(mut first) = tables.next() else { continue };
                    first.joins.extend(tables.flat_map(|table| {
                        let mut joins = table.joins;
                        joins.insert(0, cross(table.relation));
                        joins
                    }));
                    first.joins.push(cross(table.relation));
                    first.joins.append(&mut table.joins);
                    from.push(first);
                }
                _ => from.push(table),
            }
        }
        select.from = from.into_iter().map(bracketed).collect();
        ControlFlow::Continue(())
    }
}

/// Whether a relation may read the columns of those before it.
fn reads_others(relation: &TableFactor) -> bool {
    call(relation).is_some() || is_as_of(relation)
}

/// `a JOIN UNNEST(…) JOIN b` as `(a JOIN UNNEST(…)) JOIN b`.
fn bracketed(table: TableWithJoins) -> TableWithJoins {
    let (mut relation, mut joins) = (table.relation, Vec::with_capacity(table.joins.len()));
    for join in table.joins {
        let is_last = reads_others(&join.relation);
        joins.push(join);
        if is_last {
            let inner = TableWithJoins { relation, joins: std::mem::take(&mut joins) };
            relation = TableFactor::NestedJoin { table_with_joins: Box::new(inner), alias: None };
        }
    }
    TableWithJoins { relation, joins }
}

/// A call of `UNNEST` as a relation.
struct Call {
    name: Ident,
    arguments: Vec<FunctionArg>,
    alias: Option<TableAlias>,
    has_ordinality: bool,
}

fn call(relation: &TableFactor) -> Option<Call> {
    let (name, arguments, alias, has_ordinality) = match relation {
        TableFactor::Table { name, args: Some(args), alias, with_ordinality, .. } => {
            (name, &args.args, alias, *with_ordinality)
        }
        TableFactor::Function { name, args, alias, with_ordinality, .. } => (name, args, alias, *with_ordinality),
        _ => return None,
    };
    let name = name.0.last()?.as_ident().filter(|name| name.value.eq_ignore_ascii_case("UNNEST"))?.clone();
    Some(Call { name, arguments: arguments.clone(), alias: alias.clone(), has_ordinality })
}

/// Plans brackets whose last relation is an `UNNEST`, and an `UNNEST` that stands alone.
#[derive(Debug)]
pub(crate) struct Unnests;

impl RelationPlanner for Unnests {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> datafusion_common::Result<RelationPlanning> {
        let planned = match &relation {
            TableFactor::NestedJoin { table_with_joins, alias: None } => match split_last(table_with_joins) {
                Some((left, last)) => match call(&last.relation) {
                    Some(call) => Some(plan(context.plan(left)?, &call, &last.join_operator, context)),
                    None => None,
                },
                None => None,
            },
            other => match call(other) {
                Some(call) => {
                    let one_row = LogicalPlanBuilder::empty(true).build()?;
                    Some(plan(one_row, &call, &JoinOperator::CrossJoin(JoinConstraint::None), context))
                }
                None => None,
            },
        };
        match planned {
            None => Ok(RelationPlanning::Original(Box::new(relation))),
            Some(plan) => Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan?, None)))),
        }
    }
}

/// Brackets as their last join, and what stands before it.
pub(crate) fn split_last(brackets: &TableWithJoins) -> Option<(TableFactor, &Join)> {
    let (last, joins) = brackets.joins.split_last()?;
    let left = match joins {
        [] => brackets.relation.clone(),
        joins => {
            let left = TableWithJoins { relation: brackets.relation.clone(), joins: joins.to_vec() };
            TableFactor::NestedJoin { table_with_joins: Box::new(left), alias: None }
        }
    };
    Some((left, last))
}

fn plan(
    input: LogicalPlan,
    call: &Call,
    join: &JoinOperator,
    context: &mut dyn RelationPlannerContext,
) -> datafusion_common::Result<LogicalPlan> {
    let place = call.name.span;
    let refused = |message: &str| Fault::new(message).at(place).help(USAGE).into_datafusion();
    let is_true = |constraint: &JoinConstraint| match constraint {
        JoinConstraint::On(ast::Expr::Value(value)) => matches!(value.value, ast::Value::Boolean(true)),
        _ => false,
    };
    let (is_outer, condition) = match join {
        JoinOperator::CrossJoin(JoinConstraint::None) => (false, None),
        JoinOperator::Join(JoinConstraint::None) | JoinOperator::Inner(JoinConstraint::None) => (false, None),
        JoinOperator::Join(JoinConstraint::On(on)) | JoinOperator::Inner(JoinConstraint::On(on)) => (false, Some(on)),
        JoinOperator::Left(on) | JoinOperator::LeftOuter(on) if is_true(on) => (true, None),
        JoinOperator::Left(_) | JoinOperator::LeftOuter(_) => {
            return Err(refused("a LEFT JOIN with UNNEST is ON TRUE"));
        }
        _ => return Err(refused("UNNEST is the right side of a CROSS, INNER or LEFT JOIN")),
    };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(collection))] = call.arguments.as_slice() else {
        return Err(refused("UNNEST takes one array or map"));
    };
    let collection = context.sql_to_expr(collection.clone(), input.schema())?;
    let unnest = Unnest::new(Arc::new(input), collection, Shape::of(call, is_outer)).map_err(|error| match error {
        datafusion_common::DataFusionError::Plan(message) => refused(&message),
        other => other,
    })?;
    let plan = LogicalPlan::Extension(Extension { node: Arc::new(unnest) });
    match condition {
        None => Ok(plan),
        Some(condition) => {
            let condition = context.sql_to_expr(condition.clone(), plan.schema())?;
            LogicalPlanBuilder::from(plan).filter(condition)?.build()
        }
    }
}

/// What is wanted of the elements.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Shape {
    qualifier: Option<TableReference>,
    /// The names that the alias gives to the columns; none are those of the elements.
    names: Vec<String>,
    is_outer: bool,
    has_ordinality: bool,
}

impl Shape {
    fn of(call: &Call, is_outer: bool) -> Self {
        let names = call.alias.iter().flat_map(|alias| &alias.columns).map(|column| column.name.value.clone());
        Shape {
            qualifier: call.alias.as_ref().map(|alias| TableReference::bare(alias.name.value.clone())),
            names: names.collect(),
            is_outer,
            has_ordinality: call.has_ordinality,
        }
    }

    /// The columns of the elements of a collection.
    fn columns(&self, collection: &DataType) -> datafusion_common::Result<Vec<FieldRef>> {
        let own: Vec<(String, DataType)> = match collection {
            DataType::List(element) => match element.data_type() {
                DataType::Struct(fields) => {
                    fields.iter().map(|field| (field.name().clone(), field.data_type().clone())).collect()
                }
                data_type => vec![("EXPR$0".to_owned(), data_type.clone())],
            },
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(fields) => ["KEY", "VALUE"]
                    .iter()
                    .zip(fields)
                    .map(|(name, field)| ((*name).to_owned(), field.data_type().clone()))
                    .collect(),
                other => return internal_err!("the entries of a map are {other}"),
            },
            other => return plan_err!("UNNEST takes an array or a map, not {}", type_name(other)),
        };
        let ordinality = self.has_ordinality.then(|| ("ORDINALITY".to_owned(), DataType::Int32));
        let own: Vec<(String, DataType)> = own.into_iter().chain(ordinality).collect();
        if !self.names.is_empty() && self.names.len() != own.len() {
            let (named, count) = (self.names.len(), own.len());
            return plan_err!("the alias of UNNEST names {named} columns, and its elements have {count}");
        }
        let named = own.into_iter().enumerate().map(|(index, (name, data_type))| {
            Arc::new(Field::new(self.names.get(index).cloned().unwrap_or(name), data_type, true))
        });
        Ok(named.collect())
    }
}

/// Each row of the input with each element of a collection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Unnest {
    pub input: Arc<LogicalPlan>,
    /// An array or a map, over the input.
    pub collection: Expr,
    shape: Shape,
    schema: DFSchemaRef,
}

impl Unnest {
    fn new(input: Arc<LogicalPlan>, collection: Expr, shape: Shape) -> datafusion_common::Result<Self> {
        let own = input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone()));
        let elements = shape.columns(&collection.get_type(input.schema())?)?;
        let elements = elements.into_iter().map(|field| (shape.qualifier.clone(), field));
        let metadata = input.schema().metadata().clone();
        let schema = Arc::new(DFSchema::new_with_metadata(own.chain(elements).collect(), metadata)?);
        Ok(Unnest { input, collection, shape, schema })
    }

    /// The node behind a plan, if it is one.
    pub fn of(plan: &LogicalPlan) -> Option<&Self> {
        let LogicalPlan::Extension(extension) = plan else { return None };
        extension.node.as_any().downcast_ref()
    }

    /// Whether a row without elements stays.
    pub fn is_outer(&self) -> bool {
        self.shape.is_outer
    }

    /// Whether the last column is the element's place.
    pub fn has_ordinality(&self) -> bool {
        self.shape.has_ordinality
    }
}

impl PartialOrd for Unnest {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (&self.input, &self.collection).partial_cmp(&(&other.input, &other.collection)) {
            Some(Ordering::Equal) if self.shape != other.shape => None,
            order => order,
        }
    }
}

impl UserDefinedLogicalNodeCore for Unnest {
    fn name(&self) -> &str {
        "Unnest"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![self.collection.clone()]
    }

    /// A condition on the elements stays above.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let own = self.input.schema().fields().len();
        self.schema.fields().iter().skip(own).map(|field| field.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Unnest: {}", self.collection)
    }

    fn with_exprs_and_inputs(
        &self,
        mut exprs: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> datafusion_common::Result<Self> {
        match (exprs.pop(), inputs.pop()) {
            (Some(collection), Some(input)) => Unnest::new(Arc::new(input), collection, self.shape.clone()),
            _ => internal_err!("an UNNEST has a collection and an input"),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let input = self.input.schema();
        let read = self.collection.column_refs();
        let read = read.iter().filter_map(|column| input.maybe_index_of_column(column));
        let own = output_columns.iter().copied().filter(|column| *column < input.fields().len());
        let mut needed: Vec<usize> = own.chain(read).collect();
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}
