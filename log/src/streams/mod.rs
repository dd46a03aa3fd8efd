//! Layer 5: streams. A stream is a named set of shards with settings; the log's folder holds them.
//!
//! | file | holds |
//! | --- | --- |
//! | `folder` | the folder of a log: its lock, its format, its streams |
//! | `route` | which shard a key belongs to |
//! | `stream` | a stream: its settings and its shards |

pub(crate) mod folder;
pub(crate) mod route;
pub(crate) mod stream;
