//! What is to be committed, and how it is stored with the checkpoint that prepared it.

use bytes::Bytes;
use coulee_checkpoint::{StateKey, TableId};
use coulee_model::{CheckpointId, KeyGroup, OperatorId, SubtaskIndex};

/// The table of what a sink is to commit: `checkpoint u64 | subtask u32 | number u32` to the committable.
pub(super) const COMMITTABLES: TableId = TableId(2);

/// What is to be committed, and the key that it is stored under.
pub(super) type Committable = (StateKey, Bytes);

/// The key of a writer's `number`-th committable of a checkpoint.
pub(super) fn committable_key(
    sink: OperatorId,
    checkpoint: CheckpointId,
    subtask: SubtaskIndex,
    number: usize,
) -> StateKey {
    let rest = [&checkpoint.0.to_be_bytes()[..], &subtask.0.to_be_bytes(), &(number as u32).to_be_bytes()].concat();
    StateKey::new(sink, COMMITTABLES, KeyGroup(0), &rest)
}
