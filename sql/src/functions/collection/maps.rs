//! Functions of maps.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, MapArray, StructArray, UInt32Array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, Field};
use arrow::row::{RowConverter, SortField};
use datafusion_common::{Result, exec_err};

use super::types::entry_fields;
use crate::functions::call::Call;

/// A map for each row from the places of its keys and values; a key's last value counts. Null keys are refused.
fn map_rows(
    keys: &ArrayRef,
    values: &ArrayRef,
    rows: impl Iterator<Item = Option<Vec<(u32, u32)>>>,
) -> Result<ArrayRef> {
    let converter = RowConverter::new(vec![SortField::new(keys.data_type().clone())])?;
    let encoded = converter.convert_columns(&[Arc::clone(keys)])?;
    let (mut key_places, mut value_places) = (Vec::new(), Vec::new());
    let (mut lengths, mut valid) = (Vec::new(), Vec::new());
    for row in rows {
        valid.push(row.is_some());
        let start = key_places.len();
        for (key, value) in row.unwrap_or_default() {
            if keys.is_null(key as usize) {
                return exec_err!("a map has no null as a key");
            }
            let known = key_places[start..]
                .iter()
                .position(|known: &u32| encoded.row(*known as usize) == encoded.row(key as usize));
            match known {
                Some(at) => value_places[start + at] = value,
                None => {
                    key_places.push(key);
                    value_places.push(value);
                }
            }
        }
        lengths.push(key_places.len() - start);
    }
    let keys = take(keys, &UInt32Array::from(key_places), None)?;
    let values = take(values, &UInt32Array::from(value_places), None)?;
    let fields = entry_fields(keys.data_type().clone(), values.data_type().clone());
    let entries = StructArray::try_new(fields.clone(), vec![keys, values], None)?;
    let field = Arc::new(Field::new("entries", DataType::Struct(fields), false));
    let nulls = Some(NullBuffer::from(valid));
    Ok(Arc::new(MapArray::try_new(field, OffsetBuffer::from_lengths(lengths), entries, nulls, false)?))
}

pub(super) fn map(call: &Call<'_>) -> Result<ArrayRef> {
    let columns = (0..call.len()).map(|index| call.column(index)).collect::<Result<Vec<_>>>()?;
    let every_other = |first: usize| -> Result<ArrayRef> {
        let parts: Vec<&dyn Array> = columns.iter().skip(first).step_by(2).map(AsRef::as_ref).collect();
        Ok(concat(&parts)?)
    };
    let (keys, values) = (every_other(0)?, every_other(1)?);
    let (entries, rows) = (call.len() / 2, call.rows);
    let of_row = |row: usize| {
        let places = (0..entries).map(|entry| ((entry * rows + row) as u32, (entry * rows + row) as u32));
        Some(places.collect())
    };
    map_rows(&keys, &values, (0..rows).map(of_row))
}

pub(super) fn map_from_arrays(call: &Call<'_>) -> Result<ArrayRef> {
    let (keys, values) = (call.column(0)?, call.column(1)?);
    let (keys, values) = (keys.as_list::<i32>(), values.as_list::<i32>());
    let range = |list: &ListArray, row: usize| list.value_offsets()[row] as u32..list.value_offsets()[row + 1] as u32;
    let mut rows = Vec::with_capacity(call.rows);
    for row in 0..call.rows {
        if keys.is_null(row) || values.is_null(row) {
            rows.push(None);
            continue;
        }
        let (of_keys, of_values) = (range(keys, row), range(values, row));
        if of_keys.len() != of_values.len() {
            return exec_err!("MAP_FROM_ARRAYS: {} keys and {} values", of_keys.len(), of_values.len());
        }
        rows.push(Some(of_keys.zip(of_values).collect()));
    }
    map_rows(keys.values(), values.values(), rows.into_iter())
}

pub(super) fn map_union(call: &Call<'_>) -> Result<ArrayRef> {
    let columns = (0..call.len()).map(|index| call.column(index)).collect::<Result<Vec<_>>>()?;
    let maps: Vec<&MapArray> = columns.iter().map(|column| column.as_map()).collect();
    let part = |of: fn(&MapArray) -> &ArrayRef| -> Result<ArrayRef> {
        let parts: Vec<&dyn Array> = maps.iter().map(|map| of(map).as_ref()).collect();
        Ok(concat(&parts)?)
    };
    let (keys, values) = (part(MapArray::keys)?, part(MapArray::values)?);
    let rows = (0..call.rows).map(|row| {
        let mut base = 0;
        let mut entries = Vec::new();
        for map in &maps {
            if map.is_null(row) {
                return None;
            }
            let (start, end) = (map.value_offsets()[row] as u32, map.value_offsets()[row + 1] as u32);
            entries.extend((start..end).map(|at| (base + at, base + at)));
            base += map.keys().len() as u32;
        }
        Some(entries)
    });
    map_rows(&keys, &values, rows)
}

/// A list of what each map's entries give.
pub(super) fn map_list(call: &Call<'_>, of: fn(&MapArray) -> ArrayRef) -> Result<ArrayRef> {
    let column = call.column(0)?;
    let map = column.as_map();
    let values = of(map);
    let field = Arc::new(Field::new("item", values.data_type().clone(), true));
    Ok(Arc::new(ListArray::try_new(field, map.offsets().clone(), values, map.nulls().cloned())?))
}
