//! Hopping and cumulating windows over shared slices, against a naive recomputation by the definition of a window.

mod jobs;
mod memory;
mod naive;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, Int8Array};
use arrow::datatypes::TimestampMillisecondType;
use arrow::record_batch::RecordBatch;
use coulee_model::{SubtaskIndex, Timestamp};
use coulee_runtime::RowKind::{Delete, Insert, UpdateAfter, UpdateBefore};
use coulee_runtime::flow::{GraphBuilder, col, lit};
use coulee_runtime::graph::{Graph, Lineage, NodeKind, OperatorFactory, Port};
use coulee_runtime::harness::{Harness, Input, agrees, changelog_lines, sorted_lines};
use coulee_runtime::memory::{MemorySink, MemorySource};
use coulee_runtime::window::{WindowKind, Windows};
use coulee_runtime::{Batch, RowKind};
use datafusion_functions_aggregate::expr_fn::{count, max, sum};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::windows::{InputRow, rows, shown};
use naive::{Arrival, late, naive};

fn hopping(size_millis: i64, slide_millis: i64, offset: i64) -> Windows {
    Windows::new(WindowKind::Hopping { size_millis, slide_millis }, offset).unwrap()
}

fn cumulating(max_size_millis: i64, step_millis: i64, offset: i64) -> Windows {
    Windows::new(WindowKind::Cumulating { max_size_millis, step_millis }, offset).unwrap()
}

/// Windows of every kind and shape.
fn all_windows() -> Vec<Windows> {
    vec![
        hopping(30, 10, 0),
        hopping(20, 5, -3),
        // No multiple of the slide.
        hopping(25, 10, 4),
        hopping(10, 10, 0),
        // Many slices: 32, and 50 of 1 ms.
        hopping(64, 2, 1),
        hopping(50, 3, 0),
        cumulating(40, 10, -7),
        cumulating(30, 30, 0),
        cumulating(15, 3, 1),
        Windows::new(WindowKind::Tumbling { size_millis: 10 }, 4).unwrap(),
    ]
}

/// What is under test. At parallelism 1 the window operator is node 1; else the partial stage is node 1 and the final stage node 2.
#[derive(Clone, Copy)]
struct Query {
    windows: Windows,
    keyed: bool,
    changelog: bool,
}

impl Query {
    fn graph(self, parallelism: u32, splits: Vec<Vec<Batch>>, sink: &MemorySink) -> Graph {
        let builder = GraphBuilder::new(parallelism);
        let schema = rows(&[]).schema();
        let source = match self.changelog {
            true => MemorySource::changelog(schema, splits),
            false => {
                let rows = |split: Vec<Batch>| split.into_iter().map(Batch::into_rows).collect();
                MemorySource::new(schema, splits.into_iter().map(rows).collect())
            }
        };
        let flow = builder.source("in", Arc::new(source)).unwrap();
        let flow = flow.event_time("time", Duration::from_millis(20)).unwrap();
        let aggregates = [count(lit(1i64)).alias("n"), sum(col("value")).alias("sum"), max(col("value")).alias("max")];
        let keyed = if self.keyed { flow.key_by(["key"]) } else { flow.key_by([]) };
        let window = keyed.unwrap().window("w", "time", self.windows, aggregates).unwrap();
        window.sink("out", Arc::new(sink.clone())).unwrap();
        builder.finish().unwrap()
    }

    /// The operators of the window: one, or the partial and the final stage.
    fn operators(self, parallelism: u32) -> Vec<Arc<dyn OperatorFactory>> {
        let graph = self.graph(parallelism, vec![], &MemorySink::default());
        let operator = |kind: &NodeKind| match kind {
            NodeKind::Operator(factory) => Some(factory.clone()),
            NodeKind::Source(_) | NodeKind::Sink(_) => None,
        };
        graph.nodes.iter().filter_map(|node| operator(&node.kind)).collect()
    }

    fn operator(self) -> Arc<dyn OperatorFactory> {
        self.operators(1).remove(0)
    }
}

fn appending(windows: Windows) -> Query {
    Query { windows, keyed: true, changelog: false }
}

fn batch(changes: &[(RowKind, InputRow)], changelog: bool) -> Batch {
    let rows = rows(&changes.iter().map(|(_, row)| *row).collect::<Vec<_>>());
    match changelog {
        true => Batch::changes(rows, changes.iter().map(|(kind, _)| *kind as i8).collect::<Int8Array>()),
        false => Batch::inserts(rows),
    }
}

fn inserts(rows: &[InputRow]) -> Input {
    Input::Rows(batch(&rows.iter().map(|row| (Insert, *row)).collect::<Vec<_>>(), false))
}

/// A history: batches of rows with watermarks between them, of which many leave rows behind. Times are from -60 ms on.
struct History {
    inputs: Vec<Input>,
    arrivals: Vec<Arrival>,
}

fn history(seed: u64, changelog: bool) -> History {
    let mut random = SmallRng::seed_from_u64(seed);
    let (mut inputs, mut arrivals, mut live) = (Vec::new(), Vec::<Arrival>::new(), Vec::<InputRow>::new());
    let (mut clock, mut watermark) = (-60, i64::MIN);
    for _ in 0..9 {
        let mut changes = Vec::new();
        for _ in 0..random.random_range(1..8) {
            let time = (random.random_range(0..30) > 0).then(|| clock - random.random_range(0..40));
            let row = (time, [Some("a"), Some("b"), None][random.random_range(0..3)], Some(random.random_range(-3..4)));
            if changelog && !live.is_empty() && random.random_range(0..3) == 0 {
                let old = live.swap_remove(random.random_range(0..live.len()));
                if random.random_range(0..2) == 0 {
                    changes.push((Delete, old));
                    continue;
                }
                changes.extend([(UpdateBefore, old), (UpdateAfter, row)]);
            } else {
                changes.push((Insert, row));
            }
            live.push(row);
        }
        arrivals.extend(changes.iter().map(|(kind, row)| Arrival { kind: *kind, row: *row, watermark }));
        inputs.push(Input::Rows(batch(&changes, changelog)));
        // Now and then event time jumps over whole windows, or stands still.
        clock += [0, 4, 9, 15, 70][random.random_range(0..5)];
        let reached = clock - random.random_range(0..35);
        if reached > watermark {
            watermark = reached;
            inputs.push(Input::Watermark(Timestamp(watermark)));
        }
    }
    History { inputs, arrivals }
}

/// New empty folders.
fn folders(of: &tempfile::TempDir) -> impl FnMut() -> PathBuf + '_ {
    let mut next = 0;
    move || {
        next += 1;
        of.path().join(next.to_string())
    }
}

#[test]
fn any_batching_and_any_restart_give_the_naive_result() {
    let (mut some_late, mut some_partly_late) = (0, 0);
    for (index, windows) in all_windows().into_iter().enumerate() {
        for (keyed, changelog) in [(true, false), (false, false), (true, true), (false, true)] {
            let query = Query { windows, keyed, changelog };
            let history = history(100 * index as u64 + u64::from(keyed) + 2 * u64::from(changelog), changelog);
            let folder = tempfile::tempdir().unwrap();
            let found = agrees(&query.operator(), &history.inputs, folders(&folder)).unwrap();
            let shape = format!("{windows:?}, keyed: {keyed}, a changelog: {changelog}");
            assert_eq!(found, naive(&windows, keyed, &history.arrivals), "{shape}");
            assert!(!found.is_empty(), "{shape}");
            let (all, some) = late(&windows, &history.arrivals);
            (some_late, some_partly_late) = (some_late + all, some_partly_late + some);
        }
    }
    assert!(some_late > 20 && some_partly_late > 20, "{some_late} late rows, and {some_partly_late} for some windows");
}

#[test]
fn late_rows_are_those_that_no_open_window_holds() {
    for (index, windows) in all_windows().into_iter().enumerate() {
        for changelog in [false, true] {
            let query = Query { windows, keyed: true, changelog };
            let history = history(1_000 + index as u64, changelog);
            let folder = tempfile::tempdir().unwrap();
            let mut harness = Harness::new(query.operator(), folder.path()).unwrap();
            history.inputs.iter().for_each(|input| harness.push(input.clone()).unwrap());
            harness.end().unwrap();
            assert_eq!(sorted_lines(&harness.take(Port::MAIN)).unwrap(), naive(&windows, true, &history.arrivals));
            let (late, _) = late(&windows, &history.arrivals);
            assert_eq!(harness.metrics().figures().late_rows(), late, "{windows:?}");
            let timeless = history.arrivals.iter().filter(|arrival| arrival.row.0.is_none()).count() as u64;
            assert_eq!(harness.metrics().figures().timeless_rows(), timeless);
            let emitted = harness.take(Port::LATE).iter().map(|rows| rows.num_rows() as u64).sum::<u64>();
            assert_eq!(emitted, late + timeless);
        }
    }
}

#[test]
fn two_stages_give_what_one_gives() {
    for (index, windows) in all_windows().into_iter().enumerate() {
        let query = appending(windows);
        let history = history(2_000 + index as u64, false);
        let folder = tempfile::tempdir().unwrap();
        let [partial, last] = query.operators(2).try_into().expect("a partial and a final stage");
        let mut partial = Harness::new(partial, &folder.path().join("partial")).unwrap();
        let mut last = Harness::new(last, &folder.path().join("final")).unwrap();
        let hand_over = |partial: &mut Harness, last: &mut Harness| {
            for batch in partial.take_batches(Port::MAIN) {
                last.push(Input::Rows(batch)).unwrap();
            }
        };
        for (index, input) in history.inputs.iter().enumerate() {
            partial.push(input.clone()).unwrap();
            hand_over(&mut partial, &mut last);
            if let Input::Watermark(_) = input {
                last.push(input.clone()).unwrap();
            }
            if index % 3 == 0 {
                partial.checkpoint().unwrap();
                hand_over(&mut partial, &mut last);
                last.checkpoint().unwrap();
                partial.restart(SubtaskIndex(0), 1).unwrap();
                last.restart(SubtaskIndex(0), 1).unwrap();
            }
        }
        partial.end().unwrap();
        hand_over(&mut partial, &mut last);
        last.end().unwrap();
        assert_eq!(sorted_lines(&last.take(Port::MAIN)).unwrap(), naive(&windows, true, &history.arrivals));
        let counted = last.metrics().figures().late_rows();
        assert_eq!(counted, late(&windows, &history.arrivals).0, "a partial result is late as the rows it stands for");
    }
}

#[test]
fn a_row_that_is_late_for_some_windows_enters_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::new(appending(hopping(20, 10, 0)).operator(), folder.path()).unwrap();
    let line = |start: i64, end: i64, rest: &str| format!("{} | {} | a | {rest}", shown(start), shown(end));
    harness.push(inserts(&[(Some(5), Some("a"), Some(1))])).unwrap();
    assert_eq!(harness.metrics().figures().next_result(), Some(Timestamp(9)));
    harness.push(Input::Watermark(Timestamp(9))).unwrap();
    assert_eq!(sorted_lines(&harness.take(Port::MAIN)).unwrap(), [line(-10, 10, "1 | 1 | 1")]);
    // The restart comes between the two windows of the row.
    harness.checkpoint().unwrap();
    harness.restart(SubtaskIndex(0), 1).unwrap();
    assert_eq!(harness.metrics().figures().next_result(), Some(Timestamp(19)));
    harness.push(inserts(&[(Some(6), Some("a"), Some(2))])).unwrap();
    harness.push(Input::Watermark(Timestamp(18))).unwrap();
    assert!(harness.take(Port::MAIN).is_empty());
    harness.push(Input::Watermark(Timestamp(19))).unwrap();
    assert_eq!(sorted_lines(&harness.take(Port::MAIN)).unwrap(), [line(0, 20, "2 | 3 | 2")]);
    assert_eq!(harness.metrics().figures().late_rows(), 0);
    harness.push(inserts(&[(Some(7), Some("a"), Some(3))])).unwrap();
    assert_eq!(harness.metrics().figures().late_rows(), 1, "both windows of the row have fired");
    assert_eq!(harness.state_bytes(), 0, "a slice is freed when its last window has fired");
    // A long time without rows, and rows again.
    harness.push(Input::Watermark(Timestamp(1_000_000))).unwrap();
    harness.push(inserts(&[(Some(2_000_005), Some("a"), Some(4))])).unwrap();
    harness.end().unwrap();
    let expected = [line(1_999_990, 2_000_010, "1 | 4 | 4"), line(2_000_000, 2_000_020, "1 | 4 | 4")];
    assert_eq!(sorted_lines(&harness.take(Port::MAIN)).unwrap(), expected);
}

#[test]
fn cumulating_windows_repeat_what_came_before_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::new(appending(cumulating(30, 10, 0)).operator(), folder.path()).unwrap();
    let line = |end: i64, rest: &str| format!("{} | {} | a | {rest}", shown(0), shown(end));
    harness.push(inserts(&[(Some(5), Some("a"), Some(1)), (Some(31), Some("b"), Some(9))])).unwrap();
    harness.push(Input::Watermark(Timestamp(12))).unwrap();
    assert_eq!(sorted_lines(&harness.take(Port::MAIN)).unwrap(), [line(10, "1 | 1 | 1")]);
    // Late for the window that ends at 10.
    harness.push(inserts(&[(Some(3), Some("a"), Some(2))])).unwrap();
    harness.push(Input::Watermark(Timestamp(29))).unwrap();
    let expected = [line(20, "2 | 3 | 2"), line(30, "2 | 3 | 2")];
    assert_eq!(sorted_lines(&harness.take(Port::MAIN)).unwrap(), expected, "no row came for the third step");
    harness.push(inserts(&[(Some(29), Some("a"), Some(2))])).unwrap();
    assert_eq!(harness.metrics().figures().late_rows(), 1);
}

#[test]
fn late_changes_of_overlapping_windows_leave_with_their_kinds() {
    let folder = tempfile::tempdir().unwrap();
    let query = Query { changelog: true, ..appending(hopping(20, 10, 0)) };
    let mut harness = Harness::new(query.operator(), folder.path()).unwrap();
    let row = (Some(5), Some("a"), Some(1));
    harness.push(Input::Rows(batch(&[(Insert, row)], true))).unwrap();
    harness.push(Input::Watermark(Timestamp(10))).unwrap();
    assert_eq!(harness.take(Port::MAIN).len(), 1);
    harness.push(Input::Rows(batch(&[(Delete, row)], true))).unwrap();
    harness.push(Input::Watermark(Timestamp(20))).unwrap();
    assert!(harness.take(Port::MAIN).is_empty(), "the row was taken back before the second window fired");
    harness.push(Input::Rows(batch(&[(Insert, row)], true))).unwrap();
    let late = changelog_lines(&harness.take_batches(Port::LATE)).unwrap();
    assert_eq!(late, ["+I | 1970-01-01T00:00:00.005 | a | 1"]);
}

#[test]
fn rows_that_no_window_holds_are_rejected() {
    // Windows begin at every 10 ms, so that none holds the second half of the first 10 ms of all instants: i64::MIN ends in -808.
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::new(appending(hopping(15, 10, 0)).operator(), folder.path()).unwrap();
    let times = [i64::MIN, i64::MIN + 4, i64::MIN + 8, 0, i64::MAX - 5, i64::MAX];
    let input: Vec<InputRow> = times.iter().map(|time| (Some(*time), Some("a"), Some(1))).collect();
    harness.push(inserts(&input)).unwrap();
    let rejected: usize = harness.take(Port::REJECTED).iter().map(|rows| rows.num_rows()).sum();
    assert_eq!(rejected, 3, "the first two and the last");
    harness.end().unwrap();
    let found: Vec<i64> = harness.take(Port::MAIN).iter().flat_map(|rows| instants(rows, "window_start")).collect();
    // Of the two windows of the last but one, the second would end beyond i64::MAX, which ends in 807.
    assert_eq!(found, [i64::MIN + 8, -10, 0, i64::MAX - 17]);
}

fn instants(rows: &RecordBatch, column: &str) -> Vec<i64> {
    rows.column_by_name(column).unwrap().as_primitive::<TimestampMillisecondType>().values().to_vec()
}

#[test]
fn state_moves_to_another_parallelism_between_the_windows_of_a_slice() {
    for (index, windows) in all_windows().into_iter().enumerate() {
        for changelog in [false, true] {
            let query = Query { windows, keyed: true, changelog };
            let history = history(3_000 + index as u64, changelog);
            let folder = tempfile::tempdir().unwrap();
            let mut harness = Harness::new(query.operator(), folder.path()).unwrap();
            history.inputs.iter().for_each(|input| harness.push(input.clone()).unwrap());
            harness.checkpoint().unwrap();
            let mut all = harness.take(Port::MAIN);
            for subtask in 0..3 {
                harness.restart(SubtaskIndex(subtask), 3).unwrap();
                harness.end().unwrap();
                all.extend(harness.take(Port::MAIN));
            }
            assert_eq!(sorted_lines(&all).unwrap(), naive(&windows, true, &history.arrivals), "{windows:?}");
        }
    }
}

#[test]
fn state_tells_its_windows_and_a_description_too() {
    let input = Lineage::named("in", rows(&[]).schema());
    let told = |windows: Windows| {
        let operator = appending(windows).operator();
        let state = operator.state(std::slice::from_ref(&input)).expect("a window has state");
        (state.facets[0].text.clone(), state.tables[0].to_string(), operator.describe())
    };
    let (facet, table, description) = told(hopping(3_600_000, 600_000, 0));
    assert_eq!(facet, "HOP(in.time, 10 min, 1 h)");
    assert!(table.starts_with("windows: (n, sum, max) per (slice_end, key)"), "{table}");
    assert_eq!(description, "WindowAggregate: hopping 3600000 ms every 600000 ms by key: n, sum, max");
    // The offset of the windows is not that of their slices.
    assert_eq!(told(hopping(3_600_000, 1_200_000, 600_000)).0, "HOP(in.time, 20 min, 1 h, offset 10 min)");
    assert_eq!(told(hopping(3_000_000, 1_200_000, 600_000)).0, "HOP(in.time, 20 min, 50 min, offset 10 min)");
    let (facet, _, description) = told(cumulating(86_400_000, 3_600_000, 0));
    assert_eq!(facet, "CUMULATE(in.time, 1 h, 1 d)");
    assert!(description.contains("cumulating up to 86400000 ms by 3600000 ms by key"), "{description}");
    let (facet, table, description) = told(Windows::new(WindowKind::Tumbling { size_millis: 10 }, 0).unwrap());
    assert_eq!(
        (facet.as_str(), description.as_str()),
        ("TUMBLE(in.time, 10 ms)", "WindowAggregate: tumbling 10 ms by key: n, sum, max")
    );
    assert!(table.starts_with("windows: (n, sum, max) per (window_end, key)"), "{table}");
}
