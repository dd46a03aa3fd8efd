//! Changelogs: what a graph refuses, windows over rows that change, functions that take and emit changes.

mod aggregates;
mod functions;
mod graphs;
mod windows;

use std::sync::Arc;

use arrow::array::Int8Array;
use coulee_runtime::RowKind::{Delete, Insert, UpdateAfter, UpdateBefore};
use coulee_runtime::memory::MemorySource;
use coulee_runtime::{Batch, RowKind};
use proptest::prelude::*;

use super::windows::{InputRow, WINDOW, rows};

/// A row and what happened to it.
type Change = (RowKind, InputRow);

fn batch(changes: &[Change]) -> Batch {
    let kinds = changes.iter().map(|(kind, _)| *kind as i8).collect::<Int8Array>();
    Batch::changes(rows(&changes.iter().map(|(_, row)| *row).collect::<Vec<_>>()), kinds)
}

/// The changes dealt out to so many splits, each in order.
fn source(changes: &[Change], splits: usize) -> Arc<MemorySource> {
    let split = |split| {
        let mine: Vec<Change> = changes.iter().skip(split).step_by(splits).copied().collect();
        mine.chunks(13).map(batch).collect()
    };
    Arc::new(MemorySource::changelog(rows(&[]).schema(), (0..splits).map(split).collect()))
}

/// How long a phase of [`History`] is: two windows.
const PHASE: i64 = 2 * WINDOW;

/// A valid changelog in phases. The rows of a phase lie in its windows, and no later phase changes them.
#[derive(Debug, Clone, Default)]
struct History {
    phases: Vec<Vec<Change>>,
    /// The rows that are left.
    left: Vec<InputRow>,
}

impl History {
    /// Makes the steps into changes: insert a row, change one of those that are there into it, or delete one.
    fn of(phases: Vec<Vec<Step>>) -> Self {
        let mut history = History::default();
        for (phase, steps) in phases.into_iter().enumerate() {
            let (mut live, mut changes): (Vec<InputRow>, Vec<Change>) = Default::default();
            for Step { what, which, mut row } in steps {
                row.0 = row.0.map(|time| phase as i64 * PHASE + time);
                match what {
                    _ if live.is_empty() => {
                        changes.push((Insert, row));
                        live.push(row);
                    }
                    0 | 1 => {
                        changes.push((Insert, row));
                        live.push(row);
                    }
                    2 => {
                        let at = which % live.len();
                        changes.extend([(UpdateBefore, live[at]), (UpdateAfter, row)]);
                        live[at] = row;
                    }
                    _ => changes.push((Delete, live.swap_remove(which % live.len()))),
                }
            }
            history.phases.push(changes);
            history.left.extend(live);
        }
        history
    }

    fn changes(&self) -> Vec<Change> {
        self.phases.concat()
    }
}

/// What happens next, read by [`History::of`].
#[derive(Debug, Clone)]
struct Step {
    what: u8,
    which: usize,
    row: InputRow,
}

/// Few values, so that equal rows are there several times and are taken back one by one.
fn steps(count: usize) -> impl Strategy<Value = Vec<Step>> {
    let time = proptest::option::weighted(0.95, 0..PHASE);
    let key = prop_oneof![Just(Some("a")), Just(Some("b")), Just(None)];
    let value = proptest::option::weighted(0.9, -2i64..3);
    let step = (0u8..4, any::<usize>(), (time, key, value)).prop_map(|(what, which, row)| Step { what, which, row });
    proptest::collection::vec(step, 0..count)
}

fn histories(phases: usize, steps_per_phase: usize) -> impl Strategy<Value = History> {
    proptest::collection::vec(steps(steps_per_phase), phases).prop_map(History::of)
}
