//! Functions with state per key: in the harness at every batch size with restarts between every two inputs, and as a job at several parallelisms.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Int64Array, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use coulee_model::{SubtaskIndex, Timestamp};
use coulee_runtime::flow::{GraphBuilder, col, lit};
use coulee_runtime::graph::{Graph, NodeKind, OperatorFactory, Port};
use coulee_runtime::harness::{Harness, Input, agrees, sorted_lines};
use coulee_runtime::keyed::{Due, KeyContext, KeyedFunction, ListState, MapState};
use coulee_runtime::memory::{MemorySink, MemorySource};
use coulee_runtime::row::Row;
use coulee_runtime::{Batch, Result};
use datafusion_common::ScalarValue;

fn input_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        Field::new("user", DataType::Utf8, true),
        Field::new("amount", DataType::Int64, true),
    ]))
}

fn output_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("user", DataType::Utf8, true),
        Field::new("what", DataType::Utf8, false),
        Field::new("value", DataType::Int64, true),
    ]))
}

fn rows(rows: &[(i64, &str, i64)]) -> RecordBatch {
    let at = TimestampMillisecondArray::from_iter_values(rows.iter().map(|(at, ..)| *at));
    let users = StringArray::from_iter_values(rows.iter().map(|(_, user, _)| *user));
    let amounts = Int64Array::from_iter_values(rows.iter().map(|(.., amount)| *amount));
    RecordBatch::try_new(input_schema(), vec![Arc::new(at), Arc::new(users), Arc::new(amounts)]).unwrap()
}

/// Sums amounts into sessions that a gap of 10 ms of event time ends, remembers the largest amounts in order, and the last three in a list.
#[derive(Default)]
struct Sessions;

#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Session {
    user: String,
    sum: i64,
    ends: Option<i64>,
}

const LARGEST: MapState<(i64, i64), String> = MapState::new(0);
const LAST: ListState<i64> = ListState::new(1);

fn row(user: &str, what: &str, value: i64) -> [ScalarValue; 3] {
    [ScalarValue::from(user), ScalarValue::from(what), ScalarValue::Int64(Some(value))]
}

impl KeyedFunction for Sessions {
    type State = Session;

    fn process(&mut self, row_in: Row<'_>, state: &mut Session, context: &mut KeyContext<'_>) -> Result<()> {
        let at = row_in.timestamp("at")?.unwrap_or(Timestamp(0)).0;
        let amount = row_in.integer("amount")?.unwrap_or(0);
        if amount < 0 {
            return context.side("negative", row(row_in.text("user")?.unwrap_or(""), "negative", amount));
        }
        state.user = row_in.text("user")?.unwrap_or("").to_owned();
        state.sum += amount;
        if let Some(before) = state.ends.replace(state.ends.unwrap_or(i64::MIN).max(at + 10)) {
            context.delete_event_timer(Timestamp(before));
        }
        context.event_timer(Timestamp(state.ends.unwrap_or(0)));
        context.map(&LARGEST)?.put(&(amount, at), &state.user)?;
        let mut last = context.list(&LAST)?;
        last.push(&amount)?;
        last.keep_last(3)
    }

    fn timer(&mut self, due: Due, state: &mut Session, context: &mut KeyContext<'_>) -> Result<()> {
        let what = if matches!(due, Due::Event(_)) { "session" } else { "clock" };
        context.emit(row(&state.user, what, state.sum))?;
        if let Some(((largest, at), user)) = context.map(&LARGEST)?.last()? {
            context.emit(row(&user, "largest", largest))?;
            context.map(&LARGEST)?.remove(&(largest, at));
        }
        let last: i64 = context.list(&LAST)?.all()?.iter().sum();
        context.emit(row(&state.user, "last three", last))?;
        (state.sum, state.ends) = (0, None);
        Ok(())
    }
}

fn graph(parallelism: u32, source: MemorySource, out: &MemorySink, negative: &MemorySink) -> Graph {
    let builder = GraphBuilder::new(parallelism);
    let flow = builder.source("in", Arc::new(source)).unwrap().event_time("at", Duration::ZERO).unwrap();
    let keyed = flow.key_by(["user"]).unwrap().side_output("negative", output_schema());
    let sessions = keyed.process("sessions", output_schema(), Sessions::default).unwrap();
    sessions.side("negative").unwrap().sink("negative", Arc::new(negative.clone())).unwrap();
    assert!(sessions.side("late").unwrap_err().to_string().contains("there is: negative"));
    sessions.sink("out", Arc::new(out.clone())).unwrap();
    builder.finish().unwrap()
}

fn sessions() -> Arc<dyn OperatorFactory> {
    let source = MemorySource::new(input_schema(), vec![]);
    let graph = graph(1, source, &MemorySink::default(), &MemorySink::default());
    match &graph.nodes[1].kind {
        NodeKind::Operator(factory) => factory.clone(),
        other => panic!("expected the function, found {other:?}"),
    }
}

const EVENTS: [(i64, &str, i64); 8] = [
    (1, "ann", 5),
    (2, "bob", 7),
    (4, "ann", 3),
    (4, "ann", -1),
    (30, "ann", 20),
    (31, "bob", 1),
    (33, "ann", 1),
    (35, "cyd", 2),
];

/// By hand: sessions of ann [1, 4] = 8 and [30, 33] = 21, of bob 7 and 1, of cyd 2.
const EXPECTED: [&str; 15] = [
    "ann | largest | 20",
    "ann | largest | 5",
    "ann | last three | 24",
    "ann | last three | 8",
    "ann | session | 21",
    "ann | session | 8",
    "bob | largest | 1",
    "bob | largest | 7",
    "bob | last three | 7",
    "bob | last three | 8",
    "bob | session | 1",
    "bob | session | 7",
    "cyd | largest | 2",
    "cyd | last three | 2",
    "cyd | session | 2",
];

#[test]
fn sessions_agree_at_every_batch_size_and_across_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut folders = 0;
    let folder = || {
        folders += 1;
        dir.path().join(folders.to_string())
    };
    let inputs = [
        Input::Rows(Batch::inserts(rows(&EVENTS[..4]))),
        Input::Watermark(Timestamp(20)),
        Input::Rows(Batch::inserts(rows(&EVENTS[4..]))),
    ];
    assert_eq!(agrees(&sessions(), &inputs, folder).unwrap(), EXPECTED);
}

#[test]
fn a_side_output_gets_its_rows_and_the_main_output_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut harness = Harness::new(sessions(), dir.path()).unwrap();
    harness.push(Input::Rows(Batch::inserts(rows(&EVENTS)))).unwrap();
    assert_eq!(sorted_lines(&harness.take(Port::side(0))).unwrap(), ["ann | negative | -1"]);
    assert!(harness.take(Port::MAIN).is_empty());
}

/// Reminds of every row by the wall clock, 100 ms after the key's last one.
struct Reminder;

impl KeyedFunction for Reminder {
    type State = Option<i64>;

    fn process(&mut self, _: Row<'_>, due: &mut Option<i64>, context: &mut KeyContext<'_>) -> Result<()> {
        let next = context.now().plus_millis(100);
        if let Some(before) = due.replace(next.0) {
            context.delete_processing_timer(Timestamp(before));
        }
        context.processing_timer(next);
        Ok(())
    }

    fn timer(&mut self, due: Due, state: &mut Option<i64>, context: &mut KeyContext<'_>) -> Result<()> {
        let Due::Processing(at) = due else { return Ok(()) };
        *state = None;
        context.emit(row("", "reminder", at.0))
    }
}

#[test]
fn processing_timers_fire_while_no_data_comes_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let builder = GraphBuilder::new(1);
    let source = MemorySource::new(input_schema(), vec![]);
    let flow = builder.source("in", Arc::new(source)).unwrap().key_by(["user"]).unwrap();
    flow.process("reminder", output_schema(), || Reminder)
        .unwrap()
        .sink("out", Arc::new(MemorySink::default()))
        .unwrap();
    let graph = builder.finish().unwrap();
    let NodeKind::Operator(factory) = &graph.nodes[1].kind else { panic!("an operator") };
    let mut harness = Harness::new(factory.clone(), dir.path()).unwrap();
    harness.push(Input::Rows(Batch::inserts(rows(&[(0, "ann", 1)])))).unwrap();
    harness.push(Input::Time(Timestamp(50))).unwrap();
    harness.push(Input::Rows(Batch::inserts(rows(&[(0, "ann", 1), (0, "bob", 1)])))).unwrap();
    harness.checkpoint().unwrap();
    harness.restart(SubtaskIndex(0), 1).unwrap();
    harness.push(Input::Time(Timestamp(149))).unwrap();
    assert!(harness.take(Port::MAIN).is_empty());
    harness.push(Input::Time(Timestamp(150))).unwrap();
    assert_eq!(sorted_lines(&harness.take(Port::MAIN)).unwrap(), [" | reminder | 150", " | reminder | 150"]);
}

/// Counts rows per user in a state of 10 kB each.
struct Count;

#[derive(serde::Serialize, serde::Deserialize)]
struct Padded(i64, Vec<u8>);

impl Default for Padded {
    fn default() -> Self {
        Padded(0, vec![7; 10_000])
    }
}

impl KeyedFunction for Count {
    type State = Padded;

    fn process(&mut self, row_in: Row<'_>, state: &mut Padded, context: &mut KeyContext<'_>) -> Result<()> {
        state.0 += 1;
        context.emit(row(row_in.text("user")?.unwrap_or(""), "count", state.0))
    }
}

#[test]
fn state_beyond_the_memory_is_served_from_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let builder = GraphBuilder::new(1);
    let source = MemorySource::new(input_schema(), vec![]);
    let flow = builder.source("in", Arc::new(source)).unwrap().key_by(["user"]).unwrap();
    flow.process("count", output_schema(), || Count).unwrap().sink("out", Arc::new(MemorySink::default())).unwrap();
    let graph = builder.finish().unwrap();
    let NodeKind::Operator(factory) = &graph.nodes[1].kind else { panic!("an operator") };
    // 2,000 users of 10 kB in 1 MiB.
    let users: Vec<String> = (0..2_000).map(|user| format!("user {user}")).collect();
    let mut harness = Harness::with_memory(factory.clone(), dir.path(), 1 << 20).unwrap();
    for round in 1..=3 {
        for some in users.chunks(100) {
            let batch: Vec<(i64, &str, i64)> = some.iter().map(|user| (0, user.as_str(), 0)).collect();
            harness.push(Input::Rows(Batch::inserts(rows(&batch)))).unwrap();
            for counted in harness.take(Port::MAIN) {
                let counts = counted.column(2).as_any().downcast_ref::<Int64Array>().unwrap();
                assert!(counts.iter().all(|count| count == Some(round)), "round {round}: {counts:?}");
            }
            harness.checkpoint().unwrap();
            assert!(harness.state_bytes() < 4 << 20, "{} bytes", harness.state_bytes());
        }
    }
}

#[test]
fn a_union_and_a_filter_feed_one_function_from_two_sources() {
    let builder = GraphBuilder::new(1);
    let source = |name: &str| {
        let source = Arc::new(MemorySource::new(input_schema(), vec![]));
        builder.source(name, source).unwrap().event_time("at", Duration::ZERO).unwrap()
    };
    let both = source("a").filter(col("amount").gt(lit(0))).unwrap().union(source("b")).unwrap();
    assert!(both.clone().event_time("at", Duration::ZERO).is_err(), "event time is a matter of sources");
    let other = both.clone().select([col("user")]).unwrap();
    assert!(both.clone().union(other).unwrap_err().to_string().contains("equal columns"));
    both.key_by(["user"])
        .unwrap()
        .process("count", output_schema(), || Count)
        .unwrap()
        .sink("out", Arc::new(MemorySink::default()))
        .unwrap();
    let unread = builder.finish().unwrap_err();
    assert!(unread.to_string().contains("nothing reads the output of operator 'op:"), "{unread}");
}
