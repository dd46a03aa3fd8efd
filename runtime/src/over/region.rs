//! The part of a partition that changes of its rows reach: the rows whose columns they may change, behind those that these are computed of.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow, Range};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::entry::RowKey;
use super::spec::OverSpec;
use crate::state::{MapTable, Order};
use crate::{Error, Result};

/// The value of a stored row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stored {
    /// How many bytes of the map key are the order.
    pub peer_bytes: u32,
    /// The order as a number, where a frame has a bound in it.
    pub number: Option<i64>,
    /// What was emitted for each copy of the row, in Arrow's row format; `None` for one whose columns could not be computed.
    pub emitted: Vec<Option<Vec<u8>>>,
}

impl Stored {
    pub fn encode(&self) -> Result<Bytes> {
        let bytes = postcard::to_allocvec(self);
        bytes.map(Bytes::from).map_err(|error| Error::internal(format!("a row of OVER cannot be encoded: {error}")))
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        postcard::from_bytes(bytes)
            .map_err(|error| Error::corrupt(format!("a stored row of OVER cannot be read: {error}")))
    }
}

/// What a batch does to a row of a partition.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub key: RowKey,
    /// The order as a number, where a frame has a bound in it.
    pub number: Option<i64>,
    /// How many copies come, less those that go.
    pub copies: i64,
}

/// A row of the region.
#[derive(Debug)]
pub(super) struct Entry {
    pub key: RowKey,
    pub number: Option<i64>,
    /// See [`Stored::emitted`].
    pub emitted: Vec<Option<Vec<u8>>>,
    /// How many copies there are after the changes.
    pub copies: usize,
}

/// Rows of a partition in their order, with the changes made to them.
#[derive(Debug)]
pub(super) struct Region {
    pub entries: Vec<Entry>,
    /// The entries that the changes reach; the others are only read.
    pub reached: Range<usize>,
}

impl Region {
    /// Reads the region of the changes of a partition, by their keys, and makes them. A copy that is to go and is not there (its time to live has passed) is
    /// passed over.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn read(
        table: &mut MapTable,
        partition: u32,
        spec: &OverSpec,
        changes: &BTreeMap<Vec<u8>, Change>,
    ) -> Result<Self> {
        let (Some((_, first)), Some((_, last))) = (changes.first_key_value(), changes.last_key_value()) else {
            return Ok(Region { entries: Vec::new(), reached: 0..0 });
        };
        if spec.needs_partitions() {
            let mut entries = Vec::new();
            table.scan(partition, (Bound::Unbounded, Bound::Unbounded), Order::Ascending, |key, stored| {
                entries.push(entry(key, stored)?);
                Ok(ControlFlow::Continue(()))
            })?;
            make(&mut entries, changes);
            return Ok(Region { reached: 0..entries.len(), entries });
        }
        let (mut entries, before) = Way::before(spec, first).walk(table, partition, first)?;
        entries.reverse();
        let start = entries.len() - before;
        let (below, behind) = Way::behind(spec, last).walk(table, partition, first)?;
        let only_read = below.len() - behind;
        entries.extend(below);
        make(&mut entries, changes);
        Ok(Region { reached: start..entries.len() - only_read, entries })
    }
}

/// A walk from the changes in one direction: over the rows whose columns they may change, and then over those that the columns of these are computed of.
struct Way<'a> {
    order: Order,
    spec: &'a OverSpec,
    /// The change that is furthest in this direction.
    from: &'a Change,
    /// Rows, and how far in the order, that columns look against this direction: so far changes reach.
    reach: (usize, Option<i64>),
    /// The same in this direction: so far the columns of what is reached look.
    look: (usize, Option<i64>),
}

impl<'a> Way<'a> {
    fn before(spec: &'a OverSpec, from: &'a Change) -> Self {
        let (ahead, back) = ((spec.rows_ahead(), spec.range_ahead()), (spec.rows_back(), spec.range_back()));
        Way { order: Order::Descending, spec, from, reach: ahead, look: back }
    }

    fn behind(spec: &'a OverSpec, from: &'a Change) -> Self {
        let (ahead, back) = ((spec.rows_ahead(), spec.range_ahead()), (spec.rows_back(), spec.range_back()));
        Way { order: Order::Ascending, spec, from, reach: back, look: ahead }
    }

    /// The rows in the order of the walk, and how many of the first ones are reached. The walk up is of the rows before the first change, the walk down of those
    /// from it on.
    fn walk(&self, table: &mut MapTable, partition: u32, first: &Change) -> Result<(Vec<Entry>, usize)> {
        let bounds = match self.order {
            Order::Descending => (Bound::Unbounded, Bound::Excluded(first.key.bytes.as_slice())),
            Order::Ascending => (Bound::Included(first.key.bytes.as_slice()), Bound::Unbounded),
        };
        let (mut entries, mut reached, mut is_reading) = (Vec::new(), 0, false);
        // Of the last row that is reached.
        let (mut number, mut peers) = (self.from.number, self.from.key.peers().to_vec());
        let (mut rows_reached, mut rows_read) = (0, 0);
        table.scan(partition, bounds, self.order, |key, stored| {
            let entry = entry(key, stored)?;
            let is_among_changes = self.order == Order::Ascending && entry.key <= self.from.key;
            let is_reached = is_among_changes
                || rows_reached < self.reach.0
                || is_within(self.reach.1, self.from.number, entry.number)
                || (self.spec.sees_peers() && entry.key.peers() == peers);
            if is_reached && !is_reading {
                reached += 1;
                if !is_among_changes {
                    rows_reached += entry.copies;
                    (number, peers) = (entry.number, entry.key.peers().to_vec());
                }
            } else if rows_read < self.look.0 || is_within(self.look.1, number, entry.number) {
                is_reading = true;
                rows_read += entry.copies;
            } else {
                return Ok(ControlFlow::Break(()));
            }
            entries.push(entry);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok((entries, reached))
    }
}

/// Whether two rows are at most so far from each other in the order.
fn is_within(span: Option<i64>, one: Option<i64>, other: Option<i64>) -> bool {
    matches!((span, one, other), (Some(span), Some(one), Some(other)) if one.abs_diff(other) <= span.unsigned_abs())
}

fn entry(key: &[u8], stored: &[u8]) -> Result<Entry> {
    let Stored { peer_bytes, number, emitted } = Stored::decode(stored)?;
    Ok(Entry { key: RowKey::new(key.to_vec(), peer_bytes as usize)?, number, copies: emitted.len(), emitted })
}

/// Makes the changes to entries, which are in the order of their keys, before and after.
fn make(entries: &mut Vec<Entry>, changes: &BTreeMap<Vec<u8>, Change>) {
    let there = entries.len();
    for change in changes.values() {
        match entries[..there].binary_search_by(|entry| entry.key.cmp(&change.key)) {
            Ok(place) => {
                let entry = &mut entries[place];
                entry.copies = (entry.copies as i64 + change.copies).max(0) as usize;
            }
            Err(_) if change.copies > 0 => {
                let (key, number, copies) = (change.key.clone(), change.number, change.copies as usize);
                entries.push(Entry { key, number, emitted: Vec::new(), copies });
            }
            Err(_) => {}
        }
    }
    // The two parts are sorted, and the sort only merges them.
    entries.sort_by(|one, other| one.key.cmp(&other.key));
}
