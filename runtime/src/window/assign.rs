//! Which tumbling window, or which slice of other windows, a row belongs to, as a scalar function over its event time.
//!
//! A bound of a window is an expression like any other, which an optimizer may move and prune; [`as_window`] finds it again.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, TimestampMillisecondArray};
use arrow::datatypes::{DataType, TimeUnit, TimestampMillisecondType};
use datafusion_common::{DataFusionError, Result as DataFusionResult, ScalarValue, exec_datafusion_err, exec_err};
use datafusion_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit};

use crate::event_time::floor_to_millis;
use crate::{Error, Result};

/// Which instant of the window is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Its start, inclusive.
    Start,
    /// Its end, exclusive.
    End,
    /// Its last millisecond.
    Time,
}

/// Windows of one size that follow each other without a gap: `[offset + n * size, offset + (n + 1) * size)` for every whole `n`, also before 1970, as in
/// Flink's `TimeWindow`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tumbling {
    size_millis: i64,
    offset_millis: i64,
}

impl Tumbling {
    /// Windows of `size_millis` that are shifted by `offset_millis`.
    ///
    /// # Errors
    /// `Invalid` unless the size is above 0.
    pub fn new(size_millis: i64, offset_millis: i64) -> Result<Self> {
        if size_millis <= 0 {
            return Err(Error::invalid(format!("the size of a window is {size_millis} ms, expected more than 0")));
        }
        Ok(Self::valid(size_millis, offset_millis))
    }

    /// The same of a size that is known to be above 0.
    pub(super) fn valid(size_millis: i64, offset_millis: i64) -> Self {
        Tumbling { size_millis, offset_millis: offset_millis.rem_euclid(size_millis) }
    }

    /// How long a window is.
    pub fn size_millis(self) -> i64 {
        self.size_millis
    }

    /// By how much windows are shifted: at least 0, and less than their size.
    pub fn offset_millis(self) -> i64 {
        self.offset_millis
    }

    /// An instant of the window that holds `time`, a timestamp of any precision: one in milliseconds, without a time zone; null for null.
    pub fn bound(self, bound: Bound, time: Expr) -> Expr {
        let shift = match bound {
            Bound::Start => 0,
            Bound::End => self.size_millis,
            Bound::Time => self.size_millis - 1,
        };
        TUMBLE.call(vec![time, lit(self.size_millis), lit(self.offset_millis), lit(shift)])
    }

    /// The start of the window that holds an instant; `None` when it lies before every instant that there is.
    pub(super) fn start(self, millis: i64) -> Option<i64> {
        // Both remainders are below the size, so that their difference is exact.
        let into = millis.rem_euclid(self.size_millis) - self.offset_millis;
        millis.checked_sub(into.rem_euclid(self.size_millis))
    }
}

/// The millisecond that a timestamp of any precision is in, as a timestamp without a time zone: what a watermark is made of.
pub fn millisecond_of(time: Expr) -> Expr {
    Tumbling { size_millis: 1, offset_millis: 0 }.bound(Bound::Start, time)
}

/// Reads back what [`Tumbling::bound`] wrote.
pub fn as_window(expr: &Expr) -> Option<(Tumbling, Bound)> {
    let Expr::ScalarFunction(call) = expr else { return None };
    if call.func != *TUMBLE {
        return None;
    }
    let number = |index: usize| match call.args.get(index) {
        Some(Expr::Literal(ScalarValue::Int64(Some(value)), _)) => Some(*value),
        _ => None,
    };
    let window = Tumbling::new(number(1)?, number(2)?).ok()?;
    let bound = match number(3)? {
        // SUBTLE: the first instant of a window of one millisecond is its last one, too, which is an event time.
        0 if window.size_millis > 1 => Bound::Start,
        shift if shift == window.size_millis => Bound::End,
        _ => Bound::Time,
    };
    Some((window, bound))
}

/// Whether a function is the one that [`Tumbling::bound`] calls.
pub(crate) fn is_tumble(function: &ScalarUDF) -> bool {
    *function == **TUMBLE
}

static TUMBLE: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::new_from_impl(Tumble::new())));

/// `tumble(time, size, offset, shift)`: the start of the window that `time` is in, moved by `shift`. Null for null.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Tumble {
    signature: Signature,
}

impl Tumble {
    fn new() -> Self {
        Tumble { signature: Signature::any(4, Volatility::Immutable) }
    }
}

const INSTANT: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

impl ScalarUDFImpl for Tumble {
    fn name(&self) -> &str {
        "tumble"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> DataFusionResult<DataType> {
        match arguments {
            [DataType::Timestamp(..), DataType::Int64, DataType::Int64, DataType::Int64] => Ok(INSTANT),
            other => exec_err!("tumble takes a timestamp and three whole numbers, not {other:?}"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let [time, size, offset, shift] = args.args.as_slice() else {
            return exec_err!("tumble takes 4 arguments");
        };
        let (window, shift) = (Tumbling::new(number(size)?, number(offset)?), number(shift)?);
        let window = window.map_err(|error| DataFusionError::External(Box::new(error)))?;
        let times = time.to_array(args.number_rows)?;
        let times = floor_to_millis(&times).map_err(|error| DataFusionError::External(Box::new(error)))?;
        let bound = |millis| {
            let bound = window.start(millis).and_then(|start: i64| start.checked_add(shift));
            bound.ok_or_else(|| exec_datafusion_err!("the time {millis} (milliseconds since 1970) lies in no window"))
        };
        let bounds: TimestampMillisecondArray =
            times.try_unary::<_, TimestampMillisecondType, DataFusionError>(bound)?;
        Ok(ColumnarValue::Array(Arc::new(bounds) as ArrayRef))
    }
}

fn number(value: &ColumnarValue) -> DataFusionResult<i64> {
    match value {
        ColumnarValue::Scalar(ScalarValue::Int64(Some(value))) => Ok(*value),
        other => exec_err!("a window's size is a constant, not {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_aligned_to_the_epoch_and_the_offset() {
        let start = |offset, millis| Tumbling::new(10, offset).unwrap().start(millis).unwrap();
        assert_eq!([start(0, 0), start(0, 9), start(0, 10), start(0, -1), start(0, -10)], [0, 0, 10, -10, -10]);
        assert_eq!([start(3, 2), start(3, 3), start(3, 12), start(3, 13)], [-7, 3, 3, 13]);
        assert_eq!(start(-3, 0), -3);
        assert_eq!(start(7, i64::MAX), i64::MAX - (i64::MAX.rem_euclid(10) - 7).rem_euclid(10));
        assert_eq!(Tumbling::new(10, 0).unwrap().start(i64::MIN), None);
        assert!(Tumbling::new(0, 0).is_err());
    }

    #[test]
    fn a_bound_is_found_again() {
        let window = Tumbling::new(10, -3).unwrap();
        for bound in [Bound::Start, Bound::End, Bound::Time] {
            assert_eq!(as_window(&window.bound(bound, lit("time"))), Some((window, bound)));
        }
        assert_eq!(as_window(&lit(1)), None);
    }
}
