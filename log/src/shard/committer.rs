//! The committer threads: they write the queues of shards to their segments, and sync them. Each shard belongs to one
//! thread, so the writes of a shard are in order.
//!
//! A committer does not linger. It takes all appends that wait in a shard's queue, up to a limit, writes them at once and
//! syncs them once. The appends that come meanwhile are its next group. A committer without work sleeps.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::{LogError, Result};

/// A buffer that once held a huge batch is not kept.
const SCRATCH_BYTES_KEPT: usize = 8 << 20;

/// A shard, as the thread that writes it sees it. Called by one thread at a time.
pub(crate) trait Commit: Send + Sync {
    /// Writes a group of what waits. `scratch` is a buffer whose content means nothing between calls.
    fn commit(&self, scratch: &mut Vec<u8>) -> Followup;

    /// Makes everything that was written durable.
    fn sync(&self);

    /// Takes no more appends, after a panic of `commit`.
    fn poison(&self);
}

/// What a thread has to do after a commit.
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

/// What one thread has to do.
#[derive(Default)]
pub(crate) struct CommitQueue {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// Shards with waiting appends, each at most once.
    shards: VecDeque<Arc<dyn Commit>>,
    stopping: bool,
}

impl CommitQueue {
    /// Hands over a shard that has waiting appends.
    pub(crate) fn schedule(&self, shard: Arc<dyn Commit>) {
        self.state.lock().shards.push_back(shard);
        self.wake.notify_one();
    }

    /// The next shard with waiting appends. `Err(true)` when all is done and no more will come, `Err(false)` at the deadline.
    fn next(&self, deadline: Option<Instant>) -> std::result::Result<Arc<dyn Commit>, bool> {
        let mut state = self.state.lock();
        loop {
            if let Some(shard) = state.shards.pop_front() {
                return Ok(shard);
            }
            if state.stopping {
                return Err(true);
            }
            match deadline {
                None => self.wake.wait(&mut state),
                Some(deadline) => {
                    if self.wake.wait_until(&mut state, deadline).timed_out() {
                        return Err(false);
                    }
                }
            }
        }
    }
}

/// The threads of a log.
pub(crate) struct Committers {
    queues: Vec<Arc<CommitQueue>>,
    threads: Vec<JoinHandle<()>>,
}

impl Committers {
    /// # Errors
    /// [`LogError::Io`] when the system has no thread to spare.
    pub(crate) fn start(threads: usize, folder: &std::path::Path) -> Result<Committers> {
        let mut committers = Committers { queues: Vec::new(), threads: Vec::new() };
        for i in 0..threads {
            let work = Arc::new(CommitQueue::default());
            committers.queues.push(Arc::clone(&work));
            let thread = thread::Builder::new().name(format!("coulee-log-{i}")).spawn(move || run(&work));
            committers.threads.push(thread.map_err(|e| LogError::io("start a thread for the log in", folder, e))?);
        }
        Ok(committers)
    }

    /// The thread that a shard belongs to, by any number that spreads them.
    pub(crate) fn queue_of(&self, number: usize) -> Arc<CommitQueue> {
        Arc::clone(&self.queues[number % self.queues.len()])
    }

    /// Ends the threads once they have written all that was queued.
    pub(crate) fn stop(&mut self) {
        for work in &self.queues {
            work.state.lock().stopping = true;
            work.wake.notify_all();
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a committer thread of the log had panicked");
            }
        }
    }
}

impl Drop for Committers {
    fn drop(&mut self) {
        self.stop();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a thread that waits on a condition variable waits by the monotonic clock"
)]
fn run(work: &CommitQueue) {
    let mut scratch = Vec::new();
    // Shards that were written without a sync, by when it is due. Few: only those of interval streams, once each.
    let mut syncs: Vec<(Instant, Arc<dyn Commit>)> = Vec::new();
    loop {
        match work.next(syncs.iter().map(|(due, _)| *due).min()) {
            Ok(shard) => match commit(&*shard, &mut scratch) {
                Followup::None => {}
                Followup::Again => work.schedule(shard),
                Followup::SyncWithin { ms, again } => {
                    if !syncs.iter().any(|(_, other)| Arc::ptr_eq(other, &shard)) {
                        syncs.push((Instant::now() + Duration::from_millis(ms), Arc::clone(&shard)));
                    }
                    if again {
                        work.schedule(shard);
                    }
                }
            },
            Err(true) => return,
            Err(false) => {}
        }
        if !syncs.is_empty() {
            // A busy thread never gets to its deadlines by waiting for them.
            let now = Instant::now();
            syncs.extract_if(.., |(due, _)| *due <= now).for_each(|(_, shard)| shard.sync());
        }
    }
}

fn commit(shard: &dyn Commit, scratch: &mut Vec<u8>) -> Followup {
    // A fault of ours in one shard must not leave the appends of the others waiting forever.
    let followup = catch_unwind(AssertUnwindSafe(|| shard.commit(scratch))).unwrap_or_else(|_| {
        shard.poison();
        Followup::None
    });
    if scratch.capacity() > SCRATCH_BYTES_KEPT {
        *scratch = Vec::new();
    }
    followup
}
