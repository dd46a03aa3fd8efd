//! Layer 3: a shard. One writer behind a queue, any number of readers, and the transactions and producers seen in it.
//!
//! ```text
//! Shard::append ─▶ Queue ─▶ committer thread ─▶ Writer ─▶ segment ─ fdatasync ─▶ end moves ─▶ Append answers
//!  (encode, number)          (one write per group)                        │
//! Fetched ◀── Shard::read ── segment + index          Tail::changed ◀─────┘
//! ```
//!
//! | file | holds |
//! | --- | --- |
//! | `context` | where a shard lives, what it works with, and the question it asks about transactions |
//! | `last_stable_offset` | how far committed readers may read, and what they skip |
//! | `producers` | idempotent producers: which batch follows, which is a duplicate |
//! | `progress` | how far a shard is written and how far it is durable |
//! | `budget` | the memory that the waiting appends of all shards may hold |
//! | `append` | the answer that the caller of an append waits for |
//! | `queue` | the appends that wait to be written |
//! | `recovery` | reads and repairs the folder of a shard |
//! | `writer` | writes groups of batches, and begins segments |
//! | `committer` | the threads that run the writers |
//! | `fetch`, `tail` | what a read returns; waiting for more |
//! | `orphans` | ends the transactions that a former process left open |
//! | `shard` | the shard itself: appending, closing, retention |
//! | `reading`, `markers`, `damage` | what readers ask of a shard; how a transaction ends in it; where damage lies |
//!
//! A shard knows no other shard and no coordinator of transactions. Whoever coordinates them asks shards to write markers,
//! listens to appends through `append::AppendListener`, and answers `context::TransactionFates`.

pub(crate) mod append;
pub(crate) mod budget;
pub(crate) mod committer;
pub(crate) mod context;
pub(crate) mod damage;
pub(crate) mod fetch;
pub(crate) mod last_stable_offset;
pub(crate) mod markers;
pub(crate) mod orphans;
pub(crate) mod producers;
pub(crate) mod progress;
pub(crate) mod queue;
pub(crate) mod reading;
pub(crate) mod recovery;
#[expect(clippy::module_inception, reason = "the layer and its main type have the same name")]
pub(crate) mod shard;
pub(crate) mod tail;
pub(crate) mod writer;
