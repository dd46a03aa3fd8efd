//! Where the rows of an edge come from: the source, what was filtered, and each column as an expression over the source's columns.
//!
//! A lineage is text, made from the graph. Aliases, unrelated columns, and where a projection stands among the operators leave no trace in it, so that two
//! queries with equal lineages feed an operator the same rows. An operator's [`state`](super::OperatorFactory::state) is described over it.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion_physical_expr::PhysicalExpr;

use super::canonical::{canonical, conjuncts};
use super::{Graph, Node, NodeKind, Port};
use crate::group_table::Aggregate;
use crate::operator::InputIndex;
use crate::state::bounded;

/// What is known of the rows on an edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    /// What the rows come from: `flights`, or a stateful operator with its own input.
    from: String,
    /// The conditions that they passed.
    conditions: BTreeSet<String>,
    /// Each column over the columns of `from`.
    columns: Vec<String>,
    /// The columns as they are named and typed here.
    schema: SchemaRef,
}

impl Lineage {
    /// An aggregate over the columns here: `avg(flights.delay): Float64`, `count(*) FILTER (…): Int64`.
    pub fn aggregate(&self, aggregate: &Aggregate) -> String {
        let function = &aggregate.function;
        let arguments: Vec<String> = function.expressions().iter().map(|argument| self.text(argument)).collect();
        let name = function.fun().name();
        // `count(*)` is planned as the count of a constant.
        let counts_rows = name == "count" && !function.is_distinct() && arguments.iter().all(|text| text == "1");
        let arguments = if counts_rows { "*".to_owned() } else { arguments.join(", ") };
        let distinct = if function.is_distinct() { "DISTINCT " } else { "" };
        let nulls = if function.ignore_nulls() { " IGNORE NULLS" } else { "" };
        let filter = aggregate.filter.as_ref().map(|f| format!(" FILTER ({})", self.text(f))).unwrap_or_default();
        format!("{name}({distinct}{arguments}){nulls}{filter}: {}", function.field().data_type())
    }

    /// Rows that come from something whose columns are named by `columns`, one per field of `schema`.
    pub fn new(from: impl Into<String>, columns: Vec<String>, schema: SchemaRef) -> Self {
        assert_eq!(columns.len(), schema.fields().len(), "a lineage names every column");
        Lineage { from: bounded(from.into()), conditions: BTreeSet::new(), columns, schema }
    }

    /// Rows of `from` with columns of its own, `<from>.<column>`.
    pub fn named(from: &str, schema: SchemaRef) -> Self {
        let columns = schema.fields().iter().map(|field| format!("{from}.{}", field.name())).collect();
        Self::new(from, columns, schema)
    }

    /// Which rows: `flights WHERE (flights.delay > 10)`.
    pub fn rows(&self) -> String {
        if self.conditions.is_empty() {
            return self.from.clone();
        }
        let conditions: Vec<&str> = self.conditions.iter().map(String::as_str).collect();
        bounded(format!("{} WHERE {}", self.from, conditions.join(" AND ")))
    }

    /// The columns here.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// An expression over the columns here, as one over those of the source.
    pub fn text(&self, expr: &Arc<dyn PhysicalExpr>) -> String {
        bounded(canonical(expr, &self.columns))
    }

    /// The same with its type.
    pub fn typed(&self, expr: &Arc<dyn PhysicalExpr>) -> String {
        match expr.data_type(&self.schema) {
            Ok(data_type) => format!("{}: {data_type}", self.text(expr)),
            // An expression without a type is refused when the operator is made.
            Err(_) => self.text(expr),
        }
    }

    /// The rows that pass a condition.
    #[must_use]
    pub fn filtered(mut self, condition: &Arc<dyn PhysicalExpr>) -> Self {
        self.conditions.extend(conjuncts(condition).into_iter().map(|part| bounded(canonical(part, &self.columns))));
        self
    }

    /// The same rows with other columns.
    #[must_use]
    pub fn projected(self, columns: &[Arc<dyn PhysicalExpr>], schema: SchemaRef) -> Self {
        let columns = columns.iter().map(|column| self.text(column)).collect();
        Lineage { columns, schema, ..self }
    }

    /// The columns here with their types, in order.
    pub fn typed_columns(&self) -> String {
        let typed =
            |(column, field): (&String, &arrow::datatypes::FieldRef)| format!("{column}: {}", field.data_type());
        let columns: Vec<String> = self.columns.iter().zip(self.schema.fields()).map(typed).collect();
        bounded(columns.join(", "))
    }

    /// The columns of `left` and then those of `right`: what a condition over pairs reads.
    pub fn pairs(left: &Lineage, right: &Lineage) -> Lineage {
        let columns = left.columns.iter().chain(&right.columns).cloned().collect();
        let fields: Vec<_> = left.schema.fields().iter().chain(right.schema.fields()).cloned().collect();
        let from = format!("{} × {}", left.rows(), right.rows());
        Lineage::new(from, columns, Arc::new(arrow::datatypes::Schema::new(fields)))
    }

    /// Rows of `from` with these columns and further ones.
    #[must_use]
    pub fn with_columns(&self, from: String, further: impl IntoIterator<Item = String>, schema: SchemaRef) -> Lineage {
        let columns = self.columns.iter().cloned().chain(further.into_iter().map(bounded)).collect();
        Lineage::new(from, columns, schema)
    }

    /// Rows of `from` with the first of these columns, as many as `schema` has.
    #[must_use]
    pub fn derived(mut self, from: String, schema: SchemaRef) -> Lineage {
        self.columns.truncate(schema.fields().len());
        Lineage::new(from, self.columns, schema)
    }

    /// The rows of all of them, which have the same columns. In whatever order they are given.
    fn union(mut all: Vec<Lineage>) -> Lineage {
        if all.len() == 1 {
            return all.remove(0);
        }
        all.sort_by_key(Lineage::rows);
        let rows: Vec<String> = all.iter().map(Lineage::rows).collect();
        let column = |index: usize| {
            let mut texts: Vec<&str> =
                all.iter().filter_map(|lineage| lineage.columns.get(index).map(String::as_str)).collect();
            texts.dedup();
            if texts.len() == 1 { texts[0].to_owned() } else { bounded(format!("({})", texts.join(" | "))) }
        };
        let schema = all[0].schema.clone();
        let columns = (0..schema.fields().len()).map(column).collect();
        Lineage::new(format!("({})", rows.join(" UNION ALL ")), columns, schema)
    }
}

/// The name of a source in a lineage. SQL puts `source:` in front of the table's name.
fn source_name(node: &Node) -> &str {
    node.uid.strip_prefix("source:").unwrap_or(&node.uid)
}

impl Graph {
    /// For every node, what comes into each of its inputs, and what leaves its main output.
    pub(super) fn lineages(&self) -> Vec<(Vec<Lineage>, Lineage)> {
        let mut all: Vec<(Vec<Lineage>, Lineage)> = Vec::with_capacity(self.nodes.len());
        // Edges go from lower to higher ids, so that a node's inputs are known when it is its turn.
        for node in &self.nodes {
            let inputs = self.inputs_of(node, &all);
            let output = match &node.kind {
                NodeKind::Source(source) => Lineage::named(source_name(node), source.source.schema()),
                NodeKind::Operator(factory) => factory.lineage(&inputs),
                NodeKind::Sink(_) => inputs.first().cloned().unwrap_or_else(|| Lineage::nothing(&node.uid)),
            };
            all.push((inputs, output));
        }
        all
    }

    /// What leaves the main output of a node. Its inputs must be connected.
    pub fn lineage(&self, node: coulee_model::OperatorId) -> Lineage {
        self.lineages().swap_remove(node.0 as usize).1
    }

    fn inputs_of(&self, node: &Node, before: &[(Vec<Lineage>, Lineage)]) -> Vec<Lineage> {
        let edges: Vec<_> = self.edges.iter().filter(|edge| edge.to == node.id).collect();
        let count = edges.iter().map(|edge| usize::from(edge.input.0) + 1).max().unwrap_or(0);
        let mut inputs = Vec::with_capacity(count);
        for index in 0..count {
            let into = edges.iter().filter(|edge| edge.input == InputIndex(index as u8));
            let lineages: Vec<Lineage> =
                into.map(|edge| self.leaving(edge.from.0 as usize, edge.port, before)).collect();
            // An input between two others that nothing feeds.
            inputs.push(if lineages.is_empty() { Lineage::nothing(&node.uid) } else { Lineage::union(lineages) });
        }
        inputs
    }

    fn leaving(&self, from: usize, port: Port, before: &[(Vec<Lineage>, Lineage)]) -> Lineage {
        if port == Port::MAIN {
            return before[from].1.clone();
        }
        let node = &self.nodes[from];
        let side = match &node.kind {
            NodeKind::Operator(factory) => factory.side_schema(port),
            NodeKind::Source(_) | NodeKind::Sink(_) => None,
        };
        let schema = match (port, side) {
            (_, Some(schema)) => schema,
            (Port::LATE, None) => {
                before[from].0.first().map_or_else(|| before[from].1.schema.clone(), |l| l.schema.clone())
            }
            (_, None) => crate::connector::rejected_schema(),
        };
        Lineage::named(&format!("output {} of '{}'", port.0, node.uid), schema)
    }
}

impl Lineage {
    fn nothing(of: &str) -> Lineage {
        Lineage::new(format!("no input of '{of}'"), Vec::new(), Arc::new(arrow::datatypes::Schema::empty()))
    }
}
