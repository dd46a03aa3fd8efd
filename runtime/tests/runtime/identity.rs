//! Stored state meets a graph that was changed: what goes on, what is refused and with which words, and who takes which state.

use std::sync::Arc;
use std::time::Duration;

use coulee_model::OperatorId;
use coulee_runtime::Result;
use coulee_runtime::flow::{GraphBuilder, col, lit};
use coulee_runtime::graph::Graph;
use coulee_runtime::job::{JobHandle, JobOutcome, JobSettings, JobSpec, StateMismatch, launch, stored_states};
use coulee_runtime::memory::{MemorySink, MemorySource};
use datafusion_expr::Expr;
use datafusion_functions_aggregate::expr_fn::{count, max, sum};

use super::windows::{self, InputRow, random_rows, splits};
use super::{checkpoints, environment, paced, spec};

/// How a window is made.
#[derive(Clone)]
struct Query {
    millis: u64,
    filter: Option<Expr>,
    aggregates: Vec<Expr>,
    key: &'static str,
}

impl Default for Query {
    fn default() -> Self {
        let aggregates = vec![count(lit(1i64)).alias("n"), sum(col("value")).alias("s")];
        Query { millis: 1_000_000, filter: None, aggregates, key: "key" }
    }
}

/// Adds `source → window → sink` for each query; all read one source.
fn graph(queries: &[(&str, Query)], input: &[InputRow]) -> Graph {
    let builder = GraphBuilder::new(1);
    let parts = splits(input, 2);
    let source = Arc::new(MemorySource::new(windows::rows(&[]).schema(), parts));
    let rows = builder.source("in", source).unwrap().event_time("time", Duration::from_millis(20)).unwrap();
    for (name, query) in queries {
        let rows = match &query.filter {
            Some(filter) => rows.clone().filter(filter.clone()).unwrap(),
            None => rows.clone(),
        };
        let size = Duration::from_millis(query.millis);
        let keyed = rows.key_by([query.key]).unwrap();
        let window = keyed.tumble(name, "time", size, query.aggregates.clone()).unwrap();
        window.sink(&format!("out:{name}"), Arc::new(MemorySink::default())).unwrap();
    }
    builder.finish().unwrap()
}

fn one(query: Query) -> Graph {
    graph(&[("w", query)], &random_rows(3, 4_000))
}

/// Runs a graph until it has stored state of some rows, and stops it there.
async fn store(graph: Graph, folder: &std::path::Path) {
    let job = launch(spec(paced(graph, 2_000.0)), environment(folder)).unwrap();
    while job.status().subtasks.iter().map(|s| s.figures.rows_in()).sum::<u64>() < 200 {
        assert!(!checkpoints(&job, 1).await, "the job must be in mid-stream when it is stopped");
    }
    job.stop();
    assert!(matches!(job.outcome().await, JobOutcome::Stopped(_)));
}

fn start(graph: Graph, folder: &std::path::Path) -> Result<JobHandle> {
    launch(spec(graph), environment(folder))
}

/// Why a graph is refused the state in a folder.
fn refusal(graph: Graph, folder: &std::path::Path) -> StateMismatch {
    let error = start(graph, folder).expect_err("the state must not be taken over");
    assert_eq!(error.kind(), coulee_model::ErrorKind::Invalid);
    let why = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<StateMismatch>());
    why.expect("the cause").clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_that_would_mean_something_else_is_refused_with_what_was_and_what_is() {
    let folder = tempfile::tempdir().unwrap();
    store(one(Query::default()), folder.path()).await;
    let positive = col("value").gt(lit(0i64));
    let longer = Query { aggregates: vec![count(lit(1i64)), sum(col("value")), max(col("value"))], ..Query::default() };
    for (query, expected) in [
        (
            Query { millis: 2_000_000, ..Query::default() },
            "the window was TUMBLE(in.time, 1000 s) and is TUMBLE(in.time, 2000 s)",
        ),
        (Query { filter: Some(positive), ..Query::default() }, "the input was in and is in WHERE (in.value > 0)"),
        (Query { key: "value", ..Query::default() }, "the keys was in.key: Utf8 and is in.value: Int64"),
        (longer, "and is count(*): Int64, sum(in.value): Int64, max(in.value): Int64"),
    ] {
        let why = refusal(one(query), folder.path());
        assert!(why.message.contains("operator 'w'") && why.message.contains(expected), "{}", why.message);
        assert!(why.advice.contains("--fresh"), "{}", why.advice);
        assert!(why.operator.is_some_and(|node| node > OperatorId(0)));
    }
    // Nothing of the above has touched it.
    let job = start(one(Query::default()), folder.path()).unwrap();
    assert_eq!(job.notes(), [""; 0]);
    assert!(matches!(job.outcome().await, JobOutcome::Finished));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_its_meaning_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    store(one(Query::default()), folder.path()).await;
    let renamed = vec![count(lit(1i64)).alias("how_many"), sum(col("value")).alias("total")];
    let job = start(one(Query { aggregates: renamed, ..Query::default() }), folder.path()).unwrap();
    assert_eq!(job.notes(), [""; 0], "other names of the result");
    job.cancel();
    assert!(matches!(job.outcome().await, JobOutcome::Cancelled));
    drop(job);
    // Another watermark follows the stored one.
    let mut slower = one(Query::default());
    let coulee_runtime::graph::NodeKind::Source(source) = &mut slower.nodes[0].kind else { panic!("a source") };
    let time = source.event_time.as_mut().unwrap();
    time.watermark = datafusion_physical_expr::expressions::col("time", &source.source.schema()).unwrap();
    let job = start(slower, folder.path()).unwrap();
    let [note] = job.notes() else { panic!("{:?}", job.notes()) };
    assert!(note.contains("of operator 'in', the watermark was ") && note.ends_with("its state stays valid"), "{note}");
    assert!(matches!(job.outcome().await, JobOutcome::Finished));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_without_stored_entries_may_become_another() {
    let folder = tempfile::tempdir().unwrap();
    let empty = |query: Query| graph(&[("w", query)], &random_rows(3, 0));
    let job = start(empty(Query::default()), folder.path()).unwrap();
    job.outcome().await;
    drop(job);
    // At the end of its input a window has stored the last watermark: rows have been before it, for all that is known.
    let why = refusal(empty(Query { millis: 2_000_000, ..Query::default() }), folder.path());
    assert!(why.message.contains("operator 'w'"), "{}", why.message);
    // A new operator has nothing stored.
    let both = [("w", Query::default()), ("v", Query::default())];
    let job = start(graph(&both, &random_rows(3, 0)), folder.path()).unwrap();
    assert!(job.notes().contains(&"operator 'v' is new and begins without state".to_owned()), "{:?}", job.notes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_of_a_checkpoint_says_what_its_operators_keep() {
    let folder = tempfile::tempdir().unwrap();
    store(one(Query::default()), folder.path()).await;
    let record = environment(folder.path()).store.last_checkpoint().expect("a checkpoint");
    let states = stored_states(&record).unwrap();
    let uids: Vec<&str> = states.iter().map(|state| state.uid.as_str()).collect();
    assert_eq!(uids, ["in", "w", "out:w"]);
    assert_eq!(states[1].facet("window"), Some("TUMBLE(in.time, 1000 s)"));
    let shown: Vec<String> = states[1].tables.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown[0],
        "windows: (n, s) per (window_end, key), freed when the watermark passes window_end; keys × open windows"
    );
}

/// As `graph`, whose operators are named by their order, as those of a planner.
fn ordered(queries: &[Query], input: &[InputRow]) -> Graph {
    let names: Vec<String> = (1..=queries.len()).map(|n| if n == 1 { "w".into() } else { format!("w-{n}") }).collect();
    let named: Vec<(&str, Query)> = names.iter().map(String::as_str).zip(queries.iter().cloned()).collect();
    let mut graph = graph(&named, input);
    for node in graph.nodes.clone() {
        let family = node.uid.split('-').next().unwrap_or_default();
        if node.uid.contains('w') {
            graph.set_family(node.id, family);
        }
    }
    graph
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_of_a_family_take_the_state_that_is_described_as_theirs() {
    let input = random_rows(7, 4_000);
    let [short, long, other] = [1_000_000, 2_000_000, 4_000_000].map(|millis| Query { millis, ..Query::default() });
    let folder = tempfile::tempdir().unwrap();
    store(ordered(&[short.clone(), long.clone()], &input), folder.path()).await;
    let stored = || {
        let record = environment(folder.path()).store.last_checkpoint().expect("a checkpoint");
        let states = stored_states(&record).unwrap().into_iter();
        let mut windows: Vec<(String, String)> =
            states.filter_map(|s| Some((s.uid.clone(), s.facet("window")?.to_owned()))).collect();
        windows.sort();
        windows
    };
    let window = |uid: &str, seconds: u32| (uid.to_owned(), format!("TUMBLE(in.time, {seconds} s)"));
    assert_eq!(stored(), [window("w", 1_000), window("w-2", 2_000)]);
    // In the other order.
    store(ordered(&[long.clone(), short.clone()], &input), folder.path()).await;
    assert_eq!(stored(), [window("w", 1_000), window("w-2", 2_000)]);
    // With another one before both.
    store(ordered(&[other.clone(), long.clone(), short.clone()], &input), folder.path()).await;
    assert_eq!(stored(), [window("w", 1_000), window("w-2", 2_000), window("w-3", 4_000)]);
    // The first is gone: that must be allowed, and the second stays who it is.
    let why = refusal(ordered(&[long.clone(), other.clone()], &input), folder.path());
    assert!(why.message.contains("'w'"), "{}", why.message);
    let settings = JobSettings { allow_non_restored_state: true, ..spec(one(Query::default())).settings };
    let graph = ordered(&[long, other], &input);
    let job = launch(JobSpec { settings, ..spec(graph) }, environment(folder.path())).unwrap();
    assert!(job.notes().iter().any(|note| note == "the state of operator 'w' is dropped"), "{:?}", job.notes());
    assert!(matches!(job.outcome().await, JobOutcome::Finished));
    drop(job);
    assert_eq!(stored(), [window("w-2", 2_000), window("w-3", 4_000)]);
}
