//! Worked examples of the Rust graph API. The SQL examples are the folders beside `src`.
//!
//! Each module is one pipeline; its test runs it and compares what comes out with a computation of its own.
//!
//! | module | shows |
//! | --- | --- |
//! | [`flights`] | a window, a function with state per key, one source for two sinks |
//! | [`sensors`] | timers of event time and of the wall clock, maps and lists per key, side outputs |
//! | [`payments`] | a source, a sink and an operator with two inputs, all of one's own; exactly once; rules that are broadcast |
//! | [`embed`] | starting a graph |

pub mod embed;
pub mod flights;
pub mod payments;
pub mod sensors;
