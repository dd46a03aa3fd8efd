//! State per key: tables that are hot in memory, become durable with the checkpoint, and are served from RocksDB beyond the job's memory budget.
//!
//! ```text
//! operator ── load(keys of a batch) ──▶ table: slots in memory ◀── one multi-get ── JobStore (the last checkpoint)
//!          ── update ────────────────▶ dirty slots ── barrier ──▶ Changes ── one synced write ──▶ JobStore
//!                                      clean slots ── over budget ──▶ forgotten
//! ```
//!
//! Between two checkpoints the store stays at the last one, so what changed since must be in memory: when that outgrows the budget, a checkpoint
//! comes early. What a checkpoint holds can be forgotten and loaded again. A restart loads nothing: tables begin empty and warm up.
//!
//! - [`ValueTable`]: one value per key.
//! - [`MapTable`]: an ordered map per key.
//! - [`ListTable`]: a list per key, to which items are only added.
//! - [`Timers`]: instants per key, of event time or of processing time.
//!
//! What an operator keeps in its tables is described by a [`StateDescriptor`].

mod backend;
mod budget;
mod cache;
mod descriptor;
mod list;
mod map;
mod part;
mod stored_time;
mod timers;
mod ttl;
mod value;

#[cfg(test)]
mod tests;

pub use backend::{Backend, KeyRef};
pub use budget::{MemoryBudget, MemoryReservation};
pub(crate) use descriptor::bounded;
pub use descriptor::{Facet, FreedBy, IfChanged, OperatorState, StateColumn, StateDescriptor, StateTable, span};
pub use list::ListTable;
pub use map::{MapTable, Order};
pub use part::KeyPart;
pub(crate) use stored_time::{StoredWatermark, SubtaskTime};
pub use timers::{Timer, Timers};
pub use value::{Postcard, StateValue, ValueTable};
