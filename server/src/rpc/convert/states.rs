//! What operators keep, to and from the messages of the protocol.

use coulee_runtime::state::{Facet, FreedBy, StateColumn, StateDescriptor, StateTable};

use super::some_text;
use crate::rpc::proto;

impl From<StateDescriptor> for proto::StateDescriptor {
    fn from(state: StateDescriptor) -> Self {
        let facet = |facet: Facet| proto::StateFacet { name: facet.name, text: facet.text };
        proto::StateDescriptor {
            uid: state.uid,
            family: state.family.unwrap_or_default(),
            kind: state.kind,
            name: state.name,
            tables: state.tables.into_iter().map(proto::StateTable::from).collect(),
            facets: state.facets.into_iter().map(facet).collect(),
        }
    }
}

impl From<proto::StateDescriptor> for StateDescriptor {
    fn from(state: proto::StateDescriptor) -> Self {
        StateDescriptor {
            uid: state.uid,
            family: some_text(state.family),
            kind: state.kind,
            name: state.name,
            tables: state.tables.into_iter().map(StateTable::from).collect(),
            facets: state.facets.into_iter().map(|facet| Facet::new(&facet.name, facet.text)).collect(),
        }
    }
}

impl From<StateTable> for proto::StateTable {
    fn from(table: StateTable) -> Self {
        let columns = |columns: Vec<StateColumn>| {
            columns.into_iter().map(|StateColumn { name, data_type }| proto::StateColumn { name, data_type }).collect()
        };
        let (freed_by, ttl_ms) = match table.freed_by {
            FreedBy::WindowEnd => ("window-end", 0),
            FreedBy::RowTime { .. } => ("row-time", 0),
            FreedBy::Ttl { millis } => ("ttl", millis),
            FreedBy::Timer => ("timer", 0),
            FreedBy::Commit => ("commit", 0),
            FreedBy::Function => ("function", 0),
            FreedBy::Never => ("never", 0),
        };
        let row_time_ms = if let FreedBy::RowTime { millis } = table.freed_by { millis } else { 0 };
        proto::StateTable {
            row_time_ms,
            name: table.name,
            key: columns(table.key),
            value: columns(table.value),
            freed_by: freed_by.to_owned(),
            ttl_ms,
            bound: table.bound,
        }
    }
}

impl From<proto::StateTable> for StateTable {
    fn from(table: proto::StateTable) -> Self {
        let columns = |columns: Vec<proto::StateColumn>| {
            columns.into_iter().map(|column| StateColumn::new(column.name, column.data_type)).collect()
        };
        let freed_by = match table.freed_by.as_str() {
            "window-end" => FreedBy::WindowEnd,
            "row-time" => FreedBy::RowTime { millis: table.row_time_ms },
            "ttl" => FreedBy::Ttl { millis: table.ttl_ms },
            "timer" => FreedBy::Timer,
            "commit" => FreedBy::Commit,
            "function" => FreedBy::Function,
            _ => FreedBy::Never,
        };
        let (key, value) = (columns(table.key), columns(table.value));
        StateTable { name: table.name, key, value, freed_by, bound: table.bound }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn states() -> Vec<StateDescriptor> {
        let table = |freed_by| StateTable {
            name: "windows".into(),
            key: vec![StateColumn::new("carrier", "Utf8")],
            value: vec![StateColumn::new("n", "Int64")],
            freed_by,
            bound: "keys × open windows".into(),
        };
        let all = [
            FreedBy::WindowEnd,
            FreedBy::RowTime { millis: -3 },
            FreedBy::Ttl { millis: 7 },
            FreedBy::Timer,
            FreedBy::Commit,
            FreedBy::Function,
            FreedBy::Never,
        ];
        vec![StateDescriptor {
            uid: "delays/window".into(),
            family: Some("delays/window".into()),
            kind: "window".into(),
            name: "WindowAggregate".into(),
            tables: all.map(table).to_vec(),
            facets: vec![Facet::new("window", "TUMBLE(flights.departed_at, 1 h)")],
        }]
    }

    #[test]
    fn descriptions_survive_the_wire() {
        for state in states() {
            assert_eq!(StateDescriptor::from(proto::StateDescriptor::from(state.clone())), state);
        }
    }
}
