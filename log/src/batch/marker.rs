//! Commit markers and abort markers: the control batches that end a transaction in a shard (KIP-98). `docs/formats/log.md` has their bytes.

use bytes::Bytes;
use coulee_model::Timestamp;

use crate::batch::builder::{BatchBuilder, Record};
use crate::batch::encoded::EncodedBatch;
use crate::batch::header::Header;
use crate::error::Result;
use crate::ids::ProducerId;
use crate::settings::Compression;

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TransactionOutcome {
    Abort,
    Commit,
}

/// Key: version 0 and the kind, 2 bytes each.
const ABORT_KEY: [u8; 4] = [0, 0, 0, 0];
const COMMIT_KEY: [u8; 4] = [0, 0, 0, 1];
/// Value: version 0 in 2 bytes, and the epoch of the coordinator in 4: there is one.
const VALUE: [u8; 6] = [0; 6];

/// The marker of a transaction.
pub(crate) fn build(producer: ProducerId, outcome: TransactionOutcome, now: Timestamp) -> Result<(Bytes, Header)> {
    let key = match outcome {
        TransactionOutcome::Abort => ABORT_KEY,
        TransactionOutcome::Commit => COMMIT_KEY,
    };
    let mut batch = BatchBuilder::new(Compression::None).marker(producer);
    batch.push(&Record { key: Some(&key), value: Some(&VALUE), timestamp: now, headers: &[] });
    batch.finish()
}

/// How a batch ends its producer's transaction; `None` when it is no marker.
pub(crate) fn read(header: &Header, batch: &[u8]) -> Option<TransactionOutcome> {
    if !header.is_control() {
        return None;
    }
    let batch = EncodedBatch::take(&mut Bytes::copy_from_slice(batch)).ok()?.decode_checked().ok()?;
    let key = batch.records().next()?.key?;
    match key.first_chunk::<4>() {
        Some(&ABORT_KEY) => Some(TransactionOutcome::Abort),
        Some(&COMMIT_KEY) => Some(TransactionOutcome::Commit),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_those_of_kafka() {
        let (bytes, header) = build(ProducerId(5), TransactionOutcome::Commit, Timestamp(7)).expect("a marker");
        assert!(header.is_control() && header.is_transactional() && !header.is_numbered());
        assert_eq!((header.producer, header.producer_epoch, header.producer_sequence), (ProducerId(5), 0, -1));
        // One record: 16 bytes long, no attributes, no deltas, a key of 4 bytes, a value of 6, no headers.
        assert_eq!(bytes[61..], *b"\x20\x00\x00\x00\x08\x00\x00\x00\x01\x0c\x00\x00\x00\x00\x00\x00\x00");
        assert_eq!(read(&header, &bytes), Some(TransactionOutcome::Commit));
        let (bytes, header) = build(ProducerId(5), TransactionOutcome::Abort, Timestamp(7)).expect("a marker");
        assert_eq!(read(&header, &bytes), Some(TransactionOutcome::Abort));
        let mut records = BatchBuilder::new(Compression::None);
        records.push(&Record { key: Some(&COMMIT_KEY), value: None, timestamp: Timestamp(0), headers: &[] });
        let (bytes, header) = records.finish().expect("a batch");
        assert_eq!(read(&header, &bytes), None, "a record with the key of a marker is none");
    }
}
