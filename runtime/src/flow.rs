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

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use coulee_model::OperatorId;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{DFSchema, ScalarValue};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion_expr::type_coercion::functions::{UDFCoercionExt, fields_with_udf};
use datafusion_expr::{BinaryExpr, Expr, ExprSchemable, ScalarUDF};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::aggregate::LoweredAggregateBuilder;
use datafusion_physical_expr::create_physical_expr;

pub use datafusion_expr::lit;

use crate::calc::Calc;
use crate::connector::{Sink, Source};
use crate::graph::{EventTime, Graph, NodeKind, OperatorFactory, Partitioning, Port, SourceNode};
use crate::group_table::Aggregate;
use crate::keyed::{Keyed, KeyedFunction};
use crate::window::assign::{Bound, Tumble};
use crate::window::{
    WindowAggregateSpec, WindowColumn, partial_key_columns, window_final, window_partial, window_single,
};
use crate::{Error, Result};

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

    /// Rows of a source. `name` is the operator's stable identity, as for every other step that takes one.
    ///
    /// # Errors
    /// When another operator has the name.
    pub fn source(&self, name: &str, source: Arc<dyn Source>) -> Result<Flow<'_>> {
        let schema = source.schema();
        let node = SourceNode { source, event_time: None, rate_limit: None };
        let id = self.graph.borrow_mut().add(name, self.parallelism, NodeKind::Source(node))?;
        Ok(Flow { builder: self, node: id, schema })
    }

    /// The graph.
    ///
    /// # Errors
    /// When an operator's output goes nowhere.
    pub fn finish(self) -> Result<Graph> {
        let graph = self.graph.into_inner();
        graph.check()?;
        Ok(graph)
    }

    fn add(&self, uid: String, kind: NodeKind) -> Result<OperatorId> {
        self.graph.borrow_mut().add(uid, self.parallelism, kind)
    }

    fn connect(&self, from: OperatorId, to: OperatorId, partitioning: Partitioning) -> Result<()> {
        self.graph.borrow_mut().connect(from, Port::MAIN, to, partitioning)
    }
}

/// Rows on their way. Used twice, it gives the same rows to both.
#[derive(Debug, Clone)]
pub struct Flow<'a> {
    builder: &'a GraphBuilder,
    node: OperatorId,
    schema: SchemaRef,
}

impl<'a> Flow<'a> {
    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Declares the event time of a source: a timestamp column, whose rows are out of order by at most `disorder`.
    ///
    /// # Errors
    /// When this is not a source, or the column is not a timestamp in milliseconds.
    pub fn event_time(self, name: &str, disorder: Duration) -> Result<Self> {
        let column = self.timestamp(name)?;
        let watermark = self.physical(column - lit(ScalarValue::new_interval_dt(0, disorder.as_millis() as i32)))?;
        let mut graph = self.builder.graph.borrow_mut();
        match &mut graph.nodes[self.node.0 as usize].kind {
            NodeKind::Source(source) => {
                let idle_timeout = Some(Duration::from_secs(1));
                source.event_time = Some(EventTime { watermark, idle_timeout, max_future_skew: None });
            }
            NodeKind::Operator(_) | NodeKind::Sink(_) => {
                return Err(Error::invalid("event time is declared where rows come in: on a source"));
            }
        }
        drop(graph);
        Ok(self)
    }

    fn timestamp(&self, name: &str) -> Result<Expr> {
        match self.schema.field_with_name(name).map(Field::data_type) {
            Ok(DataType::Timestamp(TimeUnit::Millisecond, _)) => Ok(col(name)),
            Ok(other) => Err(Error::invalid(format!("column '{name}' is {other}, not a timestamp in milliseconds"))),
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
        let id = self.builder.add(uid, NodeKind::Operator(factory))?;
        self.builder.connect(self.node, id, Partitioning::Forward)?;
        Ok(Flow { node: id, schema, ..self })
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
        Ok(KeyedFlow { flow: self, keys: fields })
    }

    /// Delivers the rows.
    ///
    /// # Errors
    /// When another operator has the name.
    pub fn sink(self, name: &str, sink: Arc<dyn Sink>) -> Result<()> {
        let id = self.builder.add(name.to_owned(), NodeKind::Sink(sink))?;
        self.builder.connect(self.node, id, Partitioning::Forward)
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

/// Gives both sides of every comparison and calculation a common type, and functions the types that they take, as SQL would.
fn coerced(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let common = |expr: Expr| match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (from, to) = (left.get_type(schema)?, right.get_type(schema)?);
            let (to_left, to_right) = BinaryTypeCoercer::new(&from, &op, &to).get_input_types()?;
            let (left, right) = (left.cast_to(&to_left, schema)?, right.cast_to(&to_right, schema)?);
            Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))))
        }
        Expr::ScalarFunction(mut call) => {
            call.args = coerced_arguments(call.args, schema, call.func.as_ref())?;
            Ok(Transformed::yes(Expr::ScalarFunction(call)))
        }
        Expr::AggregateFunction(mut call) => {
            call.params.args = coerced_arguments(call.params.args, schema, call.func.as_ref())?;
            Ok(Transformed::yes(Expr::AggregateFunction(call)))
        }
        other => Ok(Transformed::no(other)),
    };
    Ok(expr.transform_up(common)?.data)
}

fn coerced_arguments(
    arguments: Vec<Expr>,
    schema: &DFSchema,
    function: &impl UDFCoercionExt,
) -> datafusion_common::Result<Vec<Expr>> {
    let field = |argument: &Expr| argument.to_field(schema).map(|(_, field)| field);
    let fields = arguments.iter().map(field).collect::<datafusion_common::Result<Vec<_>>>()?;
    let types = fields_with_udf(&fields, function)?;
    arguments.into_iter().zip(types).map(|(argument, to)| argument.cast_to(to.data_type(), schema)).collect()
}

/// Rows whose equal keys are brought together by the next step.
#[derive(Debug, Clone)]
pub struct KeyedFlow<'a> {
    flow: Flow<'a>,
    keys: Vec<FieldRef>,
}

impl<'a> KeyedFlow<'a> {
    fn key_columns(&self) -> Result<Vec<Arc<dyn PhysicalExpr>>> {
        self.keys.iter().map(|key| self.flow.physical(col(key.name()))).collect()
    }

    /// Runs a function with state per key. `name` is the stable identity of that state.
    ///
    /// # Errors
    /// When another operator has the name.
    pub fn process<F: KeyedFunction>(
        self,
        name: &str,
        schema: SchemaRef,
        make: impl Fn() -> F + Send + Sync + 'static,
    ) -> Result<Flow<'a>> {
        let keys = self.key_columns()?;
        let keyed = Keyed {
            name: name.to_owned(),
            keys: keys.clone(),
            schema: schema.clone(),
            sides: Vec::new(),
            ttl: None,
            make,
            function: std::marker::PhantomData,
        };
        let builder = self.flow.builder;
        let id = builder.add(name.to_owned(), NodeKind::Operator(Arc::new(keyed)))?;
        builder.connect(self.flow.node, id, Partitioning::Hash(keys))?;
        Ok(Flow { builder, node: id, schema })
    }

    /// Aggregates per key and tumbling window of a timestamp column. The result has `window_start`, `window_end`, the keys, and the aggregates by their
    /// aliases. `name` is the stable identity of the window's state.
    ///
    /// # Errors
    /// When a column or aggregate does not fit.
    pub fn tumble(
        self,
        name: &str,
        time: &str,
        size: Duration,
        aggregates: impl IntoIterator<Item = Expr>,
    ) -> Result<Flow<'a>> {
        let spec = self.window(time, size.as_millis() as i64, aggregates)?;
        let builder = self.flow.builder;
        let schema = spec.schema.clone();
        if builder.parallelism == 1 {
            let id = builder.add(name.to_owned(), NodeKind::Operator(window_single(spec)))?;
            builder.connect(self.flow.node, id, Partitioning::Forward)?;
            return Ok(Flow { builder, node: id, schema });
        }
        let partial = builder.add(format!("{name}:partial"), NodeKind::Operator(window_partial(spec.clone())))?;
        builder.connect(self.flow.node, partial, Partitioning::Forward)?;
        let keys = partial_key_columns(&spec);
        let id = builder.add(name.to_owned(), NodeKind::Operator(window_final(spec)))?;
        builder.connect(partial, id, Partitioning::Hash(keys))?;
        Ok(Flow { builder, node: id, schema })
    }

    fn window(
        &self,
        time: &str,
        millis: i64,
        aggregates: impl IntoIterator<Item = Expr>,
    ) -> Result<WindowAggregateSpec> {
        let flow = &self.flow;
        let schema = flow.df_schema()?;
        let end = ScalarUDF::from(Tumble::new(Bound::End, millis, 0)?).call(vec![flow.timestamp(time)?]);
        let instant = |name: &str| Arc::new(Field::new(name, DataType::Timestamp(TimeUnit::Millisecond, None), false));
        let mut fields: Vec<FieldRef> = vec![instant("window_start"), instant("window_end")];
        fields.extend(self.keys.iter().cloned());
        let mut output = vec![WindowColumn::Start, WindowColumn::End];
        output.extend((0..self.keys.len()).map(WindowColumn::Key));
        let mut lowered = Vec::new();
        for (index, expr) in aggregates.into_iter().enumerate() {
            let props = ExecutionProps::new();
            let context = PhysicalPlanningContext::default();
            let expr = coerced(expr, &schema)?;
            let built = LoweredAggregateBuilder::new(&expr, &schema, &flow.schema, &props, &context).build()?;
            fields.push(built.aggregate.field());
            output.push(WindowColumn::Aggregate(index));
            lowered.push(Aggregate { function: built.aggregate, filter: built.filter });
        }
        Ok(WindowAggregateSpec {
            window_end: flow.physical(end)?,
            window_millis: millis,
            keys: self.key_columns()?.into_iter().zip(self.keys.iter().cloned()).collect(),
            aggregates: lowered,
            output,
            schema: Arc::new(Schema::new(fields)),
        })
    }
}
