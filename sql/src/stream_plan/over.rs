//! `OVER`: columns that are computed of the rows before each row, in the order of event time, or in any order of inputs that end; in any other order, and over
//! rows that change, rows are emitted at once and updated.

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, TimeUnit};
use coulee_runtime::graph::{NodeKind, Partitioning, Port};
use coulee_runtime::over::{Frame, OverCall, OverMode, OverSpec, Share, over};
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
use crate::functions::lag_lead::{Shift, shift_of};
use crate::functions::ranking::{ranking_of, without_alias};
use crate::functions::share::{ShareFunction, share_of};
use crate::look_ahead::looks_ahead;
use crate::translate::{NodeRows, Translator, physical};

#[derive(Debug)]
pub(super) struct Over {
    partition: Vec<Expr>,
    order: Vec<SortExpr>,
    calls: Vec<WindowFunction>,
    emits: Emits,
}

/// When rows leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Emits {
    /// When their event time has passed, which is the first of the order.
    ByTime,
    /// When the inputs have ended.
    AtEnd,
    /// At once, and again when their columns change.
    Updates,
}

impl Over {
    /// The node of a window, whose functions have one partition and one order, and its input. `inputs_end`: whether there is a last row.
    ///
    /// # Errors
    /// What has no OVER, and a function of an order without one.
    pub fn of(window: &Window, input: StreamPlan, inputs_end: bool) -> Result<(Self, StreamPlan)> {
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
        let is_of_order = |call: &&WindowFunction| matches!(call.fun, WindowFunctionDefinition::WindowUDF(_));
        if let Some(call) = calls.iter().find(is_of_order)
            && order.is_empty()
        {
            let message = format!("{} has no ORDER BY in its OVER clause", name(call));
            return Err(Fault::new(message).or_clause(&["OVER"]).help("write OVER (PARTITION BY key ORDER BY column)"));
        }
        let emits = match input.changes {
            ChangelogKind::InsertOnly if is_marked(window) && !calls.iter().any(looks_ahead) => Emits::ByTime,
            _ if inputs_end => Emits::AtEnd,
            _ => Emits::Updates,
        };
        let input = if emits == Emits::AtEnd { input.only_final_rows() } else { input };
        Ok((Over { partition, order, calls, emits }, input))
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
    if let Some(function) = share_of(&call.fun) {
        return Ok(OverCall::Share(share(function, &params.args)?));
    }
    if let Some(shift) = shift_of(&call.fun) {
        return shifted(shift, &params.args, schema);
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

fn share(function: ShareFunction, arguments: &[Expr]) -> Result<Share> {
    match function {
        ShareFunction::PercentRank => Ok(Share::PercentRank),
        ShareFunction::CumeDist => Ok(Share::CumeDist),
        ShareFunction::Ntile => {
            match arguments.first().and_then(whole_number).and_then(|parts| u64::try_from(parts).ok()) {
                Some(parts) if parts > 0 => Ok(Share::Ntile(parts)),
                _ => Err(Fault::new("NTILE takes how many parts there are, a constant of 1 or more")
                    .or_clause(&["NTILE"])
                    .help("write NTILE(4) OVER (PARTITION BY key ORDER BY column)")),
            }
        }
    }
}

/// The constants of `LAG` and `LEAD` are part of what their state means.
fn shifted(shift: Shift, arguments: &[Expr], schema: &DFSchema) -> Result<OverCall> {
    let name = shift.name();
    let refused = |message: String| {
        let help = format!("write {name}(value), {name}(value, 2) or {name}(value, 2, default)");
        let clause: &[&str] = if shift == Shift::Back { &["LAG"] } else { &["LEAD"] };
        Fault::new(message).or_clause(clause).help(help)
    };
    let Some(value) = arguments.first() else { return Err(refused(format!("{name} takes a value"))) };
    let rows = match arguments.get(1).map(whole_number) {
        None => 1,
        Some(Some(rows)) if rows >= 0 => rows,
        Some(_) => {
            let side = if shift == Shift::Back { "before" } else { "behind" };
            return Err(refused(format!(
                "the second argument of {name} is how many rows {side} this one, a constant of 0 or more"
            )));
        }
    };
    let data_type = value.get_type(schema).map_err(|error| fault(&error))?;
    let default = match arguments.get(2) {
        None => ScalarValue::try_from(&data_type).map_err(|error| fault(&error))?,
        Some(default) => constant(default)
            .and_then(|default| default.cast_to(&data_type).ok())
            .ok_or_else(|| refused(format!("the third argument of {name} is a constant of the type of its value")))?,
    };
    let by = if shift == Shift::Back { -rows } else { rows };
    Ok(OverCall::Shifted { value: physical(value, schema)?, by, default })
}

fn whole_number(expr: &Expr) -> Option<i64> {
    match constant(expr)?.cast_to(&DataType::Int64).ok()? {
        ScalarValue::Int64(number) => number,
        _ => None,
    }
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
    let number = |value: &ScalarValue| match frame.units {
        WindowFrameUnits::Rows => match value.cast_to(&DataType::Int64) {
            Ok(ScalarValue::Int64(Some(rows))) if rows >= 0 => Ok(rows),
            _ => Err(refused("ROWS takes a number of rows, 0 or more")),
        },
        WindowFrameUnits::Range => match order {
            [key] if key.asc => leading.and_then(|data_type| range(value, data_type)).ok_or_else(|| {
                refused("RANGE takes a span of days or less of timestamps, or a whole number of whole numbers")
            }),
            _ => Err(refused("RANGE with a number is ordered by one ascending column")),
        },
        WindowFrameUnits::Groups => Err(refused("GROUPS is not Flink's SQL")),
    };
    let offset = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::CurrentRow => Ok(Some(0)),
        WindowFrameBound::Preceding(value) | WindowFrameBound::Following(value) if value.is_null() => Ok(None),
        WindowFrameBound::Preceding(value) => number(value).map(|back| Some(-back)),
        WindowFrameBound::Following(value) => number(value).map(Some),
    };
    let (from, to) = (offset(&frame.start_bound)?, offset(&frame.end_bound)?);
    match frame.units {
        // Without an order all rows of a partition are peers, so that each one is the last.
        _ if order.is_empty() && (from, to) == (None, None) => Ok(Frame::range(None, Some(0))),
        WindowFrameUnits::Rows => Ok(Frame::rows(from, to)),
        WindowFrameUnits::Range => Ok(Frame::range(from, to)),
        WindowFrameUnits::Groups => Err(refused("GROUPS is not Flink's SQL")),
    }
}

/// A frame as SQL has it, with its spans of time in the largest unit that fits.
fn frame_text(frame: &WindowFrame) -> String {
    let bound = |bound: &WindowFrameBound| {
        let (value, side) = match bound {
            WindowFrameBound::Preceding(value) if !value.is_null() => (value, "PRECEDING"),
            WindowFrameBound::Following(value) if !value.is_null() => (value, "FOLLOWING"),
            other => return other.to_string(),
        };
        match nanos(value).and_then(|nanos| u64::try_from(nanos / 1_000_000).ok()) {
            Some(millis) => format!("{} {side}", span(millis)),
            None => format!("{value} {side}"),
        }
    };
    format!("{} BETWEEN {} AND {}", frame.units, bound(&frame.start_bound), bound(&frame.end_bound))
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

    fn changes(&self, _: &[ChangelogKind]) -> ChangelogKind {
        match self.emits {
            Emits::ByTime | Emits::AtEnd => ChangelogKind::InsertOnly,
            Emits::Updates => ChangelogKind::Retract,
        }
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
        let mode = match (self.emits, order.first()) {
            (Emits::ByTime, Some((time, _))) => OverMode::ByTime(time.clone()),
            (Emits::ByTime, None) => return Err(Fault::new("an OVER aggregation by event time has no order")),
            (Emits::AtEnd, _) => OverMode::AtEnd,
            (Emits::Updates, _) => OverMode::Updating {
                changelog: plan.inputs.iter().any(|input| input.changes != ChangelogKind::InsertOnly),
                ttl_millis: to.context.state_ttl_millis,
            },
        };
        let spec = OverSpec {
            partition,
            mode,
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
