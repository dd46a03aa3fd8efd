//! What a user writes: a function over the rows of one key at a time.

use coulee_model::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::KeyContext;
use crate::Result;
use crate::row::Row;

/// A function over the rows of one key at a time, with a state of its own for each key.
///
/// It is deterministic in its rows, timers and state; what it must remember is in the state, not in the function.
pub trait KeyedFunction: Send + 'static {
    /// What is remembered of a key. A key that was never seen, or whose time to live is over, has the default.
    /// Large collections are better kept in a [`MapState`](super::MapState) or [`ListState`](super::ListState), of which only what changed is written.
    type State: Serialize + DeserializeOwned + Default + Send;

    /// Whether it looks at [`Row::kind`]. A function that does not is refused a changelog when the graph is built.
    const TAKES_CHANGELOG: bool = false;

    /// Whether its main output is a changelog: it calls [`KeyContext::emit_change`]. What follows must then take one.
    const EMITS_CHANGELOG: bool = false;

    /// Takes a row of a key: changes the key's state, emits rows, registers timers.
    ///
    /// # Errors
    /// An error ends the job's attempt.
    fn process(&mut self, row: Row<'_>, state: &mut Self::State, context: &mut KeyContext<'_>) -> Result<()>;

    /// A timer of the key is due: the watermark has passed it, or the wall clock has.
    ///
    /// # Errors
    /// As `process`.
    fn timer(&mut self, timer: Due, state: &mut Self::State, context: &mut KeyContext<'_>) -> Result<()> {
        let _ = (timer, state, context);
        Ok(())
    }
}

/// Which timer is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Event time: no later row is before this instant.
    Event(Timestamp),
    /// Processing time: the wall clock is at this instant or past it.
    Processing(Timestamp),
}
