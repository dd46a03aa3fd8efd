//! The fixed front of a record batch, version 2 (KIP-98). `docs/formats/log.md` has the table.
//!
//! The checksum begins after itself, at the attributes: the sequence number of the first record and the leader
//! epoch, which precede it, are stamped into a finished batch without computing it again.

use crate::ids::ProducerId;
use crate::settings::{BATCH_BYTES_MAX, Compression};

/// The size of the front, in bytes.
pub(crate) const HEADER_BYTES: usize = 61;
/// `batchLength` counts what follows it: the bytes before it and it itself.
const LENGTH_END: usize = 12;
const MAGIC: usize = 16;
const CRC: usize = 17;
/// Where the checksummed part begins.
const CHECKED: usize = 21;

const COMPRESSION_MASK: i16 = 0b111;
const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

/// The front of a batch, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) base_sequence: u64,
    /// Of the whole batch, this front included.
    pub(crate) bytes: usize,
    pub(crate) attributes: i16,
    pub(crate) last_delta: u32,
    pub(crate) base_timestamp: i64,
    pub(crate) max_timestamp: i64,
    pub(crate) producer: ProducerId,
    pub(crate) producer_epoch: i16,
    /// The number of the first record in the producer's own count; not a sequence number of the shard.
    pub(crate) producer_sequence: i32,
    pub(crate) count: u32,
}

impl Header {
    /// Reads the front of `batch`, which may be cut anywhere after it.
    ///
    /// # Errors
    /// Which rule the bytes break. The checksum is not looked at.
    pub(crate) fn parse(batch: &[u8]) -> Result<Header, &'static str> {
        let Some(front) = batch.first_chunk::<HEADER_BYTES>() else {
            return Err("it ends within the batch header");
        };
        if front[MAGIC] != 2 {
            return Err("the batch's magic number is not 2");
        }
        let length = i32::from_be_bytes(field(front, 8));
        let bytes = usize::try_from(length).unwrap_or(0) + LENGTH_END;
        if !(HEADER_BYTES..=BATCH_BYTES_MAX).contains(&bytes) {
            return Err("the batch's length is out of range");
        }
        let base_sequence = i64::from_be_bytes(field(front, 0));
        let last_delta = i32::from_be_bytes(field(front, 23));
        let count = i32::from_be_bytes(field(front, 57));
        let (Ok(base_sequence), Ok(last_delta), Ok(count)) =
            (u64::try_from(base_sequence), u32::try_from(last_delta), u32::try_from(count))
        else {
            return Err("the batch has a negative offset or count");
        };
        Ok(Header {
            base_sequence,
            bytes,
            attributes: i16::from_be_bytes(field(front, 21)),
            last_delta,
            base_timestamp: i64::from_be_bytes(field(front, 27)),
            max_timestamp: i64::from_be_bytes(field(front, 35)),
            producer: ProducerId(i64::from_be_bytes(field(front, 43))),
            producer_epoch: i16::from_be_bytes(field(front, 51)),
            producer_sequence: i32::from_be_bytes(field(front, 53)),
            count,
        })
    }

    /// Writes the front of a finished batch, whose records follow at [`HEADER_BYTES`], and its checksum.
    pub(crate) fn write(&self, batch: &mut [u8]) {
        assert_eq!(batch.len(), self.bytes, "the header counts another length");
        put(batch, 0, self.base_sequence.to_be_bytes());
        put(batch, 8, ((self.bytes - LENGTH_END) as i32).to_be_bytes());
        put(batch, 12, 0i32.to_be_bytes());
        batch[MAGIC] = 2;
        put(batch, 21, self.attributes.to_be_bytes());
        put(batch, 23, self.last_delta.to_be_bytes());
        put(batch, 27, self.base_timestamp.to_be_bytes());
        put(batch, 35, self.max_timestamp.to_be_bytes());
        put(batch, 43, self.producer.0.to_be_bytes());
        put(batch, 51, self.producer_epoch.to_be_bytes());
        put(batch, 53, self.producer_sequence.to_be_bytes());
        put(batch, 57, self.count.to_be_bytes());
        let crc = crc32c::crc32c(&batch[CHECKED..]);
        put(batch, CRC, crc.to_be_bytes());
    }

    /// The sequence number after the batch's last record.
    pub(crate) fn end(&self) -> u64 {
        self.base_sequence + u64::from(self.last_delta) + 1
    }

    /// `None` for a number that no codec has.
    pub(crate) fn compression(&self) -> Option<Compression> {
        match self.attributes & COMPRESSION_MASK {
            0 => Some(Compression::None),
            1 => Some(Compression::Gzip),
            2 => Some(Compression::Snappy),
            3 => Some(Compression::Lz4),
            4 => Some(Compression::Zstd),
            _ => None,
        }
    }

    pub(crate) fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    pub(crate) fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether all records have the time of the append, which is then `max_timestamp`.
    pub(crate) fn has_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    /// Whether the batch belongs to the numbered batches of an idempotent producer. Control batches are not numbered.
    pub(crate) fn is_numbered(&self) -> bool {
        self.producer.0 >= 0 && !self.is_control()
    }
}

/// The attributes of a batch of a transaction, and of its marker, beside the compression.
pub(crate) const OF_TRANSACTION: i16 = TRANSACTIONAL;
pub(crate) const OF_MARKER: i16 = TRANSACTIONAL | CONTROL;

/// The attributes of a batch that only says how it is compressed.
pub(crate) fn attributes_of(compression: Compression) -> i16 {
    match compression {
        Compression::None => 0,
        Compression::Gzip => 1,
        Compression::Snappy => 2,
        Compression::Lz4 => 3,
        Compression::Zstd => 4,
    }
}

/// Whether the checksum of a whole batch fits its bytes.
pub(crate) fn checksum_fits(batch: &[u8]) -> bool {
    batch.len() >= HEADER_BYTES && u32::from_be_bytes(field(batch, CRC)) == crc32c::crc32c(&batch[CHECKED..])
}

/// Gives a batch its place in the shard, and the leader epoch 0: there is one leader.
pub(crate) fn stamp(batch: &mut [u8], base_sequence: u64) {
    put(batch, 0, base_sequence.to_be_bytes());
    put(batch, 12, 0i32.to_be_bytes());
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[at..at + N]);
    value
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}
