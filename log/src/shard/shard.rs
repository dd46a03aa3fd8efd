//! A shard: an append-only run of segments, one writer behind a queue, and any number of readers.
//!
//! A shard is opened by its first use: a log of many idle shards starts at once. Locks are taken in the order writer,
//! queue, segments.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use coulee_model::{ShardId, StreamName};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{oneshot, watch};

use crate::batch::builder::BatchBuilder;
use crate::error::{LogError, Result};
use crate::files::retention::{self, Removed};
use crate::files::segment::Segment;
use crate::files::storage::WriteFailure;
use crate::ids::{Place, ProducerId};
use crate::settings::SyncPolicy;
use crate::shard::append::{Append, AppendListener, Appended};
use crate::shard::committer::{Commit, CommitQueue, Followup};
use crate::shard::context::ShardContext;
use crate::shard::last_stable_offset::LastStableOffset;
use crate::shard::progress::{AppendTarget, Progress};
use crate::shard::queue::{Answer, Group, Queue, QueuedAppend};
use crate::shard::tail::{Head, Life};
use crate::shard::writer::{Writer, Written};
use crate::shard::{orphans, recovery};

/// The most that one read returns, in bytes, however much is asked for; a larger batch is still returned whole.
pub const READ_BYTES_MAX: usize = 64 << 20;

/// One shard of a stream.
pub struct Shard {
    pub(super) context: ShardContext,
    pub(super) commits: Arc<CommitQueue>,
    pub(super) head: watch::Sender<Head>,
    pub(super) open: OnceLock<Result<Open>>,
}

/// What there is once the folder has been read.
pub(super) struct Open {
    writer: Mutex<Writer>,
    pub(super) queue: Mutex<Queue>,
    /// Oldest first, never empty. The last one grows.
    pub(super) segments: RwLock<Vec<Arc<Segment>>>,
    pub(super) last_stable_offset: Mutex<LastStableOffset>,
}

impl Shard {
    pub(crate) fn new(context: ShardContext, commits: Arc<CommitQueue>) -> Self {
        let head = watch::Sender::new(Head { end: 0, last_stable: 0, life: Life::Open });
        Shard { context, commits, head, open: OnceLock::new() }
    }

    /// Its number within the stream.
    pub fn id(&self) -> ShardId {
        self.context.place.shard
    }

    /// The name of its stream.
    pub fn stream(&self) -> &StreamName {
        &self.context.place.stream
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
    /// stored: whoever keeps many appends under way awaits [`room`](Self::room) between them, and is refused when
    /// [`queued_bytes_max`](crate::LogSettings::queued_bytes_max) bytes wait in all shards of the log. Batches of transactions are appended by [`Transaction::append`](crate::Transaction::append).
    ///
    /// # Errors
    /// In the answer. Nothing was stored: [`LogError::InvalidBatch`], [`LogError::BatchTooLarge`], [`LogError::Overloaded`],
    /// [`LogError::OutOfOrderSequence`], [`LogError::FencedProducer`], [`LogError::DiskFull`], [`LogError::Deleted`],
    /// [`LogError::Closed`], [`LogError::ShardSealed`], and those of [`open`](Self::open). Undetermined: [`LogError::Poisoned`].
    pub fn append(self: &Arc<Self>, batch: BatchBuilder) -> Append {
        if batch.is_transactional() {
            // Nobody would ever end the transaction, and committed readers would wait for that.
            let reason = "it is of a transaction that this log did not begin";
            return Append::refused(LogError::InvalidBatch { reason });
        }
        self.enqueue(batch, None).0
    }

    /// Queues a batch, and says where it will be if it was taken. `listener` is told what becomes of it, also when it is not
    /// taken.
    pub(crate) fn enqueue(
        self: &Arc<Self>,
        batch: BatchBuilder,
        listener: Option<Arc<dyn AppendListener>>,
    ) -> (Append, Option<Appended>) {
        let (caller, receiver) = oneshot::channel();
        let answer = Answer::new(Some(caller), listener);
        let ready = match &self.context.sealed {
            Some(sealed) => Err(sealed.error(&self.context.place)),
            None => batch.finish().and_then(|finished| Ok((finished, self.opened()?))),
        };
        let pushed = match ready {
            Ok(((batch, header), open)) => {
                let ShardContext { place, budget, .. } = &self.context;
                open.queue.lock().push(batch, header, answer, place, budget)
            }
            Err(error) => Err((error, answer)),
        };
        match pushed {
            Ok(pushed) => {
                if pushed.is_first {
                    self.commits.schedule(Arc::clone(self) as Arc<dyn Commit>);
                }
                let target = Arc::clone(self) as Arc<dyn AppendTarget>;
                (Append::queued(receiver, target, pushed.expected), Some(pushed.expected))
            }
            Err((error, answer)) => {
                answer.give(Err(error.clone()));
                (Append::refused(error), None)
            }
        }
    }

    pub(crate) fn place(&self) -> &Place {
        &self.context.place
    }

    /// Waits until less than a quarter of [`queued_bytes_max`](crate::LogSettings::queued_bytes_max) waits to be written,
    /// in all shards of the log.
    pub async fn room(&self) {
        self.context.budget.room().await;
    }

    /// Has the committer sync what was written, if the shard is in use.
    pub(crate) fn sync_soon(self: &Arc<Self>) {
        let Some(Ok(open)) = self.open.get() else { return };
        if open.queue.lock().request_sync() {
            self.commits.schedule(Arc::clone(self) as Arc<dyn Commit>);
        }
    }

    /// Removes what the stream's settings allow to be removed.
    pub(crate) fn enforce_retention(&self) -> Result<Removed> {
        let settings = &*self.context.stream.get();
        if settings.retention_ms.is_none() && settings.retention_bytes.is_none() {
            return Ok(Removed::default());
        }
        let open = self.opened()?;
        let now = self.context.clock.now();
        let mut writer = open.writer.lock();
        self.check_life()?;
        if retention::is_due(&writer.active().summary(), settings, now)
            && let Err(failure) = writer.roll(&self.context, &open.segments, &open.last_stable_offset)
        {
            return Err(self.fail(open, &writer, VecDeque::new(), failure));
        }
        let last_stable = self.head.borrow().last_stable;
        let ShardContext { storage, folder, .. } = &self.context;
        let removed = retention::remove_old(&**storage, folder, &open.segments, settings, now, last_stable)?;
        if removed.segments > 0 {
            tracing::info!(
                stream = %self.stream(), shard = %self.id(), removed.segments, removed.bytes, "retention"
            );
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

    /// Shows readers what was written.
    fn show(&self, open: &Open, writer: &Writer, written: &Written, group: &VecDeque<QueuedAppend>) {
        let end = writer.end();
        let withheld: Vec<ProducerId> = group.iter().take(written.count).filter_map(QueuedAppend::withheld).collect();
        let mut last_stable_offset = open.last_stable_offset.lock();
        last_stable_offset
            .advance(writer.producers().first_open(), &written.completed, |producer| withheld.contains(&producer));
        self.head.send_if_modified(|head| {
            let shown = Head { end, last_stable: last_stable_offset.offset(end), ..*head };
            shown != std::mem::replace(head, shown)
        });
    }

    /// Answers all that waits with a failure, and goes on from what is stored, or not at all.
    fn fail(&self, open: &Open, writer: &Writer, group: VecDeque<QueuedAppend>, failure: WriteFailure) -> LogError {
        let mut queue = open.queue.lock();
        let queued = queue.reset(writer.end(), writer.producers().clone());
        let error = match failure {
            WriteFailure::NotWritten(error) => error,
            WriteFailure::Undetermined(error) => {
                queue.refuse_new(error.clone());
                error
            }
        };
        drop(queue);
        tracing::error!(stream = %self.stream(), shard = %self.id(), %error, "appends failed");
        group.into_iter().chain(queued).for_each(|waiting| waiting.fail(error.clone()));
        error
    }

    /// The stream is being deleted: nothing may touch the folder after this.
    pub(crate) fn delete(&self) {
        self.head.send_modify(|head| head.life = Life::Deleted);
        let deleted = || LogError::Deleted { stream: self.stream().clone() };
        self.context.progress.send_modify(|progress| progress.failed = Some(deleted()));
        if let Ok(open) = self.open.get_or_init(|| Err(deleted())) {
            // Waits for a group that is being written.
            let _writer = open.writer.lock();
            let queued = open.queue.lock().refuse(deleted());
            queued.into_iter().for_each(|waiting| waiting.fail(deleted()));
        }
    }

    /// Takes no more appends; those that wait are still written.
    pub(crate) fn close(&self) {
        let closed = || LogError::Closed { place: self.context.place.clone() };
        if let Ok(open) = self.open.get_or_init(|| Err(closed())) {
            open.queue.lock().refuse_new(closed());
        }
    }

    /// After the last append was written: leaves the folder as a start likes to find it.
    pub(crate) fn shut_down(&self) {
        if let Some(Ok(open)) = self.open.get() {
            let mut writer = open.writer.lock();
            if self.head.borrow().life == Life::Open
                && let Err(failure) = writer.shut_down(&self.context, &open.last_stable_offset)
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
    pub(super) fn check_life(&self) -> Result<Head> {
        let head = *self.head.borrow();
        head.life.check(&self.context.place)?;
        Ok(head)
    }

    /// A sealed shard whose last records are missing must not look like one that a reader has finished.
    fn check_sealed_end(&self, writer: &Writer) -> Result<()> {
        match &self.context.sealed {
            Some(sealed) if writer.end() < sealed.end.0 => {
                let reason = format!("it ends at sequence number {}, but was sealed at {}", writer.end(), sealed.end);
                Err(LogError::corrupt(writer.active().path(), writer.active().summary().bytes, reason))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn opened(&self) -> Result<&Open> {
        let opened = self.open.get_or_init(|| {
            self.check_life()?;
            let recovered = recovery::recover(&self.context).inspect_err(|error| {
                tracing::error!(stream = %self.stream(), shard = %self.id(), %error, "a shard cannot be opened");
            })?;
            let active = recovered.segments.last().expect("there is always a last segment");
            let mut writer = Writer::new(Arc::clone(active), recovered.producers, recovered.was_checked);
            let last_stable_offset =
                Mutex::new(LastStableOffset::new(writer.producers().first_open(), recovered.aborted));
            let segments = RwLock::new(recovered.segments);
            self.check_sealed_end(&writer)?;
            orphans::end(&self.context, &mut writer, &segments, &last_stable_offset);
            let end = writer.end();
            let last_stable = last_stable_offset.lock().offset(end);
            self.head.send_modify(|head| (head.end, head.last_stable) = (end, last_stable));
            let failed = writer.failure();
            self.context.progress.send_replace(Progress { written: end, durable: end, failed });
            Ok(Open {
                queue: Mutex::new(Queue::new(end, writer.producers().clone())),
                writer: Mutex::new(writer),
                segments,
                last_stable_offset,
            })
        });
        opened.as_ref().map_err(LogError::clone)
    }
}

impl Commit for Shard {
    fn commit(&self, scratch: &mut Vec<u8>) -> Followup {
        let Some(Ok(open)) = self.open.get() else { return Followup::None };
        let mut writer = open.writer.lock();
        let Group { appends: mut group, sync, more } = open.queue.lock().take_group();
        let (mut segment, mut failed) = (writer.active().base, false);
        while !group.is_empty() {
            match writer.write(&self.context, &open.segments, &group, &open.last_stable_offset, scratch) {
                Ok(written) => {
                    self.show(open, &writer, &written, &group);
                    if writer.active().base != segment {
                        segment = writer.active().base;
                        open.queue.lock().forget(open.earliest());
                    }
                    group.drain(..written.count).for_each(QueuedAppend::succeed);
                }
                Err(failure) => {
                    self.fail(open, &writer, std::mem::take(&mut group), failure);
                    failed = true;
                }
            }
        }
        if sync && let Err(failure) = writer.sync(&self.context) {
            self.fail(open, &writer, VecDeque::new(), failure);
            failed = true;
        }
        if failed {
            let again = open.queue.lock().still_to_sync();
            return if again { Followup::Again } else { Followup::None };
        }
        match self.context.stream.get().sync {
            SyncPolicy::Interval { ms } if writer.is_unsynced() => Followup::SyncWithin { ms, again: more },
            _ if more => Followup::Again,
            _ => Followup::None,
        }
    }

    fn sync(&self) {
        let Some(Ok(open)) = self.open.get() else { return };
        let mut writer = open.writer.lock();
        if let Err(failure) = writer.sync(&self.context) {
            self.fail(open, &writer, VecDeque::new(), failure);
        }
    }

    fn poison(&self) {
        let Some(Ok(open)) = self.open.get() else { return };
        let mut writer = open.writer.lock();
        let failure = writer.poison(&self.context, io::Error::other("the log's writer panicked; please report this"));
        self.fail(open, &writer, VecDeque::new(), failure);
    }
}

impl AppendTarget for Shard {
    fn place(&self) -> &Place {
        &self.context.place
    }

    fn progress(&self) -> watch::Receiver<Progress> {
        self.context.progress.subscribe()
    }

    fn request_sync(self: Arc<Self>) {
        // An interval has its own syncs, and a group was synced before it was answered.
        if self.context.stream.get().sync == SyncPolicy::Os {
            self.sync_soon();
        }
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard").field("place", &self.context.place).field("head", &*self.head.borrow()).finish()
    }
}

impl Open {
    pub(super) fn earliest(&self) -> u64 {
        self.segments.read().first().map_or(0, |segment| segment.base)
    }
}
