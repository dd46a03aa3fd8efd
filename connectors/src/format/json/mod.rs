//! JSON records: one object each, columns found by name.

mod column;
mod decode;
mod encode;
mod scan;

pub use column::Column;
pub use decode::{JsonDecoder, append_plain};
pub use encode::JsonEncoder;
