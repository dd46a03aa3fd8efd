//! The pass that gives a resolved plan Flink's types: literals, casts, operators, and the functions that choose among values.
//!
//! It runs right behind DataFusion's planner, before views are stored and before what an `INSERT` gives is checked, and may run over a plan again. What it
//! leaves needs no conversion of DataFusion's own but for the arguments of functions.

use std::sync::Arc;

use arrow::datatypes::DataType;
use coulee_runtime::window::assign::as_window;
use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion, TreeNodeRewriter};
use datafusion_common::{Column, DFSchema, ExprSchema, Result, ScalarValue, plan_err};
use datafusion_expr::expr::{Between, Case, Cast, InList, ScalarFunction, TryCast};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion_expr::utils::merge_schema;
use datafusion_expr::{BinaryExpr, Expr, ExprSchemable, GroupingSet, LogicalPlan, Operator, Projection, Union, Values};

use super::arithmetic::{Arithmetic, Negate, result_type};
use super::cast::{Failing, Target, cast_array, cast_expr};
use super::common::{Floating, common_of};
use super::compare::{compared_type, comparison, is_comparison, side};
use super::{conditional, literals, pattern};
use crate::cast_names;
use crate::error::Fault;
use crate::flink_types::type_name;
use crate::operands::span;

/// Makes functions of arithmetic operators as soon as the planner meets them: their types depend on what their arguments become.
#[derive(Debug)]
pub(crate) struct FlinkOperators;

impl ExprPlanner for FlinkOperators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        use sqlparser::ast::BinaryOperator;
        let op = match expr.op {
            BinaryOperator::Plus => Operator::Plus,
            BinaryOperator::Minus => Operator::Minus,
            BinaryOperator::Multiply => Operator::Multiply,
            BinaryOperator::Divide => Operator::Divide,
            BinaryOperator::Modulo => Operator::Modulo,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        if let (Ok(left), Ok(right)) = (expr.left.get_type(schema), expr.right.get_type(schema))
            && result_type(op, &left, &right).is_none()
        {
            let message = format!("'{}' does not take {} and {}", expr.op, type_name(&left), type_name(&right));
            let fault = Fault::new(message).or_at(span(&expr.left)).or_at(span(&expr.right));
            return Err(fault.help("write a CAST of one side to the other's type").into_datafusion());
        }
        match Arithmetic::of(op) {
            Some(function) => {
                let call = ScalarFunction::new_udf(function, vec![expr.left, expr.right]);
                Ok(PlannerResult::Planned(Expr::ScalarFunction(call)))
            }
            None => Ok(PlannerResult::Original(expr)),
        }
    }
}

/// The plan with Flink's types.
///
/// # Errors
/// When an operator does not take the types of its arguments.
pub(crate) fn typed_plan(plan: LogicalPlan) -> Result<LogicalPlan> {
    let typed = plan.transform_up_with_subqueries(|node| typed_node(node).map(Transformed::yes)).data()?;
    // SUBTLE: a subquery holds the types that the columns around it had when the query was resolved: those of DataFusion's literals.
    let renewed = |node: LogicalPlan| {
        let outer = merge_schema(&node.inputs());
        node.map_subqueries(|subquery| typed_again(subquery, &outer).map(Transformed::yes))
    };
    typed.transform_down(renewed).data()
}

/// A subquery with the types that the columns of the query around it have now.
fn typed_again(subquery: LogicalPlan, outer: &DFSchema) -> Result<LogicalPlan> {
    let renewed = |expr: Expr| {
        let Expr::OuterReferenceColumn(field, column) = &expr else { return Ok(Transformed::no(expr)) };
        match outer.field_from_column(column) {
            Ok(now) if now.data_type() != field.data_type() => {
                Ok(Transformed::yes(Expr::OuterReferenceColumn(now.clone(), column.clone())))
            }
            _ => Ok(Transformed::no(expr)),
        }
    };
    let retyped = |node: LogicalPlan| {
        let names = NamePreserver::new(&node);
        let node = node.map_expressions(|expr| {
            let name = names.save(&expr);
            expr.transform_up(renewed).map(|expr| expr.update_data(|expr| name.restore(expr)))
        });
        typed_node(node.data()?).map(Transformed::yes)
    };
    let LogicalPlan::Subquery(mut subquery) = subquery else { return Ok(subquery) };
    subquery.subquery = Arc::new(Arc::unwrap_or_clone(subquery.subquery).transform_up_with_subqueries(retyped).data()?);
    for column in &mut subquery.outer_ref_columns {
        *column = column.clone().transform_up(renewed).data()?;
    }
    Ok(LogicalPlan::Subquery(subquery))
}

fn typed_node(node: LogicalPlan) -> Result<LogicalPlan> {
    if let LogicalPlan::Union(union) = node {
        return typed_union(union);
    }
    if let LogicalPlan::Values(values) = node {
        return typed_values(values);
    }
    let schema = merge_schema(&node.inputs());
    let names = NamePreserver::new(&node);
    let typed = node.map_expressions(|expr| typed_and_named(expr, &schema, &names).map(Transformed::yes));
    typed.data()?.recompute_schema()
}

/// An expression of a node under its name. Of sets of keys, it is the keys that have names.
fn typed_and_named(expr: Expr, schema: &DFSchema, names: &NamePreserver) -> Result<Expr> {
    let Expr::GroupingSet(set) = expr else {
        let name = names.save(&expr);
        return Ok(name.restore(typed_expr(expr, schema)?));
    };
    let each = |keys: Vec<Expr>| keys.into_iter().map(|key| typed_and_named(key, schema, names)).collect();
    Ok(Expr::GroupingSet(match set {
        GroupingSet::Rollup(keys) => GroupingSet::Rollup(each(keys)?),
        GroupingSet::Cube(keys) => GroupingSet::Cube(each(keys)?),
        GroupingSet::GroupingSets(sets) => {
            GroupingSet::GroupingSets(sets.into_iter().map(each).collect::<Result<_>>()?)
        }
    }))
}

/// `VALUES` whose columns have the common types of their rows. A column is nullable if one of its values is.
fn typed_values(values: Values) -> Result<LogicalPlan> {
    let Values { schema, values } = values;
    let nothing = DFSchema::empty();
    let typed = |expr: Expr| typed_expr(without_common_type(expr), &nothing);
    let typed = |row: Vec<Expr>| row.into_iter().map(typed).collect::<Result<Vec<_>>>();
    let mut rows = values.into_iter().map(typed).collect::<Result<Vec<_>>>()?;
    let mut fields = Vec::with_capacity(schema.fields().len());
    for (index, (qualifier, field)) in schema.iter().enumerate() {
        let types = rows.iter().map(|row| row[index].get_type(&nothing)).collect::<Result<Vec<DataType>>>()?;
        let Some(together) = common_of(&types, Floating::First) else {
            let given: Vec<String> = types.iter().map(type_name).collect();
            return plan_err!(
                "column {} of VALUES has no common type: {}\nCAST its values to one type",
                index + 1,
                given.join(", ")
            );
        };
        let mut nullable = false;
        for (row, from) in rows.iter_mut().zip(&types) {
            let value = std::mem::replace(&mut row[index], Expr::Literal(ScalarValue::Null, None));
            nullable |= value.nullable(&nothing)?;
            row[index] = match *from == together {
                true => value,
                false => cast_expr(value, from, Target::plain(together.clone()), Failing::Error)?,
            };
        }
        let field = field.as_ref().clone().with_data_type(together).with_nullable(nullable);
        fields.push((qualifier.cloned(), Arc::new(field)));
    }
    let schema = Arc::new(DFSchema::new_with_metadata(fields, std::collections::HashMap::new())?);
    Ok(LogicalPlan::Values(Values { schema, values: rows }))
}

/// A value of `VALUES` without the cast to the type that DataFusion found for its column: types are found again, by Flink's rules. Casts of the statement are
/// marked here, see `cast_names`, and a number with a point is the cast of a text.
fn without_common_type(value: Expr) -> Expr {
    match value {
        Expr::Cast(Cast { expr, .. }) if !matches!(expr.as_ref(), Expr::Literal(ScalarValue::Utf8(_), _)) => *expr,
        other => other,
    }
}

/// The union of queries whose columns have their common types. The types that DataFusion knows are from before the queries were typed.
fn typed_union(union: Union) -> Result<LogicalPlan> {
    let mut common = Vec::with_capacity(union.schema.fields().len());
    for index in 0..union.schema.fields().len() {
        let types: Vec<DataType> =
            union.inputs.iter().map(|input| input.schema().field(index).data_type().clone()).collect();
        let Some(together) = common_of(&types, Floating::First) else {
            let given: Vec<String> = types.iter().map(type_name).collect();
            let name = union.schema.field(index).name();
            return plan_err!(
                "column '{name}' of UNION ALL has no common type: {}\nCAST them to one type",
                given.join(", ")
            );
        };
        common.push(together);
    }
    let inputs = union.inputs.into_iter().map(|input| cast_columns(input, &common)).collect::<Result<_>>()?;
    Ok(LogicalPlan::Union(Union::try_new(inputs)?))
}

/// A plan's columns in these types, under their names.
fn cast_columns(input: Arc<LogicalPlan>, types: &[DataType]) -> Result<Arc<LogicalPlan>> {
    let schema = input.schema().clone();
    if schema.fields().iter().zip(types).all(|(field, to)| field.data_type() == to) {
        return Ok(input);
    }
    let columns = schema.iter().zip(types).map(|((qualifier, field), to)| {
        let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
        if field.data_type() == to {
            return Ok(column);
        }
        let cast = cast_expr(column, field.data_type(), Target::plain(to.clone()), Failing::Error)?;
        Ok(cast.alias_qualified(qualifier.cloned(), field.name()))
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(LogicalPlan::Projection(Projection::try_new(columns, input)?)))
}

/// The expression with Flink's types.
///
/// # Errors
/// When an operator does not take the types of its arguments.
pub(crate) fn typed_expr(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    expr.rewrite(&mut Typing { schema }).data()
}

struct Typing<'s> {
    schema: &'s DFSchema,
}

impl TreeNodeRewriter for Typing<'_> {
    type Node = Expr;

    fn f_down(&mut self, expr: Expr) -> Result<Transformed<Expr>> {
        // A window's bound is the planner's own, and its numbers are read back as they are.
        let jump = as_window(&expr).is_some();
        Ok(Transformed::new(expr, false, if jump { TreeNodeRecursion::Jump } else { TreeNodeRecursion::Continue }))
    }

    fn f_up(&mut self, expr: Expr) -> Result<Transformed<Expr>> {
        Ok(Transformed::yes(match expr {
            Expr::Literal(value, metadata) => match literals::whole(&value)? {
                Some(typed) => typed,
                None => Expr::Literal(value, metadata),
            },
            Expr::Cast(Cast { expr, field }) => self.cast(*expr, &Target::of(&field), Failing::Error)?,
            Expr::TryCast(TryCast { expr, field }) => self.cast(*expr, &Target::of(&field), Failing::Null)?,
            Expr::Negative(inner) => self.negated(*inner)?,
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(op) => {
                comparison(*left, op, *right, self.schema)?
            }
            Expr::Between(between) => self.between(between)?,
            Expr::InList(list) => self.in_list(list)?,
            Expr::Case(case) => self.case(case)?,
            Expr::Like(like) => pattern::like(like, self.schema)?,
            Expr::SimilarTo(like) => pattern::similar(like)?,
            Expr::ScalarFunction(call) => match cast_names::unmarked(call) {
                Ok(cast) => cast,
                Err(call) => conditional::expand(call, self.schema)?,
            },
            other => other,
        }))
    }
}

impl Typing<'_> {
    fn cast(&self, expr: Expr, to: &Target, failing: Failing) -> Result<Expr> {
        if let Some(literal) = folded(&expr, to)? {
            return Ok(literal);
        }
        let from = expr.get_type(self.schema)?;
        cast_expr(expr, &from, to.clone(), failing)
    }

    fn negated(&self, inner: Expr) -> Result<Expr> {
        let data_type = inner.get_type(self.schema)?;
        if matches!(inner, Expr::Literal(ScalarValue::Float64(Some(0.0)), _)) {
            // Written numbers have no negative zero.
            return Ok(inner);
        }
        if !data_type.is_numeric() {
            return Ok(Expr::Negative(Box::new(inner)));
        }
        Ok(Expr::ScalarFunction(ScalarFunction::new_udf(Negate::function(), vec![inner])))
    }

    /// `x BETWEEN a AND b` is `x >= a AND x <= b`, each compared in its own type.
    fn between(&self, between: Between) -> Result<Expr> {
        let Between { expr, negated, low, high } = between;
        let (from, to) = if negated { (Operator::Lt, Operator::Gt) } else { (Operator::GtEq, Operator::LtEq) };
        let low = comparison(expr.as_ref().clone(), from, *low, self.schema)?;
        let high = comparison(*expr, to, *high, self.schema)?;
        Ok(if negated { low.or(high) } else { low.and(high) })
    }

    fn in_list(&self, list: InList) -> Result<Expr> {
        let InList { expr, list, negated } = list;
        let value = expr.get_type(self.schema)?;
        let types = list.iter().map(|item| item.get_type(self.schema)).collect::<Result<Vec<_>>>()?;
        let common = types.iter().try_fold(value, |common, next| compared_type(&common, next));
        let Some(common) = common else {
            let given: Vec<String> = types.iter().map(type_name).collect();
            return plan_err!("the members of IN have no common type: {}\nCAST them to one type", given.join(", "));
        };
        let member = |expr: Expr| {
            let from = expr.get_type(self.schema)?;
            side(expr, &from, &common, Failing::Null)
        };
        let expr = member(*expr)?;
        let list = list.into_iter().map(member).collect::<Result<Vec<_>>>()?;
        Ok(Expr::InList(InList { expr: Box::new(expr), list, negated }))
    }

    fn condition(&self, when: Expr) -> Result<Expr> {
        match when.get_type(self.schema)? {
            DataType::Boolean | DataType::Null => Ok(when),
            other => plan_err!("the condition of CASE is {}, expected BOOLEAN", type_name(&other)),
        }
    }

    /// Branches in their common type; the value beside WHEN as in a comparison.
    fn case(&self, case: Case) -> Result<Expr> {
        let Case { expr, when_then_expr, else_expr } = case;
        let branches = when_then_expr.iter().map(|(_, then)| then).chain(&else_expr);
        let types = branches.map(|branch| branch.get_type(self.schema)).collect::<Result<Vec<_>>>()?;
        let Some(common) = common_of(&types, Floating::First) else {
            let given: Vec<String> = types.iter().map(type_name).collect();
            return plan_err!("the branches of CASE have no common type: {}\nCAST them to one type", given.join(", "));
        };
        let target = Target::plain(common);
        let mut whens = Vec::with_capacity(when_then_expr.len());
        for (when, then) in when_then_expr {
            let when = match &expr {
                Some(value) => comparison(value.as_ref().clone(), Operator::Eq, *when, self.schema)?,
                None => self.condition(*when)?,
            };
            whens.push((Box::new(when), Box::new(self.cast(*then, &target, Failing::Error)?)));
        }
        let otherwise = else_expr.map(|other| self.cast(*other, &target, Failing::Error).map(Box::new)).transpose()?;
        Ok(Expr::Case(Case { expr: None, when_then_expr: whens, else_expr: otherwise }))
    }
}

/// A number or a time as written: the cast of a text that has a value. Whole numbers stay casts, as their literals have a type of their own.
fn folded(expr: &Expr, to: &Target) -> Result<Option<Expr>> {
    use DataType::{Date32, Decimal128, Float64, Time32, Timestamp};
    let is_written = matches!(to.data_type, Decimal128(..) | Float64 | Date32 | Time32(_) | Timestamp(..));
    let Expr::Literal(text @ ScalarValue::Utf8(Some(_)), _) = expr else { return Ok(None) };
    if !is_written {
        return Ok(None);
    }
    match cast_array(&text.to_array()?, to, Failing::Error) {
        Ok(value) => Ok(Some(Expr::Literal(ScalarValue::try_from_array(&value, 0)?, None))),
        // A text that has no value fails with the row, or is null.
        Err(_) => Ok(None),
    }
}
