//! The task of a sink's committer: makes visible what the writers prepared, beside the tasks that write.
//!
//! The driver tells it of every checkpoint that is durable, with what was prepared for it, and when to commit: at once, or where a sink waits for
//! snapshots, with the snapshot. Requests that came while a commit took its time become one.

use std::sync::Arc;

use bytes::Bytes;
use coulee_checkpoint::StateKey;
use coulee_model::CheckpointId;
use tokio::sync::mpsc;

use super::committable::Committable;
use super::messages::{Report, TaskId};
use super::route::{Ran, TaskError};
use crate::Error;
use crate::connector::SinkCommitter;
use crate::failpoints::injected;
use crate::metrics::SubtaskMetrics;

/// What the driver says to a committer.
#[derive(Debug)]
pub(super) enum CommitRequest {
    /// The checkpoint is durable, with these committables.
    Durable(CheckpointId, Vec<Committable>),
    /// What the sink waits for is durable: this checkpoint and those before it are to be committed.
    Commit(CheckpointId),
}

/// The committer of one sink.
pub(super) struct CommitterTask {
    pub(super) id: TaskId,
    pub(super) uid: String,
    pub(super) committer: Box<dyn SinkCommitter>,
    pub(super) requests: mpsc::UnboundedReceiver<CommitRequest>,
    pub(super) reports: mpsc::UnboundedSender<Report>,
    /// Of the sink's first subtask: where a delivery that takes long is seen.
    pub(super) metrics: Arc<SubtaskMetrics>,
}

impl CommitterTask {
    /// Runs until nobody asks for more.
    pub(super) async fn run(mut self) -> Ran {
        let mut waiting: Vec<(CheckpointId, Vec<Committable>)> = Vec::new();
        while let Some(request) = self.requests.recv().await {
            let mut due = None;
            let mut next = Some(request);
            while let Some(request) = next {
                match request {
                    CommitRequest::Durable(checkpoint, committables) => waiting.push((checkpoint, committables)),
                    CommitRequest::Commit(checkpoint) => due = due.max(Some(checkpoint)),
                }
                next = self.requests.try_recv().ok();
            }
            if let Some(checkpoint) = due {
                let committables = waiting.extract_if(.., |(of, _)| *of <= checkpoint);
                let committables = committables.flat_map(|(_, committables)| committables).collect();
                self.commit(checkpoint, committables).await?;
            }
        }
        Ok(())
    }

    async fn commit(&mut self, checkpoint: CheckpointId, committables: Vec<Committable>) -> Ran {
        fail::fail_point!("sink.commit.before", |_| Err(injected("sink.commit.before").into()));
        let (keys, committables): (Vec<StateKey>, Vec<Bytes>) = committables.into_iter().unzip();
        if !committables.is_empty() {
            self.metrics.set_delivering(true);
            let committed = self.committer.commit(checkpoint, committables).await;
            committed.map_err(|error: Error| error.at(&self.uid))?;
            self.metrics.set_delivering(false);
        }
        fail::fail_point!("sink.commit.after", |_| Err(injected("sink.commit.after").into()));
        let report = Report::Delivered { task: self.id, checkpoint, committed: keys };
        self.reports.send(report).map_err(|_| TaskError::Disconnected)
    }
}
