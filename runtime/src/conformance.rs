//! What every source and every sink must do, as tests that take an implementation: for connectors of this project and of others.
//!
//! They play the runtime's part of the contracts of [`connector`](crate::connector), and end attempts wherever one may end. A test
//! fails by a panic, as tests do.

mod sink;
mod source;

pub use sink::{SinkAttempt, SinkCheckpoint, SinkUnderTest, sink_is_exactly_once};
pub use source::source_is_repeatable;
