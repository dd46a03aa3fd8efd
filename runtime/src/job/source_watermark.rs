//! The event time of a whole source: the watermarks of its subtasks, merged, and kept with the source's state.
//!
//! The watermarks of splits alone do not say how far event time had come: one split that never brought a row, and was idle, would let it begin at nothing
//! after a restart.

use coulee_checkpoint::{Changes, JobStore, StateKey, TableId};
use coulee_model::{KeyGroup, OperatorId, SubtaskIndex, Timestamp};
use parking_lot::Mutex;

use crate::watermark::{Activity, MergedWatermark};
use crate::{Error, Result};

/// The table of a source's event time: a subtask (u32, big-endian) to the merged watermark when it passed the barrier (i64, big-endian).
const WATERMARKS: TableId = TableId(2);

/// The merged watermark of a source's subtasks.
#[derive(Debug)]
pub(super) struct SourceWatermark(Mutex<State>);

#[derive(Debug)]
struct State {
    merged: MergedWatermark,
    /// How far event time has come by the rows; the end of all subtasks does not count.
    reached: Timestamp,
    /// Of subtasks that were there before a change of parallelism: their entries go with the next checkpoint.
    obsolete: Vec<StateKey>,
}

impl SourceWatermark {
    /// As of the stored checkpoint, for a source that has `parallelism` subtasks now.
    ///
    /// SUBTLE: each subtask stores what the merged watermark was at its own barrier, and the least of them counts. What it was later contains rows of
    /// other subtasks that come after their barrier and are read again.
    ///
    /// # Errors
    /// When the store cannot be read, or an entry is damaged.
    pub(super) fn restore(store: &JobStore, operator: OperatorId, parallelism: u32) -> Result<Self> {
        let (mut least, mut obsolete) = (None::<Timestamp>, Vec::new());
        for entry in store.scan(operator, WATERMARKS) {
            let (key, value) = entry?;
            let damaged = || Error::corrupt("a stored watermark of a source is not 4 + 8 bytes");
            let subtask = key.get(2..).and_then(|rest| <[u8; 4]>::try_from(rest).ok()).ok_or_else(damaged)?;
            let watermark = <[u8; 8]>::try_from(value.as_ref()).map_err(|_| damaged())?;
            let (subtask, watermark) = (u32::from_be_bytes(subtask), Timestamp(i64::from_be_bytes(watermark)));
            least = Some(least.map_or(watermark, |least| least.min(watermark)));
            if subtask >= parallelism {
                obsolete.push(key_of(operator, SubtaskIndex(subtask)));
            }
        }
        let resumed = least.unwrap_or(Timestamp::MIN);
        let mut merged = MergedWatermark::resumed(parallelism as usize, resumed);
        // Known before any subtask says something: a checkpoint may come first.
        (0..parallelism as usize).for_each(|subtask| merged.advance(subtask, resumed));
        merged.take_advance();
        Ok(SourceWatermark(Mutex::new(State { merged, reached: resumed, obsolete })))
    }

    /// How far event time has come.
    pub(super) fn reached(&self) -> Timestamp {
        self.0.lock().reached
    }

    /// A subtask has sent on `watermark`.
    pub(super) fn advance(&self, subtask: SubtaskIndex, watermark: Timestamp) {
        let mut state = self.0.lock();
        state.merged.advance(subtask.0 as usize, watermark);
        state.take_advance();
    }

    /// A subtask holds event time back, or no longer does.
    pub(super) fn set_activity(&self, subtask: SubtaskIndex, activity: Activity) {
        let mut state = self.0.lock();
        match activity {
            Activity::Active => state.merged.wake(subtask.0 as usize),
            Activity::Idle => state.merged.set_idle(subtask.0 as usize),
        }
        state.take_advance();
    }

    /// Puts what is to be stored at a barrier of a subtask into its changes.
    pub(super) fn store(&self, operator: OperatorId, subtask: SubtaskIndex, changes: &mut Changes) {
        let mut state = self.0.lock();
        state.obsolete.drain(..).for_each(|key| changes.delete(key));
        changes.put(key_of(operator, subtask), state.reached.0.to_be_bytes().to_vec());
    }
}

impl State {
    fn take_advance(&mut self) {
        if let Some(watermark) = self.merged.take_advance().filter(|watermark| *watermark < Timestamp::MAX) {
            self.reached = watermark;
        }
    }
}

fn key_of(operator: OperatorId, subtask: SubtaskIndex) -> StateKey {
    StateKey::new(operator, WATERMARKS, KeyGroup(0), &subtask.0.to_be_bytes())
}
