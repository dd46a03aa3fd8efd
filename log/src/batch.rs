//! A stored batch and its records, read in place.
//!
//! Decoding checks a batch as a whole once; after that its records are walked without a `Result`, a copy or an
//! allocation per record.

use bytes::Bytes;
use coulee_model::{SequenceNumber, Timestamp};

use crate::codec;
use crate::header::{self, HEADER_BYTES, Header};
use crate::settings::Compression;
use crate::varint;
use crate::{LogError, ProducerId, Result};

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
        let decoded = DecodedBatch { header: self.header, records };
        decoded.check()?;
        Ok(decoded)
    }
}

/// A batch whose records can be read: checked and decompressed.
#[derive(Debug, Clone)]
pub struct DecodedBatch {
    header: Header,
    records: Bytes,
}

impl DecodedBatch {
    /// How many records it holds.
    pub fn count(&self) -> u32 {
        self.header.count
    }

    /// The records, in order of their sequence numbers.
    pub fn records(&self) -> Records<'_> {
        Records { rest: &self.records, left: self.header.count, header: &self.header }
    }

    /// The decompressed records that every [`RecordRef`] borrows from, for a reader that keeps parts of them
    /// alive without a copy: `buffer().slice_ref(value)`.
    pub fn buffer(&self) -> &Bytes {
        &self.records
    }

    /// Walks the records once, so that nobody after it meets a malformed one.
    fn check(&self) -> Result<(), &'static str> {
        let mut rest = &self.records[..];
        for delta in 0..self.header.count {
            let (found, record) = RecordRef::take(&mut rest, &self.header).ok_or("a record is malformed")?;
            if found != i64::from(delta) {
                return Err("the offsets of its records are not dense");
            }
            if record.header_count > 0 && !record.headers_are_sound() {
                return Err("the headers of a record are malformed");
            }
        }
        if rest.is_empty() { Ok(()) } else { Err("it has bytes after its last record") }
    }
}

/// The records of a batch.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    rest: &'a [u8],
    left: u32,
    header: &'a Header,
}

impl<'a> Iterator for Records<'a> {
    type Item = RecordRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<RecordRef<'a>> {
        self.left = self.left.checked_sub(1)?;
        RecordRef::take(&mut self.rest, self.header).map(|(_, record)| record)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Records<'_> {}

/// A record, borrowed from its batch.
#[derive(Debug, Clone, Copy)]
pub struct RecordRef<'a> {
    /// Its position in the shard.
    pub sequence: SequenceNumber,
    /// The time its producer gave it.
    pub timestamp: Timestamp,
    /// The partition key.
    pub key: Option<&'a [u8]>,
    /// The data; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    header_count: u32,
    headers: &'a [u8],
}

impl<'a> RecordRef<'a> {
    /// The headers, parsed as they are asked for.
    pub fn headers(&self) -> Headers<'a> {
        Headers { rest: self.headers, left: self.header_count }
    }

    /// Takes one record off the front: its offset from the batch's first, and itself.
    #[inline]
    fn take(rest: &mut &'a [u8], header: &Header) -> Option<(i64, RecordRef<'a>)> {
        let mut body = take_bytes(rest)??;
        let (_attributes, fields) = body.split_first()?;
        body = fields;
        let timestamp_delta = varint::take(&mut body)?;
        let delta = varint::take(&mut body)?;
        let key = take_bytes(&mut body)?;
        let value = take_bytes(&mut body)?;
        let header_count = u32::try_from(varint::take(&mut body)?).ok()?;
        let timestamp = match header.has_append_time() {
            true => header.max_timestamp,
            false => header.base_timestamp.wrapping_add(timestamp_delta),
        };
        let record = RecordRef {
            sequence: SequenceNumber(header.base_sequence.wrapping_add(delta as u64)),
            timestamp: Timestamp(timestamp),
            key,
            value,
            header_count,
            headers: body,
        };
        // What follows the fields must be headers; without any, there must be nothing.
        (header_count > 0 || body.is_empty()).then_some((delta, record))
    }

    fn headers_are_sound(&self) -> bool {
        let mut headers = self.headers();
        headers.by_ref().count() == self.header_count as usize && headers.rest.is_empty()
    }
}

/// The headers of a record: names and values.
#[derive(Debug, Clone)]
pub struct Headers<'a> {
    rest: &'a [u8],
    left: u32,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let name = take_bytes(&mut self.rest)??;
        let value = take_bytes(&mut self.rest)?;
        Some((std::str::from_utf8(name).ok()?, value))
    }
}

/// Takes a length and that many bytes: `Some(None)` for the length -1, which is null, and `None` for nonsense.
#[inline]
fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = varint::take(rest)?;
    if length == -1 {
        return Some(None);
    }
    let (bytes, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = after;
    Some(Some(bytes))
}
