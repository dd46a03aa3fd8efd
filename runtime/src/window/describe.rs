//! What a window keeps, and what gives it its meaning.

use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion_physical_expr::PhysicalExpr;

use super::kind::WindowKind;
use super::spec::{WindowAggregateSpec, WindowColumn};
use crate::graph::Lineage;
use crate::group_table::Aggregate;
use crate::state::{Facet, FreedBy, OperatorState, StateColumn, StateTable, span};

/// The state of a window over rows of `input`.
pub(super) fn state(spec: &WindowAggregateSpec, input: &Lineage) -> OperatorState {
    let or_none = |texts: Vec<String>| if texts.is_empty() { "none".to_owned() } else { texts.join(", ") };
    let keys = spec.keys.iter().map(|(expr, _)| input.typed(expr)).collect();
    let aggregates = spec.aggregates.iter().map(|aggregate| input.aggregate(aggregate)).collect();
    let changes = if spec.changelog.is_some() { "inserts, updates and deletes" } else { "inserts" };
    let facets = vec![
        Facet::new("window", windows(spec, input)),
        Facet::new("keys", or_none(keys)),
        Facet::new("aggregates", or_none(aggregates)),
        // Windows are aligned to the epoch, and instants have no zone.
        Facet::new("time zone", "UTC"),
        Facet::new("changelog", changes),
        Facet::new("input", input.rows()),
    ];
    OperatorState { kind: "window", tables: vec![slices(spec), watermark()], facets }
}

/// Where the rows of a window's result come from.
pub(super) fn lineage(spec: &WindowAggregateSpec, input: &Lineage) -> Lineage {
    let keys: Vec<String> = spec.keys.iter().map(|(expr, _)| input.text(expr)).collect();
    let aggregates: Vec<String> = spec.aggregates.iter().map(|aggregate| input.aggregate(aggregate)).collect();
    let by = if keys.is_empty() { String::new() } else { format!(" BY {}", keys.join(", ")) };
    let from = format!("[{}{by}: {} OF {}]", windows(spec, input), aggregates.join(", "), input.rows());
    let columns = spec.output.iter().map(|column| match column {
        WindowColumn::Start => "window_start".to_owned(),
        WindowColumn::End => "window_end".to_owned(),
        WindowColumn::Time => "window_time".to_owned(),
        WindowColumn::Key(index) => keys[*index].clone(),
        WindowColumn::Aggregate(index) => aggregates[*index].clone(),
    });
    Lineage::new(from, columns.collect(), spec.schema.clone())
}

impl WindowAggregateSpec {
    /// The same aggregation with its keys and aggregates sorted by what they are over the source's columns, so that it keeps the same state in whatever
    /// order a query names them. The result's columns stay as they are.
    #[must_use]
    pub fn in_canonical_order(mut self, input: &Lineage) -> Self {
        sort_canonically(&mut self.keys, &mut self.aggregates, &mut self.output, input);
        self
    }
}

/// Sorts keys and aggregates by what they are over the source's columns, and lets the result's columns find them again.
pub(super) fn sort_canonically(
    keys: &mut Vec<(Arc<dyn PhysicalExpr>, FieldRef)>,
    aggregates: &mut Vec<Aggregate>,
    output: &mut [WindowColumn],
    input: &Lineage,
) {
    let key_order = order(keys.iter().map(|(expr, _)| input.typed(expr)));
    let aggregate_order = order(aggregates.iter().map(|aggregate| input.aggregate(aggregate)));
    *keys = key_order.iter().map(|old| keys[*old].clone()).collect();
    *aggregates = aggregate_order.iter().map(|old| aggregates[*old].clone()).collect();
    let moved = |order: &[usize], old: usize| order.iter().position(|at| *at == old).unwrap_or(old);
    for column in output {
        *column = match *column {
            WindowColumn::Key(old) => WindowColumn::Key(moved(&key_order, old)),
            WindowColumn::Aggregate(old) => WindowColumn::Aggregate(moved(&aggregate_order, old)),
            other => other,
        };
    }
}

/// The places of texts in sorted order.
fn order(texts: impl Iterator<Item = String>) -> Vec<usize> {
    let texts: Vec<String> = texts.collect();
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by(|a, b| texts[*a].cmp(&texts[*b]));
    order
}

/// The windows: `TUMBLE(flights.departed_at, 1 h)`, `HOP(flights.departed_at, 10 min, 1 h)`.
fn windows(spec: &WindowAggregateSpec, input: &Lineage) -> String {
    let text = input.text(&spec.slice_end);
    let slice = span(spec.windows.slice_millis().unsigned_abs());
    match (spec.windows.kind(), bound(&text, &slice)) {
        (WindowKind::Tumbling { .. }, None) => text,
        (WindowKind::Tumbling { .. }, Some((mut time, arguments))) => {
            // The end of the window that another bound of it is in.
            while let Some((inner, same)) = bound(time, &slice)
                && same == arguments
            {
                time = inner;
            }
            format!("TUMBLE({time}{arguments})")
        }
        // The arguments are those of the slice, which say less than the windows do.
        (_, found) => spec.windows.called_with(found.map_or(&text, |(time, _)| time)),
    }
}

/// The time that a bound of a window is of, and the other arguments, in canonical text.
fn bound<'a>(text: &'a str, size: &str) -> Option<(&'a str, &'a str)> {
    let (bound, arguments) = text.strip_prefix("TUMBLE_")?.split_once('(')?;
    let arguments = arguments.strip_suffix(')').filter(|_| matches!(bound, "START" | "END" | "TIME"))?;
    let (time, others) = arguments.split_at(arguments.rfind(&format!(", {size}"))?);
    // Not the arguments of a call within.
    (time.matches('(').count() == time.matches(')').count()).then_some((time, others))
}

fn slices(spec: &WindowAggregateSpec) -> StateTable {
    let (end, spans) = match spec.windows.kind() {
        WindowKind::Tumbling { .. } => ("window_end", "open windows"),
        WindowKind::Hopping { .. } | WindowKind::Cumulating { .. } => ("slice_end", "slices of open windows"),
    };
    let mut key = vec![StateColumn::new(end, "Timestamp(ms)")];
    key.extend(spec.keys.iter().map(|(_, field)| StateColumn::new(field.name(), field.data_type())));
    let aggregates = || {
        spec.aggregates
            .iter()
            .map(|aggregate| StateColumn::new(aggregate.function.name(), aggregate.function.field().data_type()))
    };
    let per_key = if spec.keys.is_empty() { spans.to_owned() } else { format!("keys × {spans}") };
    let (value, bound) = match &spec.changelog {
        None => (aggregates().collect(), per_key),
        Some(_) => {
            key.extend(
                aggregates().map(|column| StateColumn::new(format!("arguments of {}", column.name), "as given")),
            );
            (vec![StateColumn::new("how often", "Int64")], format!("distinct rows of {per_key}"))
        }
    };
    StateTable { name: "windows".to_owned(), key, value, freed_by: FreedBy::WindowEnd, bound }
}

fn watermark() -> StateTable {
    StateTable {
        name: "watermark".to_owned(),
        key: vec![StateColumn::new("subtask", "UInt32")],
        value: vec![StateColumn::new("watermark", "instant")],
        freed_by: FreedBy::Never,
        bound: "one per subtask".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::bound;

    #[test]
    fn a_bound_is_taken_apart() {
        assert_eq!(bound("TUMBLE_END(t.at, 1 h)", "1 h"), Some(("t.at", ", 1 h")));
        assert_eq!(
            bound("TUMBLE_TIME(f(t.at, 1 h), 1 h, offset 5 min)", "1 h"),
            Some(("f(t.at, 1 h)", ", 1 h, offset 5 min"))
        );
        assert_eq!(bound("TUMBLE_END(t.at, 2 h)", "1 h"), None);
        assert_eq!(bound("OTHER(t.at, 1 h)", "1 h"), None);
    }
}
