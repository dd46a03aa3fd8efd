//! The rows of a partition that are computed at once.

use std::ops::Range;

use super::entry::{Numbers, RowKey};

/// The rows of a partition within those of many.
pub(super) struct Stretch {
    /// The keys of its rows, in their order.
    pub keys: Vec<RowKey>,
    /// Where its rows are.
    pub rows: Range<usize>,
    /// The first row that is computed; those before were emitted earlier.
    pub new: usize,
    /// The peers that the last row before `new` belonged to, if there was one.
    pub done: Option<Vec<u8>>,
    /// The numbers of that row; afterwards, of the last row.
    pub numbers: Numbers,
    /// The states of the accumulators without a bound after that row; afterwards, after the last row.
    pub running: Vec<u8>,
}

impl Stretch {
    pub fn peers(&self, row: usize) -> &[u8] {
        self.keys[row - self.rows.start].peers()
    }

    /// The new rows in groups of peers.
    pub fn peer_groups(&self) -> Vec<Range<usize>> {
        let (mut groups, mut start) = (Vec::new(), self.new);
        for row in self.new..self.rows.end {
            if row + 1 == self.rows.end || self.peers(row) != self.peers(row + 1) {
                groups.push(start..row + 1);
                start = row + 1;
            }
        }
        groups
    }
}
