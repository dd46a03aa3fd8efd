//! What a group aggregate keeps, and what gives it its meaning.

use super::layout::Layout;
use super::spec::GroupAggregateSpec;
use crate::graph::Lineage;
use crate::state::{Facet, FreedBy, OperatorState, StateColumn, StateTable, span};

/// The state of a group aggregate over rows of `input`.
pub(super) fn state(spec: &GroupAggregateSpec, input: &Lineage) -> OperatorState {
    let or_none = |texts: Vec<String>| if texts.is_empty() { "none".to_owned() } else { texts.join(", ") };
    let keys = spec.keys.iter().map(|(expr, _)| input.typed(expr)).collect();
    let aggregates = spec.aggregates.iter().map(|aggregate| input.aggregate(aggregate)).collect();
    let changes = if spec.changelog { "inserts, updates and deletes" } else { "inserts" };
    let ttl = spec.ttl_millis.map(i64::unsigned_abs);
    let facets = vec![
        Facet::new("keys", or_none(keys)),
        Facet::new("aggregates", or_none(aggregates)),
        Facet::new("changelog", changes),
        // SUBTLE: entries that expire are in other tables than entries that do not, so the one cannot become the other.
        Facet::new("expires", if ttl.is_some() { "yes" } else { "no" }),
        Facet::adapting("time to live", ttl.map_or("none".to_owned(), span)),
        Facet::new("input", input.rows()),
    ];
    OperatorState { kind: "group aggregate", tables: tables(spec, ttl), facets }
}

/// Where the rows of the result come from.
pub(super) fn lineage(spec: &GroupAggregateSpec, input: &Lineage) -> Lineage {
    let keys = spec.keys.iter().map(|(expr, _)| input.text(expr));
    let aggregates = spec.aggregates.iter().map(|aggregate| input.aggregate(aggregate));
    let columns: Vec<String> = keys.chain(aggregates).collect();
    let (keys, aggregates) = columns.split_at(spec.keys.len());
    let by = if keys.is_empty() { String::new() } else { format!(" BY {}", keys.join(", ")) };
    let from = format!("[GROUP{by}: {} OF {}]", aggregates.join(", "), input.rows());
    Lineage::new(from, columns, spec.schema.clone())
}

fn tables(spec: &GroupAggregateSpec, ttl: Option<u64>) -> Vec<StateTable> {
    let key: Vec<StateColumn> =
        spec.keys.iter().map(|(_, field)| StateColumn::new(field.name(), field.data_type())).collect();
    let rows = spec.changelog.then(|| StateColumn::new("rows", "Int64"));
    let mut value: Vec<StateColumn> = rows.into_iter().collect();
    value.extend(spec.aggregates.iter().map(|aggregate| {
        StateColumn::new(format!("state of {}", aggregate.function.name()), aggregate.function.field().data_type())
    }));
    // Over a changelog a key is deleted with its last row, and a value with the last row that has it.
    let otherwise = if spec.changelog { FreedBy::Function } else { FreedBy::Never };
    let freed_by = FreedBy::ttl_or(ttl, otherwise);
    let table = |name: &str, key: Vec<StateColumn>, value: Vec<StateColumn>, bound: &str| StateTable {
        name: name.to_owned(),
        key,
        value,
        freed_by,
        bound: bound.to_owned(),
    };
    let mut tables = vec![table("states", key.clone(), value, if key.is_empty() { "one" } else { "one per key" })];
    // Creating the operator reports the error; a description must not fail.
    if Layout::new(spec).is_ok_and(|layout| !layout.sets.is_empty()) {
        let of_values = key.into_iter().chain([StateColumn::new("value", "as given")]).collect();
        tables.push(table(
            "values",
            of_values,
            vec![StateColumn::new("how often", "Int64")],
            "distinct values per key",
        ));
    }
    tables
}
