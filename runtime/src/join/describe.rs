//! How a join is shown, what it keeps, and what gives that its meaning.

use super::{IntervalJoinSpec, JoinKind, JoinSide, JoinSpec, Retention, TemporalJoinSpec};
use crate::graph::Lineage;
use crate::operator::InputIndex;
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
    let side = |input, name, lineage| match spec.keeps_lists(input) {
        true => list(name, spec.side(input), lineage),
        false => table(name, spec.side(input), lineage),
    };
    let tables = vec![side(InputIndex::FIRST, "left", left), side(InputIndex::SECOND, "right", right)];
    let lists = [InputIndex::FIRST, InputIndex::SECOND].map(|input| spec.keeps_lists(input));
    let mut facets = facets(spec, left, right);
    // Lists and counted rows are stored differently; states of before lists have no such facet, but the other kind.
    let kind = if lists.contains(&true) { "join of appended rows" } else { "join" };
    let how = |is_list: bool| if is_list { "as they come" } else { "counted" };
    facets.push(Facet::new("left rows kept", how(lists[0])));
    facets.push(Facet::new("right rows kept", how(lists[1])));
    OperatorState { kind, tables, facets }
}

/// The same of a join in event time.
pub(super) fn interval_state(
    spec: &IntervalJoinSpec,
    retentions: &[Retention; 2],
    left: &Lineage,
    right: &Lineage,
) -> OperatorState {
    let mut facets = facets(&spec.join, left, right);
    let mut tables = vec![table("left", &spec.join.left, left), table("right", &spec.join.right, right)];
    let sides = [("left", left), ("right", right)];
    for (index, ((name, input), Retention { time, millis })) in sides.into_iter().zip(retentions).enumerate() {
        tables[index].freed_by =
            if spec.of_windows { FreedBy::WindowEnd } else { FreedBy::RowTime { millis: *millis } };
        facets.push(Facet::new(&format!("{name} time"), format!("{} {millis:+} ms", input.typed(time))));
        tables.push(StateTable {
            name: format!("{name} times"),
            key: vec![StateColumn::new("time", "Timestamp(ms)"), StateColumn::new("key", "bytes")],
            value: Vec::new(),
            freed_by: FreedBy::Timer,
            bound: format!("times × keys of the {name} rows"),
        });
    }
    facets.push(Facet::new("late rows", if spec.of_windows { "dropped" } else { "joined with what is there" }));
    tables.push(StateTable {
        name: "watermark".to_owned(),
        key: Vec::new(),
        value: vec![StateColumn::new("reached", "Timestamp(ms)")],
        freed_by: FreedBy::Never,
        bound: "one".to_owned(),
    });
    OperatorState { kind: "interval join", tables, facets }
}

impl TemporalJoinSpec {
    /// `TemporalJoin: left on (a = b), where (c > d)`.
    pub(super) fn describe(&self) -> String {
        let equals = self.left.keys.iter().zip(&self.right.keys);
        let on: Vec<String> =
            equals.map(|(left, right)| format!("{} = {}", expression_text(left), expression_text(right))).collect();
        let condition = self.condition.as_ref();
        let condition = condition.map(|expr| format!(", where {}", expression_text(expr))).unwrap_or_default();
        format!("TemporalJoin: {} on {}{condition}", self.kind(), on.join(", "))
    }

    fn kind(&self) -> &'static str {
        if self.is_outer { "left" } else { "inner" }
    }

    fn time(side: &JoinSide, input: &Lineage) -> String {
        side.retention.as_ref().map_or("none".to_owned(), |retention| input.typed(&retention.time))
    }
}

/// What a join with versions keeps. Its condition and whether it is an outer one are about what leaves, and may change.
pub(super) fn temporal_state(spec: &TemporalJoinSpec, left: &Lineage, right: &Lineage) -> OperatorState {
    let facets = vec![
        Facet::new("left keys", keys(&spec.left, left)),
        Facet::new("right keys", keys(&spec.right, right)),
        Facet::new("left time", TemporalJoinSpec::time(&spec.left, left)),
        Facet::new("right time", TemporalJoinSpec::time(&spec.right, right)),
        Facet::adapting("join", spec.kind()),
        Facet::new("left columns", left.typed_columns()),
        Facet::new("right columns", right.typed_columns()),
        Facet::new("left input", left.rows()),
        Facet::new("right input", right.rows()),
    ];
    let key = |side: &JoinSide, input: &Lineage, last: StateColumn| {
        let keys = side.keys.iter().map(|key| StateColumn::new(input.text(key), "key"));
        keys.chain([last]).collect::<Vec<_>>()
    };
    let mut rows = table("left", &spec.left, left);
    rows.freed_by = FreedBy::RowTime { millis: 0 };
    let versions = StateTable {
        name: "versions".to_owned(),
        key: key(&spec.right, right, StateColumn::new("time", "Timestamp(ms)")),
        value: vec![StateColumn::new("row", "all columns")],
        freed_by: FreedBy::RowTime { millis: 0 },
        bound: "keys of the table, and versions that are newer than the watermark".to_owned(),
    };
    let times = StateTable {
        name: "times".to_owned(),
        key: vec![StateColumn::new("time", "Timestamp(ms)"), StateColumn::new("key", "bytes")],
        value: Vec::new(),
        freed_by: FreedBy::Timer,
        bound: "times × keys that are newer than the watermark".to_owned(),
    };
    let watermark = StateTable {
        name: "watermark".to_owned(),
        key: Vec::new(),
        value: vec![StateColumn::new("reached", "Timestamp(ms)")],
        freed_by: FreedBy::Never,
        bound: "one".to_owned(),
    };
    OperatorState { kind: "temporal join", tables: vec![rows, versions, times, watermark], facets }
}

pub(super) fn temporal_lineage(spec: &TemporalJoinSpec, left: &Lineage, right: &Lineage) -> Lineage {
    let on = format!("{} = {}", keys(&spec.left, left), keys(&spec.right, right));
    let both = Lineage::pairs(left, right);
    let condition = spec.condition.as_ref().map_or("none".to_owned(), |condition| both.text(condition));
    let (kind, rows, versions) = (spec.kind(), left.rows(), right.rows());
    let time = TemporalJoinSpec::time(&spec.left, left);
    let from = format!("[{kind} JOIN OF {rows} AND {versions} AS OF {time} ON {on} WHERE {condition}]");
    both.derived(from, spec.schema.clone())
}

/// What gives the kept rows their meaning.
fn facets(spec: &JoinSpec, left: &Lineage, right: &Lineage) -> Vec<Facet> {
    let nulls = if spec.null_equals_null { "equal" } else { "differ" };
    vec![
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
    ]
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

/// The rows of a side that are only appended.
fn list(name: &str, side: &JoinSide, input: &Lineage) -> StateTable {
    StateTable {
        name: format!("{name} rows"),
        key: side.keys.iter().map(|key| StateColumn::new(input.text(key), "key")).collect(),
        value: vec![StateColumn::new("rows", "all columns")],
        freed_by: FreedBy::Never,
        bound: format!("rows of the {name} side"),
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
