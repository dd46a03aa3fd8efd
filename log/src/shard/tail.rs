//! A reader that has read a shard to its end waits here for more: it is woken when the end moves, and does not poll.

use std::sync::Arc;

use coulee_model::SequenceNumber;
use tokio::sync::watch;

use crate::error::{LogError, Result};
use crate::ids::Place;
use crate::shard::context::SealedShard;
use crate::shard::fetch::Isolation;

/// What everybody who waits at the end of a shard is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// The sequence number after the last record that is durable.
    pub(crate) end: u64,
    /// The last stable offset: where the earliest transaction begins that has not ended; the end without one.
    pub(crate) last_stable: u64,
    pub(crate) life: Life,
}

impl Head {
    /// The sequence number after the last record that a reader may see.
    pub(crate) fn seen_by(&self, isolation: Isolation) -> u64 {
        match isolation {
            Isolation::ReadUncommitted => self.end,
            Isolation::ReadCommitted => self.last_stable,
        }
    }
}

/// Whether a shard can still be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Open,
    Deleted,
    Closed,
}

impl Life {
    /// # Errors
    /// [`LogError::Deleted`] and [`LogError::Closed`].
    pub(crate) fn check(self, place: &Place) -> Result<()> {
        match self {
            Life::Open => Ok(()),
            Life::Deleted => Err(LogError::Deleted { stream: place.stream.clone() }),
            Life::Closed => Err(LogError::Closed { place: place.clone() }),
        }
    }
}

/// Waits for new records of a shard.
#[derive(Debug, Clone)]
pub struct Tail {
    head: watch::Receiver<Head>,
    place: Place,
    isolation: Isolation,
    sealed: Option<Arc<SealedShard>>,
}

impl Tail {
    pub(crate) fn new(
        head: watch::Receiver<Head>,
        place: Place,
        isolation: Isolation,
        sealed: Option<Arc<SealedShard>>,
    ) -> Self {
        Tail { head, place, isolation, sealed }
    }

    /// Waits until what the reader may see ends after `seen`, and says where: at once if it does already. For a committed
    /// reader that is the shard's last stable offset.
    ///
    /// Can be dropped and called again without missing anything.
    ///
    /// # Errors
    /// [`LogError::Deleted`] once the stream is deleted, [`LogError::Closed`] once the log is closed,
    /// [`LogError::ShardSealed`] when `seen` is the end of a shard that was split or merged.
    pub async fn changed(&mut self, seen: SequenceNumber) -> Result<SequenceNumber> {
        let isolation = self.isolation;
        if let Some(sealed) = &self.sealed
            && seen >= sealed.end
        {
            return Err(sealed.error(&self.place));
        }
        let moved = self.head.wait_for(|head| head.seen_by(isolation) > seen.0 || head.life != Life::Open).await;
        let Ok(head) = moved.map(|head| *head) else {
            return Err(LogError::Closed { place: self.place.clone() });
        };
        head.life.check(&self.place)?;
        Ok(SequenceNumber(head.seen_by(isolation)))
    }
}
