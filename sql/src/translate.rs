//! What the nodes of a stream plan make their operators with: the graph of a job, its sources and sinks, and the names of its operators.
//!
//! Filters and projections wait in a [`NodeRows`] until something else follows, so that neighbours become one operator.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use coulee_model::OperatorId;
use coulee_runtime::Subject;
use coulee_runtime::calc::Calc;
use coulee_runtime::connector::Sink;
use coulee_runtime::graph::{Alignment, EventTime, Graph, NodeKind, OperatorFactory, Partitioning, Port, SourceNode};
use coulee_runtime::row_errors::{OnError, RowErrors};
use coulee_runtime::table::{Connector, Connectors, TableSpec};
use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion_common::{Column, DFSchema, TableReference};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::expr::BinaryExpr as BinaryExpression;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::{Expr, Operator, TableScan};
use datafusion_physical_expr::expressions::{BinaryExpr, Column as PhysicalColumn};
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use sqlparser::tokenizer::Span;

use crate::catalog::{ScanSource, Table};
use crate::dialect::balanced;
use crate::error::{Fault, Result};
use crate::faults::fault;
use crate::functions::row_time::without_marks;
use crate::identity::{Name, Names, numbered};
use crate::scans::Scans;

/// What a job's graph depends on beside the plan.
pub(crate) struct JobContext<'a> {
    pub connectors: &'a Connectors,
    pub parallelism: u32,
    pub idle_timeout: Option<Duration>,
    /// After how long without a change state is forgotten that nothing else frees.
    pub state_ttl_millis: Option<i64>,
    pub late_rows: Option<String>,
    pub job: String,
    /// Whether what the job needs may be created: not by `EXPLAIN`.
    pub creates: bool,
}

/// Builds a graph; several plans may go into one.
pub(crate) struct Translator<'a> {
    pub context: &'a JobContext<'a>,
    pub graph: Graph,
    /// The tables read and written, in order.
    pub tables: Vec<String>,
    /// For `EXPLAIN`: the stream plan of each statement, line by line.
    pub plans: Vec<String>,
    /// For `EXPLAIN`: one line per source with event time.
    pub event_times: Vec<String>,
    /// The tables whose rejected rows are kept.
    keeping: BTreeMap<String, (Arc<dyn Connector>, TableSpec)>,
    pub(crate) names: Names,
    pub(crate) scans: Scans,
    /// Of each node, the place of the statement that it belongs to.
    pub places: Vec<Span>,
}

/// Where the rows of a query go.
pub(crate) struct Target<'a> {
    /// The table's name.
    pub table: &'a str,
    /// The columns that the sink takes, by position those of the query.
    pub schema: SchemaRef,
    pub parallelism: u32,
    pub sink: Arc<dyn Sink>,
    /// The columns by which rows must come together to one subtask; none if any may write any row.
    pub key: Vec<usize>,
}

/// Rows of a node, and what is still to be done to them.
pub(crate) struct NodeRows {
    pub node: OperatorId,
    pub parallelism: u32,
    /// The node's columns. May hold more than the plan asks for.
    pub schema: DFSchema,
    /// Which rows are left, over the node's columns.
    pub filter: Option<Arc<dyn PhysicalExpr>>,
    /// What is computed of them, over the node's columns.
    pub projection: Option<(Vec<Arc<dyn PhysicalExpr>>, DFSchema)>,
}

impl NodeRows {
    pub fn new(node: OperatorId, parallelism: u32, schema: DFSchema) -> Self {
        NodeRows { node, parallelism, schema, filter: None, projection: None }
    }

    /// Drops columns of what waits that nobody will read.
    pub(crate) fn keep<'c>(&mut self, used: impl Iterator<Item = &'c Column>) -> datafusion_common::Result<()> {
        let Some((columns, schema)) = &self.projection else { return Ok(()) };
        let mut kept: Vec<usize> = used.filter_map(|column| schema.maybe_index_of_column(column)).collect();
        kept.sort_unstable();
        kept.dedup();
        let fields = kept.iter().map(|&index| {
            let (qualifier, field) = schema.qualified_field(index);
            (qualifier.cloned(), field.clone())
        });
        let schema = DFSchema::new_with_metadata(fields.collect(), schema.metadata().clone())?;
        self.projection = Some((kept.iter().map(|&index| columns[index].clone()).collect(), schema));
        Ok(())
    }

    /// The columns once everything that waits is done.
    pub(crate) fn output(&self) -> &DFSchema {
        self.projection.as_ref().map_or(&self.schema, |(_, schema)| schema)
    }
}

impl<'a> Translator<'a> {
    pub fn new(context: &'a JobContext<'a>) -> Self {
        Translator {
            context,
            graph: Graph::default(),
            tables: Vec::new(),
            plans: Vec::new(),
            event_times: Vec::new(),
            keeping: BTreeMap::new(),
            names: Names::default(),
            scans: Scans::default(),
            places: Vec::new(),
        }
    }

    /// Adds the sink of a table behind the rows of a plan with these columns, as the end of what [`Names::begin`] began. `place`: where the statement
    /// names the table.
    pub(crate) fn sink(
        &mut self,
        rows: NodeRows,
        columns: &DFSchema,
        name: Name,
        target: Target<'_>,
        place: Span,
    ) -> Result<OperatorId> {
        let by = target.key.iter().map(|index| column(target.schema.field(*index).name(), *index));
        let by: Vec<Arc<dyn PhysicalExpr>> = by.collect();
        let rows = self.shaped(rows, columns, target.schema)?;
        let sink = self.add(name, target.parallelism, NodeKind::Sink(target.sink))?;
        match by.is_empty() {
            true => self.connect(&rows, sink)?,
            false => self.graph.connect(rows.node, Port::MAIN, sink, Partitioning::Hash(by))?,
        }
        self.names.finish(&mut self.graph)?;
        self.places.resize(self.graph.nodes.len(), place);
        Ok(sink)
    }

    /// Adds a node under a name.
    pub(crate) fn add(&mut self, name: Name, parallelism: u32, kind: NodeKind) -> Result<OperatorId> {
        let node = self.graph.add(name.uid, parallelism, kind)?;
        if let Some(family) = name.family {
            self.graph.set_family(node, family);
        }
        Ok(node)
    }

    /// Says what happens to rejected rows of the table that a source reads or a sink writes.
    pub fn row_errors(&mut self, node: OperatorId, connector: &Arc<dyn Connector>, spec: &TableSpec) {
        let on_error = connector.on_error(spec);
        self.graph.set_row_errors(node, RowErrors { table: spec.name.clone(), on_error });
        if on_error == OnError::DeadLetter {
            self.keeping.insert(spec.name.clone(), (connector.clone(), spec.clone()));
        }
    }

    /// Completes the graph once every plan is in it: with the sinks of rejected rows.
    pub fn finish(&mut self) -> Result<()> {
        let mut kept_by = Vec::new();
        for (table, (connector, spec)) in std::mem::take(&mut self.keeping) {
            let Some(sink) = connector.rejected_sink(&spec)? else { continue };
            let uid = self.unused(&format!("rejected:{table}"));
            kept_by.push((table, self.graph.add(uid, 1, NodeKind::Sink(sink))?));
        }
        Ok(self.graph.connect_dead_letters(&kept_by)?)
    }

    /// The rows of a table's scan.
    pub(crate) fn scan(&mut self, scan: &TableScan) -> Result<NodeRows> {
        let Some(ScanSource(table)) = scan.source.downcast_ref::<ScanSource>() else {
            return Err(Fault::new(format!("'{}' cannot be read by a job", scan.table_name)));
        };
        let columns = self.scans.columns(scan, table);
        let parallelism = self.count(table, "scan.parallelism")?;
        let projected = table.spec.schema.project(&columns).map_err(|error| Fault::new(error.to_string()))?;
        let schema = qualified(&scan.table_name, &projected)?;
        let node = self.source(table, columns, parallelism)?;
        Ok(NodeRows::new(node, parallelism, schema))
    }

    /// The source node of a table, which is made once.
    fn source(&mut self, table: &Arc<Table>, columns: Vec<usize>, parallelism: u32) -> Result<OperatorId> {
        if let Some(node) = self.scans.node(table) {
            return Ok(node);
        }
        let mut spec = table.spec.clone();
        spec.created_by.clone_from(&self.context.job);
        let subject = || Subject::Table(table.name().to_owned());
        if self.context.creates {
            table.connector.check_source(&spec).map_err(|error| Fault::from(error).about(subject()))?;
        }
        let source = table.connector.source(&spec, &columns).map_err(|error| Fault::from(error).about(subject()))?;
        let event_time = self.event_time(table, &source.schema())?;
        let rate_limit = table.common.number("scan.rate-limit");
        let kind = NodeKind::Source(SourceNode { source, event_time, rate_limit });
        // Two tables of one name, if a view was made of a table that was then dropped and made anew.
        let uid = self.unused(&format!("source:{}", table.name()));
        let node = self.graph.add(uid, parallelism, kind)?;
        self.row_errors(node, &table.connector, &spec);
        self.touch(table.name());
        self.scans.set_node(table, node);
        Ok(node)
    }

    fn event_time(&mut self, table: &Table, schema: &SchemaRef) -> Result<Option<EventTime>> {
        let Some(time) = &table.event_time else { return Ok(None) };
        let schema = DFSchema::try_from(schema.as_ref().clone()).map_err(|error| fault(&error))?;
        let given = table.common.is_given("scan.watermark.idle-timeout");
        let own = table.common.span("scan.watermark.idle-timeout");
        let idle_timeout = if given { own } else { self.context.idle_timeout.or(own) };
        let max_future_skew = table.common.span("scan.watermark.max-future-skew");
        let idle = idle_timeout.map(|span| format!("; idle after {}", crate::explain::span(span))).unwrap_or_default();
        let line = format!("{}: {}, watermark {}{idle}", table.name(), time.column, time.text);
        if !self.event_times.contains(&line) {
            self.event_times.push(line);
        }
        let watermark = physical(&time.watermark, &schema)?;
        let max_drift = table.common.span("scan.watermark.alignment.max-drift");
        let group = table.common.get("scan.watermark.alignment.group").unwrap_or("default");
        let alignment = max_drift.map(|max_drift| Alignment { group: group.to_owned(), max_drift });
        Ok(Some(EventTime { watermark, idle_timeout, max_future_skew, alignment }))
    }

    /// Does what waits, if anything does.
    pub(crate) fn flush(&mut self, stream: NodeRows) -> Result<NodeRows> {
        let NodeRows { node, parallelism, schema, filter, projection } = stream;
        let (columns, schema) = match projection {
            Some((columns, schema)) => (Some(columns), schema),
            None if filter.is_none() => return Ok(NodeRows::new(node, parallelism, schema)),
            None => (None, schema),
        };
        let calc = self.calc(filter, columns, schema.inner().clone(), parallelism)?;
        self.graph.connect(node, Port::MAIN, calc, Partitioning::Forward)?;
        Ok(NodeRows::new(calc, parallelism, schema))
    }

    /// Does what waits so that the columns are exactly those of `to`. `from` names them as the plan does.
    pub(crate) fn shaped(&mut self, mut stream: NodeRows, from: &DFSchema, to: SchemaRef) -> Result<NodeRows> {
        let schema = DFSchema::try_from(to.as_ref().clone()).map_err(|error| fault(&error))?;
        match stream.projection.as_mut() {
            Some((_, own)) => *own = schema,
            None if stream.filter.is_none() && stream.schema.inner() == &to => {}
            None => {
                let columns = from.columns().into_iter().map(|column| physical(&Expr::Column(column), &stream.schema));
                stream.projection = Some((columns.collect::<Result<_>>()?, schema));
            }
        }
        self.flush(stream)
    }

    /// Does what waits so that the columns are exactly those, as a plan has them.
    pub(crate) fn exactly(&mut self, rows: NodeRows, columns: &DFSchema) -> Result<NodeRows> {
        let rows = self.shaped(rows, columns, columns.inner().clone())?;
        Ok(NodeRows::new(rows.node, rows.parallelism, columns.clone()))
    }

    pub(crate) fn calc(
        &mut self,
        filter: Option<Arc<dyn PhysicalExpr>>,
        projection: Option<Vec<Arc<dyn PhysicalExpr>>>,
        schema: SchemaRef,
        parallelism: u32,
    ) -> Result<OperatorId> {
        self.stateless(parallelism, Arc::new(Calc { filter, projection, schema }))
    }

    /// Adds an operator without state, which is named by its place.
    pub(crate) fn stateless(&mut self, parallelism: u32, factory: Arc<dyn OperatorFactory>) -> Result<OperatorId> {
        let uid = self.names.provisional(OperatorId(self.graph.nodes.len() as u32));
        self.operator(&uid, parallelism, factory)
    }

    pub(crate) fn operator(
        &mut self,
        uid: &str,
        parallelism: u32,
        factory: Arc<dyn OperatorFactory>,
    ) -> Result<OperatorId> {
        Ok(self.graph.add(uid, parallelism, NodeKind::Operator(factory))?)
    }

    pub(crate) fn connect(&mut self, stream: &NodeRows, to: OperatorId) -> Result<()> {
        let same = self.graph.node(to).parallelism == stream.parallelism;
        let partitioning = if same { Partitioning::Forward } else { Partitioning::Rebalance };
        Ok(self.graph.connect(stream.node, Port::MAIN, to, partitioning)?)
    }

    /// A count among a table's options, or the job's parallelism.
    pub fn count(&self, table: &Table, key: &str) -> Result<u32> {
        match table.common.count(key) {
            None => Ok(self.context.parallelism),
            Some(count) => u32::try_from(count).ok().filter(|count| *count > 0).ok_or_else(|| {
                Fault::from(table.common.invalid(key, format_args!("option '{key}' is '{count}', expected 1 or more")))
            }),
        }
    }

    fn unused(&self, uid: &str) -> String {
        numbered(uid, |uid| self.graph.nodes.iter().any(|node| node.uid == uid))
    }

    pub fn touch(&mut self, table: &str) {
        if !self.tables.iter().any(|known| known == table) {
            self.tables.push(table.to_owned());
        }
    }
}

/// The schema with all its columns qualified by a name.
pub(crate) fn qualified(name: &TableReference, schema: &arrow::datatypes::Schema) -> Result<DFSchema> {
    DFSchema::try_from_qualified_schema(name.clone(), schema).map_err(|error| fault(&error))
}

pub(crate) fn column(name: &str, index: usize) -> Arc<dyn PhysicalExpr> {
    Arc::new(PhysicalColumn::new(name, index))
}

/// An expression that evaluates on batches of a schema.
pub(crate) fn physical(expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
    if let Some(fault) = crate::refuse::subquery(expr).or_else(|| crate::refuse::misplaced_over(expr)) {
        return Err(fault);
    }
    let expr = without_marks(expr.clone()).and_then(balanced_conditions).map_err(|error| fault(&error))?;
    create_physical_expr(&expr, schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())
        .and_then(checked)
        .map_err(|error| fault(&error))
}

/// The expression in which a sum, a difference or a product that its type does not hold is an error of its row: DataFusion's wrap around.
fn checked(expr: Arc<dyn PhysicalExpr>) -> datafusion_common::Result<Arc<dyn PhysicalExpr>> {
    let check = |expr: Arc<dyn PhysicalExpr>| {
        let checked = match expr.downcast_ref::<BinaryExpr>() {
            Some(binary) if matches!(binary.op(), Operator::Plus | Operator::Minus | Operator::Multiply) => {
                Some(Arc::new(binary.clone().with_fail_on_overflow(true)) as Arc<dyn PhysicalExpr>)
            }
            _ => None,
        };
        Ok(checked.map_or_else(|| Transformed::no(expr), Transformed::yes))
    };
    expr.transform_up(check).data()
}

/// The expression with its chains of `AND` and `OR` as balanced trees: the optimizer takes conditions apart and joins them one by one, and a job
/// evaluates them recursively on a thread with a small stack.
fn balanced_conditions(expr: Expr) -> datafusion_common::Result<Expr> {
    let balance = |expr: Expr| {
        let Expr::BinaryExpr(BinaryExpression { op: op @ (Operator::And | Operator::Or), .. }) = expr else {
            return Ok(Transformed::no(expr));
        };
        let (mut terms, mut open) = (Vec::new(), vec![expr]);
        while let Some(next) = open.pop() {
            match next {
                Expr::BinaryExpr(inner) if inner.op == op => open.extend([*inner.right, *inner.left]),
                term => terms.push(term),
            }
        }
        let join = |left, right| Expr::BinaryExpr(BinaryExpression::new(Box::new(left), op, Box::new(right)));
        Ok(Transformed::yes(balanced(terms, &join)))
    };
    expr.transform_down(balance).data()
}
