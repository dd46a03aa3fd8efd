//! The identities of the log: where a shard is, who produces, and which transaction something belongs to.
//!
//! The streams' and shards' own names are `coulee_model`'s. These here are the log's alone.

use std::fmt;

use coulee_model::{ShardId, StreamName};
use serde::{Deserialize, Serialize};

/// The longest name of a transaction, in bytes.
const TRANSACTIONAL_ID_BYTES_MAX: usize = 1024;

/// A shard by stream and number, as messages name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The stream that the shard belongs to.
    pub stream: StreamName,
    /// The shard's number within it.
    pub shard: ShardId,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream '{}' shard {}", self.stream, self.shard)
    }
}

/// The identity of an idempotent producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProducerId(pub i64);

impl ProducerId {
    /// From here on, a producer id is given to one transaction only, and forgotten with it.
    pub(crate) const OF_ONE_TRANSACTION: i64 = 1 << 62;

    pub(crate) fn is_of_one_transaction(self) -> bool {
        self.0 >= Self::OF_ONE_TRANSACTION
    }
}

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The name of a transaction, given by its owner: Kafka's `transactional.id`. 1 to 1,024 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TransactionalId(String);

/// A name that cannot be used for a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a transactional id has {bytes} bytes: expected 1 to {TRANSACTIONAL_ID_BYTES_MAX}")]
pub struct TransactionalIdError {
    /// The length of the name.
    pub bytes: usize,
}

impl TransactionalId {
    /// Checks the name.
    ///
    /// # Errors
    /// [`TransactionalIdError`] when it is empty or too long.
    pub fn new(id: impl Into<String>) -> Result<Self, TransactionalIdError> {
        let id = id.into();
        if id.is_empty() || id.len() > TRANSACTIONAL_ID_BYTES_MAX {
            return Err(TransactionalIdError { bytes: id.len() });
        }
        Ok(TransactionalId(id))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TransactionalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A transaction, as its owner remembers it: small, and the same after a restart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TransactionRef {
    /// Its name.
    pub id: TransactionalId,
    /// Its producer id, which no other transaction has, or had.
    pub producer: ProducerId,
}

impl fmt::Display for TransactionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' (producer {})", self.id, self.producer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transactional_id_has_1_to_1024_bytes() {
        assert_eq!(
            TransactionalId::new("").unwrap_err().to_string(),
            "a transactional id has 0 bytes: expected 1 to 1024"
        );
        assert_eq!(TransactionalId::new("x".repeat(1025)), Err(TransactionalIdError { bytes: 1025 }));
        assert_eq!(TransactionalId::new("x".repeat(1024)).expect("the longest").as_str().len(), 1024);
    }
}
