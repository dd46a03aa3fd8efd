//! How a rank is shown, what it keeps, and what gives that its meaning.

use std::sync::Arc;

use datafusion_physical_expr::PhysicalExpr;

use super::{RankFunction, RankSpec};
use crate::graph::Lineage;
use crate::row_errors::expression_text;
use crate::state::{Facet, FreedBy, OperatorState, StateColumn, StateTable};

impl RankFunction {
    /// As SQL names it.
    pub fn name(self) -> &'static str {
        match self {
            RankFunction::RowNumber => "ROW_NUMBER",
            RankFunction::Rank => "RANK",
            RankFunction::DenseRank => "DENSE_RANK",
        }
    }
}

impl RankSpec {
    /// `Rank: ROW_NUMBER 1 to 3 of carrier by delay DESC`.
    pub(super) fn describe(&self) -> String {
        let partition: Vec<String> = self.partition.iter().map(expression_text).collect();
        let of = if partition.is_empty() { String::new() } else { format!(" of {}", partition.join(", ")) };
        let (function, from, to) = (self.function.name(), self.from, self.to);
        format!("Rank: {function} {from} to {to}{of} by {}", self.ordered_by(expression_text))
    }

    fn ordered_by(&self, text: impl Fn(&Arc<dyn PhysicalExpr>) -> String) -> String {
        let key = |(expr, options): &(Arc<dyn PhysicalExpr>, arrow::compute::SortOptions)| {
            let order = if options.descending { " DESC" } else { "" };
            // As in Flink, a null is below every value, which is not said.
            let nulls = match (options.nulls_first, options.descending) {
                (true, false) | (false, true) => "",
                (true, true) => " NULLS FIRST",
                (false, false) => " NULLS LAST",
            };
            format!("{}{order}{nulls}", text(expr))
        };
        self.order.iter().map(key).collect::<Vec<_>>().join(", ")
    }
}

pub(super) fn state(spec: &RankSpec, input: &Lineage) -> OperatorState {
    let partition: Vec<String> = spec.partition.iter().map(|expr| input.typed(expr)).collect();
    // Of rows that are only appended, those behind the last number are gone.
    let kept = if spec.changelog { "all".to_owned() } else { format!("{} to {}", spec.function.name(), spec.to) };
    let facets = vec![
        Facet::new("partition", if partition.is_empty() { "none".to_owned() } else { partition.join(", ") }),
        Facet::new("order", spec.ordered_by(|expr| input.typed(expr))),
        Facet::new("rows", kept),
        // Stored rows were emitted as these say.
        Facet::new("numbers", format!("{} {} to {}", spec.function.name(), spec.from, spec.to)),
        Facet::new("number column", if spec.has_number { "yes" } else { "no" }),
        Facet::new("columns", input.typed_columns()),
        Facet::new("input", input.rows()),
    ];
    let mut key: Vec<StateColumn> =
        spec.partition.iter().map(|expr| StateColumn::new(input.text(expr), "key")).collect();
    let value = match spec.keeps_first_rows() {
        true => vec![StateColumn::new("first rows", "all columns")],
        false => {
            key.push(StateColumn::new("row", "all columns"));
            vec![StateColumn::new("count", "UInt64"), StateColumn::new("order bytes", "UInt32")]
        }
    };
    let ttl = spec.ttl_millis.and_then(|millis| u64::try_from(millis).ok());
    let bound = if spec.changelog { "rows".to_owned() } else { format!("partitions × {}", spec.to) };
    let table =
        StateTable { name: "rows".to_owned(), key, value, freed_by: FreedBy::ttl_or(ttl, FreedBy::Never), bound };
    // Stored differently.
    let kind = if spec.keeps_first_rows() { "first rows" } else { "rank" };
    OperatorState { kind, tables: vec![table], facets }
}

pub(super) fn lineage(spec: &RankSpec, input: &Lineage) -> Lineage {
    let partition: Vec<String> = spec.partition.iter().map(|expr| input.text(expr)).collect();
    let number = format!(
        "{}() OVER ({} ORDER BY {})",
        spec.function.name(),
        partition.join(", "),
        spec.ordered_by(|expr| input.text(expr))
    );
    let from = format!("[{number} {} TO {} OF {}]", spec.from, spec.to, input.rows());
    input.with_columns(from, [number], spec.schema.clone())
}
