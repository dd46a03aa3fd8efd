//! The watermark as a column.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit, TimestampMillisecondType};
use coulee_model::{SubtaskIndex, Timestamp};
use coulee_runtime::Batch;
use coulee_runtime::current_watermark::current_watermark;
use coulee_runtime::graph::Port;
use coulee_runtime::harness::{Harness, Input};

use super::windows::rows;

#[test]
fn rows_have_the_watermark_that_came_before_them_also_after_a_restart() {
    let mut fields = rows(&[]).schema().fields().to_vec();
    fields.push(Arc::new(Field::new("watermark", DataType::Timestamp(TimeUnit::Millisecond, None), true)));
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::new(current_watermark(Arc::new(Schema::new(fields))), folder.path()).unwrap();
    let next = |harness: &mut Harness| -> Option<i64> {
        harness.push(Input::Rows(Batch::inserts(rows(&[(Some(7), Some("a"), Some(1))])))).unwrap();
        let batch = harness.take(Port::MAIN).remove(0);
        let column = batch.column(3).as_primitive::<TimestampMillisecondType>();
        column.is_valid(0).then(|| column.value(0))
    };
    assert_eq!(next(&mut harness), None);
    harness.push(Input::Watermark(Timestamp(10))).unwrap();
    assert_eq!((next(&mut harness), next(&mut harness)), (Some(10), Some(10)));
    harness.checkpoint().unwrap();
    harness.push(Input::Watermark(Timestamp(12))).unwrap();
    harness.restart(SubtaskIndex(0), 1).unwrap();
    assert_eq!(next(&mut harness), Some(10));
    // Another subtask begins at what all have reached.
    harness.restart(SubtaskIndex(1), 2).unwrap();
    assert_eq!(next(&mut harness), Some(10));
    assert_eq!(harness.take_watermarks(), [Timestamp(10), Timestamp(12)]);
    // What it stored is of nobody once there is one subtask: the next second one begins at what that one has reached.
    harness.push(Input::Watermark(Timestamp(11))).unwrap();
    harness.checkpoint().unwrap();
    harness.restart(SubtaskIndex(0), 1).unwrap();
    harness.push(Input::Watermark(Timestamp(20))).unwrap();
    harness.checkpoint().unwrap();
    harness.restart(SubtaskIndex(1), 2).unwrap();
    assert_eq!(next(&mut harness), Some(20));
}
