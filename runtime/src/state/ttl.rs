//! How long entries of state live: one rule for all kinds of state.
//!
//! An entry with a time to live is stored with its expiry in front (an i64, big-endian milliseconds), in a table whose number has the highest bit set, which
//! is how the store knows that its entries expire. An entry is gone at its expiry, whatever is left of it in memory or on the disk.

use coulee_checkpoint::TableId;
use coulee_model::Timestamp;

use super::backend::Backend;
use crate::{Error, Result};

/// The time to live of a table's entries, and what time it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ttl {
    millis: Option<i64>,
    now: Timestamp,
}

impl Ttl {
    /// Entries that live for so long after their last change; for ever without it.
    pub(super) fn new(millis: Option<i64>) -> Self {
        Ttl { millis, now: Timestamp(0) }
    }

    /// The table that such entries are in.
    pub(super) fn table(self, table: TableId) -> TableId {
        if self.expires() { TableId(table.0 | TableId::EXPIRES) } else { table }
    }

    /// Whether entries expire.
    pub(super) fn expires(self) -> bool {
        self.millis.is_some()
    }

    /// Looks at the clock, if that matters.
    pub(super) fn tick(&mut self, backend: &Backend) {
        if self.expires() {
            self.now = backend.now();
        }
    }

    /// When an entry that changes now is gone.
    pub(super) fn expiry(self) -> Timestamp {
        self.millis.map_or(Timestamp::MAX, |millis| self.now.plus_millis(millis))
    }

    /// Whether an entry with this expiry is still there.
    pub(super) fn is_live(self, expiry: Timestamp) -> bool {
        expiry > self.now
    }

    /// Begins the stored form of an entry.
    pub(super) fn encode(self, expiry: Timestamp, out: &mut Vec<u8>) {
        if self.expires() {
            out.extend_from_slice(&expiry.0.to_be_bytes());
        }
    }

    /// Takes a stored entry apart: its expiry, and how many bytes come before its value.
    pub(super) fn decode(self, stored: &[u8]) -> Result<(Timestamp, usize)> {
        if !self.expires() {
            return Ok((Timestamp::MAX, 0));
        }
        let expiry = stored.first_chunk::<8>();
        let expiry = expiry.ok_or_else(|| Error::corrupt("a stored entry with a time to live has under 8 bytes"))?;
        Ok((Timestamp(i64::from_be_bytes(*expiry)), 8))
    }
}
