//! What the tables and runs of a window hold, and how rows become it and results come out of it.
//!
//! A window over rows that are only appended holds partial aggregates per key. A minimum cannot be taken back from a partial aggregate, so a window over a
//! changelog holds rows instead: for each key and distinct arguments of its aggregates, how often such a row is there, counted up and down. What is left
//! when the window closes is aggregated then.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::compute::kernels::cmp::{gt, neq};
use arrow::compute::{filter, sum};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion_common::ScalarValue;
use datafusion_functions_aggregate::count::count_udaf;
use datafusion_functions_aggregate::sum::sum_udaf;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::aggregate::AggregateExprBuilder;
use datafusion_physical_expr::expressions::{Column, Literal};

use super::spec::WindowAggregateSpec;
use crate::group_table::{Aggregate, FailedGroups, GroupTable, Grouping, Inputs, Results};
use crate::row_errors::evaluate::Failed;
use crate::{Batch, Result};

/// See the module.
#[derive(Debug)]
pub(super) struct Layout {
    /// What tables, runs and the partial stage's output are made by.
    pub(super) grouping: Grouping,
    /// The columns of a partial result: `Grouping::state_schema`.
    pub(super) schema: SchemaRef,
    /// How many state columns each aggregate has.
    widths: Vec<usize>,
    /// How many of the grouping's first keys are the window's: they alone decide the key group, so that all rows of a key meet.
    pub(super) key_count: usize,
    /// The grouping's keys over the input.
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    /// Over a changelog: what is computed of the rows that are left.
    of_rows: Option<OfRows>,
}

/// The aggregation of a window's rows: what the spec asks for.
#[derive(Debug)]
struct OfRows {
    grouping: Grouping,
    /// Per aggregate, where its arguments are found.
    arguments: Vec<Vec<Place>>,
    filters: Vec<Option<Place>>,
}

/// Where an argument is, once rows are grouped.
#[derive(Debug)]
enum Place {
    Column(usize),
    Constant(Arc<dyn PhysicalExpr>),
}

/// What a window gives when it closes.
pub(super) struct Closed {
    /// `[keys…, aggregates…]`.
    pub(super) columns: Vec<ArrayRef>,
    /// The groups that have no result.
    pub(super) failed: Option<FailedGroups>,
    /// Rows that were taken back more often than they came.
    pub(super) missing: u64,
}

impl Layout {
    pub(super) fn new(spec: &WindowAggregateSpec) -> Result<Self> {
        let mut of_keys = Grouping {
            keys: spec.keys.iter().map(|(_, field)| field.clone()).collect(),
            aggregates: spec.aggregates.clone(),
        };
        if of_keys.keys.is_empty() && of_keys.aggregates.is_empty() {
            // SUBTLE: what has no columns has no rows either, and a window that only its bounds are asked of would give nothing.
            of_keys.aggregates.push(row_count()?);
        }
        let exprs = spec.keys.iter().map(|(expr, _)| expr.clone()).collect();
        let key_count = spec.keys.len();
        match &spec.changelog {
            None => Self::made(of_keys, key_count, exprs, None),
            Some(input) => Self::of_rows(of_keys, exprs, input),
        }
    }

    fn made(
        grouping: Grouping,
        key_count: usize,
        exprs: Vec<Arc<dyn PhysicalExpr>>,
        of_rows: Option<OfRows>,
    ) -> Result<Self> {
        let (schema, widths) = (grouping.state_schema()?, grouping.state_widths()?);
        Ok(Layout { grouping, schema, widths, key_count, exprs, of_rows })
    }

    fn of_rows(of_keys: Grouping, mut exprs: Vec<Arc<dyn PhysicalExpr>>, input: &Schema) -> Result<Self> {
        let key_count = exprs.len();
        let (mut arguments, mut filters) = (Vec::new(), Vec::new());
        for aggregate in &of_keys.aggregates {
            let mut place = |expr: &Arc<dyn PhysicalExpr>| place(expr, &mut exprs);
            arguments.push(aggregate.function.expressions().iter().map(&mut place).collect());
            filters.push(aggregate.filter.as_ref().map(&mut place));
        }
        let mut keys = of_keys.keys.clone();
        for (index, expr) in exprs[key_count..].iter().enumerate() {
            let field = Field::new(format!("argument:{index}"), expr.data_type(input)?, true);
            keys.push(Arc::new(field) as FieldRef);
        }
        let grouping = Grouping { keys, aggregates: vec![net_count()?] };
        Self::made(grouping, key_count, exprs, Some(OfRows { grouping: of_keys, arguments, filters }))
    }

    /// An empty table.
    pub(super) fn table(&self) -> Result<GroupTable> {
        GroupTable::new(&self.grouping)
    }

    /// Merges a partial result into a table.
    pub(super) fn merge(&self, table: &mut GroupTable, states: &[ArrayRef]) -> Result<()> {
        table.merge(states, self.grouping.keys.len(), &self.widths)
    }

    /// Empties a table into a partial result.
    pub(super) fn take(&self, table: &mut GroupTable) -> Result<RecordBatch> {
        Ok(RecordBatch::try_new(self.schema.clone(), table.take_state()?)?)
    }

    /// Empties a table into a partial result to be stored: without the rows of which none is left. They add nothing to what other partial results say of them.
    pub(super) fn take_stored(&self, table: &mut GroupTable) -> Result<RecordBatch> {
        let mut states = table.take_state()?;
        if let (Some(_), Some(net)) = (&self.of_rows, states.last()) {
            states = filtered(&states, &neq(net, &Int64Array::new_scalar(0))?)?;
        }
        Ok(RecordBatch::try_new(self.schema.clone(), states)?)
    }

    /// What a table takes of these rows.
    pub(super) fn inputs(&self, batch: &Batch) -> Result<Inputs, Failed> {
        if self.of_rows.is_none() {
            return Inputs::evaluate(&self.exprs, &self.grouping.aggregates, batch.rows());
        }
        let mut inputs = Inputs::evaluate(&self.exprs, &[], batch.rows())?;
        inputs.arguments.push(vec![Arc::new(batch.signs())]);
        inputs.filters.push(None);
        Ok(inputs)
    }

    /// The result of a table.
    pub(super) fn close(&self, table: &mut GroupTable) -> Result<Closed> {
        let Results { columns, failed } = table.take_results()?;
        let (Some(of_rows), Some(net)) = (&self.of_rows, columns.last()) else {
            return Ok(Closed { columns, failed, missing: 0 });
        };
        let missing = missing(net.as_primitive::<Int64Type>());
        let left = filtered(&columns, &gt(net, &Int64Array::new_scalar(0))?)?;
        let Results { columns, failed } = of_rows.aggregate(self.key_count, &left)?;
        Ok(Closed { columns, failed, missing })
    }
}

impl OfRows {
    /// `[keys…, aggregates…]` of `[keys…, arguments…, how often]`.
    fn aggregate(&self, key_count: usize, rows: &[ArrayRef]) -> Result<Results> {
        let times = rows[rows.len() - 1].as_primitive::<Int64Type>();
        let found = |place: &Place| place.find(rows, times.len());
        let mut filters = Vec::with_capacity(self.filters.len());
        for filter in &self.filters {
            let filter = filter.as_ref().map(found).transpose()?;
            filters.push(filter.map(|filter| filter.as_boolean().clone()));
        }
        let arguments = self.arguments.iter().map(|places| places.iter().map(found).collect::<Result<_>>());
        let inputs = Inputs { keys: rows[..key_count].to_vec(), arguments: arguments.collect::<Result<_>>()?, filters };
        let mut table = GroupTable::new(&self.grouping)?;
        table.update_repeated(&self.grouping.aggregates, &inputs, times)?;
        table.take_results()
    }
}

impl Place {
    fn find(&self, columns: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        match self {
            Place::Column(index) => Ok(columns[*index].clone()),
            Place::Constant(expr) => {
                let options = RecordBatchOptions::new().with_row_count(Some(rows));
                let none = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)?;
                Ok(expr.evaluate(&none)?.into_array(rows)?)
            }
        }
    }
}

/// Finds an expression among those that rows are grouped by (keys first), or adds it. Constants tell no rows apart.
fn place(expr: &Arc<dyn PhysicalExpr>, exprs: &mut Vec<Arc<dyn PhysicalExpr>>) -> Place {
    if expr.downcast_ref::<Literal>().is_some() {
        return Place::Constant(expr.clone());
    }
    let known = exprs.iter().position(|known| known == expr);
    Place::Column(known.unwrap_or_else(|| {
        exprs.push(expr.clone());
        exprs.len() - 1
    }))
}

/// How many rows there are.
pub(super) fn row_count() -> Result<Aggregate> {
    let one: Arc<dyn PhysicalExpr> = Arc::new(Literal::new(ScalarValue::Int64(Some(1))));
    let schema = Arc::new(Schema::empty());
    let function = AggregateExprBuilder::new(count_udaf(), vec![one]).schema(schema).alias("rows").build()?;
    Ok(Aggregate { function: Arc::new(function), filter: None })
}

/// The sum of [`Batch::signs`].
fn net_count() -> Result<Aggregate> {
    let schema = Arc::new(Schema::new(vec![Field::new("sign", DataType::Int64, false)]));
    let sign = Arc::new(Column::new("sign", 0));
    let function = AggregateExprBuilder::new(sum_udaf(), vec![sign]).schema(schema).alias("net").build()?;
    Ok(Aggregate { function: Arc::new(function), filter: None })
}

fn missing(net: &Int64Array) -> u64 {
    let below = net.unary::<_, Int64Type>(|net| net.min(0));
    sum(&below).unwrap_or(0).unsigned_abs()
}

fn filtered(columns: &[ArrayRef], keep: &BooleanArray) -> Result<Vec<ArrayRef>> {
    columns.iter().map(|column| Ok(filter(column, keep)?)).collect()
}
