//! Merges of neighbouring slices that the windows of an operator share.
//!
//! A hopping window of 60 slices has 59 of them in common with the next one. So slices are merged in aligned *blocks* of 2, 4, 8, …, and a window merges the
//! largest blocks that lie within it: about `2 log2(n)` of them instead of `n` slices (a segment tree, as in Traub et al., "General stream slicing").
//!
//! ```text
//! slices   0 1 2 3 4 5 6 7 8 9
//! blocks   [0-1] [2-3] [4-5] [6-7] [8-9]
//!          [0-----3]   [4-----7]
//! window       2-3 ,    4-----7 ,  8          of the slices 2 to 8
//! ```
//!
//! Blocks are made when a window first needs them, are in memory only, and are given up when the job is over its memory budget: all of them can be made again.

use std::collections::BTreeMap;

use arrow::record_batch::RecordBatch;

/// A window with fewer slices gains nothing: making the blocks costs about two merges per slice.
pub(super) const SLICES_MIN: i64 = 16;

/// The slices with the numbers `index << level` to `((index + 1) << level) - 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Block {
    pub level: u32,
    pub index: i64,
}

impl Block {
    pub fn halves(self) -> [Block; 2] {
        let level = self.level - 1;
        [0, 1].map(|half| Block { level, index: (self.index << 1) + half })
    }
}

/// The largest blocks within the slices with the numbers `first` to `last`, in order.
pub(super) fn largest(first: i64, last: i64) -> Vec<Block> {
    let (mut blocks, mut next) = (Vec::new(), i128::from(first));
    let left = |next: i128| i128::from(last) - next + 1;
    while left(next) > 0 {
        let level = next.trailing_zeros().min(left(next).ilog2()).min(i64::BITS - 2);
        blocks.push(Block { level, index: (next >> level) as i64 });
        next += 1 << level;
    }
    blocks
}

/// The blocks that were made.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    pub merged: BTreeMap<Block, RecordBatch>,
    bytes: usize,
    /// Whether they were given up for want of memory, so that they are not made again at once.
    pub paused: bool,
}

impl Blocks {
    pub fn add(&mut self, block: Block, rows: RecordBatch) {
        self.bytes += rows.get_array_memory_size();
        self.merged.insert(block, rows);
    }

    /// Gives up the blocks of a slice, by the slice's number: the slice has changed, or no window needs it any more.
    pub fn forget(&mut self, slice: i64) {
        if self.merged.is_empty() {
            return;
        }
        for level in 1..i64::BITS {
            if let Some(rows) = self.merged.remove(&Block { level, index: slice >> level }) {
                self.bytes -= rows.get_array_memory_size();
            }
        }
    }

    /// Gives up all blocks, as the job is over its memory budget. How many bytes are free.
    pub fn give_up(&mut self) -> usize {
        std::mem::replace(self, Blocks { paused: true, ..Blocks::default() }).bytes
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_cut_into_its_largest_aligned_blocks() {
        let blocks = |first, last| -> Vec<(u32, i64)> {
            largest(first, last).into_iter().map(|block| (block.level, block.index)).collect()
        };
        assert_eq!(blocks(2, 8), [(1, 1), (2, 1), (0, 8)]);
        assert_eq!(blocks(0, 7), [(3, 0)]);
        assert_eq!(blocks(-3, 2), [(0, -3), (1, -1), (1, 0), (0, 2)]);
        assert_eq!(blocks(5, 5), [(0, 5)]);
        for first in -20..20i64 {
            for last in first..first + 40 {
                let slices = |block: Block| (block.index << block.level)..((block.index + 1) << block.level);
                let covered: Vec<i64> = largest(first, last).into_iter().flat_map(slices).collect();
                assert_eq!(covered, (first..=last).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_slice_is_in_one_block_of_each_level() {
        let rows = RecordBatch::new_empty(std::sync::Arc::new(arrow::datatypes::Schema::empty()));
        let mut blocks = Blocks::default();
        let all = [(1, -2), (1, -1), (2, -1), (1, 0), (2, 0), (3, 0)].map(|(level, index)| Block { level, index });
        all.into_iter().for_each(|block| blocks.add(block, rows.clone()));
        // The slice -3 is in -4 to -3 and in -4 to -1.
        blocks.forget(-3);
        let left: Vec<(u32, i64)> = blocks.merged.keys().map(|block| (block.level, block.index)).collect();
        assert_eq!(left, [(1, -1), (1, 0), (2, 0), (3, 0)]);
        assert_eq!(Block { level: 2, index: -1 }.halves(), [all[0], all[1]]);
        let bytes = blocks.bytes();
        assert_eq!((blocks.give_up(), blocks.bytes(), blocks.merged.len(), blocks.paused), (bytes, 0, 0, true));
    }
}
