//! Records become rows: decoding some record batches at once, and giving the rows out in portions.

use coulee_log::DecodedBatch;
use coulee_runtime::metrics::SubtaskMetrics;
use coulee_runtime::origin::RowNumbers;
use coulee_runtime::{Batch, Error, Result};

use arrow::record_batch::RecordBatch;

use super::layout::{Envelopes, Layout, SourceShard};
use crate::format::{OnError, Record, RecordDecoder, Rejects};

/// Decodes the records of one reader's shards, one shard at a time.
pub(super) struct Rows {
    layout: Layout,
    decoder: Box<dyn RecordDecoder>,
    on_error: OnError,
    envelopes: Envelopes,
    rejects: Rejects,
    reject_sequences: Vec<u64>,
    rejected: u64,
}

/// Rows that were decoded together and are given out in portions. The positions of all of them are known, so that
/// reading can go on between any two.
#[derive(Debug)]
pub(super) struct Chunk {
    rows: Batch,
    /// Of each row; several rows of one record have the same.
    sequences: Vec<u64>,
    rejected: Option<RecordBatch>,
    /// Of each rejected record.
    reject_sequences: Vec<u64>,
    taken_rows: usize,
    taken_rejects: usize,
    /// Behind the last record that was looked at.
    end: u64,
}

/// A portion of a chunk.
#[derive(Debug)]
pub(super) struct Portion {
    pub(super) rows: Batch,
    /// The sequence number of each row.
    pub(super) sequences: RowNumbers,
    pub(super) rejected: Option<RecordBatch>,
    /// Where to read on behind it.
    pub(super) next: u64,
}

impl Rows {
    pub(super) fn new(layout: Layout, decoder: Box<dyn RecordDecoder>, on_error: OnError) -> Self {
        Rows {
            layout,
            decoder,
            on_error,
            envelopes: Envelopes::default(),
            rejects: Rejects::default(),
            reject_sequences: Vec::new(),
            rejected: 0,
        }
    }

    /// How many rows wait for [`take`](Self::take).
    pub(super) fn len(&self) -> usize {
        self.decoder.len()
    }

    /// Decodes the records from `from` to before `stop`.
    ///
    /// # Errors
    /// `Invalid`, naming the record, when one is malformed and the table says to fail.
    pub(super) fn decode(&mut self, batch: &DecodedBatch, from: u64, stop: u64, origin: &SourceShard) -> Result<()> {
        let (has_key, reads_headers) = (self.layout.has_key(), self.decoder.reads_headers());
        for record in batch.records() {
            let sequence = record.sequence.0;
            if sequence < from {
                continue;
            }
            if sequence >= stop {
                break;
            }
            let headers: Vec<_> = if reads_headers { record.headers().collect() } else { Vec::new() };
            let read =
                Record { key: record.key, value: record.value, headers: &headers, timestamp: Some(record.timestamp) };
            match self.decoder.decode(&read) {
                Ok(rows) => {
                    for _ in 0..rows {
                        self.envelopes.timestamps.push(record.timestamp.0);
                        self.envelopes.sequences.push(sequence);
                        if has_key {
                            self.envelopes.keys.push(record.key.map(<[u8]>::to_vec));
                        }
                    }
                }
                Err(reject) => self.reject(&reject.reason, sequence, record.value.unwrap_or_default(), origin)?,
            }
        }
        Ok(())
    }

    fn reject(&mut self, reason: &str, sequence: u64, value: &[u8], origin: &SourceShard) -> Result<()> {
        let place = || format!("{}/{}@{sequence}", origin.stream, origin.shard);
        match self.on_error {
            OnError::Fail => {
                return Err(Error::invalid(format!(
                    "{}: {reason}; 'format.on-error' = 'skip' or 'dead-letter' would go on",
                    place()
                )));
            }
            // The reason is kept for the metrics alone.
            OnError::Skip => self.rejects.push("", reason, b""),
            OnError::DeadLetter => self.rejects.push(&place(), reason, value),
        }
        self.reject_sequences.push(sequence);
        self.rejected += 1;
        Ok(())
    }

    /// What was decoded since the last call, all of it before `end`. `None` when nothing is to be said of it.
    pub(super) fn take(&mut self, end: u64, origin: &SourceShard, metrics: &SubtaskMetrics) -> Result<Option<Chunk>> {
        if self.rejected > 0 {
            metrics.add_rejected(std::mem::take(&mut self.rejected), self.rejects.last_reason());
        }
        let mut rejected = self.rejects.take()?;
        let mut reject_sequences = std::mem::take(&mut self.reject_sequences);
        if self.on_error != OnError::DeadLetter {
            rejected = None;
            reject_sequences.clear();
        }
        if self.decoder.is_empty() && rejected.is_none() {
            return Ok(None);
        }
        let decoded = self.decoder.flush()?;
        let rows = decoded.with_rows(self.layout.assemble(decoded.rows(), &self.envelopes, origin)?);
        let sequences = std::mem::take(&mut self.envelopes.sequences);
        self.envelopes.clear();
        Ok(Some(Chunk { rows, sequences, rejected, reject_sequences, taken_rows: 0, taken_rejects: 0, end }))
    }
}

impl Chunk {
    /// The next rows, at most `rows_max` of them but no part of a record's, with the rejected records that lie before the row that follows.
    pub(super) fn take(&mut self, rows_max: usize) -> Portion {
        let from = self.taken_rows;
        self.taken_rows = from.saturating_add(rows_max.max(1)).min(self.sequences.len());
        // A position is behind a record: its rows stay together.
        while (1..self.sequences.len()).contains(&self.taken_rows)
            && self.sequences[self.taken_rows] == self.sequences[self.taken_rows - 1]
        {
            self.taken_rows += 1;
        }
        let next = self.sequences.get(self.taken_rows).copied().unwrap_or(self.end);
        let rejects_from = self.taken_rejects;
        self.taken_rejects = self.reject_sequences.partition_point(|sequence| *sequence < next);
        let rejected = self.rejected.as_ref().filter(|_| self.taken_rejects > rejects_from);
        Portion {
            rows: self.rows.slice(from, self.taken_rows - from),
            sequences: RowNumbers::new(self.sequences[from..self.taken_rows].to_vec()),
            rejected: rejected.map(|all| all.slice(rejects_from, self.taken_rejects - rejects_from)),
            next,
        }
    }

    /// Whether all was taken.
    pub(super) fn is_done(&self) -> bool {
        self.taken_rows == self.sequences.len() && self.taken_rejects == self.reject_sequences.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int8Array, Int64Array};

    use super::*;

    #[test]
    fn the_rows_of_a_record_stay_together() {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..5));
        let rows = RecordBatch::try_from_iter([("n", numbers)]).expect("rows");
        let mut chunk = Chunk {
            rows: Batch::changes(rows, Int8Array::from(vec![0, 1, 2, 3, 0])),
            sequences: vec![1, 1, 1, 2, 5],
            rejected: None,
            reject_sequences: Vec::new(),
            taken_rows: 0,
            taken_rejects: 0,
            end: 9,
        };
        let mut portions = Vec::new();
        while !chunk.is_done() {
            let portion = chunk.take(2);
            let kinds: Vec<&str> = (0..portion.rows.len()).map(|row| portion.rows.kind(row).symbol()).collect();
            portions.push((kinds.join(" "), portion.next));
        }
        // A position lies behind a record: reading again from there repeats none of its rows.
        assert_eq!(portions, [("+I -U +U".to_owned(), 2), ("-D +I".to_owned(), 9)]);
    }
}
