//! One run: a batch of partial results, as columnar blobs under ordered keys.
//!
//! A run is stored as one piece, or, if it is large, as several by ranges of key groups, so that state that outgrows the memory can be put together range by
//! range. Key of a piece, in the table of pieces, at the first key group of its range: `slice i64 (sign bit flipped) | checkpoint u64 | subtask u32 |
//! parallelism u32`, big-endian. Value: an Arrow IPC stream of one batch. The table of the index says under the same key, at group 0, which pieces there are:
//! `first group u16 | rows u32 | bytes u32` for each. `docs/formats/state.md` describes both.

use std::ops::Range;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::{concat_batches, take};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use coulee_checkpoint::{Changes, StateKey, TableId};
use coulee_model::{CheckpointId, KeyGroup, OperatorId, SubtaskIndex};

use crate::keys::hash_keys;
use crate::state::Backend;
use crate::{Error, Result};

/// The tables of an operator's state that hold its runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunTables {
    /// Blobs.
    pub pieces: TableId,
    /// Which blobs each run has.
    pub index: TableId,
}

/// A run with more rows is stored in pieces of about as many.
const PIECE_ROWS: usize = 65_536;

/// A stored part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// The first key group in it; it ends where the next one begins.
    first_group: u16,
    rows: u32,
    bytes: u32,
}

/// A batch of partial results of one slice. Each key is in it once.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) id: RunId,
    pieces: Vec<Piece>,
    /// `None` when it is only in the store.
    loaded: Option<RecordBatch>,
}

/// What the key of a run says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RunId {
    pub(super) slice: i64,
    pub(super) checkpoint: CheckpointId,
    pub(super) subtask: SubtaskIndex,
    pub(super) parallelism: u32,
}

impl RunId {
    fn key(self, operator: OperatorId, table: TableId, group: u16) -> StateKey {
        let mut rest = Vec::with_capacity(24);
        rest.extend_from_slice(&((self.slice as u64) ^ (1 << 63)).to_be_bytes());
        rest.extend_from_slice(&self.checkpoint.0.to_be_bytes());
        rest.extend_from_slice(&self.subtask.0.to_be_bytes());
        rest.extend_from_slice(&self.parallelism.to_be_bytes());
        StateKey::new(operator, table, KeyGroup(group), &rest)
    }

    pub(super) fn parse(rest: &[u8]) -> Result<Self> {
        let parts = rest.first_chunk::<24>().filter(|_| rest.len() == 24);
        let Some(parts) = parts else {
            return Err(Error::corrupt(format!("the key of a run has {} bytes instead of 24", rest.len())));
        };
        let u64_at = |at: usize| parts[at..at + 8].iter().fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
        let last = u64_at(16);
        Ok(RunId {
            slice: (u64_at(0) ^ (1 << 63)) as i64,
            checkpoint: CheckpointId(u64_at(8)),
            subtask: SubtaskIndex((last >> 32) as u32),
            parallelism: last as u32,
        })
    }
}

impl Run {
    /// A new run, with what stores it. The first `key_count` columns are the keys.
    pub(super) fn store(
        id: RunId,
        rows: RecordBatch,
        key_count: usize,
        (operator, tables): (OperatorId, RunTables),
        changes: &mut Changes,
    ) -> Result<Self> {
        let (rows, cuts) = by_groups(rows, key_count)?;
        let mut pieces = Vec::with_capacity(cuts.len());
        for (at, (first_group, start)) in cuts.iter().enumerate() {
            let end = cuts.get(at + 1).map_or(rows.num_rows(), |(_, next)| *next);
            let blob = encode(&rows.slice(*start, end - start))?;
            let (count, bytes) = ((end - start) as u32, blob.len() as u32);
            pieces.push(Piece { first_group: *first_group, rows: count, bytes });
            changes.put(id.key(operator, tables.pieces, *first_group), blob);
        }
        let run = Run { id, pieces, loaded: Some(rows) };
        changes.put(id.key(operator, tables.index, 0), run.index());
        Ok(run)
    }

    fn index(&self) -> Vec<u8> {
        let piece = |piece: &Piece| {
            let (group, rows, bytes) =
                (piece.first_group.to_be_bytes(), piece.rows.to_be_bytes(), piece.bytes.to_be_bytes());
            [&group[..], &rows, &bytes].concat()
        };
        self.pieces.iter().flat_map(piece).collect()
    }

    /// A run that is in the store, by its entry in [`INDEX`].
    pub(super) fn stored(id: RunId, index: &[u8]) -> Result<Self> {
        let damaged = || Error::corrupt(format!("the index of a run has {} bytes", index.len()));
        if index.is_empty() || !index.len().is_multiple_of(10) {
            return Err(damaged());
        }
        let piece = |entry: &[u8]| {
            let number = |at: Range<usize>| entry[at].iter().fold(0u32, |sum, byte| (sum << 8) | u32::from(*byte));
            Piece { first_group: number(0..2) as u16, rows: number(2..6), bytes: number(6..10) }
        };
        Ok(Run { id, pieces: index.chunks_exact(10).map(piece).collect(), loaded: None })
    }

    /// How many rows.
    pub(super) fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.rows as usize).sum()
    }

    /// Bytes as stored.
    pub(super) fn stored_bytes(&self) -> usize {
        self.pieces.iter().map(|piece| piece.bytes as usize).sum()
    }

    /// Bytes in memory.
    pub(super) fn loaded_bytes(&self) -> usize {
        self.loaded.as_ref().map_or(0, RecordBatch::get_array_memory_size)
    }

    /// Leaves it to the store, if that has it when `durable` is the last durable checkpoint.
    pub(super) fn unload(&mut self, durable: CheckpointId) {
        if self.id.checkpoint <= durable {
            self.loaded = None;
        }
    }

    /// The rows of all pieces that touch a range of key groups: with rows of other groups among them.
    pub(super) fn rows(&self, groups: &Range<u16>, backend: &Backend, pieces: TableId) -> Result<Vec<RecordBatch>> {
        if let Some(rows) = &self.loaded {
            return Ok(vec![rows.clone()]);
        }
        let mut keys = Vec::new();
        for (at, piece) in self.pieces.iter().enumerate() {
            let end = self.pieces.get(at + 1).map_or(KeyGroup::COUNT, |next| next.first_group);
            if piece.first_group < groups.end && end > groups.start {
                keys.push(self.id.key(backend.operator(), pieces, piece.first_group));
            }
        }
        let missing = || Error::corrupt("a piece of a run is missing");
        backend.get_many(&keys)?.into_iter().map(|blob| decode(&blob.ok_or_else(missing)?)).collect()
    }

    /// What removes it from the store.
    pub(super) fn keys(&self, operator: OperatorId, tables: RunTables) -> impl Iterator<Item = StateKey> + '_ {
        let pieces = self.pieces.iter().map(move |piece| self.id.key(operator, tables.pieces, piece.first_group));
        pieces.chain([self.id.key(operator, tables.index, 0)])
    }
}

/// The rows in the order of their key groups, and where pieces begin: first group and row. A small batch stays as it is, in one piece.
fn by_groups(rows: RecordBatch, key_count: usize) -> Result<(RecordBatch, Vec<(u16, usize)>)> {
    if rows.num_rows() <= PIECE_ROWS {
        return Ok((rows, vec![(0, 0)]));
    }
    let hashes = hash_keys(&rows.columns()[..key_count], rows.num_rows())?;
    let mut of_group: Vec<Vec<u32>> = vec![Vec::new(); usize::from(KeyGroup::COUNT)];
    for (row, hash) in hashes.into_iter().enumerate() {
        of_group[usize::from(KeyGroup::of_hash(hash).0)].push(row as u32);
    }
    let (mut order, mut cuts) = (Vec::with_capacity(rows.num_rows()), vec![(0, 0)]);
    for (group, rows) in of_group.into_iter().enumerate() {
        let start = cuts.last().map_or(0, |(_, start)| *start);
        if order.len() - start >= PIECE_ROWS {
            cuts.push((group as u16, order.len()));
        }
        order.extend(rows);
    }
    cuts.retain(|(_, start)| *start < order.len());
    let order = UInt32Array::from(order);
    let columns =
        rows.columns().iter().map(|column| Ok(take(column, &order, None)?)).collect::<Result<Vec<ArrayRef>>>()?;
    Ok((RecordBatch::try_new(rows.schema(), columns)?, cuts))
}

/// A batch as an IPC stream.
fn encode(rows: &RecordBatch) -> Result<Bytes> {
    let mut writer = StreamWriter::try_new(Vec::new(), &rows.schema())?;
    writer.write(rows)?;
    Ok(Bytes::from(writer.into_inner()?))
}

/// The batch of an IPC stream.
fn decode(blob: &[u8]) -> Result<RecordBatch> {
    let damaged = |e: arrow::error::ArrowError| Error::corrupt(format!("a run is damaged: {e}")).because(e);
    let reader = StreamReader::try_new(blob, None).map_err(damaged)?;
    let schema = reader.schema();
    let batches = reader.collect::<Result<Vec<_>, _>>().map_err(damaged)?;
    if batches.is_empty() {
        return Err(Error::corrupt("a run is damaged: it holds no batch"));
    }
    Ok(concat_batches(&schema, &batches)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;

    use super::*;

    const TABLES: RunTables = RunTables { pieces: TableId(1), index: TableId(2) };

    fn id(slice: i64) -> RunId {
        RunId { slice, checkpoint: CheckpointId(7), subtask: SubtaskIndex(1), parallelism: 4 }
    }

    #[test]
    fn keys_sort_by_slice_and_parse_back() {
        let ends = [i64::MIN, -1, 0, 1, i64::MAX];
        let keys: Vec<StateKey> = ends.iter().map(|end| id(*end).key(OperatorId(3), TableId(1), 0)).collect();
        assert!(keys.is_sorted());
        for (end, key) in ends.iter().zip(&keys) {
            assert_eq!(RunId::parse(&key.as_bytes()[StateKey::PREFIX_BYTES..]).unwrap(), id(*end));
        }
        assert!(RunId::parse(b"short").is_err());
    }

    #[test]
    fn a_large_run_is_cut_between_key_groups() {
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..200_000));
        let rows = RecordBatch::try_from_iter([("key", keys)]).unwrap();
        let mut changes = Changes::default();
        let run = Run::store(id(5), rows, 1, (OperatorId(3), TABLES), &mut changes).unwrap();
        assert!(run.pieces.len() == 3 || run.pieces.len() == 4, "{:?}", run.pieces);
        assert_eq!(run.len(), 200_000);
        let again = Run::stored(id(5), &run.index()).unwrap();
        assert_eq!(again.pieces, run.pieces);
        // Every row lies in the piece of its group.
        let sorted = run.loaded.as_ref().unwrap();
        let groups: Vec<u16> =
            hash_keys(sorted.columns(), 200_000).unwrap().into_iter().map(|hash| KeyGroup::of_hash(hash).0).collect();
        assert!(groups.is_sorted());
        let mut row = 0;
        for (at, piece) in run.pieces.iter().enumerate() {
            let end = run.pieces.get(at + 1).map_or(KeyGroup::COUNT, |next| next.first_group);
            let part = &groups[row..row + piece.rows as usize];
            assert!(part.iter().all(|group| (piece.first_group..end).contains(group)));
            row += piece.rows as usize;
        }
        assert!(Run::stored(id(5), b"123").is_err());
    }
}
