//! How far a shard is written and how far it is durable: what appends wait for.
//!
//! *Written* means that the operating system has the records: they are in order, and survive the end of the process.
//! *Durable* means that a sync has put them on the disk: they survive a power cut too. A shard whose stream syncs in
//! groups acknowledges an append when it is durable; the others acknowledge it when it is written.

use std::sync::Arc;

use tokio::sync::watch;

use crate::error::LogError;
use crate::ids::Place;

/// How far a shard is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    /// The sequence number after the last record that the operating system has.
    pub(crate) written: u64,
    /// The sequence number after the last record that is on the disk.
    pub(crate) durable: u64,
    /// Why nothing more will become durable.
    pub(crate) failed: Option<LogError>,
}

/// The shard of an append, as whoever waits for the append sees it.
pub(crate) trait AppendTarget: Send + Sync + std::fmt::Debug {
    fn place(&self) -> &Place;

    /// How far the shard is.
    fn progress(&self) -> watch::Receiver<Progress>;

    /// Has the shard synced if nothing else would do so soon. Requests that wait at the same moment share a sync.
    fn request_sync(self: Arc<Self>);
}
