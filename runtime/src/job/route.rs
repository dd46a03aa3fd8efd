//! From an operator's output to the channels of the subtasks downstream.

use std::sync::Arc;

use arrow::array::UInt32Array;
use coulee_model::{KeyGroup, OperatorId};
use datafusion_physical_expr::PhysicalExpr;

use crate::channel::{Disconnected, Element, Sender};
use crate::graph::Partitioning;
use crate::keys::hash_keys;
use crate::row_errors::RejectedRows;
use crate::row_errors::evaluate::{Failed, evaluate, in_pieces};
use crate::{Batch, Result};

/// Why nothing more can be sent.
pub(super) enum TaskError {
    /// A key could not be computed.
    Error(crate::Error),
    /// The reader is gone.
    Disconnected,
}

/// How a task came to its end.
pub(super) type Ran = Result<(), TaskError>;

impl From<Disconnected> for TaskError {
    fn from(_: Disconnected) -> Self {
        TaskError::Disconnected
    }
}

impl From<crate::Error> for TaskError {
    fn from(error: crate::Error) -> Self {
        TaskError::Error(error)
    }
}

/// One edge as one upstream subtask sees it.
pub(super) struct Route {
    /// The node that it leads to.
    pub(super) to: OperatorId,
    partitioning: Partitioning,
    /// This subtask's own index, which a forward edge sends to.
    own: usize,
    senders: Vec<Sender>,
    next: usize,
}

impl Route {
    pub(super) fn new(to: OperatorId, partitioning: Partitioning, own: usize, senders: Vec<Sender>) -> Self {
        Route { to, partitioning, own, senders, next: own }
    }

    /// Sends rows to the subtasks that they belong to. Returns the rows whose key could not be computed.
    pub(super) async fn send(&mut self, batch: &Batch) -> Result<Option<RejectedRows>, TaskError> {
        let mut rejected = None;
        match &self.partitioning {
            Partitioning::Forward => self.senders[self.own].send(Element::Batch(batch.clone())).await?,
            Partitioning::Rebalance => {
                self.next = (self.next + 1) % self.senders.len();
                self.senders[self.next].send(Element::Batch(batch.clone())).await?;
            }
            Partitioning::Broadcast => {
                for sender in &self.senders {
                    sender.send(Element::Batch(batch.clone())).await?;
                }
            }
            Partitioning::Hash(_) if self.senders.len() == 1 => {
                self.senders[0].send(Element::Batch(batch.clone())).await?;
            }
            Partitioning::Hash(keys) => {
                let (pieces, failed) = in_pieces(batch, |piece| shuffled(&piece, keys, self.senders.len()))?;
                rejected = failed;
                for (to, part) in pieces.into_iter().flat_map(|parts| parts.into_iter().enumerate()) {
                    if let Some(part) = part {
                        self.senders[to].send(Element::Batch(part)).await?;
                    }
                }
            }
        }
        Ok(rejected)
    }

    /// Sends a mark to every subtask that this one sends rows to.
    pub(super) async fn broadcast(&self, element: Element) -> Result<(), TaskError> {
        match self.partitioning {
            Partitioning::Forward => self.senders[self.own].send(element).await?,
            Partitioning::Hash(_) | Partitioning::Rebalance | Partitioning::Broadcast => {
                for sender in &self.senders {
                    sender.send(element.clone()).await?;
                }
            }
        }
        Ok(())
    }
}

/// The rows for each of `targets` subtasks: one pass that notes where each row goes, then one `take` per column and target.
fn shuffled(batch: &Batch, keys: &[Arc<dyn PhysicalExpr>], targets: usize) -> Result<Vec<Option<Batch>>, Failed> {
    let rows = batch.rows();
    let mut columns = Vec::with_capacity(keys.len());
    for key in keys {
        columns.push(evaluate(key, rows)?);
    }
    let mut indices: Vec<Vec<u32>> = vec![Vec::with_capacity(rows.num_rows() / targets + 16); targets];
    for (row, hash) in hash_keys(&columns, rows.num_rows())?.into_iter().enumerate() {
        indices[KeyGroup::of_hash(hash).owner(targets as u32).0 as usize].push(row as u32);
    }
    let mut parts = Vec::with_capacity(targets);
    for indices in indices {
        parts.push(match indices.len() {
            0 => None,
            all if all == rows.num_rows() => Some(batch.clone()),
            _ => {
                let indices = UInt32Array::from(indices);
                Some(batch.select(|column| Ok(arrow::compute::take(column, &indices, None)?))?)
            }
        });
    }
    Ok(parts)
}
