//! Payments judged by rules that change: a source, a sink and an operator of one's own, exactly once.
//!
//! ```text
//! CsvFolder(payments) ──────────────────▶ ┐
//!                                         ├─ Judge ─▶ Outbox: suspicious payments, a file per checkpoint
//! CsvFolder(rules) ─── to every subtask ─▶ ┘
//! ```
//!
//! A rule says from when on payments of a kind are suspicious above which amount. Which rule applies to a payment is a matter of
//! event time, not of what arrives first: the operator keeps payments until the watermark says that all rules up to then are known.

mod csv_folder;
mod judge;
mod outbox;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use coulee_runtime::Result;
use coulee_runtime::flow::GraphBuilder;
use coulee_runtime::graph::Graph;

pub use csv_folder::CsvFolder;
pub use judge::Judge;
pub use outbox::Outbox;

/// How far out of order the lines of a file are.
pub const DISORDER: Duration = Duration::from_secs(5);

fn schema_of(columns: [(&str, DataType); 4]) -> SchemaRef {
    Arc::new(Schema::new(columns.map(|(name, kind)| Field::new(name, kind, true)).to_vec()))
}

/// The columns of a payment: when, of which account, of what kind, how much.
pub fn payment_schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Millisecond, None);
    schema_of([("at", time), ("account", DataType::Utf8), ("kind", DataType::Utf8), ("amount", DataType::Int64)])
}

/// The columns of a rule: from when on payments of a kind are suspicious above which amount, and why.
pub fn rule_schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Millisecond, None);
    schema_of([("at", time), ("kind", DataType::Utf8), ("above", DataType::Int64), ("reason", DataType::Utf8)])
}

/// The graph: payments and rules are read from the CSV files of two folders, suspicious payments written to a third.
///
/// # Errors
/// When a folder cannot be read.
pub fn graph(parallelism: u32, payments: &Path, rules: &Path, suspicious: &Path) -> Result<Graph> {
    let builder = GraphBuilder::new(parallelism);
    let payments =
        builder.source("payments", Arc::new(CsvFolder::new(payments, payment_schema())))?.event_time("at", DISORDER)?;
    let rules = builder.source("rules", Arc::new(CsvFolder::new(rules, rule_schema())))?.event_time("at", DISORDER)?;
    builder
        .operator("judge", Arc::new(Judge), [payments.forwarded(), rules.broadcast()])?
        .sink("suspicious", Arc::new(Outbox::new(suspicious)))?;
    builder.finish()
}

#[cfg(test)]
mod tests;
