//! Which tumbling window a row belongs to, as a scalar function over its event time.

use std::hash::Hash;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, TimeUnit, TimestampMillisecondType};
use datafusion_common::{Result as DataFusionResult, exec_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use crate::{Error, Result};

/// Which instant of the window is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bound {
    /// Its start, inclusive.
    Start,
    /// Its end, exclusive.
    End,
    /// Its last millisecond.
    Time,
}

/// `tumble_*(timestamp in milliseconds)`: an instant of the tumbling window that holds the argument; null for null.
///
/// Windows are `[offset + n * size, offset + (n + 1) * size)` for every whole `n`, also before 1970, as in Flink's `TimeWindow`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tumble {
    bound: Bound,
    size_millis: i64,
    offset_millis: i64,
    signature: Signature,
}

impl Tumble {
    /// Windows of `size_millis` that are shifted by `offset_millis`.
    ///
    /// # Errors
    /// `Invalid` unless the size is above 0.
    pub fn new(bound: Bound, size_millis: i64, offset_millis: i64) -> Result<Self> {
        if size_millis <= 0 {
            return Err(Error::invalid(format!("a window of {size_millis} ms: expected a size above 0")));
        }
        Ok(Tumble { bound, size_millis, offset_millis, signature: Signature::any(1, Volatility::Immutable) })
    }

    fn at(&self, millis: i64) -> i64 {
        let into = millis.saturating_sub(self.offset_millis).rem_euclid(self.size_millis);
        let start = millis.saturating_sub(into);
        match self.bound {
            Bound::Start => start,
            Bound::End => start.saturating_add(self.size_millis),
            Bound::Time => start.saturating_add(self.size_millis - 1),
        }
    }
}

impl ScalarUDFImpl for Tumble {
    fn name(&self) -> &str {
        match self.bound {
            Bound::Start => "tumble_start",
            Bound::End => "tumble_end",
            Bound::Time => "tumble_rowtime",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> DataFusionResult<DataType> {
        match arguments {
            [DataType::Timestamp(TimeUnit::Millisecond, zone)] => {
                Ok(DataType::Timestamp(TimeUnit::Millisecond, zone.clone()))
            }
            other => exec_err!("{} takes a timestamp in milliseconds, not {other:?}", self.name()),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let times = arguments.args[0].to_array(arguments.number_rows)?;
        let times = times.as_primitive::<TimestampMillisecondType>();
        let zone = times.timezone().map(Arc::from);
        let bounds: arrow::array::PrimitiveArray<TimestampMillisecondType> = times.unary(|millis| self.at(millis));
        Ok(ColumnarValue::Array(Arc::new(bounds.with_timezone_opt::<Arc<str>>(zone))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_aligned_to_the_epoch_and_the_offset() {
        let start = |offset, millis| Tumble::new(Bound::Start, 10, offset).unwrap().at(millis);
        assert_eq!([start(0, 0), start(0, 9), start(0, 10), start(0, -1), start(0, -10)], [0, 0, 10, -10, -10]);
        assert_eq!([start(3, 2), start(3, 3), start(3, 12), start(3, 13)], [-7, 3, 3, 13]);
        assert_eq!(start(-3, 0), -3);
        let tumble = |bound| Tumble::new(bound, 10, 0).unwrap().at(14);
        assert_eq!([tumble(Bound::Start), tumble(Bound::End), tumble(Bound::Time)], [10, 20, 19]);
        assert!(Tumble::new(Bound::Start, 0, 0).is_err());
    }
}
