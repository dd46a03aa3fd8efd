//! How transactions end in a shard: their markers, and what committed readers then see.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::Shard;
use crate::ProducerId;
use crate::coordinator::Fate;
use crate::ending::Ending;
use crate::header::Header;
use crate::marker::{self, Outcome};
use crate::queue::{Answer, Waiting};
use crate::segment::Segment;
use crate::stability::Stability;
use crate::writer::{Failure, Writer};

impl Shard {
    /// Queues the marker of a transaction, if the transaction is open here.
    pub(crate) fn push_marker(self: &Arc<Self>, producer: ProducerId, outcome: Outcome, ending: &Arc<Ending>) {
        let push = || {
            let open = self.opened()?;
            let (batch, header) = marker::build(producer, outcome, self.home.clock.now())?;
            let mut queue = open.queue.lock();
            if !queue.producers().is_open(producer) {
                return Ok(false);
            }
            if queue.push_marker(batch, header, outcome, Arc::clone(ending))? {
                self.work.schedule(Arc::clone(self));
            }
            Ok(true)
        };
        match push() {
            Ok(true) => {}
            // Its records are not there, or not any more.
            Ok(false) => ending.answered(None),
            Err(error) => ending.answered(Some(error)),
        }
    }

    /// The markers of a transaction are durable in all its shards: committed readers may go past it.
    pub(crate) fn publish(&self, producer: ProducerId) {
        let Some(Ok(open)) = self.open.get() else { return };
        let mut stability = open.stability.lock();
        stability.publish(producer);
        self.head.send_if_modified(|head| {
            let stable = stability.stable(head.end);
            stable > std::mem::replace(&mut head.stable, stable)
        });
    }

    /// Ends the transactions that nobody will end any more: they were not prepared when the process ended. Before any
    /// reader, so that none waits for them.
    pub(super) fn end_orphans(
        &self,
        writer: &mut Writer,
        segments: &RwLock<Vec<Arc<Segment>>>,
        stability: &Mutex<Stability>,
    ) {
        let (mut group, mut next) = (VecDeque::new(), writer.end());
        for producer in writer.producers().open() {
            let Fate::Ended(outcome) = self.home.transactions.fate(producer) else { continue };
            match marker::build(producer, outcome, self.home.clock.now()) {
                Ok((batch, header)) => {
                    let header = Header { base_sequence: next, ..header };
                    next = header.end();
                    group.push_back(Waiting { batch, header, duplicate: false, answer: Answer::Nobody(outcome) });
                }
                Err(error) => tracing::error!(%producer, %error, "a marker cannot be made"),
            }
        }
        while !group.is_empty() {
            match writer.write(&self.home, segments, &group, stability, &mut Vec::new()) {
                Ok(written) => {
                    stability.lock().advance(writer.producers().first_open(), &written.closed, |_| false);
                    tracing::info!(
                        stream = %self.stream(), shard = %self.id(), count = written.count,
                        "ended transactions that were left open by a process that is gone"
                    );
                    group.drain(..written.count);
                }
                Err(Failure::Passing(error) | Failure::Lasting(error)) => {
                    tracing::error!(
                        stream = %self.stream(), shard = %self.id(), %error,
                        "cannot end transactions that were left open: committed readers wait until the next start"
                    );
                    return;
                }
            }
        }
    }
}
