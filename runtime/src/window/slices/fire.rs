//! Firing: when the watermark passes the end of a window, the window's slices are merged into its result.
//!
//! - A slice is given up when its last window fires. A tumbling window, which is one slice, is closed without a copy.
//! - A hopping window merges its slices: at most `size / slide` of them (more where the size is no multiple of the slide), or the `blocks` that windows share.
//! - Cumulating windows that begin together grow by one slice each. When one has fired, its slices are *folded* into one, so that the next window merges two.
//!
//! The next window to fire is found from the slices that are there, so that a span without rows fires nothing and holds nothing up. A window whose runs
//! outgrow the operator's part of the memory budget is closed range by range of key groups.

use std::ops::Bound;

use coulee_model::{KeyGroup, Timestamp};

use super::slice::{ALL_GROUPS, Slice, TABLE_FACTOR, merge_all, not_opened};
use super::{Closing, Slices};
use crate::group_table::GroupTable;
use crate::state::MemoryReservation;
use crate::window::kind::is_over;
use crate::window::layout::Closed;
use crate::{Error, Result};

impl Slices {
    /// The end of the next window that fires.
    fn next_end(&self) -> Option<i64> {
        // A later slice is in no window that is over before the first one of an earlier slice.
        let slice = *self.open.first_key_value()?.0;
        Some(self.windows.next_end(slice, self.fired).unwrap_or_else(|| self.windows.last_end(slice)))
    }

    /// What the watermark must reach for the next window to fire.
    pub(in crate::window) fn next_result(&self) -> Option<Timestamp> {
        self.next_end().map(|end| Timestamp(end.saturating_sub(1)))
    }

    /// The slices of the window that ends at `end`.
    fn of_window(&self, end: i64) -> (Bound<i64>, Bound<i64>) {
        (Bound::Excluded(self.windows.start_of(end)), Bound::Included(end))
    }

    /// Fires the first window that the watermark has passed, or a part of it: its end and what it gives, with no rows where a part is empty.
    /// `None` when no window is left to fire.
    pub(in crate::window) fn take_due(&mut self, watermark: Timestamp) -> Result<Option<(i64, Closed)>> {
        if self.closing.is_some() {
            return self.close_part().map(Some);
        }
        let Some(end) = self.next_end().filter(|end| is_over(*end, watermark)) else {
            self.fired = self.fired.max(watermark);
            return Ok(None);
        };
        self.fired = self.fired.max(Timestamp(end.saturating_sub(1)));
        let slices = self.open.range_mut(self.of_window(end));
        let bytes = slices.map(|(_, slice)| slice.runs.stored_bytes()).sum::<usize>() * TABLE_FACTOR;
        let parts = bytes.div_ceil(self.reservation.as_ref().map_or(usize::MAX, MemoryReservation::fair).max(1));
        if parts > 1 {
            for (_, slice) in self.open.range_mut(self.of_window(end)) {
                slice.freeze(&self.layout)?;
            }
            let step = (usize::from(KeyGroup::COUNT) / parts).max(1);
            let range = |start: usize| start as u16..(start + step).min(usize::from(KeyGroup::COUNT)) as u16;
            let ranges = (0..usize::from(KeyGroup::COUNT)).step_by(step).map(range).rev().collect();
            self.closing = Some(Closing { end, ranges });
            return self.close_part().map(Some);
        }
        let table = self.merged(end)?;
        self.fold(end)?;
        self.result(end, table).map(Some)
    }

    /// A table of all that a window holds. The slices of which this is the last window are gone afterwards.
    fn merged(&mut self, end: i64) -> Result<GroupTable> {
        let (windows, slices) = (self.windows, self.of_window(end));
        if self.has_blocks() {
            for (_, slice) in self.open.range_mut(slices) {
                slice.freeze(&self.layout)?;
            }
            let mut table = self.layout.table()?;
            self.merge_by_blocks(end, &mut table)?;
            self.give_up(end)?;
            return Ok(table);
        }
        let (layout, runs) = (&self.layout, self.runs.as_mut().ok_or_else(not_opened)?);
        let first = self.open.range(slices).next().map(|(slice, _)| *slice);
        let given_up = first.filter(|slice| windows.last_end(*slice) <= end).and_then(|slice| self.open.remove(&slice));
        let mut table = match given_up {
            // It lends its table.
            Some(Slice { mut table, frozen, runs: set }) => {
                let set = runs.retire(set);
                merge_all(layout, runs, &mut table, frozen.as_ref(), &set, &ALL_GROUPS)?;
                table
            }
            None => layout.table()?,
        };
        for (_, slice) in self.open.range_mut(slices) {
            slice.freeze(layout)?;
            merge_all(layout, runs, &mut table, slice.frozen.as_ref(), &slice.runs, &ALL_GROUPS)?;
        }
        self.give_up(end)?;
        Ok(table)
    }

    /// Gives up the slices of which the window that ends at `end` was the last. What is left of them is in the store until the next checkpoint.
    fn give_up(&mut self, end: i64) -> Result<()> {
        let runs = self.runs.as_mut().ok_or_else(not_opened)?;
        // The last window of an earlier slice is not over later.
        while let Some(first) = self.open.first_entry()
            && self.windows.last_end(*first.key()) <= end
        {
            let (slice_end, slice) = first.remove_entry();
            self.blocks.forget(self.windows.number_of(slice_end));
            let _ = runs.retire(slice.runs);
        }
        Ok(())
    }

    /// The next range of the window that is being closed.
    fn close_part(&mut self) -> Result<(i64, Closed)> {
        let Some(mut closing) = self.closing.take() else { return Err(Error::internal("no window is being closed")) };
        let (end, slices) = (closing.end, self.of_window(closing.end));
        let mut table = self.layout.table()?;
        if let Some(range) = closing.ranges.pop() {
            let runs = self.runs.as_ref().ok_or_else(not_opened)?;
            for (_, slice) in self.open.range(slices) {
                let frozen = slice.frozen.as_ref().map(|rows| runs.of_groups(rows.clone(), &range)).transpose()?;
                merge_all(&self.layout, runs, &mut table, frozen.as_ref(), &slice.runs, &range)?;
            }
        }
        if closing.ranges.is_empty() {
            self.give_up(end)?;
            self.fold(end)?;
        } else {
            self.closing = Some(closing);
        }
        self.result(end, table)
    }

    /// Makes one slice of those of a cumulating window that has fired: the windows that are open hold either all of them or none. Large slices are left alone.
    fn fold(&mut self, end: i64) -> Result<()> {
        if !self.windows.slices_can_fold() {
            return Ok(());
        }
        let largest = self.merged_bytes_max();
        let small = |(_, slice): &(&i64, &Slice)| slice.runs.stored_bytes() <= largest;
        let mut ends: Vec<i64> =
            self.open.range(self.of_window(end)).filter(small).map(|(slice, _)| *slice).rev().collect();
        let (Some(first), Some(runs)) = (ends.pop(), &mut self.runs) else { return Ok(()) };
        for slice_end in ends {
            let Some(mut slice) = self.open.remove(&slice_end) else { continue };
            slice.freeze(&self.layout)?;
            let set = runs.retire(slice.runs);
            if let Some(into) = self.open.get_mut(&first) {
                merge_all(&self.layout, runs, &mut into.table, slice.frozen.as_ref(), &set, &ALL_GROUPS)?;
            }
        }
        Ok(())
    }

    /// What a table that holds all of a window, or of a part of it, gives.
    fn result(&mut self, end: i64, mut table: GroupTable) -> Result<(i64, Closed)> {
        let closed = self.layout.close(&mut table)?;
        if closed.missing > 0 && !std::mem::replace(&mut self.said_missing, true) {
            tracing::warn!(
                operator = self.operator.0,
                subtask = self.subtask.0,
                rows = closed.missing,
                "rows of a window were taken back more often than they came, which counts as nothing; said once"
            );
        }
        Ok((end, closed))
    }
}
