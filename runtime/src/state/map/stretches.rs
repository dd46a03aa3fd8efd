//! Which stretches of an ordered map's keys have been read from the store.

use std::collections::BTreeMap;
use std::ops::Bound;

/// Disjoint stretches of keys, `[start, end)`; an end of `None` is beyond every key.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Stretches(BTreeMap<Box<[u8]>, Option<Box<[u8]>>>);

/// Whether an end is at or after another.
fn reaches(end: Option<&[u8]>, other: Option<&[u8]>) -> bool {
    match (end, other) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(end), Some(other)) => end >= other,
    }
}

impl Stretches {
    /// Every key.
    pub(super) fn all() -> Self {
        Stretches(BTreeMap::from([(Box::default(), None)]))
    }

    /// Whether a key is in a stretch.
    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.is_all() || self.at(key).is_some()
    }

    /// Whether every key is in a stretch: stretches do not touch, so there is one.
    fn is_all(&self) -> bool {
        self.0.first_key_value().is_some_and(|(from, to)| from.is_empty() && to.is_none())
    }

    /// The end of the stretch that a key is in.
    fn at(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        let (_, end) = self.0.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
        let end = end.as_deref();
        end.is_none_or(|end| key < end).then_some(end)
    }

    /// The first part of `[start, end)` that is in no stretch.
    pub(super) fn first_gap<'a>(
        &'a self,
        start: &'a [u8],
        end: Option<&'a [u8]>,
    ) -> Option<(&'a [u8], Option<&'a [u8]>)> {
        // Stretches do not touch, so what follows one is in none.
        let start = match self.at(start) {
            None => start,
            Some(after) => after?,
        };
        if end.is_some_and(|end| start >= end) {
            return None;
        }
        let next =
            self.0.range::<[u8], _>((Bound::Included(start), Bound::Unbounded)).next().map(|(next, _)| next.as_ref());
        let gap_end = if reaches(next, end) { end } else { next };
        Some((start, gap_end))
    }

    /// The last part of `[start, end)` that is in no stretch.
    pub(super) fn last_gap<'a>(
        &'a self,
        start: &'a [u8],
        end: Option<&'a [u8]>,
    ) -> Option<(&'a [u8], Option<&'a [u8]>)> {
        let before = |end: Option<&[u8]>| match end {
            Some(end) => self.0.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(end))).next_back(),
            None => self.0.last_key_value(),
        };
        let last = before(end).map(|(from, to)| (from.as_ref(), to.as_deref()));
        let end = match last {
            Some((from, to)) if reaches(to, end) => Some(from),
            _ => end,
        };
        if end.is_some_and(|end| start >= end) {
            return None;
        }
        let previous = before(end).and_then(|(_, to)| to.as_deref()).unwrap_or_default();
        Some((previous.max(start), end))
    }

    /// Adds `[start, end)`.
    pub(super) fn add(&mut self, start: &[u8], end: Option<&[u8]>) {
        if end.is_some_and(|end| start >= end) {
            return;
        }
        // Joined with those that it overlaps or touches.
        let before = self.0.range::<[u8], _>((Bound::Unbounded, Bound::Included(start))).next_back();
        let before = before.filter(|(_, to)| reaches(to.as_deref(), Some(start))).map(|(from, _)| from.clone());
        let within = self.0.range::<[u8], _>((Bound::Excluded(start), end.map_or(Bound::Unbounded, Bound::Included)));
        let joined: Vec<Box<[u8]>> = before.into_iter().chain(within.map(|(from, _)| from.clone())).collect();
        let (mut start, mut end): (Box<[u8]>, Option<Box<[u8]>>) = (start.into(), end.map(Into::into));
        for from in joined {
            let to = self.0.remove(&from).flatten();
            if reaches(to.as_deref(), end.as_deref()) {
                end = to;
            }
            start = start.min(from);
        }
        self.0.insert(start, end);
    }

    /// Bytes in memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|(from, to)| from.len() + to.as_ref().map_or(0, |to| to.len()) + 64).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A key of the model: two bytes, so that keys lie between keys.
    fn key(number: u16) -> [u8; 2] {
        number.to_be_bytes()
    }

    proptest! {
        /// Against a naive set of single keys, 0 to 39; 40 stands for no end.
        #[test]
        fn stretches_are_the_union_of_what_was_added(
            added in proptest::collection::vec((0u16..40, 1u16..=40), 0..12),
            (from, to) in (0u16..40, 1u16..=40),
        ) {
            let end = |number: u16| (number < 40).then(|| key(number));
            let (mut stretches, mut naive) = (Stretches::default(), [false; 40]);
            for (start, stop) in added {
                stretches.add(&key(start), end(stop).as_ref().map(|end| &end[..]));
                (start..stop).for_each(|at| naive[usize::from(at)] = true);
            }
            for at in 0..40 {
                prop_assert_eq!(stretches.contains(&key(at)), naive[usize::from(at)], "{:?}", stretches);
            }
            // Gaps are asked for as numbers.
            let number = |bytes: &[u8]| bytes.first_chunk::<2>().map_or(0, |bytes| u16::from_be_bytes(*bytes));
            let (start, stop) = (key(from), end(to));
            let gap = |gap: Option<(&[u8], Option<&[u8]>)>| gap.map(|(a, b)| (number(a), b.map_or(40, number)));
            let free: Vec<u16> = (from..to).filter(|at| !naive[usize::from(*at)]).collect();
            let first = free.first().map(|first| (*first, (*first..to).find(|at| naive[usize::from(*at)]).unwrap_or(to)));
            let last = free.last().map(|last| ((from..=*last).rev().find(|at| naive[usize::from(*at)]).map_or(from, |at| at + 1), last + 1));
            prop_assert_eq!(gap(stretches.first_gap(&start, stop.as_ref().map(|end| &end[..]))), first, "{:?}", stretches);
            prop_assert_eq!(gap(stretches.last_gap(&start, stop.as_ref().map(|end| &end[..]))), last, "{:?}", stretches);
        }
    }

    #[test]
    fn all_has_no_gap() {
        let all = Stretches::all();
        assert!(all.contains(b"") && all.contains(b"\xFF\xFF"));
        assert_eq!((all.first_gap(b"a", None), all.last_gap(b"", Some(b"z"))), (None, None));
    }
}
