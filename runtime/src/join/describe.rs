//! How a join is shown, what it keeps, and what gives that its meaning.

use super::{JoinKind, JoinSide, JoinSpec};
use crate::graph::Lineage;
use crate::row_errors::expression_text;
use crate::state::{Facet, FreedBy, OperatorState, StateColumn, StateTable};

impl JoinSpec {
    /// `Join: inner on (a = b), where (c > d)`.
    pub(super) fn describe(&self) -> String {
        let equals = self.left.keys.iter().zip(&self.right.keys);
        let on: Vec<String> =
            equals.map(|(left, right)| format!("{} = {}", expression_text(left), expression_text(right))).collect();
        let on = if on.is_empty() { String::new() } else { format!(" on {}", on.join(", ")) };
        let condition = self.condition.as_ref();
        let condition = condition.map(|expr| format!(", where {}", expression_text(expr))).unwrap_or_default();
        format!("Join: {}{on}{condition}", self.kind.name())
    }
}

/// What both sides' rows are compared by, over where they come from.
fn keys(side: &JoinSide, input: &Lineage) -> String {
    let keys: Vec<String> = side.keys.iter().map(|key| input.typed(key)).collect();
    if keys.is_empty() { "none".to_owned() } else { keys.join(", ") }
}

/// The condition over the columns of both sides.
fn condition(spec: &JoinSpec, left: &Lineage, right: &Lineage) -> String {
    let both = Lineage::pairs(left, right);
    spec.condition.as_ref().map_or("none".to_owned(), |condition| both.text(condition))
}

pub(super) fn state(spec: &JoinSpec, left: &Lineage, right: &Lineage) -> OperatorState {
    let nulls = if spec.null_equals_null { "equal" } else { "differ" };
    let facets = vec![
        Facet::new("join", spec.kind.name()),
        Facet::new("left keys", keys(&spec.left, left)),
        Facet::new("right keys", keys(&spec.right, right)),
        Facet::new("condition", condition(spec, left, right)),
        Facet::new("null keys", nulls),
        // Rows are kept whole.
        Facet::new("left columns", left.typed_columns()),
        Facet::new("right columns", right.typed_columns()),
        Facet::new("left input", left.rows()),
        Facet::new("right input", right.rows()),
    ];
    let tables = vec![table("left", &spec.left, left), table("right", &spec.right, right)];
    OperatorState { kind: "join", tables, facets }
}

fn table(name: &str, side: &JoinSide, input: &Lineage) -> StateTable {
    let mut key: Vec<StateColumn> = side.keys.iter().map(|key| StateColumn::new(input.text(key), "key")).collect();
    key.push(StateColumn::new("row", "all columns"));
    let ttl = side.ttl_millis.and_then(|millis| u64::try_from(millis).ok());
    StateTable {
        name: format!("{name} rows"),
        key,
        value: vec![StateColumn::new("count", "UInt64"), StateColumn::new("matching", "UInt64")],
        freed_by: FreedBy::ttl_or(ttl, FreedBy::Never),
        bound: format!("distinct rows of the {name} side"),
    }
}

pub(super) fn lineage(spec: &JoinSpec, left: &Lineage, right: &Lineage) -> Lineage {
    let on = format!("{} = {}", keys(&spec.left, left), keys(&spec.right, right));
    let condition = condition(spec, left, right);
    let from = format!("[{} JOIN OF {} AND {} ON {on} WHERE {condition}]", spec.kind.name(), left.rows(), right.rows());
    if spec.kind == JoinKind::LeftMark {
        return left.with_columns(from, ["has a match".to_owned()], spec.schema.clone());
    }
    let both = Lineage::pairs(left, right);
    both.derived(from, spec.schema.clone())
}
