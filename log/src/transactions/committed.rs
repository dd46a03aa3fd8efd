//! Which transactions were committed, as runs of producer ids. Each transaction has a producer id of its own, ids are given
//! out in order, and most transactions are committed. So a few runs of ids say all.

use std::collections::BTreeMap;

/// Only aborts, and restarts, end a run. Beyond this many the oldest are forgotten: 1 MiB of memory.
const RUNS_MAX: usize = 65_536;

/// The producer ids of committed transactions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CommittedTransactions {
    /// The last number of each run, by its first. Runs do not touch.
    runs: BTreeMap<i64, i64>,
}

impl CommittedTransactions {
    /// Adds the numbers from `first` to `last`, both included.
    pub(crate) fn note(&mut self, mut first: i64, mut last: i64) {
        while let Some((&start, &end)) = self.runs.range(..=last.saturating_add(1)).next_back()
            && end >= first.saturating_sub(1)
        {
            self.runs.remove(&start);
            (first, last) = (first.min(start), last.max(end));
        }
        self.runs.insert(first, last);
        if self.runs.len() > RUNS_MAX {
            self.runs.pop_first();
        }
    }

    pub(crate) fn contains(&self, number: i64) -> bool {
        self.runs.range(..=number).next_back().is_some_and(|(_, last)| *last >= number)
    }

    pub(crate) fn runs(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        self.runs.iter().map(|(first, last)| (*first, *last))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn runs_hold_what_a_set_would() {
        let (mut committed, mut set) = (CommittedTransactions::default(), BTreeSet::new());
        let mut random = 7u64;
        for _ in 0..500 {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let (first, length) = ((random >> 33) as i64 % 300, (random >> 20) as i64 % 4);
            committed.note(first, first + length);
            set.extend(first..=first + length);
            let listed: BTreeSet<i64> = committed.runs().flat_map(|(first, last)| first..=last).collect();
            assert_eq!(listed, set);
            assert!(committed.runs().zip(committed.runs().skip(1)).all(|(a, b)| a.1 + 1 < b.0), "runs do not touch");
            (-1..310).for_each(|number| assert_eq!(committed.contains(number), set.contains(&number), "{number}"));
        }
    }
}
