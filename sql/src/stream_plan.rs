//! The stream plan: a query as a stream runs it, between DataFusion's optimised plan and the graph.
//!
//! ```text
//! LogicalPlan ── convert ──▶ StreamPlan ── build ──▶ Graph
//! ```
//!
//! A [`StreamPlan`] is a tree of nodes, one file per family ([`Node`]): `scan`, `values`, `calc`, `union`, `window_aggregate`, `window_rows`,
//! `group_aggregate`, `rank`, `over`, `join`, `lookup`, `temporal`, `unnest`, `added_time`, `op_codes`, `final_rows`, `upsert`. A node derives from its inputs which
//! changes leave it ([`ChangelogKind`]), and makes its operators. `convert` finds the node for each node of DataFusion's plan; what has none is refused
//! there. `print` is what `EXPLAIN` shows.

mod added_time;
mod aggregates;
mod calc;
pub(crate) mod convert;
mod final_rows;
mod group_aggregate;
mod join;
mod lookup;
mod op_codes;
mod over;
pub(crate) mod print;
mod rank;
mod scan;
mod slices;
mod temporal;
mod union;
mod unnest;
mod upsert;
mod values;
mod window_aggregate;
mod window_rows;

use std::collections::BTreeSet;
use std::fmt::Debug;

use datafusion_common::DFSchemaRef;
use sqlparser::tokenizer::Span;

use crate::error::{Fault, Result};
use crate::identity::Name;
use crate::translate::{NodeRows, Target, Translator};

/// Which changes flow along an edge of the plan, as in Flink's `ModifyKindSet`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ChangelogKind {
    /// Rows are only appended.
    InsertOnly,
    /// Rows are also updated and deleted; an update has the row after it (`+U`) alone, which takes the place of the one with the same key.
    Upsert,
    /// Rows are also updated and deleted; each update has the row before it (`-U`) and the row after it (`+U`).
    Retract,
}

impl ChangelogKind {
    /// Of what comes from all of these.
    pub fn of_all(inputs: &[ChangelogKind]) -> Self {
        inputs.iter().copied().max().unwrap_or(ChangelogKind::InsertOnly)
    }
}

/// What the state of a node is filed under.
pub(crate) enum StateName<'a> {
    /// By its place in the query, as an operator of this kind.
    ByPlace(&'static str),
    /// As a hint in the SQL says.
    Given(&'a str),
}

/// One kind of node.
pub(crate) trait Node: Debug {
    /// As `EXPLAIN` prints it: the kind and what it does, in one line.
    fn describe(&self, inputs: &[StreamPlan]) -> String;

    /// Which changes leave it, given those that its inputs bring. A node that does not say passes them on.
    fn changes(&self, inputs: &[ChangelogKind]) -> ChangelogKind {
        ChangelogKind::of_all(inputs)
    }

    /// What its state is filed under; `None` for a node without state of its own.
    fn state_name(&self) -> Option<StateName<'_>> {
        None
    }

    /// The table that it reads, if it reads one.
    fn table(&self) -> Option<&str> {
        None
    }

    /// What is done to the rows of an input before the node is built, in the branch of that input: operators are named after the branch.
    ///
    /// # Errors
    /// As [`build`](Node::build).
    fn prepare(&self, plan: &StreamPlan, input: usize, rows: NodeRows, to: &mut Translator<'_>) -> Result<NodeRows> {
        let _ = (plan, input, to);
        Ok(rows)
    }

    /// Adds its operators to the graph, behind those of its inputs.
    ///
    /// # Errors
    /// What cannot run as a stream, and why.
    fn build(&self, building: Building<'_, '_, '_>) -> Result<NodeRows>;
}

/// What a node is built from.
pub(crate) struct Building<'n, 't, 'c> {
    /// The plan's node: its inputs' and its own columns.
    pub plan: &'n StreamPlan,
    /// The name of its state, if it has [one](Node::state_name).
    pub name: Option<Name>,
    /// The rows of its inputs.
    pub inputs: Vec<NodeRows>,
    /// Where operators are added.
    pub to: &'t mut Translator<'c>,
}

impl Building<'_, '_, '_> {
    /// The rows of the only input.
    pub fn input(&mut self) -> Result<NodeRows> {
        self.inputs.pop().ok_or_else(|| Fault::new("a node of the plan has no input"))
    }
}

/// A node with its inputs.
#[derive(Debug)]
pub(crate) struct StreamPlan {
    node: Box<dyn Node>,
    /// Upstream.
    pub inputs: Vec<StreamPlan>,
    /// Its columns.
    pub schema: DFSchemaRef,
    /// Which changes leave it.
    pub changes: ChangelogKind,
}

impl StreamPlan {
    pub fn new(node: impl Node + 'static, inputs: Vec<StreamPlan>, schema: DFSchemaRef) -> Self {
        let changes: Vec<ChangelogKind> = inputs.iter().map(|input| input.changes).collect();
        let changes = node.changes(&changes);
        StreamPlan { node: Box::new(node), inputs, schema, changes }
    }

    /// Adds the plan to a graph, and a sink of a table that takes its rows. `place`: where the statement names the table.
    ///
    /// # Errors
    /// What cannot run as a stream, and why.
    pub fn insert(
        &self,
        translator: &mut Translator<'_>,
        target: Target<'_>,
        place: Span,
    ) -> Result<coulee_model::OperatorId> {
        translator.plans.extend(print::lines(target.table, self));
        let name = translator.names.begin(target.table);
        let rows = self.build(translator)?;
        translator.sink(rows, &self.schema, name, target, place)
    }

    fn build(&self, translator: &mut Translator<'_>) -> Result<NodeRows> {
        // Before what is below, so that numbers count from the sink on.
        let name = self.node.state_name().map(|name| match name {
            StateName::Given(uid) => Name { uid: uid.to_owned(), family: None },
            StateName::ByPlace(kind) => translator.names.next(kind),
        });
        let (mut inputs, mut branches) = (Vec::with_capacity(self.inputs.len()), BTreeSet::new());
        for (index, input) in self.inputs.iter().enumerate() {
            if self.inputs.len() > 1 {
                translator.names.enter(&input.tables(), &mut branches);
            }
            let rows = input.build(translator)?;
            inputs.push(self.node.prepare(self, index, rows, translator)?);
            if self.inputs.len() > 1 {
                translator.names.leave();
            }
        }
        self.node.build(Building { plan: self, name, inputs, to: translator })
    }

    /// What the node does, in one line.
    fn describe(&self) -> String {
        self.node.describe(&self.inputs)
    }

    /// The tables that it reads, by name.
    fn tables(&self) -> BTreeSet<String> {
        let below = self.inputs.iter().flat_map(StreamPlan::tables);
        below.chain(self.node.table().map(str::to_owned)).collect()
    }
}
