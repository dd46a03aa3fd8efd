//! Steps over rows whose equal keys are brought together: functions with state, and windows.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use datafusion_expr::Expr;
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::aggregate::LoweredAggregateBuilder;

use super::coerce::coerced;
use super::{Flow, Routed, col};
use crate::Result;
use crate::graph::{NodeKind, OperatorFactory, Partitioning, Port};
use crate::group_aggregate::{GroupAggregateSpec, group_aggregate};
use crate::group_table::Aggregate;
use crate::keyed::{Keyed, KeyedFunction};
use crate::window::{
    SessionAggregateSpec, WindowAggregateSpec, WindowColumn, WindowKind, Windows, partial_key_columns,
    session_aggregate, window_final, window_partial, window_single,
};

/// Rows whose equal keys are brought together by the next step.
#[derive(Debug, Clone)]
pub struct KeyedFlow<'a> {
    pub(super) flow: Flow<'a>,
    pub(super) keys: Vec<FieldRef>,
    pub(super) ttl: Option<Duration>,
    pub(super) sides: Vec<(String, SchemaRef)>,
}

impl<'a> KeyedFlow<'a> {
    fn key_columns(&self) -> Result<Vec<Arc<dyn PhysicalExpr>>> {
        self.keys.iter().map(|key| self.flow.physical(col(key.name()))).collect()
    }

    /// How long the next function's or aggregation's state of a key lives after its last change, by the wall clock. Without it, for ever.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        KeyedFlow { ttl: Some(ttl), ..self }
    }

    /// Declares a side output of the next function. At most 64.
    #[must_use]
    pub fn side_output(mut self, name: &str, schema: SchemaRef) -> Self {
        self.sides.push((name.to_owned(), schema));
        self
    }

    /// As an input of an operator with several: rows of equal keys meet in one subtask.
    ///
    /// # Errors
    /// When a key cannot be computed.
    pub fn shuffled(self) -> Result<Routed<'a>> {
        let partitioning = Partitioning::Hash(self.key_columns()?);
        Ok(Routed { flow: self.flow, partitioning })
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
        let outputs = self.sides.iter().enumerate();
        let sides = outputs.map(|(i, (side, schema))| (side.clone(), Port::side(i as u8), schema.clone())).collect();
        let keyed = Keyed {
            name: name.to_owned(),
            keys: keys.clone(),
            schema: schema.clone(),
            sides: self.sides,
            ttl: self.ttl,
            make,
            function: std::marker::PhantomData,
        };
        let id = self.flow.step(name, NodeKind::Operator(Arc::new(keyed)), Partitioning::Hash(keys))?;
        Ok(self.flow.continued(id, schema, sides))
    }

    /// Aggregates per key and tumbling window of a timestamp column. The result has `window_start`, `window_end`, the keys, and the aggregates by their
    /// aliases. `name` is the stable identity of the window's state.
    ///
    /// With more than one subtask rows are aggregated before they are brought together.
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
        self.window(name, time, tumbling(size)?, aggregates)
    }

    /// As [`KeyedFlow::tumble`], of any [`Windows`]: those that overlap, too. A row of overlapping windows is in the result of each.
    ///
    /// # Errors
    /// When a column or aggregate does not fit.
    pub fn window(
        self,
        name: &str,
        time: &str,
        windows: Windows,
        aggregates: impl IntoIterator<Item = Expr>,
    ) -> Result<Flow<'a>> {
        let spec = self.window_spec(time, windows, aggregates)?;
        let schema = spec.schema.clone();
        if self.flow.parallelism == 1 {
            let id = self.flow.step(name, NodeKind::Operator(window_single(spec)), Partitioning::Forward)?;
            return Ok(self.flow.continued(id, schema, Vec::new()));
        }
        let partial: Arc<dyn OperatorFactory> = window_partial(spec.clone());
        let (partial_schema, keys) = (partial.schema(), partial_key_columns(&spec));
        let first = self.flow.step(&format!("{name}:partial"), NodeKind::Operator(partial), Partitioning::Forward)?;
        let between = self.flow.continued(first, partial_schema, Vec::new());
        let id = between.step(name, NodeKind::Operator(window_final(spec)), Partitioning::Hash(keys))?;
        Ok(between.continued(id, schema, Vec::new()))
    }

    /// As [`KeyedFlow::tumble`], with a side output `late` of the rows whose window is over and of those without an event time. Rows are brought
    /// together one by one for that.
    ///
    /// # Errors
    /// When a column or aggregate does not fit.
    pub fn tumble_keeping_late(
        self,
        name: &str,
        time: &str,
        size: Duration,
        aggregates: impl IntoIterator<Item = Expr>,
    ) -> Result<Flow<'a>> {
        let spec = self.window_spec(time, tumbling(size)?, aggregates)?;
        let (schema, late) = (spec.schema.clone(), self.flow.schema.clone());
        let keys = Partitioning::Hash(self.key_columns()?);
        let id = self.flow.step(name, NodeKind::Operator(window_single(spec)), keys)?;
        Ok(self.flow.continued(id, schema, vec![("late".to_owned(), Port::LATE, late)]))
    }

    /// Aggregates per key and session: rows of a key that follow each other within `gap` are one window. The result has the columns of
    /// [`KeyedFlow::tumble`], and a side output `late` of the rows whose session is over and of those without an event time.
    ///
    /// # Errors
    /// When a column or aggregate does not fit, or the rows are a changelog.
    pub fn session(
        self,
        name: &str,
        time: &str,
        gap: Duration,
        aggregates: impl IntoIterator<Item = Expr>,
    ) -> Result<Flow<'a>> {
        let WindowResult { output, schema, aggregates } = self.results(aggregates)?;
        let spec = SessionAggregateSpec {
            time: self.flow.physical(self.flow.timestamp(time)?)?,
            gap_millis: gap.as_millis() as i64,
            keys: self.key_columns()?.into_iter().zip(self.keys.iter().cloned()).collect(),
            aggregates,
            output,
            schema: schema.clone(),
        };
        let keys = Partitioning::Hash(self.key_columns()?);
        let late = self.flow.schema.clone();
        let id = self.flow.step(name, NodeKind::Operator(session_aggregate(spec)), keys)?;
        Ok(self.flow.continued(id, schema, vec![("late".to_owned(), Port::LATE, late)]))
    }

    /// Aggregates per key over all rows. The result has the keys and the aggregates by their aliases, and is a changelog: a key's row is inserted with the
    /// first row of the key and updated as more come, at most once per batch. `name` is the stable identity of the state, which lives as [`KeyedFlow::ttl`] says.
    ///
    /// # Errors
    /// When an aggregate does not fit.
    pub fn aggregate(self, name: &str, aggregates: impl IntoIterator<Item = Expr>) -> Result<Flow<'a>> {
        let (keys, aggregates) = (self.key_columns()?, self.lowered(aggregates)?);
        let mut fields = self.keys.clone();
        fields.extend(aggregates.iter().map(|aggregate| aggregate.function.field()));
        let schema = Arc::new(Schema::new(fields));
        let spec = GroupAggregateSpec {
            keys: keys.iter().cloned().zip(self.keys.iter().cloned()).collect(),
            aggregates,
            input: self.flow.schema.clone(),
            changelog: self.flow.is_changelog(),
            update_before: true,
            row_of_nothing: false,
            schema: schema.clone(),
            ttl_millis: self.ttl.map(|ttl| ttl.as_millis() as i64),
        };
        let id = self.flow.step(name, NodeKind::Operator(group_aggregate(spec)), Partitioning::Hash(keys))?;
        Ok(self.flow.continued(id, schema, Vec::new()))
    }

    fn lowered(&self, aggregates: impl IntoIterator<Item = Expr>) -> Result<Vec<Aggregate>> {
        let schema = self.flow.df_schema()?;
        let lower = |expr: Expr| {
            let (props, context) = (ExecutionProps::new(), PhysicalPlanningContext::default());
            let expr = coerced(expr, &schema)?;
            let built = LoweredAggregateBuilder::new(&expr, &schema, &self.flow.schema, &props, &context).build()?;
            Ok(Aggregate { function: built.aggregate, filter: built.filter })
        };
        aggregates.into_iter().map(lower).collect()
    }

    fn window_spec(
        &self,
        time: &str,
        windows: Windows,
        aggregates: impl IntoIterator<Item = Expr>,
    ) -> Result<WindowAggregateSpec> {
        let flow = &self.flow;
        let WindowResult { output, schema, aggregates } = self.results(aggregates)?;
        Ok(WindowAggregateSpec {
            slice_end: flow.physical(windows.slice_end(flow.timestamp(time)?))?,
            windows,
            keys: self.key_columns()?.into_iter().zip(self.keys.iter().cloned()).collect(),
            aggregates,
            changelog: flow.is_changelog().then(|| flow.schema.clone()),
            output,
            schema,
        })
    }

    /// The columns of a window's result: its bounds, the keys, the aggregates.
    fn results(&self, aggregates: impl IntoIterator<Item = Expr>) -> Result<WindowResult> {
        let instant = |name: &str| Arc::new(Field::new(name, DataType::Timestamp(TimeUnit::Millisecond, None), false));
        let mut fields: Vec<FieldRef> = vec![instant("window_start"), instant("window_end")];
        fields.extend(self.keys.iter().cloned());
        let mut output = vec![WindowColumn::Start, WindowColumn::End];
        output.extend((0..self.keys.len()).map(WindowColumn::Key));
        let lowered = self.lowered(aggregates)?;
        fields.extend(lowered.iter().map(|aggregate| aggregate.function.field()));
        output.extend((0..lowered.len()).map(WindowColumn::Aggregate));
        Ok(WindowResult { output, schema: Arc::new(Schema::new(fields)), aggregates: lowered })
    }
}

/// What the result of a window is made of.
struct WindowResult {
    output: Vec<WindowColumn>,
    schema: SchemaRef,
    aggregates: Vec<Aggregate>,
}

fn tumbling(size: Duration) -> Result<Windows> {
    Windows::new(WindowKind::Tumbling { size_millis: size.as_millis() as i64 }, 0)
}
