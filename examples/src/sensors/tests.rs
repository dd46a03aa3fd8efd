//! The pipeline against a computation over sorted readings, and the reports under a clock that is moved by hand.

use arrow::array::{ArrayRef, Float64Array, StringArray, TimestampMillisecondArray};
use arrow::record_batch::RecordBatch;
use coulee_model::SubtaskIndex;
use coulee_runtime::Batch;
use coulee_runtime::graph::{NodeKind, Port};
use coulee_runtime::harness::{Harness, Input, sorted_lines};
use coulee_runtime::job::JobOutcome;
use coulee_runtime::memory::{MemorySink, MemorySource};

use super::*;

type Reading = (String, i64, Option<f64>);

/// Ten sensors, each silent for an hour now and then; a reading every half minute on average, up to a minute out of order.
fn readings() -> Vec<Reading> {
    let mut readings = Vec::new();
    for i in 0..6_000i64 {
        let sensor = i % 10;
        let minute = i / 20;
        // Silence: each sensor at another time, for 61 minutes of every 150.
        if (minute + sensor * 13) % 150 < 61 {
            continue;
        }
        let at = i * 3_000 + (i * 7_919) % 50_000;
        let value = (i % 97 != 0).then(|| ((i * 31) % 1_000) as f64 / 8.0);
        readings.push((format!("s{sensor}"), at, value));
    }
    readings
}

fn batch(readings: &[Reading]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(readings.iter().map(|r| Some(r.0.as_str())).collect::<StringArray>()),
        Arc::new(readings.iter().map(|r| Some(r.1)).collect::<TimestampMillisecondArray>()),
        Arc::new(readings.iter().map(|r| r.2).collect::<Float64Array>()),
    ];
    RecordBatch::try_new(reading_schema(), columns).expect("the columns fit")
}

/// Sensor, silence, readings and mean of the last five, from the readings of each sensor in order of time: a pause longer than ten minutes,
/// or the end, is a silence.
fn expected(readings: &[Reading]) -> Vec<String> {
    let mut alerts = Vec::new();
    for sensor in (0..10).map(|sensor| format!("s{sensor}")) {
        let mut own = std::collections::BTreeMap::new();
        for (_, at, value) in readings.iter().filter(|reading| reading.0 == sensor) {
            let Some(value) = *value else { continue };
            own.entry(*at).and_modify(|other: &mut f64| *other = other.max(value)).or_insert(value);
        }
        let own: Vec<(i64, f64)> = own.into_iter().collect();
        for session in own.chunk_by(|a, b| b.0 - a.0 <= 600_000) {
            let last = &session[session.len().saturating_sub(5)..];
            let mean = last.iter().map(|(_, value)| value).sum::<f64>() / last.len() as f64;
            alerts.push(format!("{sensor} {} {} {mean:.3}", session[session.len() - 1].0, session.len()));
        }
    }
    alerts.sort();
    alerts
}

fn found(alerts: &[RecordBatch]) -> Vec<String> {
    let lines = sorted_lines(alerts).expect("rows print");
    let print = |line: &String| {
        let cells: Vec<&str> = line.split(" | ").collect();
        let mean: f64 = cells[3].parse().expect("a number");
        format!("{} {} {} {mean:.3}", cells[0], cells[1], cells[2])
    };
    let mut found: Vec<String> = lines.iter().map(print).collect();
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silences_are_found_and_malformed_readings_set_aside() {
    let readings = readings();
    let expected = expected(&readings);
    assert!(expected.len() > 20, "sensors fall silent: {expected:?}");
    for parallelism in [1, 3] {
        let splits = vec![readings.chunks(100).map(batch).collect()];
        let source = Arc::new(MemorySource::new(reading_schema(), splits));
        let (silent, malformed, alive) = (MemorySink::default(), MemorySink::default(), MemorySink::default());
        let sinks: [Arc<dyn Sink>; 3] = [Arc::new(silent.clone()), Arc::new(malformed.clone()), Arc::new(alive)];
        let graph = graph(parallelism, source, sinks).expect("a complete graph");
        let folder = tempfile::tempdir().expect("a folder");
        let job = crate::embed::start("sensors", graph, folder.path(), Duration::from_millis(5)).expect("sound");
        assert!(matches!(job.outcome().await, JobOutcome::Finished));
        assert_eq!(found(&silent.rows()), expected, "at parallelism {parallelism}");
        let set_aside: usize = malformed.rows().iter().map(RecordBatch::num_rows).sum();
        assert_eq!(set_aside, readings.iter().filter(|reading| reading.2.is_none()).count());
    }
}

/// The function alone, in the harness that the runtime offers for it.
fn harness(folder: &std::path::Path) -> Harness {
    let source = Arc::new(MemorySource::new(reading_schema(), vec![]));
    let sinks: [Arc<dyn Sink>; 3] = std::array::from_fn(|_| Arc::new(MemorySink::default()) as Arc<dyn Sink>);
    let graph = graph(1, source, sinks).expect("a complete graph");
    let watchdog = graph.nodes.iter().find(|node| node.uid == "watchdog").expect("the function");
    let NodeKind::Operator(factory) = &watchdog.kind else { panic!("an operator") };
    Harness::new(factory.clone(), folder).expect("it opens")
}

#[test]
fn what_a_sensor_says_is_reported_by_the_wall_clock_also_after_a_restart() {
    const ALIVE: Port = Port::side(1);
    let folder = tempfile::tempdir().expect("a folder");
    let mut harness = harness(folder.path());
    let reading = |sensor: &str| (sensor.to_owned(), 0, Some(1.0));
    let push = |harness: &mut Harness, readings: &[Reading]| harness.push(Input::Rows(Batch::inserts(batch(readings))));
    push(&mut harness, &[reading("a"), reading("a"), reading("b")]).expect("rows are taken");
    harness.push(Input::Time(Timestamp(9_999))).expect("time moves");
    assert!(harness.take(ALIVE).is_empty(), "it is not time yet");
    push(&mut harness, &[reading("a")]).expect("rows are taken");
    harness.checkpoint().expect("a checkpoint");
    harness.restart(SubtaskIndex(0), 1).expect("a restart");
    harness.push(Input::Time(Timestamp(10_000))).expect("time moves");
    assert_eq!(sorted_lines(&harness.take(ALIVE)).expect("rows print"), ["a | 3", "b | 1"]);
    harness.push(Input::Time(Timestamp(30_000))).expect("time moves");
    assert!(harness.take(ALIVE).is_empty(), "nothing was said since");
}
