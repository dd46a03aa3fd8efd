//! OVER in the harness: random rows beside a computation by definition.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int8Array, Int64Array, TimestampMillisecondArray};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use coulee_model::{SubtaskIndex, Timestamp};
use coulee_runtime::graph::{OperatorFactory, Port};
use coulee_runtime::group_table::Aggregate;
use coulee_runtime::harness::{Harness, Input, agrees, changelog_lines};
use coulee_runtime::over::{Frame, FrameUnit, OverCall, OverMode, OverSpec, Share, over};
use coulee_runtime::rank::RankFunction;
use coulee_runtime::{Batch, RowKind};
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
    over(spec(calls, if by_time { OverMode::ByTime(column("ts")) } else { OverMode::AtEnd }))
}

fn spec(calls: Vec<(OverCall, DataType)>, mode: OverMode) -> OverSpec {
    let mut fields: Vec<Field> = input().fields().iter().map(|field| field.as_ref().clone()).collect();
    let of_call = |(index, data_type): (usize, &DataType)| Field::new(format!("c{index}"), data_type.clone(), true);
    fields.extend(calls.iter().map(|(_, data_type)| data_type).enumerate().map(of_call));
    OverSpec {
        partition: vec![column("k")],
        order: vec![(column("ts"), SortOptions { descending: false, nulls_first: true })],
        mode,
        calls: calls.into_iter().map(|(call, _)| call).collect(),
        input: input(),
        schema: Arc::new(Schema::new(fields)),
    }
}

fn batch(rows: &[Row]) -> Batch {
    Batch::inserts(columns(rows))
}

fn columns(rows: &[Row]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.1))),
        Arc::new(rows.iter().map(|row| row.2).collect::<Int64Array>()),
    ];
    RecordBatch::try_new(input(), columns).unwrap()
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
    let is_in = |(other, row): &(usize, &Row)| {
        let distance = match frame.unit {
            FrameUnit::Rows => *other as i64 - index as i64,
            FrameUnit::Range => row.1 - time,
        };
        frame.from.is_none_or(|from| distance >= from) && frame.to.is_none_or(|to| distance <= to)
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

const FRAMES: [Frame; 8] = [
    rows(None, Some(0)),
    rows(Some(0), Some(0)),
    rows(Some(-2), Some(0)),
    rows(Some(-3), Some(-1)),
    range(None, Some(0)),
    range(Some(0), Some(0)),
    range(Some(-7), Some(0)),
    range(Some(-5), Some(-2)),
];

/// Frames of rows that follow.
const AHEAD: [Frame; 8] = [
    rows(Some(-1), Some(1)),
    rows(Some(1), Some(2)),
    rows(Some(0), None),
    rows(None, None),
    range(Some(-2), Some(3)),
    range(Some(1), Some(2)),
    range(Some(-1), None),
    range(None, Some(2)),
];

const fn rows(from: Option<i64>, to: Option<i64>) -> Frame {
    Frame { unit: FrameUnit::Rows, from, to }
}

const fn range(from: Option<i64>, to: Option<i64>) -> Frame {
    Frame { unit: FrameUnit::Range, from, to }
}

#[test]
fn aggregates_are_those_of_their_frames() {
    let by_time = FRAMES.map(|frame| (true, frame)).into_iter();
    let at_end = FRAMES.into_iter().chain(AHEAD).map(|frame| (false, frame));
    for (by_time, frame) in by_time.chain(at_end) {
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
    let lag = OverCall::Shifted { value: column("v"), by: -2, default: ScalarValue::Int64(Some(-1)) };
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
    let factory = factory(vec![(aggregate(sum_udaf(), rows(None, Some(0))), DataType::Int64)], true);
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
    let call = (aggregate(avg_udaf(), range(Some(-10), Some(0))), DataType::Float64);
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

/// Plays a random history of rows that come and go, with or without a restart after each batch, and looks at what is there after each.
fn play(spec: &OverSpec, seed: u64, results: &dyn Fn(&[Row], usize) -> Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::new(over(spec.clone()), folder.path()).unwrap();
    let (mut random, mut left) = (Random(seed), Vec::<Row>::new());
    let mut there: BTreeMap<String, i64> = BTreeMap::new();
    for step in 0..25 {
        let (mut rows, mut kinds) = (Vec::new(), Vec::new());
        for _ in 0..1 + random.below(5) {
            if !left.is_empty() && random.below(3) == 0 {
                rows.push(left.swap_remove(random.below(left.len() as u64) as usize));
                kinds.push(RowKind::Delete as i8);
                continue;
            }
            // Equal rows and peers are frequent.
            let row = (random.below(3), 1 + random.below(12), (random.below(4) > 0).then(|| random.below(4)));
            left.push(row);
            rows.push(row);
            kinds.push(RowKind::Insert as i8);
        }
        harness.push(Input::Rows(Batch::changes(columns(&rows), Int8Array::from(kinds)))).unwrap();
        for line in changelog_lines(&harness.take_batches(Port::MAIN)).unwrap_or_default() {
            let (kind, row) = line.split_once(" | ").unwrap();
            let count = there.entry(row.to_owned()).or_default();
            *count += if kind.starts_with('+') { 1 } else { -1 };
            assert!(*count >= 0, "{line} takes back what is not there: seed {seed}, step {step}");
        }
        there.retain(|_, count| *count != 0);
        let mut sorted = left.clone();
        sorted.sort_unstable();
        let mut wanted: BTreeMap<String, i64> = BTreeMap::new();
        expected(&sorted, results).into_iter().for_each(|line| *wanted.entry(line).or_default() += 1);
        assert_eq!(there, wanted, "seed {seed}, step {step}, {spec:?}");
        if seed.is_multiple_of(2) {
            harness.checkpoint().unwrap();
            harness.restart(SubtaskIndex(0), 1).unwrap();
        }
    }
}

const UPDATING: OverMode = OverMode::Updating { changelog: true, ttl_millis: None };

#[test]
fn frames_follow_rows_that_come_and_go() {
    for (index, frame) in FRAMES.into_iter().chain(AHEAD).enumerate() {
        let functions = [sum_udaf(), max_udaf(), count_udaf()];
        let calls = functions.map(|function| (aggregate(function, frame), DataType::Int64));
        let spec = spec(calls.to_vec(), UPDATING);
        for seed in 0..4 {
            play(&spec, 300 + 10 * index as u64 + seed, &|rows, index| {
                let values = framed(rows, index, frame);
                vec![sum(&values), shown(values.iter().max()), values.len().to_string()]
            });
        }
    }
}

#[test]
fn bounded_frames_of_several_kinds_follow_rows_that_come_and_go() {
    let frames = [rows(Some(-2), Some(1)), range(Some(-3), Some(0)), range(Some(0), Some(0)), range(Some(1), Some(2))];
    let shifted = |by| OverCall::Shifted { value: column("v"), by, default: ScalarValue::Int64(Some(-1)) };
    let calls = frames.map(|frame| aggregate(sum_udaf(), frame)).into_iter().chain([shifted(-3), shifted(2)]);
    let spec = spec(calls.map(|call| (call, DataType::Int64)).collect(), UPDATING);
    for seed in 400..408 {
        play(&spec, seed, &|rows, index| {
            let lag = if index < 3 { Some(-1) } else { rows[index - 3].2 };
            let lead = rows.get(index + 2).map_or(Some(-1), |row| row.2);
            let sums = frames.map(|frame| sum(&framed(rows, index, frame)));
            sums.into_iter().chain([shown(lag), shown(lead)]).collect()
        });
    }
}

#[test]
fn numbers_and_totals_follow_rows_that_come_and_go() {
    let numbers = [RankFunction::RowNumber, RankFunction::Rank].map(OverCall::Number);
    let calls = numbers.into_iter().chain([aggregate(sum_udaf(), range(None, Some(0)))]);
    let calls: Vec<(OverCall, DataType)> = calls.map(|call| (call, DataType::Int64)).collect();
    let ordered = spec(calls.clone(), UPDATING);
    for seed in 500..504 {
        play(&ordered, seed, &|rows, index| {
            let before = rows.iter().filter(|row| row.1 < rows[index].1).count();
            let total = sum(&framed(rows, index, range(None, Some(0))));
            vec![(index + 1).to_string(), (before + 1).to_string(), total]
        });
    }
    let without_order = OverSpec { order: Vec::new(), ..spec(calls[2..].to_vec(), UPDATING) };
    for seed in 510..514 {
        play(&without_order, seed, &|rows, _| vec![sum(&rows.iter().filter_map(|row| row.2).collect::<Vec<i64>>())]);
    }
}

#[test]
fn shares_are_those_of_the_whole_partition() {
    let shares = [Share::PercentRank, Share::CumeDist].map(|share| (OverCall::Share(share), DataType::Float64));
    let parts = (OverCall::Share(Share::Ntile(4)), DataType::Int64);
    let calls: Vec<(OverCall, DataType)> = shares.into_iter().chain([parts]).collect();
    let results = |rows: &[Row], index: usize| {
        let before = rows.iter().filter(|row| row.1 < rows[index].1).count() as f64;
        let up_to = rows.iter().filter(|row| row.1 <= rows[index].1).count() as f64;
        let (count, others) = (rows.len() as f64, (rows.len() as f64 - 1.0).max(1.0));
        // Each part has the rows that are left, shared among the parts that are left.
        let (mut part, mut end) = (0, 0);
        while end <= index {
            end += (rows.len() - end).div_ceil(4 - part);
            part += 1;
        }
        vec![format!("{:?}", before / others), format!("{:?}", up_to / count), part.to_string()]
    };
    for seed in 600..606 {
        play(&spec(calls.clone(), UPDATING), seed, &results);
        let (inputs, rows) = history(seed);
        assert_eq!(run(&factory(calls.clone(), false), &inputs), expected(&rows, results), "seed {seed}");
    }
}
