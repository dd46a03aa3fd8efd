//! What the tasks of a job run on: the threads and timers of tokio, or a simulation of both.
//!
//! Whatever of a job runs beside something else, waits for time to pass, or blocks its thread, does so through [`Executor`]. The simulation of a job
//! (`job/tests/simulation`, tests only) replaces it by one thread, a clock of its own and a schedule drawn from a seed. A direct call of `tokio::spawn`,
//! `tokio::time::sleep` or `spawn_blocking` in this crate, or a `select!` that is not `biased`, would make the same seed run differently.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{AbortHandle, Abortable, BoxFuture};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::{Error, Result};

/// How long a task keeps a thread before it lets others run.
const TURN: Duration = Duration::from_millis(2);

/// Runs the tasks of a job.
///
/// **Operations** `spawn` and `block` start something beside the caller; `now` and `sleep_until` are the monotonic clock.
/// **Guarantees** What was spawned is polled whenever it was woken, until it ends. A sleep ends at or after its instant.
/// **Non-guarantees** Nothing is promised about order. When the process ends, what was spawned is dropped at any of its waits.
pub(crate) trait Executor: Send + Sync + fmt::Debug {
    /// Runs a future to its end, beside everything else.
    fn spawn(&self, future: BoxFuture<'static, ()>);

    /// Runs work that keeps its thread waiting, where no task waits behind it. `what` it is, for errors.
    fn block(&self, what: &'static str, work: Box<dyn FnOnce() + Send>);

    /// The monotonic clock.
    fn now(&self) -> Instant;

    /// Waits until the monotonic clock has reached `at`.
    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()>;

    /// Whether a task that has kept its thread for so long may go on before others.
    fn may_go_on(&self, kept: Duration) -> bool;
}

impl dyn Executor + '_ {
    /// Starts a task. Dropping what is returned ends the task at its next wait.
    pub(crate) fn start<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> Running<T> {
        let (ending, ended) = oneshot::channel();
        let (abort, registration) = AbortHandle::new_pair();
        let task = Abortable::new(AssertUnwindSafe(task).catch_unwind(), registration);
        self.spawn(Box::pin(async move {
            // SUBTLE: the task is dropped, with all that it holds, before its end is told: the next attempt opens the same state.
            let ran = task.await;
            // Nobody may be waiting for it.
            let _ = ending.send(match ran {
                Ok(ran) => ran.map_err(Lost::Panicked),
                Err(_) => Err(Lost::Gone),
            });
        }));
        Running { ended, abort }
    }

    /// Runs work that blocks, and waits for its result. When the wait is dropped, the work still goes to its end.
    ///
    /// # Errors
    /// What the work says; `Internal` when it panics.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let work = move || {
            let _ = answer.send(catch_unwind(AssertUnwindSafe(work)));
        };
        self.block(what, Box::new(work));
        match answered.await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => Err(Lost::Panicked(panic).during(what)),
            Err(_) => Err(Lost::Gone.during(what)),
        }
    }

    /// Waits for so long.
    pub(crate) fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.sleep_until(self.now() + duration)
    }

    /// What a future gives, unless that takes longer.
    pub(crate) async fn within<T>(&self, duration: Duration, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            result = future => Some(result),
            () = self.sleep(duration) => None,
        }
    }
}

/// A task that was started. Gives its result, or why there is none.
#[derive(Debug)]
pub(crate) struct Running<T> {
    ended: oneshot::Receiver<Result<T, Lost>>,
    abort: AbortHandle,
}

impl<T> Running<T> {
    /// Ends the task at its next wait. Its end is still to be waited for.
    pub(crate) fn abort(&self) {
        self.abort.abort();
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

impl<T> Future for Running<T> {
    type Output = Result<T, Lost>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.ended.poll_unpin(cx).map(|ended| ended.unwrap_or(Err(Lost::Gone)))
    }
}

/// Why a task or a piece of work ended without a result.
pub(crate) enum Lost {
    /// It panicked, with this.
    Panicked(Box<dyn Any + Send>),
    /// It was ended, or what it ran on was.
    Gone,
}

impl fmt::Debug for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lost::Panicked(_) => "Panicked",
            Lost::Gone => "Gone",
        })
    }
}

impl Lost {
    /// The error that says so; `what` it was.
    pub(crate) fn during(self, what: &str) -> Error {
        let panic = match self {
            Lost::Panicked(panic) => panic,
            Lost::Gone => return Error::unavailable(format!("{what} was torn down with its runtime")),
        };
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned());
        Error::internal(format!("{what} panicked: {text}; the job can be started again from its last checkpoint"))
    }
}

/// The threads and timers of the current tokio runtime.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tokio;

impl Executor for Tokio {
    fn spawn(&self, future: BoxFuture<'static, ()>) {
        tokio::spawn(future);
    }

    fn block(&self, _: &'static str, work: Box<dyn FnOnce() + Send>) {
        tokio::task::spawn_blocking(work);
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep_until(at))
    }

    fn may_go_on(&self, kept: Duration) -> bool {
        kept < TURN
    }
}

/// Instants that come again and again.
#[derive(Debug)]
pub(super) struct Ticks {
    next: Instant,
    every: Duration,
}

impl Ticks {
    /// The first is `every` after `now`.
    pub(super) fn new(now: Instant, every: Duration) -> Self {
        let every = every.max(Duration::from_millis(1));
        Ticks { next: now + every, every }
    }

    /// The next one.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// The next one came, and it is `now`; those that were missed are skipped.
    pub(super) fn passed(&mut self, now: Instant) {
        let late = now.saturating_duration_since(self.next).as_nanos();
        let steps = late / self.every.as_nanos() + 1;
        self.next += Duration::from_nanos((self.every.as_nanos() * steps) as u64);
    }

    /// The next one is to come at `at`.
    pub(super) fn reset(&mut self, at: Instant) {
        self.next = at;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_task_that_is_ended_is_gone_with_all_it_holds_before_that_is_told() {
        let executor: &dyn Executor = &Tokio;
        let held = Arc::new(());
        let holds = held.clone();
        let running = executor.start(async move {
            std::future::pending::<()>().await;
            drop(holds);
        });
        running.abort();
        assert!(matches!(running.await, Err(Lost::Gone)));
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test]
    async fn panics_are_told_apart_from_ends() {
        let executor: &dyn Executor = &Tokio;
        let task = executor.start(async { panic!("on purpose") }).await;
        let error = task.map(|(): ()| ()).unwrap_err().during("the task").to_string();
        assert!(error.contains("the task panicked: on purpose"), "{error}");
        let work = executor.blocking("the work", || -> Result<()> { panic!("on purpose {}", 2) }).await;
        let error = work.unwrap_err().to_string();
        assert!(error.contains("the work panicked: on purpose 2"), "{error}");
        assert_eq!(executor.blocking("the work", || Ok(7)).await.unwrap(), 7);
    }

    #[test]
    fn missed_ticks_are_skipped() {
        let start = Tokio.now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut ticks = Ticks::new(start, Duration::from_millis(10));
        assert_eq!(ticks.next(), at(10));
        ticks.passed(at(10));
        assert_eq!(ticks.next(), at(20));
        ticks.passed(at(45));
        assert_eq!(ticks.next(), at(50));
    }
}
