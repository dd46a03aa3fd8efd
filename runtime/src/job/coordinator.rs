//! The coordinator of a job's checkpoints, as a state machine: events in, actions out; no clock, no thread, no I/O.

use std::collections::BTreeSet;

use coulee_model::CheckpointId;

use super::TaskId;
use crate::channel::Barrier;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It is time for a checkpoint.
    Tick,
    /// The user wants the job to stop, with a last checkpoint.
    Stop,
    /// A task passed the barrier on.
    Acknowledged(TaskId, CheckpointId),
    /// A task's input has ended and its rows are all sent.
    Ended(TaskId),
    /// The checkpoint is durable.
    Durable(CheckpointId),
    /// A sink made the checkpoint visible.
    Delivered(TaskId, CheckpointId),
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Put this barrier into the flow, at every source.
    Trigger(Barrier),
    /// Make the checkpoint durable: every task's changes are here.
    Commit(CheckpointId),
    /// Tell the sinks that the checkpoint is durable.
    Notify(CheckpointId),
    /// The job is over, by its input's end or by the user's command.
    Finish {
        /// Its last checkpoint.
        last: CheckpointId,
        /// Whether all input was processed.
        input_ended: bool,
    },
}

/// What the coordinator is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Between checkpoints.
    Flowing,
    /// A barrier is on its way; these tasks have not passed it on.
    Aligning(Barrier, BTreeSet<TaskId>),
    /// All changes are here and are being written.
    Committing(Barrier),
    /// After the last checkpoint: these sinks still deliver.
    Delivering(CheckpointId, BTreeSet<TaskId>),
    /// Over.
    Done,
}

/// Decides when to take checkpoints and when a job is over.
#[derive(Debug, Clone)]
pub struct CheckpointCoordinator {
    tasks: BTreeSet<TaskId>,
    sinks: BTreeSet<TaskId>,
    running: BTreeSet<TaskId>,
    phase: Phase,
    last: CheckpointId,
    stop: bool,
    tick_missed: bool,
}

impl CheckpointCoordinator {
    /// For a job of these tasks, of which `sinks` deliver, that resumes from checkpoint `last` (0 for none).
    pub fn new(tasks: BTreeSet<TaskId>, sinks: BTreeSet<TaskId>, last: CheckpointId) -> Self {
        CheckpointCoordinator {
            running: tasks.clone(),
            tasks,
            sinks,
            phase: Phase::Flowing,
            last,
            stop: false,
            tick_missed: false,
        }
    }

    /// What it is doing.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Takes an event; returns what is to be done, in order.
    ///
    /// # Panics
    /// When a task acknowledges a checkpoint that is not under way: the flow of barriers is broken.
    pub fn step(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Tick => match self.phase {
                Phase::Flowing => self.trigger(),
                Phase::Aligning(..) | Phase::Committing(_) => {
                    self.tick_missed = true;
                    Vec::new()
                }
                Phase::Delivering(..) | Phase::Done => Vec::new(),
            },
            Event::Stop => {
                self.stop = true;
                if self.phase == Phase::Flowing { self.trigger() } else { Vec::new() }
            }
            Event::Ended(task) => {
                self.running.remove(&task);
                if self.running.is_empty() && self.phase == Phase::Flowing { self.trigger() } else { Vec::new() }
            }
            Event::Acknowledged(task, id) => self.acknowledged(task, id),
            Event::Durable(id) => self.durable(id),
            Event::Delivered(task, id) => self.delivered(task, id),
        }
    }

    fn trigger(&mut self) -> Vec<Action> {
        self.tick_missed = false;
        let barrier = Barrier { checkpoint: self.last.next(), last: self.stop || self.running.is_empty() };
        self.phase = Phase::Aligning(barrier, self.tasks.clone());
        vec![Action::Trigger(barrier)]
    }

    fn acknowledged(&mut self, task: TaskId, id: CheckpointId) -> Vec<Action> {
        let Phase::Aligning(barrier, waiting) = &mut self.phase else {
            panic!("task {} acknowledged checkpoint {id}, but none is under way", task.0);
        };
        assert_eq!(barrier.checkpoint, id, "task {} acknowledged another checkpoint", task.0);
        assert!(waiting.remove(&task), "task {} acknowledged checkpoint {id} twice", task.0);
        if !waiting.is_empty() {
            return Vec::new();
        }
        self.phase = Phase::Committing(*barrier);
        vec![Action::Commit(id)]
    }

    fn durable(&mut self, id: CheckpointId) -> Vec<Action> {
        let Phase::Committing(barrier) = self.phase else {
            panic!("checkpoint {id} became durable, but none was being written");
        };
        self.last = id;
        let mut actions = vec![Action::Notify(id)];
        if barrier.last {
            self.phase = Phase::Delivering(id, self.sinks.clone());
            actions.extend(self.finish_when_delivered());
        } else {
            self.phase = Phase::Flowing;
            // What came up meanwhile is not forgotten: a stop, the end of the input, a tick.
            if self.stop || self.running.is_empty() || self.tick_missed {
                actions.extend(self.trigger());
            }
        }
        actions
    }

    fn delivered(&mut self, task: TaskId, id: CheckpointId) -> Vec<Action> {
        match &mut self.phase {
            Phase::Delivering(last, waiting) if *last == id => {
                waiting.remove(&task);
                self.finish_when_delivered().into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn finish_when_delivered(&mut self) -> Option<Action> {
        let Phase::Delivering(last, waiting) = &self.phase else { return None };
        if !waiting.is_empty() {
            return None;
        }
        let finish = Action::Finish { last: *last, input_ended: self.running.is_empty() };
        self.phase = Phase::Done;
        Some(finish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: TaskId = TaskId(0);
    const SINK: TaskId = TaskId(1);

    fn coordinator() -> CheckpointCoordinator {
        CheckpointCoordinator::new([SOURCE, SINK].into(), [SINK].into(), CheckpointId(4))
    }

    fn barrier(id: u64, last: bool) -> Barrier {
        Barrier { checkpoint: CheckpointId(id), last }
    }

    fn run(coordinator: &mut CheckpointCoordinator, events: &[Event]) -> Vec<Action> {
        events.iter().flat_map(|event| coordinator.step(*event)).collect()
    }

    fn acknowledged(id: u64) -> [Event; 2] {
        [Event::Acknowledged(SOURCE, CheckpointId(id)), Event::Acknowledged(SINK, CheckpointId(id))]
    }

    #[test]
    fn a_checkpoint_commits_when_every_task_has_passed_it_on() {
        let mut job = coordinator();
        assert_eq!(job.step(Event::Tick), [Action::Trigger(barrier(5, false))]);
        assert_eq!(job.step(acknowledged(5)[1]), []);
        assert_eq!(job.step(acknowledged(5)[0]), [Action::Commit(CheckpointId(5))]);
        assert_eq!(job.step(Event::Durable(CheckpointId(5))), [Action::Notify(CheckpointId(5))]);
        assert_eq!(job.phase(), &Phase::Flowing);
    }

    #[test]
    fn a_tick_during_a_checkpoint_is_made_up_for_once() {
        let mut job = coordinator();
        run(&mut job, &[Event::Tick, Event::Tick, Event::Tick]);
        run(&mut job, &acknowledged(5));
        let actions = job.step(Event::Durable(CheckpointId(5)));
        assert_eq!(actions, [Action::Notify(CheckpointId(5)), Action::Trigger(barrier(6, false))]);
    }

    #[test]
    fn the_end_of_the_input_takes_a_last_checkpoint_and_waits_for_delivery() {
        let mut job = coordinator();
        assert_eq!(job.step(Event::Ended(SOURCE)), []);
        assert_eq!(job.step(Event::Ended(SINK)), [Action::Trigger(barrier(5, true))]);
        run(&mut job, &acknowledged(5));
        assert_eq!(job.step(Event::Durable(CheckpointId(5))), [Action::Notify(CheckpointId(5))]);
        assert_eq!(job.step(Event::Tick), []);
        let finish = Action::Finish { last: CheckpointId(5), input_ended: true };
        assert_eq!(job.step(Event::Delivered(SINK, CheckpointId(5))), [finish]);
    }

    #[test]
    fn an_end_or_a_stop_during_a_checkpoint_leads_to_another_that_is_the_last() {
        for event in [Event::Stop, Event::Ended(SINK)] {
            let mut job = coordinator();
            run(&mut job, &[Event::Ended(SOURCE), Event::Tick, event]);
            run(&mut job, &acknowledged(5));
            let actions = job.step(Event::Durable(CheckpointId(5)));
            assert_eq!(actions[1], Action::Trigger(barrier(6, true)), "{event:?}");
            run(&mut job, &acknowledged(6));
            job.step(Event::Durable(CheckpointId(6)));
            let finish = Action::Finish { last: CheckpointId(6), input_ended: event != Event::Stop };
            assert_eq!(job.step(Event::Delivered(SINK, CheckpointId(6))), [finish]);
        }
    }
}
