//! The time at which a row is processed. All rows of a batch have one.
//!
//! As in Flink's streaming mode, a call is computed of each row anew, not once for the query.

use arrow::array::{ArrayRef, Date32Array, Time32MillisecondArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, TimeUnit};
use coulee_model::{Clock, SystemClock};
use datafusion_common::{Result, internal_err};
use datafusion_expr::Expr;
use datafusion_expr::expr::ScalarFunction;
use std::sync::Arc;

use super::call::Call;
use super::definition::{Function, Kind, Nulls, Scalar, Takes, Varies, gives};
use super::moment::Moment;
use crate::types::{TIMESTAMP, timestamp_ltz};

const PROCTIME: &str = "PROCTIME";
const CURRENT_WATERMARK: &str = "CURRENT_WATERMARK";

const NOTHING: Takes = Takes::These(0, &[]);

pub(crate) static CLOCK: &[Function] = &[
    Function::new(
        PROCTIME,
        "PROCTIME()",
        "the processing time of the row, a TIMESTAMP_LTZ(3): a column p AS PROCTIME() is the time of windows and of lookup joins",
        NOTHING,
        |_| timestamp_ltz(),
        Nulls::Never,
        instant,
    )
    .varying(Varies::WithTime),
    Function::new(
        CURRENT_WATERMARK,
        "CURRENT_WATERMARK(ts)",
        "the watermark of an event time when the row comes; null before there is one: WHERE ts > CURRENT_WATERMARK(ts) lets through what is not late",
        Takes::These(1, &[Kind::Moment]),
        |given| if matches!(given.first(), DataType::Timestamp(_, Some(_))) { timestamp_ltz() } else { TIMESTAMP },
        Nulls::Own,
        |_| internal_err!("the watermark is a column"),
    )
    .varying(Varies::WithTime),
    Function::new(
        "CURRENT_TIMESTAMP",
        "CURRENT_TIMESTAMP",
        "the time at which the row is processed, a TIMESTAMP_LTZ(3)",
        NOTHING,
        |_| timestamp_ltz(),
        Nulls::Never,
        instant,
    )
    .also(&["NOW", "CURRENT_ROW_TIMESTAMP"])
    .varying(Varies::WithTime),
    Function::new(
        "LOCALTIMESTAMP",
        "LOCALTIMESTAMP",
        "the same as a TIMESTAMP(3), in the session's time zone",
        NOTHING,
        |_| TIMESTAMP,
        Nulls::Never,
        |call| Ok(Arc::new(TimestampMillisecondArray::from(vec![now(call).millis(); call.rows]))),
    )
    .varying(Varies::WithTime),
    Function::new(
        "CURRENT_DATE",
        "CURRENT_DATE",
        "the day on which the row is processed, in the session's time zone",
        NOTHING,
        gives::date,
        Nulls::Never,
        |call| Ok(Arc::new(Date32Array::from(vec![now(call).days() as i32; call.rows]))),
    )
    .varying(Varies::WithTime),
    Function::new(
        "LOCALTIME",
        "LOCALTIME",
        "the time of day at which the row is processed, in the session's time zone",
        NOTHING,
        |_| DataType::Time32(TimeUnit::Millisecond),
        Nulls::Never,
        |call| {
            let millis = now(call).millis().rem_euclid(86_400_000) as i32;
            Ok(Arc::new(Time32MillisecondArray::from(vec![millis; call.rows])))
        },
    )
    .also(&["CURRENT_TIME"])
    .varying(Varies::WithTime),
];

/// Milliseconds since 1970.
fn instant(call: &Call<'_>) -> Result<ArrayRef> {
    let values = TimestampMillisecondArray::from(vec![SystemClock.now().0; call.rows]);
    Ok(Arc::new(values.with_timezone_opt(zone_of(call.gives))))
}

fn zone_of(data_type: &DataType) -> Option<Arc<str>> {
    match data_type {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    }
}

/// Local time.
fn now(call: &Call<'_>) -> Moment {
    let now = Moment::of_millis(SystemClock.now().0);
    now.shifted(call.zone.offset_at(now.seconds))
}

/// Whether an expression is a call of `PROCTIME()`.
pub(crate) fn is_proctime(expr: &Expr) -> bool {
    call_of(expr, PROCTIME).is_some()
}

/// The event time whose watermark an expression asks for.
pub(crate) fn watermark_of(expr: &Expr) -> Option<&Expr> {
    call_of(expr, CURRENT_WATERMARK)?.args.first()
}

fn call_of<'e>(expr: &'e Expr, name: &str) -> Option<&'e ScalarFunction> {
    let Expr::ScalarFunction(call) = expr else { return None };
    call.func.inner().downcast_ref::<Scalar>().filter(|own| own.name_of() == name).map(|_| call)
}
