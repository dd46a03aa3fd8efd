//! Sensors that fall silent: a function that is called by rows, by event time and by the wall clock.
//!
//! ```text
//! readings ─ by sensor ─ Watchdog ─┬─▶ silent      a row when a sensor has said nothing for a while, by event time
//!                                  ├─▶ malformed   readings that are no numbers
//!                                  └─▶ alive       how much each sensor says, every so often, by the wall clock
//! ```

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use coulee_model::Timestamp;
use coulee_runtime::Result;
use coulee_runtime::connector::{Sink, Source};
use coulee_runtime::flow::GraphBuilder;
use coulee_runtime::graph::Graph;
use coulee_runtime::keyed::{Due, KeyContext, KeyedFunction, ListState, MapState};
use coulee_runtime::row::Row;
use datafusion_common::ScalarValue;
use serde::{Deserialize, Serialize};

/// How far out of order readings are.
pub const DISORDER: Duration = Duration::from_secs(60);

/// The columns of a reading.
pub fn reading_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("sensor", DataType::Utf8, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        Field::new("value", DataType::Float64, true),
    ]))
}

/// The columns of an alert: the time of the sensor's last reading (ms), how many it had sent without such a pause, the mean of the last five.
pub fn silent_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("sensor", DataType::Utf8, true),
        Field::new("since", DataType::Int64, true),
        Field::new("readings", DataType::Int64, true),
        Field::new("recent_mean", DataType::Float64, true),
    ]))
}

/// The columns of the side output `malformed`.
pub fn malformed_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("sensor", DataType::Utf8, true), Field::new("at", DataType::Int64, true)]))
}

/// The columns of the side output `alive`.
pub fn alive_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("sensor", DataType::Utf8, true),
        Field::new("readings", DataType::Int64, true),
    ]))
}

/// The graph. `readings` brings the columns of [`reading_schema`].
///
/// # Errors
/// When the source has other columns.
pub fn graph(
    parallelism: u32,
    readings: Arc<dyn Source>,
    [silent, malformed, alive]: [Arc<dyn Sink>; 3],
) -> Result<Graph> {
    let builder = GraphBuilder::new(parallelism);
    let watched = builder
        .source("readings", readings)?
        .event_time("at", DISORDER)?
        .key_by(["sensor"])?
        .side_output("malformed", malformed_schema())
        .side_output("alive", alive_schema())
        .process("watchdog", silent_schema(), Watchdog::default)?;
    watched.side("malformed")?.sink("malformed-out", malformed)?;
    watched.side("alive")?.sink("alive-out", alive)?;
    watched.sink("silent-out", silent)?;
    builder.finish()
}

/// Says which sensors have fallen silent.
#[derive(Debug, Clone)]
pub struct Watchdog {
    /// How long a sensor may say nothing, by event time.
    pub silence: Duration,
    /// How often what a sensor says is counted, by the wall clock.
    pub report_every: Duration,
}

impl Default for Watchdog {
    fn default() -> Self {
        Watchdog { silence: Duration::from_secs(600), report_every: Duration::from_secs(10) }
    }
}

/// What is remembered of a sensor in one small value, which is written as a whole when it changes.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Heard {
    sensor: String,
    /// Readings since the sensor began to speak, as far as event time has come.
    readings: i64,
    /// Readings since the last report; a report is due when there are any.
    unreported: i64,
}

/// What grows is kept in collections, of which only what changed is written. Readings whose alarm is still set, by their time; of
/// two at one instant the higher.
const PENDING: MapState<i64, f64> = MapState::new(0);

/// The last readings as far as event time has come, oldest first.
const RECENT: ListState<f64> = ListState::new(1);
const RECENT_LEN: usize = 5;

impl KeyedFunction for Watchdog {
    type State = Heard;

    fn process(&mut self, row: Row<'_>, heard: &mut Heard, context: &mut KeyContext<'_>) -> Result<()> {
        let (sensor, at) = (row.text("sensor")?.unwrap_or_default(), row.timestamp("at")?);
        let value = row.number("value")?.filter(|value| value.is_finite());
        let (Some(at), Some(value)) = (at, value) else {
            return context.side("malformed", [text(sensor), ScalarValue::Int64(at.map(Timestamp::millis))]);
        };
        sensor.clone_into(&mut heard.sensor);
        // Rows come out of order. What depends on the order is left to the timers, which fire in order of time, and only
        // when no earlier row can come any more.
        let mut pending = context.map(&PENDING)?;
        let same_instant = pending.get(&at.millis())?;
        pending.put(&at.millis(), &same_instant.map_or(value, |other| other.max(value)))?;
        context.event_timer(at.plus_millis(self.silence_millis()));

        heard.unreported += 1;
        if heard.unreported == 1 {
            context.processing_timer(context.now().plus_millis(self.report_every.as_millis() as i64));
        }
        Ok(())
    }

    fn timer(&mut self, due: Due, heard: &mut Heard, context: &mut KeyContext<'_>) -> Result<()> {
        match due {
            Due::Event(alarm) => self.alarm(alarm, heard, context),
            Due::Processing(_) => {
                let readings = std::mem::take(&mut heard.unreported);
                context.side("alive", [text(&heard.sensor), ScalarValue::Int64(Some(readings))])
            }
        }
    }
}

impl Watchdog {
    fn silence_millis(&self) -> i64 {
        self.silence.as_millis() as i64
    }

    /// A reading is `silence` old: if none followed it, the sensor has fallen silent.
    fn alarm(&self, alarm: Timestamp, heard: &mut Heard, context: &mut KeyContext<'_>) -> Result<()> {
        let at = alarm.millis() - self.silence_millis();
        let mut pending = context.map(&PENDING)?;
        let Some(value) = pending.get(&at)? else { return Ok(()) };
        pending.remove(&at);
        let is_last = pending.range(at..=alarm.millis())?.is_empty();
        heard.readings += 1;
        let mut recent = context.list(&RECENT)?;
        recent.push(&value)?;
        recent.keep_last(RECENT_LEN)?;
        if !is_last {
            return Ok(());
        }
        let values = recent.all()?;
        recent.clear()?;
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let readings = std::mem::take(&mut heard.readings);
        context.emit([
            text(&heard.sensor),
            ScalarValue::Int64(Some(at)),
            ScalarValue::Int64(Some(readings)),
            ScalarValue::Float64(Some(mean)),
        ])
    }
}

fn text(text: &str) -> ScalarValue {
    ScalarValue::Utf8(Some(text.to_owned()))
}

#[cfg(test)]
mod tests;
