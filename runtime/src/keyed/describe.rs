//! What a function keeps per key, and what gives it its meaning.

use std::sync::Arc;

use datafusion_physical_expr::PhysicalExpr;

use crate::graph::Lineage;
use crate::state::{Facet, FreedBy, OperatorState, StateColumn, StateTable};

/// The state of a function whose state has the Rust type `state`, over rows of `input`.
///
/// The function is the author's, who named it: another input or another name of the type is noted. What the runtime itself would misread is refused.
pub(super) fn state(
    state: &str,
    keys: &[Arc<dyn PhysicalExpr>],
    ttl_millis: Option<u64>,
    input: &Lineage,
) -> OperatorState {
    let typed: Vec<String> = keys.iter().map(|key| input.typed(key)).collect();
    let ttl = ttl_millis.map_or("none".to_owned(), crate::state::span);
    let facets = vec![
        Facet::new("keys", typed.join(", ")),
        // SUBTLE: entries that expire are in other tables than entries that do not, so the one cannot become the other.
        Facet::new("expires", if ttl_millis.is_some() { "yes" } else { "no" }),
        Facet::adapting("time to live", ttl),
        Facet::adapting("type", state),
        Facet::adapting("input", input.rows()),
    ];
    let freed_by = FreedBy::ttl_or(ttl_millis, FreedBy::Function);
    let key: Vec<StateColumn> = keys.iter().map(|key| column(key, input)).collect();
    let with = |column: StateColumn| key.iter().cloned().chain([column]).collect::<Vec<_>>();
    let table = |name: &str, key: Vec<StateColumn>, value: Vec<StateColumn>, freed_by: FreedBy, bound: &str| {
        StateTable { name: name.to_owned(), key, value, freed_by, bound: bound.to_owned() }
    };
    let instant = || StateColumn::new("at", "instant");
    let tables = vec![
        table("states", key.clone(), vec![StateColumn::new("state", state)], freed_by, "one per key"),
        table(
            "collections",
            with(StateColumn::new("map key", "of the collection")),
            vec![StateColumn::new("element", "of the collection")],
            freed_by,
            "entries per key",
        ),
        table("timers", with(instant()), Vec::new(), FreedBy::Timer, "instants per key"),
        table("watermark", Vec::new(), vec![StateColumn::new("watermark", "instant")], FreedBy::Never, "one"),
    ];
    OperatorState { kind: "function", tables, facets }
}

fn column(key: &Arc<dyn PhysicalExpr>, input: &Lineage) -> StateColumn {
    match key.data_type(input.schema()) {
        Ok(data_type) => StateColumn::new(input.text(key), data_type),
        Err(_) => StateColumn::new(input.text(key), "unknown"),
    }
}
