//! A batch as it is stored: a header that can be read at once, and records that [`EncodedBatch::decode`] opens.

use bytes::Bytes;
use coulee_model::{SequenceNumber, Timestamp};

use crate::batch::codec;
use crate::batch::header::{self, HEADER_BYTES, Header};
use crate::batch::records::DecodedBatch;
use crate::error::{LogError, Result};
use crate::ids::ProducerId;
use crate::settings::Compression;

/// A batch as it is stored: a header and records, which may be compressed.
#[derive(Debug, Clone)]
pub struct EncodedBatch {
    bytes: Bytes,
    header: Header,
}

impl EncodedBatch {
    /// Takes the first batch off the front of `bytes`.
    pub(crate) fn take(bytes: &mut Bytes) -> Result<EncodedBatch, &'static str> {
        let header = Header::parse(bytes)?;
        if header.bytes > bytes.len() {
            return Err("it ends within a batch");
        }
        Ok(EncodedBatch { bytes: bytes.split_to(header.bytes), header })
    }

    /// The whole batch, as a Kafka client would fetch it.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// The sequence number of the first record.
    pub fn base_sequence(&self) -> SequenceNumber {
        SequenceNumber(self.header.base_sequence)
    }

    /// The sequence number of the last record.
    pub fn last_sequence(&self) -> SequenceNumber {
        SequenceNumber(self.header.end() - 1)
    }

    /// How many records it holds.
    pub fn count(&self) -> u32 {
        self.header.count
    }

    /// The idempotent producer that sent it, if one did.
    pub fn producer(&self) -> Option<ProducerId> {
        (self.header.producer.0 >= 0).then_some(self.header.producer)
    }

    /// The producer's epoch; -1 without a producer.
    pub fn producer_epoch(&self) -> i16 {
        self.header.producer_epoch
    }

    /// The number of the first record in the producer's own count; -1 without a producer.
    pub fn producer_base_sequence(&self) -> i32 {
        self.header.producer_sequence
    }

    /// The timestamp of the first record.
    pub fn first_timestamp(&self) -> Timestamp {
        if self.header.has_append_time() { self.max_timestamp() } else { Timestamp(self.header.base_timestamp) }
    }

    /// The largest timestamp of its records.
    pub fn max_timestamp(&self) -> Timestamp {
        Timestamp(self.header.max_timestamp)
    }

    /// How its records are compressed; `None` for a codec that Coulee does not know.
    pub fn compression(&self) -> Option<Compression> {
        self.header.compression()
    }

    /// Whether it holds a marker of a transaction in place of records for readers.
    pub fn is_control(&self) -> bool {
        self.header.is_control()
    }

    /// Whether it belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.header.is_transactional()
    }

    /// Checks the batch, and decompresses it if it has to be.
    ///
    /// # Errors
    /// [`LogError::DamagedBatch`] when the checksum does not fit, or the records are not as the header says.
    pub fn decode(&self) -> Result<DecodedBatch> {
        self.decode_checked().map_err(|reason| LogError::DamagedBatch { base: self.base_sequence(), reason })
    }

    pub(crate) fn decode_checked(&self) -> Result<DecodedBatch, &'static str> {
        if !header::checksum_fits(&self.bytes) {
            return Err("the checksum does not fit the bytes");
        }
        let records = self.bytes.slice(HEADER_BYTES..);
        let records = match self.header.compression() {
            Some(Compression::None) => records,
            Some(compression) => codec::decompress(compression, &records)
                .map_err(|_| "its records cannot be decompressed, or to more than 256 MiB")?
                .into(),
            None => return Err("its records are compressed with an unknown codec"),
        };
        DecodedBatch::check(self.header, records)
    }
}
