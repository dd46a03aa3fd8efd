//! The machine that a simulated job runs on: one thread, a clock of its own, a schedule drawn from a seed, and a power switch.
//!
//! Tasks are polled one at a time. Which of those that were woken comes next is drawn, with weights that are drawn per task, so that some tasks lag far
//! behind others. A poll takes up to 50 µs of simulated time; where nothing is ready, the clock moves to the next sleep. Nothing else moves it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use coulee_checkpoint::snapshot::Blocking;
use coulee_model::{Clock, Timestamp};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use crate::job::executor::{Executor, Tokio};

/// What the wall clock shows when a simulation begins.
const EPOCH_MILLIS: i64 = 1_700_000_000_000;

/// The most simulated time that one poll takes.
const POLL_MICROS_MAX: u64 = 50;

/// The most simulated time that blocking work waits for its thread and its disk.
const BLOCK_MICROS_MAX: u64 = 8_000;

/// Polls after which a simulation is given up: something goes round in circles.
const POLLS_MAX: u64 = 3_000_000;

/// How the power goes off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// At this instant, between two polls.
    At(Duration),
    /// The n-th commit from now on is about to be written.
    BeforeCommit(u32),
    /// While the n-th commit from now on is written: nobody has heard of it yet.
    WithinCommit(u32),
}

/// Why a simulation stopped before its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stopped {
    /// The power went off.
    Cut(Cut),
    /// Nothing can ever happen again, or nothing but circles.
    Stuck(&'static str),
}

/// What is done with the job's files around a commit: it writes down how much of them is synced.
pub(super) type CommitHook = Arc<dyn Fn(CommitMoment) + Send + Sync>;

/// When a [`CommitHook`] is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CommitMoment {
    Before,
    After,
}

type Task = BoxFuture<'static, ()>;

struct State {
    random: SmallRng,
    now: Duration,
    polls: u64,
    /// A digest of the schedule so far: stands in every line of the trace.
    digest: u64,
    next_id: u64,
    /// `None` while a task is polled.
    tasks: BTreeMap<u64, Option<Task>>,
    weights: BTreeMap<u64, u32>,
    sleeps: BTreeMap<(Duration, u64), Waker>,
    cut: Option<Cut>,
    power_is_off: bool,
    commit_hook: Option<CommitHook>,
    trace: Vec<String>,
}

/// See the module. Clones are the same machine.
#[derive(Clone)]
pub(super) struct Machine {
    /// Where the clock begins: only differences to it mean something.
    start: Instant,
    state: Arc<Mutex<State>>,
    /// In an order that does not depend on who woke whom first.
    ready: Arc<Mutex<BTreeSet<u64>>>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").finish_non_exhaustive()
    }
}

struct Alarm {
    id: u64,
    ready: Arc<Mutex<BTreeSet<u64>>>,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.ready.lock().insert(self.id);
    }
}

/// The task that `Machine::run` was called with.
const MAIN: u64 = 0;

impl Machine {
    pub(super) fn new(seed: u64) -> Self {
        let state = State {
            random: SmallRng::seed_from_u64(seed),
            now: Duration::ZERO,
            polls: 0,
            digest: 0,
            next_id: MAIN + 1,
            tasks: BTreeMap::new(),
            weights: BTreeMap::new(),
            sleeps: BTreeMap::new(),
            cut: None,
            power_is_off: false,
            commit_hook: None,
            trace: Vec::new(),
        };
        Machine { start: Tokio.now(), state: Arc::new(Mutex::new(state)), ready: Arc::default() }
    }

    /// Draws from the seed.
    pub(super) fn draw<T>(&self, draw: impl FnOnce(&mut SmallRng) -> T) -> T {
        draw(&mut self.state.lock().random)
    }

    /// Whether something happens that does so once in `times`.
    pub(super) fn once_in(&self, times: u32) -> bool {
        self.draw(|random| random.random_ratio(1, times))
    }

    /// Simulated time since the simulation began.
    pub(super) fn elapsed(&self) -> Duration {
        self.state.lock().now
    }

    /// Lets time pass while the machine is off.
    pub(super) fn pass(&self, time: Duration) {
        self.state.lock().now += time;
    }

    /// Waits for a drawn time of up to so many microseconds.
    pub(super) async fn lag(&self, micros_max: u64) {
        let micros = self.draw(|random| random.random_range(0..=micros_max));
        self.sleep_for(Duration::from_micros(micros)).await;
    }

    pub(super) async fn sleep_for(&self, time: Duration) {
        self.sleep_until(self.start + self.elapsed() + time).await;
    }

    /// Writes a line into the trace, with the time and the schedule's digest.
    pub(super) fn trace(&self, line: fmt::Arguments<'_>) {
        let mut state = self.state.lock();
        if state.power_is_off {
            return;
        }
        let line = format!("{:>12.3} {:016x} {line}", state.now.as_secs_f64() * 1e3, state.digest);
        state.trace.push(line);
    }

    pub(super) fn take_trace(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().trace)
    }

    /// Has the power go off, once.
    pub(super) fn plan_cut(&self, cut: Option<Cut>) {
        self.state.lock().cut = cut;
    }

    pub(super) fn on_commit(&self, hook: CommitHook) {
        self.state.lock().commit_hook = Some(hook);
    }

    /// Runs a future and all that it spawns until the future ends, the power goes off, or nothing can go on. Whatever runs then is dropped.
    pub(super) fn run<T>(&self, main: impl Future<Output = T>) -> Result<T, Stopped> {
        self.state.lock().power_is_off = false;
        let result = {
            let mut main = pin!(main);
            self.ready.lock().insert(MAIN);
            self.drive(|cx| main.as_mut().poll(cx))
        };
        let mut state = self.state.lock();
        state.power_is_off = true;
        let dropped = (std::mem::take(&mut state.tasks), std::mem::take(&mut state.sleeps));
        state.commit_hook = None;
        drop(state);
        drop(dropped);
        self.ready.lock().clear();
        result
    }

    fn drive<T>(&self, mut main: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Result<T, Stopped> {
        loop {
            if let Some(cut) = self.is_cut() {
                return Err(Stopped::Cut(cut));
            }
            self.ring();
            let Some(id) = self.choose() else {
                self.skip_to_next_sleep()?;
                continue;
            };
            let waker = Waker::from(Arc::new(Alarm { id, ready: self.ready.clone() }));
            let mut cx = Context::from_waker(&waker);
            if id == MAIN {
                if let Poll::Ready(result) = main(&mut cx) {
                    return Ok(result);
                }
                continue;
            }
            let Some(mut task) = self.state.lock().tasks.get_mut(&id).and_then(Option::take) else { continue };
            let polled = task.as_mut().poll(&mut cx);
            // A task that has ended is dropped outside of the lock: what it holds may use the machine.
            match polled {
                Poll::Ready(()) => {
                    drop(task);
                    self.state.lock().tasks.remove(&id);
                }
                Poll::Pending => {
                    self.state.lock().tasks.insert(id, Some(task));
                }
            }
            if self.state.lock().polls > POLLS_MAX {
                return Err(Stopped::Stuck("the job goes round in circles"));
            }
        }
    }

    fn is_cut(&self) -> Option<Cut> {
        let mut state = self.state.lock();
        match state.cut {
            Some(cut @ Cut::At(at)) if at <= state.now => {
                state.cut = None;
                Some(cut)
            }
            Some(cut) if state.power_is_off => {
                state.cut = None;
                Some(cut)
            }
            _ => None,
        }
    }

    /// Wakes the tasks whose sleep is over.
    fn ring(&self) {
        let mut state = self.state.lock();
        let later = (state.now + Duration::from_nanos(1), 0);
        let later = state.sleeps.split_off(&later);
        let over = std::mem::replace(&mut state.sleeps, later);
        drop(state);
        over.into_values().for_each(Waker::wake);
    }

    /// Draws which of the tasks that are ready comes next, and lets its time pass.
    fn choose(&self) -> Option<u64> {
        let mut ready = self.ready.lock();
        let mut state = self.state.lock();
        let state = &mut *state;
        let weight = |id: &u64| u64::from(state.weights.get(id).copied().unwrap_or(4));
        let all: u64 = ready.iter().map(weight).sum();
        if all == 0 {
            return None;
        }
        let mut drawn = state.random.random_range(0..all);
        let chosen = ready.iter().copied().find(|id| {
            let weight = weight(id);
            let is_chosen = drawn < weight;
            drawn = drawn.saturating_sub(weight);
            is_chosen
        })?;
        ready.remove(&chosen);
        state.polls += 1;
        state.now += Duration::from_micros(state.random.random_range(1..=POLL_MICROS_MAX));
        let step = chosen ^ (state.now.as_micros() as u64).rotate_left(24);
        state.digest = (state.digest ^ step).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        Some(chosen)
    }

    fn skip_to_next_sleep(&self) -> Result<(), Stopped> {
        let mut state = self.state.lock();
        let Some(((at, _), _)) = state.sleeps.first_key_value() else {
            return Err(Stopped::Stuck("every task waits for another one"));
        };
        state.now = state.now.max(*at);
        Ok(())
    }

    /// Whether the power goes off at this moment of a commit.
    fn cuts_commit(&self, moment: CommitMoment) -> bool {
        let mut state = self.state.lock();
        let state = &mut *state;
        let (nth, when) = match &mut state.cut {
            Some(Cut::BeforeCommit(nth)) => (nth, CommitMoment::Before),
            Some(Cut::WithinCommit(nth)) => (nth, CommitMoment::After),
            _ => return false,
        };
        if when != moment {
            return false;
        }
        *nth = nth.saturating_sub(1);
        state.power_is_off = *nth == 0;
        state.power_is_off
    }

    async fn blocking(self, what: &'static str, work: Box<dyn FnOnce() + Send>) {
        self.lag(BLOCK_MICROS_MAX).await;
        if what != "the write of a checkpoint" {
            return work();
        }
        let hook = self.state.lock().commit_hook.clone();
        let told = |moment| hook.iter().for_each(|hook| hook(moment));
        if self.cuts_commit(CommitMoment::Before) {
            return std::future::pending().await;
        }
        told(CommitMoment::Before);
        work();
        told(CommitMoment::After);
        // The answer of the work is on its way; whoever waits for it is never polled again.
        self.cuts_commit(CommitMoment::After);
    }
}

impl Executor for Machine {
    fn spawn(&self, future: BoxFuture<'static, ()>) {
        let mut state = self.state.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.tasks.insert(id, Some(future));
        let weight = [1, 2, 4, 4, 16][state.random.random_range(0..5)];
        state.weights.insert(id, weight);
        drop(state);
        self.ready.lock().insert(id);
    }

    fn block(&self, what: &'static str, work: Box<dyn FnOnce() + Send>) {
        self.spawn(Box::pin(self.clone().blocking(what, work)));
    }

    fn now(&self) -> Instant {
        self.start + self.elapsed()
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        let mut state = self.state.lock();
        let number = state.next_id;
        state.next_id += 1;
        let at = at.saturating_duration_since(self.start);
        Box::pin(Sleep { key: (at, number), machine: self.clone() })
    }

    fn may_go_on(&self, _: Duration) -> bool {
        !self.once_in(8)
    }
}

/// A wait for an instant.
struct Sleep {
    key: (Duration, u64),
    machine: Machine,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.machine.state.lock();
        if state.now >= self.key.0 {
            state.sleeps.remove(&self.key);
            return Poll::Ready(());
        }
        state.sleeps.insert(self.key, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.machine.state.lock().sleeps.remove(&self.key);
    }
}

/// Snapshots work on files as the rest of the job does.
impl Blocking for Machine {
    fn block(&self, work: Box<dyn FnOnce() + Send>) {
        Executor::block(self, "work on files", work);
    }
}

/// The machine's wall clock.
impl Clock for Machine {
    fn now(&self) -> Timestamp {
        Timestamp(EPOCH_MILLIS + self.elapsed().as_millis() as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(seed: u64) -> (Vec<u32>, Duration) {
        let machine = Machine::new(seed);
        let order = Arc::new(Mutex::new(Vec::new()));
        let executor: &dyn Executor = &machine;
        let ran = machine.run(async {
            let tasks = (0..5u32).map(|task| {
                let (machine, order) = (machine.clone(), order.clone());
                executor.start(async move {
                    for _ in 0..3 {
                        machine.lag(100).await;
                        order.lock().push(task);
                    }
                })
            });
            futures::future::join_all(tasks.collect::<Vec<_>>()).await;
            machine.sleep_for(Duration::from_secs(3600)).await;
        });
        assert_eq!(ran, Ok(()));
        let order = order.lock().clone();
        (order, machine.elapsed())
    }

    #[test]
    fn a_seed_repeats_its_schedule_and_another_has_another() {
        assert_eq!(order(1), order(1));
        assert!((2..10).any(|seed| order(seed).0 != order(1).0));
        assert!(order(1).1 >= Duration::from_secs(3600), "hours pass in no time");
    }

    #[test]
    fn tasks_that_wait_for_each_other_are_noticed_and_a_cut_drops_everything() {
        let machine = Machine::new(7);
        let stuck = machine.run(std::future::pending::<()>());
        assert_eq!(stuck, Err(Stopped::Stuck("every task waits for another one")));
        let held = Arc::new(());
        let (holds, sleeper) = (held.clone(), machine.clone());
        let cut = Cut::At(machine.elapsed() + Duration::from_millis(5));
        machine.plan_cut(Some(cut));
        let ran = machine.run(async {
            machine.spawn(Box::pin(async move {
                sleeper.sleep_for(Duration::from_secs(9)).await;
                drop(holds);
            }));
            std::future::pending::<()>().await
        });
        assert_eq!((ran, Arc::strong_count(&held)), (Err(Stopped::Cut(cut)), 1));
    }
}
