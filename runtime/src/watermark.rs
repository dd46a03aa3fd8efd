//! Watermarks: how far event time has come, merged by minimum over whatever is not idle.

use std::time::Duration;

use coulee_model::Timestamp;

use crate::operator::Output;
use crate::planted::{Bug, is_planted};

/// One of the things whose minimum counts: a split of a source, a channel of an operator.
#[derive(Debug, Clone, Copy)]
struct Part {
    watermark: Timestamp,
    idle: bool,
}

impl Part {
    /// A part that has ended neither holds event time back nor lets it run.
    fn has_ended(&self) -> bool {
        self.watermark == Timestamp::MAX
    }
}

/// Whether a sender of watermarks holds event time back (Flink's `WatermarkStatus`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// It does: rows may follow.
    Active,
    /// It does not, until it sends rows or a watermark again.
    Idle,
}

/// The merged watermark of several parts: the least of those that are not idle. It never falls.
///
/// **Operations** `advance`, `set_idle` and `wake` say what a part did; `take_activity` and `take_advance` say what has changed for those downstream.
/// **Guarantees** A part that was idle holds the watermark back again from its next row on. With every part idle, event time stands still, also when other
/// parts have ended: running on to the end of time would make every later row late.
#[derive(Debug, Clone)]
pub struct MergedWatermark {
    parts: Vec<Part>,
    /// What the merged watermark was when the job was stopped; the first answer is not below it.
    resumed: Timestamp,
    merged: Timestamp,
    /// What those downstream were told last.
    told: Activity,
    /// Whether parts may be added: event time then does not run to its end when all that are there have ended.
    may_grow: bool,
}

impl MergedWatermark {
    /// `parts` parts that have said nothing yet.
    pub fn new(parts: usize) -> Self {
        Self::resumed(parts, Timestamp::MIN)
    }

    /// The same where event time had come to `resumed` before: it never goes back behind that.
    pub fn resumed(parts: usize, resumed: Timestamp) -> Self {
        MergedWatermark {
            parts: vec![Part { watermark: Timestamp::MIN, idle: false }; parts],
            resumed,
            merged: Timestamp::MIN,
            told: Activity::Active,
            may_grow: false,
        }
    }

    /// Parts may be added from now on, or no longer.
    pub fn set_may_grow(&mut self, may_grow: bool) {
        self.may_grow = may_grow;
    }

    /// Adds a part, which has said nothing and holds the others back.
    pub fn push(&mut self) {
        self.parts.push(Part { watermark: Timestamp::MIN, idle: false });
    }

    /// A part has reached `watermark`, and holds the others back again if it was idle.
    pub fn advance(&mut self, part: usize, watermark: Timestamp) {
        let part = &mut self.parts[part];
        part.watermark = part.watermark.max(watermark);
        part.idle = part.idle && is_planted(Bug::IdleForEver);
    }

    /// A part holds nobody back until it advances or is woken.
    pub fn set_idle(&mut self, part: usize) {
        self.parts[part].idle = true;
    }

    /// Rows of a part came, whatever their times are: it holds the others back at what it had reached.
    pub fn wake(&mut self, part: usize) {
        self.parts[part].idle = self.parts[part].idle && is_planted(Bug::IdleForEver);
    }

    /// Whether a part holds nobody back.
    pub fn is_idle(&self, part: usize) -> bool {
        self.parts[part].idle
    }

    /// What one part has reached.
    pub fn of_part(&self, part: usize) -> Timestamp {
        self.parts[part].watermark
    }

    /// Whether no part holds the watermark that may still bring rows, so that it must not advance on its own either.
    pub fn all_idle(&self) -> bool {
        let mut open = self.parts.iter().filter(|part| !part.has_ended()).peekable();
        (self.may_grow || open.peek().is_some()) && open.all(|part| part.idle)
    }

    /// Whether all parts together have become idle or active since the last call.
    ///
    /// To be told before the rows that woke them: those may end in a filter or a window, and say nothing to those downstream.
    pub fn take_activity(&mut self) -> Option<Activity> {
        let now = if self.all_idle() { Activity::Idle } else { Activity::Active };
        (std::mem::replace(&mut self.told, now) != now).then_some(now)
    }

    /// The merged watermark, if it has risen since the last call.
    pub fn take_advance(&mut self) -> Option<Timestamp> {
        if self.all_idle() {
            return None;
        }
        let active = self.parts.iter().filter(|part| !part.idle).map(|part| part.watermark);
        let least = if is_planted(Bug::WatermarkByMaximum) { active.max() } else { active.min() };
        let least = least?.max(self.resumed);
        if least <= self.merged {
            return None;
        }
        self.merged = least;
        Some(least)
    }
}

/// Which splits of a source are idle: those that have been read to their end and brought nothing for a while.
#[derive(Debug)]
pub(crate) struct Idleness {
    timeout: Option<Duration>,
    /// When each split will be idle, on the monotonic clock; `None` when it is active or idle already.
    due: Vec<Option<tokio::time::Instant>>,
}

impl Idleness {
    pub(crate) fn new(splits: usize, timeout: Option<Duration>) -> Self {
        Idleness { timeout, due: vec![None; splits] }
    }

    /// Another split, which is active.
    pub(crate) fn push(&mut self) {
        self.due.push(None);
    }

    /// The split has nothing more to read just now.
    pub(crate) fn caught_up(&mut self, split: usize, now: tokio::time::Instant) {
        self.due[split] = self.timeout.map(|timeout| now + timeout);
    }

    /// The split brought rows.
    pub(crate) fn active(&mut self, split: usize) {
        self.due[split] = None;
    }

    /// When the next split becomes idle.
    pub(crate) fn next(&self) -> Option<tokio::time::Instant> {
        self.due.iter().flatten().min().copied()
    }

    /// The splits that have become idle by `now`.
    pub(crate) fn take_due(&mut self, now: tokio::time::Instant) -> Vec<usize> {
        let is_due = |due: &Option<tokio::time::Instant>| due.is_some_and(|due| due <= now);
        let splits: Vec<usize> = (0..self.due.len()).filter(|split| is_due(&self.due[*split])).collect();
        for split in &splits {
            self.due[*split] = None;
        }
        splits
    }
}

/// The event time of an operator that has work to do before it passes a watermark on.
#[derive(Debug)]
pub(crate) struct HeldWatermark {
    reached: Timestamp,
    held: Option<Timestamp>,
}

impl HeldWatermark {
    /// At the event time that was reached before a restart; nothing is held.
    pub(crate) fn at(reached: Timestamp) -> Self {
        HeldWatermark { reached, held: None }
    }

    /// The last watermark that came.
    pub(crate) fn reached(&self) -> Timestamp {
        self.reached
    }

    /// Holds a watermark that moves event time; passes one that does not.
    pub(crate) fn advance(&mut self, watermark: Timestamp, out: &mut Output) {
        if watermark > self.reached {
            self.reached = watermark;
            self.held = Some(watermark);
        } else {
            out.watermark(watermark);
        }
    }

    /// The watermark that is held while its work is not done.
    pub(crate) fn held(&self) -> Option<Timestamp> {
        self.held
    }

    /// The work is done: passes the held watermark on.
    pub(crate) fn release(&mut self, out: &mut Output) {
        if let Some(watermark) = self.held.take() {
            out.watermark(watermark);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_active_part_holds_the_others() {
        let mut merged = MergedWatermark::new(3);
        merged.advance(0, Timestamp(10));
        merged.advance(1, Timestamp(20));
        assert_eq!(merged.take_advance(), None, "the third part has said nothing");
        merged.set_idle(2);
        assert_eq!(merged.take_advance(), Some(Timestamp(10)));
        merged.advance(0, Timestamp(5));
        assert_eq!(merged.take_advance(), None, "a watermark never falls");
        merged.set_idle(0);
        assert_eq!(merged.take_advance(), Some(Timestamp(20)));
        merged.advance(2, Timestamp(15));
        assert_eq!(merged.take_advance(), None);
        merged.set_idle(1);
        merged.set_idle(2);
        assert!(merged.all_idle());
        assert_eq!(merged.take_advance(), None, "with everything idle time stands still");
    }

    #[test]
    fn rows_make_an_idle_part_hold_the_others_back_again() {
        let mut merged = MergedWatermark::new(2);
        merged.advance(0, Timestamp(10));
        merged.advance(1, Timestamp(20));
        merged.set_idle(0);
        assert_eq!(merged.take_advance(), Some(Timestamp(20)));
        merged.wake(0);
        merged.advance(1, Timestamp(40));
        assert_eq!(merged.take_advance(), None, "the woken part stands at 10");
        merged.advance(0, Timestamp(30));
        assert_eq!(merged.take_advance(), Some(Timestamp(30)));
    }

    #[test]
    fn activity_is_told_once_and_before_any_watermark() {
        let mut merged = MergedWatermark::new(2);
        assert_eq!(merged.take_activity(), None, "a sender is active until it says otherwise");
        merged.set_idle(0);
        assert_eq!(merged.take_activity(), None);
        merged.set_idle(1);
        assert_eq!(merged.take_activity(), Some(Activity::Idle));
        assert_eq!(merged.take_activity(), None);
        merged.wake(1);
        assert_eq!((merged.take_activity(), merged.take_advance()), (Some(Activity::Active), None));
    }

    #[test]
    fn the_end_of_one_part_does_not_let_event_time_run_while_the_others_are_idle() {
        let mut merged = MergedWatermark::new(2);
        merged.advance(0, Timestamp(10));
        merged.advance(1, Timestamp(10));
        assert_eq!(merged.take_advance(), Some(Timestamp(10)));
        merged.set_idle(0);
        merged.advance(1, Timestamp::MAX);
        assert!(merged.all_idle());
        assert_eq!((merged.take_activity(), merged.take_advance()), (Some(Activity::Idle), None));
        merged.advance(0, Timestamp(15));
        assert_eq!(merged.take_advance(), Some(Timestamp(15)));
        merged.advance(0, Timestamp::MAX);
        assert!(!merged.all_idle(), "all have ended");
        assert_eq!(merged.take_advance(), Some(Timestamp::MAX));
    }

    #[test]
    fn event_time_waits_for_parts_that_may_come() {
        let mut merged = MergedWatermark::new(0);
        merged.set_may_grow(true);
        assert_eq!((merged.take_activity(), merged.take_advance()), (Some(Activity::Idle), None));
        merged.push();
        assert_eq!((merged.take_activity(), merged.take_advance()), (Some(Activity::Active), None));
        merged.advance(0, Timestamp(10));
        assert_eq!(merged.take_advance(), Some(Timestamp(10)));
        merged.advance(0, Timestamp::MAX);
        assert_eq!((merged.take_activity(), merged.take_advance()), (Some(Activity::Idle), None));
        merged.push();
        merged.advance(1, Timestamp(20));
        assert_eq!(merged.take_advance(), Some(Timestamp(20)));
        merged.advance(1, Timestamp::MAX);
        merged.set_may_grow(false);
        assert_eq!(merged.take_advance(), Some(Timestamp::MAX));
    }

    #[test]
    fn event_time_goes_on_from_where_it_was() {
        let mut merged = MergedWatermark::resumed(2, Timestamp(50));
        merged.advance(0, Timestamp(60));
        assert_eq!(merged.take_advance(), Some(Timestamp(50)), "the other part has said nothing");
        merged.advance(1, Timestamp(40));
        assert_eq!(merged.take_advance(), None);
        merged.advance(1, Timestamp(55));
        assert_eq!(merged.take_advance(), Some(Timestamp(55)));
    }
}
