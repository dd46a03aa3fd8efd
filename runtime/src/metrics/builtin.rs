//! The metrics that the runtime itself takes of every operator.

use super::definition::{Definition, Merge, Unit};

/// Rows taken in.
pub static ROWS_IN: Definition = Definition::counter("rows_in", Unit::Count);
/// Rows given on.
pub static ROWS_OUT: Definition = Definition::counter("rows_out", Unit::Count);
/// Bytes of rows taken in, as columns in memory.
pub static BYTES_IN: Definition = Definition::counter("bytes_in", Unit::Bytes);
/// Bytes of rows given on.
pub static BYTES_OUT: Definition = Definition::counter("bytes_out", Unit::Bytes);
/// Rows whose window had already fired.
pub static LATE_ROWS: Definition = Definition::counter("late_rows", Unit::Count);
/// Rows without an event time, which cannot enter a window.
pub static TIMELESS_ROWS: Definition = Definition::counter("timeless_rows", Unit::Count);
/// Records that could not become rows.
pub static REJECTED_ROWS: Definition = Definition::counter("rejected_rows", Unit::Count);
/// Of a sink: objects that it made visible.
pub static DELIVERED_OBJECTS: Definition = Definition::counter("delivered_objects", Unit::Count);
/// Of a sink: rows that it made visible.
pub static DELIVERED_ROWS: Definition = Definition::counter("delivered_rows", Unit::Count);
/// Of a sink: bytes that it made visible.
pub static DELIVERED_BYTES: Definition = Definition::counter("delivered_bytes", Unit::Bytes);
/// Bytes of state in memory.
pub static STATE_BYTES: Definition = Definition::gauge("state_bytes", Unit::Bytes, Merge::Sum);
/// Time spent working.
pub static BUSY: Definition = Definition::counter_of_run("busy_us", Unit::Micros);
/// Time spent waiting for room downstream (backpressured), also of a wait that has not ended.
pub static BLOCKED: Definition = Definition::counter_of_run("blocked_us", Unit::Micros);
/// Time spent waiting for input: what is left of the time since the start.
pub static IDLE: Definition = Definition::counter_of_run("idle_us", Unit::Micros);
/// How long the last barrier waited from the first input that brought it to the last.
pub static ALIGNMENT: Definition = Definition::gauge("alignment_us", Unit::Micros, Merge::Highest);
/// The event time reached; none before the first.
pub static WATERMARK: Definition = Definition::gauge("watermark_ms", Unit::Instant, Merge::Lowest);
/// What the watermark must pass for the first open window to give its result; none without an open window.
pub static NEXT_RESULT: Definition = Definition::gauge("next_result_ms", Unit::Instant, Merge::Lowest);
/// Of a source: records that it has still to read, where that is known.
pub static LAG: Definition = Definition::gauge("lag", Unit::Count, Merge::Sum);
/// Of a sink: for how long it has been making a checkpoint visible, and nothing else; none when it does not.
pub static DELIVERING: Definition = Definition::gauge("delivering_ms", Unit::Millis, Merge::Highest);

/// All of them.
pub(super) static ALL: &[&Definition] = &[
    &ROWS_IN,
    &ROWS_OUT,
    &BYTES_IN,
    &BYTES_OUT,
    &LATE_ROWS,
    &TIMELESS_ROWS,
    &REJECTED_ROWS,
    &DELIVERED_OBJECTS,
    &DELIVERED_ROWS,
    &DELIVERED_BYTES,
    &STATE_BYTES,
    &BUSY,
    &BLOCKED,
    &IDLE,
    &ALIGNMENT,
    &WATERMARK,
    &NEXT_RESULT,
    &LAG,
    &DELIVERING,
];

/// What every sink counts.
pub(crate) static OF_SINKS: &[&Definition] = &[&DELIVERED_OBJECTS, &DELIVERED_ROWS, &DELIVERED_BYTES];
