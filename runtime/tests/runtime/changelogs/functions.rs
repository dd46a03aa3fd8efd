//! Functions that take and emit changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use coulee_runtime::RowKind::{Delete, Insert, UpdateAfter, UpdateBefore};
use coulee_runtime::flow::{Flow, GraphBuilder, col, lit};
use coulee_runtime::graph::{NodeKind, OperatorFactory};
use coulee_runtime::harness::{Harness, Input, agrees, changelog_lines, sorted_lines};
use coulee_runtime::keyed::{KeyContext, KeyedFunction};
use coulee_runtime::memory::{MemorySink, MemorySource};
use coulee_runtime::row::Row;
use coulee_runtime::{Batch, Result};
use datafusion_common::ScalarValue;
use datafusion_functions_aggregate::expr_fn::{count, max};

use super::{Change, PHASE, WINDOW, batch, source};
use crate::finish;
use crate::windows::{InputRow, random_rows, rows, shown, splits};

/// The current row of each key: of rows that are only appended, a changelog.
#[derive(Default)]
struct Latest;

type Current = Option<(Option<i64>, Option<String>, Option<i64>)>;

fn values((time, key, value): &(Option<i64>, Option<String>, Option<i64>)) -> [ScalarValue; 3] {
    [ScalarValue::TimestampMillisecond(*time, None), ScalarValue::Utf8(key.clone()), ScalarValue::Int64(*value)]
}

impl KeyedFunction for Latest {
    type State = Current;
    const EMITS_CHANGELOG: bool = true;

    fn process(&mut self, row: Row<'_>, current: &mut Current, context: &mut KeyContext<'_>) -> Result<()> {
        let time = row.timestamp("time")?.map(|time| time.0);
        let new = (time, row.text("key")?.map(str::to_owned), row.integer("value")?);
        // A row without a value deletes its key.
        match (current.take(), new.2) {
            (None, None) => {}
            (None, Some(_)) => context.emit(values(current.insert(new)))?,
            (Some(old), None) => context.emit_change(Delete, values(&old))?,
            (Some(old), Some(_)) => {
                context.emit_change(UpdateBefore, values(&old))?;
                context.emit_change(UpdateAfter, values(current.insert(new)))?;
            }
        }
        Ok(())
    }
}

fn latest<'a>(builder: &'a GraphBuilder, source: MemorySource) -> Flow<'a> {
    let disorder = Duration::from_millis(PHASE as u64);
    let flow = builder.source("in", Arc::new(source)).unwrap().event_time("time", disorder).unwrap();
    let latest = flow.key_by(["key"]).unwrap().process("latest", rows(&[]).schema(), Latest::default).unwrap();
    assert!(latest.is_changelog());
    latest
}

fn operator(builder: GraphBuilder) -> Arc<dyn OperatorFactory> {
    match &builder.finish().unwrap().nodes[1].kind {
        NodeKind::Operator(factory) => factory.clone(),
        other => panic!("expected the function, found {other:?}"),
    }
}

#[test]
fn updates_are_emitted_in_pairs_and_in_order() {
    let builder = GraphBuilder::new(1);
    latest(&builder, MemorySource::new(rows(&[]).schema(), vec![]))
        .sink("out", Arc::new(MemorySink::default()))
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut folders = 0;
    let folder = || {
        folders += 1;
        dir.path().join(folders.to_string())
    };
    let row = |key, value| (Some(7), Some(key), value);
    let first = [row("a", Some(1)), row("b", Some(2)), row("a", Some(3)), row("a", None), row("b", None)];
    let second = [row("b", None), row("a", Some(4))];
    let inputs = [Input::Rows(Batch::inserts(rows(&first))), Input::Rows(Batch::inserts(rows(&second)))];
    let lines = agrees(&operator(builder), &inputs, folder).unwrap();
    let shown = |line: &str| line.replace("@", "1970-01-01T00:00:00.007");
    let expected = ["+I | @ | a | 1", "+I | @ | b | 2", "-U | @ | a | 1", "+U | @ | a | 3", "-D | @ | a | 3"];
    let expected = expected.into_iter().chain(["-D | @ | b | 2", "+I | @ | a | 4"]).map(shown);
    assert_eq!(lines, expected.collect::<Vec<_>>());
}

/// The current rows after all of these, and how many keys each window's current rows have and their largest value.
fn current_per_window(input: &[InputRow]) -> Vec<String> {
    let mut current: BTreeMap<Option<&str>, (Option<i64>, i64)> = BTreeMap::new();
    for (time, key, value) in input {
        match value {
            Some(value) => drop(current.insert(*key, (*time, *value))),
            None => drop(current.remove(key)),
        }
    }
    let mut windows: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for (time, value) in current.into_values() {
        if let Some(time) = time {
            windows.entry(time.div_euclid(WINDOW) * WINDOW).or_default().push(value);
        }
    }
    let line = |(start, values): (i64, Vec<i64>)| {
        let max = values.iter().max().expect("a value");
        format!("{} | {} | {} | {max}", shown(start), shown(start + WINDOW), values.len())
    };
    windows.into_iter().map(line).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_functions_changes_feed_a_window_and_a_sink() {
    // Few rows and one split, so that their order is fixed, and so little time that no window closes before the end.
    let input = random_rows(6, 30);
    for parallelism in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let (all, windows) = (MemorySink::default(), MemorySink::default());
        let builder = GraphBuilder::new(parallelism);
        let latest = latest(&builder, MemorySource::new(rows(&[]).schema(), splits(&input, 1)));
        latest.clone().sink("all", Arc::new(all.clone())).unwrap();
        let aggregates = [count(lit(1i64)).alias("keys"), max(col("value")).alias("max")];
        let window = latest.key_by([]).unwrap().tumble("w", "time", Duration::from_millis(WINDOW as u64), aggregates);
        window.unwrap().sink("windows", Arc::new(windows.clone())).unwrap();
        finish(builder.finish().unwrap(), folder.path()).await;
        let expected = current_per_window(&input);
        assert_eq!(sorted_lines(&windows.rows()).unwrap(), expected, "parallelism {parallelism}");
        assert_well_formed(&all.batches());
    }
}

/// Every row that is taken back is there, and the new value of an update comes right behind the old one, in the same batch.
fn assert_well_formed(batches: &[Batch]) {
    let mut there: BTreeMap<String, i64> = BTreeMap::new();
    let mut updates = 0;
    for batch in batches {
        for row in 0..batch.len() {
            if batch.kind(row) == UpdateBefore {
                updates += 1;
                assert!(row + 1 < batch.len() && batch.kind(row + 1) == UpdateAfter, "half an update");
            }
        }
        for line in changelog_lines(std::slice::from_ref(batch)).unwrap() {
            let (kind, row) = line.split_once(" | ").unwrap();
            let count = there.entry(row.to_owned()).or_default();
            *count += if kind.starts_with('+') { 1 } else { -1 };
            assert!(*count >= 0, "{line} was not there");
        }
    }
    assert!(updates > 0);
}

/// How many rows of a key are there, and a line for each change of that.
struct Balance;

impl KeyedFunction for Balance {
    type State = i64;
    const TAKES_CHANGELOG: bool = true;

    fn process(&mut self, row: Row<'_>, balance: &mut i64, context: &mut KeyContext<'_>) -> Result<()> {
        *balance += if row.kind().is_retraction() { -1 } else { 1 };
        let key = row.text("key")?.map(str::to_owned);
        context.emit([ScalarValue::Utf8(key), ScalarValue::from(row.kind().symbol()), ScalarValue::from(*balance)])
    }
}

fn balance_schema() -> SchemaRef {
    let field = |name, data_type| Field::new(name, data_type, true);
    let fields = vec![field("key", DataType::Utf8), field("kind", DataType::Utf8), field("balance", DataType::Int64)];
    Arc::new(Schema::new(fields))
}

#[test]
fn a_function_sees_what_happened_to_each_row() {
    let builder = GraphBuilder::new(1);
    let flow = builder.source("in", source(&[], 1)).unwrap().key_by(["key"]).unwrap();
    let balance = flow.process("balance", balance_schema(), || Balance).unwrap();
    assert!(!balance.is_changelog(), "a function says itself what it emits");
    balance.sink("out", Arc::new(MemorySink::default())).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut folders = 0;
    let folder = || {
        folders += 1;
        dir.path().join(folders.to_string())
    };
    let row = |key| (None, Some(key), None);
    let changes: Vec<Change> = vec![
        (Insert, row("a")),
        (Insert, row("b")),
        (UpdateBefore, row("a")),
        (UpdateAfter, row("b")),
        (Insert, row("a")),
        (Delete, row("b")),
    ];
    let inputs = [Input::Rows(batch(&changes[..4])), Input::Rows(batch(&changes[4..]))];
    let lines = agrees(&operator(builder), &inputs, folder).unwrap();
    let expected = ["a | +I | 1", "a | +I | 1", "a | -U | 0", "b | +I | 1", "b | +U | 2", "b | -D | 1"];
    assert_eq!(lines, expected);
}

/// Emits a change and does not say so.
struct Secretive;

impl KeyedFunction for Secretive {
    type State = ();

    fn process(&mut self, row: Row<'_>, (): &mut (), context: &mut KeyContext<'_>) -> Result<()> {
        context.emit_change(Delete, [ScalarValue::from(row.integer("value")?)])
    }
}

#[test]
fn a_function_says_what_it_takes_and_emits() {
    let builder = GraphBuilder::new(1);
    let flow = builder.source("in", Arc::new(MemorySource::new(rows(&[]).schema(), vec![]))).unwrap();
    let schema = Arc::new(Schema::new(vec![Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, None), true)]));
    let secretive = flow.key_by(["key"]).unwrap().process("secretive", schema, || Secretive).unwrap();
    secretive.sink("out", Arc::new(MemorySink::default())).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::new(operator(builder), folder.path()).unwrap();
    let row = (None, Some("a"), Some(1));
    let error = harness.push(Input::Rows(Batch::inserts(rows(&[row])))).unwrap_err().to_string();
    assert!(error.contains("const EMITS_CHANGELOG: bool = true"), "{error}");
    let error = harness.push(Input::Rows(batch(&[(Insert, row)]))).unwrap_err().to_string();
    assert!(error.contains("const TAKES_CHANGELOG: bool = true"), "{error}");
}
