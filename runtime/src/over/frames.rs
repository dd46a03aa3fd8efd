//! Which rows the frame of a row has.

use std::ops::Range;

use arrow::array::{Array, Int64Array};

use super::spec::{Frame, FrameUnit};
use super::stretch::Stretch;
use crate::{Error, Result};

/// The rows of the frame of each new row; of a frame without rows, an empty range. `order`: the order as numbers, where an offset is one of these.
///
/// # Errors
/// When an order is missing.
pub(super) fn frames(frame: Frame, order: Option<&Int64Array>, stretches: &[Stretch]) -> Result<Vec<Range<usize>>> {
    let mut frames = Vec::new();
    for stretch in stretches {
        match frame.unit {
            FrameUnit::Rows => {
                frames.extend((stretch.new..stretch.rows.end).map(|row| of_row(frame, row, &stretch.rows)));
            }
            FrameUnit::Range => of_peers(frame, order, stretch, &mut frames)?,
        }
    }
    Ok(frames)
}

fn of_row(frame: Frame, row: usize, rows: &Range<usize>) -> Range<usize> {
    let at = |offset: i64| {
        let place = (row as i64).saturating_add(offset);
        usize::try_from(place).unwrap_or_default().clamp(rows.start, rows.end)
    };
    let start = frame.from.map_or(rows.start, at);
    let end = frame.to.map_or(rows.end, |to| at(to.saturating_add(1)));
    start..end.max(start)
}

/// The frames of the new rows of a stretch, which are those of their peers. A null in the order is no number: no offset leads to it or from it.
fn of_peers(frame: Frame, order: Option<&Int64Array>, stretch: &Stretch, frames: &mut Vec<Range<usize>>) -> Result<()> {
    let numbers = order.map(|order| Numbers::of(order, &stretch.rows));
    for group in stretch.peer_groups() {
        let at = |offset: i64, is_end: bool| match (offset, &numbers) {
            (0, _) => Ok(if is_end { group.end } else { group.start }),
            (offset, Some(numbers)) => Ok(numbers.bound(&group, offset, is_end)),
            (_, None) => Err(Error::internal("a RANGE with a number has no order")),
        };
        let from = frame.from.map_or(Ok(stretch.rows.start), |offset| at(offset, false))?;
        let to = frame.to.map_or(Ok(stretch.rows.end), |offset| at(offset, true))?;
        frames.extend(group.map(|_| from..to.max(from)));
    }
    Ok(())
}

/// The order of a stretch as numbers, ascending.
struct Numbers<'a> {
    order: &'a Int64Array,
    /// The rows that have one: nulls are all before them or all behind them.
    rows: Range<usize>,
}

impl<'a> Numbers<'a> {
    fn of(order: &'a Int64Array, rows: &Range<usize>) -> Self {
        let start = rows.clone().find(|row| order.is_valid(*row)).unwrap_or(rows.end);
        let end = rows.clone().rev().find(|row| order.is_valid(*row)).map_or(start, |row| row + 1);
        Numbers { order, rows: start..end }
    }

    /// The first row that is at least so far behind the peers, or the one behind the last row that is at most so far. The peers themselves, if they have no number.
    fn bound(&self, peers: &Range<usize>, offset: i64, is_end: bool) -> usize {
        if self.order.is_null(peers.start) {
            return if is_end { peers.end } else { peers.start };
        }
        let wanted = self.order.value(peers.start).saturating_add(offset);
        let is_before = |number: &i64| if is_end { *number <= wanted } else { *number < wanted };
        self.rows.start + self.order.values()[self.rows.clone()].partition_point(is_before)
    }
}
