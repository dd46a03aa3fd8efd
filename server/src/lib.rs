//! The engine assembled, and its network faces.
//!
//! ```text
//!  SQL script ─▶ Engine::run_script ─▶ plan (sql) ─▶ Job ─▶ supervise ─▶ runtime::job::launch
//!                     │                                │         └─ again from the last checkpoint after a failure
//!                     └ ScriptEvents                   └─ job.json, state/, spool/ below <data>/jobs/<name>/
//!
//!  HTTP ─▶ http ─▶ metrics ─▶ Engine
//!  gRPC ─▶ rpc (the service) ─▶ Engine          client::in_process(engine) ─▶ rpc, without a socket
//! ```
//!
//! An [`Engine`] owns a data folder: the log, the jobs and their state. It is the only place that knows every connector.
//! `coulee run` uses it in process, [`serve`](serve::serve) puts it behind gRPC; both are the same code, and so are the
//! client of a server and the client of an engine in process ([`client`]).
//!
//! What leaves here as a value: [`JobReport`] for jobs, [`ScriptEvent`] for scripts. Terminals and settings files are `cli`'s.

mod error;
pub mod settings;

// The data folder.
mod folder;
mod registry;

// Jobs and scripts.
mod blocking;
mod engine;
mod forget;
mod job;
mod output;
mod plan;
mod restart;
mod results;
mod savepoints;
mod script;
mod snapshots;
mod span;

// HTTP.
pub mod http;
mod metrics;

// gRPC.
pub mod client;
mod kept;
mod key;
mod rpc;
pub mod serve;

pub use engine::{Closing, Components, Engine, Left, Start, faults_from_environment};
pub use error::{Error, Result};
pub use job::{
    Desired, Failure, Figures, Finding, FindingCode, JobReport, JobState, Operator, OperatorKind, Progress, QUIET,
    Rates, Rejection, Retry, SinkTarget, Snapshot, Split, Subtask, diagnose,
};
pub use output::{PrintGuard, print_behind, query_rows};
pub use results::Page;
pub use rpc::proto;
pub use savepoints::{KeptSnapshot, SavepointRequest};
pub use script::{Script, ScriptEvent, ScriptRun};
pub use settings::EngineSettings;
pub use span::span;

/// The text of a script from the bytes of its file.
pub use coulee_sql::script_text;

/// The record batches that scripts and results hand out.
pub use arrow::record_batch::RecordBatch;
/// How JSON output writes NaN and infinities.
pub use coulee_connectors::format::NonFinite;
/// Options as connectors declare them, and those that every table has, for the reference.
pub use coulee_runtime::options::OptionSpec;
/// Where a record or row was rejected.
pub use coulee_runtime::row_errors::Stage;
pub use coulee_runtime::state::StateDescriptor;
pub use coulee_runtime::table::COMMON_OPTIONS;

#[cfg(test)]
mod tests;
