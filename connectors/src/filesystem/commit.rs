//! The committer: makes finished files visible once their checkpoint is durable, beside the writers.
//!
//! A store that is slow holds back neither rows nor barriers, until so much waits for it that the disk must be kept from filling up: writers then wait for
//! commits of checkpoints that are durable already ([`Backlog`]).

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use coulee_model::CheckpointId;
use coulee_runtime::connector::SinkCommitter;
use coulee_runtime::{Error, Result};
use futures::StreamExt;
use tokio::sync::watch;

use super::deliver::{deliver, injected};
use super::plan::SinkPlan;
use super::state::Committable;

/// How many objects are put at a time: each may take the memory of its file.
const DELIVERIES_MAX: usize = 2;

/// How many bytes a writer may have handed over that are not visible before it waits.
const WAITING_BYTES_MAX: u64 = 512 << 20;

/// The committer of a sink.
pub struct FilesystemCommitter {
    pub(super) plan: Arc<SinkPlan>,
    pub(super) spool: PathBuf,
}

#[async_trait]
impl SinkCommitter for FilesystemCommitter {
    async fn commit(&mut self, checkpoint: CheckpointId, committables: Vec<Bytes>) -> Result<()> {
        let due = committables.iter().map(|bytes| Committable::decode(bytes)).collect::<Result<Vec<_>>>()?;
        let deliveries = due.iter().map(|due| {
            let (plan, file, ready) = (self.plan.clone(), self.spool.join(&due.ready.file), due.ready.clone());
            async move { deliver(&plan.target, file, &ready).await }
        });
        let deliveries: Vec<_> = deliveries.collect();
        let mut results = futures::stream::iter(deliveries).buffer_unordered(DELIVERIES_MAX);
        while let Some(result) = results.next().await {
            result?;
        }
        drop(results);
        fail::fail_point!("filesystem.forget.before", |_| Err(injected("filesystem.forget.before")));
        for due in &due {
            remove(&self.spool.join(&due.ready.file))?;
            remove(&self.spool.join(&due.spool))?;
        }
        self.plan.committed.send_replace(checkpoint);
        Ok(())
    }
}

fn remove(file: &Path) -> Result<()> {
    match std::fs::remove_file(file) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("cannot remove the spool file {}", file.display()), cause))
        }
        _ => Ok(()),
    }
}

/// What one writer has handed over and is not committed.
///
/// SUBTLE: a writer may wait for a commit only when that needs no barrier to pass through it or its neighbours. What it handed over at its last barrier is
/// either of a durable checkpoint, or of one that becomes durable without it: every other subtask waits for earlier checkpoints only, and those are durable. That
/// does not hold where commits wait for snapshots, as the next snapshot may need the next checkpoint: there nobody waits.
#[derive(Debug)]
pub struct Backlog {
    committed: watch::Receiver<CheckpointId>,
    waiting: VecDeque<(CheckpointId, u64)>,
    bytes: u64,
    bytes_max: u64,
}

impl Backlog {
    /// Of a writer whose sink commits on checkpoints (`may_wait`), or on snapshots.
    pub fn new(committed: &watch::Sender<CheckpointId>, may_wait: bool) -> Self {
        let bytes_max = if may_wait { WAITING_BYTES_MAX } else { u64::MAX };
        Backlog { committed: committed.subscribe(), waiting: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// So many bytes were handed over at a barrier.
    pub fn hand_over(&mut self, checkpoint: CheckpointId, bytes: u64) {
        if bytes > 0 {
            self.waiting.push_back((checkpoint, bytes));
            self.bytes += bytes;
        }
    }

    /// Waits while too much is not committed. Cancel-safe.
    pub async fn room(&mut self) {
        loop {
            let committed = *self.committed.borrow_and_update();
            while let Some((_, bytes)) = self.waiting.pop_front_if(|(checkpoint, _)| *checkpoint <= committed) {
                self.bytes -= bytes;
            }
            // Without a committer the attempt is over.
            if self.bytes <= self.bytes_max || self.committed.changed().await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_writer_waits_for_commits_when_too_much_is_not_visible() {
        let committed = watch::Sender::new(CheckpointId(0));
        let mut backlog = Backlog::new(&committed, true);
        backlog.hand_over(CheckpointId(1), WAITING_BYTES_MAX);
        backlog.room().await;
        backlog.hand_over(CheckpointId(2), 1);
        assert!(futures::poll!(std::pin::pin!(backlog.room())).is_pending());
        committed.send_replace(CheckpointId(1));
        backlog.room().await;
        let mut unhurried = Backlog::new(&committed, false);
        unhurried.hand_over(CheckpointId(3), u64::MAX / 2);
        unhurried.room().await;
    }
}
