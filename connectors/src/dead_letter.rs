//! Where records that could not become rows go: the seam between a connector that rejects and one that keeps.

use std::fmt::Debug;
use std::sync::Arc;

use coulee_runtime::Result;
use coulee_runtime::connector::Sink;
use coulee_runtime::table::TableSpec;

/// Keeps rejected records.
///
/// **Operations** `sink` makes the sink that one table's rejected records are written to.
/// **Guarantees** The sink takes rows of [`rejected_schema`](coulee_runtime::rejected_schema), exactly once like any sink.
/// **Non-guarantees** Several tables may name the same stream; their records then mix.
/// **Failure** `Invalid` when the name cannot be used.
pub trait DeadLetters: Send + Sync + Debug {
    /// A sink for the rejected records of `table`, kept in `stream`.
    ///
    /// # Errors
    /// `Invalid` when the name cannot be used.
    fn sink(&self, table: &TableSpec, stream: &str) -> Result<Arc<dyn Sink>>;
}
