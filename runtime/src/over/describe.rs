//! How an OVER aggregation is shown, what it keeps, and what gives that its meaning.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, TimeUnit};
use datafusion_physical_expr::PhysicalExpr;

use super::{OverCall, OverMode, OverSpec, Share};
use crate::graph::Lineage;
use crate::row_errors::expression_text;
use crate::state::{Facet, FreedBy, OperatorState, StateColumn, StateTable, span};

impl OverSpec {
    /// `Over: sum(x) ROWS BETWEEN 2 PRECEDING AND CURRENT ROW of carrier by ts`.
    pub(super) fn describe(&self) -> String {
        let partition: Vec<String> = self.partition.iter().map(expression_text).collect();
        let of = if partition.is_empty() { String::new() } else { format!(" of {}", partition.join(", ")) };
        let call =
            |call: &OverCall| self.call(call, &expression_text, &|aggregate| aggregate.function.name().to_owned());
        let calls: Vec<String> = self.calls.iter().map(call).collect();
        format!("Over: {}{of}{}", calls.join(", "), self.by(" by ", expression_text))
    }

    fn call(
        &self,
        call: &OverCall,
        text: &dyn Fn(&Arc<dyn PhysicalExpr>) -> String,
        aggregated: &dyn Fn(&crate::group_table::Aggregate) -> String,
    ) -> String {
        match call {
            OverCall::Number(function) => format!("{}()", function.name()),
            OverCall::Aggregate(aggregate, frame) => {
                format!("{} {}", aggregated(aggregate), frame.text(|number| self.range_text(number)))
            }
            OverCall::Share(Share::PercentRank) => "PERCENT_RANK()".to_owned(),
            OverCall::Share(Share::CumeDist) => "CUME_DIST()".to_owned(),
            OverCall::Share(Share::Ntile(parts)) => format!("NTILE({parts})"),
            OverCall::Shifted { value, by, default } => {
                let function = if *by > 0 { "LEAD" } else { "LAG" };
                format!("{function}({}, {}, {default})", text(value), by.unsigned_abs())
            }
        }
    }

    /// A number of the order's unit.
    fn range_text(&self, number: i64) -> String {
        let data_type = self.order.first().and_then(|(expr, _)| expr.data_type(&self.input).ok());
        let Some(DataType::Timestamp(unit, _)) = data_type else { return number.to_string() };
        let per_milli = match unit {
            TimeUnit::Second => return span(number.unsigned_abs().saturating_mul(1_000)),
            TimeUnit::Millisecond => 1,
            TimeUnit::Microsecond => 1_000,
            TimeUnit::Nanosecond => 1_000_000,
        };
        if number % per_milli == 0 { span((number / per_milli).unsigned_abs()) } else { format!("{number} {unit:?}s") }
    }

    /// The order behind some words, nothing without an order.
    fn by(&self, words: &str, text: impl Fn(&Arc<dyn PhysicalExpr>) -> String) -> String {
        if self.order.is_empty() { String::new() } else { format!("{words}{}", self.ordered_by(text)) }
    }

    fn ordered_by(&self, text: impl Fn(&Arc<dyn PhysicalExpr>) -> String) -> String {
        let key = |(expr, options): &(Arc<dyn PhysicalExpr>, SortOptions)| {
            let order = if options.descending { " DESC" } else { "" };
            // As in Flink, a null is below every value, which is not said.
            let nulls = match (options.nulls_first, options.descending) {
                (true, false) | (false, true) => "",
                (true, true) => " NULLS FIRST",
                (false, false) => " NULLS LAST",
            };
            format!("{}{order}{nulls}", text(expr))
        };
        self.order.iter().map(key).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn state(&self, input: &Lineage) -> OperatorState {
        let or_none = |texts: Vec<String>| if texts.concat().is_empty() { "none".to_owned() } else { texts.join(", ") };
        let call =
            |call: &OverCall| self.call(call, &|expr| input.typed(expr), &|aggregate| input.aggregate(aggregate));
        let facets = vec![
            Facet::new("partition", or_none(self.partition.iter().map(|expr| input.typed(expr)).collect())),
            Facet::new("order", or_none(vec![self.ordered_by(|expr| input.typed(expr))])),
            Facet::new("time", self.emitted(input)),
            Facet::new("calls", self.calls.iter().map(call).collect::<Vec<_>>().join(", ")),
            Facet::new("columns", input.typed_columns()),
            Facet::new("input", input.rows()),
        ];
        let key: Vec<StateColumn> =
            self.partition.iter().map(|expr| StateColumn::new(input.text(expr), "key")).collect();
        let with = |name: &str, data_type: &str| {
            key.iter().cloned().chain([StateColumn::new(name, data_type)]).collect::<Vec<StateColumn>>()
        };
        let rows = vec![StateColumn::new("row", "all columns")];
        if let OverMode::Updating { ttl_millis, .. } = &self.mode {
            let ttl = ttl_millis.and_then(|millis| u64::try_from(millis).ok());
            let table = StateTable {
                name: "rows".to_owned(),
                key: key.iter().cloned().chain(rows).collect(),
                value: vec![StateColumn::new("what was emitted", "bytes")],
                freed_by: FreedBy::ttl_or(ttl, FreedBy::Never),
                bound: "rows".to_owned(),
            };
            return OperatorState { kind: "over", tables: vec![table], facets };
        }
        let waiting = if self.time().is_some() { "rows ahead of the watermark" } else { "rows" };
        let kept = match (self.rows_back(), self.range_back()) {
            (0, None) => waiting.to_owned(),
            (rows, None) => format!("{waiting} + partitions × {rows}"),
            (0, Some(range)) => format!("{waiting} + those of {}", self.range_text(range)),
            (rows, Some(range)) => format!("{waiting} + those of {} + partitions × {rows}", self.range_text(range)),
        };
        let table = |name: &str, key, value, freed_by, bound: &str| StateTable {
            name: name.to_owned(),
            key,
            value,
            freed_by,
            bound: bound.to_owned(),
        };
        let partition = vec![StateColumn::new("counters and accumulators", "bytes")];
        let tables = vec![
            table("rows", with("time, order, arrival", "bytes"), rows, FreedBy::Timer, &kept),
            table("partitions", key.clone(), partition, FreedBy::Never, "partitions"),
            table("timers", with("at", "instant"), Vec::new(), FreedBy::Timer, "partitions"),
            table("watermark", Vec::new(), vec![StateColumn::new("watermark", "instant")], FreedBy::Never, "one"),
        ];
        OperatorState { kind: "over", tables, facets }
    }

    /// What rows wait for.
    fn emitted(&self, input: &Lineage) -> String {
        match &self.mode {
            OverMode::ByTime(time) => input.typed(time),
            OverMode::AtEnd => "end of the input".to_owned(),
            OverMode::Updating { .. } => "none: rows are updated".to_owned(),
        }
    }

    pub(super) fn lineage(&self, input: &Lineage) -> Lineage {
        let partition: Vec<String> = self.partition.iter().map(|expr| input.text(expr)).collect();
        let over = format!("OVER ({}{})", partition.join(", "), self.by(" ORDER BY ", |expr| input.text(expr)));
        let call = |call: &OverCall| {
            let text = self.call(call, &|expr| input.text(expr), &|aggregate| input.aggregate(aggregate));
            format!("{text} {over}")
        };
        input.with_columns(input.rows(), self.calls.iter().map(call), self.schema.clone())
    }
}
