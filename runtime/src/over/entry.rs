//! What is stored: the keys of waiting and of kept rows, and what is known of a partition.

use coulee_model::Timestamp;
use serde::{Deserialize, Serialize};

use crate::state::KeyPart;
use crate::{Error, Result};

const TIME_BYTES: usize = 8;
const ARRIVAL_BYTES: usize = 8;

/// The map key of a row: its time, its order in Arrow's row format, and its number among the rows of its partition in the order in which they came.
pub(super) fn entry_key(time: Timestamp, order: &[u8], arrival: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(TIME_BYTES + order.len() + ARRIVAL_BYTES);
    time.encode_key(&mut key);
    key.extend_from_slice(order);
    arrival.encode_key(&mut key);
    key
}

/// What precedes every map key of a later time; `None` when there is no later time.
pub(super) fn behind(time: Timestamp) -> Option<Vec<u8>> {
    let next = time.0.checked_add(1)?;
    let mut key = Vec::with_capacity(TIME_BYTES);
    Timestamp(next).encode_key(&mut key);
    Some(key)
}

/// The time of a map key.
pub(super) fn time_of(mut key: &[u8]) -> Result<Timestamp> {
    Timestamp::decode_key(&mut key)
}

/// What rows that are equal in the order have in common: the map key without the arrival.
pub(super) fn peers(key: &[u8]) -> Result<&[u8]> {
    Ok(&key[..peer_bytes(key)?])
}

fn peer_bytes(key: &[u8]) -> Result<usize> {
    key.len().checked_sub(ARRIVAL_BYTES).ok_or_else(|| Error::corrupt("the key of a stored row of OVER is too short"))
}

/// The map key of a row, which begins with what its peers have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RowKey {
    pub bytes: Vec<u8>,
    /// How many of the bytes peers have in common.
    peer_bytes: usize,
}

impl RowKey {
    /// The key of a row whose first bytes are those of its order.
    ///
    /// # Errors
    /// When there are fewer bytes.
    pub fn new(bytes: Vec<u8>, peer_bytes: usize) -> Result<Self> {
        match peer_bytes <= bytes.len() {
            true => Ok(RowKey { bytes, peer_bytes }),
            false => Err(Error::corrupt("the key of a stored row of OVER is too short")),
        }
    }

    /// A key that [`entry_key`] made.
    ///
    /// # Errors
    /// When it is too short.
    pub fn of_entry(key: &[u8]) -> Result<Self> {
        Ok(RowKey { bytes: key.to_vec(), peer_bytes: peer_bytes(key)? })
    }

    pub fn peers(&self) -> &[u8] {
        &self.bytes[..self.peer_bytes]
    }

    /// What is behind the order.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.peer_bytes..]
    }
}

/// What is known of a partition, beside its rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Partition {
    /// The arrival of the next row.
    pub next: u64,
    /// The map key of the last row that was emitted.
    pub done: Option<Vec<u8>>,
    /// When its timer fires, in milliseconds.
    pub timer: Option<i64>,
    /// The numbers of the last row that was emitted.
    pub numbers: Numbers,
    /// The states of the accumulators without a bound, in Arrow's row format; empty before the first row.
    pub running: Vec<u8>,
}

/// A row's numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Numbers {
    pub row: u64,
    pub rank: u64,
    pub dense_rank: u64,
}
