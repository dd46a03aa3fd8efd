//! The task of a chain that is fed by channels: merges its inputs, aligns barriers, drives the chain.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use coulee_checkpoint::Changes;
use coulee_model::{Clock, Stopwatch, Timestamp};
use tokio::sync::mpsc;

use super::chain::Chain;
use super::executor::Executor;
use super::route::{Ran, TaskError};
use super::{Control, Report, TaskId};
use crate::batch::BATCH_ROWS;
use crate::channel::{Barrier, Disconnected, Element, Receiver};
use crate::operator::InputIndex;
use crate::planted::{Bug, is_planted};
use crate::watermark::{Activity, MergedWatermark};

/// The input channels of a task, and which of them wait for a barrier to be aligned.
struct Inputs {
    receivers: Vec<(InputIndex, Receiver)>,
    /// Channels whose barrier has come: not read until the others' has.
    aligned: Vec<bool>,
    ended: Vec<bool>,
    next: usize,
    /// When the first channel brought the barrier that is being aligned.
    first_barrier: Option<Stopwatch>,
}

impl Inputs {
    fn new(receivers: Vec<(InputIndex, Receiver)>) -> Self {
        let count = receivers.len();
        Inputs { receivers, aligned: vec![false; count], ended: vec![false; count], next: 0, first_barrier: None }
    }

    /// The next element of any channel that may be read, in turn, so that none starves. Cancel-safe.
    async fn recv(&mut self) -> Result<(usize, Element), Disconnected> {
        poll_fn(|cx| {
            let count = self.receivers.len();
            for step in 0..count {
                let index = (self.next + step) % count;
                if self.aligned[index] && !is_planted(Bug::BarriersNotAligned) {
                    continue;
                }
                if let Poll::Ready(received) = self.receivers[index].1.poll_recv(cx) {
                    self.next = index + 1;
                    return Poll::Ready(received.map(|element| (index, element)));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Notes a barrier. When it was the last that was missing: how long the first one waited.
    fn align(&mut self, index: usize) -> Option<Duration> {
        self.aligned[index] = true;
        let first = *self.first_barrier.get_or_insert_with(Stopwatch::start);
        if !self.aligned.iter().all(|aligned| *aligned) {
            return None;
        }
        self.aligned.fill(false);
        self.first_barrier = None;
        Some(first.elapsed())
    }

    fn end(&mut self, index: usize) -> bool {
        self.ended[index] = true;
        self.ended.iter().all(|ended| *ended)
    }
}

/// The longest time for which the wall clock is not looked at while a timer waits for it.
const CLOCK_STEP_MILLIS: i64 = 60_000;

/// The time that a task may keep a thread before it lets other tasks run (a scheduler's quantum).
///
/// SUBTLE: what a task does with rows is synchronous, and its input may never pause: without this the tasks of a job would keep
/// its coordinator, and whatever else the process does, waiting for seconds.
pub(super) struct Quantum(Stopwatch);

impl Quantum {
    pub(super) fn begin() -> Self {
        Quantum(Stopwatch::start())
    }

    /// To be called between batches.
    pub(super) async fn pass(&mut self, executor: &dyn Executor) {
        if !executor.may_go_on(self.0.elapsed()) {
            tokio::task::yield_now().await;
            self.0 = Stopwatch::start();
        }
    }
}

/// What a task needs to run.
pub(super) struct Task {
    pub(super) id: TaskId,
    pub(super) chain: Chain,
    pub(super) reports: mpsc::UnboundedSender<Report>,
    pub(super) control: mpsc::UnboundedReceiver<Control>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) executor: Arc<dyn Executor>,
}

impl Task {
    /// Says something to the coordinator. When it is gone, the job is being torn down and nobody listens.
    pub(super) fn report(&self, report: Report) -> Ran {
        self.reports.send(report).map_err(|_| TaskError::Disconnected)
    }

    /// Passes a barrier through the chain and acknowledges it.
    pub(super) async fn barrier(&mut self, barrier: Barrier, mut changes: Changes) -> Ran {
        let committables = self.chain.barrier(barrier, &mut changes).await?;
        let (task, checkpoint, counted) = (self.id, barrier.checkpoint, self.chain.counted());
        self.report(Report::Acknowledged { task, checkpoint, changes, committables, counted })
    }

    /// What the time is, if an operator or the sink wants to be called by then.
    ///
    /// SUBTLE: asked before every input. A branch of a `select!` that waits for the clock behind the input's is never looked at while the input is always
    /// ready.
    pub(super) fn due(&self) -> Option<Timestamp> {
        let next = self.chain.next_call()?;
        Some(self.clock.now()).filter(|now| *now >= next)
    }

    /// Calls the operators and the sink whose time has come.
    pub(super) async fn call_due(&mut self, now: Timestamp) -> Ran {
        if self.chain.next_flush().is_some_and(|next| next <= now) {
            self.chain.flush(now).await?;
        }
        if self.chain.next_time().is_some_and(|next| next <= now) {
            self.chain.time(now).await?;
        }
        Ok(())
    }

    /// Waits until the wall clock has reached `next`; for ever without one. Cancel-safe.
    pub(super) async fn until(next: Option<Timestamp>, clock: &dyn Clock, executor: &dyn Executor) -> Timestamp {
        let Some(next) = next else { return std::future::pending().await };
        loop {
            let now = clock.now();
            if now >= next {
                return now;
            }
            // In steps, as the wall clock may be set meanwhile.
            let left = next.0.saturating_sub(now.0).min(CLOCK_STEP_MILLIS);
            executor.sleep(Duration::from_millis(left as u64)).await;
        }
    }

    /// Tells those downstream what has become of event time.
    async fn pass_on(&mut self, watermarks: &mut MergedWatermark) -> Ran {
        if let Some(activity) = watermarks.take_activity() {
            self.chain.broadcast(Element::Activity(activity)).await?;
        }
        if let Some(merged) = watermarks.take_advance() {
            self.chain.watermark(merged).await?;
        }
        Ok(())
    }

    /// Runs a task that reads channels, to the last barrier.
    pub(super) async fn run(mut self, receivers: Vec<(InputIndex, Receiver)>) -> Ran {
        let mut watermarks = MergedWatermark::new(receivers.len());
        let mut inputs = Inputs::new(receivers);
        let rows_max = self.chain.batch_rows.map_or(BATCH_ROWS, |rows| rows.min(BATCH_ROWS));
        let mut quantum = Quantum::begin();
        loop {
            quantum.pass(self.executor.as_ref()).await;
            // One call by the clock at most between two inputs: neither can keep the other waiting.
            if let Some(now) = self.due() {
                self.call_due(now).await?;
            }
            let (index, element) = tokio::select! {
                biased;
                control = self.control.recv() => {
                    // Only sources are told anything: here the end of the job shows.
                    if control.is_none() {
                        return Err(TaskError::Disconnected);
                    }
                    continue;
                }
                received = inputs.recv() => received?,
                _ = Self::until(self.chain.next_call(), self.clock.as_ref(), self.executor.as_ref()) => continue,
            };
            match element {
                Element::Batch(batch) => {
                    let (input, receiver) = &mut inputs.receivers[index];
                    let (input, batch) = (*input, receiver.gather(batch, rows_max)?);
                    watermarks.wake(index);
                    self.pass_on(&mut watermarks).await?;
                    self.chain.rows(input, batch).await?;
                }
                Element::Watermark(watermark) => {
                    watermarks.advance(index, watermark);
                    self.pass_on(&mut watermarks).await?;
                }
                Element::Activity(activity) => {
                    match activity {
                        Activity::Active => watermarks.wake(index),
                        Activity::Idle => watermarks.set_idle(index),
                    }
                    self.pass_on(&mut watermarks).await?;
                }
                Element::End => {
                    if inputs.end(index) {
                        self.chain.end().await?;
                        self.report(Report::Ended { task: self.id })?;
                    }
                }
                Element::Barrier(barrier) => {
                    if let Some(waited) = inputs.align(index) {
                        self.chain.links[0].metrics.set_alignment_nanos(waited.as_nanos() as u64);
                        self.barrier(barrier, Changes::default()).await?;
                        if barrier.last {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }
}
