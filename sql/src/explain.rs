//! `EXPLAIN`: the stream plan and the graph from the sinks up, where event time comes from, and what state is kept and until when.

use std::fmt::Write as _;
use std::time::Duration;

use coulee_runtime::graph::{Edge, Graph, NodeKind, Partitioning, Port};

/// Renders stream plans, their graph, and what the translation noted about it.
pub(crate) fn explain(plans: &[String], graph: &Graph, event_times: &[String]) -> String {
    let mut out = String::new();
    section(&mut out, "Stream plan", plans, "none");
    out.push_str("Graph\n");
    let gives_rows = |id| graph.edges.iter().any(|edge| edge.from == id && edge.port != Port::REJECTED);
    for node in graph.nodes.iter().filter(|node| !gives_rows(node.id)) {
        let _ = writeln!(out, "  {}", line(graph, node.id.0 as usize));
        inputs(graph, node.id.0 as usize, 2, &mut out);
    }
    section(&mut out, "Event time", event_times, "none: no table has a watermark");
    section(&mut out, "State", &states(graph), "none");
    section(&mut out, "Changelog", &changelogs(graph), "insert-only");
    out
}

fn section(out: &mut String, title: &str, lines: &[String], none: &str) {
    let _ = writeln!(out, "{title}");
    if lines.is_empty() {
        let _ = writeln!(out, "  {none}");
    }
    for line in lines {
        let _ = writeln!(out, "  {line}");
    }
}

/// What operators keep, as they describe it: one line per table of those that hold rows or what was made of them.
fn states(graph: &Graph) -> Vec<String> {
    let states = graph.states();
    let kept = states.iter().filter(|state| !state.is_of_connector());
    let lines = kept.flat_map(|state| {
        state.tables.iter().filter(|table| table.depends_on_rows()).map(move |table| format!("{} {table}", state.uid))
    });
    lines.collect()
}

/// Which nodes update and delete rows that they gave.
fn changelogs(graph: &Graph) -> Vec<String> {
    let changes = graph.nodes.iter().filter(|node| graph.is_changelog(node.id, Port::MAIN));
    let names: Vec<&str> = changes.map(|node| node.uid.as_str()).collect();
    if names.is_empty() { Vec::new() } else { vec![format!("{}: inserts, updates and deletes", names.join(", "))] }
}

fn line(graph: &Graph, index: usize) -> String {
    let node = &graph.nodes[index];
    let description = node.describe();
    let separator = if description.is_empty() { "" } else { "  " };
    format!("{} ×{}{separator}{description}", node.uid, node.parallelism)
}

fn inputs(graph: &Graph, index: usize, depth: usize, out: &mut String) {
    let id = graph.nodes[index].id;
    for edge in graph.edges.iter().filter(|edge| edge.to == id && is_shown(graph, edge)) {
        let indent = "   ".repeat(depth - 2);
        let _ = writeln!(out, "  {indent}└─ {} ─ {}", how(graph, edge), line(graph, edge.from.0 as usize));
        if !matches!(graph.node(edge.from).kind, NodeKind::Sink(_)) {
            inputs(graph, edge.from.0 as usize, depth + 1, out);
        }
    }
}

/// Whatever computes may reject rows: that is said of the tables alone, which it happens to.
fn is_shown(graph: &Graph, edge: &Edge) -> bool {
    edge.port != Port::REJECTED || !matches!(graph.node(edge.from).kind, NodeKind::Operator(_))
}

fn how(graph: &Graph, edge: &Edge) -> String {
    let how = match &edge.partitioning {
        Partitioning::Forward if is_chained(graph, edge) => "chained".to_owned(),
        Partitioning::Forward => "forward".to_owned(),
        Partitioning::Hash(keys) if keys.is_empty() => "to one".to_owned(),
        Partitioning::Hash(keys) => {
            let keys: Vec<String> = keys.iter().map(|key| key_name(&key.to_string())).collect();
            format!("hash({})", keys.join(", "))
        }
        Partitioning::Rebalance => "rebalance".to_owned(),
        Partitioning::Broadcast => "broadcast".to_owned(),
    };
    let how = if graph.is_changelog(edge.from, edge.port) { format!("{how}, changelog") } else { how };
    match edge.port {
        Port::MAIN => how,
        Port::LATE => format!("late rows, {how}"),
        Port::REJECTED => format!("rejected records, {how}"),
        Port(port) => format!("port {port}, {how}"),
    }
}

/// `carrier@3` is the column carrier.
fn key_name(key: &str) -> String {
    key.split_once('@').map_or(key, |(name, _)| name).to_owned()
}

/// Whether two nodes run in one subtask: as the executor decides it.
fn is_chained(graph: &Graph, edge: &Edge) -> bool {
    let into = graph.edges.iter().filter(|other| other.to == edge.to).count();
    let out = graph.edges.iter().filter(|other| other.from == edge.from && other.port == Port::MAIN).count();
    edge.port == Port::MAIN && into == 1 && out == 1
}

/// A span of time in the largest unit that fits.
pub(crate) fn span(span: Duration) -> String {
    coulee_runtime::state::span(span.as_millis() as u64)
}
