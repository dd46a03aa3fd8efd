//! Lookup joins: each row with the rows that a table has for its key when the row is processed.

use std::fmt::Write as _;

use coulee_runtime::graph::{NodeKind, Partitioning, Port};
use coulee_runtime::lookup::{LookupSpec, LookupTable, lookup};
use coulee_runtime::table::LOOKUP_RELOAD;
use datafusion_common::DFSchema;
use datafusion_expr::utils::{conjunction, split_conjunction};
use datafusion_expr::{BinaryExpr, Expr, LogicalPlan, Operator, TableScan};

use super::print::expression;
use super::{Building, Node, StreamPlan};
use crate::as_of::AsOf;
use crate::catalog::{ScanSource, Table};
use crate::error::{Fault, Result};
use crate::faults::fault;
use crate::translate::{NodeRows, Translator, physical};

#[derive(Debug)]
pub(super) struct Lookup {
    scan: TableScan,
    /// What is done to the rows of the table.
    table: StreamPlan,
    /// Expressions over the left side and over the table that must be equal.
    on: Vec<(Expr, Expr)>,
    condition: Option<Expr>,
    is_outer: bool,
}

impl Lookup {
    /// The node of a join as of a processing time, and the plan of the table's rows.
    pub fn of(node: &AsOf, table: StreamPlan) -> Result<Self> {
        let Some(scan) = scan_of(&node.right) else { return Err(no_table()) };
        let (mut on, mut rest) = (Vec::new(), Vec::new());
        for term in split_conjunction(&node.condition) {
            match equal(term, node.left.schema(), node.right.schema()) {
                Some(pair) => on.push(pair),
                None => rest.push(term.clone()),
            }
        }
        let is_true = |term: &Expr| *term == datafusion_expr::lit(true);
        rest.retain(|term| !is_true(term));
        Ok(Lookup { scan: scan.clone(), table, on, condition: conjunction(rest), is_outer: node.is_outer })
    }

    /// The table, with what the plan does to its rows.
    fn lookup_table(&self, table: &Table, to: &mut Translator<'_>) -> Result<(LookupTable, DFSchema)> {
        // A graph of its own, of which only the source's rows are of interest, and what is to be done to them.
        let mut aside = Translator::new(to.context);
        let rows = self.table.build(&mut aside)?;
        let node = aside.graph.nodes.first().filter(|_| aside.graph.nodes.len() == 1);
        let Some(NodeKind::Source(source)) = node.map(|node| &node.kind) else { return Err(no_table()) };
        to.touch(table.name());
        let own = source.source.schema();
        let primary_key = match source.source.is_upsert() {
            true => table.spec.primary_key.iter().map(|column| own.index_of(column)).collect(),
            false => Ok(Vec::new()),
        };
        let (projection, schema) = match rows.projection {
            Some((columns, schema)) => (Some(columns), schema),
            None => (None, rows.schema),
        };
        let keys = self.on.iter().map(|(_, key)| physical(key, &schema)).collect::<Result<_>>()?;
        let table = LookupTable {
            name: table.name().to_owned(),
            source: source.source.clone(),
            filter: rows.filter,
            projection,
            schema: schema.inner().clone(),
            primary_key: primary_key.map_err(|error| Fault::new(error.to_string()))?,
            keys,
            reload: table.common.span(LOOKUP_RELOAD),
        };
        Ok((table, schema))
    }
}

impl Node for Lookup {
    fn describe(&self, inputs: &[StreamPlan]) -> String {
        let text = |(left, key): &(Expr, Expr)| {
            format!("{} = {}", expression(left, &inputs[0].schema), expression(key, &self.table.schema))
        };
        let on: Vec<String> = self.on.iter().map(text).collect();
        let kind = if self.is_outer { "left" } else { "inner" };
        let mut shown = format!("LookupJoin(type=[{kind}], table=[{}], on=[{}]", self.scan.table_name, on.join(", "));
        if let (Some(condition), Ok(both)) = (&self.condition, inputs[0].schema.join(&self.table.schema)) {
            let _ = write!(shown, ", where=[{}]", expression(condition, &both));
        }
        shown + ")"
    }

    /// Keeps the columns that the plan asks for: rows are copied.
    fn prepare(&self, plan: &StreamPlan, input: usize, rows: NodeRows, to: &mut Translator<'_>) -> Result<NodeRows> {
        to.exactly(rows, &plan.inputs[input].schema)
    }

    fn build(&self, mut building: Building<'_, '_, '_>) -> Result<NodeRows> {
        let rows = building.input()?;
        let Building { plan, to, .. } = building;
        let Some(ScanSource(table)) = self.scan.source.downcast_ref::<ScanSource>() else { return Err(no_table()) };
        let (table, columns) = self.lookup_table(table, to)?;
        let keys = self.on.iter().map(|(key, _)| physical(key, &rows.schema)).collect::<Result<_>>()?;
        let both = rows.schema.join(&columns).map_err(|error| fault(&error))?;
        let condition = self.condition.as_ref().map(|condition| physical(condition, &both)).transpose()?;
        let schema = plan.schema.inner().clone();
        let spec = LookupSpec { table, keys, condition, is_outer: self.is_outer, schema };
        let node = to.stateless(rows.parallelism, lookup(spec))?;
        to.graph.connect(rows.node, Port::MAIN, node, Partitioning::Forward)?;
        Ok(NodeRows::new(node, rows.parallelism, plan.schema.as_ref().clone()))
    }
}

fn no_table() -> Fault {
    Fault::new(
        "what is joined FOR SYSTEM_TIME AS OF is a table, or a view that only filters one and computes columns of it",
    )
    .or_clause(&["SYSTEM_TIME"])
    .help("write the query's result to a table of connector 'upsert-stream', and join that")
}

/// The only table that a plan reads, if nothing is done to its rows but to each alone.
fn scan_of(plan: &LogicalPlan) -> Option<&TableScan> {
    match plan {
        LogicalPlan::TableScan(scan) => Some(scan),
        LogicalPlan::Projection(node) => scan_of(&node.input),
        LogicalPlan::Filter(node) => scan_of(&node.input),
        LogicalPlan::SubqueryAlias(node) => scan_of(&node.input),
        _ => None,
    }
}

/// The sides of an equality of something of the left side and something of the table.
fn equal(term: &Expr, left: &DFSchema, right: &DFSchema) -> Option<(Expr, Expr)> {
    let Expr::BinaryExpr(BinaryExpr { left: a, op: Operator::Eq, right: b }) = term else { return None };
    let is_of = |expr: &Expr, schema: &DFSchema| {
        let columns = expr.column_refs();
        !columns.is_empty() && columns.iter().all(|column| schema.maybe_index_of_column(column).is_some())
    };
    match () {
        () if is_of(a, left) && is_of(b, right) => Some((a.as_ref().clone(), b.as_ref().clone())),
        () if is_of(b, left) && is_of(a, right) => Some((b.as_ref().clone(), a.as_ref().clone())),
        () => None,
    }
}
