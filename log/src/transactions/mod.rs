//! Layer 4: transactions over several shards (KIP-98, with the prepared state of KIP-939).
//!
//! | file | holds |
//! | --- | --- |
//! | `committed` | which transactions were committed, as runs of producer ids |
//! | `journal` | the file that remembers which transactions are prepared and how they were decided |
//! | `appends` | the partition appends of one transaction: what it has sent to each shard |
//! | `end` | the end of one transaction: a marker in each of its shards, published together |
//! | `state` | the transactions that have not ended, and which step each may take |
//! | `coordinator` | takes the steps: logs decisions, has markers written |
//! | `transaction` | the transaction in the hands of its owner |

pub(crate) mod appends;
pub(crate) mod committed;
pub(crate) mod coordinator;
pub(crate) mod end;
pub(crate) mod journal;
pub(crate) mod state;
pub(crate) mod transaction;
