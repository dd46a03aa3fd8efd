//! `TUMBLE`: which window a row belongs to.
//!
//! The table function becomes a projection that adds three columns, each a call of one scalar function. The optimizer may move and prune those like any
//! other expression; [`lineage`](crate::lineage) finds them again below a `GROUP BY`.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, TimeUnit, TimestampMillisecondType};
use datafusion_common::{Result, ScalarValue, exec_err};
use datafusion_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit};

use crate::types::TIMESTAMP;

/// Windows of one size that follow each other without a gap: `[offset + n·size, offset + (n + 1)·size)`. Milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tumbling {
    pub size: i64,
    pub offset: i64,
}

impl Tumbling {
    pub fn start(self, time: Expr) -> Expr {
        self.call(time, 0)
    }

    pub fn end(self, time: Expr) -> Expr {
        self.call(time, self.size)
    }

    /// The window's last instant.
    pub fn time(self, time: Expr) -> Expr {
        self.call(time, self.size - 1)
    }

    fn call(self, time: Expr, shift: i64) -> Expr {
        TUMBLE.call(vec![time, lit(self.size), lit(self.offset), lit(shift)])
    }
}

/// What a column says about a row's window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Start,
    End,
    Time,
}

/// Reads back what [`Tumbling`] wrote.
pub(crate) fn as_window(expr: &Expr) -> Option<(Tumbling, Part)> {
    let Expr::ScalarFunction(call) = expr else { return None };
    if call.func != *TUMBLE {
        return None;
    }
    let number = |index: usize| match call.args.get(index) {
        Some(Expr::Literal(ScalarValue::Int64(Some(value)), _)) => Some(*value),
        _ => None,
    };
    let window = Tumbling { size: number(1)?, offset: number(2)? };
    let part = match number(3)? {
        0 => Part::Start,
        shift if shift == window.size => Part::End,
        _ => Part::Time,
    };
    Some((window, part))
}

static TUMBLE: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::new_from_impl(Tumble::new())));

/// `tumble(time, size, offset, shift)`: the start of the window that `time` is in, moved by `shift`. Null for null.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Tumble {
    signature: Signature,
}

impl Tumble {
    fn new() -> Self {
        let types =
            |time| datafusion_expr::TypeSignature::Exact(vec![time, DataType::Int64, DataType::Int64, DataType::Int64]);
        let signature =
            Signature::one_of(vec![types(TIMESTAMP), types(crate::types::timestamp_ltz())], Volatility::Immutable);
        Tumble { signature }
    }
}

impl ScalarUDFImpl for Tumble {
    fn name(&self) -> &str {
        "tumble"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(TIMESTAMP)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [time, size, offset, shift] = args.args.as_slice() else {
            return exec_err!("tumble takes 4 arguments");
        };
        let (size, offset, shift) = (number(size)?, number(offset)?, number(shift)?);
        if size <= 0 {
            return exec_err!("the size of a window is {size} ms, expected more than 0");
        }
        let time = time.to_array(args.number_rows)?;
        if !matches!(time.data_type(), DataType::Timestamp(TimeUnit::Millisecond, _)) {
            return exec_err!("tumble takes a timestamp in milliseconds, not {}", time.data_type());
        }
        let times = time.as_primitive::<TimestampMillisecondType>();
        let windows: TimestampMillisecondArray = times.unary(|time| {
            let into = time.wrapping_sub(offset).rem_euclid(size);
            time.wrapping_sub(into).wrapping_add(shift)
        });
        Ok(ColumnarValue::Array(Arc::new(windows) as ArrayRef))
    }
}

fn number(value: &ColumnarValue) -> Result<i64> {
    match value {
        ColumnarValue::Scalar(ScalarValue::Int64(Some(value))) => Ok(*value),
        other => exec_err!("a window's size is a constant, not {other:?}"),
    }
}
