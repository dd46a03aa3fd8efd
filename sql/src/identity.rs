//! What the operators of a job are called: names that do not depend on the other statements of the job.
//!
//! | operator | uid |
//! | --- | --- |
//! | source | `source:<table>`: a job reads a table once |
//! | sink | `sink:<table>`; a second `INSERT` into the table makes `sink:<table>-2` |
//! | window | `<table>/window` in the `INSERT` into the table; the next one towards the sources is `<table>/window-2` |
//! | below a `UNION ALL` | the branch is named by the tables that it reads: `<table>/<source>/window` |
//! | filter and projection | as windows, `<table>/calc`; they have no state |
//!
//! Numbers depend on an order. Operators that only a number tells apart form a family, and the runtime gives each the state that is described as its own.

use std::collections::{BTreeMap, BTreeSet};

use coulee_model::OperatorId;
use coulee_runtime::graph::Graph;

use crate::error::Result;

/// An operator's name, and what is called so but for a number.
pub(crate) struct Name {
    pub uid: String,
    pub family: Option<String>,
}

/// The names of one `INSERT` after the other.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// The names of the inserts so far.
    roots: BTreeSet<String>,
    /// The table that is written.
    table: String,
    /// The way from the sink down to where the translation is.
    path: Vec<String>,
    /// How many operators of a kind are above, by path and kind.
    counts: BTreeMap<String, u32>,
    /// Filters and projections, which are named when the whole insert is translated: it goes from the sources up.
    calcs: Vec<(OperatorId, String)>,
}

impl Names {
    /// Begins an insert into a table; returns the name of its sink.
    pub fn begin(&mut self, table: &str) -> Name {
        let root = numbered(table, |name| self.roots.contains(name));
        self.roots.insert(root.clone());
        self.table = table.to_owned();
        self.path = vec![root.clone()];
        Name { uid: format!("sink:{root}"), family: Some(format!("sink:{table}")) }
    }

    /// The next operator of a kind on the way from the sink to the sources.
    pub fn next(&mut self, kind: &str) -> Name {
        let name = format!("{}/{kind}", self.path.join("/"));
        let count = self.counts.entry(name.clone()).or_default();
        *count += 1;
        let uid = if *count == 1 { name } else { format!("{name}-{count}") };
        Name { uid, family: Some(format!("{}/{kind}", self.table)) }
    }

    /// The sink of what leaves an operator aside.
    pub fn aside(&self, what: &str, of: &Name) -> Name {
        Name { uid: format!("{what}:{}", of.uid), family: of.family.as_ref().map(|family| format!("{what}:{family}")) }
    }

    /// Goes down into one of several inputs, which is named by the tables that it reads.
    pub fn enter(&mut self, tables: &BTreeSet<String>, siblings: &mut BTreeSet<String>) {
        let name = numbered(&tables.iter().cloned().collect::<Vec<_>>().join("+"), |name| siblings.contains(name));
        siblings.insert(name.clone());
        self.path.push(name);
    }

    pub fn leave(&mut self) {
        self.path.pop();
    }

    /// A name for a filter or projection until the insert is translated.
    pub fn provisional(&mut self, next: OperatorId) -> String {
        self.calcs.push((next, format!("{}/calc", self.path.join("/"))));
        format!("calc {} on its way to its name", next.0)
    }

    /// Names filters and projections, from the sink on.
    pub fn finish(&mut self, graph: &mut Graph) -> Result<()> {
        for (id, name) in std::mem::take(&mut self.calcs).into_iter().rev() {
            let count = self.counts.entry(name.clone()).or_default();
            *count += 1;
            let uid = if *count == 1 { name } else { format!("{name}-{count}") };
            graph.rename(id, uid)?;
        }
        Ok(())
    }
}

/// The name, or the name with the first number from 2 on that makes it unused.
pub(crate) fn numbered(name: &str, is_used: impl Fn(&str) -> bool) -> String {
    if !is_used(name) {
        return name.to_owned();
    }
    let mut number = 2;
    while is_used(&format!("{name}-{number}")) {
        number += 1;
    }
    format!("{name}-{number}")
}
