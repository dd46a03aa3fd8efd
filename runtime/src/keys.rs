//! The hash that decides where a key lives. It is part of the format of stored state: it must never change.
//!
//! Per column: 64-bit values are mixed with SplitMix64's finaliser, texts and bytes hashed with XXH3, everything else through Arrow's row format and XXH3;
//! a null hashes to a constant. Columns are combined in order. `docs/formats/keys.md` has the table.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow::row::{RowConverter, SortField};
use xxhash_rust::xxh3::xxh3_64;

use crate::Result;

const NULL: u64 = 0x9ae1_6a3b_2f90_404f;

/// SplitMix64's finaliser (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One hash per row of the key columns, which have equal lengths. No column at all gives every row the same hash.
///
/// # Errors
/// For a type that Arrow's row format does not know.
pub fn hash_keys(columns: &[ArrayRef], rows: usize) -> Result<Vec<u64>> {
    let mut hashes = vec![0; rows];
    for column in columns {
        assert_eq!(column.len(), rows, "key columns have equal lengths");
        hash_column(column, &mut hashes)?;
    }
    Ok(hashes)
}

macro_rules! whole_numbers {
    ($column:expr, $hashes:expr, $($pattern:pat => $type:ty),* $(,)?) => {
        match $column.data_type() {
            $($pattern => {
                let column = $column.as_primitive::<$type>();
                combine($hashes, |row| column.is_valid(row).then(|| mix(column.value(row) as i64 as u64)));
                return Ok(());
            })*
            _ => {}
        }
    };
}

fn hash_column(column: &ArrayRef, hashes: &mut [u64]) -> Result<()> {
    whole_numbers!(column, hashes,
        DataType::Int8 => Int8Type,
        DataType::Int16 => Int16Type,
        DataType::Int32 => Int32Type,
        DataType::Int64 => Int64Type,
        DataType::UInt8 => UInt8Type,
        DataType::UInt16 => UInt16Type,
        DataType::UInt32 => UInt32Type,
        DataType::UInt64 => UInt64Type,
        DataType::Date32 => Date32Type,
        DataType::Timestamp(TimeUnit::Second, _) => TimestampSecondType,
        DataType::Timestamp(TimeUnit::Millisecond, _) => TimestampMillisecondType,
        DataType::Timestamp(TimeUnit::Microsecond, _) => TimestampMicrosecondType,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => TimestampNanosecondType,
    );
    match column.data_type() {
        DataType::Utf8 => {
            let column = column.as_string::<i32>();
            combine(hashes, |row| column.is_valid(row).then(|| xxh3_64(column.value(row).as_bytes())));
        }
        DataType::Utf8View => {
            let column = column.as_string_view();
            combine(hashes, |row| column.is_valid(row).then(|| xxh3_64(column.value(row).as_bytes())));
        }
        DataType::Binary => {
            let column = column.as_binary::<i32>();
            combine(hashes, |row| column.is_valid(row).then(|| xxh3_64(column.value(row))));
        }
        other => {
            let converter = RowConverter::new(vec![SortField::new(other.clone())])?;
            let encoded = converter.convert_columns(std::slice::from_ref(column))?;
            combine(hashes, |row| column.is_valid(row).then(|| xxh3_64(encoded.row(row).as_ref())));
        }
    }
    Ok(())
}

fn combine(hashes: &mut [u64], value: impl Fn(usize) -> Option<u64>) {
    for (row, hash) in hashes.iter_mut().enumerate() {
        *hash = mix(hash.rotate_left(5) ^ value(row).unwrap_or(NULL));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array, StringArray, StringViewArray};

    use super::*;

    fn hashes(columns: &[ArrayRef]) -> Vec<u64> {
        hash_keys(columns, columns.first().map_or(1, |c| c.len())).expect("hashable")
    }

    /// Stored state depends on these figures: if this test fails, the change is wrong, not the test.
    #[test]
    fn the_hash_is_what_it_always_was() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("UA"), None, Some("")]));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(-1)]));
        // Computed by an independent program from the definition above.
        let text_hashes = [16_757_150_946_115_053_455, 17_808_715_195_127_037_534, 6_462_926_535_050_963_950];
        assert_eq!(hashes(std::slice::from_ref(&texts)), text_hashes);
        let number_hashes = [6_791_897_765_849_424_158, 17_808_715_195_127_037_534, 6_755_974_106_381_971_767];
        assert_eq!(hashes(std::slice::from_ref(&numbers)), number_hashes);
        let both = [13_632_940_131_722_427_783, 11_861_446_132_007_912_982, 12_614_464_667_490_757_325];
        assert_eq!(hashes(&[texts, numbers]), both);
    }

    #[test]
    fn a_views_hash_is_its_texts() {
        let plain: ArrayRef = Arc::new(StringArray::from(vec!["a", "a text that is too long to be inlined"]));
        let view: ArrayRef = Arc::new(StringViewArray::from(vec!["a", "a text that is too long to be inlined"]));
        assert_eq!(hashes(&[plain]), hashes(&[view]));
    }

    #[test]
    fn other_types_hash_by_value() {
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![1.5, 2.5, 1.5]));
        let found = hashes(&[floats]);
        assert_eq!(found[0], found[2]);
        assert_ne!(found[0], found[1]);
    }
}
