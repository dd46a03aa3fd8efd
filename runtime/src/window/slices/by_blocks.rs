//! Windows merged of blocks of slices.

use super::Slices;
use super::blocks::{Block, SLICES_MIN, largest};
use super::slice::{ALL_GROUPS, merge_all, not_opened};
use crate::Result;
use crate::group_table::GroupTable;
use crate::state::MemoryReservation;

impl Slices {
    /// Whether blocks pay for these windows, and there is memory for them.
    pub(super) fn has_blocks(&mut self) -> bool {
        if self.windows.overlapping_slices() < SLICES_MIN {
            return false;
        }
        let fair = self.reservation.as_ref().map_or(usize::MAX, MemoryReservation::fair);
        // Blocks take about as much as the slices, or more where slices have different keys.
        self.blocks.paused = self.blocks.paused && self.bytes() > fair / 4;
        !self.blocks.paused
    }

    /// Merges the slices of the window that ends at `end`, whose tables are frozen, into a table.
    pub(super) fn merge_by_blocks(&mut self, end: i64, table: &mut GroupTable) -> Result<()> {
        let first = self.windows.number_of(self.windows.start_of(end)) + 1;
        largest(first, self.windows.number_of(end)).into_iter().try_for_each(|block| self.merge_block(block, table))
    }

    fn merge_block(&mut self, block: Block, table: &mut GroupTable) -> Result<()> {
        let first = self.windows.with_number(i128::from(block.index) << block.level);
        let last = self.windows.with_number((i128::from(block.index + 1) << block.level) - 1);
        let mut slices = self.open.range(first..=last).map(|(_, slice)| slice);
        let Some(slice) = slices.next() else { return Ok(()) };
        if slices.next().is_none() {
            let runs = self.runs.as_ref().ok_or_else(not_opened)?;
            return merge_all(&self.layout, runs, table, slice.frozen.as_ref(), &slice.runs, &ALL_GROUPS);
        }
        if !self.blocks.merged.contains_key(&block) {
            let mut both = self.layout.table()?;
            for half in block.halves() {
                self.merge_block(half, &mut both)?;
            }
            let rows = self.layout.take(&mut both)?;
            self.blocks.add(block, rows);
        }
        match self.blocks.merged.get(&block) {
            Some(rows) if rows.num_rows() > 0 => self.layout.merge(table, rows.columns()),
            _ => Ok(()),
        }
    }
}
