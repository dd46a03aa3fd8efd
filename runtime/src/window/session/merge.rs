//! How rows become sessions: pure bookkeeping, without keys, aggregates and storage.
//!
//! A row at `t` is a window `[t, t + gap)`. Windows of a key that overlap or touch are one session (Flink's `TimeWindow.intersects`), so that rows whose times differ
//! by the gap are still together. A row that joins two sessions makes one of them.

use coulee_model::Timestamp;

use crate::window::kind::is_over;

/// A session of a key that has not fired. Of one key, sessions are sorted by time and do not touch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    /// The time of its first row.
    pub(super) start: i64,
    /// A gap behind the time of its last row, exclusive.
    pub(super) end: i64,
    /// Where its rows are aggregated.
    pub(super) state: SessionState,
}

/// What is known of a session's aggregates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SessionState {
    /// A partial result, as it is stored.
    Stored(Vec<u8>),
    /// A group of the batch that is being processed.
    Group(u32),
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

    /// Makes what a session has part of a group.
    fn take_in(&mut self, state: SessionState, group: u32) {
        match state {
            SessionState::Stored(state) => self.stored.push((group, state)),
            SessionState::Group(other) => self.merged_into[other as usize] = group,
        }
    }
}

/// Adds the window `[start, end)` of a row to the sessions of its key: the group that the row enters; `None` when the row is late, as it joins no session
/// and its window is over.
pub(super) fn add_row(
    sessions: &mut Vec<Session>,
    (start, end): (i64, i64),
    watermark: Timestamp,
    groups: &mut Groups,
) -> Option<u32> {
    let first = sessions.partition_point(|session| session.end < start);
    let joined = sessions[first..].partition_point(|session| session.start <= end);
    if joined == 0 {
        if is_over(end, watermark) {
            return None;
        }
        let group = groups.add();
        sessions.insert(first, Session { start, end, state: SessionState::Group(group) });
        return Some(group);
    }
    let mut others = sessions.drain(first + 1..first + joined).collect::<Vec<_>>();
    let session = &mut sessions[first];
    let group = match &mut session.state {
        SessionState::Group(group) => *group,
        SessionState::Stored(state) => {
            let group = groups.add();
            groups.stored.push((group, std::mem::take(state)));
            session.state = SessionState::Group(group);
            group
        }
    };
    session.start = session.start.min(start);
    session.end = session.end.max(others.last().map_or(end, |last| last.end.max(end)));
    others.drain(..).for_each(|other| groups.take_in(other.state, group));
    Some(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP: i64 = 10;

    fn add(sessions: &mut Vec<Session>, time: i64, watermark: i64, groups: &mut Groups) -> Option<u32> {
        add_row(sessions, (time, time + GAP), Timestamp(watermark), groups)
    }

    fn spans(sessions: &[Session]) -> Vec<(i64, i64)> {
        sessions.iter().map(|session| (session.start, session.end)).collect()
    }

    #[test]
    fn rows_within_the_gap_are_one_session() {
        let (mut sessions, mut groups) = (Vec::new(), Groups::default());
        let found = [0, 10, 21].map(|time| add(&mut sessions, time, i64::MIN, &mut groups));
        assert_eq!(found, [Some(0), Some(0), Some(1)]);
        assert_eq!(spans(&sessions), [(0, 20), (21, 31)]);
    }

    #[test]
    fn a_row_between_two_sessions_joins_them() {
        let stored = |start, end, state: &[u8]| Session { start, end, state: SessionState::Stored(state.to_vec()) };
        let mut sessions = vec![stored(0, 10, b"a"), stored(15, 30, b"b"), stored(50, 60, b"c")];
        let mut groups = Groups::default();
        // Touches the end of the first and the start of the second.
        assert_eq!(add(&mut sessions, 10, 9, &mut groups), Some(0));
        assert_eq!(spans(&sessions), [(0, 30), (50, 60)]);
        assert_eq!(groups.stored, [(0, b"a".to_vec()), (0, b"b".to_vec())]);
        assert_eq!(sessions[1].state, SessionState::Stored(b"c".to_vec()), "no row entered it");
        // Two sessions that are both of this batch.
        assert_eq!(add(&mut sessions, 75, 9, &mut groups), Some(1));
        assert_eq!(add(&mut sessions, 65, 9, &mut groups), Some(1));
        assert_eq!([30, 40].map(|time| add(&mut sessions, time, 9, &mut groups)), [Some(0), Some(0)]);
        assert_eq!(spans(&sessions), [(0, 60), (65, 85)]);
        assert_eq!(add(&mut sessions, 56, 9, &mut groups), Some(0));
        assert_eq!((spans(&sessions), groups.find(1)), (vec![(0, 85)], 0));
    }

    #[test]
    fn a_row_is_late_when_it_joins_no_session_and_its_window_is_over() {
        let (mut sessions, mut groups) = (Vec::new(), Groups::default());
        assert_eq!(add(&mut sessions, 5, 14, &mut groups), None);
        assert_eq!(add(&mut sessions, 6, 14, &mut groups), Some(0));
        assert_eq!(add(&mut sessions, 5, 14, &mut groups), Some(0), "it joins a session that is open");
        assert_eq!(spans(&sessions), [(5, 16)]);
    }
}
