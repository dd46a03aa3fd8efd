//! The appends of a shard that wait to be written, in order.
//!
//! A batch gets its sequence numbers, and its producer is checked, when it is queued: the order of the calls is the
//! order in the log. When a write fails, the next sequence number and the producers become again those of what is stored.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use coulee_model::SequenceNumber;
use tokio::sync::oneshot;

use crate::batch::header::Header;
use crate::batch::marker::TransactionOutcome;
use crate::error::{LogError, Result};
use crate::ids::{Place, ProducerId};
use crate::shard::append::{AppendListener, Appended};
use crate::shard::budget::{AppendBudget, Reservation};
use crate::shard::producers::{Admission, Producers};

/// How much is written and synced at once: what an append may have to wait for before it is its turn.
pub(crate) const GROUP_BYTES_MAX: usize = 8 << 20;

/// An append that waits.
pub(crate) struct QueuedAppend {
    /// Empty for a duplicate, which waits only for what it repeats.
    pub(crate) batch: Bytes,
    /// With the sequence number that the batch has been given.
    pub(crate) header: Header,
    pub(crate) duplicate: bool,
    /// How the batch ends a transaction, if it is a marker.
    pub(crate) marker: Option<Marker>,
    pub(crate) answer: Answer,
    /// The memory that the batch holds. Markers are small and reserve none: the end of a transaction must not be refused.
    pub(crate) reservation: Option<Reservation>,
}

/// How a marker ends its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) outcome: TransactionOutcome,
    /// Whether committed readers wait until the transaction has its markers in other shards too.
    pub(crate) waits_for_others: bool,
}

/// Who is told what became of an append: its caller, a listener, both, or nobody.
///
/// SUBTLE: an answer that is dropped without a word, by a panic, tells its listener so. Otherwise the end of a transaction
/// would wait for it forever. The caller notices that its channel is gone.
#[derive(Default)]
pub(crate) struct Answer {
    caller: Option<oneshot::Sender<Result<Appended>>>,
    listener: Option<Arc<dyn AppendListener>>,
}

impl Answer {
    pub(crate) fn new(
        caller: Option<oneshot::Sender<Result<Appended>>>,
        listener: Option<Arc<dyn AppendListener>>,
    ) -> Self {
        Answer { caller, listener }
    }

    /// Tells the listener, then the caller.
    pub(crate) fn give(mut self, result: Result<Appended>) {
        if let Some(listener) = self.listener.take() {
            listener.appended(result.as_ref().err());
        }
        if let Some(caller) = self.caller.take() {
            // A caller that went away does not want the answer.
            drop(caller.send(result));
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.appended(Some(&LogError::Internal { fault: "the writer of a shard panicked" }));
        }
    }
}

impl QueuedAppend {
    /// Where the batch is, once it is stored.
    fn appended(&self) -> Appended {
        let (first, end) = (self.header.base_sequence, self.header.end());
        Appended { first: SequenceNumber(first), last: SequenceNumber(end - 1), duplicate: self.duplicate }
    }

    pub(crate) fn succeed(self) {
        let appended = self.appended();
        self.answered(Ok(appended));
    }

    pub(crate) fn fail(self, error: LogError) {
        self.answered(Err(error));
    }

    fn answered(self, result: Result<Appended>) {
        // First, so that whoever has the answer finds the room that it made.
        drop(self.reservation);
        self.answer.give(result);
    }

    /// How the batch ends a transaction; `None` when it is no marker.
    pub(crate) fn outcome(&self) -> Option<TransactionOutcome> {
        self.marker.map(|marker| marker.outcome)
    }

    /// The transaction whose end this is, if that has other shards to wait for.
    pub(crate) fn withheld(&self) -> Option<ProducerId> {
        self.marker.filter(|marker| marker.waits_for_others).map(|_| self.header.producer)
    }
}

/// What became of a batch that was taken in.
pub(crate) struct Pushed {
    /// What its answer says if all goes well.
    pub(crate) expected: Appended,
    /// Whether a committer has to be told.
    pub(crate) is_first: bool,
}

/// What a committer has to do.
pub(crate) struct Group {
    pub(crate) appends: VecDeque<QueuedAppend>,
    /// Whether somebody waits for a sync of what was written before.
    pub(crate) sync: bool,
    /// Whether more is waiting.
    pub(crate) more: bool,
}

/// The queue of one shard.
pub(crate) struct Queue {
    waiting: VecDeque<QueuedAppend>,
    /// The next sequence number to be given out.
    next: u64,
    /// With everything that is queued.
    producers: Producers,
    /// Whether a committer knows that there is something to do.
    scheduled: bool,
    /// Whether somebody waits for a sync.
    sync_requested: bool,
    /// Why nothing is taken any more.
    refusal: Option<LogError>,
}

impl Queue {
    pub(crate) fn new(next: u64, producers: Producers) -> Self {
        Queue { waiting: VecDeque::new(), next, producers, scheduled: false, sync_requested: false, refusal: None }
    }

    /// Takes in a batch.
    ///
    /// # Errors
    /// Those of [`Producers::check`], [`LogError::Overloaded`], and the reason why the shard takes no appends. The answer
    /// comes back then.
    pub(crate) fn push(
        &mut self,
        batch: Bytes,
        mut header: Header,
        answer: Answer,
        place: &Place,
        budget: &Arc<AppendBudget>,
    ) -> Result<Pushed, (LogError, Answer)> {
        let admission = match &self.refusal {
            Some(refusal) => Err(refusal.clone()),
            None => self.producers.check(&header, place).and_then(|admission| match admission {
                Admission::New => budget
                    .reserve(batch.len())
                    .map(|held| (admission, Some(held)))
                    .map_err(|bytes| LogError::Overloaded { place: place.clone(), bytes, limit: budget.limit() }),
                Admission::Duplicate(_) => Ok((admission, None)),
            }),
        };
        let queued = match admission {
            Err(error) => return Err((error, answer)),
            Ok((Admission::New, reservation)) => {
                header.base_sequence = self.next;
                self.next = header.end();
                self.producers.note(&header, None);
                QueuedAppend { batch, header, duplicate: false, marker: None, answer, reservation }
            }
            Ok((Admission::Duplicate(at), reservation)) => {
                header.base_sequence = at;
                QueuedAppend { batch: Bytes::new(), header, duplicate: true, marker: None, answer, reservation }
            }
        };
        let expected = queued.appended();
        self.waiting.push_back(queued);
        Ok(Pushed { expected, is_first: self.schedule() })
    }

    /// Takes in the marker of a transaction that has markers in other shards too. The answer says whether a committer has to
    /// be told.
    ///
    /// # Errors
    /// The reason why the shard takes no appends. The answer comes back then.
    pub(crate) fn push_marker(
        &mut self,
        batch: Bytes,
        mut header: Header,
        outcome: TransactionOutcome,
        answer: Answer,
    ) -> Result<bool, (LogError, Answer)> {
        if let Some(refusal) = &self.refusal {
            return Err((refusal.clone(), answer));
        }
        header.base_sequence = self.next;
        self.next = header.end();
        self.producers.note(&header, Some(outcome));
        let marker = Some(Marker { outcome, waits_for_others: true });
        let queued = QueuedAppend { batch, header, duplicate: false, marker, answer, reservation: None };
        self.waiting.push_back(queued);
        Ok(self.schedule())
    }

    /// Asks for a sync. The answer says whether a committer has to be told.
    pub(crate) fn request_sync(&mut self) -> bool {
        self.sync_requested = true;
        self.schedule()
    }

    /// Takes out what is to be done next.
    pub(crate) fn take_group(&mut self) -> Group {
        let mut taken = 0;
        let fits = |queued: &&QueuedAppend| {
            taken += queued.batch.len();
            taken <= GROUP_BYTES_MAX
        };
        let count = self.waiting.iter().take_while(fits).count().max(1).min(self.waiting.len());
        let rest = self.waiting.split_off(count);
        let appends = std::mem::replace(&mut self.waiting, rest);
        self.scheduled = !self.waiting.is_empty();
        Group { appends, sync: std::mem::take(&mut self.sync_requested), more: self.scheduled }
    }

    /// After a failure: whether somebody still waits for a sync. The committer is then taken to know.
    pub(crate) fn still_to_sync(&mut self) -> bool {
        self.scheduled |= self.sync_requested;
        self.sync_requested
    }

    /// The answer says whether a committer has to be told that there is something to do.
    fn schedule(&mut self) -> bool {
        !std::mem::replace(&mut self.scheduled, true)
    }

    /// Takes out everything, and goes on from what is stored.
    pub(crate) fn reset(&mut self, next: u64, producers: Producers) -> VecDeque<QueuedAppend> {
        (self.next, self.producers) = (next, producers);
        self.empty()
    }

    /// Takes out everything, and takes nothing in any more.
    pub(crate) fn refuse(&mut self, reason: LogError) -> VecDeque<QueuedAppend> {
        self.refuse_new(reason);
        self.empty()
    }

    /// Takes nothing in any more. The first reason stays.
    pub(crate) fn refuse_new(&mut self, reason: LogError) {
        self.refusal.get_or_insert(reason);
    }

    /// Forgets the producers whose records retention has removed.
    pub(crate) fn forget(&mut self, earliest: u64) {
        self.producers.forget(earliest);
    }

    pub(crate) fn producers(&self) -> &Producers {
        &self.producers
    }

    fn empty(&mut self) -> VecDeque<QueuedAppend> {
        self.scheduled = false;
        std::mem::take(&mut self.waiting)
    }
}
