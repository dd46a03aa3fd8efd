//! The appends of a shard that wait to be written, in order.
//!
//! A batch gets its sequence numbers, and its producer is checked, when it is queued: the order of the calls is the
//! order in the log. Should the queue fail, both are set back to what is stored.

use std::collections::VecDeque;

use bytes::Bytes;
use coulee_model::SequenceNumber;
use tokio::sync::oneshot;

use crate::append::Appended;
use crate::error::Place;
use crate::header::Header;
use crate::producers::{Admission, Producers};
use crate::{LogError, Result};

/// How much is written and synced at once: what an append may have to wait for before it is its turn.
pub(crate) const GROUP_BYTES_MAX: usize = 8 << 20;

/// An append that waits.
pub(crate) struct Waiting {
    /// Empty for a duplicate, which waits only for what it repeats.
    pub(crate) batch: Bytes,
    /// With the sequence number that the batch has been given.
    pub(crate) header: Header,
    pub(crate) duplicate: bool,
    pub(crate) answer: oneshot::Sender<Result<Appended>>,
}

impl Waiting {
    pub(crate) fn succeed(self) {
        let (first, end) = (self.header.base_sequence, self.header.end());
        let appended =
            Appended { first: SequenceNumber(first), last: SequenceNumber(end - 1), duplicate: self.duplicate };
        // A caller that went away does not want the answer.
        let _ = self.answer.send(Ok(appended));
    }

    pub(crate) fn fail(self, error: LogError) {
        let _ = self.answer.send(Err(error));
    }
}

/// The queue of one shard.
pub(crate) struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// The next sequence number to be given out.
    next: u64,
    /// With everything that is queued.
    producers: Producers,
    /// Whether a committer knows that there is something to do.
    scheduled: bool,
    /// Why nothing is taken any more.
    refusal: Option<LogError>,
}

impl Queue {
    pub(crate) fn new(next: u64, producers: Producers) -> Self {
        Queue { waiting: VecDeque::new(), bytes: 0, next, producers, scheduled: false, refusal: None }
    }

    /// Takes in a batch. The answer says whether a committer has to be told.
    ///
    /// # Errors
    /// Those of [`Producers::check`], and the reason why the shard takes no appends.
    pub(crate) fn push(
        &mut self,
        batch: Bytes,
        mut header: Header,
        answer: oneshot::Sender<Result<Appended>>,
        place: &Place,
    ) -> Result<bool> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        let waiting = match self.producers.check(&header, place)? {
            Admission::New => {
                header.base_sequence = self.next;
                self.next = header.end();
                self.bytes += batch.len();
                self.producers.note(&header);
                Waiting { batch, header, duplicate: false, answer }
            }
            Admission::Duplicate(at) => {
                header.base_sequence = at;
                Waiting { batch: Bytes::new(), header, duplicate: true, answer }
            }
        };
        self.waiting.push_back(waiting);
        Ok(!std::mem::replace(&mut self.scheduled, true))
    }

    /// Takes out what is to be written next. The second answer says whether more is waiting.
    pub(crate) fn take_group(&mut self) -> (VecDeque<Waiting>, bool) {
        let mut taken = 0;
        let fits = |waiting: &&Waiting| {
            taken += waiting.batch.len();
            taken <= GROUP_BYTES_MAX
        };
        let count = self.waiting.iter().take_while(fits).count().max(1).min(self.waiting.len());
        let rest = self.waiting.split_off(count);
        let group = std::mem::replace(&mut self.waiting, rest);
        self.bytes -= group.iter().map(|waiting| waiting.batch.len()).sum::<usize>();
        self.scheduled = !self.waiting.is_empty();
        (group, self.scheduled)
    }

    /// Takes out everything, and goes on from what is stored.
    pub(crate) fn reset(&mut self, next: u64, producers: Producers) -> VecDeque<Waiting> {
        (self.next, self.producers) = (next, producers);
        self.empty()
    }

    /// Takes out everything, and takes nothing in any more.
    pub(crate) fn refuse(&mut self, reason: LogError) -> VecDeque<Waiting> {
        self.refuse_new(reason);
        self.empty()
    }

    /// Takes nothing in any more. The first reason stays.
    pub(crate) fn refuse_new(&mut self, reason: LogError) {
        self.refusal.get_or_insert(reason);
    }

    /// Bytes of batches that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn producers(&self) -> &Producers {
        &self.producers
    }

    fn empty(&mut self) -> VecDeque<Waiting> {
        self.bytes = 0;
        self.scheduled = false;
        std::mem::take(&mut self.waiting)
    }
}
