//! What an append gives its caller: a promise to be kept once the records are durable.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use coulee_model::SequenceNumber;
use tokio::sync::oneshot;

use crate::error::{LogError, Result};
use crate::ids::Place;

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
/// Completes when the batch is stored as the stream's [`SyncPolicy`](crate::SyncPolicy) demands.
#[derive(Debug)]
#[must_use = "only a completed append is known to be stored"]
pub struct Append {
    state: State,
    place: Place,
}

#[derive(Debug)]
enum State {
    Refused(Option<LogError>),
    Queued(oneshot::Receiver<Result<Appended>>),
}

impl Append {
    pub(crate) fn refused(place: Place, error: LogError) -> Self {
        Append { state: State::Refused(Some(error)), place }
    }

    pub(crate) fn queued(place: Place, answer: oneshot::Receiver<Result<Appended>>) -> Self {
        Append { state: State::Queued(answer), place }
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
            State::Refused(error) => Err(error.expect("a future is not used after it completed")),
            State::Queued(answer) => answer.blocking_recv().unwrap_or(Err(LogError::Closed { place: self.place })),
        }
    }
}

impl Future for Append {
    type Output = Result<Appended>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.state {
            State::Refused(error) => Poll::Ready(Err(error.take().expect("a future is not used after it completed"))),
            State::Queued(answer) => match Pin::new(answer).poll(context) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(result)) => Poll::Ready(result),
                Poll::Ready(Err(_)) => Poll::Ready(Err(LogError::Closed { place: self.place.clone() })),
            },
        }
    }
}
