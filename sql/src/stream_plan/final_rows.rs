//! The rows that are left when all inputs have ended: `ORDER BY` and `LIMIT` over inputs that end, and what a query over them shows.

use arrow::compute::SortOptions;
use coulee_runtime::final_rows::{FinalRowsSpec, final_rows};
use coulee_runtime::graph::{NodeKind, Partitioning, Port};
use datafusion_expr::SortExpr;

use super::print::expression;
use super::{Building, ChangelogKind, Node, StateName, StreamPlan};
use crate::error::{Fault, Result};
use crate::translate::{NodeRows, Translator, physical};

#[derive(Debug, Default)]
pub(super) struct FinalRows {
    pub sort: Vec<SortExpr>,
    pub skip: usize,
    pub fetch: Option<usize>,
}

impl FinalRows {
    /// The plan whose rows are those that are left of another one's in the end.
    pub fn of(plan: StreamPlan) -> StreamPlan {
        let schema = plan.schema.clone();
        StreamPlan::new(FinalRows::default(), vec![plan], schema)
    }
}

impl StreamPlan {
    /// The same, but only the rows that are left when all inputs have ended.
    #[must_use]
    pub fn only_final_rows(self) -> Self {
        match self.changes {
            ChangelogKind::InsertOnly => self,
            ChangelogKind::Upsert | ChangelogKind::Retract => FinalRows::of(self),
        }
    }
}

impl Node for FinalRows {
    fn describe(&self, inputs: &[StreamPlan]) -> String {
        let key = |key: &SortExpr| {
            let order = if key.asc { "ASC" } else { "DESC" };
            let nulls = if key.nulls_first { "FIRST" } else { "LAST" };
            format!("{} {order} NULLS {nulls}", expression(&key.expr, &inputs[0].schema))
        };
        let mut parts = Vec::new();
        if !self.sort.is_empty() {
            parts.push(format!("orderBy=[{}]", self.sort.iter().map(key).collect::<Vec<_>>().join(", ")));
        }
        if self.skip > 0 {
            parts.push(format!("offset={}", self.skip));
        }
        if let Some(fetch) = self.fetch {
            parts.push(format!("fetch={fetch}"));
        }
        format!("FinalRows({})", parts.join(", "))
    }

    fn changes(&self, _: &[ChangelogKind]) -> ChangelogKind {
        ChangelogKind::InsertOnly
    }

    fn state_name(&self) -> Option<StateName<'_>> {
        Some(StateName::ByPlace("final-rows"))
    }

    /// Keeps the columns that the plan asks for: rows are stored whole.
    fn prepare(&self, plan: &StreamPlan, input: usize, rows: NodeRows, to: &mut Translator<'_>) -> Result<NodeRows> {
        to.exactly(rows, &plan.inputs[input].schema)
    }

    fn build(&self, mut building: Building<'_, '_, '_>) -> Result<NodeRows> {
        let rows = building.input()?;
        let Building { plan, name: Some(name), to, .. } = building else {
            return Err(Fault::new("the state of the final rows has no name"));
        };
        let mut sort = Vec::with_capacity(self.sort.len());
        for key in &self.sort {
            let options = SortOptions { descending: !key.asc, nulls_first: key.nulls_first };
            sort.push((physical(&key.expr, &rows.schema)?, options));
        }
        let changelog = plan.inputs.iter().any(|input| input.changes != ChangelogKind::InsertOnly);
        let schema = plan.schema.inner().clone();
        let spec = FinalRowsSpec { sort, skip: self.skip, fetch: self.fetch, changelog, schema };
        let node = to.add(name, 1, NodeKind::Operator(final_rows(spec)))?;
        let partitioning = if rows.parallelism == 1 { Partitioning::Forward } else { Partitioning::Hash(Vec::new()) };
        to.graph.connect(rows.node, Port::MAIN, node, partitioning)?;
        Ok(NodeRows::new(node, 1, plan.schema.as_ref().clone()))
    }
}
