//! Where the rows of a batch were read: which split of which source, and at which line, row or sequence number.
//!
//! A source attaches origins to its batches, and filters, projections, shuffles and gathering keep them, so that a row that
//! fails later can still be named by its place. Aggregation drops them: a result comes from many rows.
//!
//! Origins are cheap where nothing fails. A batch of consecutive records holds the first number alone; the other numbers are
//! written out (8 bytes a row) when rows are first filtered or shuffled. No text is made before a row fails.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt32Array, UInt64Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::concat;
use arrow::datatypes::{UInt32Type, UInt64Type};
use coulee_model::OperatorId;

use crate::Result;

/// A split of a source, as one batch after the other names it.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    /// The source's node in the graph of this attempt.
    pub source: OperatorId,
    /// The split's name for a person: a file's path, `flights/3` for shard 3 of a stream.
    pub name: String,
    /// What the numbers of its rows count.
    pub counts: PositionKind,
}

/// What the number of a row counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PositionKind {
    /// The source numbers nothing.
    #[default]
    Unknown,
    /// The first line of the record in its file, from 1.
    Line,
    /// The row of its file, from 1.
    Row,
    /// The record's sequence number in its shard.
    Sequence,
}

/// Where the rows of a source's batch stand in their split, in the order of the rows.
#[derive(Debug, Clone, Default)]
pub struct RowPositions {
    /// What the numbers count.
    pub counts: PositionKind,
    /// One number per row.
    pub numbers: RowNumbers,
}

/// One number per row.
#[derive(Debug, Clone)]
pub enum RowNumbers {
    /// The rows are consecutive, from this number on.
    From(u64),
    /// Each row has its own.
    Each(UInt64Array),
}

impl Default for RowNumbers {
    fn default() -> Self {
        RowNumbers::From(0)
    }
}

impl RowNumbers {
    /// One number per row, as they are; consecutive ones take no memory.
    pub fn new(numbers: Vec<u64>) -> Self {
        match numbers.first() {
            Some(first) if numbers.windows(2).all(|pair| pair[1] == pair[0] + 1) => RowNumbers::From(*first),
            _ => RowNumbers::Each(UInt64Array::new(ScalarBuffer::from(numbers), None)),
        }
    }

    /// Those of some of the rows.
    #[must_use]
    pub fn slice(&self, start: usize, rows: usize) -> Self {
        match self {
            RowNumbers::From(first) => RowNumbers::From(first + start as u64),
            RowNumbers::Each(numbers) => RowNumbers::Each(numbers.slice(start, rows)),
        }
    }

    fn of_row(&self, row: usize) -> u64 {
        match self {
            RowNumbers::From(first) => first + row as u64,
            RowNumbers::Each(numbers) => numbers.value(row),
        }
    }

    fn to_array(&self, rows: usize) -> UInt64Array {
        match self {
            RowNumbers::From(first) => UInt64Array::from_iter_values(*first..*first + rows as u64),
            RowNumbers::Each(numbers) => numbers.clone(),
        }
    }
}

/// The origins of a batch's rows.
#[derive(Debug, Clone)]
pub struct Origins {
    /// At least one.
    places: Arc<[Arc<Place>]>,
    /// Of each row, which of the places; `None` when there is one.
    place_of_row: Option<UInt32Array>,
    numbers: RowNumbers,
}

impl Origins {
    /// Rows that were all read in one place.
    pub fn new(place: Arc<Place>, numbers: RowNumbers) -> Self {
        Origins { places: Arc::new([place]), place_of_row: None, numbers }
    }

    /// The place of a row.
    pub fn place(&self, row: usize) -> &Place {
        let index = self.place_of_row.as_ref().map_or(0, |places| places.value(row) as usize);
        &self.places[index]
    }

    /// A row's origin as a text: `in.json:12`, `flights/3@1042`.
    pub fn show(&self, row: usize) -> String {
        let (place, number) = (self.place(row), self.numbers.of_row(row));
        match place.counts {
            PositionKind::Unknown => place.name.clone(),
            PositionKind::Line => format!("{}:{number}", place.name),
            PositionKind::Row => format!("{} row {number}", place.name),
            PositionKind::Sequence => format!("{}@{number}", place.name),
        }
    }

    /// Those of some of the rows.
    pub(crate) fn slice(&self, start: usize, rows: usize) -> Self {
        Origins {
            places: self.places.clone(),
            place_of_row: self.place_of_row.as_ref().map(|places| places.slice(start, rows)),
            numbers: self.numbers.slice(start, rows),
        }
    }

    /// Those of the rows for which `keep` is true.
    pub(crate) fn filter(&self, keep: &BooleanArray) -> Result<Self> {
        if let (RowNumbers::From(first), None, 0) = (&self.numbers, &self.place_of_row, keep.null_count()) {
            let mut numbers = Vec::with_capacity(keep.true_count());
            numbers.extend(keep.values().set_indices().map(|row| first + row as u64));
            return Ok(Origins { numbers: RowNumbers::new(numbers), ..self.clone() });
        }
        self.select(keep.len(), |column| Ok(arrow::compute::filter(column, keep)?))
    }

    /// Applies a selection of rows.
    pub(crate) fn select(&self, rows: usize, select: impl Fn(&dyn Array) -> Result<ArrayRef>) -> Result<Self> {
        let place_of_row = match &self.place_of_row {
            Some(places) => Some(select(places)?.as_primitive::<UInt32Type>().clone()),
            None => None,
        };
        let numbers = select(&self.numbers.to_array(rows))?.as_primitive::<UInt64Type>().clone();
        Ok(Origins { places: self.places.clone(), place_of_row, numbers: RowNumbers::Each(numbers) })
    }

    /// Those of several batches (with their numbers of rows), one behind the other.
    pub(crate) fn concat(parts: &[(Origins, usize)]) -> Result<Self> {
        let mut places: Vec<Arc<Place>> = Vec::new();
        let (mut place_of_row, mut numbers) = (Vec::new(), Vec::<ArrayRef>::new());
        for (part, rows) in parts {
            let mut found = Vec::with_capacity(part.places.len());
            for place in part.places.iter() {
                let known = places.iter().position(|known| Arc::ptr_eq(known, place));
                found.push(known.unwrap_or_else(|| {
                    places.push(place.clone());
                    places.len() - 1
                }) as u32);
            }
            match &part.place_of_row {
                None => place_of_row.resize(place_of_row.len() + rows, found[0]),
                Some(old) => place_of_row.extend(old.values().iter().map(|place| found[*place as usize])),
            }
            numbers.push(Arc::new(part.numbers.to_array(*rows)));
        }
        let numbers = concat(&numbers.iter().map(AsRef::as_ref).collect::<Vec<_>>())?;
        let place_of_row = (places.len() > 1).then(|| UInt32Array::from(place_of_row));
        let numbers = RowNumbers::Each(numbers.as_primitive::<UInt64Type>().clone());
        Ok(Origins { places: places.into(), place_of_row, numbers })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str, counts: PositionKind) -> Arc<Place> {
        Arc::new(Place { source: OperatorId(0), name: name.to_owned(), counts })
    }

    fn shown(origins: &Origins, rows: usize) -> Vec<String> {
        (0..rows).map(|row| origins.show(row)).collect()
    }

    #[test]
    fn rows_keep_their_places_through_every_selection() {
        let file = Origins::new(place("a.json", PositionKind::Line), RowNumbers::new(vec![1, 2, 5]));
        let shard = Origins::new(place("s/0", PositionKind::Sequence), RowNumbers::new(vec![7, 8, 9]));
        let kept = file.filter(&BooleanArray::from(vec![true, false, true])).unwrap();
        assert_eq!(shown(&kept, 2), ["a.json:1", "a.json:5"]);
        let of_range = shard.filter(&BooleanArray::from(vec![false, true, true])).unwrap();
        assert_eq!(shown(&of_range, 2), ["s/0@8", "s/0@9"]);
        let both = Origins::concat(&[(kept, 2), (shard.slice(1, 2), 2), (file.slice(1, 1), 1)]).unwrap();
        assert_eq!(shown(&both, 5), ["a.json:1", "a.json:5", "s/0@8", "s/0@9", "a.json:2"]);
        let taken = both.select(5, |column| Ok(arrow::compute::take(column, &UInt32Array::from(vec![4, 2]), None)?));
        assert_eq!(shown(&taken.unwrap(), 2), ["a.json:2", "s/0@8"]);
    }

    #[test]
    fn consecutive_numbers_are_not_written_out() {
        assert!(matches!(RowNumbers::new(vec![3, 4, 5]), RowNumbers::From(3)));
        assert!(matches!(RowNumbers::new(vec![3, 5]), RowNumbers::Each(_)));
        assert!(matches!(RowNumbers::new(vec![1, 1, 3]), RowNumbers::Each(_)));
        assert!(matches!(RowNumbers::new(vec![3, 4, 5]).slice(1, 2), RowNumbers::From(4)));
    }
}
