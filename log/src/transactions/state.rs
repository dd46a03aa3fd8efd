//! The transactions that have not ended, and which step each may take next. Pure bookkeeping: nothing here does I/O.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use coulee_model::Timestamp;

use crate::batch::marker::TransactionOutcome;
use crate::error::{LogError, Result};
use crate::ids::{ProducerId, TransactionRef, TransactionalId};
use crate::shard::shard::Shard;
use crate::transactions::appends::{CloseReason, PartitionAppends};
use crate::transactions::committed::CommittedTransactions;
use crate::transactions::journal::JournalRecord;

/// Why an aborted transaction takes no more appends.
pub(super) const ABORTED: CloseReason = CloseReason::Ended("it was aborted");

/// Told how a request went, in whichever thread that turns out.
pub(crate) type Done = Box<dyn FnOnce(Result<()>) + Send>;

/// What the coordinator does once a record of the journal is durable.
pub(super) enum AfterWrite {
    Nothing,
    Reserved(i64),
    Prepared(ProducerId, Done),
    Decided(ProducerId),
}

/// What the coordinator knows. Changed under its lock; nothing here waits or calls out.
pub(super) struct State {
    /// The first producer id that was ever given out, the next one, and how far they are set aside.
    pub(super) first: i64,
    pub(super) next: i64,
    pub(super) below: i64,
    /// Whether more are about to be set aside.
    pub(super) reserving: bool,
    pub(super) open: BTreeMap<ProducerId, Entry>,
    /// Those that a newer transaction of the same name replaces: neither prepared nor ended.
    pub(super) ongoing: HashMap<TransactionalId, ProducerId>,
    pub(super) committed: CommittedTransactions,
    /// What the thread has to write.
    pub(super) queued: Vec<(JournalRecord, AfterWrite)>,
    /// Why nothing is taken any more.
    pub(super) refusal: Option<LogError>,
    pub(super) stopping: bool,
}

/// A transaction that has not ended.
pub(super) struct Entry {
    pub(super) id: TransactionalId,
    pub(super) began: Timestamp,
    pub(super) appends: Arc<PartitionAppends>,
    pub(super) phase: Phase,
    /// Whether the journal knows it.
    pub(super) logged: bool,
    /// Who waits for its end.
    pub(super) waiting: Vec<Done>,
}

/// How far a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Ongoing,
    Preparing,
    Prepared,
    /// The decision, or its markers, are under way.
    Deciding(TransactionOutcome),
    /// The decision is durable, but a marker failed: to be tried again.
    Decided(TransactionOutcome),
}

/// What ending a transaction takes.
pub(super) enum Step {
    Answer(Result<()>),
    /// It is under way already.
    Wait,
    /// The decision has to be made durable.
    Log,
    /// The decision is durable, or need not be: the markers.
    Mark(Vec<Arc<Shard>>),
}

impl State {
    /// `first` is the first producer id that was ever given out, `set_aside` are those that may be next.
    pub(super) fn new(first: i64, set_aside: Range<i64>, committed: CommittedTransactions) -> Self {
        State {
            first,
            next: set_aside.start,
            below: set_aside.end,
            reserving: false,
            open: BTreeMap::new(),
            ongoing: HashMap::new(),
            committed,
            queued: Vec::new(),
            refusal: None,
            stopping: false,
        }
    }

    /// The entry of a transaction, if it is open.
    pub(super) fn entry(&mut self, transaction: &TransactionRef) -> Option<&mut Entry> {
        self.open.get_mut(&transaction.producer).filter(|entry| entry.id == transaction.id)
    }

    /// What was prepared is durable.
    pub(super) fn prepared(&mut self, producer: ProducerId) -> Result<()> {
        match self.open.get_mut(&producer) {
            Some(entry) if entry.phase == Phase::Preparing => {
                entry.phase = Phase::Prepared;
                Ok(())
            }
            Some(entry) => {
                let transaction = TransactionRef { id: entry.id.clone(), producer };
                Err(ABORTED.error(&transaction))
            }
            None => Err(LogError::LogClosed),
        }
    }

    pub(super) fn wait(&mut self, transaction: &TransactionRef, done: Done) {
        let entry = self.entry(transaction).expect("a step was found for it under the same lock");
        entry.waiting.push(done);
    }

    pub(super) fn forget_name(&mut self, transaction: &TransactionRef) {
        if self.ongoing.get(&transaction.id) == Some(&transaction.producer) {
            self.ongoing.remove(&transaction.id);
        }
    }

    pub(super) fn step(&mut self, transaction: &TransactionRef, outcome: TransactionOutcome) -> Step {
        self.forget_name_if_ending(transaction, outcome);
        let contradiction = || match outcome {
            TransactionOutcome::Commit => LogError::TransactionAborted { transaction: transaction.clone() },
            TransactionOutcome::Abort => LogError::TransactionCommitted { transaction: transaction.clone() },
        };
        let Some(entry) = self.entry(transaction) else {
            let committed = self.committed.contains(transaction.producer.0);
            let known = (self.first..self.next).contains(&transaction.producer.0);
            return Step::Answer(match (known, committed, outcome) {
                (false, ..) => Err(LogError::UnknownTransaction { transaction: transaction.clone() }),
                (true, true, TransactionOutcome::Commit) | (true, false, TransactionOutcome::Abort) => Ok(()),
                _ => Err(contradiction()),
            });
        };
        match (entry.phase, outcome) {
            (Phase::Ongoing | Phase::Preparing, TransactionOutcome::Commit) => {
                Step::Answer(Err(LogError::TransactionNotPrepared { transaction: transaction.clone() }))
            }
            // Nothing durable says that it was ever there, but for its batches: a crash aborts it as well.
            (Phase::Ongoing, TransactionOutcome::Abort) => {
                entry.appends.close(ABORTED);
                entry.phase = Phase::Deciding(outcome);
                Step::Mark(entry.appends.shards())
            }
            (Phase::Preparing | Phase::Prepared, _) => {
                entry.phase = Phase::Deciding(outcome);
                Step::Log
            }
            (Phase::Deciding(decided) | Phase::Decided(decided), _) if decided != outcome => {
                Step::Answer(Err(contradiction()))
            }
            (Phase::Deciding(_), _) => Step::Wait,
            (Phase::Decided(_), _) => {
                entry.phase = Phase::Deciding(outcome);
                Step::Mark(entry.appends.shards())
            }
        }
    }

    pub(super) fn forget_name_if_ending(&mut self, transaction: &TransactionRef, outcome: TransactionOutcome) {
        if outcome == TransactionOutcome::Abort {
            self.forget_name(transaction);
        }
    }
}
