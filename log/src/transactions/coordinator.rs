//! The coordinator of transactions: it knows which are open, and takes the steps that end one, in order.
//!
//! ```text
//! begin ─▶ Ongoing ─ prepare ─▶ Preparing ─ logged ─▶ Prepared ─ decide ─▶ Deciding ─ logged, markers durable ─▶ gone
//!             └───── abort: nothing is logged ──────────────────────────────┘   └─ a marker failed ─▶ Decided ─┘
//! ```
//!
//! One thread writes the journal. Records that wait while the thread syncs share the next sync. That thread and the
//! committers of the shards carry out a decision that was logged; no caller has to stay for it.
//!
//! SUBTLE: no lock of a shard is taken while `state` is held.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use coulee_model::Timestamp;
use parking_lot::{Condvar, Mutex};

use crate::batch::marker::TransactionOutcome;
use crate::error::{LogError, Result};
use crate::files::storage::{Storage, WriteFailure};
use crate::ids::{Place, ProducerId, TransactionRef, TransactionalId};
use crate::shard::context::{TransactionFate, TransactionFates};
use crate::shard::shard::Shard;
use crate::transactions::appends::{CloseReason, PartitionAppends};
use crate::transactions::end::TransactionEnd;
use crate::transactions::journal::{JournalRecord, JournalState, TransactionJournal};
use crate::transactions::state::{ABORTED, AfterWrite, Done, Entry, Phase, State, Step};

/// How many producer ids are set aside at once; what is left of them at the end of the process is never used.
const RESERVED_IDS: i64 = 1 << 16;

/// The transactions of one log.
pub(crate) struct TransactionCoordinator {
    state: Mutex<State>,
    wake: Condvar,
    journal: Mutex<TransactionJournal>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl TransactionCoordinator {
    /// Reads the journal. `seed` is random.
    pub(crate) fn open(path: &Path, storage: &Arc<dyn Storage>, seed: u32) -> Result<(Arc<Self>, JournalState)> {
        // SUBTLE: producer ids begin at a random number, so that a log that was made anew does not take a transaction of
        // its predecessor for one of its own.
        let fresh = ProducerId::OF_ONE_TRANSACTION + (i64::from(seed) << 24);
        let (journal, journaled) = TransactionJournal::open(path, storage, |journaled| {
            let (first, below) = journaled.given.unwrap_or((fresh, fresh));
            JournalRecord::Reserved { first, below: below + RESERVED_IDS }
        })?;
        let (first, below) = journaled.given.unwrap_or((fresh, fresh));
        let state = State::new(first, below - RESERVED_IDS..below, journaled.committed.clone());
        let coordinator = Arc::new(TransactionCoordinator {
            state: Mutex::new(state),
            wake: Condvar::new(),
            journal: Mutex::new(journal),
            thread: Mutex::new(None),
        });
        Ok((coordinator, journaled))
    }

    /// Takes over the transactions that were open at the end of the last process, and carries out what was decided. Waits
    /// for that. `find` finds the shards that still exist.
    pub(crate) fn resume(
        self: &Arc<Self>,
        journaled: JournalState,
        find: impl Fn(&Place) -> Option<Arc<Shard>>,
    ) -> Result<()> {
        let mut decided = Vec::new();
        for (producer, prepared) in journaled.open {
            let shards = prepared.places.iter().filter_map(&find).collect();
            let phase = prepared.outcome.map_or(Phase::Prepared, Phase::Decided);
            let appends = Arc::new(PartitionAppends::resumed(shards));
            let began = Timestamp::MIN;
            let reference = TransactionRef { id: prepared.id.clone(), producer };
            let entry = Entry { id: prepared.id, began, appends, phase, logged: true, waiting: Vec::new() };
            self.state.lock().open.insert(producer, entry);
            decided.extend(prepared.outcome.map(|outcome| (reference, outcome)));
        }
        let coordinator = Arc::clone(self);
        let spawned = thread::Builder::new().name("coulee-log-txn".to_owned()).spawn(move || coordinator.run());
        let thread =
            spawned.map_err(|e| LogError::io("start a thread for the log in", self.journal.lock().path(), e))?;
        *self.thread.lock() = Some(thread);
        let (sender, answers) = std::sync::mpsc::channel();
        for (reference, outcome) in decided {
            let (sender, named) = (sender.clone(), reference.clone());
            self.end(&reference, outcome, Box::new(move |result| drop(sender.send((named, result)))));
        }
        drop(sender);
        for (transaction, result) in answers {
            match result {
                Ok(()) => tracing::info!(%transaction, "completed a transaction that was decided before the restart"),
                // The rest of the log can be used; its shards hold their committed readers back.
                Err(error) => tracing::error!(%transaction, %error, "a decided transaction cannot be completed yet"),
            }
        }
        Ok(())
    }

    /// Begins a transaction. One of the same name that is not prepared is aborted.
    pub(crate) fn begin(
        self: &Arc<Self>,
        id: &TransactionalId,
        now: Timestamp,
    ) -> Result<(TransactionRef, Arc<PartitionAppends>)> {
        let mut state = self.state.lock();
        if let Some(refusal) = &state.refusal {
            return Err(refusal.clone());
        }
        if state.next == state.below {
            // The next ids were asked for long ago; whatever keeps them is about to be known.
            return Err(LogError::TransactionIdsExhausted);
        }
        let producer = ProducerId(state.next);
        state.next += 1;
        if state.below - state.next <= RESERVED_IDS / 2 && !state.reserving {
            state.reserving = true;
            let below = state.below + RESERVED_IDS;
            let record = JournalRecord::Reserved { first: state.first, below };
            self.write_soon(&mut state, record, AfterWrite::Reserved(below));
        }
        let replaced = state.ongoing.insert(id.clone(), producer);
        let appends = Arc::new(PartitionAppends::default());
        let entry = Entry {
            id: id.clone(),
            began: now,
            appends: Arc::clone(&appends),
            phase: Phase::Ongoing,
            logged: false,
            waiting: Vec::new(),
        };
        state.open.insert(producer, entry);
        drop(state);
        if let Some(producer) = replaced {
            let older = TransactionRef { id: id.clone(), producer };
            self.abort_as(CloseReason::Fenced, &older, Box::new(|_| {}));
        }
        Ok((TransactionRef { id: id.clone(), producer }, appends))
    }

    /// Takes no more appends of a transaction, and remembers it durably.
    pub(crate) fn prepare(&self, transaction: &TransactionRef, appends: &PartitionAppends, done: Done) {
        let mut state = self.state.lock();
        let refusal = state.refusal.clone();
        let result = match (refusal, state.entry(transaction)) {
            (Some(refusal), _) => Err(refusal),
            (None, Some(entry)) if entry.phase == Phase::Ongoing => {
                entry.appends.close(CloseReason::Ended("it is prepared"));
                entry.phase = Phase::Preparing;
                entry.logged = true;
                Ok(entry.appends.shards().iter().map(|shard| shard.place().clone()).collect())
            }
            // The transaction is about to end, or has ended: the handle knows why.
            _ => Err(appends.close(ABORTED).error(transaction)),
        };
        match result {
            Ok(places) => {
                state.forget_name(transaction);
                let (producer, id) = (transaction.producer, transaction.id.clone());
                self.write_soon(
                    &mut state,
                    JournalRecord::Prepared { producer, id, places },
                    AfterWrite::Prepared(producer, done),
                );
            }
            Err(error) => {
                drop(state);
                done(Err(error));
            }
        }
    }

    pub(crate) fn commit(self: &Arc<Self>, transaction: &TransactionRef, done: Done) {
        match interrupted_decision() {
            Ok(()) => self.end(transaction, TransactionOutcome::Commit, done),
            Err(error) => done(Err(error)),
        }
    }

    pub(crate) fn abort(self: &Arc<Self>, transaction: &TransactionRef, done: Done) {
        self.abort_as(ABORTED, transaction, done);
    }

    fn abort_as(self: &Arc<Self>, reason: CloseReason, transaction: &TransactionRef, done: Done) {
        if let Some(entry) = self.state.lock().entry(transaction) {
            entry.appends.close(reason);
        }
        self.end(transaction, TransactionOutcome::Abort, done);
    }

    /// Ends a transaction, unless it has ended.
    fn end(self: &Arc<Self>, transaction: &TransactionRef, outcome: TransactionOutcome, done: Done) {
        let mut state = self.state.lock();
        let step = match &state.refusal {
            Some(refusal) => Step::Answer(Err(refusal.clone())),
            None => state.step(transaction, outcome),
        };
        match step {
            Step::Answer(result) => {
                drop(state);
                done(result);
            }
            Step::Wait => state.wait(transaction, done),
            Step::Log => {
                state.wait(transaction, done);
                let producer = transaction.producer;
                self.write_soon(
                    &mut state,
                    JournalRecord::Decided { producer, outcome },
                    AfterWrite::Decided(producer),
                );
            }
            Step::Mark(shards) => {
                state.wait(transaction, done);
                drop(state);
                self.mark(transaction.producer, outcome, shards);
            }
        }
    }

    /// Has the markers of a transaction written.
    fn mark(self: &Arc<Self>, producer: ProducerId, outcome: TransactionOutcome, shards: Vec<Arc<Shard>>) {
        let coordinator = Arc::clone(self);
        let marked = Box::new(move |error| coordinator.ended(producer, outcome, error));
        TransactionEnd::begin(producer, outcome, shards, marked);
    }

    /// All markers are durable; or one failed.
    fn ended(&self, producer: ProducerId, outcome: TransactionOutcome, error: Option<LogError>) {
        let mut state = self.state.lock();
        let result = error.map_or(Ok(()), Err);
        let waiting = match &result {
            Err(_) => match state.open.get_mut(&producer) {
                Some(entry) => {
                    entry.phase = Phase::Decided(outcome);
                    std::mem::take(&mut entry.waiting)
                }
                None => Vec::new(),
            },
            Ok(()) => {
                let Some(entry) = state.open.remove(&producer) else { return };
                if outcome == TransactionOutcome::Commit {
                    state.committed.note(producer.0, producer.0);
                }
                if entry.logged {
                    // Written with whatever comes next: without it, the next start finds nothing left to do.
                    state.queued.push((JournalRecord::Completed { producer }, AfterWrite::Nothing));
                }
                entry.waiting
            }
        };
        drop(state);
        waiting.into_iter().for_each(|done| done(result.clone()));
    }

    /// The transactions that are neither committed nor aborted, and whose name begins with `prefix`, by producer id.
    pub(crate) fn open_transactions(&self, prefix: &str) -> Vec<TransactionRef> {
        let state = self.state.lock();
        let is_undecided = |entry: &Entry| !matches!(entry.phase, Phase::Deciding(_) | Phase::Decided(_));
        let open = state.open.iter().filter(|(_, entry)| is_undecided(entry) && entry.id.as_str().starts_with(prefix));
        open.map(|(&producer, entry)| TransactionRef { id: entry.id.clone(), producer }).collect()
    }

    /// Aborts what was begun before `deadline` and is not prepared, and tries again what failed before.
    pub(crate) fn maintain(self: &Arc<Self>, deadline: Timestamp) {
        let mut again = Vec::new();
        for (&producer, entry) in &self.state.lock().open {
            let transaction = TransactionRef { id: entry.id.clone(), producer };
            match entry.phase {
                Phase::Ongoing if entry.began < deadline => {
                    tracing::warn!(%transaction, "aborting a transaction that was not prepared in time");
                    entry.appends.close(CloseReason::Ended("it was not prepared within the log's transaction timeout"));
                    again.push((transaction, TransactionOutcome::Abort));
                }
                Phase::Decided(outcome) => again.push((transaction, outcome)),
                _ => {}
            }
        }
        for (transaction, outcome) in again {
            self.end(&transaction, outcome, Box::new(|_| {}));
        }
    }

    /// Ends the thread once it has written what waits. Nothing begins or ends after this.
    pub(crate) fn stop(&self) {
        {
            let mut state = self.state.lock();
            state.refusal.get_or_insert(LogError::LogClosed);
            state.stopping = true;
            self.wake.notify_all();
        }
        if self.thread.lock().take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that writes the log of transactions had panicked");
        }
    }

    /// After the shards were closed: writes which transactions completed meanwhile, and lets go of the rest.
    pub(crate) fn finish(self: &Arc<Self>) {
        let (queued, open) = {
            let mut state = self.state.lock();
            let queued = match state.refusal {
                // In order.
                Some(LogError::LogClosed) | None => std::mem::take(&mut state.queued),
                // What was under way is undetermined: nothing may be written behind it.
                Some(_) => Vec::new(),
            };
            (queued, std::mem::take(&mut state.open))
        };
        self.write(queued);
        for done in open.into_values().flat_map(|entry| entry.waiting) {
            done(Err(LogError::LogClosed));
        }
    }

    fn write_soon(&self, state: &mut State, record: JournalRecord, then: AfterWrite) {
        state.queued.push((record, then));
        self.wake.notify_one();
    }

    fn run(self: Arc<Self>) {
        // A fault of ours must not leave those waiting who asked for the end of a transaction.
        if catch_unwind(AssertUnwindSafe(|| self.write_until_stopped())).is_err() {
            self.give_up();
        }
    }

    /// Answers all that wait, and takes nothing any more: the thread that would write it has panicked.
    fn give_up(&self) {
        let error = LogError::Internal { fault: "the thread that writes the journal of transactions panicked" };
        tracing::error!(%error, "transactions cannot begin or end");
        let (queued, waiting) = {
            let mut state = self.state.lock();
            state.refusal.get_or_insert(error.clone());
            let waiting: Vec<Done> = state.open.values_mut().flat_map(|e| std::mem::take(&mut e.waiting)).collect();
            (std::mem::take(&mut state.queued), waiting)
        };
        let prepared = queued.into_iter().filter_map(|(_, then)| match then {
            AfterWrite::Prepared(_, done) => Some(done),
            _ => None,
        });
        prepared.chain(waiting).for_each(|done| done(Err(error.clone())));
    }

    fn write_until_stopped(self: &Arc<Self>) {
        loop {
            let queued = {
                let mut state = self.state.lock();
                while !state.stopping && !state.queued.iter().any(|(_, then)| !matches!(then, AfterWrite::Nothing)) {
                    self.wake.wait(&mut state);
                }
                if state.stopping && state.queued.is_empty() {
                    return;
                }
                std::mem::take(&mut state.queued)
            };
            self.write(queued);
        }
    }

    fn write(self: &Arc<Self>, queued: Vec<(JournalRecord, AfterWrite)>) {
        if queued.is_empty() {
            return;
        }
        fail::fail_point!("log.txn.test.journal-thread");
        let (records, thens): (Vec<JournalRecord>, Vec<AfterWrite>) = queued.into_iter().unzip();
        let sync = thens.iter().any(|then| !matches!(then, AfterWrite::Nothing));
        let result = self.journal.lock().append(&records, sync).map_err(|failure| match failure {
            WriteFailure::NotWritten(error) => error,
            WriteFailure::Undetermined(error) => {
                tracing::error!(%error, "transactions cannot begin or end");
                self.state.lock().refusal.get_or_insert(error.clone());
                error
            }
        });
        for (record, then) in records.into_iter().zip(thens) {
            self.follow(record, then, result.clone());
        }
    }

    fn follow(self: &Arc<Self>, record: JournalRecord, then: AfterWrite, result: Result<()>) {
        match then {
            AfterWrite::Nothing => {
                let mut state = self.state.lock();
                // SUBTLE: not once the thread is to end, which it does when nothing is queued: on a disk that fails it would never end.
                if result.is_err() && !state.stopping {
                    state.queued.push((record, AfterWrite::Nothing));
                }
            }
            AfterWrite::Reserved(below) => {
                let mut state = self.state.lock();
                state.reserving = false;
                if result.is_ok() {
                    state.below = below;
                }
            }
            AfterWrite::Prepared(producer, done) => {
                let result = result.and_then(|()| self.state.lock().prepared(producer));
                done(result);
            }
            AfterWrite::Decided(producer) => self.decided(producer, result),
        }
    }

    /// A decision is durable; or it could not be written.
    fn decided(self: &Arc<Self>, producer: ProducerId, result: Result<()>) {
        let mut state = self.state.lock();
        let Some(entry) = state.open.get_mut(&producer) else { return };
        let Phase::Deciding(outcome) = entry.phase else { return };
        match result {
            Ok(()) => {
                let shards = entry.appends.shards();
                drop(state);
                match interrupted_markers() {
                    Ok(()) => self.mark(producer, outcome, shards),
                    Err(error) => self.ended(producer, outcome, Some(error)),
                }
            }
            Err(error) => {
                entry.phase = Phase::Prepared;
                let waiting = std::mem::take(&mut entry.waiting);
                drop(state);
                waiting.into_iter().for_each(|done| done(Err(error.clone())));
            }
        }
    }
}

impl TransactionFates for TransactionCoordinator {
    fn fate(&self, producer: ProducerId) -> TransactionFate {
        let state = self.state.lock();
        if state.open.contains_key(&producer) {
            TransactionFate::Open
        } else if state.committed.contains(producer.0) {
            TransactionFate::Ended(TransactionOutcome::Commit)
        } else {
            TransactionFate::Ended(TransactionOutcome::Abort)
        }
    }
}

/// Where a test ends the process before a decision is written.
fn interrupted_decision() -> Result<()> {
    fail::fail_point!("log.txn.before-decision", |_| Err(failed("write a decision to")));
    Ok(())
}

/// Where a test ends the process after a decision is durable.
fn interrupted_markers() -> Result<()> {
    fail::fail_point!("log.txn.after-decision", |_| Err(failed("write markers after a decision to")));
    Ok(())
}

fn failed(action: &'static str) -> LogError {
    LogError::io(action, Path::new("failpoint"), std::io::Error::other("failed by a failpoint"))
}
