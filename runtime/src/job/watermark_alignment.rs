//! Alignment of sources: splits that run far ahead of the slowest one are not read for a while, so that state which waits for the slowest does not grow without bound.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coulee_model::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::graph::Alignment;

/// The alignment groups of a job, by name.
#[derive(Debug, Default)]
pub(super) struct AlignmentGroups(Mutex<BTreeMap<String, Arc<AlignmentGroup>>>);

impl AlignmentGroups {
    /// Takes part in a group with `splits` splits, which have reached these watermarks.
    pub(super) fn join(&self, alignment: &Alignment, reached: &[Timestamp]) -> AlignmentMember {
        let group = self.0.lock().entry(alignment.group.clone()).or_default().clone();
        let mut parts = group.parts.lock();
        let first = parts.len();
        parts.extend_from_slice(reached);
        drop(parts);
        group.announce();
        let least = group.least.subscribe();
        AlignmentMember { group, places: (first..first + reached.len()).collect(), max: alignment.max_drift, least }
    }
}

/// Splits that are aligned with each other.
#[derive(Debug)]
struct AlignmentGroup {
    /// The watermark of each split; [`Timestamp::MAX`] for one that holds nobody back.
    parts: Mutex<Vec<Timestamp>>,
    least: watch::Sender<Timestamp>,
}

impl Default for AlignmentGroup {
    fn default() -> Self {
        AlignmentGroup { parts: Mutex::default(), least: watch::Sender::new(Timestamp::MIN) }
    }
}

impl AlignmentGroup {
    fn announce(&self) {
        let least = self.parts.lock().iter().min().copied().unwrap_or(Timestamp::MAX);
        self.least.send_if_modified(|known| std::mem::replace(known, least) != least);
    }
}

/// One subtask's place in a group.
#[derive(Debug)]
pub(super) struct AlignmentMember {
    group: Arc<AlignmentGroup>,
    /// Where in the group each of the subtask's splits is.
    places: Vec<usize>,
    max: Duration,
    least: watch::Receiver<Timestamp>,
}

impl AlignmentMember {
    /// Takes part with one more split, which has reached nothing yet.
    pub(super) fn add(&mut self) {
        let mut parts = self.group.parts.lock();
        self.places.push(parts.len());
        parts.push(Timestamp::MIN);
        drop(parts);
        self.group.announce();
    }

    /// A split has reached `watermark`, or holds nobody back ([`Timestamp::MAX`]).
    pub(super) fn advance(&self, split: usize, watermark: Timestamp) {
        let mut parts = self.group.parts.lock();
        if std::mem::replace(&mut parts[self.places[split]], watermark) == watermark {
            return;
        }
        drop(parts);
        self.group.announce();
    }

    /// Whether a split that has reached `watermark` is too far ahead of the slowest.
    pub(super) fn is_ahead(&self, watermark: Timestamp) -> bool {
        let least = *self.least.borrow();
        least < Timestamp::MAX && watermark > least.plus_millis(self.max.as_millis() as i64)
    }

    /// Waits until the slowest split has moved. Cancel-safe.
    pub(super) async fn moved(&mut self) {
        if self.least.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_split_waits_for_the_slowest_of_its_group() {
        let groups = AlignmentGroups::default();
        let alignment = Alignment { group: "g".into(), max_drift: Duration::from_millis(10) };
        let fast = groups.join(&alignment, &[Timestamp(100), Timestamp(105)]);
        let mut slow = groups.join(&alignment, &[Timestamp(50)]);
        let other = groups.join(&Alignment { group: "other".into(), ..alignment }, &[Timestamp(7)]);
        assert!(fast.is_ahead(Timestamp(61)) && !fast.is_ahead(Timestamp(60)));
        assert!(!other.is_ahead(Timestamp(17)), "groups do not know each other");
        slow.least.mark_unchanged();
        slow.advance(0, Timestamp(102));
        slow.moved().await;
        assert!(fast.is_ahead(Timestamp(111)) && !fast.is_ahead(Timestamp(110)));
        for (alignment, split) in [(&fast, 0), (&fast, 1), (&slow, 0)] {
            alignment.advance(split, Timestamp::MAX);
        }
        assert!(!fast.is_ahead(Timestamp::MAX), "with nobody to wait for nobody waits");
    }
}
