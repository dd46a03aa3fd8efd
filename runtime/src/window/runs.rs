//! Runs: partial results as columnar blobs under ordered keys.
//!
//! Key of a run: `window end i64 (sign bit flipped) | checkpoint u64 | subtask u32 | parallelism u32`, big-endian, in table [`RUNS`], key group 0.
//! Value: an Arrow IPC stream of one batch, columns as in `Grouping::state_schema`. `docs/formats/state.md` describes both.

use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use coulee_checkpoint::{StateKey, TableId};
use coulee_model::{CheckpointId, KeyGroup, OperatorId, SubtaskIndex};

use crate::{Error, Result};

/// The table of runs.
pub(super) const RUNS: TableId = TableId(1);
/// The table of the watermark reached: one entry per subtask.
pub(super) const WATERMARK: TableId = TableId(0);

/// A batch of partial results of one window. Each key is in it once.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) rows: RecordBatch,
    /// Where it is stored; `None` when it is not, or not in this form.
    pub(super) stored: Option<StateKey>,
}

/// What the key of a run says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RunId {
    pub(super) window_end: i64,
    pub(super) checkpoint: CheckpointId,
    pub(super) subtask: SubtaskIndex,
    pub(super) parallelism: u32,
}

impl RunId {
    pub(super) fn key(self, operator: OperatorId) -> StateKey {
        let mut rest = Vec::with_capacity(24);
        rest.extend_from_slice(&((self.window_end as u64) ^ (1 << 63)).to_be_bytes());
        rest.extend_from_slice(&self.checkpoint.0.to_be_bytes());
        rest.extend_from_slice(&self.subtask.0.to_be_bytes());
        rest.extend_from_slice(&self.parallelism.to_be_bytes());
        StateKey::new(operator, RUNS, KeyGroup(0), &rest)
    }

    pub(super) fn parse(rest: &[u8]) -> Result<Self> {
        let parts = rest.first_chunk::<24>().filter(|_| rest.len() == 24);
        let Some(parts) = parts else {
            return Err(Error::corrupt(format!("the key of a window's state has {} bytes instead of 24", rest.len())));
        };
        let u64_at = |at: usize| parts[at..at + 8].iter().fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
        let last = u64_at(16);
        Ok(RunId {
            window_end: (u64_at(0) ^ (1 << 63)) as i64,
            checkpoint: CheckpointId(u64_at(8)),
            subtask: SubtaskIndex((last >> 32) as u32),
            parallelism: last as u32,
        })
    }
}

/// A batch as an IPC stream.
pub(super) fn encode(rows: &RecordBatch) -> Result<Bytes> {
    let mut writer = StreamWriter::try_new(Vec::new(), &rows.schema())?;
    writer.write(rows)?;
    Ok(Bytes::from(writer.into_inner()?))
}

/// The batch of an IPC stream.
pub(super) fn decode(blob: &[u8]) -> Result<RecordBatch> {
    let damaged = |e: arrow::error::ArrowError| Error::corrupt(format!("a window's state is damaged: {e}")).because(e);
    let mut reader = StreamReader::try_new(blob, None).map_err(damaged)?;
    match reader.next() {
        Some(rows) => rows.map_err(damaged),
        None => Err(Error::corrupt("a window's state is damaged: it holds no batch")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_window_end_and_parse_back() {
        let id =
            |window_end| RunId { window_end, checkpoint: CheckpointId(7), subtask: SubtaskIndex(1), parallelism: 4 };
        let ends = [i64::MIN, -1, 0, 1, i64::MAX];
        let keys: Vec<StateKey> = ends.iter().map(|end| id(*end).key(OperatorId(3))).collect();
        assert!(keys.is_sorted());
        for (end, key) in ends.iter().zip(&keys) {
            assert_eq!(RunId::parse(&key.as_bytes()[StateKey::PREFIX_BYTES..]).unwrap(), id(*end));
        }
        assert!(RunId::parse(b"short").is_err());
    }
}
