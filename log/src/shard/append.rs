//! What an append gives its caller: an answer to wait for, at one of three points.
//!
//! | point | the records are |
//! | --- | --- |
//! | [`Append::written`] | in order, and with the operating system |
//! | [`Append::durable`] | on the disk |
//! | awaiting the [`Append`] | at the one of the two that the stream's policy demands, and visible to readers |

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use coulee_model::SequenceNumber;
use tokio::sync::oneshot;

use crate::error::{LogError, Result};
use crate::shard::progress::{AppendTarget, Progress};

/// Where the records of a batch are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The sequence number of the first record.
    pub first: SequenceNumber,
    /// The sequence number of the last record.
    pub last: SequenceNumber,
    /// Whether an idempotent producer had sent the batch before: it was not stored again.
    pub duplicate: bool,
}

/// Told what became of an append, beside or instead of its caller: by the committer's thread, exactly once.
pub(crate) trait AppendListener: Send + Sync {
    /// The append is stored, or failed with an error.
    fn appended(&self, error: Option<&LogError>);
}

/// An append under way. Dropping it does not take the append back.
///
/// Awaiting it waits until the batch is stored as the stream's [`SyncPolicy`](crate::SyncPolicy) demands.
#[derive(Debug)]
#[must_use = "only a completed append is known to be stored"]
pub struct Append {
    state: State,
    /// The shard, and what the answer says if all goes well: sequence numbers are given out when a batch is queued. `None`
    /// for a batch that was not queued.
    queued: Option<(Arc<dyn AppendTarget>, Appended)>,
}

#[derive(Debug)]
enum State {
    Waiting(oneshot::Receiver<Result<Appended>>),
    Done(Result<Appended>),
}

impl Append {
    pub(crate) fn refused(error: LogError) -> Self {
        Append { state: State::Done(Err(error)), queued: None }
    }

    pub(crate) fn queued(
        answer: oneshot::Receiver<Result<Appended>>,
        target: Arc<dyn AppendTarget>,
        expected: Appended,
    ) -> Self {
        Append { state: State::Waiting(answer), queued: Some((target, expected)) }
    }

    /// Waits in a thread that may block.
    ///
    /// # Errors
    /// As awaiting it.
    ///
    /// # Panics
    /// When called from an asynchronous task: await it there.
    pub fn wait(self) -> Result<Appended> {
        match self.state {
            State::Done(result) => result,
            State::Waiting(answer) => answer.blocking_recv().unwrap_or_else(|_| Err(closed(self.queued.as_ref()))),
        }
    }

    /// Waits until the operating system has the batch: its records are in order and survive the end of the process, but
    /// perhaps not a power cut, and where the policy is [`SyncPolicy::Group`](crate::SyncPolicy::Group) readers do not
    /// see them yet. Kafka's `acks=1`.
    ///
    /// Can be dropped and called again, or followed by any other way to wait.
    ///
    /// # Errors
    /// As awaiting the append. A batch that was written may still fail where the policy demands a sync.
    pub async fn written(&mut self) -> Result<Appended> {
        let Some((target, expected)) = self.queued.clone() else { return (&mut *self).await };
        let mut progress = target.progress();
        tokio::select! {
            biased;
            result = &mut *self => return result,
            _ = progress.wait_for(|progress| progress.written > expected.last.0) => {}
        }
        // SUBTLE: after a failed write the same numbers are given to other batches. A failure is answered before any of those
        // is written, so as long as there is no answer it is this batch that was written.
        let answer = std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut *self).poll(context))).await;
        match answer {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(expected),
        }
    }

    /// Waits until the batch is on the disk, whatever the stream's policy is. Where it is
    /// [`SyncPolicy::Interval`](crate::SyncPolicy::Interval), that is after the next sync; where it is
    /// [`SyncPolicy::Os`](crate::SyncPolicy::Os), this asks for a sync. Kafka's `acks=all`.
    ///
    /// Can be dropped and called again, or followed by any other way to wait.
    ///
    /// # Errors
    /// As awaiting the append; and the error of the sync, after which it is undetermined whether the batch is durable.
    pub async fn durable(&mut self) -> Result<Appended> {
        let appended = (&mut *self).await?;
        let Some((target, _)) = &self.queued else { return Ok(appended) };
        let mut progress = target.progress();
        let is_durable = |progress: &Progress| progress.durable > appended.last.0;
        let is_pending = !is_durable(&progress.borrow());
        if is_pending {
            Arc::clone(target).request_sync();
        }
        let settled = progress.wait_for(|progress| is_durable(progress) || progress.failed.is_some()).await;
        match settled.as_deref() {
            Ok(progress) if is_durable(progress) => Ok(appended),
            Ok(Progress { failed: Some(error), .. }) => Err(error.clone()),
            _ => Err(closed(self.queued.as_ref())),
        }
    }
}

impl Future for Append {
    type Output = Result<Appended>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Append { state, queued } = &mut *self;
        if let State::Waiting(answer) = state {
            let Poll::Ready(result) = Pin::new(answer).poll(context) else { return Poll::Pending };
            *state = State::Done(result.unwrap_or_else(|_| Err(closed(queued.as_ref()))));
        }
        match state {
            State::Done(result) => Poll::Ready(result.clone()),
            State::Waiting(_) => Poll::Pending,
        }
    }
}

/// The answer of a shard that went away without one.
fn closed(queued: Option<&(Arc<dyn AppendTarget>, Appended)>) -> LogError {
    queued.map_or(LogError::LogClosed, |(target, _)| LogError::Closed { place: target.place().clone() })
}
