//! What a batch brings to a partition, and what has changed between two lists of a partition's first rows.

use std::collections::BTreeMap;

use super::spec::{RankFunction, RankSpec};
use crate::RowKind;

/// A row as it is kept, and its number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ranked {
    pub key: Vec<u8>,
    pub number: u64,
}

/// A partition's first rows before and after a batch.
#[derive(Default)]
pub(super) struct BeforeAndAfter {
    pub before: Vec<Ranked>,
    pub after: Vec<Ranked>,
}

/// A row of a batch as it is kept.
pub(super) struct KeptRow {
    pub partition: Vec<u8>,
    pub hash: u64,
    /// The order and then the columns.
    pub key: Vec<u8>,
    /// How many bytes of the key are the order.
    pub order_bytes: u32,
}

/// A row of the changelog.
pub(super) struct Change {
    pub kind: RowKind,
    pub row: Ranked,
}

impl Change {
    fn new(kind: RowKind, row: &Ranked) -> Self {
        Change { kind, row: row.clone() }
    }
}

/// Adds what leads from one list to the other, of the rows whose numbers are asked for.
pub(super) fn difference(spec: &RankSpec, before: &[Ranked], after: &[Ranked], changes: &mut Vec<Change>) {
    let asked = |rows: &[Ranked]| -> Vec<Ranked> {
        let rows = rows.iter().filter(|row| row.number >= spec.from).cloned();
        // Where the number is not wanted, a row is the same whatever its number is.
        rows.map(|row| Ranked { number: if spec.has_number { row.number } else { 0 }, ..row }).collect()
    };
    let (before, after) = (asked(before), asked(after));
    if spec.has_number && spec.function == RankFunction::RowNumber {
        return by_number(&before, &after, changes);
    }
    let mut left: BTreeMap<&Ranked, i64> = BTreeMap::new();
    after.iter().for_each(|row| *left.entry(row).or_default() += 1);
    before.iter().for_each(|row| *left.entry(row).or_default() -= 1);
    let mut take = |row: &Ranked, sign: i64| {
        let count = left.get_mut(row).filter(|count| **count * sign > 0)?;
        *count -= sign;
        Some(())
    };
    let gone: Vec<Change> =
        before.iter().filter_map(|row| take(row, -1).map(|()| Change::new(RowKind::Delete, row))).collect();
    changes.extend(gone);
    changes.extend(after.iter().filter_map(|row| take(row, 1).map(|()| Change::new(RowKind::Insert, row))));
}

/// Each number has one row at most: another row at a number is an update.
fn by_number(before: &[Ranked], after: &[Ranked], changes: &mut Vec<Change>) {
    for index in 0..before.len().max(after.len()) {
        match (before.get(index), after.get(index)) {
            (Some(old), Some(new)) if old.key != new.key => {
                changes.push(Change::new(RowKind::UpdateBefore, old));
                changes.push(Change::new(RowKind::UpdateAfter, new));
            }
            (Some(old), None) => changes.push(Change::new(RowKind::Delete, old)),
            (None, Some(new)) => changes.push(Change::new(RowKind::Insert, new)),
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
}
