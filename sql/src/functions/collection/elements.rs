//! Functions of arrays.
//!
//! Elements are compared by their row encoding, in which null equals null; what a function keeps is a list of indices into the elements, taken once.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, ListArray, UInt32Array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{concat, interleave, take};
use arrow::datatypes::{DataType, Field, Int32Type};
use arrow::row::{Row, RowConverter, Rows, SortField};
use datafusion_common::{Result, exec_err};

use crate::functions::call::Call;

/// An element of a list.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    pub key: Row<'a>,
    /// Where it stands among all elements.
    pub index: u32,
    pub is_null: bool,
}

impl PartialEq for Item<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

pub(super) fn distinct(items: Vec<Item<'_>>) -> Vec<Item<'_>> {
    let mut seen = std::collections::HashSet::new();
    items.into_iter().filter(|item| seen.insert(item.key)).collect()
}

/// The elements of lists (and single values, as lists of one) of one type, row by row.
struct Elements {
    /// All of them, argument after argument.
    all: ArrayRef,
    /// Where each row's elements begin and end, by argument; nothing for a null list.
    ranges: Vec<Vec<Option<(usize, usize)>>>,
}

impl Elements {
    fn new(call: &Call<'_>, arguments: usize) -> Result<Self> {
        let (mut parts, mut ranges, mut base) = (Vec::new(), Vec::new(), 0);
        for index in 0..arguments {
            let column = call.column(index)?;
            let (values, rows): (ArrayRef, Vec<_>) = match column.as_list_opt::<i32>() {
                Some(list)
                    if index == 0
                        || matches!(call.raw(0)?.data_type(), DataType::List(item) if item.data_type() != column.data_type()) =>
                {
                    let offsets = list.value_offsets();
                    let range = |row: usize| {
                        list.is_valid(row).then(|| (base + offsets[row] as usize, base + offsets[row + 1] as usize))
                    };
                    (Arc::clone(list.values()), (0..call.rows).map(range).collect())
                }
                _ => {
                    let rows = (0..call.rows).map(|row| Some((base + row, base + row + 1))).collect();
                    (column, rows)
                }
            };
            base += values.len();
            ranges.push(rows);
            parts.push(values);
        }
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        Ok(Elements { all: concat(&parts)?, ranges })
    }

    fn rows(&self) -> Result<Rows> {
        let converter = RowConverter::new(vec![SortField::new(self.all.data_type().clone())])?;
        Ok(converter.convert_columns(&[Arc::clone(&self.all)])?)
    }

    fn items<'a>(&self, rows: &'a Rows, (start, end): (usize, usize)) -> Vec<Item<'a>> {
        let item = |at: usize| Item { key: rows.row(at), index: at as u32, is_null: self.all.is_null(at) };
        (start..end).map(item).collect()
    }
}

/// A list for each row of the elements that a function keeps of the row's lists; null if a list is.
pub(super) fn combined(call: &Call<'_>, of: impl for<'a> Fn(&[Vec<Item<'a>>]) -> Vec<Item<'a>>) -> Result<ArrayRef> {
    let elements = Elements::new(call, call.len())?;
    let rows = elements.rows()?;
    let lists = (0..call.rows).map(|row| {
        let ranges = elements.ranges.iter().map(|ranges| ranges[row]).collect::<Option<Vec<_>>>()?;
        let lists: Vec<Vec<Item<'_>>> = ranges.into_iter().map(|range| elements.items(&rows, range)).collect();
        Some(of(&lists).into_iter().map(|item| item.index).collect::<Vec<u32>>())
    });
    list_rows(&elements.all, lists)
}

/// Lists of elements by their indices.
fn list_rows(all: &ArrayRef, lists: impl Iterator<Item = Option<Vec<u32>>>) -> Result<ArrayRef> {
    let (mut indices, mut lengths, mut valid) = (Vec::new(), Vec::new(), Vec::new());
    for list in lists {
        valid.push(list.is_some());
        let list = list.unwrap_or_default();
        lengths.push(list.len());
        indices.extend(list);
    }
    let values = take(all, &UInt32Array::from(indices), None)?;
    let field = Arc::new(Field::new("item", values.data_type().clone(), true));
    Ok(Arc::new(ListArray::try_new(field, OffsetBuffer::from_lengths(lengths), values, Some(NullBuffer::from(valid)))?))
}

/// One element of each row's list.
pub(super) fn picked(
    call: &Call<'_>,
    of: impl for<'a, 'b> Fn(&'b [Item<'a>]) -> Option<&'b Item<'a>>,
) -> Result<ArrayRef> {
    let elements = Elements::new(call, 1)?;
    let rows = elements.rows()?;
    let index = |row: usize| {
        let items = elements.items(&rows, elements.ranges[0][row]?);
        of(&items).map(|item| item.index)
    };
    Ok(take(&elements.all, &(0..call.rows).map(index).collect::<UInt32Array>(), None)?)
}

pub(super) fn array(call: &Call<'_>) -> Result<ArrayRef> {
    let columns = (0..call.len()).map(|index| call.column(index)).collect::<Result<Vec<_>>>()?;
    let parts: Vec<&dyn Array> = columns.iter().map(AsRef::as_ref).collect();
    let places: Vec<(usize, usize)> =
        (0..call.rows).flat_map(|row| (0..parts.len()).map(move |column| (column, row))).collect();
    let values = interleave(&parts, &places)?;
    let field = Arc::new(Field::new("item", values.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(parts.len(), call.rows));
    Ok(Arc::new(ListArray::try_new(field, offsets, values, None)?))
}

pub(super) fn cardinality(call: &Call<'_>) -> Result<ArrayRef> {
    let column = call.column(0)?;
    let offsets = match column.data_type() {
        DataType::Map(..) => column.as_map().value_offsets().to_vec(),
        _ => column.as_list::<i32>().value_offsets().to_vec(),
    };
    call.rows_of::<Int32Type>(|row| column.is_valid(row).then(|| offsets[row + 1] - offsets[row]))
}

pub(super) fn element(call: &Call<'_>) -> Result<ArrayRef> {
    let column = call.column(0)?;
    let list = column.as_list::<i32>();
    let indices = (0..call.rows).map(|row| {
        let (start, end) = (list.value_offsets()[row], list.value_offsets()[row + 1]);
        match end - start {
            _ if list.is_null(row) => Ok(None),
            0 => Ok(None),
            1 => Ok(Some(start)),
            length => exec_err!("ELEMENT: the array has {length} elements, expected one"),
        }
    });
    Ok(take(list.values(), &indices.collect::<Result<Int32Array>>()?, None)?)
}

pub(super) fn contains(call: &Call<'_>) -> Result<ArrayRef> {
    let elements = Elements::new(call, 2)?;
    let rows = elements.rows()?;
    call.bool_rows(|row| {
        let (start, end) = elements.ranges[0][row]?;
        let (needle, _) = elements.ranges[1][row]?;
        Some((start..end).any(|at| rows.row(at) == rows.row(needle)))
    })
}

pub(super) fn position(call: &Call<'_>) -> Result<ArrayRef> {
    let elements = Elements::new(call, 2)?;
    let rows = elements.rows()?;
    call.rows_of::<Int32Type>(|row| {
        let (start, end) = elements.ranges[0][row]?;
        let (needle, _) = elements.ranges[1][row].filter(|(needle, _)| elements.all.is_valid(*needle))?;
        let found = (start..end).position(|at| rows.row(at) == rows.row(needle));
        i32::try_from(found.map_or(0, |at| at + 1)).ok()
    })
}

pub(super) fn sort(call: &Call<'_>) -> Result<ArrayRef> {
    let elements = Elements::new(call, 1)?;
    let rows = elements.rows()?;
    let flag = |index: usize| if call.len() > index { call.bools(index).map(Some) } else { Ok(None) };
    let (ascending, nulls_first) = (flag(1)?, flag(2)?);
    let lists = (0..call.rows).map(|row| {
        let ascending = ascending.as_ref().map_or(Some(true), |flags| flags.get(row))?;
        let nulls_first = nulls_first.as_ref().map_or(Some(ascending), |flags| flags.get(row))?;
        let mut items = elements.items(&rows, elements.ranges[0][row]?);
        items.sort_by(|a, b| {
            let by_null = (a.is_null != nulls_first).cmp(&(b.is_null != nulls_first));
            let by_key = a.key.cmp(&b.key);
            if a.is_null == b.is_null { if ascending { by_key } else { by_key.reverse() } } else { by_null }
        });
        Some(items.into_iter().map(|item| item.index).collect())
    });
    list_rows(&elements.all, lists)
}

pub(super) fn slice(call: &Call<'_>) -> Result<ArrayRef> {
    let column = call.column(0)?;
    let list = column.as_list::<i32>();
    let from = call.wholes(1)?;
    let to = if call.len() > 2 { Some(call.wholes(2)?) } else { None };
    let lists = (0..call.rows).map(|row| {
        if list.is_null(row) {
            return None;
        }
        let (start, end) = (i64::from(list.value_offsets()[row]), i64::from(list.value_offsets()[row + 1]));
        let length = end - start;
        // From 1; a position in front of the first is the first.
        let position = |position: i64| if position < 0 { length + position + 1 } else { position };
        let from = position(from.get(row)?).max(1);
        let to = to.as_ref().map_or(Some(length), |to| to.get(row).map(position))?.min(length);
        Some((start + from - 1..start + to).filter_map(|at| u32::try_from(at).ok()).collect())
    });
    list_rows(list.values(), lists)
}

pub(super) fn join(call: &Call<'_>) -> Result<ArrayRef> {
    let column = call.column(0)?;
    let list = column.as_list::<i32>();
    let texts = list.values().as_string::<i32>();
    let separators = call.texts(1)?;
    let replacements = if call.len() > 2 { Some(call.texts(2)?) } else { None };
    call.text_rows(|row, out| {
        if list.is_null(row) {
            return None;
        }
        let separator = separators.get(row)?;
        let replacement = match &replacements {
            Some(replacements) => Some(replacements.get(row)?),
            None => None,
        };
        let range = list.value_offsets()[row] as usize..list.value_offsets()[row + 1] as usize;
        let text = |at: usize| if texts.is_null(at) { replacement } else { Some(texts.value(at)) };
        for (index, text) in range.filter_map(text).enumerate() {
            if index > 0 {
                out.push_str(separator);
            }
            out.push_str(text);
        }
        Some(())
    })
}
