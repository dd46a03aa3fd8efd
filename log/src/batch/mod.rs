//! Layer 1: a record batch. How records become the bytes of Kafka's batch format, version 2, and records again.
//!
//! | file | holds |
//! | --- | --- |
//! | `varint` | the variable-length integers of a record |
//! | `codec` | the compression of a batch's records |
//! | `header` | the fixed front of a batch |
//! | `records` | the records of a batch that was decoded |
//! | `encoded` | a batch as it is stored |
//! | `builder` | a batch on its way in: built here, or encoded by a client and checked here |
//! | `marker` | the control batch that commits or aborts a transaction in a shard |
//!
//! A batch knows no file and no shard. `docs/formats/log.md` has its bytes.

pub(crate) mod builder;
pub(crate) mod codec;
pub(crate) mod encoded;
pub(crate) mod header;
pub(crate) mod marker;
pub(crate) mod records;
pub(crate) mod varint;
