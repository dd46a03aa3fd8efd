//! Window table functions in `FROM`: `TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR))`, `HOP`, `CUMULATE` and `SESSION`.

use std::sync::Arc;

use arrow::datatypes::DataType;
use coulee_runtime::window::assign::{Bound, Tumbling};
use coulee_runtime::window::{WindowKind, Windows};
use datafusion_common::ExprSchema;
use datafusion_common::{Column, DFSchema, DataFusionError, ScalarValue};
use datafusion_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion_expr::{Cast, Expr, LogicalPlan, LogicalPlanBuilder};
use sqlparser::ast::{self, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, Spanned, TableFactor};

use crate::added_time::{Added, AddedTime, Steps};
use crate::error::{Fault, Result};
use crate::lineage::{is_event_time, is_processing_time};
use crate::types::{timestamp_ltz, type_name};
use crate::window_assign::{ADDED, Assigned, WindowAssign};
use crate::words::{PARTITIONED, SESSIONS};

/// How many windows of `HOP` or `CUMULATE` may hold one row.
const WINDOWS_OF_A_ROW_MAX: i64 = 100_000;

/// Plans them; everything else is left to DataFusion.
#[derive(Debug)]
pub(crate) struct WindowFunctions {
    /// Whether local time is UTC: then a TIMESTAMP_LTZ and the TIMESTAMP that it is converted to are the same instant.
    pub in_utc: bool,
}

impl RelationPlanner for WindowFunctions {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> datafusion_common::Result<RelationPlanning> {
        let Some((name, arguments, alias)) = call(&relation) else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let windowed = window_function(&name, &arguments, self.in_utc, context)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(windowed, alias))))
    }
}

/// A relation that is a function's call: with or without `TABLE( )` around it.
pub(crate) fn call(relation: &TableFactor) -> Option<(Ident, Vec<FunctionArg>, Option<ast::TableAlias>)> {
    match relation {
        TableFactor::Table { name, alias, args: Some(args), .. } => {
            Some((last(name)?, args.args.clone(), alias.clone()))
        }
        TableFactor::Function { name, args, alias, .. } => Some((last(name)?, args.clone(), alias.clone())),
        TableFactor::TableFunction { expr: ast::Expr::Function(function), alias } => match &function.args {
            FunctionArguments::List(list) => Some((last(&function.name)?, list.args.clone(), alias.clone())),
            _ => Some((last(&function.name)?, Vec::new(), alias.clone())),
        },
        _ => None,
    }
}

fn last(name: &ObjectName) -> Option<Ident> {
    name.0.last()?.as_ident().cloned()
}

fn window_function(
    name: &Ident,
    arguments: &[FunctionArg],
    in_utc: bool,
    context: &mut dyn RelationPlannerContext,
) -> datafusion_common::Result<LogicalPlan> {
    let Some(function) = WindowFunction::of(&name.value) else {
        let fault = Fault::new(format!("unknown table function '{}'", name.value)).at(name.span);
        return Err(fault
            .help("the table functions are TUMBLE, HOP, CUMULATE, SESSION, TO_CHANGELOG and FROM_CHANGELOG")
            .into_datafusion());
    };
    let parts = Arguments::of(function, name, arguments).map_err(Fault::into_datafusion)?;
    let input = context.plan(parts.data.clone())?;
    let mut spans = [0; 2];
    for (span, expr) in spans.iter_mut().zip(&parts.spans) {
        *span = millis(context, expr)?;
    }
    let offset = parts.offset.as_ref().map_or(Ok(0), |offset| millis(context, offset))?;
    let place = parts.spans.first().map_or(name.span, Spanned::span);
    let wrong = |error| Fault::from(error).at(place).into_datafusion();
    let kind = match function {
        WindowFunction::Tumble => {
            let window = Tumbling::new(spans[0], offset).map_err(wrong)?;
            let steps = Steps { step_millis: window.size_millis(), offset_millis: window.offset_millis() };
            return timed(input, &parts, in_utc, steps)?.tumble(window);
        }
        WindowFunction::Hop => WindowKind::Hopping { slide_millis: spans[0], size_millis: spans[1] },
        WindowFunction::Cumulate => WindowKind::Cumulating { step_millis: spans[0], max_size_millis: spans[1] },
        WindowFunction::Session | WindowFunction::Sessions if spans[0] > 0 => {
            // A session ends at any time: the watermark follows the clock in the smallest steps.
            let steps = Steps { step_millis: 1, offset_millis: 0 };
            let partition = (function == WindowFunction::Session).then(|| partition(&input, &parts)).transpose();
            let partition = partition.map_err(Fault::into_datafusion)?;
            return timed(input, &parts, in_utc, steps)?.assign(Assigned::Sessions { gap_millis: spans[0] }, partition);
        }
        WindowFunction::Session | WindowFunction::Sessions => {
            let message = format!("the gap of a session is {} ms, expected more than 0", spans[0]);
            return Err(Fault::new(message).at(place).into_datafusion());
        }
    };
    let windows = Windows::new(kind, offset).map_err(wrong)?;
    check_overlap(spans).map_err(|fault| fault.at(place).into_datafusion())?;
    let steps = Steps { step_millis: windows.slice_millis(), offset_millis: windows.offset_millis() };
    timed(input, &parts, in_utc, steps)?.assign(Assigned::Overlapping(windows), None)
}

/// Refuses a slide (or step) so much smaller than the size that a row's windows take hours to fire.
fn check_overlap([slide_millis, size_millis]: [i64; 2]) -> Result<(), Fault> {
    let windows = size_millis / slide_millis.max(1);
    if windows <= WINDOWS_OF_A_ROW_MAX {
        return Ok(());
    }
    let message = format!("each row would be in {windows} windows, and at most {WINDOWS_OF_A_ROW_MAX} are allowed");
    Err(Fault::new(message).help("write a longer first interval, or a shorter second one"))
}

/// The window table functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WindowFunction {
    Tumble,
    Hop,
    Cumulate,
    /// Sessions of the partitions of a table.
    Session,
    /// What `GROUP BY SESSION(…)` becomes: sessions of the other keys of the group.
    Sessions,
}

impl WindowFunction {
    fn of(name: &str) -> Option<Self> {
        match name.to_uppercase().as_str() {
            "TUMBLE" => Some(WindowFunction::Tumble),
            "HOP" => Some(WindowFunction::Hop),
            "CUMULATE" => Some(WindowFunction::Cumulate),
            "SESSION" => Some(WindowFunction::Session),
            _ if name == SESSIONS => Some(WindowFunction::Sessions),
            _ => None,
        }
    }

    /// The names of its spans of time, in their order.
    fn spans(self) -> &'static [&'static str] {
        match self {
            WindowFunction::Tumble => &["SIZE"],
            WindowFunction::Hop => &["SLIDE", "SIZE"],
            WindowFunction::Cumulate => &["STEP", "SIZE"],
            WindowFunction::Session | WindowFunction::Sessions => &["GAP"],
        }
    }

    fn example(self) -> &'static str {
        match self {
            WindowFunction::Tumble => "TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR)",
            WindowFunction::Hop => "HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '5' MINUTE, INTERVAL '1' HOUR)",
            WindowFunction::Cumulate => "CUMULATE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR, INTERVAL '1' DAY)",
            WindowFunction::Session => "SESSION(TABLE t PARTITION BY key, DESCRIPTOR(ts), INTERVAL '10' MINUTE)",
            WindowFunction::Sessions => "SESSION(ts, INTERVAL '10' MINUTE)",
        }
    }
}

/// Rows with the time that windows are made of.
struct Timed {
    input: LogicalPlan,
    /// The columns that the window function passes on.
    columns: Vec<Column>,
    time: Expr,
    data_type: DataType,
}

/// The rows with their event time; where the column is one of processing time, with that of each row, after which the watermark follows the clock in steps.
fn timed(input: LogicalPlan, parts: &Arguments, in_utc: bool, steps: Steps) -> datafusion_common::Result<Timed> {
    let name = &parts.time;
    let column = match input.schema().qualified_fields_with_unqualified_name(&name.value).first() {
        Some((qualifier, field)) => Column::new(qualifier.cloned(), field.name()),
        None => return Err(unknown_column(name, input.schema()).into_datafusion()),
    };
    let data_type = input.schema().field_from_column(&column)?.data_type().clone();
    if !in_utc && matches!(data_type, DataType::Timestamp(_, Some(_))) {
        let message =
            format!("'{}' is {}, whose windows are those of UTC in this version", name.value, type_name(&data_type));
        let help = "RESET 'table.local-time-zone', or declare a TIMESTAMP(3) as the event time: local_ts AS CAST(ts AS TIMESTAMP(3))";
        return Err(Fault::new(message).at(name.span).help(help).into_datafusion());
    }
    let is_processing = is_processing_time(&column, &input);
    if !is_processing && !is_event_time(&column, &input, in_utc) {
        let message =
            format!("'{}' is {}, but neither an event-time column nor PROCTIME()", name.value, type_name(&data_type));
        let help = "declare it where the table is created: WATERMARK FOR column AS column - INTERVAL '5' SECOND";
        return Err(Fault::new(message).at(name.span).help(help).into_datafusion());
    }
    for added in ["window_start", "window_end", "window_time"] {
        if !input.schema().qualified_fields_with_unqualified_name(added).is_empty() {
            let message = format!("{} has a column '{added}' already, which the window adds", parts.data_name());
            let help =
                format!("give it another name where it is selected: {added} AS inner_{}", &added["window_".len()..]);
            return Err(Fault::new(message).at(parts.data.span()).help(help).into_datafusion());
        }
    }
    let columns = input.schema().columns();
    if is_processing {
        let added = Added::ProcessingTime(steps);
        let input = AddedTime::new(Arc::new(input), added)?.into_plan();
        return Ok(Timed { input, columns, time: added.column(), data_type });
    }
    Ok(Timed { input, columns, time: Expr::Column(column), data_type })
}

impl Timed {
    /// The columns and the three of the windows, where a row may be in several.
    fn assign(self, windows: Assigned, partition: Option<Vec<Expr>>) -> datafusion_common::Result<LogicalPlan> {
        let is_all = self.columns.len() == self.input.schema().fields().len();
        let assign = WindowAssign::new(Arc::new(self.input), self.time, windows)?;
        let plan = partition.into_iter().fold(assign, WindowAssign::partitioned).into_plan();
        if is_all {
            return Ok(plan);
        }
        let of_window = ADDED.iter().map(|(name, _)| Column::new_unqualified(*name));
        let columns: Vec<Expr> = self.columns.into_iter().chain(of_window).map(Expr::Column).collect();
        LogicalPlanBuilder::new(plan).project(columns)?.build()
    }

    /// The columns and the three of the window.
    fn tumble(self, window: Tumbling) -> datafusion_common::Result<LogicalPlan> {
        let mut columns: Vec<Expr> = self.columns.into_iter().map(Expr::Column).collect();
        columns.push(window.bound(Bound::Start, self.time.clone()).alias("window_start"));
        columns.push(window.bound(Bound::End, self.time.clone()).alias("window_end"));
        let last = window.bound(Bound::Time, self.time);
        // An event time is in milliseconds, as are the bounds of its window.
        let last = match self.data_type {
            DataType::Timestamp(_, Some(_)) => Expr::Cast(Cast::new(Box::new(last), timestamp_ltz())),
            _ => last,
        };
        columns.push(last.alias("window_time"));
        LogicalPlanBuilder::new(self.input).project(columns)?.build()
    }
}

fn unknown_column(name: &Ident, schema: &DFSchema) -> Fault {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let fault = Fault::new(format!("unknown column '{}'", name.value)).at(name.span);
    match coulee_runtime::options::nearest(&name.value, &names) {
        Some(near) => fault.help(format!("did you mean '{near}'?")),
        None => fault.help(format!("columns: {}", names.join(", "))),
    }
}

/// The columns by which a table is partitioned.
fn partition(input: &LogicalPlan, parts: &Arguments) -> Result<Vec<Expr>> {
    let column = |name: &Ident| {
        let found = input.schema().qualified_fields_with_unqualified_name(&name.value);
        let (qualifier, field) = found.first().ok_or_else(|| unknown_column(name, input.schema()))?;
        Ok(Expr::Column(Column::new(qualifier.cloned(), field.name())))
    };
    parts.partition.iter().map(column).collect()
}

/// What a window function was called with.
struct Arguments {
    data: TableFactor,
    /// The columns behind `PARTITION BY`.
    partition: Vec<Ident>,
    time: Ident,
    spans: Vec<ast::Expr>,
    offset: Option<ast::Expr>,
}

impl Arguments {
    /// By position, or by the names `DATA`, `TIMECOL`, those of the spans, and `OFFSET`.
    fn of(window: WindowFunction, function: &Ident, arguments: &[FunctionArg]) -> Result<Self> {
        let mut names = vec!["DATA", "TIMECOL"];
        names.extend(window.spans());
        let is_session = matches!(window, WindowFunction::Session | WindowFunction::Sessions);
        names.extend((!is_session).then_some("OFFSET"));
        let usage = |function: &Ident| usage(window, function);
        let mut found: Vec<Option<ast::Expr>> = vec![None; names.len()];
        for (position, argument) in arguments.iter().enumerate() {
            let (index, value) = match argument {
                FunctionArg::Unnamed(value) => (Some(position), value),
                FunctionArg::Named { name, arg, .. } => {
                    (names.iter().position(|known| name.value.eq_ignore_ascii_case(known)), arg)
                }
                FunctionArg::ExprNamed { arg, .. } => (None, arg),
            };
            let place = index.and_then(|index| found.get_mut(index)).filter(|place| place.is_none());
            match (place, value) {
                (Some(place), FunctionArgExpr::Expr(value)) => *place = Some(value.clone()),
                _ => return Err(usage(function)),
            }
        }
        let mut found = found.into_iter();
        let (Some(table), Some(time)) = (found.next().flatten(), found.next().flatten()) else {
            return Err(usage(function));
        };
        let spans: Option<Vec<ast::Expr>> = found.by_ref().take(window.spans().len()).collect();
        let (Some(spans), offset) = (spans, found.next().flatten()) else { return Err(usage(function)) };
        let (table, partition) = partitioned(table);
        if let Some(column) = partition.first().filter(|_| window != WindowFunction::Session) {
            let fault = Fault::new("PARTITION BY is for sessions: other windows are at fixed times");
            return Err(fault.at(column.span).help("leave it out, and group by the columns"));
        }
        let data = relation(table).ok_or_else(|| usage(function))?;
        Ok(Arguments { data, partition, time: descriptor(&time).ok_or_else(|| usage(function))?, spans, offset })
    }
}

/// A table or a subquery that is an argument, as a relation.
pub(crate) fn relation(table: ast::Expr) -> Option<TableFactor> {
    match table {
        ast::Expr::Identifier(name) => Some(table_factor(ObjectName::from(vec![name]))),
        ast::Expr::CompoundIdentifier(names) => Some(table_factor(ObjectName::from(names))),
        ast::Expr::Subquery(subquery) => {
            Some(TableFactor::Derived { lateral: false, subquery, alias: None, sample: None })
        }
        _ => None,
    }
}

/// A table, and the columns by which it is partitioned: the arguments of a call that stands for both.
fn partitioned(table: ast::Expr) -> (ast::Expr, Vec<Ident>) {
    let ast::Expr::Function(function) = &table else { return (table, Vec::new()) };
    let FunctionArguments::List(list) = &function.args else { return (table, Vec::new()) };
    if last(&function.name).is_none_or(|name| name.value != PARTITIONED) {
        return (table, Vec::new());
    }
    let mut args = list.args.iter().filter_map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    });
    let Some(data) = args.next() else { return (table, Vec::new()) };
    let column = |expr: ast::Expr| match expr {
        ast::Expr::Identifier(name) => Some(name),
        ast::Expr::CompoundIdentifier(names) => names.last().cloned(),
        _ => None,
    };
    (data, args.filter_map(column).collect())
}

impl Arguments {
    fn data_name(&self) -> String {
        match &self.data {
            TableFactor::Table { name, .. } => format!("'{name}'"),
            _ => "the subquery".to_owned(),
        }
    }
}

fn usage(window: WindowFunction, function: &Ident) -> Fault {
    let help = match window {
        WindowFunction::Sessions => format!("write GROUP BY {}", window.example()),
        _ => format!("write TABLE({}), with an offset as the last argument if need be", window.example()),
    };
    let name = window.example().split('(').next().unwrap_or_default();
    Fault::new(format!("{name} is called with other arguments than it takes")).at(function.span).help(help)
}

/// The column in `DESCRIPTOR(column)`.
pub(crate) fn descriptor(expr: &ast::Expr) -> Option<Ident> {
    let ast::Expr::Function(function) = expr else { return None };
    let FunctionArguments::List(list) = &function.args else { return None };
    let is_descriptor = last(&function.name)?.value.eq_ignore_ascii_case("DESCRIPTOR");
    match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Identifier(name)))] if is_descriptor => {
            Some(name.clone())
        }
        _ => None,
    }
}

fn table_factor(name: ObjectName) -> TableFactor {
    TableFactor::Table {
        name,
        alias: None,
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    }
}

/// The length of a constant interval.
fn millis(context: &mut dyn RelationPlannerContext, expr: &ast::Expr) -> Result<i64, DataFusionError> {
    let fault = |message: &str| Fault::new(message).at(expr.span()).help("write for example INTERVAL '15' MINUTE");
    let planned = context.sql_to_expr(expr.clone(), &DFSchema::empty())?;
    let (months, days, nanos) = match planned {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(value)), _) => {
            (value.months, value.days, value.nanoseconds)
        }
        Expr::Literal(ScalarValue::IntervalDayTime(Some(value)), _) => {
            (0, value.days, i64::from(value.milliseconds) * 1_000_000)
        }
        Expr::Literal(ScalarValue::IntervalYearMonth(Some(months)), _) => (months, 0, 0),
        _ => return Err(fault("a window's size is a constant interval").into_datafusion()),
    };
    if months != 0 {
        return Err(fault("a window cannot be months long, as months differ").into_datafusion());
    }
    let millis = i64::from(days) * 86_400_000 + nanos / 1_000_000;
    if nanos % 1_000_000 != 0 {
        return Err(fault("a window is whole milliseconds long").into_datafusion());
    }
    Ok(millis)
}
