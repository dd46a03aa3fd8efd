//! What a read returns: whole batches, as they are stored.

use bytes::Bytes;
use coulee_model::SequenceNumber;

use crate::batch::EncodedBatch;
use crate::{LogError, Result};

/// Batches read from a shard.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The batches, one after the other. The first may begin before the sequence number that was asked for.
    pub bytes: Bytes,
    /// Where to read on: after the last record in `bytes`, or what was asked for when there is none.
    pub next: SequenceNumber,
    /// The end of the shard when it was read: `next == end` means that there is nothing more for now.
    pub end: SequenceNumber,
}

impl Fetched {
    /// The batches, without a copy.
    ///
    /// # Errors
    /// [`LogError::DamagedBatch`] when bytes are not a batch; nothing follows it.
    pub fn batches(&self) -> impl Iterator<Item = Result<EncodedBatch>> + use<> {
        let mut rest = self.bytes.clone();
        let mut base = self.next;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let batch = EncodedBatch::take(&mut rest);
            match &batch {
                Ok(batch) => base = batch.last_sequence().plus(1),
                Err(_) => rest.clear(),
            }
            Some(batch.map_err(|reason| LogError::DamagedBatch { base, reason }))
        })
    }
}
