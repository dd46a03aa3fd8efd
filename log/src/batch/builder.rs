//! Records on their way in: what a batch is built from, or how one that a client built is admitted.

use bytes::Bytes;
use coulee_model::Timestamp;

use crate::batch::codec;
use crate::batch::encoded::EncodedBatch;
use crate::batch::header::{self, HEADER_BYTES, Header};
use crate::batch::varint;
use crate::error::{LogError, Result};
use crate::ids::ProducerId;
use crate::settings::{BATCH_BYTES_MAX, Compression};

/// A record to be appended.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The partition key, which decides the shard and is what compaction goes by.
    pub key: Option<&'a [u8]>,
    /// The data; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// When it happened.
    pub timestamp: Timestamp,
    /// Names and values beside the data.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

/// Builds one record batch.
///
/// Records are encoded as they are pushed; compression and the checksum are left to the append, in the caller's thread.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    /// Room for the header, then the encoded records.
    bytes: Vec<u8>,
    compression: Compression,
    /// Beside the compression.
    attributes: i16,
    count: u32,
    base_timestamp: i64,
    max_timestamp: i64,
    producer: ProducerId,
    producer_epoch: i16,
    producer_sequence: i32,
    /// A batch that a client has encoded; the fields above but the count are then unused.
    encoded: Option<EncodedBatch>,
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new(compression: Compression) -> Self {
        BatchBuilder {
            bytes: vec![0; HEADER_BYTES],
            compression,
            attributes: 0,
            count: 0,
            base_timestamp: 0,
            max_timestamp: 0,
            producer: ProducerId(-1),
            producer_epoch: -1,
            producer_sequence: -1,
            encoded: None,
        }
    }

    /// Admits a batch that a Kafka client has encoded, after checking all of it: what is acknowledged can be decoded.
    ///
    /// # Errors
    /// [`LogError::InvalidBatch`] when it is not exactly one batch of version 2 with a fitting checksum and dense
    /// offsets from its own base; [`LogError::BatchTooLarge`] past [`BATCH_BYTES_MAX`].
    pub fn from_encoded(bytes: Bytes) -> Result<Self> {
        check_size(bytes.len())?;
        let mut rest = bytes;
        let invalid = |reason| LogError::InvalidBatch { reason };
        let batch = EncodedBatch::take(&mut rest).map_err(invalid)?;
        let header = Header::parse(batch.bytes()).map_err(invalid)?;
        if !rest.is_empty() {
            return Err(invalid("there are bytes after it: send one batch at a time"));
        }
        if header.count == 0 {
            return Err(invalid("it has no records"));
        }
        if header.is_control() {
            return Err(invalid("it is a control batch: only the log writes those"));
        }
        if header.last_delta != header.count - 1 {
            return Err(invalid("its last offset does not fit its count of records"));
        }
        if header.is_numbered() && (header.producer_epoch < 0 || header.producer_sequence < 0) {
            return Err(invalid("it has a producer but no epoch or sequence"));
        }
        batch.decode_checked().map_err(invalid)?;
        Ok(BatchBuilder {
            bytes: Vec::new(),
            count: header.count,
            encoded: Some(batch),
            ..Self::new(Compression::None)
        })
    }

    /// Makes the batch one of an idempotent producer: appending the same `(epoch, base_sequence)` again has no effect.
    ///
    /// `base_sequence` counts the records that this producer has sent to this shard in this epoch, modulo 2³¹.
    ///
    /// # Panics
    /// When a number is negative, or the batch was made [`from_encoded`](Self::from_encoded).
    #[must_use]
    pub fn producer(mut self, producer: ProducerId, epoch: i16, base_sequence: i32) -> Self {
        assert!(self.encoded.is_none(), "an encoded batch has its producer already");
        assert!(producer.0 >= 0 && epoch >= 0 && base_sequence >= 0, "a producer's numbers are not negative");
        (self.producer, self.producer_epoch, self.producer_sequence) = (producer, epoch, base_sequence);
        self
    }

    /// Makes the batch part of a transaction.
    pub(crate) fn transactional(mut self, producer: ProducerId, base_sequence: i32) -> Self {
        self.attributes = header::OF_TRANSACTION;
        self.producer(producer, 0, base_sequence)
    }

    /// Makes the batch, which must have one record, the marker of a transaction.
    pub(crate) fn marker(mut self, producer: ProducerId) -> Self {
        self.attributes = header::OF_MARKER;
        (self.producer, self.producer_epoch) = (producer, 0);
        self
    }

    /// Adds a record.
    ///
    /// # Panics
    /// When the batch was made [`from_encoded`](Self::from_encoded).
    pub fn push(&mut self, record: &Record<'_>) {
        assert!(self.encoded.is_none(), "an encoded batch cannot grow");
        let timestamp = record.timestamp.millis();
        if self.count == 0 {
            (self.base_timestamp, self.max_timestamp) = (timestamp, timestamp);
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        encode_record(&mut self.bytes, record, timestamp.wrapping_sub(self.base_timestamp), self.count.into());
        self.count += 1;
    }

    /// Whether it is of a transaction.
    pub(crate) fn is_transactional(&self) -> bool {
        self.encoded.as_ref().is_some_and(EncodedBatch::is_transactional) || self.attributes != 0
    }

    /// Whether a client has encoded it.
    pub(crate) fn is_encoded(&self) -> bool {
        self.encoded.is_some()
    }

    /// How many records it has.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether it has no records.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Its size in bytes, before compression if it is still to be compressed.
    pub fn bytes(&self) -> usize {
        match &self.encoded {
            Some(batch) => batch.bytes().len(),
            None => self.bytes.len(),
        }
    }

    /// The finished batch, with base sequence number 0 until it is stamped.
    pub(crate) fn finish(self) -> Result<(Bytes, Header)> {
        let (bytes, header) = match self.encoded {
            Some(batch) => {
                let header = Header::parse(batch.bytes()).map_err(|reason| LogError::InvalidBatch { reason })?;
                (batch.bytes().clone(), header)
            }
            None => self.encode()?,
        };
        assert!(header.count > 0 && header.bytes == bytes.len(), "a finished batch has records and its length");
        Ok((bytes, header))
    }

    fn encode(self) -> Result<(Bytes, Header)> {
        if self.count == 0 {
            return Err(LogError::InvalidBatch { reason: "it has no records" });
        }
        let mut bytes = match self.compression {
            Compression::None => self.bytes,
            compression => {
                let mut out = vec![0; HEADER_BYTES];
                codec::compress(compression, &self.bytes[HEADER_BYTES..], &mut out)
                    .map_err(|_| LogError::InvalidBatch { reason: "its records cannot be compressed" })?;
                out
            }
        };
        check_size(bytes.len())?;
        let header = Header {
            base_sequence: 0,
            bytes: bytes.len(),
            attributes: header::attributes_of(self.compression) | self.attributes,
            last_delta: self.count - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer: self.producer,
            producer_epoch: self.producer_epoch,
            producer_sequence: self.producer_sequence,
            count: self.count,
        };
        header.write(&mut bytes);
        Ok((bytes.into(), header))
    }
}

fn check_size(bytes: usize) -> Result<()> {
    if bytes > BATCH_BYTES_MAX {
        return Err(LogError::BatchTooLarge { bytes: bytes as u64, limit: BATCH_BYTES_MAX as u64 });
    }
    Ok(())
}

fn encode_record(bytes: &mut Vec<u8>, record: &Record<'_>, timestamp_delta: i64, delta: i64) {
    let headers: usize =
        record.headers.iter().map(|(name, value)| size_of(Some(name.as_bytes())) + size_of(*value)).sum();
    let header_count = record.headers.len() as i64;
    let length = 1
        + varint::size(timestamp_delta)
        + varint::size(delta)
        + size_of(record.key)
        + size_of(record.value)
        + varint::size(header_count)
        + headers;
    bytes.reserve(length + varint::size(length as i64));
    varint::put(bytes, length as i64);
    bytes.push(0);
    varint::put(bytes, timestamp_delta);
    varint::put(bytes, delta);
    put_bytes(bytes, record.key);
    put_bytes(bytes, record.value);
    varint::put(bytes, header_count);
    for (name, value) in record.headers {
        put_bytes(bytes, Some(name.as_bytes()));
        put_bytes(bytes, *value);
    }
}

fn size_of(part: Option<&[u8]>) -> usize {
    part.map_or(1, |part| varint::size(part.len() as i64) + part.len())
}

fn put_bytes(bytes: &mut Vec<u8>, part: Option<&[u8]>) {
    match part {
        Some(part) => {
            varint::put(bytes, part.len() as i64);
            bytes.extend_from_slice(part);
        }
        None => varint::put(bytes, -1),
    }
}
