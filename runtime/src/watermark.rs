//! Watermarks: how far event time has come, merged by minimum over whatever is not idle.

use std::time::Duration;

use coulee_model::Timestamp;

/// One of the things whose minimum counts: a split of a source, a channel of an operator.
#[derive(Debug, Clone, Copy)]
struct Part {
    watermark: Timestamp,
    idle: bool,
}

/// The merged watermark of several parts: the least of those that are not idle. It never falls.
#[derive(Debug, Clone)]
pub struct MergedWatermark {
    parts: Vec<Part>,
    merged: Timestamp,
}

impl MergedWatermark {
    /// `parts` parts that have said nothing yet.
    pub fn new(parts: usize) -> Self {
        MergedWatermark { parts: vec![Part { watermark: Timestamp::MIN, idle: false }; parts], merged: Timestamp::MIN }
    }

    /// A part has reached `watermark`, and holds the others back again if it was idle.
    pub fn advance(&mut self, part: usize, watermark: Timestamp) {
        let part = &mut self.parts[part];
        part.watermark = part.watermark.max(watermark);
        part.idle = false;
    }

    /// A part holds nobody back until it advances or is woken.
    pub fn set_idle(&mut self, part: usize, idle: bool) {
        self.parts[part].idle = idle;
    }

    /// Whether a part holds nobody back.
    pub fn is_idle(&self, part: usize) -> bool {
        self.parts[part].idle
    }

    /// What one part has reached.
    pub fn of_part(&self, part: usize) -> Timestamp {
        self.parts[part].watermark
    }

    /// Whether nothing holds the watermark, so that it must not advance on its own either.
    pub fn all_idle(&self) -> bool {
        self.parts.iter().all(|part| part.idle)
    }

    /// The merged watermark, if it has risen since the last call.
    pub fn take_advance(&mut self) -> Option<Timestamp> {
        let least = self.parts.iter().filter(|part| !part.idle).map(|part| part.watermark).min()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_active_part_holds_the_others() {
        let mut merged = MergedWatermark::new(3);
        merged.advance(0, Timestamp(10));
        merged.advance(1, Timestamp(20));
        assert_eq!(merged.take_advance(), None, "the third part has said nothing");
        merged.set_idle(2, true);
        assert_eq!(merged.take_advance(), Some(Timestamp(10)));
        merged.advance(0, Timestamp(5));
        assert_eq!(merged.take_advance(), None, "a watermark never falls");
        merged.set_idle(0, true);
        assert_eq!(merged.take_advance(), Some(Timestamp(20)));
        merged.advance(2, Timestamp(15));
        assert_eq!(merged.take_advance(), None);
        merged.set_idle(1, true);
        merged.set_idle(2, true);
        assert!(merged.all_idle());
        assert_eq!(merged.take_advance(), None, "with everything idle time stands still");
    }
}
