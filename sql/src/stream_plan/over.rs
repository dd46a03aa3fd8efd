//! `OVER`: columns that are computed of the rows before each row, in the order of event time; or in any order of inputs that end.

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, TimeUnit};
use coulee_runtime::graph::{NodeKind, Partitioning, Port};
use coulee_runtime::over::{Frame, OverCall, OverSpec, over};
use coulee_runtime::state::span;
use datafusion_common::{DFSchema, ScalarValue};
use datafusion_expr::expr::{AggregateFunction, WindowFunction};
use datafusion_expr::{
    Expr, ExprSchemable, SortExpr, Window, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
    lit,
};

use super::aggregates::lowered;
use super::print::{expression, expressions};
use super::{Building, ChangelogKind, Node, StateName, StreamPlan};
use crate::error::{Fault, Result};
use crate::faults::fault;
use crate::functions::event_time::{is_marked, unmarked};
use crate::functions::lag::is_lag;
use crate::functions::ranking::{ranking_of, without_alias};
use crate::translate::{NodeRows, Translator, physical};

#[derive(Debug)]
pub(super) struct Over {
    partition: Vec<Expr>,
    order: Vec<SortExpr>,
    calls: Vec<WindowFunction>,
    /// Whether the first of the order is the event time; otherwise rows wait for the end of the input.
    is_by_time: bool,
}

impl Over {
    /// The node of a window, whose functions have one partition and one order. `inputs_end`: whether there is a last row.
    ///
    /// # Errors
    /// An order that cannot be waited for.
    pub fn of(window: &Window, inputs_end: bool) -> Result<Self> {
        let mut calls = Vec::with_capacity(window.window_expr.len());
        for expr in &window.window_expr {
            let Expr::WindowFunction(call) = without_alias(expr) else {
                return Err(Fault::new(format!("'{expr}' is not a function with OVER")));
            };
            let mut call = call.as_ref().clone();
            // `COUNT(*)` is the count of a constant.
            call.params.args.iter_mut().filter(|argument| is_wildcard(argument)).for_each(|all| *all = lit(1_i64));
            calls.push(call);
        }
        let Some(first) = calls.first() else { return Err(Fault::new("OVER has no function")) };
        let (partition, order) = (first.params.partition_by.clone(), unmarked(&first.params.order_by));
        let Some(leading) = order.first() else {
            let message = format!("{} has no ORDER BY in its OVER clause", name(first));
            return Err(Fault::new(message).or_clause(&["OVER"]).help("write OVER (PARTITION BY key ORDER BY column)"));
        };
        let is_by_time = is_marked(window);
        if !is_by_time && !inputs_end {
            let message = format!(
                "OVER is ordered by {}, and an input of this query has no end: its rows can be put in the order of their event time alone",
                expression(&leading.expr, window.input.schema())
            );
            return Err(Fault::new(message).or_clause(&["OVER"]).help(
                "write ORDER BY and the column with the WATERMARK, ascending; or bound the number of a row: SELECT … FROM (SELECT …, ROW_NUMBER() OVER (PARTITION BY key ORDER BY x) AS n FROM t) WHERE n <= 3",
            ));
        }
        Ok(Over { partition, order, calls, is_by_time })
    }

    /// Refuses what a changelog would need.
    pub fn check_input(input: &StreamPlan) -> Result<()> {
        if input.changes == ChangelogKind::InsertOnly {
            return Ok(());
        }
        Err(Fault::new("OVER reads rows that are only appended, and rows of this query are updated")
            .or_clause(&["OVER"])
            .help("aggregate in windows below OVER: their results are final"))
    }
}

#[expect(deprecated, reason = "the parser of SQL makes it")]
fn is_wildcard(argument: &Expr) -> bool {
    matches!(argument, Expr::Wildcard { .. })
}

/// What a call is named after.
fn name(call: &WindowFunction) -> String {
    call.fun.name().to_uppercase()
}

/// A call over the columns of an input.
fn call(call: &WindowFunction, order: &[SortExpr], schema: &DFSchema) -> Result<OverCall> {
    let params = &call.params;
    if let Some(function) = ranking_of(&call.fun) {
        return Ok(OverCall::Number(function));
    }
    if is_lag(&call.fun) {
        return lag(&params.args, schema);
    }
    let WindowFunctionDefinition::AggregateUDF(function) = &call.fun else {
        return Err(Fault::new(format!("{} has no OVER", name(call))).or_clause(&["OVER"]));
    };
    let aggregate = Expr::AggregateFunction(AggregateFunction::new_udf(
        function.clone(),
        params.args.clone(),
        params.distinct,
        params.filter.clone(),
        Vec::new(),
        params.null_treatment,
    ));
    let leading = order.first().map(|key| key.expr.get_type(schema)).transpose().map_err(|error| fault(&error))?;
    Ok(OverCall::Aggregate(lowered(&aggregate, schema)?, frame(&params.window_frame, order, leading.as_ref())?))
}

/// `LAG`'s constants are part of what its state means.
fn lag(arguments: &[Expr], schema: &DFSchema) -> Result<OverCall> {
    let refused = |message: &str| {
        Fault::new(message).or_clause(&["LAG"]).help("write LAG(value), LAG(value, 2) or LAG(value, 2, default)")
    };
    let Some(value) = arguments.first() else { return Err(refused("LAG takes a value")) };
    let rows = match arguments.get(1) {
        None => 1,
        Some(rows) => match constant(rows).and_then(|rows| rows.cast_to(&DataType::Int64).ok()) {
            Some(ScalarValue::Int64(Some(rows))) if rows >= 0 => rows as usize,
            _ => {
                return Err(refused(
                    "the second argument of LAG is how many rows before this one, a constant of 0 or more",
                ));
            }
        },
    };
    let data_type = value.get_type(schema).map_err(|error| fault(&error))?;
    let default = match arguments.get(2) {
        None => ScalarValue::try_from(&data_type).map_err(|error| fault(&error))?,
        Some(default) => constant(default)
            .and_then(|default| default.cast_to(&data_type).ok())
            .ok_or_else(|| refused("the third argument of LAG is a constant of the type of its value"))?,
    };
    Ok(OverCall::Lag { value: physical(value, schema)?, rows, default })
}

fn constant(expr: &Expr) -> Option<ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value.clone()),
        Expr::Cast(cast) => constant(&cast.expr)?.cast_to(cast.field.data_type()).ok(),
        Expr::Negative(value) => constant(value)?.arithmetic_negate().ok(),
        _ => None,
    }
}

/// The rows that an aggregate is of.
fn frame(frame: &WindowFrame, order: &[SortExpr], leading: Option<&DataType>) -> Result<Frame> {
    let refused = |message: &str| {
        Fault::new(message)
            .or_clause(&["ROWS", "RANGE", "GROUPS", "OVER"])
            .help("write ROWS BETWEEN 10 PRECEDING AND CURRENT ROW, or RANGE BETWEEN INTERVAL '1' HOUR PRECEDING AND CURRENT ROW")
    };
    if frame.end_bound != WindowFrameBound::CurrentRow {
        return Err(refused("a frame of OVER ends at the CURRENT ROW: what follows it has not come yet"));
    }
    let back = match &frame.start_bound {
        WindowFrameBound::Preceding(value) if value.is_null() => None,
        WindowFrameBound::Preceding(value) => Some(value.clone()),
        WindowFrameBound::CurrentRow => Some(ScalarValue::Int64(Some(0))),
        WindowFrameBound::Following(_) => return Err(refused("a frame of OVER begins at or before the CURRENT ROW")),
    };
    match (frame.units, back) {
        (WindowFrameUnits::Rows, None) => Ok(Frame::Rows(None)),
        (WindowFrameUnits::Range, None) => Ok(Frame::Range(None)),
        (WindowFrameUnits::Rows, Some(rows)) => match rows.cast_to(&DataType::Int64) {
            Ok(ScalarValue::Int64(Some(rows))) if rows >= 0 => Ok(Frame::Rows(Some(rows as usize))),
            _ => Err(refused("ROWS takes a number of rows, 0 or more")),
        },
        (WindowFrameUnits::Range, Some(back)) => match order {
            [key] if key.asc => match leading.and_then(|data_type| range(&back, data_type)) {
                Some(range) => Ok(Frame::Range(Some(range))),
                None => {
                    Err(refused("RANGE takes a span of days or less of timestamps, or a whole number of whole numbers"))
                }
            },
            _ => Err(refused("RANGE with a number is ordered by one ascending column")),
        },
        (WindowFrameUnits::Groups, _) => Err(refused("GROUPS is not Flink's SQL")),
    }
}

/// A frame as SQL has it, with its span of time in the largest unit that fits.
fn frame_text(frame: &WindowFrame) -> String {
    let from = match &frame.start_bound {
        WindowFrameBound::Preceding(value) if value.is_null() => "UNBOUNDED PRECEDING".to_owned(),
        WindowFrameBound::Preceding(value) => {
            match nanos(value).and_then(|nanos| u64::try_from(nanos / 1_000_000).ok()) {
                Some(millis) => format!("{} PRECEDING", span(millis)),
                None => format!("{value} PRECEDING"),
            }
        }
        other => other.to_string(),
    };
    format!("{} BETWEEN {from} AND {}", frame.units, frame.end_bound)
}

/// A span of time in nanoseconds.
fn nanos(span: &ScalarValue) -> Option<i128> {
    match span {
        ScalarValue::IntervalDayTime(Some(span)) => {
            Some((i128::from(span.days) * 86_400_000 + i128::from(span.milliseconds)) * 1_000_000)
        }
        ScalarValue::IntervalMonthDayNano(Some(span)) if span.months == 0 => {
            Some(i128::from(span.days) * 86_400_000_000_000 + i128::from(span.nanoseconds))
        }
        _ => None,
    }
}

/// A span in the units of the order's type.
fn range(back: &ScalarValue, order: &DataType) -> Option<i64> {
    let DataType::Timestamp(unit, _) = order else {
        let number = back.cast_to(&DataType::Int64).ok().filter(|_| order.is_integer());
        return match number {
            Some(ScalarValue::Int64(Some(number))) if number >= 0 => Some(number),
            _ => None,
        };
    };
    let nanos = match back {
        ScalarValue::Int64(Some(0)) => 0,
        _ => nanos(back)?,
    };
    let per_unit = match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    };
    i64::try_from(nanos / per_unit).ok().filter(|span| *span >= 0)
}

impl Node for Over {
    fn describe(&self, inputs: &[StreamPlan]) -> String {
        let input = &inputs[0].schema;
        let order =
            |key: &SortExpr| format!("{} {}", expression(&key.expr, input), if key.asc { "ASC" } else { "DESC" });
        let order: Vec<String> = self.order.iter().map(order).collect();
        let call = |call: &WindowFunction| {
            let arguments: Vec<String> = call.params.args.iter().map(|argument| expression(argument, input)).collect();
            let distinct = if call.params.distinct { "DISTINCT " } else { "" };
            let frame = match call.fun {
                WindowFunctionDefinition::AggregateUDF(_) => format!(" {}", frame_text(&call.params.window_frame)),
                WindowFunctionDefinition::WindowUDF(_) => String::new(),
            };
            format!("{}({distinct}{}){frame}", name(call), arguments.join(", "))
        };
        let calls: Vec<String> = self.calls.iter().map(call).collect();
        format!(
            "OverAggregate(partitionBy={}, orderBy=[{}], calls=[{}])",
            expressions(&self.partition, input),
            order.join(", "),
            calls.join(", ")
        )
    }

    fn state_name(&self) -> Option<StateName<'_>> {
        Some(StateName::ByPlace("over"))
    }

    /// Keeps the columns that the plan asks for: rows are stored whole.
    fn prepare(&self, plan: &StreamPlan, input: usize, rows: NodeRows, to: &mut Translator<'_>) -> Result<NodeRows> {
        to.exactly(rows, &plan.inputs[input].schema)
    }

    fn build(&self, mut building: Building<'_, '_, '_>) -> Result<NodeRows> {
        let rows = building.input()?;
        let Building { plan, name: Some(name), to, .. } = building else {
            return Err(Fault::new("the state of an OVER aggregation has no name"));
        };
        let mut order = Vec::with_capacity(self.order.len());
        for key in &self.order {
            let options = SortOptions { descending: !key.asc, nulls_first: key.nulls_first };
            order.push((physical(&key.expr, &rows.schema)?, options));
        }
        let calls = self.calls.iter().map(|of| call(of, &self.order, &rows.schema)).collect::<Result<Vec<_>>>()?;
        let partition = self.partition.iter().map(|expr| physical(expr, &rows.schema)).collect::<Result<Vec<_>>>()?;
        let parallelism = if partition.is_empty() { 1 } else { to.context.parallelism };
        let partitioning = match rows.parallelism == 1 && parallelism == 1 {
            true => Partitioning::Forward,
            false => Partitioning::Hash(partition.clone()),
        };
        let spec = OverSpec {
            partition,
            time: order.first().filter(|_| self.is_by_time).map(|(time, _)| time.clone()),
            order,
            calls,
            input: rows.schema.inner().clone(),
            schema: plan.schema.inner().clone(),
        };
        let node = to.add(name, parallelism, NodeKind::Operator(over(spec)))?;
        to.graph.connect(rows.node, Port::MAIN, node, partitioning)?;
        Ok(NodeRows::new(node, parallelism, plan.schema.as_ref().clone()))
    }
}
