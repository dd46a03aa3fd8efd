//! Bugs that tests plant in the runtime, to see that the simulation of a job (`job/tests/simulation`) finds them.
//!
//! Outside of this crate's own tests nothing can be planted: [`is_planted`] is `false` at compile time, and the compiler removes what stands behind it.

/// A bug in the runtime itself. Those in what the runtime is given (a disk, a source, a sink) are in the simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A task goes on reading an input whose barrier has come while it waits for the others' barriers.
    BarriersNotAligned,
    /// The merged watermark is the greatest of its parts.
    WatermarkByMaximum,
    /// An input that was idle does not hold event time back again.
    IdleForEver,
    /// Timers of event time are not part of a checkpoint.
    TimersNotStored,
    /// What a sink is to commit is not stored with the checkpoint.
    CommittablesNotStored,
    /// Sinks are told to commit before the checkpoint is written.
    CommitBeforeDurable,
    /// Sinks that wait for a snapshot are told to commit when the checkpoint is written.
    SnapshotNotWaitedFor,
    /// A subtask does not take over the last of its key groups.
    KeyGroupForgotten,
}

/// Whether a test has planted the bug.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn is_planted(_: Bug) -> bool {
    false
}

#[cfg(test)]
std::thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
pub(crate) fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Plants a bug in all that this thread runs, or takes it out again.
#[cfg(test)]
pub(crate) fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}
