//! The seams to the world outside a job: where rows come from ([`source`](Source)) and where they go ([`sink`](Sink)).
//!
//! The runtime owns these traits, connectors implement them, and `sql` sees only the descriptions.
//! Readers, enumerators, writers and committers are the only asynchronous parts of a job.

mod sink;
mod source;

use std::sync::Arc;

/// What the traits below are written with, so that an implementation needs no crate of its own for it.
pub use async_trait::async_trait;
pub use bytes::Bytes;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

pub use sink::{CommitOn, Prepared, Sink, SinkCommitter, SinkContext, SinkWriter};
pub use source::{
    Enumeration, KnownSplits, Source, SourceContext, SourceEvent, SourceReader, SplitEnumerator, SplitId, SplitStart,
};

/// The schema of rejected records: `origin` (text: where it was read), `reason` (text), `raw` (bytes: the record, or the row as
/// JSON), `stage` (text: `decode`, `expression` or `delivery`), `expression` (text: the one that failed, as SQL; null else).
pub fn rejected_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("origin", DataType::Utf8, false),
        Field::new("reason", DataType::Utf8, false),
        Field::new("raw", DataType::Binary, false),
        Field::new("stage", DataType::Utf8, false),
        Field::new("expression", DataType::Utf8, true),
    ]))
}
