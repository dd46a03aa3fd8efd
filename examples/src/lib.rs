//! Worked examples of the Rust graph API. The SQL examples are the folders beside `src`.
//!
//! Each module is one pipeline; its test runs it.

pub mod flights;
