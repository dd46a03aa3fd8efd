//! Layer 2: the files of the log. How batches become files that survive a crash, and how they are found in them.
//!
//! | file | holds |
//! | --- | --- |
//! | `storage` | the seam to the disk, through which everything durable is written |
//! | `torn` | what a power loss leaves of a write that was not synced |
//! | `scan` | walks a segment batch by batch, and tells a torn write from damage |
//! | `index` | from a sequence number or a time to a position in a segment |
//! | `segment` | one file of batches with its index |
//! | `retention` | which segments are old enough to be removed |
//! | `journal` | a file of small checksummed frames |
//!
//! This layer does not know who writes a file, or whether a reader may see a record: a shard does.

pub(crate) mod index;
pub(crate) mod journal;
pub(crate) mod retention;
pub(crate) mod scan;
pub(crate) mod segment;
pub(crate) mod storage;
pub(crate) mod torn;
