//! The gRPC service over an engine. The messages are in `proto/coulee.proto`.

mod convert;
mod json;
mod produce;
mod service;
mod tail;

/// The messages, the client and the server that `proto/coulee.proto` describes.
#[allow(missing_docs, clippy::all, reason = "generated; documented in the .proto file")]
pub mod proto;

pub(crate) use convert::status_error;
use json::state_word;
pub(crate) use service::{MESSAGE_BYTES_MAX, Server, server};
