//! What a job rejected, by table and by the stage at which it did.

use coulee_model::OperatorId;
use coulee_runtime::graph::{Graph, Port};
use coulee_runtime::metrics::SubtaskFigures;
use coulee_runtime::row_errors::Stage;
use serde::{Deserialize, Serialize};

/// Records and rows of one table that were rejected at one stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// The table that they were read from or, in delivery, should be written to.
    pub table: String,
    /// Where they were rejected.
    pub stage: Stage,
    /// How many.
    pub rows: u64,
    /// Why the last of them was.
    pub last_reason: String,
    /// Where they are kept; `None` when they are not.
    pub kept: Option<String>,
}

/// The tables of a graph, and where their rejected rows are kept.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// By node: the table that it reads or writes.
    of_node: Vec<Option<String>>,
    /// Table, and what describes the sink of its dead letters.
    kept: Vec<(String, String)>,
}

impl Tables {
    pub(super) fn new(graph: &Graph) -> Self {
        let table = |id: OperatorId| graph.node(id).row_errors.as_ref().map(|errors| errors.table.clone());
        let edges = graph.edges.iter().filter(|edge| edge.port == Port::REJECTED);
        Tables {
            of_node: graph.nodes.iter().map(|node| table(node.id)).collect(),
            kept: edges.filter_map(|edge| Some((table(edge.from)?, graph.node(edge.to).describe()))).collect(),
        }
    }

    /// Adds what a subtask rejected.
    pub(super) fn add(&self, counted: &SubtaskFigures, rejections: &mut Vec<Rejection>) {
        for errors in &counted.row_errors {
            self.note(&errors.table, errors.stage, errors.rows, &errors.last_reason, rejections);
        }
        // What a source rejects beside its rows could not be decoded.
        let failed: u64 = counted.row_errors.iter().map(|errors| errors.rows).sum();
        let undecoded = counted.figures.rejected_rows().saturating_sub(failed);
        let table = self.of_node.get(counted.operator.0 as usize).and_then(Option::as_deref);
        if let Some(table) = table.filter(|_| undecoded > 0) {
            let reason = counted.last_reject.as_deref().unwrap_or_default();
            self.note(table, Stage::Decode, undecoded, reason, rejections);
        }
    }

    fn note(&self, table: &str, stage: Stage, rows: u64, reason: &str, rejections: &mut Vec<Rejection>) {
        let known = rejections.iter_mut().find(|known| known.table == table && known.stage == stage);
        if let Some(known) = known {
            known.rows += rows;
            if !reason.is_empty() {
                reason.clone_into(&mut known.last_reason);
            }
            return;
        }
        let kept = self.kept.iter().find(|(of, _)| of == table).map(|(_, kept)| kept.clone());
        let (table, last_reason) = (table.to_owned(), reason.to_owned());
        rejections.push(Rejection { table, stage, rows, last_reason, kept });
    }
}

#[cfg(test)]
mod tests {
    use coulee_model::SubtaskIndex;
    use coulee_runtime::metrics::{RowErrorFigures, SubtaskMetrics};

    use super::*;

    #[test]
    fn what_a_source_rejects_beside_failed_rows_could_not_be_decoded() {
        let tables = Tables {
            of_node: vec![Some("t".to_owned()), None],
            kept: vec![("t".to_owned(), "stream 't_dead_letter'".to_owned())],
        };
        let source = SubtaskMetrics::new(OperatorId(0), SubtaskIndex(0));
        source.add_rejected(3, "not JSON");
        source.add_row_errors("t", Stage::Expression, 1, "overflow");
        let operator = SubtaskMetrics::new(OperatorId(1), SubtaskIndex(0));
        operator.add_row_errors("t", Stage::Expression, 4, "division by zero");
        let mut rejections = Vec::new();
        tables.add(&source.read(), &mut rejections);
        tables.add(&operator.read(), &mut rejections);
        let found: Vec<(Stage, u64, &str)> =
            rejections.iter().map(|found| (found.stage, found.rows, found.last_reason.as_str())).collect();
        assert_eq!(found, [(Stage::Expression, 5, "division by zero"), (Stage::Decode, 3, "overflow")]);
        assert!(rejections.iter().all(|found| found.kept.as_deref() == Some("stream 't_dead_letter'")));
        let figures = RowErrorFigures {
            table: "t".to_owned(),
            stage: Stage::Expression,
            rows: 4,
            last_reason: "division by zero".to_owned(),
        };
        assert_eq!(operator.row_errors(), [figures]);
    }
}
