//! Where a shard is read: a position that survives restarts, and how the first one is found.
//!
//! A position is JSON: `{"next":120,"stop":300}`. `next` is the sequence number behind the last row that was returned;
//! `stop`, if there is one, is the first that is not read any more. It was fixed when the shard was first opened, and
//! stays what it was while producers go on. For a committed reader the end is the last stable offset: a transaction that was open
//! then is not waited for.

use bytes::Bytes;
use coulee_log::{Isolation, Shard};
use coulee_runtime::connector::SplitId;
use coulee_runtime::{Error, Result};
use serde::{Deserialize, Serialize};

use super::log_error;
use super::settings::{Bounded, Startup};

/// A position in a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Position {
    pub(super) next: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stop: Option<u64>,
}

impl Position {
    /// Where a shard is read that was not read before.
    pub(super) fn first(shard: &Shard, startup: &Startup, bounded: &Bounded, isolation: Isolation) -> Result<Self> {
        let earliest = shard.earliest().0;
        let at = |timestamp| -> Result<u64> { Ok(shard.sequence_at(timestamp, isolation).map_err(log_error)?.0) };
        let next = match startup {
            Startup::Earliest => earliest,
            Startup::Latest => shard.end_for(isolation).0,
            Startup::Timestamp(timestamp) => at(*timestamp)?,
            Startup::Specific(offsets) => offsets.get(&shard.id().0).copied().unwrap_or(earliest),
        };
        let stop = match bounded {
            Bounded::Unbounded => None,
            Bounded::Latest => Some(shard.end_for(isolation).0),
            Bounded::Timestamp(timestamp) => Some(at(*timestamp)?),
        };
        Ok(Position { next, stop })
    }

    pub(super) fn decode(bytes: &[u8], split: &SplitId) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|cause| {
            Error::corrupt(format!("stream: the position of split '{}' is damaged: {cause}", split.0)).because(cause)
        })
    }

    pub(super) fn encode(self) -> Bytes {
        match self.stop {
            None => format!("{{\"next\":{}}}", self.next),
            Some(stop) => format!("{{\"next\":{},\"stop\":{stop}}}", self.next),
        }
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_survive_their_encoding() {
        for position in [Position { next: 7, stop: None }, Position { next: 0, stop: Some(u64::MAX) }] {
            assert_eq!(Position::decode(&position.encode(), &SplitId("s".into())).expect("JSON"), position);
        }
        let error = Position::decode(b"{\"nxt\":1}", &SplitId("shard-00001".into())).unwrap_err().to_string();
        assert!(error.contains("split 'shard-00001'"), "{error}");
    }
}
