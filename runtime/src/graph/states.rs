//! The state of a graph's operators, described: who each is, what it keeps, and what gives that its meaning.

use super::{Graph, Lineage, Node, NodeKind, SourceNode};
use crate::connector::Sink;
use crate::state::{Facet, FreedBy, OperatorState, StateColumn, StateDescriptor, StateTable};

impl Graph {
    /// What every operator with state keeps in checkpoints, upstream first. An operator without state has no descriptor.
    pub fn states(&self) -> Vec<StateDescriptor> {
        let mut states = Vec::new();
        for (node, (inputs, _)) in self.nodes.iter().zip(self.lineages()) {
            let state = match &node.kind {
                NodeKind::Source(source) => Some(of_source(source)),
                NodeKind::Operator(factory) => factory.state(&inputs),
                NodeKind::Sink(sink) => Some(of_sink(sink.as_ref(), &inputs)),
            };
            states.extend(state.map(|state| descriptor(node, state)));
        }
        states
    }
}

fn descriptor(node: &Node, state: OperatorState) -> StateDescriptor {
    let OperatorState { kind, tables, facets } = state;
    let (uid, family) = (node.uid.clone(), node.family.clone());
    StateDescriptor { uid, family, kind: kind.to_owned(), name: node.describe(), tables, facets }
}

fn of_source(node: &SourceNode) -> OperatorState {
    let mut facets = node.source.identity();
    if let Some(time) = &node.event_time {
        let lineage = Lineage::new("", names(node), node.source.schema());
        let columns = datafusion_physical_expr::utils::collect_columns(&time.watermark);
        let mut columns: Vec<&str> = columns.iter().map(|column| column.name()).collect();
        columns.sort_unstable();
        // Stored watermarks are promises about these columns. How far a watermark stays behind them may change: it never goes back.
        facets.push(Facet::new("event time", columns.join(", ")));
        facets.push(Facet::adapting("watermark", lineage.text(&time.watermark)));
    } else {
        facets.push(Facet::new("event time", "none"));
    }
    let table = StateTable {
        name: "positions".to_owned(),
        key: vec![StateColumn::new("split", "text")],
        value: vec![StateColumn::new("watermark", "instant"), StateColumn::new("position", "of the connector")],
        freed_by: FreedBy::Never,
        bound: "one per split".to_owned(),
    };
    OperatorState { kind: "source", tables: vec![table], facets }
}

fn names(node: &SourceNode) -> Vec<String> {
    node.source.schema().fields().iter().map(|field| field.name().clone()).collect()
}

fn of_sink(sink: &dyn Sink, inputs: &[Lineage]) -> OperatorState {
    let mut facets = sink.identity();
    let rows: Vec<String> = inputs.iter().map(Lineage::rows).collect();
    facets.push(Facet::telling("input", rows.join(" | ")));
    let table = StateTable {
        name: "prepared".to_owned(),
        key: vec![StateColumn::new("subtask", "UInt32")],
        value: vec![StateColumn::new("prepared", "of the connector")],
        freed_by: FreedBy::Commit,
        bound: "one per subtask".to_owned(),
    };
    OperatorState { kind: "sink", tables: vec![table], facets }
}

impl OperatorState {
    /// Of an operator that does not describe its state: whoever named it answers for what it means, so that another input is noted and not refused.
    pub fn undescribed(inputs: &[Lineage]) -> Self {
        let mut facets = Vec::with_capacity(inputs.len());
        for (index, input) in inputs.iter().enumerate() {
            let name = if index == 0 { "input".to_owned() } else { format!("input {}", index + 1) };
            facets.push(Facet::adapting(&name, input.rows()));
        }
        let table = StateTable {
            name: "state".to_owned(),
            key: Vec::new(),
            value: vec![StateColumn::new("state", "of the operator's own making")],
            freed_by: FreedBy::Function,
            bound: "as the operator does".to_owned(),
        };
        OperatorState { kind: "operator", tables: vec![table], facets }
    }
}
