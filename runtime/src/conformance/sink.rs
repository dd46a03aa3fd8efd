//! The contract of sinks: each row visible once, wherever an attempt ends, and not before its checkpoint is durable.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use coulee_model::{CheckpointId, OperatorId, SubtaskIndex};

use crate::connector::{Sink, SinkCommitter, SinkContext, SinkWriter};
use crate::metrics::SubtaskMetrics;
use crate::{Batch, Result};

/// What a checkpoint has of a sink.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SinkCheckpoint {
    /// Its number.
    pub id: CheckpointId,
    /// What each writer prepared.
    pub states: Vec<Bytes>,
    /// What is to be committed, that of earlier checkpoints which are not known to be committed included.
    pub committables: Vec<Bytes>,
}

/// One attempt at a job as its sink sees it: the calls that the runtime makes, one by one. Dropping it is a crash.
pub struct SinkAttempt {
    writers: Vec<Box<dyn SinkWriter>>,
    committer: Box<dyn SinkCommitter>,
    checkpoint: CheckpointId,
    uncommitted: Vec<(CheckpointId, Vec<Bytes>)>,
}

impl SinkAttempt {
    /// Resumes from a checkpoint with so many writers. Recovers twice, as a recovery may itself be cut short.
    ///
    /// # Errors
    /// Those of the sink.
    pub async fn begin(
        sink: &dyn Sink,
        context: &SinkContext,
        from: &SinkCheckpoint,
        parallelism: u32,
    ) -> Result<Self> {
        for _ in 0..2 {
            sink.recover(context, &from.states, &from.committables).await?;
        }
        let mut writers = Vec::new();
        for subtask in (0..parallelism).map(SubtaskIndex) {
            // The states of former writers go to whoever is there.
            let inherited = from.states.iter().enumerate().filter(|(i, _)| *i as u32 % parallelism == subtask.0);
            let inherited: Vec<Bytes> = inherited.map(|(_, state)| state.clone()).collect();
            let metrics = Arc::new(SubtaskMetrics::new(OperatorId(0), subtask));
            writers.push(sink.open(context, subtask, &inherited, metrics).await?);
        }
        let committer = sink.committer(context).await?;
        Ok(SinkAttempt { writers, committer, checkpoint: from.id, uncommitted: Vec::new() })
    }

    /// The writer of a subtask.
    pub fn writer(&mut self, subtask: usize) -> &mut dyn SinkWriter {
        self.writers[subtask].as_mut()
    }

    /// The input has ended.
    ///
    /// # Errors
    /// Those of the writers.
    pub async fn finish(&mut self) -> Result<()> {
        for writer in &mut self.writers {
            writer.finish().await?;
        }
        Ok(())
    }

    /// A barrier passes all writers. What it returns would be durable next.
    ///
    /// # Errors
    /// Those of the writers.
    pub async fn prepare(&mut self) -> Result<SinkCheckpoint> {
        self.checkpoint = self.checkpoint.next();
        let (mut states, mut committables) = (Vec::new(), Vec::new());
        for writer in &mut self.writers {
            let prepared = writer.prepare(self.checkpoint).await?;
            states.push(prepared.state);
            committables.extend(prepared.committables);
        }
        self.uncommitted.push((self.checkpoint, committables));
        let committables = self.uncommitted.iter().flat_map(|(_, committables)| committables.clone()).collect();
        Ok(SinkCheckpoint { id: self.checkpoint, states, committables })
    }

    /// A checkpoint is durable: commits it, and those before it that were not committed.
    ///
    /// # Errors
    /// Those of the committer.
    pub async fn commit(&mut self, checkpoint: CheckpointId) -> Result<()> {
        let due = self.uncommitted.extract_if(.., |(of, _)| *of <= checkpoint);
        let committables = due.flat_map(|(_, committables)| committables).collect();
        self.committer.commit(checkpoint, committables).await
    }
}

/// A sink, and what a test needs to know about it.
#[async_trait]
pub trait SinkUnderTest: Send {
    /// A sink of the same rows. Called for each attempt.
    fn sink(&self) -> Arc<dyn Sink>;

    /// The same for every attempt.
    fn context(&self) -> SinkContext;

    /// The `n`-th of its inputs.
    fn input(&self, n: usize) -> Batch;

    /// The rows of the first `n` inputs, as [`visible`](Self::visible) gives them.
    fn expected(&self, n: usize) -> Vec<String>;

    /// The rows that a reader finds now, sorted.
    async fn visible(&mut self) -> Vec<String>;

    /// The process has died and another one begins.
    fn crashed(&mut self) {}

    /// Whether rows may be held back over checkpoints, until a buffer is full or the input has ended.
    fn is_buffered(&self) -> bool {
        false
    }
}

/// How many inputs a script has, and after how many there is a checkpoint.
const INPUTS: usize = 8;
const INPUTS_PER_CHECKPOINT: usize = 2;

/// Runs a script of writes, checkpoints and commits to its end, with changing parallelism, and ends the attempt once after each of its steps in turn.
/// Whatever was durable before is visible at the end once, and nothing was visible too early.
///
/// # Panics
/// When the sink breaks its contract, saying after which step.
pub async fn sink_is_exactly_once(make: impl Fn() -> Box<dyn SinkUnderTest>) {
    let steps = Script::new(make()).run(usize::MAX).await;
    assert!(steps > INPUTS, "the script has {steps} steps");
    for crash_after in 0..steps {
        Script::new(make()).run(crash_after).await;
    }
}

/// A script under way.
struct Script {
    test: Box<dyn SinkUnderTest>,
    durable: SinkCheckpoint,
    /// How many inputs are before the durable checkpoint.
    durable_inputs: usize,
    steps: usize,
    attempts: u32,
}

impl Script {
    fn new(test: Box<dyn SinkUnderTest>) -> Self {
        Script { test, durable: SinkCheckpoint::default(), durable_inputs: 0, steps: 0, attempts: 0 }
    }

    /// Returns how many steps there were.
    async fn run(mut self, crash_after: usize) -> usize {
        let crash = Some(crash_after).filter(|crash| *crash != usize::MAX);
        while !self.attempt(crash).await {
            self.test.crashed();
        }
        let found = self.test.visible().await;
        assert_eq!(found, self.test.expected(INPUTS), "a crash after step {crash:?}");
        self.steps
    }

    /// Whether the attempt came to the end of the input.
    async fn attempt(&mut self, crash: Option<usize>) -> bool {
        // As many writers as before, then more, then fewer.
        let parallelism = [2, 3, 1][self.attempts as usize % 3];
        self.attempts += 1;
        let (sink, context) = (self.test.sink(), self.test.context());
        let begun = SinkAttempt::begin(sink.as_ref(), &context, &self.durable, parallelism).await;
        let mut attempt = begun.unwrap_or_else(|error| panic!("a recovery after step {crash:?}: {error}"));
        self.assert_visible(self.durable_inputs, "after the recovery").await;
        let mut next = self.durable_inputs;
        let crashes = |steps: &mut usize| {
            *steps += 1;
            crash == Some(*steps - 1)
        };
        loop {
            for _ in 0..INPUTS_PER_CHECKPOINT.min(INPUTS - next) {
                let input = self.test.input(next);
                attempt.writer(next % parallelism as usize).write(input).await.expect("written");
                next += 1;
                if crashes(&mut self.steps) {
                    return false;
                }
            }
            let is_last = next == INPUTS;
            if is_last {
                attempt.finish().await.expect("finished");
            }
            self.assert_visible(self.durable_inputs, "before the barrier").await;
            let prepared = attempt.prepare().await.expect("prepared");
            self.assert_visible(self.durable_inputs, "after the barrier").await;
            if crashes(&mut self.steps) {
                return false;
            }
            let id = prepared.id;
            self.durable = prepared;
            // Every other commit is skipped, as it is when sinks wait for snapshots: the next one makes up for it.
            let is_skipped = !is_last && id.0 % 2 == 0;
            if !is_skipped {
                // A commit comes late: rows behind its barrier are written before.
                attempt.commit(id).await.expect("committed");
                attempt.commit(id).await.expect("committed again");
                self.durable_inputs = next;
                self.assert_visible(next, "after the commit").await;
            }
            self.durable_inputs = next;
            if crashes(&mut self.steps) {
                return false;
            }
            if is_last {
                return true;
            }
        }
    }

    /// No row behind input `n` is there, and all before it are unless they may be held back or their commit was skipped.
    async fn assert_visible(&mut self, n: usize, when: &str) {
        let (found, expected) = (self.test.visible().await, self.test.expected(n));
        let unexpected: Vec<&String> = found.iter().filter(|row| !expected.contains(row)).collect();
        assert!(unexpected.is_empty(), "{when} of {n} inputs there are {unexpected:?} (step {})", self.steps);
        let is_due = when == "after the commit" && !self.test.is_buffered();
        assert!(!is_due || found == expected, "{when} of {n} inputs there are {found:?}, expected {expected:?}");
    }
}
