//! A shard: an append-only run of segments, one writer behind a queue, and any number of readers.
//!
//! A shard is opened by its first use: a log of many idle shards starts at once. Locks are taken in the order writer,
//! queue, segments.

mod damage;
mod ends;
mod reading;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use coulee_model::{Clock, ShardId, StreamName};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, oneshot, watch};

use crate::append::Append;
use crate::builder::BatchBuilder;
use crate::committer::Work;
use crate::coordinator::Coordinator;
use crate::error::Place;
use crate::queue::{Answer, Queue, Waiting};
use crate::retention::{self, Removed};
use crate::segment::Segment;
use crate::settings::{LogSettings, StreamSettings, SyncPolicy};
use crate::stability::Stability;
use crate::storage::Storage;
use crate::tail::{Head, Life};
use crate::writer::{Failure, Writer, Written};
use crate::{LogError, ProducerId, Result, recovery};

/// The most that one read returns, in bytes, however much is asked for; a larger batch is still returned whole.
pub const READ_BYTES_MAX: usize = 64 << 20;

/// Above this many waiting bytes [`Shard::room`] makes its caller wait.
const ROOM_BYTES: usize = 64 << 20;

/// Where a shard lives, and what it works with.
pub(crate) struct Home {
    pub(crate) place: Place,
    pub(crate) folder: PathBuf,
    pub(crate) settings: LogSettings,
    pub(crate) sync: SyncPolicy,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) transactions: Arc<Coordinator>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// One shard of a stream.
pub struct Shard {
    home: Home,
    work: Arc<Work>,
    head: watch::Sender<Head>,
    open: OnceLock<Result<Open>>,
}

/// What there is once the folder has been read.
struct Open {
    writer: Mutex<Writer>,
    queue: Mutex<Queue>,
    /// Told whenever the queue got shorter.
    room: Notify,
    /// Oldest first, never empty. The last one grows.
    segments: RwLock<Vec<Arc<Segment>>>,
    stability: Mutex<Stability>,
}

/// What a committer has to do after a commit.
pub(crate) enum Followup {
    None,
    /// More is waiting.
    Again,
    /// What was written is not synced yet.
    SyncWithin {
        ms: u64,
        again: bool,
    },
}

impl Shard {
    pub(crate) fn new(home: Home, work: Arc<Work>) -> Self {
        let head = watch::Sender::new(Head { end: 0, stable: 0, life: Life::Open });
        Shard { home, work, head, open: OnceLock::new() }
    }

    /// Its number within the stream.
    pub fn id(&self) -> ShardId {
        self.home.place.shard
    }

    /// The name of its stream.
    pub fn stream(&self) -> &StreamName {
        &self.home.place.stream
    }

    /// Reads the folder if nobody has yet: blocks for that, and checks the last segment unless the log was closed in
    /// order.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] when acknowledged bytes are damaged; the shard then refuses every use with the same error.
    /// [`LogError::Io`]; [`LogError::Deleted`].
    pub fn open(&self) -> Result<()> {
        self.opened().map(|_| ())
    }

    /// Queues a batch, in the order of the calls. The records are stored when the answer says so.
    ///
    /// Encodes, compresses and checksums in the calling thread, and never waits. The batch is held in memory until it is
    /// stored: whoever keeps many appends under way awaits [`room`](Self::room) between them, and is refused when 256 MiB
    /// wait. Batches of transactions are appended by [`Transaction::append`](crate::Transaction::append).
    ///
    /// # Errors
    /// In the answer. Nothing was stored: [`LogError::InvalidBatch`], [`LogError::BatchTooLarge`], [`LogError::Overloaded`],
    /// [`LogError::OutOfOrderSequence`], [`LogError::FencedProducer`], [`LogError::DiskFull`], [`LogError::Deleted`],
    /// [`LogError::Closed`], and those of [`open`](Self::open). Undetermined: [`LogError::Poisoned`].
    pub fn append(self: &Arc<Self>, batch: BatchBuilder) -> Append {
        let place = self.home.place.clone();
        let (answer, receiver) = oneshot::channel();
        if batch.is_transactional() {
            // Nobody would ever end the transaction, and committed readers would wait for that.
            let reason = "it is of a transaction that this log did not begin";
            return Append::refused(place, LogError::InvalidBatch { reason });
        }
        match self.enqueue(batch, Answer::Caller(answer)) {
            Ok(()) => Append::queued(place, receiver),
            Err((error, _)) => Append::refused(place, error),
        }
    }

    /// Queues a batch; or gives the answer back, which was not used.
    pub(crate) fn enqueue(self: &Arc<Self>, batch: BatchBuilder, answer: Answer) -> Result<(), (LogError, Answer)> {
        let (finished, open) = match batch.finish().and_then(|finished| Ok((finished, self.opened()?))) {
            Ok(ready) => ready,
            Err(error) => return Err((error, answer)),
        };
        let (batch, header) = finished;
        let is_idle = open.queue.lock().push(batch, header, answer, &self.home.place)?;
        if is_idle {
            self.work.schedule(Arc::clone(self));
        }
        Ok(())
    }

    pub(crate) fn place(&self) -> &Place {
        &self.home.place
    }

    /// Waits until fewer than 64 MiB of batches wait to be written.
    pub async fn room(&self) {
        let Ok(open) = self.opened() else { return };
        loop {
            let shorter = open.room.notified();
            if open.queue.lock().bytes() < ROOM_BYTES {
                return;
            }
            shorter.await;
        }
    }

    /// Removes what the stream's settings allow to be removed.
    pub(crate) fn enforce_retention(&self, settings: &StreamSettings) -> Result<Removed> {
        if settings.retention_ms.is_none() && settings.retention_bytes.is_none() {
            return Ok(Removed::default());
        }
        let open = self.opened()?;
        let now = self.home.clock.now();
        let mut writer = open.writer.lock();
        self.check_life()?;
        if retention::is_due(&writer.active().summary(), settings, now)
            && let Err(failure) = writer.roll(&self.home, &open.segments, &open.stability)
        {
            return Err(self.fail(open, &writer, VecDeque::new(), failure));
        }
        let stable = self.head.borrow().stable;
        let removed = retention::remove_old(&self.home, &open.segments, settings, now, stable)?;
        if removed.segments > 0 {
            open.queue.lock().forget(open.earliest());
        }
        Ok(removed)
    }

    /// Lets go of what segments that nobody reads hold in memory.
    pub(crate) fn release_idle(&self) {
        let Some(Ok(open)) = self.open.get() else { return };
        let segments = open.segments.read();
        // The last one is still growing.
        segments.iter().rev().skip(1).for_each(|segment| segment.release_if_idle());
    }

    /// Writes what waits. Called by one thread at a time.
    pub(crate) fn commit(&self, scratch: &mut Vec<u8>) -> Followup {
        let Some(Ok(open)) = self.open.get() else { return Followup::None };
        let mut writer = open.writer.lock();
        let (mut group, again) = open.queue.lock().take_group();
        let mut segment = writer.active().base;
        while !group.is_empty() {
            match writer.write(&self.home, &open.segments, &group, &open.stability, scratch) {
                Ok(written) => {
                    self.show(open, &writer, &written, &group);
                    if writer.active().base != segment {
                        segment = writer.active().base;
                        open.queue.lock().forget(open.earliest());
                    }
                    group.drain(..written.count).for_each(Waiting::succeed);
                }
                Err(failure) => {
                    self.fail(open, &writer, group, failure);
                    return Followup::None;
                }
            }
        }
        open.room.notify_waiters();
        match self.home.sync {
            SyncPolicy::Interval { ms } if writer.is_unsynced() => Followup::SyncWithin { ms, again },
            _ if again => Followup::Again,
            _ => Followup::None,
        }
    }

    /// Shows readers what was written.
    fn show(&self, open: &Open, writer: &Writer, written: &Written, group: &VecDeque<Waiting>) {
        let end = writer.end();
        let withheld: Vec<ProducerId> = group.iter().take(written.count).filter_map(Waiting::withheld).collect();
        let mut stability = open.stability.lock();
        stability.advance(writer.producers().first_open(), &written.closed, |producer| withheld.contains(&producer));
        self.head.send_if_modified(|head| {
            let shown = Head { end, stable: stability.stable(end), ..*head };
            shown != std::mem::replace(head, shown)
        });
    }

    /// Makes everything that was written durable.
    pub(crate) fn sync(&self) {
        let Some(Ok(open)) = self.open.get() else { return };
        let mut writer = open.writer.lock();
        if let Err(failure) = writer.sync(&self.home) {
            self.fail(open, &writer, VecDeque::new(), failure);
        }
    }

    /// Answers all that waits with a failure, and goes on from what is stored, or not at all.
    fn fail(&self, open: &Open, writer: &Writer, group: VecDeque<Waiting>, failure: Failure) -> LogError {
        let mut queue = open.queue.lock();
        let queued = queue.reset(writer.end(), writer.producers().clone());
        let error = match failure {
            Failure::Passing(error) => error,
            Failure::Lasting(error) => {
                queue.refuse_new(error.clone());
                error
            }
        };
        drop(queue);
        tracing::error!(stream = %self.stream(), shard = %self.id(), %error, "appends failed");
        group.into_iter().chain(queued).for_each(|waiting| waiting.fail(error.clone()));
        open.room.notify_waiters();
        error
    }

    /// Takes no more appends after a fault of the log's own.
    pub(crate) fn break_down(&self) {
        let Some(Ok(open)) = self.open.get() else { return };
        let mut writer = open.writer.lock();
        let failure = writer.break_down(&self.home, io::Error::other("the log's writer panicked; please report this"));
        self.fail(open, &writer, VecDeque::new(), failure);
    }

    /// The stream is being deleted: nothing may touch the folder after this.
    pub(crate) fn delete(&self) {
        self.head.send_modify(|head| head.life = Life::Deleted);
        let deleted = || LogError::Deleted { stream: self.stream().clone() };
        if let Ok(open) = self.open.get_or_init(|| Err(deleted())) {
            // Waits for a group that is being written.
            let _writer = open.writer.lock();
            let queued = open.queue.lock().refuse(deleted());
            queued.into_iter().for_each(|waiting| waiting.fail(deleted()));
            open.room.notify_waiters();
        }
    }

    /// Takes no more appends; those that wait are still written.
    pub(crate) fn close(&self) {
        let closed = || LogError::Closed { place: self.home.place.clone() };
        if let Ok(open) = self.open.get_or_init(|| Err(closed())) {
            open.queue.lock().refuse_new(closed());
        }
    }

    /// After the last append was written: leaves the folder as a start likes to find it.
    pub(crate) fn shut_down(&self) {
        if let Some(Ok(open)) = self.open.get() {
            let mut writer = open.writer.lock();
            if self.head.borrow().life == Life::Open
                && let Err(failure) = writer.shut_down(&self.home, &open.stability)
            {
                self.fail(open, &writer, VecDeque::new(), failure);
            }
        }
        self.head.send_if_modified(|head| {
            let open = head.life == Life::Open;
            if open {
                head.life = Life::Closed;
            }
            open
        });
    }

    /// Where the shard ends, unless it was deleted or closed.
    fn check_life(&self) -> Result<Head> {
        let head = *self.head.borrow();
        head.life.check(&self.home.place)?;
        Ok(head)
    }

    fn opened(&self) -> Result<&Open> {
        let opened = self.open.get_or_init(|| {
            self.check_life()?;
            let recovered = recovery::recover(&self.home).inspect_err(|error| {
                tracing::error!(stream = %self.stream(), shard = %self.id(), %error, "a shard cannot be opened");
            })?;
            let active = recovered.segments.last().expect("there is always a last segment");
            let mut writer = Writer::new(Arc::clone(active), recovered.producers);
            let stability = Mutex::new(Stability::new(writer.producers().first_open(), recovered.aborted));
            let segments = RwLock::new(recovered.segments);
            self.end_orphans(&mut writer, &segments, &stability);
            let end = writer.end();
            let stable = stability.lock().stable(end);
            self.head.send_modify(|head| (head.end, head.stable) = (end, stable));
            Ok(Open {
                queue: Mutex::new(Queue::new(end, writer.producers().clone())),
                writer: Mutex::new(writer),
                room: Notify::new(),
                segments,
                stability,
            })
        });
        opened.as_ref().map_err(LogError::clone)
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard").field("place", &self.home.place).field("head", &*self.head.borrow()).finish()
    }
}

impl Open {
    fn earliest(&self) -> u64 {
        self.segments.read().first().map_or(0, |segment| segment.base)
    }
}
