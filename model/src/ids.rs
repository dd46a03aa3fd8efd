//! Newtypes for every identity and position, so that no signature holds two bare numbers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name of a stream or a job, in bytes (Kafka's limit for topics).
const NAME_BYTES_MAX: usize = 249;

/// A name that cannot be used for a stream or a job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{name}' is not a valid {noun} name: expected 1 to {NAME_BYTES_MAX} of the characters a-z A-Z 0-9 . _ -, and not '.' or '..'"
)]
pub struct NameError {
    noun: &'static str,
    name: String,
}

fn check_name(noun: &'static str, name: &str) -> Result<(), NameError> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name == "." || name == ".." || !name.bytes().all(legal) {
        return Err(NameError { noun, name: name.to_owned() });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $noun:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Checks the name.
            ///
            /// # Errors
            /// [`NameError`] when it is empty, too long, or has a character that a file name or a Kafka topic could not have.
            pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
                let name = name.into();
                check_name($noun, &name)?;
                Ok(Self(name))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }
    };
}

name!(
    /// The name of a stream in the log (Kafka clients see a topic).
    StreamName,
    "stream"
);
name!(
    /// The name of a job: unique within an engine, and how a resumed job finds its state.
    JobName,
    "job"
);

macro_rules! number {
    ($(#[$doc:meta])* $type:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(pub $inner);

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number!(
    /// The index of a shard within its stream (Kafka: partition).
    ShardId,
    u32
);
number!(
    /// The position of a record within its shard, counted from 0 without gaps (Kafka: offset).
    SequenceNumber,
    u64
);
number!(
    /// The number of a consistent cut of one job. The first checkpoint is 1; 0 means "before any".
    CheckpointId,
    u64
);
number!(
    /// One parallel instance of an operator, counted from 0.
    SubtaskIndex,
    u32
);
number!(
    /// The unit of rescaling: every key belongs to one of a fixed number of groups.
    KeyGroup,
    u16
);
number!(
    /// The stable identity of an operator in its job: what its state is filed under.
    OperatorId,
    u32
);

impl SequenceNumber {
    /// The position `records` further on.
    #[must_use]
    pub fn plus(self, records: u64) -> Self {
        SequenceNumber(self.0 + records)
    }
}

impl CheckpointId {
    /// The checkpoint after this one.
    #[must_use]
    pub fn next(self) -> Self {
        CheckpointId(self.0 + 1)
    }
}

impl KeyGroup {
    /// How many key groups a job has. Fixed, as a changed count would move every key.
    pub const COUNT: u16 = 256;

    /// The group of a key, from a well-mixed hash of it.
    pub fn of_hash(hash: u64) -> Self {
        // The high half: the low bits choose buckets in hash tables, and using them twice makes those collide.
        KeyGroup(((hash >> 32) % u64::from(Self::COUNT)) as u16)
    }

    /// The subtask, of `parallelism`, that owns this group: contiguous ranges, so that rescaling moves ranges.
    pub fn owner(self, parallelism: u32) -> SubtaskIndex {
        SubtaskIndex(u32::from(self.0) * parallelism / u32::from(Self::COUNT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert!(StreamName::new("flights.v1_x-2").is_ok());
        for bad in ["", ".", "..", "a/b", "a b", "ü", &"x".repeat(250)] {
            assert!(StreamName::new(bad).is_err(), "{bad}");
        }
        assert_eq!(
            JobName::new("a b").unwrap_err().to_string(),
            "'a b' is not a valid job name: expected 1 to 249 of the characters a-z A-Z 0-9 . _ -, and not '.' or '..'"
        );
    }

    #[test]
    fn every_subtask_owns_a_contiguous_range_of_key_groups() {
        for parallelism in 1..=17 {
            let owners: Vec<u32> = (0..KeyGroup::COUNT).map(|g| KeyGroup(g).owner(parallelism).0).collect();
            assert!(owners.is_sorted());
            assert_eq!(owners[0], 0);
            assert_eq!(*owners.last().expect("256 groups"), parallelism - 1);
        }
    }
}
