//! What a graph knows of its changelogs before anything runs.

use std::sync::Arc;
use std::time::Duration;

use coulee_model::SubtaskIndex;
use coulee_runtime::Result;
use coulee_runtime::connector::{Bytes, Sink, SinkContext, SinkWriter, async_trait};
use coulee_runtime::flow::{Flow, GraphBuilder, col, lit};
use coulee_runtime::graph::{NodeKind, Port};
use coulee_runtime::job::launch;
use coulee_runtime::keyed::{KeyContext, KeyedFunction};
use coulee_runtime::memory::MemorySink;
use coulee_runtime::metrics::SubtaskMetrics;
use coulee_runtime::row::Row;
use datafusion_functions_aggregate::expr_fn::count;

use super::source;
use crate::windows::rows;
use crate::{environment, spec};

/// A sink that says nothing about changelogs.
#[derive(Debug)]
struct Appends;

#[async_trait]
impl Sink for Appends {
    fn describe(&self) -> String {
        "a heap".to_owned()
    }

    async fn recover(&self, _: &SinkContext, _: &[Bytes], _: &[Bytes]) -> Result<()> {
        Ok(())
    }

    async fn open(
        &self,
        _: &SinkContext,
        _: SubtaskIndex,
        _: &[Bytes],
        _: Arc<SubtaskMetrics>,
    ) -> Result<Box<dyn SinkWriter>> {
        panic!("nothing may run")
    }
}

/// A function that says nothing about changelogs.
struct Plain;

impl KeyedFunction for Plain {
    type State = ();

    fn process(&mut self, _: Row<'_>, (): &mut (), _: &mut KeyContext<'_>) -> Result<()> {
        Ok(())
    }
}

fn changes(builder: &GraphBuilder) -> Flow<'_> {
    builder.source("changes", source(&[], 2)).unwrap().event_time("time", Duration::ZERO).unwrap()
}

fn memory() -> Arc<MemorySink> {
    Arc::new(MemorySink::default())
}

#[test]
fn a_changelog_passes_filters_and_unions_and_ends_in_a_window() {
    let builder = GraphBuilder::new(2);
    let flow = changes(&builder);
    assert!(flow.is_changelog());
    let flow = flow.filter(col("value").gt(lit(0))).unwrap().select([col("time"), col("key")]).unwrap();
    assert!(flow.is_changelog());
    let flow = flow.clone().union(flow).unwrap();
    let window = flow.key_by(["key"]).unwrap().tumble_keeping_late(
        "w",
        "time",
        Duration::from_secs(1),
        [count(lit(1i64)).alias("n")],
    );
    let window = window.unwrap();
    let late = window.side("late").unwrap();
    assert_eq!((window.is_changelog(), late.is_changelog()), (false, true));
    late.sink("late", memory()).unwrap();
    window.sink("out", Arc::new(Appends)).unwrap();
    builder.finish().unwrap();
}

#[test]
fn a_changelog_into_what_only_takes_appended_rows_is_refused_with_both_names() {
    let builder = GraphBuilder::new(2);
    changes(&builder).filter(col("value").gt(lit(0))).unwrap().sink("out", Arc::new(Appends)).unwrap();
    let error = builder.finish().unwrap_err().to_string();
    for part in ["'out' (a heap)", "'op:1' (Filter: ", "only rows that are appended", "aggregate in windows"] {
        assert!(error.contains(part), "{part} in: {error}");
    }

    let builder = GraphBuilder::new(2);
    let function = changes(&builder).key_by(["key"]).unwrap().process("plain", rows(&[]).schema(), || Plain).unwrap();
    assert!(!function.is_changelog());
    function.sink("out", Arc::new(Appends)).unwrap();
    let error = builder.finish().unwrap_err().to_string();
    for part in ["'plain' (plain by key@1)", "'changes' (Memory: 2 splits)", "const TAKES_CHANGELOG: bool = true"] {
        assert!(error.contains(part), "{part} in: {error}");
    }
}

#[test]
fn late_changes_do_not_go_where_rows_are_only_appended() {
    let builder = GraphBuilder::new(1);
    let keyed = changes(&builder).key_by(["key"]).unwrap();
    let window = keyed.tumble_keeping_late("w", "time", Duration::from_secs(1), [count(lit(1i64)).alias("n")]).unwrap();
    window.side("late").unwrap().sink("late", Arc::new(Appends)).unwrap();
    window.sink("out", memory()).unwrap();
    let error = builder.finish().unwrap_err().to_string();
    assert!(error.contains("'late' (a heap) takes only rows that are appended, and the late output of 'w'"), "{error}");
}

#[test]
fn a_changelog_is_not_dealt_out_in_turn() {
    let builder = GraphBuilder::new(2);
    changes(&builder).parallelism(3).sink("out", memory()).unwrap();
    let error = builder.finish().unwrap_err().to_string();
    assert!(error.contains("edge from 'changes' to 'out'") && error.contains("loses its order"), "{error}");
    // To one subtask, each sender's order stays.
    let builder = GraphBuilder::new(2);
    changes(&builder).parallelism(1).sink("out", memory()).unwrap();
    builder.finish().unwrap();
}

#[tokio::test]
async fn a_job_is_refused_like_its_graph() {
    let builder = GraphBuilder::new(1);
    changes(&builder).sink("out", memory()).unwrap();
    let mut graph = builder.finish().unwrap();
    graph.nodes[1].kind = NodeKind::Sink(Arc::new(Appends));
    assert!(graph.is_changelog(graph.nodes[0].id, Port::MAIN));
    let folder = tempfile::tempdir().unwrap();
    let error = launch(spec(graph), environment(folder.path())).expect_err("a refusal").to_string();
    assert!(error.contains("'out' (a heap) takes only rows that are appended"), "{error}");
}
