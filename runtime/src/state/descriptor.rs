//! What an operator keeps in checkpoints, as plain data: one description that `EXPLAIN`, `coulee job show`, a savepoint and the check at a start read.
//!
//! An operator describes its state in one place, [`OperatorFactory::state`](crate::graph::OperatorFactory::state);
//! [`Graph::states`](crate::graph::Graph::states) adds who the operator is. A descriptor is stored with every checkpoint and compared at every start: the
//! *facets* say what gives the stored bytes their meaning, as text, so that a refusal can say what was and what is.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A facet's text is at most so long; what is longer is cut and ends in its hash.
const FACET_BYTES_MAX: usize = 4_096;

/// What a change of a facet means for the stored state. Decided by the program that compares, not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IfChanged {
    /// The stored state would mean something else: the job is refused.
    #[default]
    Refuse,
    /// The stored state stays valid: the job goes on, and says so.
    GoOn,
    /// As `GoOn`, without a word: the facet serves to tell operators of equal names apart.
    Ignore,
}

/// One aspect of what gives stored state its meaning: the window, the keys, the input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facet {
    /// Which: `window`, `keys`, `input`. Unique within an operator.
    pub name: String,
    /// Canonical text: columns are named as their source has them, so that aliases and unrelated columns do not matter.
    pub text: String,
    /// What a change means.
    #[serde(skip)]
    pub if_changed: IfChanged,
}

impl Facet {
    /// A facet whose change is refused.
    pub fn new(name: &str, text: impl Into<String>) -> Self {
        Facet { name: name.to_owned(), text: bounded(text.into()), if_changed: IfChanged::Refuse }
    }

    /// A facet whose change leaves the stored state valid.
    pub fn adapting(name: &str, text: impl Into<String>) -> Self {
        Facet { if_changed: IfChanged::GoOn, ..Self::new(name, text) }
    }

    /// A facet that only tells operators apart.
    pub fn telling(name: &str, text: impl Into<String>) -> Self {
        Facet { if_changed: IfChanged::Ignore, ..Self::new(name, text) }
    }
}

/// Cuts what is too long to be stored with every checkpoint. Equal texts stay equal, and different ones different.
pub(crate) fn bounded(text: String) -> String {
    if text.len() <= FACET_BYTES_MAX {
        return text;
    }
    let end = (0..=FACET_BYTES_MAX / 2).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let hash = xxhash_rust::xxh3::xxh3_128(text.as_bytes());
    format!("{}… ({} bytes, XXH3-128 {hash:032x})", &text[..end], text.len())
}

/// A column of a state table's key or value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateColumn {
    /// Its name.
    pub name: String,
    /// Its type, as Arrow names it, or what it holds where it is no column of Arrow's.
    pub data_type: String,
}

impl StateColumn {
    /// A column.
    pub fn new(name: impl Into<String>, data_type: impl fmt::Display) -> Self {
        StateColumn { name: name.into(), data_type: data_type.to_string() }
    }
}

/// What removes an entry of a state table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FreedBy {
    /// The watermark, when it passes the end of the entry's window; of the last one, where windows share the entry.
    WindowEnd,
    /// The watermark, when it passes the time of the row and so many milliseconds more.
    RowTime {
        /// How many.
        millis: i64,
    },
    /// The wall clock, so many milliseconds after the entry's last change.
    Ttl {
        /// How long.
        millis: u64,
    },
    /// The timer, when it has fired or was deleted.
    Timer,
    /// The commit of what a sink prepared.
    Commit,
    /// The function, by its own doing only.
    Function,
    /// Nothing.
    Never,
}

impl FreedBy {
    /// A time to live, if there is one.
    pub fn ttl_or(millis: Option<u64>, otherwise: FreedBy) -> Self {
        millis.map_or(otherwise, |millis| FreedBy::Ttl { millis })
    }
}

impl fmt::Display for FreedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FreedBy::WindowEnd => f.write_str("freed when the watermark passes window_end"),
            FreedBy::RowTime { millis: 0 } => f.write_str("freed when the watermark passes the row's time"),
            FreedBy::RowTime { millis } => {
                let (sign, millis) = (if *millis < 0 { '-' } else { '+' }, span(millis.unsigned_abs()));
                write!(f, "freed when the watermark passes the row's time {sign} {millis}")
            }
            FreedBy::Ttl { millis } => write!(f, "freed {} after its last change", span(*millis)),
            FreedBy::Timer => f.write_str("freed when the timer has fired"),
            FreedBy::Commit => f.write_str("freed by the commit"),
            FreedBy::Function => f.write_str("freed by the function only"),
            FreedBy::Never => f.write_str("never freed"),
        }
    }
}

/// A span of time in the largest unit that fits: `15 min`.
pub fn span(millis: u64) -> String {
    for (unit, name) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")] {
        if millis >= unit && millis.is_multiple_of(unit) {
            return format!("{} {name}", millis / unit);
        }
    }
    format!("{millis} ms")
}

/// A table of an operator's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateTable {
    /// What it holds, in one or two words: `windows`, `positions`.
    pub name: String,
    /// What an entry is found by.
    pub key: Vec<StateColumn>,
    /// What an entry holds.
    pub value: Vec<StateColumn>,
    /// What removes an entry.
    pub freed_by: FreedBy,
    /// How many entries there are at most: `keys × open windows`, `one per split`.
    pub bound: String,
}

impl StateTable {
    /// Whether how much it holds depends on the rows that came; otherwise there are as many entries as subtasks.
    pub fn depends_on_rows(&self) -> bool {
        self.key.iter().any(|column| column.name != "subtask")
    }
}

impl fmt::Display for StateTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |columns: &[StateColumn]| columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
        write!(
            f,
            "{}: ({}) per ({}), {}; {}",
            self.name,
            names(&self.value),
            names(&self.key),
            self.freed_by,
            self.bound
        )
    }
}

/// What an operator keeps, without who the operator is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorState {
    /// The kind of operator: `window`, `function`, `source`, `sink`.
    pub kind: &'static str,
    /// Its tables.
    pub tables: Vec<StateTable>,
    /// What gives them their meaning.
    pub facets: Vec<Facet>,
}

/// What an operator of a job keeps in checkpoints, and what gives it its meaning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateDescriptor {
    /// Whose state it is: what it is filed under.
    pub uid: String,
    /// What the operators are called among which this one is told apart by its facets rather than by its name; `None` when its name is its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// The kind of operator: `window`, `function`, `source`, `sink`, `operator`.
    pub kind: String,
    /// The operator in one line, for people.
    pub name: String,
    /// Its tables.
    pub tables: Vec<StateTable>,
    /// The fingerprint: what gives the tables their meaning.
    pub facets: Vec<Facet>,
}

impl StateDescriptor {
    /// The text of a facet.
    pub fn facet(&self, name: &str) -> Option<&str> {
        self.facets.iter().find(|facet| facet.name == name).map(|facet| facet.text.as_str())
    }

    /// Whether it is only what a source or a sink needs to go on: small, and of no interest to a reader of `EXPLAIN`.
    pub fn is_of_connector(&self) -> bool {
        matches!(self.kind.as_str(), "source" | "sink")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_and_stay_different() {
        let long = |last: char| bounded(format!("{}{last}", "ä".repeat(5_000)));
        assert!(long('a').len() < FACET_BYTES_MAX && long('a') != long('b'));
        assert_eq!(long('a'), long('a'));
        assert_eq!(bounded("a".repeat(FACET_BYTES_MAX)).len(), FACET_BYTES_MAX);
    }

    #[test]
    fn spans_have_the_largest_unit_that_fits() {
        let shown = [0, 999, 1_000, 90_000, 3_600_000, 86_400_000].map(span);
        assert_eq!(shown, ["0 ms", "999 ms", "1 s", "90 s", "1 h", "1 d"]);
    }
}
