//! Layer 5: streams. A stream is a named set of shards with settings; the log's folder holds them.
//!
//! | file | holds |
//! | --- | --- |
//! | `folder` | the folder of a log: its lock, its format, its streams |
//! | `shard_map` | which shard a key belongs to, and which shards took over from which |
//! | `stored` | the file that holds a stream's settings and its map |
//! | `stream` | a stream: its settings and its shards |

pub(crate) mod folder;
pub(crate) mod shard_map;
pub(crate) mod stored;
pub(crate) mod stream;
