//! Rows that get the time at which they are processed, and the watermark that follows the clock.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit, TimestampMillisecondType};
use coulee_model::{SubtaskIndex, Timestamp};
use coulee_runtime::Batch;
use coulee_runtime::graph::{OperatorFactory, Port};
use coulee_runtime::harness::{Harness, Input};
use coulee_runtime::processing_time::{ProcessingTimeSpec, processing_time};

use super::windows::rows;

fn operator(step_millis: i64, offset_millis: i64) -> Arc<dyn OperatorFactory> {
    let mut fields = rows(&[]).schema().fields().to_vec();
    fields.push(Arc::new(Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, None), false)));
    processing_time(ProcessingTimeSpec { step_millis, offset_millis, schema: Arc::new(Schema::new(fields)) })
}

fn row() -> Input {
    Input::Rows(Batch::inserts(rows(&[(Some(7), Some("a"), Some(1))])))
}

/// The times of the rows that came out.
fn times(harness: &mut Harness) -> Vec<i64> {
    let batches = harness.take(Port::MAIN);
    batches.iter().flat_map(|b| b.column(3).as_primitive::<TimestampMillisecondType>().values().to_vec()).collect()
}

fn watermarks(harness: &mut Harness) -> Vec<i64> {
    harness.take_watermarks().into_iter().map(|watermark| watermark.0).collect()
}

#[test]
fn rows_get_the_time_of_the_clock_and_the_watermark_follows_at_the_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::new(operator(1_000, 300), folder.path()).unwrap();
    harness.push(row()).unwrap();
    harness.push(Input::Time(Timestamp(250))).unwrap();
    harness.push(row()).unwrap();
    assert_eq!((times(&mut harness), watermarks(&mut harness)), (vec![0, 250], vec![]));
    // 300 is a bound, as are 1300 and 2300; a clock that jumps over bounds passes on once what was before it.
    for (now, passed) in [(299, vec![]), (300, vec![299]), (1_299, vec![]), (1_300, vec![1_299]), (4_000, vec![3_999])]
    {
        harness.push(Input::Time(Timestamp(now))).unwrap();
        assert_eq!(watermarks(&mut harness), passed, "at {now}");
    }
    // The rows of the input have an event time of their own, which is none here. That the input has ended is passed on.
    harness.push(Input::Watermark(Timestamp(9_000))).unwrap();
    harness.push(row()).unwrap();
    assert_eq!((times(&mut harness), watermarks(&mut harness)), (vec![4_000], vec![]));
    harness.end().unwrap();
    assert_eq!(watermarks(&mut harness), [Timestamp::MAX.0]);
}

#[test]
fn small_steps_are_a_tenth_of_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::new(operator(1, 0), folder.path()).unwrap();
    for now in 1..=350 {
        harness.push(Input::Time(Timestamp(now))).unwrap();
    }
    assert_eq!(watermarks(&mut harness), [99, 199, 299]);
}

#[test]
fn time_goes_on_where_it_was_when_the_clock_is_set_back_and_the_parallelism_changed() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::new(operator(1_000, 0), folder.path()).unwrap();
    harness.push(Input::Time(Timestamp(5_500))).unwrap();
    harness.push(row()).unwrap();
    harness.checkpoint().unwrap();
    assert_eq!((times(&mut harness), watermarks(&mut harness)), (vec![5_500], vec![5_499]));
    drop(harness);
    // Another process, whose clock begins at 0, with another number of subtasks.
    let mut harness = Harness::new(operator(1_000, 0), folder.path()).unwrap();
    harness.restart(SubtaskIndex(1), 2).unwrap();
    harness.push(row()).unwrap();
    harness.push(Input::Time(Timestamp(5_999))).unwrap();
    harness.push(row()).unwrap();
    assert_eq!((times(&mut harness), watermarks(&mut harness)), (vec![5_500, 5_999], vec![]));
    harness.push(Input::Time(Timestamp(6_000))).unwrap();
    assert_eq!(watermarks(&mut harness), [5_999]);
    // What subtask 0 had stored, and both have, counts also for one subtask alone.
    harness.checkpoint().unwrap();
    harness.restart(SubtaskIndex(0), 1).unwrap();
    harness.checkpoint().unwrap();
    harness.restart(SubtaskIndex(0), 1).unwrap();
    harness.push(row()).unwrap();
    assert_eq!(times(&mut harness), [6_000]);
}
