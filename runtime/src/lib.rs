//! The engine room: graphs of operators over Arrow batches, with event time, keyed state and checkpoints.
//!
//! A [`Graph`] is nodes and edges. The executor turns each node into subtasks (tasks that own their state), connects
//! them by channels that are bounded in bytes, and runs sources, operators and sinks until the input ends or somebody
//! stops the job. A coordinator injects barriers at the sources; when every subtask has passed one on, the changes of
//! all of them become durable in one atomic write, and the sinks make visible what they had prepared.
//!
//! The runtime knows Arrow and DataFusion's physical expressions and accumulators. It knows no SQL text, no planner and
//! no wire protocol. What connects it to the world are the traits in [`connector`].

mod batch;
pub mod conformance;
pub mod connector;
mod error;
pub mod graph;
pub mod options;
pub mod origin;
pub mod row_errors;
pub mod sql_type;
pub mod table;

mod channel;
pub mod event_time;
pub mod job;
pub mod metrics;
pub mod operator;
mod watermark;

pub mod calc;
pub mod current_watermark;
pub mod final_rows;
pub mod group_aggregate;
pub mod group_table;
pub mod join;
pub mod keyed;
pub mod keys;
pub mod lookup;
pub mod op_codes;
pub mod over;
mod pairs;
pub mod processing_time;
pub mod rank;
pub mod row;
mod row_codec;
pub mod runs;
pub mod state;
mod time_column;
pub mod unnest;
pub mod upsert;
pub mod values;
pub mod window;

pub mod failpoints;
pub mod flow;
pub mod harness;
pub mod memory;
mod planted;

pub use batch::{Batch, RowKind};
pub use connector::rejected_schema;
pub use error::{Error, OptionPart, Result, Subject};
