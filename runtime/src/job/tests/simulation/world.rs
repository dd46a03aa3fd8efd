//! What outlives the simulated process: the transactions of its sinks, its snapshots, the faults that are still to come, and what the test knows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use coulee_checkpoint::JobStore;
use coulee_checkpoint::snapshot::SnapshotStore;
use futures::{FutureExt, StreamExt};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use parking_lot::Mutex;

use super::BrokenWorld;
use super::machine::Machine;
use super::objects::SimulatedObjects;
use super::scenario::{Scenario, Split};
use crate::{Error, Result};

/// Stands in every error and panic that is made on purpose.
pub(super) const SIMULATED: &str = "simulated";

/// Something fails once in so many times, as long as faults are left.
const FAULT_ONCE_IN: u32 = 80;

/// A transaction of a sink.
#[derive(Debug, Clone)]
struct Transaction {
    checkpoint: u64,
    rows: Vec<String>,
    state: TransactionState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TransactionState {
    Prepared,
    Visible,
    Aborted,
}

#[derive(Debug, Default)]
struct State {
    /// By sink and number.
    transactions: BTreeMap<(String, u64), Transaction>,
    next_transaction: u64,
    /// What the sinks show: every visible row, as often as it is.
    visible: BTreeMap<String, Vec<String>>,
    faults_left: u32,
    /// The first thing that was seen to be wrong.
    wrong: Option<String>,
    store: Weak<JobStore>,
    /// Where in each split event time may have run ahead of it: it was new there, or had been idle.
    restarts: BTreeSet<(String, usize)>,
    /// Splits that were given, for an enumerator that remembers too much.
    given: BTreeSet<String>,
}

/// See the module. Clones are the same world.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) machine: Machine,
    pub(super) scenario: Arc<Scenario>,
    broken: Option<BrokenWorld>,
    state: Arc<Mutex<State>>,
    objects: Arc<InMemory>,
}

impl World {
    pub(super) fn new(machine: Machine, scenario: Arc<Scenario>, broken: Option<BrokenWorld>) -> Self {
        let state = State { faults_left: scenario.faults, ..State::default() };
        World { machine, scenario, broken, state: Arc::new(Mutex::new(state)), objects: Arc::default() }
    }

    pub(super) fn is_broken(&self, how: BrokenWorld) -> bool {
        self.broken == Some(how)
    }

    /// Fails now and then.
    pub(super) fn may_fail(&self, what: &str) -> Result<()> {
        if self.state.lock().faults_left == 0 || !self.machine.once_in(FAULT_ONCE_IN) {
            return Ok(());
        }
        self.state.lock().faults_left -= 1;
        self.machine.trace(format_args!("{what} fails"));
        Err(Error::unavailable(format!("{SIMULATED}: {what} fails")))
    }

    /// Says that something is wrong, whatever comes out in the end.
    fn accuse(&self, what: String) {
        self.machine.trace(format_args!("WRONG: {what}"));
        self.state.lock().wrong.get_or_insert(what);
    }

    pub(super) fn check(&self) -> Result<(), String> {
        self.state.lock().wrong.clone().map_or(Ok(()), Err)
    }

    /// The state that is open now: what it says is durable.
    pub(super) fn watch(&self, store: &Arc<JobStore>) {
        self.state.lock().store = Arc::downgrade(store);
    }

    pub(super) fn holds_store(&self) -> bool {
        self.state.lock().store.strong_count() > 0
    }

    fn durable(&self) -> u64 {
        let store = self.state.lock().store.upgrade();
        store.and_then(|store| store.last_checkpoint()).map_or(0, |record| record.id.0)
    }

    /// The job's snapshots, as a process sees them that has just begun.
    pub(super) fn snapshots(&self) -> SnapshotStore {
        let objects = SimulatedObjects { world: self.clone(), inner: self.objects.clone() };
        SnapshotStore::new(Arc::new(objects), "job".into()).with_blocking(Arc::new(self.machine.clone()))
    }

    /// The last checkpoint of which there is a snapshot.
    fn in_snapshots(&self) -> u64 {
        let manifests = self.objects.list(Some(&"job/snapshots".into())).collect::<Vec<_>>().now_or_never();
        let names =
            manifests.into_iter().flatten().flatten().filter_map(|meta| meta.location.filename().map(str::to_owned));
        names.filter_map(|name| name.strip_suffix(".json")?.parse().ok()).max().unwrap_or(0)
    }

    /// A sink has made rows safe. The number of the transaction that holds them.
    pub(super) fn prepare(&self, sink: &str, checkpoint: u64, rows: Vec<String>) -> u64 {
        let mut state = self.state.lock();
        let number = state.next_transaction;
        state.next_transaction += 1;
        let transaction = Transaction { checkpoint, rows, state: TransactionState::Prepared };
        state.transactions.insert((sink.to_owned(), number), transaction);
        drop(state);
        if self.is_broken(BrokenWorld::SinkCommitsEarly) {
            self.show(sink, number);
        }
        number
    }

    /// Makes a transaction visible, once.
    pub(super) fn commit(&self, sink: &str, number: u64) {
        let found = self.state.lock().transactions.get(&(sink.to_owned(), number)).cloned();
        let on_snapshots = self.scenario.commits_on_snapshots;
        let durable = if on_snapshots { self.in_snapshots() } else { self.durable() };
        match found {
            None => self.accuse(format!("sink '{sink}' commits transaction {number}, which was never prepared")),
            Some(Transaction { state: TransactionState::Aborted, rows, .. }) => {
                self.accuse(format!("sink '{sink}' commits transaction {number}, which was aborted: lost are {rows:?}"));
            }
            Some(Transaction { checkpoint, .. }) if checkpoint > durable => self.accuse(format!(
                "sink '{sink}' commits transaction {number} of checkpoint {checkpoint}, but {durable} is the last durable one"
            )),
            Some(Transaction { state: TransactionState::Visible, .. })
                if !self.is_broken(BrokenWorld::SinkCommitsTwice) => {}
            Some(_) => self.show(sink, number),
        }
    }

    fn show(&self, sink: &str, number: u64) {
        let mut state = self.state.lock();
        let state = &mut *state;
        if let Some(transaction) = state.transactions.get_mut(&(sink.to_owned(), number)) {
            transaction.state = TransactionState::Visible;
            state.visible.entry(sink.to_owned()).or_default().extend(transaction.rows.iter().cloned());
        }
    }

    /// Aborts whatever a sink prepared and did not commit.
    pub(super) fn abort_open(&self, sink: &str) {
        let mut state = self.state.lock();
        let open = state.transactions.iter_mut().filter(|((of, _), _)| of == sink);
        open.filter(|(_, transaction)| transaction.state == TransactionState::Prepared)
            .for_each(|(_, transaction)| transaction.state = TransactionState::Aborted);
    }

    /// What a sink shows, sorted.
    pub(super) fn visible(&self, sink: &str) -> Vec<String> {
        let mut rows = self.state.lock().visible.get(sink).cloned().unwrap_or_default();
        rows.sort_unstable();
        rows
    }

    /// Event time may have run ahead of the split's next record.
    pub(super) fn may_be_behind(&self, split: &Split, next: usize) {
        self.state.lock().restarts.insert((split.id.clone(), next));
    }

    pub(super) fn behind(&self, split: &Split) -> BTreeSet<usize> {
        let state = self.state.lock();
        let new = (split.appears > Duration::ZERO).then_some(0);
        let restarts = state.restarts.iter().filter(|(id, _)| *id == split.id).map(|(_, at)| *at);
        restarts.chain(new).collect()
    }

    /// A split was given. Whether an enumerator that remembers too much gave it before.
    pub(super) fn give(&self, split: &str) -> bool {
        let was_given = !self.state.lock().given.insert(split.to_owned());
        was_given && self.is_broken(BrokenWorld::EnumeratorRemembers)
    }
}
