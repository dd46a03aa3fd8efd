//! The Rust API: builds the graphs that SQL builds, from DataFusion's expressions and functions of one's own.
//!
//! ```no_run
//! # use std::sync::Arc; use std::time::Duration;
//! # use coulee_runtime::connector::{Sink, Source};
//! # use coulee_runtime::{Result, flow::{GraphBuilder, col, lit}};
//! # fn graph(flights: Arc<dyn Source>, late: Arc<dyn Sink>) -> Result<()> {
//! let builder = GraphBuilder::new(2);
//! builder
//!     .source("flights", flights)?
//!     .event_time("departed_at", Duration::from_secs(15 * 60))?
//!     .filter(col("dep_delay").gt(lit(60)))?
//!     .select([col("carrier"), col("dep_delay")])?
//!     .sink("late", late)?;
//! let graph = builder.finish()?;
//! # Ok(()) }
//! ```

mod coerce;
mod keyed;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use coulee_model::OperatorId;
use datafusion_common::{DFSchema, ScalarValue};
use datafusion_expr::Expr;
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};

pub use datafusion_expr::lit;
pub use keyed::KeyedFlow;

use crate::calc::Calc;
use crate::connector::{Sink, Source, rejected_schema};
use crate::graph::{EventTime, Graph, NodeKind, OperatorFactory, Partitioning, Port, SourceNode};
use crate::operator::InputIndex;
use crate::window::assign::millisecond_of;
use crate::{Error, Result};
use coerce::coerced;

/// A column by its exact name (DataFusion's own `col` folds names to lower case).
pub fn col(name: &str) -> Expr {
    Expr::Column(datafusion_common::Column::new_unqualified(name))
}

/// Builds a graph.
#[derive(Debug)]
pub struct GraphBuilder {
    parallelism: u32,
    graph: RefCell<Graph>,
}

impl GraphBuilder {
    /// A graph whose operators have `parallelism` subtasks.
    pub fn new(parallelism: u32) -> Self {
        GraphBuilder { parallelism, graph: RefCell::new(Graph::default()) }
    }

    /// Rows of a source, with a side output `rejected` of records that could not become rows. `name` is the operator's stable identity, as for
    /// every other step that takes one.
    ///
    /// # Errors
    /// When another operator has the name.
    pub fn source(&self, name: &str, source: Arc<dyn Source>) -> Result<Flow<'_>> {
        let schema = source.schema();
        let node = SourceNode { source, event_time: None, rate_limit: None };
        let id = self.graph.borrow_mut().add(name, self.parallelism, NodeKind::Source(node))?;
        let sides = vec![("rejected".to_owned(), Port::REJECTED, rejected_schema())];
        Ok(Flow { builder: self, from: vec![(id, Port::MAIN)], schema, sides, parallelism: self.parallelism })
    }

    /// The graph.
    ///
    /// # Errors
    /// When an operator's output goes nowhere, or a changelog goes where it is not understood.
    pub fn finish(self) -> Result<Graph> {
        let graph = self.graph.into_inner();
        graph.check()?;
        Ok(graph)
    }

    /// An operator of one's own with several inputs, in their order: [`InputIndex`] 0, 1, …. It has the builder's parallelism.
    ///
    /// # Errors
    /// When another operator has the name, or there is no input.
    pub fn operator<'a>(
        &'a self,
        name: &str,
        factory: Arc<dyn OperatorFactory>,
        inputs: impl IntoIterator<Item = Routed<'a>>,
    ) -> Result<Flow<'a>> {
        let schema = factory.schema();
        let id = self.graph.borrow_mut().add(name, self.parallelism, NodeKind::Operator(factory))?;
        for (index, input) in inputs.into_iter().enumerate() {
            input.flow.connect((id, InputIndex(index as u8)), self.parallelism, &input.partitioning)?;
        }
        let flow = Flow {
            builder: self,
            from: Vec::new(),
            schema: schema.clone(),
            sides: Vec::new(),
            parallelism: self.parallelism,
        };
        Ok(flow.continued(id, schema, Vec::new()))
    }
}

/// Rows on their way into an operator with several inputs.
#[derive(Debug, Clone)]
pub struct Routed<'a> {
    flow: Flow<'a>,
    partitioning: Partitioning,
}

/// Rows on their way. Used twice, it gives the same rows to both.
#[derive(Debug, Clone)]
pub struct Flow<'a> {
    builder: &'a GraphBuilder,
    /// Where the rows come from: several outputs after a union.
    from: Vec<(OperatorId, Port)>,
    schema: SchemaRef,
    /// Side outputs of the last operator: name, port, columns.
    sides: Vec<(String, Port, SchemaRef)>,
    /// Of the operators that follow.
    parallelism: u32,
}

impl<'a> Flow<'a> {
    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Declares the event time of a source: a timestamp column, whose rows are out of order by at most `disorder`.
    ///
    /// # Errors
    /// When this is not a source, or the column is not a timestamp.
    pub fn event_time(self, name: &str, disorder: Duration) -> Result<Self> {
        let column = millisecond_of(self.timestamp(name)?);
        let watermark = self.physical(column - lit(ScalarValue::new_interval_dt(0, disorder.as_millis() as i32)))?;
        let idle_timeout = Some(Duration::from_secs(1));
        self.on_source(|source| {
            source.event_time = Some(EventTime { watermark, idle_timeout, max_future_skew: None, alignment: None });
            Ok(())
        })?;
        Ok(self)
    }

    /// Adjusts the event time of a source: how long a silent split holds back the watermark, how far into the future a row may move it, how far its splits
    /// may run ahead of the slowest one of the job.
    ///
    /// # Errors
    /// When this is not a source, or it has no event time.
    pub fn adjust_event_time(self, adjust: impl FnOnce(&mut EventTime)) -> Result<Self> {
        self.on_source(|source| match &mut source.event_time {
            Some(time) => {
                adjust(time);
                Ok(())
            }
            None => Err(Error::invalid("the source has no event time: call `event_time` first")),
        })?;
        Ok(self)
    }

    fn on_source(&self, change: impl FnOnce(&mut SourceNode) -> Result<()>) -> Result<()> {
        let mut graph = self.builder.graph.borrow_mut();
        let [(node, Port::MAIN)] = self.from[..] else {
            return Err(Error::invalid("event time is declared where rows come in: on a source"));
        };
        match &mut graph.nodes[node.0 as usize].kind {
            NodeKind::Source(source) => change(source),
            NodeKind::Operator(_) | NodeKind::Sink(_) => {
                Err(Error::invalid("event time is declared where rows come in: on a source"))
            }
        }
    }

    /// The rows of both, which must have the same columns. Their order between the two is not fixed.
    ///
    /// # Errors
    /// When the columns differ.
    pub fn union(mut self, other: Flow<'a>) -> Result<Self> {
        if self.schema.fields() != other.schema.fields() {
            let message = format!("a union needs equal columns: {} and {}", self.schema, other.schema);
            return Err(Error::invalid(message));
        }
        self.from.extend(other.from);
        self.sides.clear();
        Ok(self)
    }

    /// A side output of the last step: `rejected` of a source, `late` of a window that keeps late rows, what a function declared.
    ///
    /// # Errors
    /// When the last step has no side output of that name.
    pub fn side(&self, name: &str) -> Result<Flow<'a>> {
        let (Some((_, port, schema)), [(node, _)]) =
            (self.sides.iter().find(|(side, ..)| side == name), &self.from[..])
        else {
            let known: Vec<&str> = self.sides.iter().map(|(side, ..)| side.as_str()).collect();
            return Err(Error::invalid(format!(
                "there is no side output '{name}' here; there is: {}",
                known.join(", ")
            )));
        };
        Ok(Flow { from: vec![(*node, *port)], schema: schema.clone(), sides: Vec::new(), ..self.clone() })
    }

    /// How many subtasks the operators that follow have. Rows are dealt out in turn where the number changes.
    #[must_use]
    pub fn parallelism(self, parallelism: u32) -> Self {
        Flow { parallelism, ..self }
    }

    /// Whether rows may also be updated and deleted. What takes only rows that are appended refuses them when the graph is finished.
    pub fn is_changelog(&self) -> bool {
        let graph = self.builder.graph.borrow();
        self.from.iter().any(|(node, port)| graph.is_changelog(*node, *port))
    }

    /// As an input of an operator with several: rows stay in their subtask.
    pub fn forwarded(self) -> Routed<'a> {
        Routed { flow: self, partitioning: Partitioning::Forward }
    }

    /// As an input of an operator with several: every subtask gets all rows.
    pub fn broadcast(self) -> Routed<'a> {
        Routed { flow: self, partitioning: Partitioning::Broadcast }
    }

    /// Adds a node behind these rows.
    fn step(&self, uid: &str, kind: NodeKind, partitioning: Partitioning) -> Result<OperatorId> {
        let id = self.builder.graph.borrow_mut().add(uid, self.parallelism, kind)?;
        self.connect((id, InputIndex::FIRST), self.parallelism, &partitioning)?;
        Ok(id)
    }

    fn connect(&self, to: (OperatorId, InputIndex), parallelism: u32, partitioning: &Partitioning) -> Result<()> {
        let mut graph = self.builder.graph.borrow_mut();
        for (from, port) in &self.from {
            let moved = matches!(partitioning, Partitioning::Forward) && graph.node(*from).parallelism != parallelism;
            let partitioning = if moved { Partitioning::Rebalance } else { partitioning.clone() };
            graph.connect_to(*from, *port, to, partitioning)?;
        }
        Ok(())
    }

    /// The rows of a node that was added behind these.
    fn continued(&self, node: OperatorId, schema: SchemaRef, sides: Vec<(String, Port, SchemaRef)>) -> Flow<'a> {
        Flow { builder: self.builder, from: vec![(node, Port::MAIN)], schema, sides, parallelism: self.parallelism }
    }

    fn timestamp(&self, name: &str) -> Result<Expr> {
        match self.schema.field_with_name(name).map(Field::data_type) {
            Ok(DataType::Timestamp(..)) => Ok(col(name)),
            Ok(other) => Err(Error::invalid(format!("column '{name}' is {other}, not a timestamp"))),
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps the rows for which the expression is true.
    ///
    /// # Errors
    /// When it does not fit the columns or is not a condition.
    pub fn filter(self, condition: Expr) -> Result<Self> {
        let filter = self.physical(condition)?;
        if filter.data_type(&self.schema)? != DataType::Boolean {
            return Err(Error::invalid(format!("filter '{filter}' is not a condition")));
        }
        let schema = self.schema.clone();
        self.then(Arc::new(Calc { filter: Some(filter), projection: None, schema }))
    }

    /// Computes columns; each is named by its alias, or by its own text.
    ///
    /// # Errors
    /// When an expression does not fit the columns.
    pub fn select(self, columns: impl IntoIterator<Item = Expr>) -> Result<Self> {
        let (mut projection, mut fields) = (Vec::new(), Vec::<FieldRef>::new());
        for expr in columns {
            let name = expr.schema_name().to_string();
            let physical = self.physical(expr)?;
            fields.push(Arc::new(Field::new(
                name,
                physical.data_type(&self.schema)?,
                physical.nullable(&self.schema)?,
            )));
            projection.push(physical);
        }
        let schema = Arc::new(Schema::new(fields));
        self.then(Arc::new(Calc { filter: None, projection: Some(projection), schema }))
    }

    /// An operator of one's own, chained behind this one.
    ///
    /// # Errors
    /// Does not fail today; it may when graphs are checked more strictly.
    pub fn then(self, factory: Arc<dyn OperatorFactory>) -> Result<Self> {
        let schema = factory.schema();
        let uid = format!("op:{}", self.builder.graph.borrow().nodes.len());
        let id = self.step(&uid, NodeKind::Operator(factory), Partitioning::Forward)?;
        Ok(self.continued(id, schema, Vec::new()))
    }

    /// Brings rows of equal keys together.
    ///
    /// # Errors
    /// When a column does not exist.
    pub fn key_by<'k>(self, keys: impl IntoIterator<Item = &'k str>) -> Result<KeyedFlow<'a>> {
        let mut fields = Vec::new();
        for key in keys {
            fields.push(Arc::new(self.schema.field_with_name(key)?.clone()));
        }
        Ok(KeyedFlow { flow: self, keys: fields, ttl: None, sides: Vec::new() })
    }

    /// Delivers the rows.
    ///
    /// # Errors
    /// When another operator has the name.
    pub fn sink(self, name: &str, sink: Arc<dyn Sink>) -> Result<()> {
        self.step(name, NodeKind::Sink(sink), Partitioning::Forward).map(|_| ())
    }

    fn df_schema(&self) -> Result<DFSchema> {
        Ok(DFSchema::try_from(self.schema.as_ref().clone())?)
    }

    fn physical(&self, expr: Expr) -> Result<Arc<dyn PhysicalExpr>> {
        let schema = self.df_schema()?;
        let expr = coerced(expr, &schema)?;
        Ok(create_physical_expr(&expr, &schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())?)
    }
}
