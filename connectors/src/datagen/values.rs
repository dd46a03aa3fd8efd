//! Values of a column for some rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int64Array, make_array};
use arrow::array::{BinaryArray, StringArray, TimestampMillisecondArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::DataType;
use coulee_model::Timestamp;
use coulee_runtime::Result;

use super::column::{Column, Values};
use crate::random::{below, draw, mix};

/// Which rows: `count` of them from `first`, `stride` apart.
pub(super) struct Rows {
    pub(super) first: u64,
    pub(super) stride: u64,
    pub(super) count: usize,
    /// The time of row 0.
    pub(super) base: Timestamp,
    pub(super) rows_per_second: f64,
}

impl Rows {
    fn numbers(&self) -> impl Iterator<Item = u64> {
        let (first, stride) = (self.first, self.stride);
        (0..self.count as u64).map(move |i| first + i * stride)
    }

    fn time_of(&self, row: u64) -> i64 {
        self.base.0.saturating_add((row as f64 * 1000.0 / self.rows_per_second) as i64)
    }
}

impl Column {
    /// The values of some rows, in the column's type.
    pub(super) fn make(&self, rows: &Rows) -> Result<ArrayRef> {
        let draws = rows.numbers().map(|row| draw(self.key, row));
        let array: ArrayRef = match &self.values {
            Values::Integer { min, max } => {
                self.whole_numbers(draws.map(|draw| between(draw, *min, *max)).collect())?
            }
            Values::Sequence { start, .. } => self.sequence(*start, rows)?,
            Values::Float { min, max } => {
                let number = |draw: u64| {
                    let part = (draw >> 11) as f64 / (1_u64 << 53) as f64;
                    // Not min + (max - min) * part, whose difference can be infinite.
                    min * (1.0 - part) + max * part
                };
                Arc::new(Float64Array::from_iter_values(draws.map(number)))
            }
            Values::Boolean => Arc::new(BooleanArray::from_iter(draws.map(|draw| Some(draw & 1 == 1)))),
            Values::Text { length } => self.texts(draws, *length, rows.count),
            Values::Time { past_ms } => {
                let time = |(draw, row)| rows.time_of(row) - below(draw, past_ms + 1) as i64;
                Arc::new(TimestampMillisecondArray::from_iter_values(draws.zip(rows.numbers()).map(time)))
            }
        };
        let array = if *array.data_type() == self.data_type { array } else { cast(&array, &self.data_type)? };
        Ok(self.with_nulls(array, rows))
    }

    fn sequence(&self, start: i64, rows: &Rows) -> Result<ArrayRef> {
        let numbers = rows.numbers().map(|row| start + row as i64);
        match self.data_type {
            DataType::Decimal128(_, scale) => {
                let unit = 10_i128.pow(scale.max(0) as u32);
                self.decimals(numbers.map(|number| i128::from(number) * unit))
            }
            _ => Ok(Arc::new(Int64Array::from_iter_values(numbers))),
        }
    }

    fn whole_numbers(&self, numbers: Vec<i64>) -> Result<ArrayRef> {
        match self.data_type {
            DataType::Decimal128(..) => self.decimals(numbers.into_iter().map(i128::from)),
            _ => Ok(Arc::new(Int64Array::from(numbers))),
        }
    }

    fn decimals(&self, unscaled: impl Iterator<Item = i128>) -> Result<ArrayRef> {
        Ok(Arc::new(Decimal128Array::from_iter_values(unscaled).with_data_type(self.data_type.clone())))
    }

    /// Hexadecimal digits.
    fn texts(&self, draws: impl Iterator<Item = u64>, length: usize, count: usize) -> ArrayRef {
        let mut bytes = Vec::with_capacity(length * count);
        for mut state in draws {
            for i in 0..length {
                if i % 16 == 0 {
                    state = mix(state.wrapping_add(1));
                }
                bytes.push(b"0123456789abcdef"[(state >> (i % 16 * 4)) as usize & 15]);
            }
        }
        let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(length, count));
        match self.data_type {
            DataType::Binary | DataType::LargeBinary => Arc::new(BinaryArray::new(offsets, bytes.into(), None)),
            _ => Arc::new(StringArray::new(offsets, bytes.into(), None)),
        }
    }

    fn with_nulls(&self, array: ArrayRef, rows: &Rows) -> ArrayRef {
        if self.null_rate <= 0.0 {
            return array;
        }
        let limit = (self.null_rate * u64::MAX as f64) as u64;
        let key = mix(self.key);
        // A rate of 1 means all, also the one draw in 2⁶⁴ that equals the limit.
        let valid: Vec<bool> = rows.numbers().map(|row| self.null_rate < 1.0 && draw(key, row) >= limit).collect();
        let data = array.to_data().into_builder().nulls(Some(NullBuffer::from(valid)));
        make_array(data.build().expect("a null mask of the same length fits every array"))
    }
}

/// Casts times as clocks show them: a date is the day, a time of day what is left of it.
fn cast(array: &ArrayRef, as_type: &DataType) -> Result<ArrayRef> {
    Ok(arrow::compute::cast(array, as_type)?)
}

/// A whole number, both ends included.
fn between(draw: u64, min: i64, max: i64) -> i64 {
    let span = (i128::from(max) - i128::from(min) + 1) as u128;
    (i128::from(min) + ((u128::from(draw) * span) >> 64) as i128) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_a_range_are_reached() {
        assert_eq!(between(0, i64::MIN, i64::MAX), i64::MIN);
        assert_eq!(between(u64::MAX, i64::MIN, i64::MAX), i64::MAX);
        assert_eq!((between(0, 3, 5), between(u64::MAX, 3, 5)), (3, 5));
        assert_eq!(between(u64::MAX, 7, 7), 7);
    }
}
