//! The records of a decoded batch, read in place.
//!
//! [`DecodedBatch::check`] walks all records once. A reader then iterates without a `Result`, a copy or an allocation per
//! record.

use bytes::Bytes;
use coulee_model::{SequenceNumber, Timestamp};

use crate::batch::header::Header;
use crate::batch::varint;

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

    /// Takes the decompressed records of a batch after walking them once, so that no later reader meets a malformed one.
    ///
    /// # Errors
    /// Which rule a record breaks.
    pub(crate) fn check(header: Header, records: Bytes) -> Result<DecodedBatch, &'static str> {
        let mut rest = &records[..];
        for delta in 0..header.count {
            let (found, record) = RecordRef::take(&mut rest, &header).ok_or("a record is malformed")?;
            if found != i64::from(delta) {
                return Err("the offsets of its records are not dense");
            }
            if record.header_count > 0 && !record.headers_are_sound() {
                return Err("the headers of a record are malformed");
            }
        }
        if !rest.is_empty() {
            return Err("it has bytes after its last record");
        }
        Ok(DecodedBatch { header, records })
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
