//! Tables whose rows replace each other by their primary key: what is put behind their scan, and before their sink.

use std::sync::Arc;

use coulee_runtime::graph::{NodeKind, Partitioning, Port};
use coulee_runtime::upsert::{UpsertSpec, changelog_normalize, upsert_materialize};

use super::{Building, ChangelogKind, Node, StateName, StreamPlan};
use crate::catalog::Table;
use crate::error::{Fault, Result};
use crate::identity::Name;
use crate::translate::{NodeRows, Translator, column};

/// Gives the upserts of a table the rows before them. A job does this once for each table, as it reads it once.
#[derive(Debug)]
pub(super) struct ChangelogNormalize {
    pub table: Arc<Table>,
}

impl Node for ChangelogNormalize {
    fn describe(&self, _: &[StreamPlan]) -> String {
        format!("ChangelogNormalize(key=[{}])", self.table.spec.primary_key.join(", "))
    }

    fn changes(&self, _: &[ChangelogKind]) -> ChangelogKind {
        ChangelogKind::Retract
    }

    fn build(&self, mut building: Building<'_, '_, '_>) -> Result<NodeRows> {
        let rows = building.input()?;
        let to = building.to;
        let parallelism = to.context.parallelism;
        if let Some(node) = to.scans.normalized(&self.table) {
            return Ok(NodeRows::new(node, parallelism, rows.schema));
        }
        let schema = rows.schema.inner().clone();
        let key = self.table.spec.primary_key.iter().map(|name| schema.index_of(name));
        let key = key.collect::<std::result::Result<Vec<_>, _>>().map_err(|error| Fault::new(error.to_string()))?;
        let by = Partitioning::Hash(key.iter().map(|index| column(schema.field(*index).name(), *index)).collect());
        let spec = UpsertSpec { key, schema, ttl_millis: to.context.state_ttl_millis };
        let name = Name { uid: format!("normalize:{}", self.table.name()), family: None };
        let node = to.add(name, parallelism, NodeKind::Operator(changelog_normalize(spec)))?;
        to.graph.connect(rows.node, Port::MAIN, node, by)?;
        to.scans.set_normalized(&self.table, node);
        Ok(NodeRows::new(node, parallelism, rows.schema))
    }
}

/// Makes upserts of the changes that go into such a table.
#[derive(Debug)]
struct UpsertMaterialize {
    /// The columns of the table's key, by index.
    key: Vec<usize>,
    /// How many subtasks write the table.
    parallelism: u32,
}

impl StreamPlan {
    /// The same rows as upserts by the columns `key`, for a sink with this parallelism.
    #[must_use]
    pub(crate) fn upserts(self, key: &[usize], parallelism: u32) -> Self {
        match self.changes {
            ChangelogKind::InsertOnly | ChangelogKind::Upsert => self,
            ChangelogKind::Retract => {
                let schema = self.schema.clone();
                StreamPlan::new(UpsertMaterialize { key: key.to_vec(), parallelism }, vec![self], schema)
            }
        }
    }
}

impl Node for UpsertMaterialize {
    fn describe(&self, inputs: &[StreamPlan]) -> String {
        let key: Vec<&str> = self.key.iter().map(|index| inputs[0].schema.field(*index).name().as_str()).collect();
        format!("UpsertMaterialize(key=[{}])", key.join(", "))
    }

    fn changes(&self, _: &[ChangelogKind]) -> ChangelogKind {
        ChangelogKind::Upsert
    }

    fn state_name(&self) -> Option<StateName<'_>> {
        Some(StateName::ByPlace("upsert"))
    }

    /// Keeps the columns that the plan asks for: rows are stored whole.
    fn prepare(&self, plan: &StreamPlan, input: usize, rows: NodeRows, to: &mut Translator<'_>) -> Result<NodeRows> {
        to.exactly(rows, &plan.inputs[input].schema)
    }

    fn build(&self, mut building: Building<'_, '_, '_>) -> Result<NodeRows> {
        let rows = building.input()?;
        let Building { plan, name: Some(name), to, .. } = building else {
            return Err(Fault::new("the state of upserts has no name"));
        };
        let schema = plan.schema.inner().clone();
        let by = self.key.iter().map(|index| column(schema.field(*index).name(), *index)).collect();
        let spec = UpsertSpec { key: self.key.clone(), schema, ttl_millis: to.context.state_ttl_millis };
        let node = to.add(name, self.parallelism, NodeKind::Operator(upsert_materialize(spec)))?;
        to.graph.connect(rows.node, Port::MAIN, node, Partitioning::Hash(by))?;
        Ok(NodeRows::new(node, self.parallelism, plan.schema.as_ref().clone()))
    }
}
