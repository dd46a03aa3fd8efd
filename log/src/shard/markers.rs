//! How a transaction that spans shards ends in one of them: its marker, and what committed readers then see.

use std::sync::Arc;

use crate::batch::marker::{self, TransactionOutcome};
use crate::ids::ProducerId;
use crate::shard::append::AppendListener;
use crate::shard::committer::Commit;
use crate::shard::queue::Answer;
use crate::shard::shard::Shard;

impl Shard {
    /// Queues the commit marker or abort marker of a transaction, if the transaction is open here. `listener` is told when
    /// the marker is durable, or that none is needed, or that it failed.
    pub(crate) fn push_marker(
        self: &Arc<Self>,
        producer: ProducerId,
        outcome: TransactionOutcome,
        listener: Arc<dyn AppendListener>,
    ) {
        let made =
            self.opened().and_then(|open| Ok((open, marker::build(producer, outcome, self.context.clock.now())?)));
        let (open, (batch, header)) = match made {
            Ok(made) => made,
            Err(error) => return listener.appended(Some(&error)),
        };
        let mut queue = open.queue.lock();
        if !queue.producers().is_open(producer) {
            drop(queue);
            // The transaction's records are not in this shard, or not any more.
            return listener.appended(None);
        }
        let pushed = queue.push_marker(batch, header, outcome, Answer::new(None, Some(listener)));
        drop(queue);
        match pushed {
            Ok(true) => self.commits.schedule(Arc::clone(self) as Arc<dyn Commit>),
            Ok(false) => {}
            Err((error, answer)) => answer.give(Err(error)),
        }
    }

    /// The markers of a transaction are durable in all its shards: committed readers may go past it.
    pub(crate) fn publish(&self, producer: ProducerId) {
        let Some(Ok(open)) = self.open.get() else { return };
        let mut last_stable_offset = open.last_stable_offset.lock();
        last_stable_offset.publish(producer);
        self.head.send_if_modified(|head| {
            let last_stable = last_stable_offset.offset(head.end);
            last_stable > std::mem::replace(&mut head.last_stable, last_stable)
        });
    }
}
