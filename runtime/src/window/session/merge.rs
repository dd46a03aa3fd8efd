//! How rows become sessions: pure bookkeeping, without keys, aggregates and storage.
//!
//! A row at `t` is a window `[t, t + gap)`. Windows of a key that overlap or touch are one session (Flink's `TimeWindow.intersects`), so that rows whose times differ
//! by the gap are still together. A row that joins two sessions makes one of them.

use coulee_model::Timestamp;
use serde::{Deserialize, Serialize};

use crate::window::kind::is_over;

/// A session of a key that has not fired. Of one key, sessions are sorted by time and do not touch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Session {
    /// The time of its first row.
    pub(super) start: i64,
    /// A gap behind the time of its last row, exclusive.
    pub(super) end: i64,
    /// When the operator looks at it: at its last millisecond, or earlier, as the timer stays where it is when the session grows.
    ///
    /// No other session of the key has this timer: a gap before it is the time of a row of this session.
    pub(super) timer: i64,
    /// Its partial result, as it is stored; empty while its rows are in a group.
    pub(super) state: Vec<u8>,
    /// The group of the batch that is being processed.
    #[serde(skip)]
    pub(super) group: Option<u32>,
}

/// What becomes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// It joins no session, and its window is over.
    Late,
    /// It is the first row of a session, and enters this group.
    Opened(u32),
    /// It enters this group, which is the one of sessions that were there.
    Joined(u32),
}

/// The groups that a batch is aggregated by: one per session that its rows enter.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Of each group, the one that it was merged into; itself when it was not.
    merged_into: Vec<u32>,
    /// Partial results that sessions had before, and their groups.
    pub(super) stored: Vec<(u32, Vec<u8>)>,
}

impl Groups {
    fn add(&mut self) -> u32 {
        let group = self.merged_into.len() as u32;
        self.merged_into.push(group);
        group
    }

    /// The group that a group's rows are in, after all merging.
    pub(super) fn find(&self, mut group: u32) -> u32 {
        while self.merged_into[group as usize] != group {
            group = self.merged_into[group as usize];
        }
        group
    }

    /// How many groups.
    pub(super) fn len(&self) -> usize {
        self.merged_into.len()
    }

    /// Makes what a session has part of a group.
    fn take_in(&mut self, session: Session, group: u32) {
        match session.group {
            Some(other) => self.merged_into[other as usize] = group,
            None => self.stored.push((group, session.state)),
        }
    }
}

/// Adds the window `[start, end)` of a row to the sessions of its key.
pub(super) fn add_row(
    sessions: &mut Vec<Session>,
    (start, end): (i64, i64),
    watermark: Timestamp,
    groups: &mut Groups,
) -> Entry {
    let first = sessions.partition_point(|session| session.end < start);
    let joined = sessions[first..].partition_point(|session| session.start <= end);
    if joined == 0 {
        if is_over(end, watermark) {
            return Entry::Late;
        }
        let group = groups.add();
        sessions.insert(first, Session { start, end, timer: end - 1, state: Vec::new(), group: Some(group) });
        return Entry::Opened(group);
    }
    let session = &mut sessions[first];
    let group = session.group.unwrap_or_else(|| {
        let group = groups.add();
        groups.stored.push((group, std::mem::take(&mut session.state)));
        group
    });
    (session.group, session.start) = (Some(group), session.start.min(start));
    let (mut last, mut timer) = (session.end.max(end), session.timer);
    for other in sessions.drain(first + 1..first + joined) {
        (last, timer) = (last.max(other.end), timer.min(other.timer));
        groups.take_in(other, group);
    }
    (sessions[first].end, sessions[first].timer) = (last, timer);
    Entry::Joined(group)
}

#[cfg(test)]
mod tests {
    use super::Entry::{Joined, Late, Opened};
    use super::*;

    const GAP: i64 = 10;

    fn add(sessions: &mut Vec<Session>, time: i64, watermark: i64, groups: &mut Groups) -> Entry {
        add_row(sessions, (time, time + GAP), Timestamp(watermark), groups)
    }

    fn spans(sessions: &[Session]) -> Vec<(i64, i64)> {
        sessions.iter().map(|session| (session.start, session.end)).collect()
    }

    #[test]
    fn rows_within_the_gap_are_one_session() {
        let (mut sessions, mut groups) = (Vec::new(), Groups::default());
        let found = [0, 10, 21].map(|time| add(&mut sessions, time, i64::MIN, &mut groups));
        assert_eq!(found, [Opened(0), Joined(0), Opened(1)]);
        assert_eq!(spans(&sessions), [(0, 20), (21, 31)]);
        assert_eq!([sessions[0].timer, sessions[1].timer], [9, 30], "a timer stays when its session grows");
    }

    #[test]
    fn a_row_between_two_sessions_joins_them() {
        let stored = |start: i64, end: i64, state: &[u8]| Session {
            start,
            end,
            timer: end - 1,
            state: state.to_vec(),
            group: None,
        };
        let mut sessions = vec![stored(0, 10, b"a"), stored(15, 30, b"b"), stored(50, 60, b"c")];
        let mut groups = Groups::default();
        // Touches the end of the first and the start of the second.
        assert_eq!(add(&mut sessions, 10, 8, &mut groups), Joined(0));
        assert_eq!((spans(&sessions), sessions[0].timer), (vec![(0, 30), (50, 60)], 9));
        assert_eq!(groups.stored, [(0, b"a".to_vec()), (0, b"b".to_vec())]);
        assert_eq!(sessions[1], stored(50, 60, b"c"), "no row entered it");
        // Two sessions that are both of this batch.
        assert_eq!(add(&mut sessions, 75, 8, &mut groups), Opened(1));
        assert_eq!(add(&mut sessions, 65, 8, &mut groups), Joined(1));
        assert_eq!([30, 40].map(|time| add(&mut sessions, time, 8, &mut groups)), [Joined(0), Joined(0)]);
        assert_eq!(spans(&sessions), [(0, 60), (65, 85)]);
        assert_eq!(add(&mut sessions, 56, 8, &mut groups), Joined(0));
        assert_eq!((spans(&sessions), sessions[0].timer, groups.find(1)), (vec![(0, 85)], 9, 0));
    }

    #[test]
    fn a_row_is_late_when_it_joins_no_session_and_its_window_is_over() {
        let (mut sessions, mut groups) = (Vec::new(), Groups::default());
        assert_eq!(add(&mut sessions, 5, 14, &mut groups), Late);
        assert_eq!(add(&mut sessions, 6, 14, &mut groups), Opened(0));
        assert_eq!(add(&mut sessions, 5, 14, &mut groups), Joined(0), "it joins a session that is open");
        assert_eq!(spans(&sessions), [(5, 16)]);
    }
}
