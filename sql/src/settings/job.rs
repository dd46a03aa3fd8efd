//! What a job takes from its session's settings.

use std::time::Duration;

use coulee_runtime::options::Options;

/// What a job takes from the session's settings.
#[derive(Debug, Clone, PartialEq)]
pub struct JobOptions {
    /// Subtasks per operator, unless a table says otherwise. 1 or more.
    pub parallelism: u32,
    /// The time between two checkpoints. 10 ms or more.
    pub checkpoint_interval: Duration,
    /// Whether the statement waits for the job's end.
    pub wait: bool,
    /// Copies of the job's state in an object store, when they are wanted.
    pub snapshots: Option<SnapshotSettings>,
    /// Where savepoints are kept: a URL or a folder. Absent: with the snapshots.
    pub savepoint_dir: Option<String>,
    /// The snapshot that a job without state begins with: a URL.
    pub recovery: Option<String>,
    /// Whether stored state of operators that the job no longer has is dropped; otherwise it is an error.
    pub ignore_unclaimed_state: bool,
    /// What follows a failure that may pass by itself. Absent: as the engine is set up.
    pub restart: Option<RestartStrategy>,
    /// What the state of all operators may take in memory, in bytes.
    pub memory_budget_bytes: u64,
    /// The most rows of a batch, 1 or more. Absent: as many as the runtime thinks best.
    pub batch_rows: Option<usize>,
}

/// Where and how often a job's state is copied to an object store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotSettings {
    /// A URL or a folder; each job has a folder of its name in it.
    pub dir: String,
    /// The time between two snapshots.
    pub interval: Duration,
    /// How many are kept. 1 or more.
    pub retained: usize,
}

/// What follows a failure that may pass by itself: Flink's strategies. A new checkpoint begins the count anew.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RestartStrategy {
    /// The job stays failed.
    None,
    /// So many starts, each after the same pause.
    FixedDelay {
        /// How many, in a row without a new checkpoint.
        attempts: u32,
        /// The pause before each.
        delay: Duration,
    },
    /// Starts after pauses that grow.
    ExponentialDelay {
        /// The first pause.
        initial: Duration,
        /// The longest pause; no shorter than the first.
        max: Duration,
        /// What each pause is multiplied by to give the next. 1 or more.
        multiplier: f64,
        /// How much of each pause is added or taken away by chance. 0 to 1.
        jitter: f64,
        /// How many, in a row without a new checkpoint; `None`: without end.
        attempts: Option<u32>,
    },
}

impl JobOptions {
    /// Reads checked options. `parallelism` is the engine's.
    pub(super) fn new(options: &Options, parallelism: u32) -> Self {
        let given = options.count("parallelism.default").and_then(|count| u32::try_from(count).ok());
        let text = |key: &str| options.get(key).map(str::to_owned);
        JobOptions {
            parallelism: given.unwrap_or(parallelism).max(1),
            checkpoint_interval: options.span("execution.checkpointing.interval").unwrap_or(Duration::from_secs(1)),
            wait: options.switch("table.dml-sync"),
            snapshots: text("execution.checkpointing.dir").map(|dir| SnapshotSettings {
                dir,
                interval: options.span("execution.snapshot.interval").unwrap_or(Duration::from_secs(30)),
                retained: options.count("execution.checkpointing.num-retained").map_or(3, |n| n as usize),
            }),
            savepoint_dir: text("execution.checkpointing.savepoint-dir"),
            recovery: text("execution.state-recovery.path"),
            ignore_unclaimed_state: options.switch("execution.state-recovery.ignore-unclaimed-state"),
            restart: RestartStrategy::new(options),
            memory_budget_bytes: options.bytes("taskmanager.memory.managed.size").unwrap_or(256 << 20),
            batch_rows: options.count("table.exec.mini-batch.size").and_then(|rows| usize::try_from(rows).ok()),
        }
    }
}

impl RestartStrategy {
    fn new(options: &Options) -> Option<Self> {
        let count = |key: &str| options.count(key).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        let span = |key: &str| options.span(key).unwrap_or(Duration::from_secs(1));
        match options.get("restart-strategy.type")? {
            "none" => Some(RestartStrategy::None),
            "fixed-delay" => Some(RestartStrategy::FixedDelay {
                attempts: count("restart-strategy.fixed-delay.attempts").unwrap_or(1),
                delay: span("restart-strategy.fixed-delay.delay"),
            }),
            _ => Some(RestartStrategy::ExponentialDelay {
                initial: span("restart-strategy.exponential-delay.initial-backoff"),
                max: span("restart-strategy.exponential-delay.max-backoff"),
                multiplier: options.number("restart-strategy.exponential-delay.backoff-multiplier").unwrap_or(1.5),
                jitter: options.number("restart-strategy.exponential-delay.jitter-factor").unwrap_or(0.1),
                attempts: count("restart-strategy.exponential-delay.attempts-before-reset-backoff"),
            }),
        }
    }
}
