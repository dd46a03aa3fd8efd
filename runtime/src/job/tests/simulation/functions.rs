//! The user functions of the simulated job: one with timers of event time, one with timers of the wall clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use coulee_model::Timestamp;
use datafusion_common::ScalarValue;

use super::BrokenWorld;
use super::scenario::BUCKET_MILLIS;
use super::world::{SIMULATED, World};
use crate::keyed::{Due, KeyContext, KeyedFunction, MapState};
use crate::row::Row;
use crate::{Error, Result};

/// When a count is told after the first row that it does not hold, in milliseconds.
const TOLD_AFTER_MILLIS: i64 = 30;

/// Counts and sums per bucket of event time, as a window does, by a map and a timer per bucket. Rows that are late go to a side output.
pub(super) struct Buckets;

const OPEN: MapState<Timestamp, (i64, i64)> = MapState::new(3);

/// The bucket's end: exclusive.
pub(super) fn bucket_end(time: i64) -> i64 {
    (time.div_euclid(BUCKET_MILLIS) + 1) * BUCKET_MILLIS
}

pub(super) fn numbers(columns: &[&str]) -> SchemaRef {
    let mut fields = vec![Field::new("key", DataType::Utf8, true)];
    fields.extend(columns.iter().map(|name| Field::new(*name, DataType::Int64, true)));
    Arc::new(Schema::new(fields))
}

fn of_row(row: &Row<'_>, column: &str) -> Result<i64> {
    row.integer(column)?.ok_or_else(|| Error::internal(format!("'{column}' is null")))
}

impl KeyedFunction for Buckets {
    /// The key as a text, which a timer is not told.
    type State = String;

    fn process(&mut self, row: Row<'_>, key: &mut String, context: &mut KeyContext<'_>) -> Result<()> {
        let time = row.timestamp("time")?.ok_or_else(|| Error::internal("'time' is null"))?;
        *key = row.text("key")?.unwrap_or("").to_owned();
        let last = Timestamp(bucket_end(time.0) - 1);
        if last <= context.watermark() {
            let late = [ScalarValue::from(key.as_str()), ScalarValue::from(of_row(&row, "id")?)];
            return context.side("late", late);
        }
        let mut open = context.map(&OPEN)?;
        let (count, sum) = open.get(&last)?.unwrap_or((0, 0));
        open.put(&last, &(count + 1, sum + of_row(&row, "value")?))?;
        context.event_timer(last);
        Ok(())
    }

    fn timer(&mut self, due: Due, key: &mut String, context: &mut KeyContext<'_>) -> Result<()> {
        let Due::Event(last) = due else { return Err(Error::internal("only event time has timers here")) };
        let mut open = context.map(&OPEN)?;
        let Some((count, sum)) = open.get(&last)? else { return Ok(()) };
        open.remove(&last);
        let numbers = [last.0 + 1, count, sum].map(ScalarValue::from);
        context.emit([ScalarValue::from(key.as_str())].into_iter().chain(numbers))
    }
}

/// Numbers the rows of a key, and tells by the wall clock how many there were.
pub(super) struct Numbers {
    pub(super) world: World,
    /// For a function that keeps what it counts to itself.
    pub(super) outside: BTreeMap<String, i64>,
}

/// A key, how many rows it had, and whether a timer is set.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Numbered {
    key: String,
    count: i64,
    is_timed: bool,
}

impl KeyedFunction for Numbers {
    type State = Numbered;

    fn process(&mut self, row: Row<'_>, state: &mut Numbered, context: &mut KeyContext<'_>) -> Result<()> {
        if self.world.may_fail("a function").is_err() {
            panic!("{SIMULATED}: a function panics");
        }
        state.key = row.text("key")?.unwrap_or("").to_owned();
        if self.world.is_broken(BrokenWorld::StateOutsideState) {
            let count = self.outside.entry(state.key.clone()).or_insert(0);
            state.count = *count;
            *count += 1;
        }
        state.count += 1;
        if !std::mem::replace(&mut state.is_timed, true) {
            context.processing_timer(context.now().plus_millis(TOLD_AFTER_MILLIS));
        }
        context.emit([ScalarValue::from(state.key.as_str()), ScalarValue::from(state.count), ScalarValue::from(0i64)])
    }

    fn timer(&mut self, _: Due, state: &mut Numbered, context: &mut KeyContext<'_>) -> Result<()> {
        state.is_timed = false;
        context.emit([ScalarValue::from(state.key.as_str()), ScalarValue::from(state.count), ScalarValue::from(1i64)])
    }
}
