//! Rows that expressions fail on: found whatever the batches are, and treated as their table says, once.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};
use arrow::record_batch::RecordBatch;
use coulee_model::{OperatorId, SubtaskIndex};
use coulee_runtime::calc::Calc;
use coulee_runtime::flow::{Flow, GraphBuilder, col, lit};
use coulee_runtime::graph::{Graph, NodeKind, OperatorFactory, Port};
use coulee_runtime::harness::{Harness, Input, sorted_lines};
use coulee_runtime::job::{JobHandle, JobOutcome, launch};
use coulee_runtime::memory::{MemorySink, MemorySource};
use coulee_runtime::row_errors::{OnError, RowErrors, Stage};
use coulee_runtime::{Batch, Result};
use datafusion_common::ScalarValue;
use datafusion_expr::{Cast, Expr, ExprFunctionExt, Operator, when};
use datafusion_functions_aggregate::expr_fn::{count, sum};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{BinaryExpr, Column, Literal, case, cast};

use super::{environment, finish, finish_in_attempts, paced, spec};

/// `time` in milliseconds, a text `a`, and a divisor `d`.
type Row = (i64, &'static str, i64);

fn rows(rows: &[Row]) -> RecordBatch {
    let columns: [(&str, ArrayRef); 3] = [
        ("time", Arc::new(rows.iter().map(|row| Some(row.0)).collect::<TimestampMillisecondArray>())),
        ("a", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1)))),
        ("d", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2)))),
    ];
    RecordBatch::try_from_iter(columns).expect("three columns")
}

const INPUT: [Row; 8] =
    [(1, "1", 1), (2, "x", 1), (3, "3", 0), (4, "4", 2), (5, "", 0), (6, "6", 3), (7, "7", 0), (8, "80", 4)];

fn number(name: &str) -> Expr {
    Expr::Cast(Cast::new(Box::new(col(name)), DataType::Int64))
}

/// The last operator of a graph that one source and these steps make.
fn operator(steps: impl Fn(Flow<'_>) -> Result<Flow<'_>>) -> Arc<dyn OperatorFactory> {
    let builder = GraphBuilder::new(1);
    let source = builder.source("in", Arc::new(MemorySource::new(rows(&[]).schema(), vec![]))).unwrap();
    steps(source).unwrap().sink("out", Arc::new(MemorySink::default())).unwrap();
    let graph = builder.finish().unwrap();
    let mut operators = graph.nodes.iter().filter_map(|node| match &node.kind {
        NodeKind::Operator(factory) => Some(factory.clone()),
        NodeKind::Source(_) | NodeKind::Sink(_) => None,
    });
    operators.next_back().expect("an operator")
}

/// What an operator gives for the input in batches of several sizes, with and without restarts: rows and dead letters.
fn outcome(factory: &Arc<dyn OperatorFactory>, input: &[Row]) -> (Vec<String>, Vec<String>) {
    let mut agreed = None;
    for size in [input.len(), 3, 2, 1] {
        for restart in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let mut harness = Harness::new(factory.clone(), folder.path()).unwrap();
            for part in input.chunks(size) {
                harness.push(Input::Rows(Batch::inserts(rows(part)))).unwrap();
                if restart {
                    harness.checkpoint().unwrap();
                    harness.restart(SubtaskIndex(0), 1).unwrap();
                }
            }
            harness.end().unwrap();
            let letters = harness.take(Port::REJECTED);
            let found = (sorted_lines(&harness.take(Port::MAIN)).unwrap(), letters.iter().flat_map(shown).collect());
            let agreed = agreed.get_or_insert_with(|| found.clone());
            assert_eq!(&found, agreed, "in batches of {size} rows, restarting: {restart}");
        }
    }
    agreed.expect("it ran")
}

/// Dead letters as `expression: reason <- raw`.
fn shown(letters: &RecordBatch) -> Vec<String> {
    let text = |column: &str, row: usize| {
        let column = letters.column_by_name(column).expect("a column of dead letters");
        match column.data_type() {
            DataType::Binary => String::from_utf8(column.as_binary::<i32>().value(row).to_vec()).unwrap(),
            _ if column.is_null(row) => String::new(),
            _ => column.as_string::<i32>().value(row).to_owned(),
        }
    };
    let line = |row| {
        let fields = ["stage", "expression", "reason", "raw"].map(|column| text(column, row));
        format!("{} {}: {} <- {}", fields[0], fields[1], fields[2], fields[3])
    };
    (0..letters.num_rows()).map(line).collect()
}

#[test]
fn a_projection_rejects_the_rows_it_fails_on_and_no_other() {
    let calc = operator(|flow| {
        let columns = [number("a").alias("a"), (lit(12i64) / col("d")).alias("q")];
        flow.filter(col("time").not_eq(lit(ScalarValue::TimestampMillisecond(Some(7), None))))?.select(columns)
    });
    let (good, letters) = outcome(&calc, &INPUT.into_iter().filter(|row| row.0 != 7).collect::<Vec<_>>());
    assert_eq!(good, ["1 | 12", "4 | 6", "6 | 4", "80 | 3"]);
    let raw =
        |time: &str, a: &str, d: i64| format!("{{\"time\":\"1970-01-01 00:00:00.{time}\",\"a\":\"{a}\",\"d\":{d}}}");
    assert_eq!(
        letters,
        [
            format!("expression CAST(a AS BIGINT): cannot cast 'x' to BIGINT <- {}", raw("002", "x", 1)),
            format!("expression 12 / d: division by zero <- {}", raw("003", "3", 0)),
            format!("expression CAST(a AS BIGINT): cannot cast '' to BIGINT <- {}", raw("005", "", 0)),
        ]
    );
}

#[test]
fn a_filter_rejects_rows_and_guards_hold_for_each_row() {
    let failing = operator(|flow| flow.filter((lit(12i64) / col("d")).gt(lit(3i64))));
    let (good, letters) = outcome(&failing, &INPUT);
    assert_eq!(good.len(), 4, "d is 1, 1, 2 and 3 of them: {good:?}");
    assert_eq!(letters.len(), 3);
    assert!(letters.iter().all(|letter| letter.contains("12 / d: division by zero")), "{letters:?}");

    // AND: the left side is false where the right one would fail. Most rows pass it, so that both sides are computed vectorised.
    let guarded = operator(|flow| flow.filter(col("d").not_eq(lit(0i64)).and((lit(12i64) / col("d")).gt(lit(3i64)))));
    assert_eq!(outcome(&guarded, &INPUT), (good, vec![]));

    let case = when(col("d").eq(lit(0i64)), lit(-1i64)).otherwise(lit(12i64) / col("d")).unwrap();
    let case = operator(|flow| flow.select([case.clone().alias("q")]));
    let (good, letters) = outcome(&case, &INPUT);
    assert_eq!(good, ["-1", "-1", "-1", "12", "12", "3", "4", "6"]);
    assert_eq!(letters, Vec::<String>::new());
}

#[test]
fn a_null_for_a_column_that_is_not_null_is_a_rejected_row() {
    // `NULLIF(d, 0)` into a column that is NOT NULL, as `INSERT INTO` makes it.
    let literal = |value| Arc::new(Literal::new(ScalarValue::Int64(value))) as Arc<dyn PhysicalExpr>;
    let d: Arc<dyn PhysicalExpr> = Arc::new(Column::new("d", 2));
    let is_zero = Arc::new(BinaryExpr::new(d.clone(), Operator::Eq, literal(Some(0))));
    let nullif = case(None, vec![(is_zero, literal(None))], Some(d)).unwrap();
    let schema = Arc::new(Schema::new(vec![Field::new("d", DataType::Int64, false)]));
    let calc: Arc<dyn OperatorFactory> = Arc::new(Calc { filter: None, projection: Some(vec![nullif]), schema });
    let (good, letters) = outcome(&calc, &INPUT);
    assert_eq!(good, ["1", "1", "2", "3", "4"]);
    assert_eq!(letters.len(), 3);
    assert!(letters[0].contains("it is null, and column 'd' is NOT NULL"), "{letters:?}");
}

fn window(flow: Flow<'_>) -> Result<Flow<'_>> {
    let guarded = sum(lit(12i64) / col("d")).filter(col("d").not_eq(lit(0i64))).build().unwrap();
    let aggregates = [count(lit(1i64)).alias("n"), sum(number("a")).alias("s"), guarded.alias("q")];
    flow.key_by([])?.tumble("w", "time", Duration::from_millis(4), aggregates)
}

#[test]
fn a_window_rejects_the_rows_that_an_argument_fails_on() {
    let (good, letters) = outcome(&operator(window), &INPUT);
    // Row 2 has no number; a divisor of 0 is filtered out, for that aggregate alone. Row 5 has an empty text.
    let line =
        |from: &str, to: &str, rest: &str| format!("1970-01-01T00:00:00.{from} | 1970-01-01T00:00:00.{to} | {rest}");
    let first = "1970-01-01T00:00:00 | 1970-01-01T00:00:00.004 | 2 | 4 | 12".to_owned();
    let expected = [first, line("004", "008", "3 | 17 | 10"), line("008", "012", "1 | 80 | 3")];
    assert_eq!(good, expected);
    assert_eq!(letters.len(), 2);
    assert!(letters[0].starts_with("expression CAST(a AS BIGINT): cannot cast 'x' to BIGINT <- "), "{letters:?}");
    assert!(letters[1].contains("cannot cast ''"), "{letters:?}");
}

/// Two sources whose rows meet in a projection that divides; each has a table, and a sink of dead letters where it keeps them.
struct Union {
    /// How often the input is repeated.
    times: usize,
    policies: [OnError; 2],
    sink: MemorySink,
    kept: [MemorySink; 2],
}

impl Union {
    fn new(times: usize, policies: [OnError; 2]) -> Self {
        Union { times, policies, sink: MemorySink::default(), kept: Default::default() }
    }

    fn graph(&self, parallelism: u32) -> Graph {
        let builder = GraphBuilder::new(parallelism);
        let source = |name: &str, input: &[Row]| {
            let splits = input.repeat(self.times).chunks(2).map(|part| vec![rows(part)]).collect();
            builder.source(name, Arc::new(MemorySource::new(rows(&[]).schema(), splits))).unwrap()
        };
        let both = source("a", &INPUT).union(source("b", &INPUT[..3])).unwrap();
        let divided = both.select([(lit(12i64) / col("d")).alias("q")]).unwrap();
        divided.sink("out", Arc::new(self.sink.clone())).unwrap();
        let mut graph = builder.finish().unwrap();
        let mut kept_by = Vec::new();
        for (source, table) in ["a", "b"].into_iter().enumerate() {
            let errors = RowErrors { table: table.to_owned(), on_error: self.policies[source] };
            graph.set_row_errors(OperatorId(source as u32), errors);
            if self.policies[source] == OnError::DeadLetter {
                let sink = Arc::new(self.kept[source].clone());
                let sink = graph.add(format!("rejected:{table}"), 1, NodeKind::Sink(sink)).unwrap();
                kept_by.push((table.to_owned(), sink));
            }
        }
        graph.connect_dead_letters(&kept_by).unwrap();
        graph.check().unwrap();
        graph
    }

    fn letters(&self, source: usize) -> usize {
        self.kept[source].rows().iter().map(RecordBatch::num_rows).sum()
    }

    /// Asserts that every row that does not fail has arrived once.
    fn check_results(&self) {
        let mut expected = ["12", "12", "12", "12", "3", "4", "6"].repeat(self.times);
        expected.sort_unstable();
        assert_eq!(sorted_lines(&self.sink.rows()).unwrap(), expected);
    }
}

/// What the last checkpoint of a job counted: table, stage, rows.
fn counted(job: &JobHandle) -> Vec<(String, Stage, u64)> {
    let mut sums = std::collections::BTreeMap::new();
    for errors in job.status().subtasks.iter().flat_map(|subtask| &subtask.row_errors) {
        *sums.entry((errors.table.clone(), errors.stage)).or_insert(0) += errors.rows;
    }
    sums.into_iter().map(|((table, stage), rows)| (table, stage, rows)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_row_of_a_union_is_treated_as_its_own_table_says() {
    for parallelism in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let union = Union::new(1, [OnError::DeadLetter, OnError::Skip]);
        let job = finish(union.graph(parallelism), folder.path()).await;
        union.check_results();
        assert_eq!(union.letters(0), 3);
        let expected = [("a".to_owned(), Stage::Expression, 3), ("b".to_owned(), Stage::Expression, 1)];
        assert_eq!(counted(&job), expected);

        let both = Union::new(1, [OnError::DeadLetter, OnError::DeadLetter]);
        finish(both.graph(parallelism), tempfile::tempdir().unwrap().path()).await;
        assert_eq!((both.letters(0), both.letters(1)), (3, 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_names_table_place_expression_and_reason() {
    let folder = tempfile::tempdir().unwrap();
    let union = Union::new(1, [OnError::Skip, OnError::Fail]);
    let job = launch(spec(union.graph(1)), environment(folder.path())).unwrap();
    let JobOutcome::Failed(error) = job.outcome().await else { panic!("it should fail") };
    let message = error.to_string();
    assert_eq!(error.kind(), coulee_model::ErrorKind::Invalid);
    for part in ["table 'b'", "00001", "12 / d: division by zero", "'format.on-error'"] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_interrupted_counts_and_keeps_each_row_once() {
    let (folder, union) = (tempfile::tempdir().unwrap(), Union::new(40, [OnError::DeadLetter, OnError::DeadLetter]));
    finish_in_attempts(folder.path(), |attempt| {
        paced(union.graph(1 + attempt % 2), if attempt < 5 { 400.0 } else { 1e6 })
    })
    .await;
    union.check_results();
    assert_eq!((union.letters(0), union.letters(1)), (120, 40));
    let job = launch(spec(union.graph(1)), environment(folder.path())).unwrap();
    let errors = job.restored().subtasks.iter().flat_map(|subtask| &subtask.row_errors);
    assert_eq!(errors.map(|errors| errors.rows).sum::<u64>(), 160);
    job.outcome().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_whose_watermark_fails_is_rejected_where_it_is_read() {
    let builder = GraphBuilder::new(1);
    let (sink, kept) = (MemorySink::default(), MemorySink::default());
    let source = MemorySource::new(rows(&[]).schema(), vec![vec![rows(&INPUT)]]);
    let flow = builder.source("a", Arc::new(source)).unwrap();
    let flow = flow.event_time("time", Duration::ZERO).unwrap();
    window(flow).unwrap().sink("out", Arc::new(sink.clone())).unwrap();
    let mut graph = builder.finish().unwrap();
    let NodeKind::Source(source) = &mut graph.nodes[0].kind else { panic!("a source") };
    let event_time = source.event_time.as_mut().expect("it has one");
    event_time.watermark = failing_watermark();
    graph.set_row_errors(OperatorId(0), RowErrors { table: "a".to_owned(), on_error: OnError::DeadLetter });
    let letters = graph.add("rejected:a", 1, NodeKind::Sink(Arc::new(kept.clone()))).unwrap();
    graph.connect_dead_letters(&[("a".to_owned(), letters)]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let job = finish(graph, folder.path()).await;
    let lines: Vec<String> = kept.rows().iter().flat_map(shown).collect();
    // Rows 3, 5 and 7 have a divisor of 0; row 2 has no number for the window.
    assert_eq!(lines.iter().filter(|line| line.contains("division by zero")).count(), 3, "{lines:?}");
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert_eq!(counted(&job), [("a".to_owned(), Stage::Expression, 4)]);
    let count = |rows: &RecordBatch| arrow::compute::sum(rows.column_by_name("n").unwrap().as_primitive::<Int64Type>());
    assert_eq!(sink.rows().iter().filter_map(count).sum::<i64>(), 4);
}

/// `CAST(12 / d AS TIMESTAMP(3))`, which fails where `d` is 0.
fn failing_watermark() -> Arc<dyn PhysicalExpr> {
    let twelve = Arc::new(Literal::new(ScalarValue::Int64(Some(12))));
    let quotient = BinaryExpr::new(twelve, Operator::Divide, Arc::new(Column::new("d", 2)));
    let to = DataType::Timestamp(TimeUnit::Millisecond, None);
    cast(Arc::new(quotient), &rows(&[]).schema(), to).unwrap()
}
