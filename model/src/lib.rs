//! The nouns that Coulee's rooms share: identities, time, and what an error asks of its caller.
//!
//! Nouns only. Nothing here knows a file, a socket, a batch or a query; a type belongs here when two
//! siblings that do not know each other must speak of the same thing.

mod date;
mod error;
mod ids;
mod random;
mod time;

pub use date::{Date, days_in_month};
pub use error::{Classify, ErrorKind};
pub use ids::{
    CheckpointId, JobName, KeyGroup, NameError, OperatorId, SequenceNumber, ShardId, StreamName, SubtaskIndex,
};
pub use random::unique_u64;
pub use time::{Clock, ManualClock, Stopwatch, SystemClock, Timestamp};
