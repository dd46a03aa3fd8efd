//! Channels between subtasks, bounded in bytes.

use std::sync::Arc;

use coulee_model::{CheckpointId, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::watermark::Activity;
use crate::{Batch, Result};

/// The most bytes of rows that wait in one channel. Small enough that a barrier is never far behind, large enough for two batches.
pub(crate) const CHANNEL_BYTES: usize = 2 << 20;
/// A row counts for as much at least, or a channel of narrow rows would hold seconds of work for a slow operator, and a barrier behind it:
/// 16,384 rows are two full batches.
const ROW_BYTES: usize = 128;
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
    /// Whether the sender holds back the watermark. A sender that was idle is active again from its next rows, watermark, or `Active` on; it says
    /// `Active` where its rows end on the way (in a filter, a window).
    Activity(Activity),
    Barrier(Barrier),
    /// No rows follow; barriers still do.
    End,
}

#[derive(Debug)]
struct Envelope {
    element: Element,
    /// Held while the element waits: dropping it makes room.
    room: Option<OwnedSemaphorePermit>,
}

#[derive(Debug, Clone)]
pub(crate) struct Sender {
    queue: mpsc::UnboundedSender<Envelope>,
    room: Arc<Semaphore>,
}

#[derive(Debug)]
pub(crate) struct Receiver {
    queue: mpsc::UnboundedReceiver<Envelope>,
    /// What `gather` met and left for the next call.
    ahead: Option<Envelope>,
}

/// The other end is gone: its subtask failed or was cancelled, and says so itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Disconnected;

/// A channel for [`CHANNEL_BYTES`].
pub(crate) fn channel() -> (Sender, Receiver) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(CHANNEL_BYTES / UNIT_BYTES));
    (Sender { queue: sender, room }, Receiver { queue: receiver, ahead: None })
}

impl Sender {
    /// Waits until there is room. A batch larger than the channel takes all of it; marks take none.
    pub(crate) async fn send(&self, element: Element) -> Result<(), Disconnected> {
        let units = match &element {
            Element::Batch(batch) => {
                let bytes = batch.bytes().max(batch.len() * ROW_BYTES);
                (bytes / UNIT_BYTES).clamp(1, CHANNEL_BYTES / UNIT_BYTES)
            }
            _ => 0,
        };
        let room = if units == 0 {
            None
        } else {
            tokio::select! {
                biased;
                room = self.room.clone().acquire_many_owned(units as u32) => Some(room.map_err(|_| Disconnected)?),
                // A receiver that is gone frees no room.
                () = self.queue.closed() => return Err(Disconnected),
            }
        };
        self.queue.send(Envelope { element, room }).map_err(|_| Disconnected)
    }
}

impl Receiver {
    /// The next element; cancel-safe.
    pub(crate) fn poll_recv(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<Element, Disconnected>> {
        if let Some(envelope) = self.ahead.take() {
            return std::task::Poll::Ready(Ok(envelope.element));
        }
        self.queue.poll_recv(cx).map(|envelope| envelope.map(|e| e.element).ok_or(Disconnected))
    }

    /// A batch that was just received, with those that are queued right behind it, up to `rows_max` rows together: a
    /// shuffle cuts a batch into as many pieces as there are subtasks. Waits for none, and passes no mark.
    ///
    /// # Errors
    /// When Arrow cannot join a column's type.
    pub(crate) fn gather(&mut self, first: Batch, rows_max: usize) -> Result<Batch> {
        // A copy is only worth it for pieces.
        if first.len() > rows_max / 2 || self.ahead.is_some() {
            return Ok(first);
        }
        let (mut rows, mut parts, mut rooms) = (first.len(), vec![first], Vec::new());
        while let Ok(envelope) = self.queue.try_recv() {
            match envelope {
                Envelope { element: Element::Batch(batch), room }
                    if rows + batch.len() <= rows_max && batch.kinds().is_some() == parts[0].kinds().is_some() =>
                {
                    rows += batch.len();
                    parts.push(batch);
                    // Kept until all are there: the channel's bound in bytes holds for what is gathered, too.
                    rooms.push(room);
                }
                other => {
                    self.ahead = Some(other);
                    break;
                }
            }
        }
        Batch::concat(parts)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;

    use arrow::array::{AsArray, Int8Array, Int64Array};
    use arrow::datatypes::Int64Type;
    use arrow::record_batch::RecordBatch;

    use super::*;
    use crate::batch::BATCH_ROWS;

    fn batch(rows: usize) -> Batch {
        let column = Arc::new(Int64Array::from(vec![0; rows])) as _;
        Batch::inserts(RecordBatch::try_from_iter([("x", column)]).expect("one column"))
    }

    #[tokio::test]
    async fn a_full_channel_waits_until_its_reader_has_taken_something() {
        let (sender, mut receiver) = channel();
        let half = batch(CHANNEL_BYTES / 2 / ROW_BYTES);
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

    /// A batch with the numbers of a range.
    fn numbers(range: std::ops::Range<i64>) -> Batch {
        let column = Arc::new(Int64Array::from_iter_values(range)) as _;
        Batch::inserts(RecordBatch::try_from_iter([("x", column)]).expect("one column"))
    }

    #[tokio::test]
    async fn pieces_that_wait_are_gathered_up_to_the_next_mark() {
        let (sender, mut receiver) = channel();
        let changed = Batch::changes(numbers(30..32).into_rows(), Int8Array::from(vec![0, 3]));
        let barrier = Element::Barrier(Barrier { checkpoint: CheckpointId(1), last: false });
        let large = BATCH_ROWS as i64 - 2;
        let batches = [numbers(0..3), numbers(3..10)].map(Element::Batch);
        let marked =
            [Element::Watermark(Timestamp(1)), Element::Batch(numbers(10..20)), Element::Batch(numbers(20..30))];
        let changes = [Element::Batch(changed.clone()), Element::Batch(changed), barrier];
        let full = [numbers(0..2), numbers(2..large), numbers(large..large + 3)].map(Element::Batch);
        for element in batches.into_iter().chain(marked).chain(changes).chain(full) {
            sender.send(element).await.unwrap();
        }
        drop(sender);
        let mut found = Vec::new();
        while let Ok(element) = poll_fn(|cx| receiver.poll_recv(cx)).await {
            found.push(match element {
                Element::Batch(batch) => {
                    let batch = receiver.gather(batch, BATCH_ROWS).unwrap();
                    let values = batch.rows().column(0).as_primitive::<Int64Type>().values();
                    assert!(values.is_sorted() || batch.kinds().is_some(), "in order: {values:?}");
                    format!(
                        "{}..={} {:?}",
                        values[0],
                        values[batch.len() - 1],
                        batch.kinds().map(|kinds| kinds.values().to_vec())
                    )
                }
                Element::Barrier(_) => "barrier".to_owned(),
                other => format!("{other:?}"),
            });
        }
        let last = format!("{large}..={} None", large + 2);
        let expected =
            ["0..=9 None", "Watermark(Timestamp(1))", "10..=29 None", "30..=31 Some([0, 3, 0, 3])", "barrier"];
        assert_eq!(found, [&expected[..], &[&format!("0..={} None", large - 1), &last]].concat());
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
