//! Event time in milliseconds, from timestamps of any precision.
//!
//! A column keeps the digits that its type promises; windows and watermarks count in milliseconds. A timestamp belongs to the
//! millisecond that it is in, before 1970 too: Arrow's own cast rounds towards 1970.

use arrow::array::{Array, AsArray, PrimitiveArray, TimestampMillisecondArray};
use arrow::datatypes::{
    DataType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};

use crate::{Error, Result};

/// The milliseconds of an array of timestamps, without their time zone. Seconds beyond the range of milliseconds become its end.
///
/// # Errors
/// `Internal` for another type: planning checks it.
pub fn floor_to_millis(times: &dyn Array) -> Result<TimestampMillisecondArray> {
    let millis: TimestampMillisecondArray = match times.data_type() {
        DataType::Timestamp(TimeUnit::Millisecond, _) => times.as_primitive::<TimestampMillisecondType>().clone(),
        DataType::Timestamp(TimeUnit::Second, _) => {
            times.as_primitive::<TimestampSecondType>().unary(|value| value.saturating_mul(1_000))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            times.as_primitive::<TimestampMicrosecondType>().unary(|value| value.div_euclid(1_000))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            times.as_primitive::<TimestampNanosecondType>().unary(|value| value.div_euclid(1_000_000))
        }
        other => return Err(Error::internal(format!("{other} is no timestamp"))),
    };
    Ok(PrimitiveArray::with_timezone_opt::<std::sync::Arc<str>>(millis, None))
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, TimestampMicrosecondArray, TimestampNanosecondArray, TimestampSecondArray};
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_timestamp_is_in_the_millisecond_before_or_at_it() {
        let micros: ArrayRef = Arc::new(
            TimestampMicrosecondArray::from(vec![Some(1_999), Some(-1), Some(-1_000), Some(-1_001), None])
                .with_timezone("+00:00"),
        );
        let expected = TimestampMillisecondArray::from(vec![Some(1), Some(-1), Some(-1), Some(-2), None]);
        assert_eq!(floor_to_millis(&micros).unwrap(), expected);
        let nanos = TimestampNanosecondArray::from(vec![i64::MIN, -1, 999_999, 1_000_000]);
        assert_eq!(floor_to_millis(&nanos).unwrap().values(), &[-9_223_372_036_855, -1, 0, 1]);
        let seconds = TimestampSecondArray::from(vec![-1, i64::MAX]);
        assert_eq!(floor_to_millis(&seconds).unwrap().values(), &[-1_000, i64::MAX]);
        assert!(floor_to_millis(&arrow::array::Int64Array::from(vec![1])).is_err());
    }
}
