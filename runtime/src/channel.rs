//! Channels between subtasks, bounded in bytes.

use std::sync::Arc;

use coulee_model::{CheckpointId, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::Batch;

/// The most bytes of rows that wait in one channel. Small enough that a barrier is never far behind, large enough for two batches.
pub(crate) const CHANNEL_BYTES: usize = 2 << 20;
/// Permits are counted in units of this, as a semaphore counts in `u32`.
const UNIT_BYTES: usize = 1 << 10;

/// A mark in the flow that separates what belongs to a checkpoint from what comes after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Barrier {
    /// Which checkpoint.
    pub checkpoint: CheckpointId,
    /// Whether the job ends with it: nothing follows.
    pub last: bool,
}

/// What flows along an edge.
#[derive(Debug, Clone)]
pub(crate) enum Element {
    Batch(Batch),
    Watermark(Timestamp),
    /// The sender holds back no watermark until it sends rows or a watermark again.
    Idle,
    Barrier(Barrier),
    /// No rows follow; barriers still do.
    End,
}

#[derive(Debug)]
struct Envelope {
    element: Element,
    /// Held while the element waits: dropping it makes room.
    _room: Option<OwnedSemaphorePermit>,
}

#[derive(Debug, Clone)]
pub(crate) struct Sender {
    queue: mpsc::UnboundedSender<Envelope>,
    room: Arc<Semaphore>,
}

#[derive(Debug)]
pub(crate) struct Receiver {
    queue: mpsc::UnboundedReceiver<Envelope>,
}

/// The other end is gone: its subtask failed or was cancelled, and says so itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disconnected;

/// A channel for [`CHANNEL_BYTES`].
pub(crate) fn channel() -> (Sender, Receiver) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(CHANNEL_BYTES / UNIT_BYTES));
    (Sender { queue: sender, room }, Receiver { queue: receiver })
}

impl Sender {
    /// Waits until there is room. A batch larger than the channel takes all of it; marks take none.
    pub(crate) async fn send(&self, element: Element) -> Result<(), Disconnected> {
        let units = match &element {
            Element::Batch(batch) => (batch.bytes() / UNIT_BYTES).clamp(1, CHANNEL_BYTES / UNIT_BYTES),
            _ => 0,
        };
        let room = if units == 0 {
            None
        } else {
            tokio::select! {
                room = self.room.clone().acquire_many_owned(units as u32) => Some(room.map_err(|_| Disconnected)?),
                // A receiver that is gone frees no room.
                () = self.queue.closed() => return Err(Disconnected),
            }
        };
        self.queue.send(Envelope { element, _room: room }).map_err(|_| Disconnected)
    }
}

impl Receiver {
    /// The next element; cancel-safe.
    pub(crate) fn poll_recv(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<Element, Disconnected>> {
        self.queue.poll_recv(cx).map(|envelope| envelope.map(|e| e.element).ok_or(Disconnected))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use arrow::record_batch::RecordBatch;

    use super::*;

    fn batch(rows: usize) -> Batch {
        let column = Arc::new(Int64Array::from(vec![0; rows])) as _;
        Batch::inserts(RecordBatch::try_from_iter([("x", column)]).expect("one column"))
    }

    #[tokio::test]
    async fn a_full_channel_waits_until_its_reader_has_taken_something() {
        let (sender, mut receiver) = channel();
        let half = batch(CHANNEL_BYTES / 2 / 8);
        sender.send(Element::Batch(half.clone())).await.unwrap();
        sender.send(Element::Batch(half.clone())).await.unwrap();
        let mut third = Box::pin(sender.send(Element::Batch(half)));
        assert!(futures::poll!(&mut third).is_pending());
        // Marks are never held up by rows.
        sender.send(Element::Watermark(Timestamp(1))).await.unwrap();
        poll_fn(|cx| receiver.poll_recv(cx)).await.unwrap();
        third.await.unwrap();
        drop(receiver);
        assert_eq!(sender.send(Element::Batch(batch(1))).await, Err(Disconnected));
    }

    #[tokio::test]
    async fn a_batch_above_the_bound_passes_alone() {
        let (sender, mut receiver) = channel();
        sender.send(Element::Batch(batch(CHANNEL_BYTES))).await.unwrap();
        let mut second = Box::pin(sender.send(Element::Batch(batch(1))));
        assert!(futures::poll!(&mut second).is_pending());
        poll_fn(|cx| receiver.poll_recv(cx)).await.unwrap();
        second.await.unwrap();
    }
}
