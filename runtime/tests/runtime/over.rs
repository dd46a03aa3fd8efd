//! OVER in the harness: random rows beside a computation by definition.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, TimestampMillisecondArray};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use coulee_model::{SubtaskIndex, Timestamp};
use coulee_runtime::Batch;
use coulee_runtime::graph::{OperatorFactory, Port};
use coulee_runtime::group_table::Aggregate;
use coulee_runtime::harness::{Harness, Input, agrees};
use coulee_runtime::over::{Frame, OverCall, OverSpec, over};
use coulee_runtime::rank::RankFunction;
use datafusion_common::ScalarValue;
use datafusion_expr::AggregateUDF;
use datafusion_functions_aggregate::average::avg_udaf;
use datafusion_functions_aggregate::count::count_udaf;
use datafusion_functions_aggregate::min_max::max_udaf;
use datafusion_functions_aggregate::sum::sum_udaf;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::aggregate::AggregateExprBuilder;
use datafusion_physical_expr::expressions::col;

/// A key, a time in milliseconds (below 1,000) and a value.
type Row = (i64, i64, Option<i64>);

fn input() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Millisecond, None);
    let fields = [("k", DataType::Int64, false), ("ts", time, true), ("v", DataType::Int64, true)];
    Arc::new(Schema::new(fields.map(|(name, data_type, nullable)| Field::new(name, data_type, nullable)).to_vec()))
}

fn column(name: &str) -> Arc<dyn PhysicalExpr> {
    col(name, &input()).unwrap()
}

fn aggregate(function: Arc<AggregateUDF>, frame: Frame) -> OverCall {
    let function = match function.name() {
        // DataFusion's average is of floating numbers.
        "avg" => AggregateExprBuilder::new(
            function,
            vec![Arc::new(datafusion_physical_expr::expressions::CastExpr::new(column("v"), DataType::Float64, None))],
        ),
        _ => AggregateExprBuilder::new(function, vec![column("v")]),
    };
    let function = function.schema(input()).alias("a").build().unwrap();
    OverCall::Aggregate(Aggregate { function: Arc::new(function), filter: None }, frame)
}

fn factory(calls: Vec<(OverCall, DataType)>, by_time: bool) -> Arc<dyn OperatorFactory> {
    let mut fields: Vec<Field> = input().fields().iter().map(|field| field.as_ref().clone()).collect();
    let of_call = |(index, data_type): (usize, &DataType)| Field::new(format!("c{index}"), data_type.clone(), true);
    fields.extend(calls.iter().map(|(_, data_type)| data_type).enumerate().map(of_call));
    over(OverSpec {
        partition: vec![column("k")],
        order: vec![(column("ts"), SortOptions { descending: false, nulls_first: true })],
        time: by_time.then(|| column("ts")),
        calls: calls.into_iter().map(|(call, _)| call).collect(),
        input: input(),
        schema: Arc::new(Schema::new(fields)),
    })
}

fn batch(rows: &[Row]) -> Batch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.1))),
        Arc::new(rows.iter().map(|row| row.2).collect::<Int64Array>()),
    ];
    Batch::inserts(RecordBatch::try_new(input(), columns).unwrap())
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % n) as i64
    }
}

/// Batches and watermarks. Times are above the last watermark, so that no row is late.
fn history(seed: u64) -> (Vec<Input>, Vec<Row>) {
    let mut random = Random(seed);
    let (mut inputs, mut rows, mut watermark) = (Vec::new(), Vec::new(), 0);
    for _ in 0..8 {
        let mut of_batch = Vec::new();
        for _ in 0..1 + random.below(6) {
            let value = (random.below(4) > 0).then(|| random.below(9));
            of_batch.push((random.below(3), watermark + 1 + random.below(12), value));
        }
        rows.extend(of_batch.clone());
        inputs.push(Input::Rows(batch(&of_batch)));
        if random.below(3) > 0 {
            watermark += random.below(8);
            inputs.push(Input::Watermark(Timestamp(watermark)));
        }
    }
    (inputs, rows)
}

fn run(factory: &Arc<dyn OperatorFactory>, inputs: &[Input]) -> Vec<String> {
    let folders = tempfile::tempdir().unwrap();
    let mut next = 0;
    let folder = || -> PathBuf {
        next += 1;
        folders.path().join(next.to_string())
    };
    agrees(factory, inputs, folder).unwrap()
}

/// The values of the rows of a frame, by definition. The rows are in their order.
fn framed(rows: &[Row], index: usize, frame: Frame) -> Vec<i64> {
    let time = rows[index].1;
    let is_in = |(other, row): &(usize, &Row)| match frame {
        Frame::Rows(None) => *other <= index,
        Frame::Rows(Some(back)) => *other <= index && other + back >= index,
        Frame::Range(None) => row.1 <= time,
        Frame::Range(Some(back)) => row.1 <= time && row.1 >= time - back,
    };
    rows.iter().enumerate().filter(is_in).filter_map(|(_, row)| row.2).collect()
}

fn shown<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn sum(values: &[i64]) -> String {
    shown((!values.is_empty()).then(|| values.iter().sum::<i64>()))
}

/// All rows with what `results` gives for each row of a key, whose rows are in the order of their times and then of their arrival.
fn expected(rows: &[Row], results: impl Fn(&[Row], usize) -> Vec<String>) -> Vec<String> {
    let mut lines = Vec::new();
    for key in 0..3 {
        let mut rows: Vec<Row> = rows.iter().filter(|row| row.0 == key).copied().collect();
        rows.sort_by_key(|row| row.1);
        for (index, row) in rows.iter().enumerate() {
            let first = [key.to_string(), format!("1970-01-01T00:00:00.{:03}", row.1), shown(row.2)];
            lines.push(first.into_iter().chain(results(&rows, index)).collect::<Vec<_>>().join(" | "));
        }
    }
    lines.sort();
    lines
}

const FRAMES: [Frame; 6] = [
    Frame::Rows(None),
    Frame::Rows(Some(0)),
    Frame::Rows(Some(2)),
    Frame::Range(None),
    Frame::Range(Some(0)),
    Frame::Range(Some(7)),
];

#[test]
fn aggregates_are_those_of_their_frames() {
    for (by_time, frame) in [true, false].into_iter().flat_map(|by_time| FRAMES.map(|frame| (by_time, frame))) {
        let functions = [sum_udaf(), max_udaf(), count_udaf()];
        let calls = functions.map(|function| (aggregate(function, frame), DataType::Int64));
        let factory = factory(calls.to_vec(), by_time);
        for seed in 0..6 {
            let (inputs, rows) = history(seed);
            let results = |rows: &[Row], index: usize| {
                let values = framed(rows, index, frame);
                vec![sum(&values), shown(values.iter().max()), values.len().to_string()]
            };
            assert_eq!(run(&factory, &inputs), expected(&rows, results), "{frame:?}, by time: {by_time}, seed {seed}");
        }
    }
}

#[test]
fn frames_of_several_lengths_stand_side_by_side() {
    let factory = factory(FRAMES.map(|frame| (aggregate(sum_udaf(), frame), DataType::Int64)).to_vec(), true);
    for seed in 100..110 {
        let (inputs, rows) = history(seed);
        let results = |rows: &[Row], index: usize| FRAMES.map(|frame| sum(&framed(rows, index, frame))).to_vec();
        assert_eq!(run(&factory, &inputs), expected(&rows, results), "seed {seed}");
    }
}

#[test]
fn rows_are_numbered_and_look_back() {
    let lag = OverCall::Lag { value: column("v"), rows: 2, default: ScalarValue::Int64(Some(-1)) };
    let numbers = [RankFunction::RowNumber, RankFunction::Rank, RankFunction::DenseRank].map(OverCall::Number);
    let calls = numbers.into_iter().chain([lag]).map(|call| (call, DataType::Int64)).collect();
    let factory = factory(calls, true);
    for seed in 200..210 {
        let (inputs, rows) = history(seed);
        let results = |rows: &[Row], index: usize| {
            let before: Vec<i64> = rows.iter().map(|row| row.1).filter(|time| *time < rows[index].1).collect();
            let mut distinct = before.clone();
            distinct.dedup();
            let lag = if index < 2 { Some(-1) } else { rows[index - 2].2 };
            vec![(index + 1).to_string(), (before.len() + 1).to_string(), (distinct.len() + 1).to_string(), shown(lag)]
        };
        assert_eq!(run(&factory, &inputs), expected(&rows, results), "seed {seed}");
    }
}

#[test]
fn late_rows_and_rows_without_a_time_are_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let factory = factory(vec![(aggregate(sum_udaf(), Frame::Rows(None)), DataType::Int64)], true);
    let mut harness = Harness::new(factory, folder.path()).unwrap();
    harness.push(Input::Rows(batch(&[(1, 5, Some(1))]))).unwrap();
    harness.push(Input::Watermark(Timestamp(5))).unwrap();
    harness.push(Input::Rows(batch(&[(1, 5, Some(7)), (1, 6, Some(2))]))).unwrap();
    let timeless: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![1])),
        Arc::new(TimestampMillisecondArray::from(vec![None])),
        Arc::new(Int64Array::from(vec![9])),
    ];
    harness.push(Input::Rows(Batch::inserts(RecordBatch::try_new(input(), timeless).unwrap()))).unwrap();
    harness.end().unwrap();
    let late: usize = harness.take(Port::LATE).iter().map(RecordBatch::num_rows).sum();
    assert_eq!(late, 2);
    let sums = |rows: &RecordBatch| rows.column(3).as_primitive::<Int64Type>().values().to_vec();
    assert_eq!(harness.take(Port::MAIN).iter().flat_map(sums).collect::<Vec<i64>>(), [1, 3]);
}

#[test]
fn rows_that_no_frame_needs_are_freed() {
    let folder = tempfile::tempdir().unwrap();
    let call = (aggregate(avg_udaf(), Frame::Range(Some(10))), DataType::Float64);
    let mut harness = Harness::new(factory(vec![call], true), folder.path()).unwrap();
    let empty = harness.state_bytes();
    let rows: Vec<Row> = (0..1_000).map(|index| (index % 50, index, Some(index))).collect();
    harness.push(Input::Rows(batch(&rows))).unwrap();
    let full = harness.state_bytes();
    harness.push(Input::Watermark(Timestamp(2_000))).unwrap();
    let emitted: usize = harness.take(Port::MAIN).iter().map(RecordBatch::num_rows).sum();
    assert_eq!(emitted, 1_000);
    // What was deleted is known until a checkpoint without it is durable.
    for _ in 0..3 {
        harness.checkpoint().unwrap();
    }
    let left = harness.state_bytes();
    assert!(left < empty + (full - empty) / 4, "{empty} bytes without rows, {full} with all, {left} afterwards");
    harness.restart(SubtaskIndex(0), 1).unwrap();
    harness.push(Input::Rows(batch(&[(1, 2_001, Some(3))]))).unwrap();
    harness.end().unwrap();
    assert_eq!(harness.take(Port::MAIN)[0].column(3).as_primitive::<Float64Type>().value(0), 3.0);
}
