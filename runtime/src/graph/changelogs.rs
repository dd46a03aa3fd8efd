//! Where rows may be updated and deleted: followed along the edges of a graph, from its sources to what must understand it.

use coulee_model::OperatorId;

use super::{Graph, NodeKind, Partitioning, Port};
use crate::{Error, Result};

impl Graph {
    /// Checks that a changelog goes only where it is understood, and stays in order. Part of [`Graph::check`]; on its own for a graph that is not complete yet.
    ///
    /// # Errors
    /// `Invalid`, naming both ends.
    pub fn check_changelogs(&self) -> Result<()> {
        let fed = self.fed_changelogs();
        for edge in &self.edges {
            let (up, down) = (self.node(edge.from), self.node(edge.to));
            if !up.emits_changelog(edge.port, fed[edge.from.0 as usize]) {
                continue;
            }
            let refusal = match &down.kind {
                NodeKind::Source(_) => None,
                NodeKind::Operator(factory) => factory.refuses_changelog(edge.input),
                NodeKind::Sink(sink) => sink.refuses_changelog(),
            };
            if let Some(reason) = refusal {
                let late = if edge.port == Port::LATE { "the late output of " } else { "" };
                return Err(Error::invalid(format!(
                    "'{}' ({}) takes only rows that are appended, and {late}'{}' ({}) also updates and deletes rows: {reason}",
                    down.uid,
                    down.describe(),
                    up.uid,
                    up.describe(),
                )));
            }
            if matches!(edge.partitioning, Partitioning::Rebalance) && down.parallelism > 1 {
                return Err(Error::invalid(format!(
                    "edge from '{}' to '{}': a changelog that is dealt out in turn loses its order; give both the same \
                     parallelism ({}), or bring rows together by a key",
                    up.uid, down.uid, up.parallelism
                )));
            }
        }
        Ok(())
    }

    /// Of each node, whether one of its inputs is a changelog.
    fn fed_changelogs(&self) -> Vec<bool> {
        let mut fed = vec![false; self.nodes.len()];
        // Edges go from lower to higher ids, so that a node's inputs are known when its outputs are asked for.
        for node in &self.nodes {
            let emits = |port| node.emits_changelog(port, fed[node.id.0 as usize]);
            let out: Vec<OperatorId> =
                self.edges.iter().filter(|edge| edge.from == node.id && emits(edge.port)).map(|edge| edge.to).collect();
            out.into_iter().for_each(|to| fed[to.0 as usize] = true);
        }
        fed
    }

    /// Whether what leaves a port of a node may be a changelog: rows may be updated and deleted.
    pub fn is_changelog(&self, from: OperatorId, port: Port) -> bool {
        self.node(from).emits_changelog(port, self.fed_changelogs()[from.0 as usize])
    }
}
