//! `TO_CHANGELOG(input => TABLE t)` and `FROM_CHANGELOG(input => TABLE t)` in `FROM`: what happens to rows as a column, and back; and the node of DataFusion's plan for both.
//!
//! As Flink 2.3 has them: options `op => DESCRIPTOR(column)` and `op_mapping => MAP[…]`, whose left texts may name several, `'INSERT, UPDATE_AFTER'`.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use coulee_runtime::RowKind;
use datafusion_common::{DFSchema, DFSchemaRef, ScalarValue, TableReference, internal_err};
use datafusion_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use sqlparser::ast::{self, FunctionArg, FunctionArgExpr, Ident, Spanned, TableFactor};

use crate::error::{Fault, Result};
use crate::table_function::{call, descriptor, relation};

/// What happens to rows, as Flink names it.
const KINDS: [(&str, RowKind); 4] = [
    ("INSERT", RowKind::Insert),
    ("UPDATE_BEFORE", RowKind::UpdateBefore),
    ("UPDATE_AFTER", RowKind::UpdateAfter),
    ("DELETE", RowKind::Delete),
];

/// The column of the codes, unless another is named.
const OP: &str = "op";

/// Plans both functions.
#[derive(Debug)]
pub(crate) struct ChangelogFunctions;

impl RelationPlanner for ChangelogFunctions {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> datafusion_common::Result<RelationPlanning> {
        let called = call(&relation).and_then(|(name, arguments, alias)| {
            let writes = match name.value.to_uppercase().as_str() {
                "TO_CHANGELOG" => true,
                "FROM_CHANGELOG" => false,
                _ => return None,
            };
            Some((writes, name, arguments, alias))
        });
        let Some((writes, name, arguments, alias)) = called else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let arguments = Arguments::of(&name, &arguments).map_err(Fault::into_datafusion)?;
        let input = context.plan(arguments.input)?;
        let mapping = match &arguments.mapping {
            None => None,
            Some(expr) => Some(mapping(expr, context)?),
        };
        let op = arguments.op.as_ref().map_or(OP, |op| op.value.as_str());
        let place = arguments.op.as_ref().map_or(name.span, |op| op.span);
        let node = if writes { OpCodes::written(input, op, mapping) } else { OpCodes::read(input, op, mapping) };
        let node = node.map_err(|fault| fault.at(place).into_datafusion())?;
        let plan = LogicalPlan::Extension(Extension { node: Arc::new(node) });
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

/// What a function was called with.
struct Arguments {
    input: TableFactor,
    op: Option<Ident>,
    mapping: Option<ast::Expr>,
}

impl Arguments {
    fn of(function: &Ident, arguments: &[FunctionArg]) -> Result<Self> {
        let name = function.value.to_uppercase();
        let usage = || {
            let help = format!(
                "write FROM {name}(input => TABLE t), with op => DESCRIPTOR(column) and op_mapping => MAP['…', '…'] if need be"
            );
            Fault::new(format!("{name} is called with other arguments than it takes")).at(function.span).help(help)
        };
        let mut found: [Option<ast::Expr>; 3] = [None, None, None];
        for (position, argument) in arguments.iter().enumerate() {
            let (index, value) = match argument {
                FunctionArg::Unnamed(value) => (Some(position), value),
                FunctionArg::Named { name, arg, .. } => {
                    (["input", OP, "op_mapping"].iter().position(|known| name.value.eq_ignore_ascii_case(known)), arg)
                }
                FunctionArg::ExprNamed { arg, .. } => (None, arg),
            };
            match (index.and_then(|index| found.get_mut(index)), value) {
                (Some(place @ None), FunctionArgExpr::Expr(value)) => *place = Some(value.clone()),
                _ => return Err(usage()),
            }
        }
        let [input, op, mapping] = found;
        let input = input.and_then(relation).ok_or_else(usage)?;
        let op = op.map(|op| descriptor(&op).ok_or_else(usage)).transpose()?;
        Ok(Arguments { input, op, mapping })
    }
}

/// The texts of a map's literal, by pairs.
fn mapping(
    expr: &ast::Expr,
    context: &mut dyn RelationPlannerContext,
) -> datafusion_common::Result<Vec<(String, String)>> {
    let refused = || {
        let fault = Fault::new("op_mapping is a map of texts").at(expr.span());
        fault.help("write MAP['INSERT', 'I', 'UPDATE_AFTER', 'U']").into_datafusion()
    };
    let Expr::ScalarFunction(map) = context.sql_to_expr(expr.clone(), &DFSchema::empty())? else {
        return Err(refused());
    };
    let text = |expr: &Expr| match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => Some(text.clone()),
        _ => None,
    };
    let texts: Option<Vec<String>> = map.args.iter().map(text).collect();
    let texts = texts.filter(|texts| map.func.name() == "MAP []" && texts.len().is_multiple_of(2));
    let pairs = texts.map(|texts| texts.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect());
    pairs.ok_or_else(refused)
}

/// What happens to rows, by a name.
fn kind(name: &str) -> Result<RowKind> {
    KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind).ok_or_else(|| {
        let known: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
        Fault::new(format!("op_mapping names the change '{name}'"))
            .help(format!("the changes are {}", known.join(", ")))
    })
}

/// The parts of a text like `'c, r'`.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim)
}

/// Rows with the code of what happens to them, or without it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct OpCodes {
    pub input: Arc<LogicalPlan>,
    /// Codes and what they mean.
    pub codes: Vec<(String, RowKind)>,
    /// The column of the input that codes are read from; `None` where a first column is added for them.
    op: Option<Expr>,
    /// What that column is called.
    name: String,
    schema: DFSchemaRef,
}

impl OpCodes {
    fn written(input: LogicalPlan, op: &str, mapping: Option<Vec<(String, String)>>) -> Result<Self> {
        if input.schema().fields().iter().any(|field| field.name() == op) {
            let fault = Fault::new(format!("the table has a column '{op}' already, which TO_CHANGELOG adds"));
            return Err(fault.help("name another: op => DESCRIPTOR(change)"));
        }
        let mut codes = Vec::new();
        for (kinds, code) in
            mapping.unwrap_or_else(|| KINDS.iter().map(|(name, _)| ((*name).to_owned(), (*name).to_owned())).collect())
        {
            for name in parts(&kinds) {
                codes.push((code.clone(), kind(name)?));
            }
        }
        OpCodes::new(Arc::new(input), codes, None, op.to_owned()).map_err(|error| crate::faults::fault(&error))
    }

    fn read(input: LogicalPlan, op: &str, mapping: Option<Vec<(String, String)>>) -> Result<Self> {
        let found = input.schema().qualified_fields_with_unqualified_name(op);
        let Some((qualifier, field)) = found.first() else {
            let fault = Fault::new(format!("the table has no column '{op}' with the codes of changes"));
            return Err(fault.help("name the column: op => DESCRIPTOR(code)"));
        };
        if field.data_type() != &DataType::Utf8 {
            let message = format!(
                "the codes of changes are STRING, and '{op}' is {}",
                crate::types::type_name(field.data_type())
            );
            return Err(Fault::new(message));
        }
        let column = Expr::from((*qualifier, *field));
        let mut codes = Vec::new();
        for (known, name) in
            mapping.unwrap_or_else(|| KINDS.iter().map(|(name, _)| ((*name).to_owned(), (*name).to_owned())).collect())
        {
            for code in parts(&known) {
                codes.push((code.to_owned(), kind(&name)?));
            }
        }
        let has = |kind: RowKind| codes.iter().any(|(_, of)| *of == kind);
        if has(RowKind::UpdateAfter) && !has(RowKind::UpdateBefore) {
            let fault = Fault::new(
                "op_mapping has no code of UPDATE_BEFORE: updates without the row before come in a later version",
            );
            return Err(
                fault.help("where rows replace each other by a key, read them as a table of connector 'upsert-stream'")
            );
        }
        OpCodes::new(Arc::new(input), codes, Some(column), op.to_owned()).map_err(|error| crate::faults::fault(&error))
    }

    fn new(
        input: Arc<LogicalPlan>,
        codes: Vec<(String, RowKind)>,
        op: Option<Expr>,
        name: String,
    ) -> datafusion_common::Result<Self> {
        let mut fields: Vec<(Option<TableReference>, FieldRef)> =
            input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone())).collect();
        match op.as_ref().and_then(Expr::try_as_col) {
            Some(column) => {
                fields.remove(input.schema().index_of_column(column)?);
            }
            None => fields.insert(0, (None, Arc::new(Field::new(&name, DataType::Utf8, true)))),
        }
        let schema = Arc::new(DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?);
        Ok(OpCodes { input, codes, op, name, schema })
    }

    /// The node behind a plan, if it is one.
    pub fn of(plan: &LogicalPlan) -> Option<&Self> {
        let LogicalPlan::Extension(extension) = plan else { return None };
        extension.node.as_any().downcast_ref()
    }

    /// Where the column stands in the input that codes are read from; `None` where they are written.
    pub fn reads(&self) -> Option<usize> {
        self.op.as_ref().and_then(Expr::try_as_col).and_then(|column| self.input.schema().maybe_index_of_column(column))
    }
}

impl PartialOrd for OpCodes {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (&self.input, &self.op, &self.name).partial_cmp(&(&other.input, &other.op, &other.name)) {
            Some(Ordering::Equal) if self.codes != other.codes => None,
            order => order,
        }
    }
}

impl UserDefinedLogicalNodeCore for OpCodes {
    fn name(&self) -> &str {
        "OpCodes"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.op.iter().cloned().collect()
    }

    /// Conditions stay above: a row that is left out before is not updated, but comes or goes.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.schema.fields().iter().map(|field| field.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "OpCodes: {}", self.name)
    }

    fn with_exprs_and_inputs(
        &self,
        mut exprs: Vec<Expr>,
        mut inputs: Vec<LogicalPlan>,
    ) -> datafusion_common::Result<Self> {
        match inputs.pop() {
            Some(input) => OpCodes::new(Arc::new(input), self.codes.clone(), exprs.pop(), self.name.clone()),
            None => internal_err!("the codes of changes have an input"),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let mut needed: Vec<usize> = match self.reads() {
            None => output_columns.iter().filter_map(|column| column.checked_sub(1)).collect(),
            Some(op) => {
                let own = output_columns.iter().map(|column| if *column < op { *column } else { column + 1 });
                own.chain([op]).collect()
            }
        };
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}
