//! What operators keep in checkpoints, for people: of a job, and of a savepoint.

use coulee_server::StateDescriptor;

/// Each operator with its tables and with what gives them their meaning, in lines; nothing for none.
pub fn text(states: &[StateDescriptor]) -> Vec<String> {
    let mut lines = Vec::new();
    for state in states {
        lines.push(format!("  {} ({})", state.uid, state.kind));
        lines.extend(state.tables.iter().map(|table| format!("    keeps {table}")));
        let width = state.facets.iter().map(|facet| facet.name.len()).max().unwrap_or(0);
        lines.extend(state.facets.iter().map(|facet| format!("    {:width$}  {}", facet.name, facet.text)));
    }
    if !lines.is_empty() {
        lines.insert(0, "STATE".to_owned());
    }
    lines
}
