//! How far a time had come at the last checkpoint: a watermark, or the processing time.

use coulee_checkpoint::{Changes, StateKey, TableId};
use coulee_model::{KeyGroup, OperatorId, SubtaskIndex, Timestamp};

use crate::operator::OpenContext;
use crate::{Error, Result};

/// The watermark that an operator behind a shuffle has reached: one entry, which every subtask writes alike, as barriers are aligned.
#[derive(Debug)]
pub(crate) struct StoredWatermark {
    table: TableId,
    operator: OperatorId,
    stored: Timestamp,
}

impl StoredWatermark {
    /// In this table of its operator.
    pub(crate) fn new(table: TableId) -> Self {
        StoredWatermark { table, operator: OperatorId(0), stored: Timestamp::MIN }
    }

    /// The one of the last checkpoint; [`Timestamp::MIN`] without.
    ///
    /// # Errors
    /// `Corrupt` for an entry that is none, and the store's.
    pub(crate) fn open(&mut self, context: &OpenContext<'_>) -> Result<Timestamp> {
        self.operator = context.operator;
        for entry in context.entries(self.table) {
            let (_, _, value) = entry?;
            self.stored = read(&value)?;
        }
        Ok(self.stored)
    }

    /// Hands over what has been reached, if it is something else than before.
    pub(crate) fn checkpoint(&mut self, reached: Timestamp, changes: &mut Changes) {
        if reached != self.stored {
            self.stored = reached;
            changes.put(StateKey::new(self.operator, self.table, KeyGroup(0), &[]), reached.0.to_be_bytes().to_vec());
        }
    }
}

/// A time that each subtask reaches on its own: an entry each, under its number (u32, big-endian).
#[derive(Debug)]
pub(crate) struct SubtaskTime {
    table: TableId,
    operator: OperatorId,
    subtask: SubtaskIndex,
    stored: Timestamp,
    /// Entries of subtasks that there were before a change of parallelism: they go with the next checkpoint.
    obsolete: Vec<StateKey>,
}

impl SubtaskTime {
    /// In this table of its operator.
    pub(crate) fn new(table: TableId, subtask: SubtaskIndex) -> Self {
        SubtaskTime { table, operator: OperatorId(0), subtask, stored: Timestamp::MIN, obsolete: Vec::new() }
    }

    /// The times of the last checkpoint, by subtask, in their order.
    ///
    /// # Errors
    /// `Corrupt` for an entry that is none, and the store's.
    pub(crate) fn open(&mut self, context: &OpenContext<'_>) -> Result<Vec<(SubtaskIndex, Timestamp)>> {
        self.operator = context.operator;
        let mut times = Vec::new();
        for entry in context.entries(self.table) {
            let (_, key, value) = entry?;
            let number = key.as_ref().try_into().map_err(|_| Error::corrupt("a subtask's number has not 4 bytes"))?;
            let subtask = SubtaskIndex(u32::from_be_bytes(number));
            // Each subtask takes away what is of nobody any more: a second time is of no effect.
            if subtask.0 >= context.parallelism {
                self.obsolete.push(self.key(subtask));
            }
            times.push((subtask, read(&value)?));
        }
        Ok(times)
    }

    /// Hands over what has been reached, if it is later than before.
    pub(crate) fn checkpoint(&mut self, reached: Timestamp, changes: &mut Changes) {
        self.obsolete.drain(..).for_each(|key| changes.delete(key));
        if self.stored < reached {
            self.stored = reached;
            changes.put(self.key(self.subtask), reached.0.to_be_bytes().to_vec());
        }
    }

    fn key(&self, subtask: SubtaskIndex) -> StateKey {
        StateKey::new(self.operator, self.table, KeyGroup(0), &subtask.0.to_be_bytes())
    }
}

fn read(value: &[u8]) -> Result<Timestamp> {
    let bytes = value.try_into().map_err(|_| Error::corrupt("a stored time has not 8 bytes"))?;
    Ok(Timestamp(i64::from_be_bytes(bytes)))
}
