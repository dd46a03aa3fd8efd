//! Lookup joins: each row with the rows that a table has for its key when the row is processed.

use std::fmt::Write as _;

use coulee_runtime::graph::{NodeKind, Partitioning, Port};
use coulee_runtime::lookup::{LookupSpec, LookupTable, lookup};
use coulee_runtime::table::LOOKUP_RELOAD;
use datafusion_common::DFSchema;
use datafusion_expr::utils::conjunction;
use datafusion_expr::{Expr, TableScan};

use super::print::expression;
use super::{Building, Node, StreamPlan};
use crate::as_of::{AsOf, equalities, table_of};
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
        let Some(scan) = table_of(&node.right, true) else { return Err(no_table()) };
        let (equal, rest) = equalities(&node.condition, node.left.schema(), node.right.schema());
        let on = equal.into_iter().map(|(left, right, _)| (left, right)).collect();
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
