//! The flights pipeline as a Rust operator graph: delays per carrier and hour, as `flights/delays.sql` computes them, and beside it a
//! function of one's own: a running z-score per carrier that emits an alert for an extraordinary delay.
//!
//! ```text
//! flights ─┬─ tumble 1 h by carrier ─ delays
//!          └─ z-score by carrier ──── alerts
//! ```

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use coulee_runtime::Result;
use coulee_runtime::connector::{Sink, Source};
use coulee_runtime::flow::{GraphBuilder, col, lit};
use coulee_runtime::graph::Graph;
use coulee_runtime::keyed::{KeyContext, KeyedFunction};
use coulee_runtime::row::Row;
use datafusion_common::ScalarValue;
use datafusion_functions_aggregate::expr_fn::{avg, count, max};
use serde::{Deserialize, Serialize};

/// The columns of a flight that the pipeline reads.
pub fn flight_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("departed_at", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        Field::new("carrier", DataType::Utf8, true),
        Field::new("flight", DataType::Int32, true),
        Field::new("dep_delay", DataType::Int32, true),
    ]))
}

/// The columns of an alert.
pub fn alert_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("carrier", DataType::Utf8, true),
        Field::new("flight", DataType::Int64, true),
        Field::new("dep_delay", DataType::Float64, true),
        Field::new("z_score", DataType::Float64, true),
    ]))
}

/// The graph. `flights` brings the columns of [`flight_schema`].
///
/// # Errors
/// When the source has other columns.
pub fn graph(
    parallelism: u32,
    flights: Arc<dyn Source>,
    delays: Arc<dyn Sink>,
    alerts: Arc<dyn Sink>,
) -> Result<Graph> {
    let builder = GraphBuilder::new(parallelism);
    let flights = builder.source("flights", flights)?.event_time("departed_at", Duration::from_secs(15 * 60))?;
    let aggregates = [
        count(lit(1i64)).alias("flights"),
        avg(col("dep_delay")).alias("avg_delay"),
        max(col("dep_delay")).alias("max_delay"),
    ];
    let hour = Duration::from_secs(3600);
    flights.clone().key_by(["carrier"])?.tumble("hourly", "departed_at", hour, aggregates)?.sink("delays", delays)?;
    flights.key_by(["carrier"])?.process("z-score", alert_schema(), ZScore::default)?.sink("alerts", alerts)?;
    builder.finish()
}

/// Emits flights whose delay lies far from what their carrier's delays have been so far.
#[derive(Debug)]
pub struct ZScore {
    /// How many standard deviations are extraordinary.
    pub threshold: f64,
    /// How many flights of a carrier must have been seen before it is judged.
    pub warm_up: u64,
}

impl Default for ZScore {
    fn default() -> Self {
        ZScore { threshold: 6.0, warm_up: 30 }
    }
}

/// Mean and variance of a carrier's delays, by Welford's algorithm ("Note on a method for calculating corrected sums of squares and
/// products", 1962).
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Moments {
    count: u64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, value: f64) {
        self.count += 1;
        let before = value - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (value - self.mean);
    }

    /// How many standard deviations `value` is above the mean; `None` while that means nothing.
    fn z_score(&self, value: f64) -> Option<f64> {
        let deviation = (self.squares / self.count as f64).sqrt();
        (deviation > 0.0).then(|| (value - self.mean) / deviation)
    }
}

impl KeyedFunction for ZScore {
    type State = Moments;

    fn process(&mut self, row: Row<'_>, delays: &mut Moments, context: &mut KeyContext<'_>) -> Result<()> {
        let Some(delay) = row.number("dep_delay")? else { return Ok(()) };
        let score = delays.z_score(delay).filter(|_| delays.count >= self.warm_up);
        if let Some(score) = score.filter(|score| score.abs() >= self.threshold) {
            context.emit([
                ScalarValue::Utf8(row.text("carrier")?.map(str::to_owned)),
                ScalarValue::Int64(row.integer("flight")?),
                ScalarValue::Float64(Some(delay)),
                ScalarValue::Float64(Some(score)),
            ])?;
        }
        delays.add(delay);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{BufRead, BufReader};

    use arrow::array::{ArrayRef, AsArray, Int32Array, StringArray, TimestampMillisecondArray};
    use arrow::datatypes::{Float64Type, Int32Type, Int64Type, TimestampMillisecondType};
    use arrow::record_batch::RecordBatch;
    use coulee_checkpoint::{JobStore, StoreSettings};
    use coulee_model::{JobName, SystemClock};
    use coulee_runtime::job::{Environment, JobOutcome, JobSettings, JobSpec, launch};
    use coulee_runtime::memory::{MemorySink, MemorySource};

    use super::*;

    struct Flight {
        departed_at: Option<i64>,
        carrier: String,
        flight: i32,
        dep_delay: Option<i32>,
    }

    /// Milliseconds of `2013-01-05T10:17:00Z`: all of the data is of January 2013.
    fn january_millis(text: &str) -> i64 {
        let part = |range: std::ops::Range<usize>| text[range].parse::<i64>().expect("a number");
        assert!(text.starts_with("2013-0"), "{text}");
        // A flight of the 31st, local time, may leave on 1 February in UTC.
        let day = (part(5..7) - 1) * 31 + part(8..10) - 1;
        1_356_998_400_000 + ((day * 24 + part(11..13)) * 60 + part(14..16)) * 60_000
    }

    fn flights() -> Vec<Flight> {
        let file = std::fs::File::open("data/flights-2013-01.ndjson.gz").expect("the example's data");
        let lines = BufReader::new(flate2::read::GzDecoder::new(file)).lines();
        lines
            .map(|line| {
                let json: serde_json::Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
                Flight {
                    departed_at: json["departed_at"].as_str().map(january_millis),
                    carrier: json["carrier"].as_str().expect("a carrier").to_owned(),
                    flight: json["flight"].as_i64().expect("a number") as i32,
                    dep_delay: json["dep_delay"].as_i64().map(|delay| delay as i32),
                }
            })
            .collect()
    }

    fn batch(flights: &[Flight]) -> RecordBatch {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(flights.iter().map(|f| f.departed_at).collect::<TimestampMillisecondArray>()),
            Arc::new(flights.iter().map(|f| Some(f.carrier.as_str())).collect::<StringArray>()),
            Arc::new(flights.iter().map(|f| Some(f.flight)).collect::<Int32Array>()),
            Arc::new(flights.iter().map(|f| f.dep_delay).collect::<Int32Array>()),
        ];
        RecordBatch::try_new(flight_schema(), columns).expect("the columns fit")
    }

    /// What each carrier's hour should be: flights, sum and maximum of the delays.
    fn expected_hours(flights: &[Flight]) -> BTreeMap<(i64, String), (i64, i64, i32)> {
        let mut hours = BTreeMap::new();
        for flight in flights {
            let (Some(time), Some(delay)) = (flight.departed_at, flight.dep_delay) else { continue };
            let hour: &mut (i64, i64, i32) =
                hours.entry((time - time % 3_600_000, flight.carrier.clone())).or_insert((0, 0, i32::MIN));
            *hour = (hour.0 + 1, hour.1 + i64::from(delay), hour.2.max(delay));
        }
        hours
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_graph_computes_hours_and_alerts() {
        let flights = flights();
        let splits = vec![flights.chunks(5_000).map(batch).collect()];
        let (delays, alerts) = (MemorySink::default(), MemorySink::default());
        let source = Arc::new(MemorySource::new(flight_schema(), splits));
        let graph = graph(2, source, Arc::new(delays.clone()), Arc::new(alerts.clone())).expect("a complete graph");
        let folder = tempfile::tempdir().expect("a folder");
        let store = JobStore::open(&folder.path().join("state"), &StoreSettings::default()).expect("a store");
        let environment = Environment {
            store: Arc::new(store),
            spool: folder.path().join("spool"),
            scratch: folder.path().join("scratch"),
            clock: Arc::new(SystemClock),
            snapshots: None,
        };
        let spec = JobSpec {
            name: JobName::new("flights").expect("a name"),
            incarnation: "0123456789ab".into(),
            graph,
            settings: JobSettings { checkpoint_interval: Duration::from_millis(20), ..JobSettings::default() },
        };
        let job = launch(spec, environment).expect("the graph is sound");
        assert!(matches!(job.outcome().await, JobOutcome::Finished));
        let timeless: u64 = job.status().subtasks.iter().map(|subtask| subtask.figures.timeless_rows()).sum();
        assert_eq!(timeless, 521, "cancelled flights have no departure");

        let mut hours = BTreeMap::new();
        for rows in delays.rows() {
            for row in 0..rows.num_rows() {
                let start = rows.column(0).as_primitive::<TimestampMillisecondType>().value(row);
                let carrier = rows.column(2).as_string::<i32>().value(row).to_owned();
                let flights = rows.column(3).as_primitive::<Int64Type>().value(row);
                let sum = (rows.column(4).as_primitive::<Float64Type>().value(row) * flights as f64).round() as i64;
                let max = rows.column(5).as_primitive::<Int32Type>().value(row);
                assert!(hours.insert((start, carrier), (flights, sum, max)).is_none(), "an hour came twice");
            }
        }
        assert!(hours == expected_hours(&flights), "hours differ from a recomputation");

        // Every carrier's flights keep their order, so the alerts are those of one pass over the file.
        let found: usize = alerts.rows().iter().map(RecordBatch::num_rows).sum();
        let mut carriers: BTreeMap<&str, (Vec<f64>, usize)> = BTreeMap::new();
        for flight in &flights {
            let Some(delay) = flight.dep_delay.map(f64::from) else { continue };
            let (seen, alerts) = carriers.entry(&flight.carrier).or_default();
            if seen.len() >= 30 {
                let mean = seen.iter().sum::<f64>() / seen.len() as f64;
                let variance = seen.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / seen.len() as f64;
                *alerts += usize::from(((delay - mean) / variance.sqrt()).abs() >= 6.0);
            }
            seen.push(delay);
        }
        assert_eq!(found, carriers.values().map(|(_, alerts)| alerts).sum::<usize>());
        assert!(found > 0, "January 2013 had extraordinary delays");
    }
}
